#!/usr/bin/env python3
"""Our daemon on one host of an emulated fabric, a Linux guest on the other: each must find the other.

  peer.py [--build DIR] [--kernel SERIES] [--keep DIR] [STEP...]

Host 0 is a tbtd with its connection manager, host 1 a guest with its unmodified thunderbolt driver. Exit status 77: the
machine's mirror lacks something, so nothing was tested.
"""
import contextlib
import sys
import time

sys.dont_write_bytecode = True
import run  # noqa: E402
from run import PEER, ROUTER, attribute  # noqa: E402
from guest import Guest  # noqa: E402
from harness import Fabric, expect  # noqa: E402
from parts import Parts  # noqa: E402

STEPS = {}
OUR_SERVICE = "tbtrdma"


def step(function):
    STEPS[function.__name__] = function
    return function


def our_port(world):
    """Our only port, as our daemon knows it, and our router."""
    router = world.fabric.status()[0]["hosts"][0]["router"]
    return router["ports"][0], router


def wait_for(what, condition, seconds=run.DISCOVERY_SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        expect(time.monotonic() < deadline, f"{what} did not happen within {seconds} s")
        time.sleep(0.2)


@step
def linux_finds_us(world):
    """Linux lists us with our name, our identity, the speed of the cable, and our service."""
    guest = world.guests[0]
    guest.wait_until(f"test -e {PEER}/unique_id", run.DISCOVERY_SECONDS)
    _, router = our_port(world)
    for name, want in (("unique_id", router["uuid"]), ("device_name", "host0"), ("vendor", "0x1d6b"),
                       ("rx_speed", "40.0 Gb/s"), ("tx_speed", "40.0 Gb/s"), ("rx_lanes", "2"), ("tx_lanes", "2")):
        got = attribute(guest, f"{PEER}/{name}")
        expect(got == want, f"{name} of us is '{got}' to Linux and not '{want}'")
    guest.wait_until(f"grep -q '^{OUR_SERVICE}$' {PEER}/0-1.*/key", run.DISCOVERY_SECONDS)
    service = guest.run(f"dirname $(grep -l '^{OUR_SERVICE}$' {PEER}/0-1.*/key)")
    for name, want in (("prtcid", "1"), ("prtcvers", "1")):
        got = attribute(guest, f"{service}/{name}")
        expect(got == want, f"{name} of our service is '{got}' to Linux and not '{want}'")


@step
def we_find_linux(world):
    """We list Linux with its name, its identity and its services, and know that no frames of ours go there."""
    guest = world.guests[0]
    wait_for("finding Linux", lambda: "peer" in our_port(world)[0])
    port, _ = our_port(world)
    peer = port["peer"]
    expect(peer["name"] == guest.name, f"Linux is called '{peer['name']}' here and not '{guest.name}'")
    expect(peer["uuid"] == attribute(guest, f"{ROUTER}/unique_id"), f"Linux has another UUID than {peer['uuid']}")
    expect(peer["thunderbolt_net"] and not peer["runs_tbt"], f"Linux offers thunderbolt-net and not us: {peer}")
    expect("path" not in port, f"there is a path to a host that does not know us: {port}")
    expect((port["speed_gbps"], port["lanes"]) == (40, 2), f"the cable has another speed: {port}")


@step
def replug(world):
    """The cable is pulled and plugged: both lose and find each other."""
    guest = world.guests[0]
    world.cable("unplug")
    guest.wait_until(f"test ! -e {PEER}", run.DISCOVERY_SECONDS)
    wait_for("losing Linux", lambda: "peer" not in our_port(world)[0])
    world.cable("plug")
    linux_finds_us(world)
    we_find_linux(world)


@step
def driver_restart(world):
    """Linux unloads its driver and loads it again: we find it anew."""
    guest = world.guests[0]
    guest.run("rmmod thunderbolt_stream 2>/dev/null; rmmod thunderbolt_net && rmmod thunderbolt", 60)
    time.sleep(1)
    guest.run("while read -r m p; do case $m in thunderbolt*) insmod /lib/modules/$m.ko $p;; esac; done "
              "</lib/modules/order", 60)
    linux_finds_us(world)
    we_find_linux(world)


def drive(options, site, kept):
    parts = Parts()
    kernel = parts.kernel(options.kernel)
    print(f"  QEMU {parts.qemu_version}, Linux {kernel.release}, tbtd", flush=True)
    with Fabric(site, options=["--guest", 1]) as fabric, contextlib.ExitStack() as cleanup:
        if kept:
            cleanup.callback(run.keep, site, kept)
        guest = Guest(fabric, 1, parts, kernel)
        cleanup.callback(guest.close)
        run.tell_story(run.World(fabric, [guest]), options.steps or STEPS, STEPS)


if __name__ == "__main__":
    sys.exit(run.main(STEPS, drive, __doc__))
