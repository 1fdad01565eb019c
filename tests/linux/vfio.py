#!/usr/bin/env python3
"""Our VFIO backend on the vfio-pci of an unmodified Debian kernel, in a guest with a virtual IOMMU.

  vfio.py [--build DIR] [--kernel SERIES] [--keep DIR] [STEP...]

Host 1 of an emulated fabric is the guest's PCI device, as in run.py; the guest binds it to its own vfio-pci, and our
unmodified programs drive it from there. Host 0 has its ordinary tbtd. Exit status 77: the machine's mirror lacks
something, so nothing was tested.
"""
import contextlib
import re
import shutil
import sys

sys.dont_write_bytecode = True
import initramfs  # noqa: E402
import run  # noqa: E402
from guest import Guest  # noqa: E402
from harness import Fabric, expect, free_port, wait_until  # noqa: E402
from parts import Parts  # noqa: E402

STEPS = {}
HOST = 1
ROOT = "/tbt"  # our programs in the guest lie below it as in the build tree
TBT = f"{ROOT}/bin/tbt"
SECONDS = 120  # for a program in the guest
MODULES = (("vfio", ""), ("vfio_iommu_type1", ""), ("vfio_pci", ""), ("e1000", ""))
GUEST_PORT = 18515
# The IOMMU is there before the device, and remaps interrupts, so that VFIO needs no "unsafe".
IOMMU = ["-device", "intel-iommu,caching-mode=on,intremap=on"]
BUS_MASTER = 1 << 2  # of the PCI command register
VERBS_PROGRAMS = ("ibv_devices", "ibv_rc_pingpong")


def step(function):
    STEPS[function.__name__] = function
    return function


class World(run.World):
    """One guest, and the address of the controller in it."""

    def __init__(self, fabric, guest, port):
        super().__init__(fabric, [guest])
        self.guest, self.port = guest, port
        self._address = None

    @property
    def address(self):
        if self._address is None:
            found = self.guest.run("for d in /sys/bus/pci/devices/*; do "
                                   "grep -q 0x0c0340 $d/class && basename $d; done; true")
            expect(re.fullmatch(r"[0-9a-f:.]+", found), f"the guest has not one controller but '{found}'")
            self._address = found
        return self._address

    def counters(self):
        """Of the guest's controller, as the model has counted."""
        return self.fabric.status()[0]["hosts"][HOST]["controller"]

    def mapped(self):
        """Bytes of the guest's memory that the controller may reach."""
        return self.counters()["mapped_bytes"]

    def command_register(self):
        path = f"/sys/bus/pci/devices/{self.address}/config"
        return int(self.guest.run(f"od -An -tx2 -j4 -N2 {path}"), 16)


@contextlib.contextmanager
def holder(world):
    """The pid of a process in the guest that drives the controller; what it says is in /tmp/holder."""
    guest = world.guest
    owner = guest.run(f"{TBT} nhi ring0 {world.address} --repeat 600 >/tmp/holder 2>&1 & echo $!")
    guest.wait_until("grep -q ^woken /tmp/holder", SECONDS)
    yield owner
    guest.run(f"kill {owner} 2>/dev/null; while kill -0 {owner} 2>/dev/null; do sleep 0.1; done")


def expect_released(world):
    """Nobody has the controller: it reaches no memory."""
    wait_until(lambda: world.mapped() == 0, 30, f"the controller still reaches {world.mapped()} bytes of the guest")
    command = world.command_register()
    expect(not command & BUS_MASTER, f"the controller is still a bus master: {command:#x}")


def guest_files(site):
    """Our programs, and Debian's, with their libraries."""
    build = site.build
    programs = {f"tbt/bin/{name}": build / "bin" / name for name in ("tbt", "tbtd")}
    programs |= {f"tbt/lib/tbt-rdma/{name}": build / "lib" / "tbt-rdma" / name
                 for name in ("libibverbs.so.1", "libtbt.so.0")}
    for name in VERBS_PROGRAMS:
        path = shutil.which(name)
        expect(path is not None, f"{name} is not installed here: ./test installs it (ibverbs-utils)")
        programs[f"bin/{name}"] = path
    return initramfs.with_libraries(programs)


