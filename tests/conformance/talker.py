"""A program of our own on a host of a fabric that answers lines with lines: a word and numbers."""
import pathlib
import queue
import subprocess
import threading

from harness import CaseFailed, expect

ANSWER_SECONDS = 30


class Talker:
    """`program` is below tests/ of the build, as in "leaks/leak_endpoint". It says "ready" first."""

    def __init__(self, fabric, host, program, *words, extra=None):
        site = fabric.site
        command = [site.tbt, "run", "--fabric", fabric.name, "--host", host, "--",
                   pathlib.Path(site.build) / "tests" / program, *words]
        self.shown = " ".join([pathlib.Path(program).name, *words])
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        env=dict(site.environment, **(extra or {})))
        self.lines = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.expect("ready")
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self):
        return self.process.pid

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.strip())
        self.lines.put(None)

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self, seconds=ANSWER_SECONDS):
        """(word, numbers) of the next line."""
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            raise CaseFailed(f"{self.shown}: no answer within {seconds} s") from None
        word, *numbers = line.split() if line else ["ended", "?"]
        try:
            return word, [int(number) for number in numbers]
        except ValueError:
            raise CaseFailed(f"{self.shown}: {self._last_words(line)}") from None

    def _last_words(self, line):
        """A complaint, with what follows it: of a sanitizer, the whole report."""
        said = [line or "ended"]
        while line is not None:
            try:
                line = self.lines.get(timeout=1)
            except queue.Empty:
                break
            said.append(line or "")
        return "\n    ".join(said)

    def expect(self, *words, seconds=ANSWER_SECONDS):
        """The numbers of the next line, which must begin with one of the words."""
        word, numbers = self.hear(seconds)
        expect(word in words, f"{self.shown}: '{' or '.join(words)}' was expected, and there came {word} {numbers}")
        return numbers

    def ask(self, line, word=None):
        self.tell(line)
        return self.expect(word or line.split()[0])

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()
