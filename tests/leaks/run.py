#!/usr/bin/env python3
"""Shows that nothing leaks, on an emulated fabric of its own.

  run.py [--build DIR] cycles N      two processes connect and disconnect N times; checked after each time
  run.py [--build DIR] kills N       applications are killed at random moments N times; checked after each
  run.py [--build DIR] soak SECONDS  both, while cables lose, are pulled and plugged; resident memory must not grow

What must be as it was at the start: descriptors and shared mappings of applications and daemons, bytes on the
heap of applications, QPNs (each is given out when it is its turn), buffers, locks and slots in the hosts' shared
memory, names in /dev/shm. TBT_SOAK_MINUTES overrides SECONDS.
"""
import argparse
import contextlib
import os
import pathlib
import random
import signal
import sys
import time

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "conformance"))
from harness import CaseFailed, Fabric, Site, expect  # noqa: E402
from talker import Talker  # noqa: E402

WARM_CYCLES = 48  # each kind of cycle three times: tables have their size, stacks of threads are cached
HEAP_BYTES = 2048  # in all, for what is made when it is first needed, such as a thread's own variables
POOL_BYTES = 512 * 1024  # the same where packets are lost: those that came after a gap have a pool that stays
GROWTH_KIB = 1024
PAIRS = 2
# Without caches and arenas of threads the count of bytes in use is exact.
EXACT = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1"}


class Application(Talker):
    """One leak_endpoint. After its first cycles it must have what it has for ever."""

    heap_most = HEAP_BYTES

    def __init__(self, fabric, index, side):
        super().__init__(fabric, int(side == "far"), "leaks/leak_endpoint", side,
                         str(fabric.site.folder / f"pair{index}"), extra=EXACT)
        self.base = None
        self.cycles = self.failed = self.troubles = self.grown = 0

    def check(self, answer, note):
        """`answer`: what came after `ran` or `lost`."""
        cycles, failed, fds, maps, heap, skipped = answer
        self.cycles += cycles
        self.failed += failed
        self.troubles += 1 if failed else 0
        expect(skipped == 0, f"{note}: {self.shown}: {skipped} QPNs were not given out in their turn")
        if self.cycles <= WARM_CYCLES or self.base is None:
            self.base = [fds, maps, max(heap, self.base[2] if self.base else 0)]
            return
        # The progress thread may be in the middle of something: a leak stays.
        for _ in range(100):
            if [fds, maps] == self.base[:2] and heap <= self.base[2] + self.heap_most:
                self.grown = max(self.grown, heap - self.base[2])
                return
            time.sleep(0.01)
            self.tell("look")
            fds, maps, heap, _ = self.expect("look")
        raise CaseFailed(f"{note}: {self.shown}: descriptors, shared mappings, heap bytes were {self.base} "
                         f"and are {[fds, maps, heap]} after {self.cycles} cycles")


class Host:
    """The daemons and the shared memory, as they were at the start."""

    def __init__(self, fabric):
        self.fabric = fabric
        self.watcher = Talker(fabric, 0, "leaks/leak_watcher")
        self.daemons = [fabric.pid_of_daemon(host) for host in range(2)]
        self.start = None

    def seen(self):
        self.watcher.tell("look")
        buffers, free, posted, kept, held, inbox, locked, slots = self.watcher.expect("look")
        return {"buffers": buffers, "out of place": buffers - free - posted - kept, "held": held, "inbox": inbox,
                "locked": locked, "slots": slots, "descriptors": [descriptors(pid) for pid in self.daemons],
                "mappings": [shared_mappings(pid) for pid in self.daemons],
                "/dev/shm": sorted(os.listdir("/dev/shm"))}

    def check(self, note):
        """All as at the first call; the daemon may take a moment to notice who is gone."""
        end = time.monotonic() + 5
        while True:
            now = self.seen()
            self.start = self.start or now
            if now == self.start:
                return
            if time.monotonic() > end:
                raise CaseFailed(f"{note}: at the start {self.start}\n    now {now}")
            time.sleep(0.002)


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def shared_mappings(pid):
    return pathlib.Path(f"/proc/{pid}/maps").read_text().count("/memfd:")


