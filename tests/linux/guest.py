"""Guest: a Linux in QEMU whose Thunderbolt controller is a host of an emulated fabric, and commands in it."""
import os
import re
import select
import signal
import socket
import subprocess
import time

import initramfs
from harness import CaseFailed

MEMORY_MIB = 384
NICE = os.environ.get("TBT_LINUX_NICE", "10")  # emulating a processor keeps a real one busy
BOOT_SECONDS = 600  # half a minute where the machine has nothing else to do
# On a busy machine the guest does not get its processor in time to measure the speed of its TSC or of its timer.
COMMAND_LINE = "console=ttyS0 panic=-1 loglevel=8 no_timer_check tsc=unstable clocksource=hpet"
MODULES = (("thunderbolt", "dyndbg=+p"), ("thunderbolt_net", ""), ("thunderbolt_stream", ""))


def end(process, seconds=5):
    """SIGTERM, and SIGKILL if that does not help."""
    if process is None or process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Guest:
    """Started by the constructor; booted when wait_for_boot() returns."""

    def __init__(self, fabric, host, parts, kernel, modules=MODULES, append="", qemu_options=(),
                 files=(), nice=NICE):
        self.fabric, self.host, self.parts, self.kernel = fabric, host, parts, kernel
        self.site = fabric.site
        self.name = f"host{host}"
        self.stem = self.site.folder / self.name
        self.server = self.qemu = self.control = None
        self.pending = b""
        self.number = 0
        self.command = b""
        self.console = self.stem.with_suffix(".console")
        self.trace = self.stem.with_suffix(".trace")
        self._serve()
        self._boot(modules, append, qemu_options, files, nice)

    def _serve(self):
        path = self.stem.with_suffix(".vfio")
        words = [self.site.tbt, "fabric", "serve", "--name", self.fabric.name, "--host", self.host,
                 "--socket", path, "--trace", self.trace]
        self.server_log = self.stem.with_suffix(".serve")
        with open(self.server_log, "wb") as log:
            self.server = subprocess.Popen([str(word) for word in words], stdout=log, stderr=log,
                                           env=self.site.environment)
        deadline = time.monotonic() + 10
        while not path.exists():
            if self.server.poll() is not None or time.monotonic() > deadline:
                raise CaseFailed(f"tbt fabric serve: {self.server_log.read_text()}")
            time.sleep(0.02)

    def _boot(self, modules, append, qemu_options, files, nice):
        image = self.stem.with_suffix(".initramfs")
        image.write_bytes(initramfs.build(self.parts, self.kernel, modules, files))
        control = self.stem.with_suffix(".control")
        device = f'{{"driver":"vfio-user-pci","socket":{{"path":"{self.stem.with_suffix(".vfio")}","type":"unix"}},' \
                 '"rombar":0}'
        words = ["nice", "-n", nice, *self.parts.qemu_command(), "-machine", "q35,memory-backend=memory",
                 "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", f"{MEMORY_MIB}M",
                 "-object", f"memory-backend-memfd,id=memory,size={MEMORY_MIB}M,share=on",
                 "-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{self.console}",
                 "-serial", f"unix:{control},server=on,wait=off", *qemu_options, "-device", device,
                 "-kernel", self.kernel.image, "-initrd", image,
                 "-append", f"{COMMAND_LINE} hostname={self.name} {append}"]
        self.qemu_log = self.stem.with_suffix(".qemu")
        with open(self.qemu_log, "wb") as log:
            self.qemu = subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=log,
                                         stderr=log, env=self.site.environment)
        deadline = time.monotonic() + 10
        while True:
            self.control = socket.socket(socket.AF_UNIX)
            try:
                self.control.connect(str(control))
                return
            except OSError:
                self.control.close()
            if self.qemu.poll() is not None or time.monotonic() > deadline:
                raise CaseFailed(f"{self.name}: QEMU: {self.qemu_log.read_text()}")
            time.sleep(0.05)

    def wait_for_boot(self):
        self._answer(0, time.monotonic() + BOOT_SECONDS)

    def start(self, command):
        """Sends a command; finish() waits for it."""
        self.number += 1
        self.command = f"{self.number} {command}\n".encode()
        self.control.sendall(self.command)

    def finish(self, seconds=30):
        """(exit status, output) of the command that was started last."""
        return self._answer(self.number, time.monotonic() + seconds)

    def run(self, command, seconds=30):
        """The output of a command that must succeed."""
        self.start(command)
        status, output = self.finish(seconds)
        if status != 0:
            raise CaseFailed(f"{self.name}: '{command}' ended with {status}: {output}")
        return output

    def wait_until(self, command, seconds):
        """Repeats a command until it succeeds; its output then."""
        deadline = time.monotonic() + seconds
        while True:
            self.start(command)
            status, output = self.finish()
            if status == 0:
                return output
            if time.monotonic() > deadline:
                raise CaseFailed(f"{self.name}: not within {seconds} s: {command}\n{output}")
            time.sleep(0.2)

    def dmesg(self):
        return self.console.read_text(errors="replace")

    def _answer(self, number, deadline):
        mark = re.compile(rb"(?:^|\n)@@(\S*) (\d+)\r?\n")
        while True:
            found = mark.search(self.pending)
            if found:
                output = self.pending[:found.start()].decode(errors="replace").replace("\r", "").strip("\n")
                self.pending = self.pending[found.end():]
                if found.group(1) == str(number).encode():
                    return int(found.group(2)), output
                # The guest's serial line has lost the beginning of a command now and then, mostly after a kill; we
                # do not know why. What was left of it has no number, and did nothing: it is sent again.
                rest = found.group(1).decode(errors="replace")
                print(f"    {self.name} did not get command {number} whole, but '{rest}'", flush=True)
                self.control.sendall(self.command)
            if self.qemu.poll() is not None:
                raise CaseFailed(f"{self.name}: QEMU ended: {self.qemu_log.read_text()}{self._last_words()}")
            if time.monotonic() > deadline:
                raise CaseFailed(f"{self.name}: no answer to command {number}: {self.pending!r}{self._last_words()}")
            if select.select([self.control], [], [], 0.2)[0]:
                self.pending += self.control.recv(65536)

    def _last_words(self):
        lines = self.dmesg().splitlines()[-12:] if self.console.exists() else []
        return "\n  " + "\n  ".join(lines)

    def close(self):
        if self.control is not None:
            self.control.close()
        end(self.qemu)
        end(self.server)
