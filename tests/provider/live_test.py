"""Brings up a fabric of its own, runs a test program on host 0 through the front door, and takes the fabric down.

usage: live_test.py [--leaks] BUILD PROGRAM [ARGUMENT...]

--leaks: with AddressSanitizer, what the program has leaked at its end fails it.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "conformance"))
from harness import CaseFailed, Fabric, Site  # noqa: E402


def main():
    words = sys.argv[1:]
    leaks = words[0] == "--leaks"
    build, *command = words[1:] if leaks else words
    site = Site(build)
    extra = {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1"} if leaks else None
    status = 1
    try:
        with Fabric(site) as fabric:
            done = fabric.run(0, command, seconds=150, ok=False, extra=extra)
            print(done.text())
            status = done.status
    except CaseFailed as error:
        print(error)
    finally:
        left = site.close()
    for finding in left:
        print("left behind:", finding)
    return 1 if left else status


if __name__ == "__main__":
    sys.exit(main())
