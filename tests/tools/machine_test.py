#!/usr/bin/env python3
"""tbt and tbtd on a machine whose controller is to be served, as far as a machine without one can show it.

  machine_test.py BIN_DIR [unittest options]
"""
import socket
import subprocess
import unittest

from cli_test import BIN, TIMEOUT_S, Fabric


class Machine(Fabric):
    def test_a_machine_without_a_daemon(self):
        env = {"TBT_SOCKET": str(self.runtime / "tbtd.sock")}
        self.bad("run", "--", "true", code=125, says=["no tbtd serves this machine", "--host"], env=env)
        self.bad("devices", says="No such file", env=env)
        self.bad("topo", says="No such file", env=env)

    def test_a_daemon_without_a_controller(self):
        def tbtd(*words):
            done = subprocess.run([BIN / "tbtd", "--host", "1", *words], env=self.env, capture_output=True, text=True,
                                  timeout=TIMEOUT_S)
            self.assertLessEqual(done.stderr.count("\n"), 2, done.stderr)  # ours is one, CLI11 adds "--help"
            self.assertNotEqual(done.returncode, 0)
            return done.stderr

        folder = ["--directory", str(self.runtime)]
        self.assertIn("tbt fabric up", tbtd())
        self.assertIn("no PCI device of that address", tbtd("--controller", "ffff:ff:1f.7", *folder))
        self.assertEqual(list(self.runtime.iterdir()), [])
        left = self.runtime / "tbtd.pid"  # by one that was killed
        left.write_text("1 1")
        self.assertIn("no PCI device", tbtd("--controller", "ffff:ff:1f.7", *folder))
        self.assertFalse(left.exists())
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
            other.bind(str(self.runtime / "tbtd.sock"))
            other.listen()
            self.assertIn("another tbtd", tbtd("--controller", "ffff:ff:1f.7", *folder))
            self.assertEqual(self.good("fabric", "status"), "no fabric is up\n")  # a file is no fabric
        (self.runtime / "tbtd.sock").unlink()
        for words in (["--hosts", "2"], ["--guest"], ["--vendor-id", "1"]):
            self.assertIn("excludes", tbtd("--controller", "ffff:ff:1f.7", *words))
        self.assertIn("--ports", tbtd("--controller", "ffff:ff:1f.7", "--ports", "3"))


if __name__ == "__main__":
    unittest.main()
