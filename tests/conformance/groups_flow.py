"""Flow control of the cables: controllers whose end-to-end credits are not there or get stuck, and daemons that
offer one kind only. The programs must not notice."""
import json
import os
import signal

from harness import Fabric, expect, free_port, wait_until
from perftest import run_perftest
from pingpong import run_pingpong
from registry import group


def hosts_of(fabric):
    return json.loads(fabric.site.tbt_command("devices", "--fabric", fabric.name, "--json").out)


def flows(fabric):
    """(kind, reason) of the first cable at both ends, None while it carries no frames."""
    paths = [host["cables"][0].get("path") for host in hosts_of(fabric)]
    return [path and (path["flow_control"], path["flow_reason"]) for path in paths]


def carries(fabric, wanted):
    """The cable has this flow control at both ends, and the hosts have said hello over it."""
    return flows(fabric) == [wanted, wanted] and all(host["rails"][0]["state"] == "up" for host in hosts_of(fabric))


def counted(fabric, where, name):
    return sum(host[where][name] if where == "controller" else host[where][0]["counters"][name]
               for host in hosts_of(fabric))


def work(fabric):
    """Programs with more under way than the rings hold, checked and in both directions."""
    run_pingpong(fabric, "rc", ["-c"], 1 << 20, rounds=50)
    run_pingpong(fabric, "uc", ["-c"], 65536, rounds=50)
    run_perftest(fabric, "ib_write_bw", ["-s", "65536", "-b"], iterations=2000)
    run_perftest(fabric, "ib_send_bw", ["-s", "65536"], iterations=2000)
    run_perftest(fabric, "ib_read_bw", ["-s", "65536"], iterations=2000)


def goes_on(fabric, what, wanted):
    """A transfer that is under way does not notice `what`, and the cable has its flow control again."""
    port = free_port()
    command = ["ib_write_bw", "-F", "-p", port, "-D", "3", "-s", "65536"]
    server, client = fabric.start_pair(command, [*command, "127.0.0.1"], port)
    wait_until(lambda: client.time_of(r"#bytes") or not client.running(), 20, f"no start\n{client.output()}")
    expect(client.running() and server.running(), f"ended too early\n{client.output()}\n{server.output()}")
    what()
    for program in (client, server):
        done = program.wait(30)
        expect(done.status == 0, f"noticed it\n{done.text()}")
    wait_until(lambda: carries(fabric, wanted), 5, f"not {wanted} again")


@group()
def flow_control(site):
    """Controllers without, or with broken, end-to-end credits: found out before frames pass, and none is lost."""
    failed = ("credits", "the hardware's credits failed here")
    for hardware in ("absent", "sticks"):
        with Fabric(site, options=["--e2e", hardware]) as fabric:
            expect(flows(fabric) == [failed, failed], f"{hardware}: {flows(fabric)}")
            lost = counted(fabric, "controller", "overruns")
            work(fabric)
            expect(counted(fabric, "controller", "overruns") == lost, "frames were lost for want of a buffer")
            frames = counted(fabric, "rails", "credit_frames")
            expect(frames > 100, "credits were not used")
            # Killed and replaced: the cable's state is in the host's memory, and goes on.
            goes_on(fabric, lambda: os.kill(fabric.pid_of_daemon(1), signal.SIGKILL), failed)
            expect(counted(fabric, "controller", "overruns") == lost, "frames were lost with the daemon")
            # Pulled and plugged: tried again.
            for word in ("unplug", "plug"):
                site.tbt_command("cable", "--fabric", fabric.name, word, "0")
            wait_until(lambda: carries(fabric, failed), 5, "not up again")
            run_pingpong(fabric, "rc", ["-c"], 65536)
            site.say(f"--e2e {hardware}: {frames} credit frames, no overrun but the self-test's {lost}")


@group()
def flow_control_kinds(site):
    """What the daemons offer decides: tried hardware, untried hardware, credits in software, nothing at all."""
    offered = "as both ends offer"
    wanted = {"auto": ("e2e", "tried and found to work"), "e2e": ("e2e", offered),
              "credits": ("credits", offered), "none": ("none", offered)}
    for kind, flow in wanted.items():
        with Fabric(site, options=["--flow-control", kind]) as fabric:
            expect(flows(fabric) == [flow, flow], f"{kind}: {flows(fabric)}")
            work(fabric)
            expect((counted(fabric, "rails", "credit_frames") > 0) == (kind == "credits"), f"{kind}: credit frames")
    # Frames are lost then, and reliable connections mend it.
    with Fabric(site, options=["--flow-control", "none", "--e2e", "absent"]) as fabric:
        run_pingpong(fabric, "rc", ["-c"], 1 << 20, rounds=50)
        run_perftest(fabric, "ib_write_bw", ["-s", "65536", "-b"], iterations=2000)
        site.say(f"without any, {counted(fabric, 'controller', 'overruns')} frames were lost and sent again")
