"""Unmodified programs where a host's resources are short: they work, or they end and say so."""
import os
import shutil

from harness import Fabric, expect, free_port
from pingpong import run_pingpong
from registry import group

FULL_SHM = "mount -t tmpfs -o size=64k tmpfs /dev/shm && head -c 1m /dev/zero >/dev/shm/full 2>/dev/null; "


def in_shell(before, command):
    return ["sh", "-c", before + 'exec "$@"', "sh", *command]


def pingpong_pair(fabric, wrap=lambda command: command):
    """ibv_rc_pingpong between the hosts, each end wrapped: both must end well."""
    port = free_port()
    command = ["ibv_rc_pingpong", "-c", "-p", port, "-n", "100"]
    fabric.pair(wrap(command), wrap([*command, "127.0.0.1"]), port)


@group()
def limits(site):
    """Too few descriptors, no locked memory and a full /dev/shm: a program works, or ends and says why."""
    with Fabric(site) as fabric:
        outcomes = []
        for files in range(4, 64, 2):
            done = fabric.run(0, in_shell(f"ulimit -n {files}; ", ["ibv_devinfo", "-d", "tbt0"]), ok=False)
            expect(done.status >= 0, f"a signal, with {files} descriptors\n{done.text()}")
            expect(done.status == 0 or done.out.strip(), f"no word of why, with {files} descriptors\n{done.text()}")
            outcomes.append(done.status == 0)
        least = 4 + 2 * outcomes.index(True)
        expect(all(outcomes[outcomes.index(True):]), f"works with {least} descriptors, not with more: {outcomes}")
        pingpong_pair(fabric, lambda command: in_shell("ulimit -l 0; ", command))
        shm = "/dev/shm full"
        if shutil.which("unshare") and os.geteuid() == 0:
            pingpong_pair(fabric, lambda command: ["unshare", "-m", *in_shell(FULL_SHM, command)])
        else:
            shm = "a full /dev/shm not tried: that wants root"
        run_pingpong(fabric, "rc", ["-c"], 65536)  # and nothing is missing afterwards
        site.say(f"ibv_devinfo wants {least} descriptors; ulimit -l 0; {shm}")
