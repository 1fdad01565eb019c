"""What the conformance cases stand on: a private emulated fabric, programs run on its hosts, and the proof
that nothing is left afterwards.

Only processes that were started here are ever signalled, by their own pid. Every wait has a bound.
"""
import contextlib
import dataclasses
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import tty


class CaseFailed(Exception):
    """A case did not show what it must; the text says what was seen."""


def expect(condition, text):
    if not condition:
        raise CaseFailed(text)


def wait_until(condition, seconds, what):
    """Returns what `condition()` returned once it is true; fails the case after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise CaseFailed(f"after {seconds} s: {what}")
        time.sleep(0.01)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listening(port):
    """Whether a TCP socket listens there. Asked of the kernel: a connection would be taken for the client."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in pathlib.Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
                return True
    return False


@dataclasses.dataclass
class Done:
    """A program that ended."""
    command: str
    status: int
    out: str

    def text(self):
        tail = "\n".join("      " + line for line in self.out.splitlines()[-40:])
        return f"    $ {self.command}\n    -> {self.status}\n{tail}"


class Program:
    """A running program with its output, each line with the time at which it came.

    The output goes through a terminal: then C programs write each line at once, not when a buffer is full. We keep
    the program's end of it open until it has ended and all is read: when the last holder lets go, the kernel may drop
    what was just written (3 of 77,000 programs lost their output). All is read when what we write behind it comes.
    """

    MARK = b"\0\1the program has ended\1\0"

    def __init__(self, command, environment, shown, log=None):
        self.shown = shown
        self.lines = []
        self.log = log
        self.started = time.monotonic()
        ours, theirs = pty.openpty()
        tty.setraw(theirs)  # newlines as they are written
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs,
                                            stderr=subprocess.STDOUT, env=environment)
            ended = os.pidfd_open(self.process.pid)
        except BaseException:
            os.close(ours)
            os.close(theirs)
            raise
        self._reader = threading.Thread(target=self._read, args=(ours, theirs, ended), daemon=True)
        self._reader.start()

    def _read(self, terminal, theirs, ended):
        # Opened anew, so that only our writing does not wait: nobody else reads what fills the terminal.
        behind = os.open(os.ttyname(theirs), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        rest, waits_for, mark = b"", [terminal, ended], self.MARK
        while self.MARK not in rest:
            if terminal in select.select(waits_for, [], [])[0]:
                data = os.read(terminal, 65536)
                now = time.monotonic()
                *lines, rest = (rest + data).split(b"\n")
                self.lines += [(now, line.decode(errors="replace")) for line in lines]
            else:
                with contextlib.suppress(BlockingIOError):
                    mark = mark[os.write(behind, mark):]
                if not mark:
                    waits_for = [terminal]
        rest = rest.partition(self.MARK)[0]
        if rest:
            self.lines.append((time.monotonic(), rest.decode(errors="replace")))
        for descriptor in (terminal, theirs, ended, behind):
            os.close(descriptor)

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.poll() is None

    def signal(self, number):
        if self.running():
            self.process.send_signal(number)

    def output(self):
        return "\n".join(line for _, line in list(self.lines))

    def time_of(self, pattern):
        """When the first line that matches came, or None."""
        return next((when for when, line in list(self.lines) if re.search(pattern, line)), None)

    def wait(self, seconds):
        """Done, after at most `seconds`; a program that goes on longer is killed and fails the case."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise CaseFailed(f"still running after {seconds} s\n{self._done().text()}") from None
        self._reader.join(5)
        if self.log:
            self.log(f"{time.monotonic() - self.started:6.2f} s  {self.shown}")
        return self._done()

    def _done(self):
        return Done(self.shown, self.process.returncode, self.output())

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait(10)
        self._reader.join(5)


def sanitizer_preload(build):
    """Debian's programs know nothing of our sanitizers: their run time must be preloaded for a sanitized libtbt."""
    cache = build / "CMakeCache.txt"
    match = re.search(r"^TBT_SANITIZE:\w+=(.*)$", cache.read_text(), re.M) if cache.exists() else None
    kinds = match.group(1) if match else ""
    compiler = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.*)$", cache.read_text(), re.M) if kinds else None
    for kind, name in (("address", "libasan.so"), ("thread", "libtsan.so")):
        if kind in kinds:
            found = subprocess.run([compiler.group(1), f"-print-file-name={name}"], capture_output=True, text=True)
            return os.path.realpath(found.stdout.strip())
    return ""


