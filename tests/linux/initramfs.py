"""Builds the initramfs of a test guest: busybox, an init that takes commands over a serial port, modules, and programs
of this machine with the libraries that they need."""
import gzip
import lzma
import pathlib
import re
import stat
import subprocess
import tempfile

INIT = pathlib.Path(__file__).with_name("guest_init.sh")


class Archive:
    """A cpio archive in the kernel's format (Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self):
        self.parts = []
        self.inode = 0
        self.folders = set()

    def add(self, name, mode, data=b"", device=(0, 0)):
        self.inode += 1
        encoded = name.encode() + b"\0"
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self.parts += [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]

    def directory(self, name):
        """With those above it; one that is there already is left alone."""
        if name in self.folders:
            return
        self.folders.add(name)
        if "/" in name:
            self.directory(name.rsplit("/", 1)[0])
        self.add(name, stat.S_IFDIR | 0o755)

    def file(self, name, data, mode=0o644):
        if "/" in name:
            self.directory(name.rsplit("/", 1)[0])
        self.add(name, stat.S_IFREG | mode, data)

    def link(self, name, target):
        self.add(name, stat.S_IFLNK | 0o777, target.encode())

    def finish(self):
        self.add("TRAILER!!!", 0)
        return b"".join(self.parts)


def read_module(path):
    """The module as the kernel takes it."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dc", str(path)], capture_output=True, check=True).stdout
    return data


def with_dependencies(kernel, names):
    """(name, contents) in an order in which they can be loaded."""
    contents, order = {}, []

    def visit(name):
        if name in contents or not kernel.has_module(name):  # built in
            return
        contents[name] = read_module(kernel.module(name))
        depends = re.search(rb"\0depends=([^\0]*)\0", contents[name])
        for other in filter(None, (depends.group(1).decode() if depends else "").split(",")):
            visit(other.replace("-", "_"))
        order.append(name)

    for name in names:
        visit(name)
    return [(name, contents[name]) for name in order]


def libraries_of(path):
    """The paths by which the dynamic loader finds what a program or library needs; its own is among them."""
    text = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", text, re.M))


def without_debug_information(path):
    """The bytes of a program; what only a debugger wants would fill the guest's memory."""
    with tempfile.TemporaryDirectory() as folder:
        small = pathlib.Path(folder) / "small"
        subprocess.run(["strip", "--strip-debug", "-o", str(small), str(path)], check=True)
        return small.read_bytes()


def with_libraries(programs):
    """Files for build(): programs or libraries of this machine, as {name in the guest: path here}, and what they need,
    which lies in the guest where it lies here."""
    files = {name: (path, 0o755) for name, path in programs.items()}
    for path in programs.values():
        for library in libraries_of(path):
            files.setdefault(library.lstrip("/"), (library, 0o755))
    return [(name, without_debug_information(path), mode) for name, (path, mode) in sorted(files.items())]


def build(parts, kernel, modules, files=()):
    """The archive's bytes. `files` are (name in the guest, bytes, mode); a module is (name, "parameter=value ...")."""
    archive = Archive()
    for name in ("bin", "dev", "proc", "sys", "lib", "lib/modules", "tmp"):
        archive.directory(name)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.file("bin/busybox", parts.busybox.read_bytes(), 0o755)
    archive.link("bin/sh", "busybox")
    archive.file("init", INIT.read_bytes(), 0o755)
    parameters = dict(modules)
    loaded = []
    for name, data in with_dependencies(kernel, list(parameters)):
        archive.file(f"lib/modules/{name}.ko", data)
        loaded.append(f"{name} {parameters.get(name, '')}".strip())
    archive.file("lib/modules/order", "".join(line + "\n" for line in loaded).encode())
    for name, data, mode in files:
        archive.file(name, data, mode)
    return archive.finish()
