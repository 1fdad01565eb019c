#!/usr/bin/env python3
"""Fetches what the tests with Linux guests need, without installing anything: QEMU, Debian kernels, busybox.

  parts.py [--kernel SERIES]...       fetches and prints where things are; SERIES is for example 7.3 or 6.12

Everything comes from the machine's Debian mirror through apt, with lists and a cache of its own, and is unpacked below
~/.cache/tbt-rdma/linux ($TBT_LINUX_CACHE). QEMU must be 10.1 or later for its vfio-user client; it is started
through its own dynamic loader, so the release of the machine does not matter.
"""
import argparse
import fcntl
import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SUITES = ("trixie", "trixie-backports")
QEMU_SUITE = "trixie-backports"
QEMU_MIN = (10, 1)
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
DEFAULT_KERNEL = "7.3"  # the first with all of USB4, USB4_NET and USB4_STREAM in Debian


class PartMissing(Exception):
    """The mirror does not have it, or cannot be reached: a sentence for people."""


def cache_dir():
    named = os.environ.get("TBT_LINUX_CACHE")
    return pathlib.Path(named) if named else pathlib.Path.home() / ".cache" / "tbt-rdma" / "linux"


def machine_mirror():
    """The URI of the machine's own Debian mirror."""
    sources = [pathlib.Path("/etc/apt/sources.list"), *sorted(pathlib.Path("/etc/apt/sources.list.d").glob("*"))]
    for path in sources:
        text = path.read_text() if path.is_file() else ""
        for uri in re.findall(r"(?:^URIs:\s*|^deb\s+(?:\[[^]]*\]\s+)?)(https?://\S*/debian)/?\s", text, re.M):
            return uri
    return "http://deb.debian.org/debian"