@step
def bind(world):
    """`tbt bind` gives the controller to vfio-pci; it reaches none of the guest's memory."""
    guest = world.guest
    said = guest.run(f"{TBT} bind {world.address}", SECONDS)
    expect("is bound to vfio-pci" in said, f"tbt bind said: {said}")
    driver = guest.run(f"basename $(readlink /sys/bus/pci/devices/{world.address}/driver)")
    expect(driver == "vfio-pci", f"the controller's driver is {driver}")
    group = guest.run(f"basename $(readlink /sys/bus/pci/devices/{world.address}/iommu_group)")
    guest.run(f"test -c /dev/vfio/{group}")
    expect_released(world)


@step
def probe(world):
    """`tbt nhi probe` reads the registers through the BAR that vfio-pci lets it map."""
    said = world.guest.run(f"{TBT} nhi probe {world.address}", SECONDS)
    for pattern in (r"^bar0 +512 KiB, 504 KiB of it mapped", r"^id +8086:5781", r"^version +0x40, USB4 v2",
                    r"^rings +12: ring 0 for control"):
        expect(re.search(pattern, said, re.M), f"tbt nhi probe does not say {pattern}: {said}")
    expect_released(world)


@step
def ring0(world):
    """`tbt nhi ring0`: the router answers, so DMA goes through the IOMMU both ways; and it interrupts, by MSI-X."""
    before = world.counters()["interrupts"]
    said = world.guest.run(f"{TBT} nhi ring0 {world.address} --repeat 2", SECONDS)
    for pattern in (r"^interrupts +16 vectors", r"^by polling +router 8087:", r"^woken +router 8087:",
                    r"^repeated +[1-9][0-9]* answers in 2 s, 0 without their interrupt"):
        expect(re.search(pattern, said, re.M), f"tbt nhi ring0 does not say {pattern}: {said}")
    answers = int(re.search(r"^repeated +(\d+)", said, re.M).group(1))
    fired = world.counters()["interrupts"] - before
    expect(fired >= answers, f"{answers} answers and only {fired} interrupts")
    world.site.say(said.splitlines()[-1])
    expect_released(world)


@step
def one_owner(world):
    """While somebody drives the controller its memory is mapped, and nobody else gets it."""
    with holder(world):
        expect(world.mapped() > 0, "the controller reaches no memory although it is driven")
        expect(world.command_register() & BUS_MASTER, "the controller is driven and no bus master")
        world.guest.start(f"{TBT} nhi ring0 {world.address} 2>&1")
        status, said = world.guest.finish(SECONDS)
        expect(status == 1 and "another process has the controller" in said, f"a second owner got {status}: {said}")
    expect_released(world)


@step
def reset(world):
    """The kernel resets the function under its owner, who sees that its ring has stopped."""
    guest = world.guest
    with holder(world) as owner:
        guest.run(f"echo 1 >/sys/bus/pci/devices/{world.address}/reset")
        guest.wait_until(f"! kill -0 {owner} 2>/dev/null", 30)
        said = guest.run("cat /tmp/holder")
        expect("over ring 0" in said or "does not send" in said, f"the owner of a function that was reset said: {said}")
    expect_released(world)
    ring0(world)


@step
def killed(world):
    """An owner that is killed leaves nothing: no mapping, no bus master; and the next one begins anew."""
    with holder(world) as owner:
        expect(world.mapped() > 0, "the controller reaches no memory although it is driven")
        world.guest.run(f"kill -9 {owner}")
        expect_released(world)
    ring0(world)


@step
def unbind(world):
    """The controller goes back to the kernel, and to VFIO again."""
    said = world.guest.run(f"{TBT} unbind {world.address}", SECONDS)
    expect(world.address in said, f"tbt unbind said: {said}")
    world.guest.run(f"test ! -e /sys/bus/pci/devices/{world.address}/driver")
    bind(world)
    probe(world)


def drive(options, site, kept):
    parts = Parts()
    kernel = parts.kernel(options.kernel)
    print(f"  QEMU {parts.qemu_version}, Linux {kernel.release}, vfio-pci", flush=True)
    port = free_port()
    network = ["-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:{GUEST_PORT}",
               "-device", "e1000,netdev=net,romfile="]
    with Fabric(site, options=["--guest", HOST]) as fabric, contextlib.ExitStack() as cleanup:
        if kept:
            cleanup.callback(run.keep, site, kept)
        guest = Guest(fabric, HOST, parts, kernel, MODULES, "intel_iommu=on", [*IOMMU, *network], guest_files(site))
        cleanup.callback(guest.close)
        run.tell_story(World(fabric, guest, port), options.steps or STEPS, STEPS)


if __name__ == "__main__":
    sys.exit(run.main(STEPS, drive, __doc__))
