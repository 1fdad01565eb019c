"""What happens when something breaks: killed programs and daemons, pulled cables, damaged frames; and that
nothing is left behind."""
import os
import re
import signal
import statistics
import time

from harness import Fabric, command_line, expect, free_port, wait_until
from pingpong import run_pingpong
from registry import group

KILL_BOUND_MS = 100
KILLS = 5
ERROR_LINE = r"Completion with error|Failed status|failed|Couldn't|error"


def kill_once(fabric, command, victim):
    """Kills one end in the middle of a transfer; milliseconds until the other printed its error."""
    port = free_port()
    command = [*command[:1], "-p", port, "-F", *command[1:]]
    server, client = fabric.start_pair(command, [*command, "127.0.0.1"], port)
    survivor, killed = (client, server) if victim == "server" else (server, client)
    wait_until(lambda: client.time_of(r"#bytes") or not client.running(), 20, f"no start\n{client.output()}")
    time.sleep(0.3)
    expect(server.running() and client.running(), f"ended before the kill\n{client.output()}\n{server.output()}")
    at = time.monotonic()
    killed.signal(signal.SIGKILL)
    done = survivor.wait(10)
    ended = time.monotonic()
    expect(done.status != 0, f"the survivor noticed nothing\n{done.text()}")
    said = survivor.time_of(ERROR_LINE)
    expect(said is not None, f"the survivor ended without saying why\n{done.text()}")
    return (said - at) * 1000, (ended - at) * 1000


def kill_many(site, fabric, command, victim):
    seen = [kill_once(fabric, command, victim) for _ in range(KILLS)]
    errors = [error for error, _ in seen]
    site.say(f"{' '.join(command)}, {victim} killed {KILLS} times: error after "
             f"{', '.join(f'{error:.0f}' for error in errors)} ms, "
             f"ended after {statistics.median(end for _, end in seen):.0f} ms (median)")
    expect(max(errors) <= KILL_BOUND_MS, f"more than {KILL_BOUND_MS} ms")


@group(alone=True)
def kill(site):
    """kill -9 in the middle of a transfer: the other side ends with an error within 100 ms."""
    with Fabric(site) as fabric:
        kill_many(site, fabric, ["ib_write_bw", "-n", "50000000"], "server")
        kill_many(site, fabric, ["ib_send_bw", "-n", "50000000", "-e"], "server")
        kill_many(site, fabric, ["ib_write_bw", "-n", "50000000", "-b"], "client")
        kill_many(site, fabric, ["ib_send_bw", "-n", "50000000"], "client")
        kill_many(site, fabric, ["ib_read_bw", "-n", "50000000"], "server")
        run_pingpong(fabric, "rc", ["-c"], 65536)  # everything was taken back


@group()
def kill_often(site):
    """Programs killed at random moments: the fabric goes on working and gives everything back."""
    with Fabric(site) as fabric:
        for index in range(12):
            port = free_port()
            command = ["ib_send_bw", "-F", "-p", port, "-n", "50000000", "-s", "4096", *(["-b"] * (index % 2))]
            server, client = fabric.start_pair(command, [*command, "127.0.0.1"], port)
            time.sleep(0.02 * index)
            (server if index % 3 else client).kill()
            time.sleep(0.05)
            server.kill()
            client.kill()
        for kind in ("rc", "ud", "srq"):
            run_pingpong(fabric, kind, ["-c"], 2048)
        site.say("12 kills, then three pingpongs")


def port_state(fabric, host, device="tbt0"):
    done = fabric.run(host, ["ibv_devinfo", "-d", device])
    match = re.search(r"state:\s+(\w+)", done.out)
    return match.group(1) if match else None


