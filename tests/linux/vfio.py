#!/usr/bin/env python3
"""Our VFIO backend on the vfio-pci of an unmodified Debian kernel, in a guest with a virtual IOMMU.

  vfio.py [--build DIR] [--kernel SERIES] [--keep DIR] [STEP...]

Host 1 of an emulated fabric is the guest's PCI device, as in run.py; the guest binds it to its own vfio-pci, and our
unmodified programs drive it from there. Host 0 has its ordinary tbtd. Exit status 77: the machine's mirror lacks
something, so nothing was tested.
"""
import contextlib
import json
import re
import shutil
import sys

sys.dont_write_bytecode = True
import initramfs  # noqa: E402
import run  # noqa: E402
from guest import Guest  # noqa: E402
from harness import CaseFailed, Fabric, expect, free_port, listening, wait_until  # noqa: E402
from parts import Parts  # noqa: E402

STEPS = {}
HOST = 1
ROOT = "/tbt"  # our programs in the guest lie below it as in the build tree
TBT = f"{ROOT}/bin/tbt"
SECONDS = 120  # for a program in the guest
MODULES = (("vfio", ""), ("vfio_iommu_type1", ""), ("vfio_pci", ""), ("e1000", ""))
GUEST_PORT, GUEST_IP, GATEWAY = 18515, "10.0.2.15", "10.0.2.2"  # of QEMU's user network; the gateway is our loopback
PID_FILE = "/run/tbt/tbtd"  # and an ending
# The IOMMU is there before the device, and remaps interrupts, so that VFIO needs no "unsafe".
IOMMU = ["-device", "intel-iommu,caching-mode=on,intremap=on"]
ATTEMPTS = 3
BUS_MASTER = 1 << 2  # of the PCI command register
VERBS_PROGRAMS = ("ibv_devices", "ibv_rc_pingpong")
# Messages whose packets have a payload frame each: 16 of 4096 bytes.
LARGE = ["-s", 65536, "-m", 4096]
LARGE_FRAMES, LARGE_ITERATIONS = 16, 50
KILLED_BYTES = 200000
LARGE_PAGES = 20  # of 2 MiB: enough for the host's memory


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
    # Busybox has another one of that name, which its shell prefers to what lies in /bin.
    programs["tbt/bin/setpriv"] = shutil.which("setpriv")
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
    guest, before = world.guest, world.counters()["misuse"]
    with holder(world) as owner:
        guest.run(f"echo 1 >/sys/bus/pci/devices/{world.address}/reset")
        guest.wait_until(f"! kill -0 {owner} 2>/dev/null", 30)
        said = guest.run("cat /tmp/holder")
        expect("over ring 0" in said or "does not send" in said, f"the owner of a function that was reset said: {said}")
    expect_released(world)
    # The owner cannot know at once: it may ring for a request, and for the buffer of the answer before that.
    counters = world.counters()
    provoked = counters["misuse"] - before
    known = provoked <= 2 and counters["last_misuse"] == "doorbell on a ring that is not enabled"
    expect(provoked == 0 or known, f"after the reset the owner broke a rule: {counters}")
    world.forgiven[HOST] = world.forgiven.get(HOST, 0) + provoked
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
def rebind(world):
    """The controller goes back to the kernel, and to VFIO again."""
    said = world.guest.run(f"{TBT} unbind {world.address}", SECONDS)
    expect(world.address in said, f"tbt unbind said: {said}")
    world.guest.run(f"test ! -e /sys/bus/pci/devices/{world.address}/driver")
    bind(world)
    probe(world)


def start_daemon(world):
    """The guest's tbtd, until frames pass over the cable."""
    words = f"--controller {world.address} --host {HOST} --fabric {world.fabric.name} --name guest"
    world.guest.run(f"mkdir -p /run && {ROOT}/bin/tbtd {words} >/tmp/tbtd.log 2>&1 &")
    wait_for_path(world)


def wait_for_path(world):
    try:
        wait_until(lambda: "path" in guests_port(world) and "path" in our_port(world), run.DISCOVERY_SECONDS,
                   f"no path between {guests_port(world)} and {our_port(world)}")
    except CaseFailed as failure:
        raise CaseFailed(f"{failure}\n{daemon_log(world)}") from None


def daemon_log(world):
    world.guest.start(f"tail -n 30 /tmp/tbtd.log; {TBT} devices --cables")
    hosts = world.fabric.status()[0]["hosts"]
    counts = f"host 0: {hosts[0]['links']}, guest's controller: {hosts[HOST]['controller']}"
    return f"{world.guest.finish(SECONDS)[1]}\n{counts}"


def our_port(world):
    """Our end of the cable, as host 0 sees it."""
    return world.fabric.status()[0]["hosts"][0]["router"]["ports"][0]


