#!/usr/bin/env python3
"""Measures how long faults of an emulated fabric are felt, and prints a table.

  run.py [--build DIR] [--repetitions N] [--strict] [FAULT...]

Plain verbs programs (endpoint.cc) keep requests outstanding while something breaks. Without --strict a fault fails
the run when its median is beyond the bound, with it when its 99.9th percentile is: that asks for a quiet machine.
"""
import argparse
import math
import os
import pathlib
import signal
import sys
import time

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "conformance"))
from harness import CaseFailed, Fabric, Site, expect, wait_until  # noqa: E402
from talker import Talker  # noqa: E402

TIMEOUT, RETRY = 14, 7  # as perftest has them: 67 ms, eight times
RETRY_EXC, WR_FLUSH = 12, 5  # completion statuses


def milliseconds(begin_ns, end_ns):
    return (end_ns - begin_ns) / 1e6


def endpoint(fabric, host):
    """One endpoint.cc on a host."""
    return Talker(fabric, host, "faults/fault_endpoint")


class Pair:
    """Two endpoints on hosts 0 and 1, connected anew as often as is wanted."""

    def __init__(self, fabric):
        self.fabric = fabric
        self.near, self.far = endpoint(fabric, 0), endpoint(fabric, 1)

    def connect(self, timeout=TIMEOUT, retry=RETRY):
        near, far = (end.ask(f"qp {timeout} {retry}", "qp") for end in (self.near, self.far))
        for end, peer in ((self.near, far), (self.far, near)):
            end.tell("connect " + " ".join(map(str, peer)))
        for end in (self.near, self.far):
            end.expect("connected")

    def disconnect(self):
        for end in (self.near, self.far):
            end.ask("destroy", "destroyed")

    def renew_far(self):
        self.far = endpoint(self.fabric, 1)

    def close(self):
        self.near.close()
        self.far.close()


def expect_cause(status, vendor, cause):
    """A request that was outstanding says why; when none was, those posted afterwards are flushed."""
    expect((status, vendor) in ((RETRY_EXC, cause), (WR_FLUSH, 0)), f"status {status}, vendor_err {vendor:#x}")


def set_cable(fabric, cable, state):
    """Pulls or plugs a cable; when the command began."""
    begin = time.monotonic_ns()
    fabric.site.tbt_command("cable", "--fabric", fabric.name, state, str(cable))
    return begin


def wait_for_links(fabric, count):
    def up():
        return sum(link["state"] == "up" for host in fabric.status()[0]["hosts"] for link in host["links"])
    wait_until(lambda: up() == 2 * count, 10, f"not all of {count} cables came up: {fabric.status()}")


FAULTS = {}


def fault(bound_ms, text, cables=1, repetitions=1.0, strict=True):
    """A function(pair, N) that yields N times in ms, as a row of the table."""
    def enter(function):
        FAULTS[function.__name__] = (function, bound_ms, text, cables, repetitions, strict)
        return function
    return enter


@fault(100, "peer process killed: all requests completed with an error")
def kill(pair, count):
    for _ in range(count):
        pair.connect()
        pair.near.tell("write")
        time.sleep(0.003)
        begin = time.monotonic_ns()
        pair.far.kill()
        _, last, status, vendor, _ = pair.near.expect("failed")
        expect_cause(status, vendor, 0x106)
        yield milliseconds(begin, last)
        pair.near.ask("destroy", "destroyed")
        pair.renew_far()


@fault(50, "only cable pulled: all requests completed with an error")
def unplug(pair, count):
    for _ in range(count):
        pair.connect()
        pair.near.tell("write")
        time.sleep(0.003)
        begin = set_cable(pair.fabric, 0, "unplug")
        _, last, status, vendor, _ = pair.near.expect("failed")
        expect_cause(status, vendor, 0x107)
        yield milliseconds(begin, last)
        pair.disconnect()
        set_cable(pair.fabric, 0, "plug")
        wait_for_links(pair.fabric, 1)


@fault(1000, "cable plugged again: first request of a new connection completed")
def replug(pair, count):
    for _ in range(count):
        set_cable(pair.fabric, 0, "unplug")
        begin = set_cable(pair.fabric, 0, "plug")
        pair.connect()
        end, status = pair.near.ask("once")
        expect(status == 0, f"status {status}")
        yield milliseconds(begin, end)
        pair.disconnect()


@fault(100, "cable pulled, another one is there: longest pause, no message lost", cables=2)
def failover(pair, count):
    pair.connect()
    pair.far.tell("receive")
    pair.near.tell("send")
    for index in range(count):
        time.sleep(0.003)
        pair.far.ask("gap")
        set_cable(pair.fabric, index % 2, "unplug")
        deadline = time.monotonic() + 5
        gap, messages = 0, 0
        while messages < 200 and time.monotonic() < deadline:  # the pause is over when they come again
            time.sleep(0.005)
            longest, came = pair.far.ask("gap")
            gap, messages = max(gap, longest), messages + came
        expect(messages >= 200, f"only {messages} messages within 5 s after the cable was pulled")
        yield gap / 1e6
        set_cable(pair.fabric, index % 2, "plug")
        wait_for_links(pair.fabric, 2)
    pair.near.ask("stop", "stopped")
    pair.disconnect()


