#!/usr/bin/env python3
"""Runs rdma-core's own test-suite (pyverbs) against tbt0 of an emulated fabric.

  run.py [--build DIR] [--rc-drop 1%] [-v] [TEST...]

  --rc-drop: loses so much of what reliable connections send; -v: each test; TEST: a name as unittest takes it, for
  a look by hand

The suite is Debian's, unmodified. What may be skipped, and why, is in expected_skips.txt: a skip that is not
listed there fails the run, and so does a listed one that no longer happens. docs/testing.md says more.
"""
import argparse
import collections
import fnmatch
import gzip
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "conformance"))
from harness import CaseFailed, Fabric, Site  # noqa: E402

SKIPPED = 77
PYTHON = "/usr/bin/python3"  # Debian's packages are its only
SUITE = pathlib.Path("/usr/share/doc/rdma-core/tests")
SECONDS_MAX = 240
PASSED_MIN = 115


class Expectation:
    """A line of expected_skips.txt."""

    def __init__(self, line):
        self.kind, self.pattern, self.reason = line.split(None, 2)
        if self.kind not in ("must", "may"):
            raise ValueError(f"expected_skips.txt: neither must nor may: {line}")

    def covers(self, test):
        return fnmatch.fnmatchcase(test, self.pattern)


def expectations(text):
    lines = (line.strip() for line in text.splitlines())
    return [Expectation(line) for line in lines if line and not line.startswith("#")]


def problems_of(results, expected, passed_min):
    """What is wrong with these outcomes: a list of sentences."""
    problems = [f"{r['test']} failed\n{r['text']}" for r in results if r["outcome"] == "failed"]
    skipped = [r["test"] for r in results if r["outcome"] == "skipped"]
    passed = [r["test"] for r in results if r["outcome"] == "passed"]
    problems += [f"{r['test']} was skipped and is not in expected_skips.txt: {r['text']}" for r in results
                 if r["outcome"] == "skipped" and not any(e.covers(r["test"]) for e in expected)]
    for e in (e for e in expected if e.kind == "must"):
        problems += [f"{test} passed: take it out of expected_skips.txt" for test in passed if e.covers(test)]
        if not any(e.covers(test) for test in skipped):
            problems.append(f"nothing was skipped that is like {e.pattern}: take it out of expected_skips.txt")
    if len(passed) < passed_min:
        problems.append(f"only {len(passed)} tests passed, at least {passed_min} must")
    return problems


def unpack(folder):
    """The suite as Python wants it: Debian compresses large files under /usr/share/doc."""
    folder.mkdir()
    for path in SUITE.iterdir():
        if path.suffix == ".gz":
            (folder / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        elif path.is_file():
            shutil.copy(path, folder)


def run_suite(site, rc_drop, tests):
    """The outcomes, and whether the process ended well."""
    unpack(site.folder / "tests")
    results = site.folder / "results"
    with Fabric(site) as fabric:
        command = [PYTHON, "-B", HERE / "collect.py", site.folder, results, "--dev", "tbt0", *tests]
        done = fabric.run(0, command, seconds=SECONDS_MAX, ok=False, extra={"TBT_RC_DROP": rc_drop})
    if site.verbose:
        print(done.out)
    lines = results.read_text().splitlines() if results.exists() else []
    if done.status != 0 or not lines:
        raise CaseFailed(f"the suite died after {len(lines)} tests\n{done.text()}")
    return [json.loads(line) for line in lines]


def report(results):
    count = collections.Counter(r["outcome"] for r in results)
    reasons = collections.Counter(r["text"] for r in results if r["outcome"] == "skipped")
    for reason, times in reasons.most_common():
        print(f"  {times:4} skipped: {reason}")
    print(f"  {len(results)} tests: {count['passed'] + count['failed']} executed, {count['passed']} passed, "
          f"{count['failed']} failed, {count['skipped']} skipped", flush=True)


def has_pyverbs():
    return subprocess.run([PYTHON, "-c", "import pyverbs.device"], capture_output=True).returncode == 0


def run(build, verbose, rc_drop, tests):
    site = Site(build, verbose)
    try:
        results = run_suite(site, rc_drop, tests)
        report(results)
        if tests:  # by hand: the lists are for the whole
            problems = problems_of(results, [Expectation("may * any")], 0)
        else:
            problems = problems_of(results, expectations((HERE / "expected_skips.txt").read_text()), PASSED_MIN)
    except CaseFailed as failure:
        problems = [str(failure)]
    finally:
        left = site.close()
    return problems + [f"left behind: {finding}" for finding in left]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default=os.environ.get("TBT_BUILD", HERE.parents[1] / "build" / "dev"))
    parser.add_argument("--rc-drop", default="", metavar="PERCENTAGE")
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("tests", nargs="*", metavar="TEST")
    options = parser.parse_args()
    if not has_pyverbs():
        print("skipped: python3-pyverbs not installed; scripts/install-deps test")
        return SKIPPED
    if not SUITE.exists():  # not a skip: the package may be there, and its tests never run
        print(f"no {SUITE}: rdma-core is not installed, or dpkg was told to leave documentation out")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the clean-up
    problems = run(options.build, options.verbose, options.rc_drop, options.tests)
    for problem in problems:
        print(f"  FAILED: {problem}", flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
