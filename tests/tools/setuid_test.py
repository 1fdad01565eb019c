#!/usr/bin/env python3
"""A setuid program does not let its caller choose the fabric (docs/security.md, T9).

  setuid_test.py BIN_DIR [unittest options]

A copy of tbt is made another user's and setuid. Needs root and a file system without nosuid; else
skipped (77).
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

BIN = pathlib.Path(sys.argv.pop(1)).resolve()
NOBODY = 65534
TIMEOUT_S = 60


class Setuid(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="tbt")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.folder.chmod(0o755)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("TBT_")}
        self.env["TBT_RUNTIME_DIR"] = str(self.folder / "run")
        self.copy = self.folder / "tbt"
        shutil.copy(BIN / "tbt", self.copy)
        self.addCleanup(self.run_tbt, BIN / "tbt", "fabric", "down", "--all")
        self.assertEqual(self.run_tbt(BIN / "tbt", "fabric", "up").returncode, 0)
        # Nothing but the rule under test keeps the other user out.
        fabric = self.folder / "run" / "default"
        for path, mode in ((fabric.parent, 0o755), (fabric, 0o755), (fabric / "fabric.json", 0o644)):
            path.chmod(mode)

    def run_tbt(self, program, *words, **env):
        return subprocess.run([program, *words], env={**self.env, **env}, capture_output=True, text=True,
                              timeout=TIMEOUT_S)

    def make_setuid(self):
        os.chown(self.copy, NOBODY, NOBODY)
        self.copy.chmod(0o4755)

    def test_the_runtime_folder_is_not_the_callers(self):
        words = ["fabric", "status"]
        self.assertIn("fabric 'default'", self.run_tbt(self.copy, *words).stdout)
        self.make_setuid()
        self.assertNotIn("fabric 'default'", self.run_tbt(self.copy, *words).stdout)

    def test_the_daemon_is_not_the_callers(self):
        socket = str(self.folder / "run" / "default" / "host0.sock")
        without_folder = {"TBT_RUNTIME_DIR": str(self.folder / "none"), "TBT_SOCKET": socket}
        self.assertIn("tbt0", self.run_tbt(self.copy, "devices", **without_folder).stdout)
        self.make_setuid()
        done = self.run_tbt(self.copy, "devices", **without_folder)
        self.assertNotIn("tbt0", done.stdout)
        # It did not even ask there: that would have been refused in other words.
        self.assertIn("no fabric 'default' is up", done.stderr)


def setuid_works():
    if os.geteuid() != 0:
        return False
    return not os.statvfs(tempfile.gettempdir()).f_flag & os.ST_NOSUID


if __name__ == "__main__":
    if not setuid_works():
        print("needs root and a temporary folder where setuid works")
        sys.exit(77)
    unittest.main()
