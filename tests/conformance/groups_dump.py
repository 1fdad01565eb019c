"""`tbt dump` and what stock tshark makes of it."""
import shutil
import signal
import subprocess

from harness import Fabric, expect, wait_until
from perftest import run_perftest
from pingpong import run_pingpong
from registry import group

# Opcodes that must have been seen: every family that the programs below send.
WANTED = {
    "RC SEND ONLY": 4, "RC SEND FIRST": 0, "RC SEND MIDDLE": 1, "RC SEND LAST": 2,
    "RC WRITE FIRST": 6, "RC WRITE LAST": 8, "RC READ REQUEST": 12, "RC READ RESPONSE FIRST": 13,
    "RC READ RESPONSE LAST": 15, "RC ACK": 17, "RC ATOMIC ACK": 18, "RC CMP SWAP": 19, "RC FETCH ADD": 20,
    "UC SEND ONLY": 36, "UC SEND FIRST": 32, "UC WRITE ONLY": 42, "UD SEND ONLY": 100,
}


def tshark(site, capture, *options):
    done = subprocess.run(["tshark", "-r", capture, *options], capture_output=True, text=True, timeout=120,
                          env=site.environment)
    expect(done.returncode == 0, f"tshark {' '.join(options)} failed: {done.stderr}")
    return done.stdout.splitlines()


def traffic(fabric):
    run_pingpong(fabric, "rc", [], 16384, rounds=10)
    run_pingpong(fabric, "rc", ["-g", "1"], 64, rounds=10)
    run_pingpong(fabric, "uc", [], 256, rounds=10)
    run_pingpong(fabric, "uc", [], 16384, rounds=10)
    run_pingpong(fabric, "ud", [], 1024, rounds=10)
    for program, options in (("ib_write_bw", ["-s", "16384"]), ("ib_read_bw", ["-s", "16384"]),
                             ("ib_write_lat", ["-c", "UC", "-s", "8"]), ("ib_atomic_bw", []),
                             ("ib_atomic_bw", ["-A", "CMP_AND_SWAP"])):
        run_perftest(fabric, program, options, iterations=20)


@group()
def dump(site):
    """A captured cable decodes in stock tshark: every kind of packet, none malformed."""
    expect(shutil.which("tshark"), "tshark is not installed; scripts/install-deps test")
    capture = site.folder / "cable.pcapng"
    with Fabric(site) as fabric:
        dumper = site.start([site.tbt, "dump", "--fabric", fabric.name, "--host", 0, "--cable", 0,
                             "--write", capture])
        wait_until(lambda: capture.exists() and capture.stat().st_size > 0 or not dumper.running(), 5,
                   "tbt dump wrote nothing")
        traffic(fabric)
        dumper.signal(signal.SIGINT)
        done = dumper.wait(10)
        expect(done.status == 0, f"tbt dump failed\n{done.text()}")
    expect(capture.stat().st_mode & 0o077 == 0, "others may read the capture")
    packets = tshark(site, capture, "-Y", "infiniband")
    everything = tshark(site, capture)
    malformed = tshark(site, capture, "-Y", "_ws.malformed || _ws.expert.severity == error")
    expect(len(packets) == len(everything), f"{len(everything) - len(packets)} packets are not InfiniBand")
    expect(not malformed, "malformed:\n" + "\n".join(malformed[:10]))
    fields = tshark(site, capture, "-T", "fields", "-e", "infiniband.bth.opcode")
    seen = {int(field) for field in fields if field}
    missing = [name for name, code in WANTED.items() if code not in seen]
    expect(not missing, f"never seen on the cable: {missing}; seen {sorted(seen)}")
    site.say(f"{len(packets)} packets, opcodes {sorted(seen)}")