@group()
def port_states(site):
    """The port is ACTIVE while the other host is up and the cable is in, DOWN when it is not."""
    with Fabric(site) as fabric:
        expect(port_state(fabric, 0) == "PORT_ACTIVE", "not active at first")
        site.tbt_command("cable", "--fabric", fabric.name, "unplug", "0")
        wait_until(lambda: port_state(fabric, 0) == "PORT_DOWN", 3, "still active without its cable")
        wait_until(lambda: port_state(fabric, 1, "tbt0c0") == "PORT_DOWN", 3, "the far end still active")
        site.tbt_command("cable", "--fabric", fabric.name, "plug", "0")
        wait_until(lambda: port_state(fabric, 0) == "PORT_ACTIVE", 5, "not active after the replug")
        run_pingpong(fabric, "rc", ["-c"], 65536)
        fabric.kill_host(1)
        wait_until(lambda: port_state(fabric, 0) == "PORT_DOWN", 5, "still active without the other host")
        site.say("unplug, replug and a dead host are seen")


@group()
def port_events(site):
    """A program that waits for events of the port hears of an unplug and a replug, in this order and once each."""
    with Fabric(site) as fabric:
        watcher = fabric.start(0, ["ibv_asyncwatch", "-d", "tbt0"])
        wait_until(lambda: watcher.time_of(r"async event FD"), 10, "ibv_asyncwatch does not start")
        site.tbt_command("cable", "--fabric", fabric.name, "unplug", "0")
        wait_until(lambda: watcher.time_of(r"event_type .*\(10\)"), 5, f"no PORT_ERR\n{watcher.output()}")
        expect(port_state(fabric, 0) == "PORT_DOWN", "the event came before the state")
        site.tbt_command("cable", "--fabric", fabric.name, "plug", "0")
        wait_until(lambda: watcher.time_of(r"event_type .*\(9\)"), 5, f"no PORT_ACTIVE\n{watcher.output()}")
        expect(port_state(fabric, 0) == "PORT_ACTIVE", "the event came before the state")
        time.sleep(0.2)
        events = re.findall(r"event_type .*\((\d+)\)", watcher.output())
        watcher.kill()
        expect(events == ["10", "9"], f"events {events}\n{watcher.output()}")
        site.say("PORT_ERR, then PORT_ACTIVE")


def watch_events(fabric, host, device="tbt0"):
    """A running ibv_asyncwatch, and a function that says which events it has shown."""
    watcher = fabric.start(host, ["ibv_asyncwatch", "-d", device])
    wait_until(lambda: watcher.time_of(r"async event FD"), 10, "ibv_asyncwatch does not start")
    return watcher, lambda: re.findall(r"event_type .*\((\d+)\)", watcher.output())


@group()
def device_fatal(site):
    """A controller that is lost: DEVICE_FATAL and PORT_ERR on its host, PORT_ERR on the other, connections end."""
    with Fabric(site) as fabric:
        lost, seen_there = watch_events(fabric, 1)
        other, seen_here = watch_events(fabric, 0)
        port = free_port()
        command = ["ib_write_bw", "-F", "-p", port, "-n", "50000000"]
        ends = fabric.start_pair(command, [*command, "127.0.0.1"], port)
        wait_until(lambda: ends[1].time_of("#bytes"), 20, f"no start\n{ends[1].output()}")
        daemon, keeper = fabric.pid_of_daemon(1), fabric.pid_of_keeper(1)
        site.tbt_command("fabric", "remove", "--name", fabric.name, "--host", 1)
        # On a machine where many wait for the processor, a peer may have been silent for a moment before (10, 9).
        wait_until(lambda: seen_there()[-2:] == ["8", "10"], 5, "not 8, 10 at last")
        wait_until(lambda: seen_here()[-1:] == ["10"], 5, "not 10 at last")
        expect(port_state(fabric, 0) == "PORT_DOWN", "the other host's port is still active")
        expect(ends[1].wait(10).status != 0, "the client noticed nothing")
        ends[0].kill()
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in (daemon, keeper)), 5,
                   "the daemon of the lost controller goes on")
        expect(seen_there()[-2:] == ["8", "10"] and seen_there().count("8") == 1 and seen_here()[-1] == "10",
               f"more events came\n{lost.output()}\n{other.output()}")
        for watcher in (lost, other):
            watcher.kill()
        site.say("DEVICE_FATAL and PORT_ERR, PORT_ERR at the other end")