def guests_daemon(world):
    """What the guest's own daemon says; empty until it answers."""
    world.guest.start(f"{TBT} devices --cables --json")
    status, said = world.guest.finish(SECONDS)
    return json.loads(said)[0] if status == 0 else {}


def guests_port(world):
    """The guest's end, as its own daemon sees it; empty until that one answers."""
    ports = guests_daemon(world).get("cables")
    return ports[0] if ports else {}


def frames_sent(world):
    """Of the guest's rail: all frames, and those straight from a process's memory."""
    counters = guests_daemon(world)["rails"][0]["counters"]
    return counters["tx_frames"], counters["tx_direct"]


def kill_in_guest(world, *files):
    """kill -9 of the daemon's processes, named by their pid files."""
    pids = world.guest.run(f"cut -d' ' -f1 {' '.join(files)}").split()
    world.guest.run(f"kill -9 {' '.join(pids)}")
    world.guest.wait_until(f"! kill -0 {pids[0]} 2>/dev/null", 30)


def pingpong(world, words, server_in_guest, before=""):
    """Debian's ibv_rc_pingpong between the hosts, contents compared. `before` goes in front of the guest's."""
    guest, command = world.guest, ["ibv_rc_pingpong", "-c", *map(str, words)]
    server = None
    ours, theirs = f"{before} {TBT} run -- {' '.join(command)} -p {GUEST_PORT}", [*command, "-p", world.port]
    try:
        if server_in_guest:
            guest.run(f"{ours} >/tmp/pingpong 2>&1 &")
            guest.wait_until(f"netstat -ltn | grep -q :{GUEST_PORT}", SECONDS)
            world.fabric.run(0, [*theirs, "127.0.0.1"], SECONDS)
            guest.wait_until("grep -q 'iters in' /tmp/pingpong", SECONDS)
        else:
            port = free_port()
            server = world.fabric.start(0, [*command, "-p", port])
            wait_until(lambda: listening(port), 20, f"no server: {server.output()}")
            said = guest.run(f"{before} {TBT} run -- {' '.join(command)} -p {port} {GATEWAY} 2>&1", SECONDS)
            expect("iters in" in said, f"the guest's ibv_rc_pingpong said: {said}")
            expect(server.wait(SECONDS).status == 0, server.output())
    except CaseFailed as failure:
        if server is not None:
            server.kill()  # it would look for what does not come, on a processor that others want
        guest.start("cat /tmp/pingpong; killall -q -9 ibv_rc_pingpong")
        raise CaseFailed(f"{failure}\n{guest.finish()[1]}\n{daemon_log(world)}") from None


def both_ways(world):
    for size, count, server_in_guest in ((4096, 200, True), (4096, 200, False), (100000, 20, True)):
        patiently(world, ["-s", size, "-n", count], server_in_guest)


def patiently(world, words, server_in_guest, before=""):
    """The program gives up when it hears nothing for half a second, for which a busy machine may let an emulated
    processor wait: that, and nothing else, is tried again."""
    for left in reversed(range(ATTEMPTS)):
        try:
            return pingpong(world, words, server_in_guest, before)
        except CaseFailed as failure:
            if left == 0 or "transport retry counter exceeded" not in str(failure):
                raise
            world.site.say("the program has given up, as on a machine with too much work: once more")


@step
def daemon(world):
    """Our tbtd on the guest's controller and that of host 0 find each other, and frames pass."""
    start_daemon(world)
    peer = our_port(world)["peer"]
    expect(peer["name"] == "guest" and peer["runs_tbt"], f"the guest is not known for what it is: {peer}")
    said = world.guest.run(f"{TBT} run -- ibv_devices", SECONDS)
    expect(re.search(r"^\s+tbt0\s", said, re.M), f"the guest's ibv_devices said: {said}")


@step
def verbs(world):
    """Debian's ibv_rc_pingpong, unmodified, between a process in the guest and one of host 0."""
    world.guest.run(f"ip addr replace {GUEST_IP}/24 dev eth0 && ip link set eth0 up")
    both_ways(world)


@step
def direct(world):
    """Payload frames leave straight from the memory that ibv_rc_pingpong has registered, which is not the
    controller's any more when the program has deregistered it."""
    mapped = world.mapped()
    for server_in_guest in (True, False):
        frames, straight = frames_sent(world)
        patiently(world, [*LARGE, "-n", LARGE_ITERATIONS], server_in_guest)
        wait_until(lambda: world.mapped() == mapped, 30, f"{world.mapped()} bytes are mapped, before it were {mapped}")
        after = frames_sent(world)
        sent, straight = after[0] - frames, after[1] - straight
        # What is sent again is copied.
        expect(straight >= LARGE_FRAMES * LARGE_ITERATIONS * 9 // 10,
               f"only {straight} of {sent} frames left straight from memory")
        world.site.say(f"{straight} of {sent} frames left straight from the program's memory")