class Apt:
    """apt with configuration, lists and cache of its own; its idea of what is installed is: nothing."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        signed = f"[signed-by={KEYRING}] " if pathlib.Path(KEYRING).exists() else ""
        lines = [f"deb {signed}{machine_mirror()} {suite} main\n" for suite in SUITES]
        (folder / "sources.list").write_text("".join(lines))
        settings = {"Dir::Etc::SourceList": folder / "sources.list", "Dir::Etc::SourceParts": "/dev/null",
                    "Dir::State::Lists": folder / "lists", "Dir::State::Status": folder / "status",
                    "Dir::Cache": folder / "cache", "APT::Install-Recommends": "false",
                    "APT::Architecture": "amd64", "Dir::Etc::Preferences": "/dev/null",
                    "Dir::Etc::PreferencesParts": "/dev/null"}
        if os.geteuid() == 0:
            settings["APT::Sandbox::User"] = "root"
        self.options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def run(self, tool, *words, cwd=None):
        done = subprocess.run([tool, "-q", *self.options, *words], cwd=cwd, text=True, capture_output=True,
                              check=False)
        if done.returncode != 0:
            last = [line for line in done.stderr.splitlines() if line.startswith("E:")] or [done.stderr.strip()]
            raise PartMissing(f"'{tool} {' '.join(words)}' against {machine_mirror()}: {last[0]}")
        return done.stdout

    @functools.cached_property
    def names(self):
        self.run("apt-get", "update")
        return set(self.run("apt-cache", "pkgnames").split())

    def fetch_closure(self, suite, *packages):
        """The .deb files of the packages and of all that they depend on."""
        self.require(*packages)
        listed = self.run("apt-get", "--print-uris", "-y", "-t", suite, "install", *packages)
        files = [line.split()[1] for line in listed.splitlines() if line.startswith("'")]
        self.run("apt-get", "--download-only", "-y", "-t", suite, "install", *packages)
        return [self.folder / "cache" / "archives" / name for name in files]

    def fetch(self, package, into):
        self.require(package)
        self.run("apt-get", "download", package, cwd=into)
        return max(into.glob(f"{package}_*.deb"), key=lambda path: path.stat().st_mtime)

    def require(self, *packages):
        for package in packages:
            if package not in self.names:
                raise PartMissing(f"{machine_mirror()} has no {package} in {' or '.join(SUITES)}")


def unpack(deb, into):
    subprocess.run(["dpkg-deb", "-x", str(deb), str(into)], check=True)


class Parts:
    """What has been fetched. Each part is made once, whole or not at all."""

    def __init__(self):
        self.root = cache_dir()
        self.root.mkdir(parents=True, exist_ok=True)

    @functools.cached_property
    def apt(self):
        return Apt(self.root / "apt")

    def _make(self, name, build):
        """The folder `name`, filled by build(folder) unless it is there."""
        folder = self.root / name
        with open(self.root / "lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                fresh = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}.", dir=self.root))
                try:
                    build(fresh)
                    fresh.chmod(0o755)
                    fresh.rename(folder)
                finally:
                    shutil.rmtree(fresh, ignore_errors=True)
        return folder

    @functools.cached_property
    def qemu_root(self):
        def build(folder):
            for deb in self.apt.fetch_closure(QEMU_SUITE, "qemu-system-x86", "busybox-static"):
                unpack(deb, folder)
        return self._make("qemu", build)

    @property
    def busybox(self):
        return self.qemu_root / "usr/bin/busybox"

    def qemu_command(self):
        """The words that start QEMU; what follows are its own options."""
        usr = self.qemu_root / "usr"
        return [usr / "lib64/ld-linux-x86-64.so.2", "--library-path", usr / "lib/x86_64-linux-gnu",
                usr / "bin/qemu-system-x86_64", "-L", usr / "share/qemu", "-L", usr / "share/seabios"]

    @functools.cached_property
    def qemu_version(self):
        words = [str(word) for word in self.qemu_command()]
        text = subprocess.run([*words, "--version"], text=True, capture_output=True, check=True).stdout
        version = re.search(r"version (\d+)\.(\d+)\.(\d+)", text)
        if tuple(map(int, version.groups()[:2])) < QEMU_MIN:
            raise PartMissing(f"QEMU's {version.group(0)} has no vfio-user-pci: 10.1 or later must be in "
                              f"{machine_mirror()}")
        return ".".join(version.groups())

    def kernel(self, series=DEFAULT_KERNEL):
        return Kernel(self._make(f"kernel-{series}", functools.partial(self._build_kernel, series)))

    def _build_kernel(self, series, folder):
        pattern = re.compile(rf"linux-image-({re.escape(series)}\.(\d+)\+deb\d+)-amd64")
        found = [match for match in map(pattern.fullmatch, self.apt.names) if match]
        release = max(found, key=lambda match: int(match.group(2)), default=None)
        if release is None:
            raise PartMissing(f"{machine_mirror()} has no kernel {series} in {' or '.join(SUITES)}")
        name = release.group(1)
        packages = [f"linux-{kind}-{name}-amd64" for kind in ("binary", "modules")]
        if packages[0] not in self.apt.names:
            packages = [f"linux-image-{name}-amd64"]
        for package in packages:
            deb = self.apt.fetch(package, folder)
            unpack(deb, folder)
            deb.unlink()


class Kernel:
    def __init__(self, folder):
        self.folder = folder
        base = next((path for path in (folder / "usr/lib/modules", folder / "lib/modules") if path.is_dir()), None)
        if base is None:
            raise PartMissing(f"{folder} holds no kernel modules: remove it and try again")
        self.release = next(base.iterdir()).name
        self.modules = base / self.release / "kernel"
        images = [base / self.release / "vmlinuz", folder / "boot" / f"vmlinuz-{self.release}"]
        self.image = next(path for path in images if path.is_file())

    @functools.cached_property
    def _paths(self):
        return {path.name.split(".")[0].replace("-", "_"): path for path in self.modules.rglob("*.ko*")}

    def has_module(self, name):
        return name in self._paths

    def module(self, name):
        """The file of a module."""
        return self._paths[name]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", action="append", help=f"series, for example {DEFAULT_KERNEL}")
    arguments = parser.parse_args()
    parts = Parts()
    try:
        print(f"QEMU {parts.qemu_version} in {parts.qemu_root}")
        for series in arguments.kernel or [DEFAULT_KERNEL]:
            kernel = parts.kernel(series)
            print(f"Linux {kernel.release} in {kernel.folder}")
    except PartMissing as missing:
        sys.exit(f"parts.py: {missing}")


if __name__ == "__main__":
    main()