@group()
def gid_change(site):
    """A port that is given another address says so, is reached by it, and loses it again."""
    address, shown = "fd00:7462:7400::17", "fd00:7462:7400:0000:0000:0000:0000:0017"
    with Fabric(site) as fabric:
        watcher, seen = watch_events(fabric, 1)
        other, seen_there = watch_events(fabric, 0)
        change = ["gid", "--fabric", fabric.name, "--host", 1]
        site.tbt_command(*change, "add", address)
        wait_until(lambda: seen() == ["18"], 5, f"no GID_CHANGE\n{watcher.output()}")
        expect(shown in fabric.run(1, ["ibv_devinfo", "-v", "-d", "tbt0"]).out, "the GID is not shown")
        for kind in ("rc", "ud"):
            port = free_port()
            command = [f"ibv_{kind}_pingpong", "-p", port, "-d", "tbt0"]
            fabric.pair([*command, "-g", 2], [*command, "-g", 0, "127.0.0.1"], port)
        expect(site.tbt_command(*change, "add", address, ok=False).status != 0, "given twice")
        pid = fabric.pid_of_daemon(1)
        os.kill(pid, signal.SIGKILL)  # who follows knows of it
        wait_until(lambda: fabric.status()[0]["hosts"][1].get("pid", pid) != pid, 10, "no daemon follows")
        expect(shown in fabric.run(1, ["ibv_devinfo", "-v", "-d", "tbt0"]).out, "the GID is lost")
        site.tbt_command(*change, "remove", address)
        wait_until(lambda: seen() == ["18", "18"], 5, f"no second GID_CHANGE\n{watcher.output()}")
        expect(shown not in fabric.run(1, ["ibv_devinfo", "-v", "-d", "tbt0"]).out, "the GID is still shown")
        expect(seen_there() == [], f"the other host's port changed\n{other.output()}")
        for each in (watcher, other):
            each.kill()
        site.say("two GID_CHANGE, and pingpongs to the new address")


def port_width(fabric, device="tbt0"):
    """(active_width, active_speed) as ibv_devinfo says them."""
    done = fabric.run(0, ["ibv_devinfo", "-v", "-d", device])
    return tuple(re.search(rf"active_{what}:\s+(\S+)", done.out).group(1) for what in ("width", "speed"))


@group()
def port_speed(site):
    """The port's width and speed follow the link's lanes and rate, and connections go on meanwhile."""
    with Fabric(site) as fabric:
        port = free_port()
        command = ["ib_write_bw", "-F", "-p", port, "-n", "50000000"]
        ends = fabric.start_pair(command, [*command, "127.0.0.1"], port)
        # Lanes of 10 Gb/s (FDR10) each: 80, 40, 20, then the same over what is left of a broken cable.
        for setting, width in (("ideal", "8X"), ("rate=40G", "4X"), ("one-lane=yes", "2X"), ("ideal", "8X"),
                               ("one-lane=yes", "2X"), ("ideal", "8X")):
            site.tbt_command("cable", "--fabric", fabric.name, "set", "0", setting)
            wait_until(lambda: port_width(fabric) == port_width(fabric, "tbt0c0") == (width, "10.0"), 5,
                       f"after {setting} not {width} of 10.0 Gbps but {port_width(fabric)}")
        expect(all(end.running() for end in ends), f"the connection ended\n{ends[1].output()}")
        for end in ends:
            end.kill()
        site.say("80, 40, 20, 80, 20, 80 Gb/s")


