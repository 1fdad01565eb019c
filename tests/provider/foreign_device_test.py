"""A device of the real library beside ours.

There is no RDMA hardware here, and none is needed to see whether foreign objects reach the real library: it lists
what it finds below SYSFS_PATH and opens the character device of that name, for which /dev/null will do. The name
makes the real library take its rxe driver. Everything happens in a mount namespace of our own.

usage: foreign_device_test.py FRONT_DOOR_DIRECTORY STAGE_WITH_THE_TRANSPORT_DOUBLE
"""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

DIRECTORY, STAGE = sys.argv[1:3]
NAME = "rxe9"
GUID = "0a0027fffe000001"
SKIPPED = 77

DEVICES_SCRIPT = """
mount -t tmpfs none /dev || exit 77
mkdir /dev/infiniband && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/infiniband/uverbs0 c 1 3 || exit 77
exec "$@"
"""


def fake_sysfs(root):
    verbs = root / "class/infiniband_verbs/uverbs0"
    device = root / "class/infiniband" / NAME
    for folder in (verbs / "device", device / "ports/1", device / "device"):
        folder.mkdir(parents=True)
    (root / "class/infiniband_verbs/abi_version").write_text("6\n")
    for name, text in (("ibdev", NAME), ("abi_version", "1"), ("dev", "1:3")):
        (verbs / name).write_text(text + "\n")
    for name, text in (("node_type", "1: CA"), ("node_guid", "0a00:27ff:fe00:0001"), ("fw_ver", "0.0")):
        (device / name).write_text(text + "\n")


class ForeignDevice(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        fake_sysfs(Path(self.folder.name))

    def run_program(self, *program, library_path=None, **extra):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("TBT_", "LD_"))}
        environment.update(SYSFS_PATH=self.folder.name, TBT_RUNTIME_DIR=self.folder.name, **extra)
        if library_path:
            program = ("env", f"LD_LIBRARY_PATH={library_path}", *program)
        done = subprocess.run(["unshare", "-m", "sh", "-c", DEVICES_SCRIPT, "sh", *program],
                              capture_output=True, text=True, env=environment, timeout=30, check=False)
        return done.returncode, done.stdout, done.stderr

    def with_ours(self, *program):
        return self.run_program(*program, library_path=STAGE, TBT_DOUBLE_DEVICES="1")

    def test_it_is_listed_first_and_ours_behind_it(self):
        status, text, error = self.with_ours("ibv_devices")
        self.assertEqual((status, error), (0, ""))
        names = [line.split()[0] for line in text.splitlines()[2:]]
        self.assertEqual(names, [NAME, "tbt0", "tbt0c0"])
        self.assertIn(GUID, text)

    def test_its_attributes_are_the_real_librarys(self):
        real = self.run_program("ibv_devinfo", "-v", "-d", NAME)
        self.assertIn(NAME, real[1])
        self.assertEqual(self.with_ours("ibv_devinfo", "-v", "-d", NAME), real)
        self.assertEqual(self.run_program("ibv_devinfo", "-v", "-d", NAME, library_path=DIRECTORY), real)

    def test_a_device_that_does_not_exist_is_missed_in_the_same_words(self):
        program = ("ibv_rc_pingpong", "-d", "none")
        self.assertEqual(self.with_ours(*program), self.run_program(*program))

    def test_ours_open_beside_it(self):
        status, text, error = self.with_ours("ibv_devinfo", "-v", "-d", "tbt0")
        self.assertEqual((status, error), (0, ""))
        self.assertIn("vendor_id:\t\t\t0x8086", text)
        self.assertIn("state:\t\t\tPORT_ACTIVE (4)", text)
        self.assertIn("::ffff:169.254.7.1", text)


def may_mount():
    done = subprocess.run(["unshare", "-m", "sh", "-c", DEVICES_SCRIPT, "sh", "true"], capture_output=True, check=False)
    return done.returncode == 0


if __name__ == "__main__":
    if not may_mount():
        print("skipped: a mount namespace needs privilege")
        sys.exit(SKIPPED)
    unittest.main(argv=sys.argv[:1])
