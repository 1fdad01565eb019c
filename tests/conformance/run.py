#!/usr/bin/env python3
"""Runs unmodified verbs programs over emulated fabrics and checks what they do.

  run.py --list                          the groups of cases
  run.py [--build DIR] [-v] [GROUP...]   these groups (default: all that are not nightly)

Each group has a fabric and a runtime directory of its own and must leave nothing behind. The exit status is
1 if a group failed; docs/testing.md says more.
"""
import argparse
import os
import pathlib
import shutil
import signal
import sys
import time

sys.dont_write_bytecode = True

import groups_dump  # noqa: F401, E402  (registers its groups)
import groups_failure  # noqa: F401, E402
import groups_flow  # noqa: F401, E402
import groups_limits  # noqa: F401, E402
import groups_programs  # noqa: F401, E402
from harness import CaseFailed, Site  # noqa: E402
from registry import GROUPS  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIPPED = 77
NEEDED = ("ibv_devices", "ibv_rc_pingpong", "ib_write_bw")


def out_of_time(group):
    raise CaseFailed(f"{group.name} has not ended after {group.seconds_max} s")


def run_group(group, build, verbose):
    """True if the group passed and left nothing."""
    print(f"{group.name}: {group.text}", flush=True)
    site = Site(build, verbose)
    start = time.monotonic()
    problems = []
    # Ends a group that hangs from inside, so that its fabric is still taken down.
    signal.signal(signal.SIGALRM, lambda *_: out_of_time(group))
    signal.alarm(group.seconds_max)
    try:
        group.run(site)
    except CaseFailed as failure:
        problems.append(str(failure))
    finally:
        signal.alarm(0)
        problems += [f"left behind: {finding}" for finding in site.close()]
    for problem in problems:
        print(f"  FAILED: {problem}", flush=True)
    print(f"  {'failed' if problems else 'passed'} after {time.monotonic() - start:.1f} s", flush=True)
    return not problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default=os.environ.get("TBT_BUILD", ROOT / "build" / "dev"),
                        help="build directory (default: $TBT_BUILD or build/dev)")
    parser.add_argument("-v", "--verbose", action="store_true", help="each program with its time")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--cmake", action="store_true", help="the groups, for CMakeLists.txt")
    parser.add_argument("groups", nargs="*", metavar="GROUP")
    options = parser.parse_args()
    if options.list:
        for group in GROUPS.values():
            print(f"{group.name:16} {'nightly ' if group.nightly else '        '} {group.text}")
        return 0
    if options.cmake:
        print(";".join(f"{group.name}:{'nightly' if group.nightly else 'conformance'}:"
                       f"{group.seconds_max}:{'TRUE' if group.alone else 'FALSE'}" for group in GROUPS.values()))
        return 0
    unknown = [name for name in options.groups if name not in GROUPS]
    if unknown:
        parser.error(f"no such group: {', '.join(unknown)}; --list names them")
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing:
        print(f"skipped: {', '.join(missing)} not installed; scripts/install-deps test")
        return SKIPPED
    tbt = pathlib.Path(options.build) / "bin" / "tbt"
    if not tbt.exists():
        print(f"no {tbt}: build first")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the clean-up
    names = options.groups or [group.name for group in GROUPS.values() if not group.nightly]
    failed = [name for name in names if not run_group(GROUPS[name], options.build, options.verbose)]
    if failed:
        print(f"failed: {' '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
