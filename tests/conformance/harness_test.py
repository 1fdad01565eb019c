#!/usr/bin/env python3
"""The conformance harness itself, without a fabric: it must notice failures, hangs and what is left behind."""
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True

import groups_programs  # noqa: E402
import perftest  # noqa: E402
from harness import CaseFailed, Fabric, Site, free_port, listening  # noqa: E402
from talker import Talker  # noqa: E402

# Stands for bin/tbt: runs the program of `tbt run`, and makes or removes a fabric's folder.
FAKE_TBT = """#!/bin/sh
case "$1 $2" in
"fabric up") mkdir -p "$TBT_RUNTIME_DIR/$4"; : >"$TBT_RUNTIME_DIR/$4/fabric.json" ;;
"fabric down") rm -rf "$TBT_RUNTIME_DIR" ;;
run*) while [ "$1" != -- ]; do shift; done; shift; exec "$@" ;;
esac
"""
LISTEN = "import socket,sys;s=socket.create_server(('127.0.0.1',int(sys.argv[1])));c,_=s.accept();print(c.recv(9))"
CONNECT = "import socket,sys;c=socket.create_connection(('127.0.0.1',int(sys.argv[1])));c.sendall(b'hello')"


class Harness(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        tbt = pathlib.Path(folder.name, "bin", "tbt")
        tbt.parent.mkdir()
        tbt.write_text(FAKE_TBT)
        tbt.chmod(0o755)
        self.site = Site(folder.name)
        self.addCleanup(self.site.close)

    def test_output_lines_come_as_they_are_written(self):
        program = self.site.start([sys.executable, "-c", "import time;print('early');time.sleep(0.5);print('late')"])
        done = program.wait(20)
        self.assertEqual((done.status, done.out), (0, "early\nlate"))
        self.assertGreater(program.time_of("late") - program.time_of("early"), 0.4)

    def test_a_program_that_hangs_is_killed_and_fails(self):
        program = self.site.start(["sleep", "60"])
        with self.assertRaisesRegex(CaseFailed, "still running after 0.2 s"):
            program.wait(0.2)
        self.assertFalse(program.running())

    def test_a_talker_answers_complains_and_ends(self):
        program = self.site.build / "tests" / "talker"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\necho ready\nread line\necho $line 3 -4\necho error: no memory\necho at all\n")
        program.chmod(0o755)
        with Fabric(self.site) as fabric:
            talker = Talker(fabric, 0, "talker")
            self.assertEqual(talker.ask("look"), [3, -4])
            with self.assertRaisesRegex(CaseFailed, "error: no memory\n *at all"):
                talker.expect("look")
            talker.close()
            self.assertEqual(talker.process.returncode, 0)
            with self.assertRaisesRegex(CaseFailed, "ended"):
                talker.lines.put(None)
                talker.hear()

    def test_a_pair_that_works(self):
        port = free_port()
        with Fabric(self.site) as fabric:
            done = fabric.pair([sys.executable, "-c", LISTEN, port], [sys.executable, "-c", CONNECT, port], port)
        self.assertIn("hello", done[0].out)
        self.assertEqual(self.site.close(), [])

    def test_a_client_that_fails(self):
        port = free_port()
        with Fabric(self.site) as fabric, self.assertRaisesRegex(CaseFailed, "the client failed"):
            fabric.pair([sys.executable, "-c", LISTEN, port], ["false"], port)

    def test_a_server_that_fails(self):
        port = free_port()
        with Fabric(self.site) as fabric, self.assertRaisesRegex(CaseFailed, "the server failed"):
            fabric.pair([sys.executable, "-c", LISTEN + ";sys.exit(3)", port],
                        [sys.executable, "-c", CONNECT, port], port)

    def test_a_server_that_never_listens(self):
        with Fabric(self.site) as fabric, self.assertRaises(CaseFailed):
            fabric.pair(["false"], ["true"], free_port())

    def test_a_process_left_behind_is_found(self):
        with Fabric(self.site):
            left = subprocess.Popen(["sleep", "60"], env=self.site.environment)
        try:
            deadline = time.monotonic() + 5
            while not any("sleep 60" in line for line in self.site.leftovers()):
                self.assertLess(time.monotonic(), deadline)
        finally:
            left.send_signal(signal.SIGKILL)
            left.wait()
        self.assertEqual(self.site.leftovers(), [])

    def test_a_socket_and_a_file_left_behind_are_found(self):
        with Fabric(self.site):
            path = str(self.site.runtime / "host0.sock")
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
                left.bind(path)
                left.listen()
                found = self.site.leftovers()
                self.assertIn(f"file {path}", found)
                self.assertIn(f"socket {path}", found)
                os.unlink(path)

    def test_a_program_still_running_at_the_end_is_told(self):
        self.site.start(["sleep", "60"])
        self.assertEqual(self.site.close(), ["still running: sleep 60"])

    def test_listening_sees_only_listeners(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.assertTrue(listening(server.getsockname()[1]))
        self.assertFalse(listening(free_port()))


class Parsing(unittest.TestCase):
    def test_result_rows_of_perftest(self):
        out = (" #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]\n"
               " 65536      500              2500.12            2400.00            0.038400\n"
               " local address: LID 0000 QPN 0x0011\n---------\n")
        self.assertEqual(perftest.rows(out), [(65536, 500, [2500.12, 2400.0, 0.0384])])

    def test_devices_and_attributes(self):
        listed = groups_programs.devices_listed(
            "    device          \t   node GUID\n    ------          \t----------------\n"
            "    tbt0            \t0255a1b2c3d4e5f6\n")
        self.assertEqual(listed, {"tbt0": "0255a1b2c3d4e5f6"})
        found = groups_programs.attributes("hca_id:\ttbt0\n\tvendor_id:\t\t\t0x8086\n\t\t\tGID[  0]:\t\tfe80::1\n"
                                           "\t\t\tport_lid:\t\t64\n\t\t\tport_lid:\t\t65\n")
        self.assertEqual(found["vendor_id"], "0x8086")
        self.assertEqual(found["GID[  0]"], "fe80::1")
        self.assertEqual(found["port_lid"], "64")


if __name__ == "__main__":
    unittest.main()