def stopped(pair, timeout, retry):
    """Milliseconds until requests to a stopped process fail, beyond what timeout and retry_cnt say.

    The clock begins with the last success, or with the first request if there was none: on a crowded machine that
    is not the moment of the signal.
    """
    pair.connect(timeout, retry)
    pair.near.tell("write")
    time.sleep(0.003)
    pair.far.process.send_signal(signal.SIGSTOP)
    first, _, status, vendor, since = pair.near.expect("failed")
    pair.far.process.send_signal(signal.SIGCONT)
    expect_cause(status, vendor, 0x103)
    pair.disconnect()
    period = 4.096e-3 * 2 ** timeout
    late = milliseconds(since, first) - period * (retry + 1)
    expect(late > -period, f"failed {-late:.1f} ms before its time")
    return late


@fault(50, "peer stopped, timeout 12, retry_cnt 7: later than 134 ms", repetitions=0.2)
def stop(pair, count):
    for _ in range(count):
        yield stopped(pair, 12, 7)


@fault(50, "peer stopped, timeout 15, retry_cnt 0: later than 134 ms", repetitions=0.2)
def stop_once(pair, count):
    for _ in range(count):
        yield stopped(pair, 15, 0)


@fault(500, "peer stopped for 5 s, waited for 8.6 s: first new message after it goes on", repetitions=0.002)
def pause(pair, count):
    for _ in range(count):
        pair.connect(18, 7)
        pair.far.tell("receive")
        pair.near.tell("send")
        time.sleep(0.05)
        pair.far.process.send_signal(signal.SIGSTOP)
        time.sleep(5)
        begin = time.monotonic_ns()
        pair.far.process.send_signal(signal.SIGCONT)
        pair.far.ask("gap")
        messages = 0
        while messages == 0:
            _, messages = pair.far.ask("gap")
            expect(time.monotonic_ns() - begin < 5e9, "nothing came")
        yield milliseconds(begin, time.monotonic_ns())
        pair.near.ask("stop", "stopped")
        pair.disconnect()


def other_daemon(pair, host, pid):
    """Waits until another daemon serves the host, and its links are up."""
    def serves():
        status = pair.fabric.status()[0]["hosts"][host]
        return status.get("pid", pid) != pid and all(link["state"] == "up" for link in status["links"])
    wait_until(serves, 10, f"host {host} has no other daemon")


@fault(1000, "tbtd killed: first request of new processes completed; a running connection goes on", repetitions=0.2)
def tbtd(pair, count):
    pair.connect()
    pair.far.tell("receive")
    pair.near.tell("send")
    for index in range(count):
        host = index % 2
        pair.far.ask("gap")
        pid = pair.fabric.pid_of_daemon(host)
        begin = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        fresh = Pair(pair.fabric)
        fresh.connect()
        end, status = fresh.near.ask("once")
        expect(status == 0, f"status {status}")
        yield milliseconds(begin, end)
        fresh.close()
        other_daemon(pair, host, pid)
        pair.far.ask("gap")
        wait_until(lambda: pair.far.ask("gap")[1] > 0, 5, "the running connection carries nothing any more")
        time.sleep(0.3)  # a daemon that is killed again and again right after its start is given up
    pair.near.ask("stop", "stopped")
    pair.disconnect()


@fault(500, "tbtd away for 3 s, peer process killed meanwhile: failed, after its return", repetitions=0.02)
def away(pair, count):
    for _ in range(count):
        pair.connect(18, 7)
        pair.near.tell("write")
        time.sleep(0.003)
        pid, keeper = pair.fabric.pid_of_daemon(1), pair.fabric.pid_of_keeper(1)
        os.kill(keeper, signal.SIGSTOP)  # so that nobody replaces the daemon yet
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
        pair.far.kill()
        time.sleep(3)
        expect(pair.near.lines.empty(), "the connection ended while the daemon was away")
        begin = time.monotonic_ns()
        os.kill(keeper, signal.SIGCONT)
        _, last, status, vendor, _ = pair.near.expect("failed")
        expect_cause(status, vendor, 0x106)
        yield milliseconds(begin, last)
        pair.near.ask("destroy", "destroyed")
        pair.renew_far()
        other_daemon(pair, 1, pid)
        wait_for_links(pair.fabric, 1)


def percentile(sorted_times, part):
    return sorted_times[max(0, math.ceil(part * len(sorted_times)) - 1)]


def measure(site, name, repetitions):
    function, _, _, cables, part, _ = FAULTS[name]
    count = max(1, round(repetitions * part))
    with Fabric(site, options=["--cables-per-pair", cables]) as fabric:
        wait_for_links(fabric, cables)
        pair = Pair(fabric)
        try:
            return sorted(function(pair, count))
        finally:
            pair.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default=os.environ.get("TBT_BUILD", HERE.parents[1] / "build" / "dev"))
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"of {', '.join(FAULTS)}; default: all")
    options = parser.parse_args()
    unknown = set(options.faults) - set(FAULTS)
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the clean-up
    bad = []
    print(f"  {'ms':>10} {'times':>5} {'median':>7} {'p99':>7} {'p99.9':>7} {'most':>7} {'bound':>6}")
    for name in options.faults or FAULTS:
        _, bound, text, _, _, _ = FAULTS[name]
        site = Site(options.build)
        try:
            times = measure(site, name, options.repetitions)
            shown = [percentile(times, part) for part in (0.5, 0.99, 0.999)] + [times[-1]]
            print(f"  {name:>10} {len(times):5} " + " ".join(f"{t:7.1f}" for t in shown) + f" {bound:6}  {text}",
                  flush=True)
            if shown[2 if options.strict else 0] > bound:
                bad.append(f"{name}: beyond {bound} ms")
        except CaseFailed as failure:
            bad.append(f"{name}: {failure}")
        finally:
            bad += [f"{name} left behind: {finding}" for finding in site.close()]
    for line in bad:
        print(f"  FAILED: {line}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