@group()
def lossy(site):
    """RC over a cable that loses, damages and doubles frames, and under TBT_RC_DROP: every byte right."""
    faults = ["--cable", "drop=0.5%,corrupt=0.2%,duplicate=0.2%"]
    with Fabric(site, options=faults) as fabric:
        for size in (64, 4096, 262144):
            run_pingpong(fabric, "rc", ["-c"], size, rounds=200)
        run_pingpong(fabric, "srq", ["-c"], 4096, rounds=20)
    with Fabric(site) as fabric:
        run_pingpong(fabric, "uc", ["-c"], 4096, rounds=200, server_host=0, extra={"TBT_RC_DROP": "100%"})
        port = free_port()
        command = ["ibv_rc_pingpong", "-p", port, "-n", 1]
        ends = fabric.start_pair(command, [*command, "127.0.0.1"], port, server_host=0, extra={"TBT_RC_DROP": "100%"})
        failed = ends[1].wait(20)
        expect(failed.status != 0 and "transport retry counter exceeded" in failed.text(), failed.text())
        ends[0].kill()
        site.say("cable: 0.5 % lost, 0.2 % damaged, 0.2 % doubled; within a host: all of RC lost, UC untouched")


@group()
def cables(site):
    """Cables with a rate and a latency carry the same programs."""
    for preset in ("tb5", "usb4-40"):
        with Fabric(site, options=["--cable", preset]) as fabric:
            run_pingpong(fabric, "rc", ["-c"], 65536)
            run_pingpong(fabric, "ud", [], 2048)
    site.say("tb5, usb4-40")


def nothing_left(site, moment):
    left = site.leftovers()
    expect(not left, f"left {moment}:\n" + "\n".join(f"      {line}" for line in left))


@group()
def down(site):
    """`tbt fabric down` leaves no process, file, socket or shared memory, whatever was killed before."""
    with Fabric(site) as fabric:
        run_pingpong(fabric, "rc")
    nothing_left(site, "after a normal life")

    with Fabric(site) as fabric:
        port = free_port()
        command = ["ib_write_bw", "-F", "-p", port, "-n", "50000000"]
        server, client = fabric.start_pair(command, [*command, "127.0.0.1"], port)
        wait_until(lambda: client.time_of(r"#bytes"), 20, "no start")
        server.kill()
        client.kill()
    nothing_left(site, "after killed programs")

    with Fabric(site, hosts=4) as fabric:
        for host in (0, 2):
            fabric.kill_host(host)
        os.kill(fabric.pid_of_daemon(1), signal.SIGKILL)
        os.kill(fabric.pid_of_keeper(3), signal.SIGKILL)
    nothing_left(site, "after killed daemons and keepers")

    with Fabric(site) as fabric:
        port = free_port()
        command = ["ib_write_bw", "-F", "-p", port, "-n", "50000000"]
        server, client = fabric.start_pair(command, [*command, "127.0.0.1"], port)
        wait_until(lambda: client.time_of(r"#bytes"), 20, "no start")
        fabric.down()
        for program in (server, client):
            program.wait(5)  # an error of their own, but an end
        fabric.__enter__()
    nothing_left(site, "after programs that were running when it went down")
    site.say("four lives of a fabric, nothing left of any")


@group(alone=True)
def idle(site):
    """Idle daemons use next to no processor time and hold no descriptor more after a hundred programs."""
    with Fabric(site) as fabric:
        pids = [fabric.pid_of_daemon(host) for host in range(2)]
        for _ in range(3):
            fabric.run(0, ["ibv_devinfo"])
        time.sleep(0.2)
        before = [descriptors(pid) for pid in pids]
        for _ in range(50):
            fabric.run(0, ["ibv_devinfo"])
            fabric.run(1, ["ibv_devices"])
        time.sleep(0.2)
        after = [descriptors(pid) for pid in pids]
        expect(after == before, f"descriptors of the daemons: {before}, then {after}")
        start = [cpu_seconds(pid) for pid in pids]
        time.sleep(2)
        used = [cpu_seconds(pid) - first for pid, first in zip(pids, start)]
        expect(max(used) <= 0.05, f"idle daemons used {used} s of 2 s: {[command_line(pid) for pid in pids]}")
        site.say(f"descriptors {after}, processor seconds in 2 s {used}")


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
