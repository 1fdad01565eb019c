#!/usr/bin/env python3
"""Two Linux guests on the two hosts of an emulated fabric: their unmodified thunderbolt drivers against our model.

  run.py [--build DIR] [--kernel SERIES] [--nhi FLAVOUR[,FLAVOUR]] [--keep DIR] [STEP...]

The guests boot once; the steps follow each other on them, and each prints how long it took. Without --kernel it is
the first one in Debian that has everything. --keep copies consoles and control traces. Exit status 77: the machine's
mirror lacks something (parts.py says what), so nothing was tested.
"""
import argparse
import contextlib
import os
import pathlib
import re
import shutil
import signal
import sys
import time

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "conformance"))
from guest import Guest  # noqa: E402
from harness import CaseFailed, Fabric, Site, expect  # noqa: E402
from parts import DEFAULT_KERNEL, PartMissing, Parts  # noqa: E402

SKIPPED = 77
DISCOVERY_SECONDS = 60
PEER = "/sys/bus/thunderbolt/devices/0-1"  # domain 0, route 1: what is at the other end of the first port's cable
ROUTER = "/sys/bus/thunderbolt/devices/0-0"
MTU = 65520
STREAM_BYTES = 3_000_100  # not a multiple of anything that a frame is
STEPS = {}


def step(function):
    """A function(world), run in the order of this file."""
    STEPS[function.__name__] = function
    return function


class World:
    def __init__(self, fabric, guests):
        self.fabric, self.guests = fabric, guests
        self.site = fabric.site
        self.forgiven = {}  # by host: rules that a step made the driver break

    def pairs(self):
        """(guest, the other one), both ways."""
        return list(zip(self.guests, reversed(self.guests)))

    def cable(self, state):
        self.site.tbt_command("cable", "--fabric", self.fabric.name, state, 0)


def attribute(guest, path):
    return guest.run(f"cat {path}")


@step
def discovery(world):
    """Each guest finds the other by XDomain, with its name, its identity, and the speed of the cable."""
    for guest, peer in world.pairs():
        guest.wait_until(f"test -e {PEER}/unique_id", DISCOVERY_SECONDS)
        expect(attribute(guest, f"{PEER}/unique_id") == attribute(peer, f"{ROUTER}/unique_id"),
               f"{guest.name} sees another host than {peer.name}")
        for name, want in (("device_name", peer.name), ("rx_speed", "40.0 Gb/s"),
                           ("tx_speed", "40.0 Gb/s"), ("rx_lanes", "2"), ("tx_lanes", "2")):
            got = attribute(guest, f"{PEER}/{name}")
            expect(got == want, f"{guest.name}: {name} is '{got}' and not '{want}'")


def bring_up_network(world):
    for guest in world.guests:
        guest.wait_until("test -d /sys/class/net/thunderbolt0", DISCOVERY_SECONDS)
        guest.run(f"ip addr replace 192.0.2.{1 + guest.host}/24 dev thunderbolt0 && "
                  f"ip link set thunderbolt0 mtu {MTU} up")
    for guest in world.guests:
        guest.wait_until("test \"$(cat /sys/class/net/thunderbolt0/carrier)\" = 1", DISCOVERY_SECONDS)


def evidence(world):
    """What the controllers and the network devices have counted, for a failure's text."""
    lines = [f"host {host['host']}: {host['controller']}" for host in world.fabric.status()[0]["hosts"]]
    for guest in world.guests:
        guest.start("cd /sys/class/net/thunderbolt0/statistics && grep -v '^0$' *")
        lines.append(f"{guest.name}: {' '.join(guest.finish()[1].split())}")
    return "\n    ".join(["", *lines])


def ping(world, guest, peer, size, count):
    """The best round trip in ms. One at a time: busybox waits for its last answers only as long as for those before."""
    one = f"ping -q -c 1 -W 30 -s {size} 192.0.2.{1 + peer.host}"
    guest.start(f"for i in $(seq {count}); do {one} || exit; done")
    status, output = guest.finish(300)
    expect(status == 0, f"{guest.name}: {size} bytes were lost: {output}{evidence(world)}")
    times = re.findall(r"= ([\d.]+)/", output)
    expect(len(times) == count, f"{guest.name}: {len(times)} answers to {count} pings: {output}")
    return min(map(float, times))


