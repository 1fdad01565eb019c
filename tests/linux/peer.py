#!/usr/bin/env python3
"""Our daemon on one host of an emulated fabric, a Linux guest on the other: each must find the other.

  peer.py [--build DIR] [--kernel SERIES] [--keep DIR] [STEP...]

Host 0 is a tbtd with its connection manager, host 1 a guest with its unmodified thunderbolt driver. Exit status 77: the
machine's mirror lacks something, so nothing was tested.
"""
import contextlib
import os
import signal
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
OUR_ADDRESS = "169.254.84.1"  # docs/daemon.md
NETDEV = "/sys/class/net/thunderbolt0"


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


def our_cables(world):
    return world.site.tbt_command("devices", "--fabric", world.fabric.name, "--host", 0, "--cables").out


def login_state(world):
    return our_port(world)[0].get("thunderbolt_ip", {}).get("state")


def connect(world, mtu=1500):
    """Linux has its carrier only when both logins were sent and answered, and so have we."""
    guest = world.guests[0]
    guest.wait_until(f"test -d {NETDEV}", run.DISCOVERY_SECONDS)
    guest.run(f"ip addr replace 169.254.84.200/24 dev thunderbolt0 && ip link set thunderbolt0 mtu {mtu} up")
    guest.wait_until(f"test \"$(cat {NETDEV}/carrier)\" = 1", run.DISCOVERY_SECONDS)
    wait_for("our end of the login", lambda: login_state(world) == "connected")


def ping(world, sizes, count=5):
    """Every ping is answered; one at a time, because busybox would not wait for the last ones."""
    guest = world.guests[0]
    for size in sizes:
        one = f"ping -q -c 1 -W 30 -s {size} {OUR_ADDRESS}"
        guest.start(f"for i in $(seq {count}); do {one} || exit; done")
        status, output = guest.finish(300)
        expect(status == 0, f"{size} bytes were not answered: {output}{run.evidence(world)}\n{our_port(world)[0]}")


@step
def waiting_for_login(world):
    """While Linux's interface is down we ask, and say so."""
    world.guests[0].wait_until(f"test -d {NETDEV}", run.DISCOVERY_SECONDS)
    wait_for("logging in", lambda: login_state(world) == "logging in")
    shown = our_cables(world)
    expect(f"{world.guests[0].name} runs thunderbolt-net only, logging in" in shown, shown)


@step
def network(world):
    """ThunderboltIP: both log in, and ping is answered: whole, in frames, in fragments, by IPv6 without any address."""
    guest = world.guests[0]
    connect(world)
    ping(world, (56, 1400, 20000))  # the last one in fragments of 1500 bytes
    connect(world, run.MTU)
    ping(world, (56, 20000, 60000))  # in frames of 4096
    guest.wait_until("ip -6 addr show dev thunderbolt0 | grep 'inet6 fe80' | grep -vq tentative", run.DISCOVERY_SECONDS)
    guest.run("ping6 -q -c 3 -W 30 -I thunderbolt0 ff02::1", 120)
    guest.start("ping -q -c 2 -W 2 169.254.84.9")
    expect(guest.finish(60)[0] != 0, "an address that is nobody's answers")
    errors = guest.run(f"cat {NETDEV}/statistics/*_errors")
    expect(set(errors.split()) == {"0"}, f"thunderbolt0 counts errors: {errors}")
    ip = our_port(world)[0]["thunderbolt_ip"]
    mac = attribute(guest, f"{NETDEV}/address")
    expect((ip["address"], ip["peer_mac"]) == (OUR_ADDRESS, mac), f"Linux's address is {mac}, and we say {ip}")
    shown = our_cables(world)
    expect(f"{guest.name} runs thunderbolt-net only, connected as {OUR_ADDRESS}" in shown, shown)


@step
def interface_down(world):
    """Linux logs out when its interface goes down, and in when it comes up."""
    guest = world.guests[0]
    guest.run("ip link set thunderbolt0 down")
    wait_for("the logout", lambda: login_state(world) == "resting")
    connect(world)
    ping(world, (1400,))


@step
def daemon_killed(world):
    """The daemon that goes on for a killed one logs out and in again."""
    host = world.fabric.status()[0]["hosts"][0]
    os.kill(host["pid"], signal.SIGKILL)
    wait_for("the next daemon", lambda: world.fabric.status()[0]["hosts"][0].get("restarts", 0) > host["restarts"])
    wait_for("our end of the login", lambda: login_state(world) == "connected")
    connect(world)
    ping(world, (56, 20000))


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
    connect(world)
    ping(world, (56, 20000))


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
    connect(world)
    ping(world, (56, 20000))


@step
def our_end(world):
    """When our daemon ends in good order, Linux is logged out."""
    guest = world.guests[0]
    run.check_rules(world)  # afterwards there is nobody to ask
    os.kill(world.fabric.status()[0]["hosts"][0]["pid"], signal.SIGTERM)
    guest.wait_until(f"test \"$(cat {NETDEV}/carrier)\" = 0", run.DISCOVERY_SECONDS)


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