class Site:
    """One case group's world: the build under test, a runtime directory of its own, its fabrics and programs."""

    def __init__(self, build, verbose=False):
        self.build = pathlib.Path(build).resolve()
        self.tbt = self.build / "bin" / "tbt"
        self.verbose = verbose
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tbt-conformance."))
        self.runtime = self.folder / "run"
        self.environment = dict(os.environ, TBT_RUNTIME_DIR=str(self.runtime), LC_ALL="C",
                                ASAN_OPTIONS="detect_leaks=0:abort_on_error=1", TSAN_OPTIONS="halt_on_error=1")
        for name in ("TBT_SOCKET", "LD_LIBRARY_PATH", "LD_PRELOAD"):
            self.environment.pop(name, None)
        self.preload = sanitizer_preload(self.build)
        self.programs = []
        self.shm_before = set(os.listdir("/dev/shm"))

    def say(self, text):
        print(f"    {text}", flush=True)

    def start(self, command, extra=None, shown=None):
        command = [str(word) for word in command]
        program = Program(command, dict(self.environment, **(extra or {})), shown or " ".join(command),
                          self.say if self.verbose else None)
        self.programs.append(program)
        return program

    def tbt_command(self, *words, seconds=20, ok=True):
        done = self.start([self.tbt, *words], shown=f"tbt {' '.join(map(str, words))}").wait(seconds)
        if ok:
            expect(done.status == 0, f"tbt failed\n{done.text()}")
        return done

    def close(self):
        """Ends what is left and says what that was: a list of findings, empty if all is well."""
        left = [f"still running: {program.shown}" for program in self.programs if program.running()]
        for program in self.programs:
            program.kill()
        fabrics = [entry.name for entry in self.runtime.iterdir()] if self.runtime.exists() else []
        for name in fabrics:
            self.tbt_command("fabric", "down", "--name", name, ok=False)
        left += self.leftovers()
        shutil.rmtree(self.folder, ignore_errors=True)
        return left

    def own_processes(self):
        """pids of living processes that carry this site's runtime directory in their environment."""
        mark = f"TBT_RUNTIME_DIR={self.runtime}".encode()
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def leftovers(self):
        """Processes, files, sockets and shared memory of this site that are still there."""
        left = [f"process {pid}: {command_line(pid)}" for pid in self.own_processes()]
        if self.runtime.exists():
            left += [f"file {path}" for path in self.runtime.rglob("*")]
        unix = pathlib.Path("/proc/net/unix").read_text()
        left += [f"socket {line.split()[-1]}" for line in unix.splitlines() if str(self.runtime) in line]
        left += [f"/dev/shm/{name}" for name in set(os.listdir("/dev/shm")) - self.shm_before if "tbt" in name]
        return left


def command_line(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return "?"


class Fabric:
    """A running emulated fabric of a site: `with Fabric(site, hosts=2) as fabric`."""

    def __init__(self, site, hosts=2, options=(), name="case"):
        self.site = site
        self.hosts = hosts
        self.options = list(options)
        self.name = name

    def __enter__(self):
        self.site.tbt_command("fabric", "up", "--name", self.name, "--hosts", self.hosts, *self.options)
        return self

    def __exit__(self, kind, error, trace):
        self.down(ok=kind is None)

    def down(self, ok=True):
        self.site.tbt_command("fabric", "down", "--name", self.name, ok=ok)

    def status(self):
        return json.loads(self.site.tbt_command("fabric", "status", "--name", self.name, "--json").out)

    def pid_of_daemon(self, host):
        return int((self.site.runtime / self.name / f"host{host}.pid").read_text().split()[0])

    def pid_of_keeper(self, host):
        return int((self.site.runtime / self.name / f"host{host}.keeper").read_text().split()[0])

    def kill_host(self, host):
        """A host that is gone without a word: nobody replaces its daemon."""
        for pid in (self.pid_of_keeper(host), self.pid_of_daemon(host)):
            os.kill(pid, signal.SIGKILL)

    def start(self, host, command, extra=None):
        """Starts a program on a host; its pid is the program's own, because `tbt run` execs."""
        command = [str(word) for word in command]
        shown = " ".join([f"tbt run --host {host} --", *command])
        if self.site.preload:
            command = ["env", f"LD_PRELOAD={self.site.preload}", *command]
        words = [self.site.tbt, "run", "--fabric", self.name, "--host", str(host), "--", *command]
        return self.site.start(words, extra, shown)

    def run(self, host, command, seconds=30, ok=True, extra=None):
        done = self.start(host, command, extra).wait(seconds)
        if ok:
            expect(done.status == 0, f"failed\n{done.text()}")
        return done

    def start_pair(self, server, client, port, server_host=1, client_host=0, extra=None):
        """Starts a server, waits until it listens, starts its client."""
        first = self.start(server_host, server, extra)
        wait_until(lambda: listening(port) or not first.running(), 20,
                   f"no server on port {port}: {first.shown}\n{first.output()}")
        if not listening(port):
            raise CaseFailed(f"the server ended early\n{first.wait(5).text()}")
        return first, self.start(client_host, client, extra)

    def pair(self, server, client, port, seconds=60, **where):
        """Both ends of a program, run to a good end: (server's Done, client's Done)."""
        first, second = self.start_pair(server, client, port, **where)
        try:
            client_done = second.wait(seconds)
        except CaseFailed as error:
            first.kill()
            raise CaseFailed(f"{error}\n    the other end: {first.shown}\n{first.output()}") from None
        if client_done.status != 0:  # the server may wait for ever for a client that failed
            time.sleep(0.5)
            first.kill()
            raise CaseFailed(f"the client failed\n{client_done.text()}\n    server: {first.shown}\n{first.output()}")
        server_done = first.wait(seconds)
        expect(server_done.status == 0, f"the server failed\n{server_done.text()}\n{client_done.text()}")
        return server_done, client_done