def kill_while_it_sends(world):
    guest, mapped = world.guest, world.mapped()
    port = free_port()
    words = ["ibv_rc_pingpong", "-s", KILLED_BYTES, "-m", 4096, "-n", 1000000, "-p", port]
    server = world.fabric.start(0, words)
    try:
        wait_until(lambda: listening(port), 20, f"no server: {server.output()}")
        straight = frames_sent(world)[1]
        guest.run(f"{TBT} run -- {' '.join(map(str, words))} {GATEWAY} >/tmp/pingpong 2>&1 &")
        wait_until(lambda: guests_daemon(world)["processes"], 20, "the program does not attach")
        wait_until(lambda: frames_sent(world)[1] > straight + 500 or not guests_daemon(world)["processes"], SECONDS,
                   "nothing leaves straight from memory")
        processes = guests_daemon(world)["processes"]
        expect(processes, "the program has ended by itself")
        expect(processes[0]["direct_bytes"] >= KILLED_BYTES, f"the daemon says of the process: {processes[0]}")
        expect(world.mapped() >= mapped + KILLED_BYTES, f"{world.mapped()} bytes are mapped, before it were {mapped}")
        guest.run("killall -9 ibv_rc_pingpong")
        wait_until(lambda: world.mapped() == mapped, 30,
                   f"{world.mapped()} bytes are mapped after the kill, before it were {mapped}")
        wait_until(lambda: not guests_daemon(world)["processes"], 30, "the dead process has its slot still")
    except CaseFailed as failure:
        guest.start("cat /tmp/pingpong; killall -q -9 ibv_rc_pingpong")
        raise CaseFailed(f"{failure}\n{guest.finish()[1]}\n{server.output()}\n{daemon_log(world)}") from None
    finally:
        server.kill()


@step
def direct_killed(world):
    """A program that is killed while it sends leaves no byte of its memory to the controller."""
    for left in reversed(range(ATTEMPTS)):
        try:
            kill_while_it_sends(world)
            break
        except CaseFailed as failure:  # as patiently() has it
            if left == 0 or "transport retry counter exceeded" not in str(failure):
                raise
            world.site.say("the program has given up, as on a machine with too much work: once more")
    patiently(world, [*LARGE, "-n", 10], server_in_guest=False)


@step
def direct_limit(world):
    """With a small limit of locked memory (and without the right to pass it) payload is copied, and arrives."""
    mapped, (_, straight) = world.mapped(), frames_sent(world)
    limited = f"ulimit -l 32; {ROOT}/bin/setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock"
    patiently(world, [*LARGE, "-n", LARGE_ITERATIONS], server_in_guest=False, before=limited)
    expect(frames_sent(world)[1] == straight, "frames left straight from memory, above the limit")
    expect(world.mapped() == mapped, f"{world.mapped()} bytes are mapped, before it were {mapped}")


@step
def daemon_killed(world):
    """The guest's daemon is killed: its keeper starts another, without a reset, and programs run as before."""
    kill_in_guest(world, f"{PID_FILE}.pid")
    wait_for_path(world)
    both_ways(world)


@step
def machine_killed(world):
    """Daemon and keeper are killed: nothing of the guest's memory is left to the controller. Others follow."""
    page_bytes = guests_daemon(world)["controller"]["page_bytes"]
    kill_in_guest(world, f"{PID_FILE}.keeper", f"{PID_FILE}.pid")
    expect_released(world)
    expect(page_bytes == 4096, f"without large pages set aside the host's memory is made of {page_bytes} bytes each")
    # The next one finds large pages for the host's memory.
    world.guest.run(f"echo {LARGE_PAGES} >/proc/sys/vm/nr_hugepages")
    start_daemon(world)
    page_bytes = guests_daemon(world)["controller"]["page_bytes"]
    expect(page_bytes == 2 << 20, f"with large pages set aside the host's memory is made of {page_bytes} bytes each")
    both_ways(world)
    patiently(world, [*LARGE, "-n", LARGE_ITERATIONS], server_in_guest=False)


@step
def daemon_ends(world):
    """SIGTERM: the daemon lets the controller go, and tells its peer."""
    world.guest.run(f"kill $(cut -d' ' -f1 {PID_FILE}.pid)")
    world.guest.wait_until(f"test ! -e {PID_FILE}.keeper", 30)
    expect_released(world)
    wait_until(lambda: "path" not in our_port(world), run.DISCOVERY_SECONDS, "host 0 still has a path")


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
        guest = Guest(fabric, HOST, parts, kernel, MODULES, "intel_iommu=on", [*IOMMU, *network], guest_files(site),
                      nice="0")
        cleanup.callback(guest.close)
        run.tell_story(World(fabric, guest, port), options.steps or STEPS, STEPS)


if __name__ == "__main__":
    sys.exit(run.main(STEPS, drive, __doc__))