@step
def network(world):
    """thunderbolt0 on either side: carrier, speed, and small and large packets without loss."""
    bring_up_network(world)
    for guest, peer in world.pairs():
        speed = guest.run("cat /sys/class/net/thunderbolt0/speed 2>/dev/null || true")  # not in 6.12
        expect(speed in ("80000", ""), f"{guest.name}: thunderbolt0 has {speed} Mb/s")
        best = [ping(world, guest, peer, size, count) for size, count in ((56, 20), (1400, 20), (60000, 10))]
        world.site.say(f"{guest.name}: ping 56, 1400, 60000 bytes: best {', '.join(map(str, best))} ms")
        dropped = guest.run("cat /sys/class/net/thunderbolt0/statistics/*_errors")
        expect(set(dropped.split()) == {"0"}, f"{guest.name}: thunderbolt0 counts errors: {dropped}")


def stream_group(guest):
    """The configfs folder of the peer's stream service."""
    guest.wait_until(f"grep -l '^stream$' {PEER}/0-1.*/key", DISCOVERY_SECONDS)
    service = guest.run(f"dirname $(grep -l '^stream$' {PEER}/0-1.*/key)").rsplit("/", 1)[1]
    return f"/sys/kernel/config/thunderbolt/stream/{service}"


@step
def stream(world):
    """USB4STREAM: a stream is agreed on by name, and carries data of a known checksum both ways."""
    if not all(guest.kernel.has_module("thunderbolt_stream") for guest in world.guests):
        world.site.say(f"Linux {world.guests[0].kernel.release} has no thunderbolt_stream: left out")
        return
    first, second = (f"{stream_group(guest)}/data" for guest in world.guests)
    world.guests[0].run(f"mkdir -p {first} && echo -1 >{first}/in_hopid && echo -1 >{first}/out_hopid")
    # Whoever makes it after the announcement takes the announced HopIDs, the other way round.
    world.guests[1].wait_until(f"mkdir -p {second} && test \"$(cat {second}/in_hopid)\" -ge 8 || "
                               f"{{ rmdir {second}; sleep 1; false; }}", DISCOVERY_SECONDS)
    hops = [[attribute(guest, f"{group}/{name}") for name in names] for guest, group, names in
            ((world.guests[0], first, ("in_hopid", "out_hopid")), (world.guests[1], second, ("out_hopid", "in_hopid")))]
    expect(hops[0] == hops[1], f"the guests have agreed on different HopIDs: {hops}")
    devices = [f"/dev/tbstream{attribute(guest, f'{group}/index')}" for guest, group in
               zip(world.guests, (first, second))]
    for sender, receiver in ((0, 1), (1, 0)):
        send, receive = world.guests[sender], world.guests[receiver]
        send.run(f"head -c {STREAM_BYTES} /dev/urandom >/tmp/data")
        want = send.run("sha256sum </tmp/data")
        receive.start(f"head -c {STREAM_BYTES} {devices[receiver]} | sha256sum")
        time.sleep(1)  # Linux 7.3 may stall if data is there when the reader opens
        send.start(f"(cat /tmp/data; sleep 5) >{devices[sender]}")
        _, got = receive.finish(90)
        status, output = send.finish(90)
        expect(status == 0, f"{send.name} could not write: {output}")
        expect(got == want, f"{receive.name} got something else than {send.name} sent: {got} and not {want}")
    for guest, group in zip(world.guests, (first, second)):
        guest.run(f"rmdir {group}")


@step
def replug(world):
    """The cable is pulled: the peer disappears. It is plugged again: everything is back."""
    world.cable("unplug")
    for guest in world.guests:
        guest.wait_until(f"test ! -e {PEER} && test ! -e /sys/class/net/thunderbolt0", DISCOVERY_SECONDS)
    world.cable("plug")
    discovery(world)
    bring_up_network(world)
    for guest, peer in world.pairs():
        ping(world, guest, peer, 60000, 5)