def resident_kib(pid):
    """(all, of that in shared memory), which is all there from the start: whoever attaches populates it."""
    fields = dict(line.split(":") for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    return [int(fields[name].split()[0]) for name in ("VmRSS", "RssShmem")]


class Pair:
    def __init__(self, fabric, index):
        self.fabric, self.index = fabric, index
        self.far, self.near = Application(fabric, index, "far"), Application(fabric, index, "near")

    def start(self, cycles, rounds):
        self.far.tell("serve")
        self.near.tell(f"run {cycles} {rounds}")

    def finish(self, note):
        for end in (self.near, self.far):
            end.check(end.expect("ran", seconds=60), note)

    def run(self, cycles, rounds, note):
        self.start(cycles, rounds)
        self.finish(note)

    def kill_one(self, side, note):
        """Kills an end that is at work, looks whether the other one gave back everything, and replaces it."""
        victim, other = (self.near, self.far) if side == "near" else (self.far, self.near)
        victim.kill()
        if other is self.near:
            other.tell("halt")
        # The far end's farewell may be on its way when the near one dies: both words are right.
        other.check(other.expect("lost", "ran", seconds=60), note)
        setattr(self, side, Application(self.fabric, self.index, side))

    def close(self):
        self.near.close()
        self.far.close()


class World:
    """A fabric with pairs of applications, and its watcher."""

    def __init__(self, site, pairs):
        with contextlib.ExitStack() as stack:
            self.fabric = stack.enter_context(Fabric(site))
            self.pairs = []
            for index in range(pairs):
                self.pairs.append(Pair(self.fabric, index))
                stack.callback(self.close_pair, index)
            self.host = Host(self.fabric)
            stack.callback(self.host.watcher.close)
            self.stack = stack.pop_all()

    def close_pair(self, index):
        self.pairs[index].close()

    def warm(self):
        for pair in self.pairs:
            pair.run(WARM_CYCLES, 4, "at first")
        self.host.check("at first")

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.stack.__exit__(kind, error, trace)


def expect_no_growth(site, pids, before):
    """KiB since then, of each: all, of that in shared memory. A sanitizer keeps what was freed for a while."""
    grown = [[now - then for now, then in zip(resident_kib(pid), kib)] for pid, kib in zip(pids, before)]
    expect(site.preload or max(whole for whole, _ in grown) < GROWTH_KIB, f"resident memory grew by {grown} KiB")
    return grown


def cycles(site, count, seed):
    with World(site, 1) as world:
        world.warm()
        pair = world.pairs[0]
        pids = [end.pid for end in (pair.near, pair.far)]
        memory = [resident_kib(pid) for pid in pids]
        for index in range(count):
            pair.run(1, 1, f"cycle {index}")
            world.host.check(f"cycle {index}")
        grown = expect_no_growth(site, pids, memory)
        expect(pair.near.failed == 0, f"{pair.near.failed} connections failed on a good cable")
        site.say(f"{count} cycles; each time descriptors, mappings and QPNs of both ends as before, "
                 f"{world.host.start['buffers']} buffers in their place; "
                 f"{max(pair.near.grown, pair.far.grown)} bytes of heap and {grown} KiB of resident memory more")


def kills(site, count, seed):
    rng = random.Random(seed)
    with World(site, PAIRS) as world:
        world.warm()
        for index in range(count):
            for pair in world.pairs:
                pair.start(0, 200)
            time.sleep(rng.uniform(0, 0.02))
            chosen = rng.choice(world.pairs)
            note = f"seed {seed}, kill {index}"
            # One end lives from the first kill to the last.
            chosen.kill_one("far" if chosen is world.pairs[0] else rng.choice(("near", "far")), note)
            for pair in world.pairs:
                if pair is not chosen:
                    pair.near.tell("halt")
                    pair.finish(note)
            world.host.check(note)
            chosen.run(WARM_CYCLES, 1, note)  # the new one too can tell what it should have
        site.say(f"{count} kills, {world.pairs[0].near.troubles} of them felt by the one application that was spared; "
                 f"each time descriptors, mappings and QPNs of the survivors, slots, locks and "
                 f"{world.host.start['buffers']} buffers of the hosts as before; "
                 f"{world.pairs[0].near.grown} bytes of heap more")


class Faults:
    """What befalls a pair during a soak."""

    def __init__(self, world, rng):
        self.world, self.rng = world, rng
        self.done = {}

    def cable(self, *words):
        self.world.fabric.site.tbt_command("cable", "--fabric", self.world.fabric.name, *words)

    def loss(self):
        self.cable("set", "0", f"drop={self.rng.choice((0, 0, 1, 3))}%,corrupt=0.1%,duplicate=0.2%")

    def unplug(self):
        self.cable("unplug", "0")
        time.sleep(self.rng.uniform(0, 0.3))
        self.cable("plug", "0")

    def stop(self):
        victim = self.world.pairs[0].far.process
        victim.send_signal(signal.SIGSTOP)
        time.sleep(self.rng.uniform(0.01, 0.2))
        victim.send_signal(signal.SIGCONT)

    def one(self):
        fault = self.rng.choice((self.loss, self.unplug, self.stop))
        self.done[fault.__name__] = self.done.get(fault.__name__, 0) + 1
        fault()


def soak(site, seconds, seed):
    rng = random.Random(seed)
    if os.environ.get("TBT_SOAK_MINUTES"):
        seconds = 60 * float(os.environ["TBT_SOAK_MINUTES"])
    Application.heap_most = POOL_BYTES
    with World(site, 1) as world:
        world.warm()
        pair, faults, killed = world.pairs[0], Faults(world, rng), 0
        pids = world.host.daemons + [pair.near.pid]
        begin = time.monotonic()
        before = None
        while time.monotonic() - begin < seconds:
            pair.start(0, 40)
            for _ in range(3):
                time.sleep(rng.uniform(0.05, 0.4))
                faults.one()
            note = f"seed {seed}, after {time.monotonic() - begin:.0f} s"
            if rng.random() < 0.3:
                pair.kill_one("far", note)
                killed += 1
            else:
                pair.near.tell("halt")
                pair.finish(note)
            world.host.check(note)
            if before is None and time.monotonic() - begin > seconds / 5:
                before = [resident_kib(pid) for pid in pids]
        grown = expect_no_growth(site, pids, before)
        site.say(f"{time.monotonic() - begin:.0f} s, {pair.near.cycles} connections of which {pair.near.failed} were "
                 f"cut off, {killed} kills, {faults.done}; KiB more in the last four fifths (of that in shared "
                 f"memory): daemons {grown[:2]}, application {grown[2]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.environ.get("TBT_BUILD", HERE.parents[1] / "build" / "dev"))
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("what", choices=("cycles", "kills", "soak"))
    parser.add_argument("count", type=float)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the clean-up
    site = Site(options.build)
    bad = []
    try:
        {"cycles": cycles, "kills": kills, "soak": soak}[options.what](site, int(options.count), options.seed)
    except CaseFailed as failure:
        bad.append(str(failure))
    finally:
        bad += [f"left behind: {finding}" for finding in site.close()]
    for line in bad:
        print(f"  FAILED: {line}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