@step
def blackout(world):
    """Control: when the cable loses everything no ping comes back, so those before were carried by it."""
    bring_up_network(world)
    guest, peer = world.guests
    world.site.tbt_command("cable", "--fabric", world.fabric.name, "set", 0, "drop=100%")
    guest.start(f"ping -q -c 3 -i 0.1 -W 1 192.0.2.{1 + peer.host}")
    status, output = guest.finish(60)
    world.site.tbt_command("cable", "--fabric", world.fabric.name, "set", 0, "drop=0%")
    expect(status != 0 and " 0 packets received" in output, f"something else carries the packets: {output}")


def check_rules(world):
    """Linux keeps the rules of the hardware as the model has them, and no frame was lost without a reason."""
    for host in world.fabric.status()[0]["hosts"]:
        if "controller" not in host:  # its daemon has ended
            continue
        counters = host["controller"]
        forgiven = world.forgiven.get(host["host"], 0)
        expect(counters["misuse"] == forgiven, f"host {host['host']}: the driver broke a rule: {counters}")
        expect(counters["dma_faults"] == 0, f"host {host['host']}: DMA outside of mapped memory: {counters}")
    for guest in world.guests:
        found = re.findall(r"^.*(?:WARNING:|BUG:|Oops|Call Trace).*$", guest.dmesg(), re.M)
        expect(not found, f"{guest.name}'s kernel complains: {found[:3]}")


def tell_story(world, names, steps):
    begin = time.monotonic()

    def took(name):
        nonlocal begin
        now = time.monotonic()
        print(f"  {now - begin:6.1f} s  {name}", flush=True)
        begin = now

    for guest in world.guests:
        guest.wait_for_boot()
    took(f"boot of Linux {world.guests[0].kernel.release}" + (", twice" if len(world.guests) > 1 else ""))
    for name in names:
        steps[name](world)
        took(name)
    check_rules(world)


def drive(options, site, kept):
    parts = Parts()
    kernel = parts.kernel(options.kernel)
    print(f"  QEMU {parts.qemu_version}, Linux {kernel.release}, {options.nhi}", flush=True)
    words = ["--guest", 0, "--guest", 1, "--nhi", options.nhi]
    with Fabric(site, options=words) as fabric, contextlib.ExitStack() as cleanup:
        if kept:
            cleanup.callback(keep, site, kept)
        guests = []
        for host in range(2):
            guests.append(Guest(fabric, host, parts, kernel))
            cleanup.callback(guests[-1].close)
        tell_story(World(fabric, guests), options.steps or STEPS, STEPS)


def keep(site, folder):
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    for path in site.folder.glob("host*.*"):
        if path.suffix in (".console", ".trace", ".serve", ".qemu"):
            shutil.copy(path, folder)


def main(steps, drive_them, text):
    """What the scripts of this folder have in common: options, cleaning up, and how they end."""
    parser = argparse.ArgumentParser(description=text.split("\n", maxsplit=1)[0])
    parser.add_argument("--build", default=os.environ.get("TBT_BUILD", HERE.parents[1] / "build" / "dev"))
    parser.add_argument("--kernel", default=DEFAULT_KERNEL, help="a series, for example 6.12")
    parser.add_argument("--nhi", default="intel", help="whose controllers the hosts seem to have: as 'tbt fabric up'")
    parser.add_argument("--keep", help="where consoles and traces go")
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(steps)}; default: all")
    options = parser.parse_args()
    unknown = set(options.steps) - set(steps)
    if unknown:
        parser.error(f"no such step: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the clean-up
    site = Site(options.build)
    bad = []
    try:
        drive_them(options, site, options.keep)
    except PartMissing as missing:
        print(f"  skipped: {missing}")
        return SKIPPED
    except CaseFailed as failure:
        bad.append(str(failure))
    finally:
        bad += [f"left behind: {finding}" for finding in site.close()]
    for line in bad:
        print(f"  FAILED: {line}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(STEPS, drive, __doc__))
