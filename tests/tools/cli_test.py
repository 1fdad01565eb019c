#!/usr/bin/env python3
"""tbt and tbtd from outside: life and death of fabrics, and every kind of bad input.

  cli_test.py BIN_DIR [unittest options]

Each test has a runtime folder of its own; what a test leaves behind (files, daemons) fails it.
"""
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

BIN = pathlib.Path(sys.argv.pop(1)).resolve()
SANITIZED = "TBT_SANITIZE:STRING=\n" not in (BIN.parent / "CMakeCache.txt").read_text()
TIMEOUT_S = 60


def pid_of(pid_file):
    return int(pid_file.read_text().split()[0])


def wait_until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


class Fabric(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="tbt")
        self.addCleanup(folder.cleanup)
        self.runtime = pathlib.Path(folder.name) / "run"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("TBT_")}
        self.env["TBT_RUNTIME_DIR"] = str(self.runtime)
        self.addCleanup(self.expect_nothing_left)
        self.addCleanup(self.tbt, "fabric", "down", "--all")

    def expect_nothing_left(self):
        self.assertTrue(wait_until(lambda: not self.daemons()), "daemons are left")
        if self.runtime.is_dir() and not self.runtime.is_symlink():
            self.assertEqual(sorted(p.name for p in self.runtime.iterdir()), [])

    def kill_host(self, host):
        """The keeper first: it would replace the daemon."""
        for extension in ("keeper", "pid"):
            os.kill(pid_of(self.file(f"host{host}.{extension}")), signal.SIGKILL)

    def daemons(self):
        """Pids of daemons and keepers of this test's folder: two for each host."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            try:
                command = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except (OSError, IndexError):
                continue
            if str(self.runtime).encode() in command and b"tbtd" in command and state not in "ZX":
                found.append(int(entry.name))
        return found

    def tbt(self, *words, env=None, **options):
        return subprocess.run([BIN / "tbt", *map(str, words)], env={**self.env, **(env or {})},
                              capture_output=True, text=True, timeout=TIMEOUT_S, **options)

    def good(self, *words, **options):
        done = self.tbt(*words, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def bad(self, *words, says, code=1, **options):
        """The command fails with exactly one line, which says what it should."""
        done = self.tbt(*words, **options)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertTrue(done.stderr.startswith("tbt: "), done.stderr)
        for part in [says] if isinstance(says, str) else says:
            self.assertIn(part, done.stderr)
        return done.stderr

    def status(self, name="default"):
        return json.loads(self.good("fabric", "status", "--name", name, "--json"))[0]["hosts"]

    def link(self, host, ordinal=0):
        return self.status()[host]["links"][ordinal]["state"]

    def file(self, name, fabric="default"):
        return self.runtime / fabric / name


class Life(Fabric):
    def test_up_status_devices_down(self):
        self.good("fabric", "up", "--hosts", 3)
        hosts = self.status()
        self.assertEqual([h["host"] for h in hosts], [0, 1, 2])
        for host in hosts:
            self.assertEqual([link["state"] for link in host["links"]], ["up", "up"])
        self.assertEqual([p["lid"] for p in hosts[1]["ports"]], [128, 129, 130])
        self.assertIn("tbt0c1", self.good("devices", "--host", 2))
        self.assertIn("2 cables", self.good("fabric", "up", "--name", "other", "--topology", "chain", "--hosts", 3))
        self.assertIn("fabric 'other'", self.good("fabric", "status"))
        self.good("fabric", "down")
        self.assertEqual(len(self.daemons()), 6)
        self.good("fabric", "down", "--name", "other")

    def test_the_files_are_for_their_owner_only(self):
        self.good("fabric", "up")
        self.assertEqual(self.runtime.stat().st_mode & 0o777, 0o700)
        self.assertEqual(self.file("").stat().st_mode & 0o777, 0o700)
        for name in ("host0.sock", "host0.pid", "host0.keeper", "host0.log", "fabric.json"):
            self.assertEqual(self.file(name).stat().st_mode & 0o777, 0o600, name)

    def test_topologies(self):
        for words, cables in ((["--topology", "ring", "--hosts", 5], 5), (["--topology", "mesh", "--hosts", 4], 6),
                              (["--topology", "pairs:0-1,0-1,1-2", "--hosts", 3], 3),
                              (["--cables-per-pair", 2], 2), (["--hops", 3, "--nhi", "amd"], 1),
                              (["--nhi", "intel,amd"], 1)):
            self.assertIn(f"{cables} cable", self.good("fabric", "up", *words))
            self.good("fabric", "down")

    def test_eight_hosts_in_a_mesh(self):
        self.good("fabric", "up", "--hosts", 8)
        self.assertEqual(len(self.status()[7]["links"]), 7)

    def test_down_twice_is_no_error(self):
        self.good("fabric", "up")
        self.good("fabric", "down")
        self.assertIn("no fabric 'default' is up", self.good("fabric", "down"))
        self.assertIn("no fabric is up", self.good("fabric", "down", "--all"))

    def test_down_after_kills(self):
        self.good("fabric", "up", "--hosts", 3)
        for host in (0, 2):
            self.kill_host(host)
        self.assertTrue(wait_until(lambda: len(self.daemons()) == 2))
        self.assertIn("is dead", self.good("fabric", "status"))
        self.good("fabric", "down")

    def test_down_ends_a_stopped_daemon(self):
        self.good("fabric", "up")
        os.kill(pid_of(self.file("host0.pid")), signal.SIGSTOP)
        self.assertIn("1 had to be killed", self.good("fabric", "down"))

    def test_down_does_not_trust_a_pid_file(self):
        self.good("fabric", "up")
        with subprocess.Popen(["sleep", "60"]) as bystander:
            stat = pathlib.Path(f"/proc/{bystander.pid}/stat").read_text().rsplit(")", 1)[1].split()
            # The real pid and start time of somebody else; another life's start time; no pid at all.
            self.file("host0.pid").write_text(f"{bystander.pid} {stat[19]}\n")
            self.file("host1.pid").write_text(f"{os.getpid()} 1\n")
            self.file("host0.keeper").write_text(f"{bystander.pid} {stat[19]}\n")
            self.good("fabric", "down")
            self.assertIsNone(bystander.poll())
            bystander.kill()

    def test_sigterm_removes_what_the_daemon_made(self):
        self.good("fabric", "up")
        os.kill(pid_of(self.file("host1.pid")), signal.SIGTERM)
        self.assertTrue(wait_until(lambda: not self.file("host1.sock").exists()))
        self.assertTrue(wait_until(lambda: not self.file("host1.pid").exists()))
        self.assertTrue(wait_until(lambda: self.link(0) == "down", 1))

    def test_a_killed_host_is_missed(self):
        self.good("fabric", "up")
        self.kill_host(1)
        self.assertTrue(wait_until(lambda: self.link(0) == "silent", 5))

    def test_a_killed_daemon_is_replaced(self):
        self.good("fabric", "up")
        before = self.status()[1]
        os.kill(before["pid"], signal.SIGKILL)
        self.assertIn("tbt0", self.good("devices", "--host", 1))  # waits, and is not turned away
        after = self.status()[1]
        self.assertNotEqual(after["pid"], before["pid"])
        self.assertEqual(after["restarts"], 1)
        self.assertEqual(after["incarnation"], before["incarnation"])
        self.assertEqual(pid_of(self.file("host1.pid")), after["pid"])
        time.sleep(1.2)
        self.assertEqual([self.link(0), self.link(1)], ["up", "up"])
        self.assertNotIn("silent", self.file("host0.log").read_text())
        for host in range(2):  # the path carries frames, and nobody has touched it
            log = self.file(f"host{host}.log").read_text()
            self.assertNotIn("carries no frames", log)
            self.assertEqual(log.count("carries frames"), 1 + host)

    def test_a_cable_that_changes_while_the_daemon_is_away_is_noticed(self):
        self.good("fabric", "up")
        keeper = pid_of(self.file("host1.keeper"))
        for changes, outcome in ((["unplug"], "unplugged"), (["plug"], "up"), (["unplug", "plug"], "up")):
            pid = self.status()[1]["pid"]
            os.kill(keeper, signal.SIGSTOP)
            os.kill(pid, signal.SIGKILL)
            for change in changes:
                self.good("cable", change, 0)
                time.sleep(0.2)
            os.kill(keeper, signal.SIGCONT)
            self.assertTrue(wait_until(lambda: self.status()[1].get("pid", pid) != pid))
            self.assertTrue(wait_until(lambda: self.link(0) == self.link(1) == outcome), changes)
        self.assertIn("carries no frames: the peer has begun anew", self.file("host1.log").read_text())

    def test_a_killed_keeper_is_missed_only_when_the_daemon_is_killed_as_well(self):
        self.good("fabric", "up")
        os.kill(pid_of(self.file("host1.keeper")), signal.SIGKILL)
        self.assertIn("tbt0", self.good("devices", "--host", 1))
        os.kill(pid_of(self.file("host1.pid")), signal.SIGKILL)
        self.assertTrue(wait_until(lambda: "error" in self.status()[1]))

    def test_down_ends_a_stopped_keeper(self):
        self.good("fabric", "up")
        os.kill(pid_of(self.file("host0.keeper")), signal.SIGSTOP)
        self.assertIn("1 had to be killed", self.good("fabric", "down"))

    def test_an_idle_daemon_uses_no_processor(self):
        self.good("fabric", "up")
        pid = pid_of(self.file("host0.pid"))

        def switches():
            text = pathlib.Path(f"/proc/{pid}/status").read_text()
            return int(text.split("voluntary_ctxt_switches:")[1].split()[0])

        before = switches()
        time.sleep(2)
        self.assertLess(switches() - before, 100)  # 16 heartbeats and answers


class Guests(Fabric):
    def test_the_controller_of_a_virtual_machine_is_served(self):
        self.good("fabric", "up", "--guest", 1)
        path = self.runtime.parent / "controller.sock"
        with subprocess.Popen([BIN / "tbt", "fabric", "serve", "--host", "1", "--socket", path], env=self.env,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as serve:
            try:
                self.assertTrue(wait_until(lambda: path.exists() or serve.poll() is not None))
                self.assertIsNone(serve.poll())
                self.assertIn("virtual machine, served by", self.good("fabric", "status"))
            finally:
                serve.terminate()
                _, errors = serve.communicate(timeout=TIMEOUT_S)
        self.assertEqual(serve.returncode, 0, errors)


class Cables(Fabric):
    def test_pulling_and_plugging(self):
        self.good("fabric", "up")
        self.good("cable", "unplug", "0-1")
        self.assertTrue(wait_until(lambda: self.link(0) == self.link(1) == "unplugged", 2))
        self.good("cable", "plug", 0)
        self.assertTrue(wait_until(lambda: self.link(0) == self.link(1) == "up", 2))

    def test_settings_are_shown(self):
        self.good("fabric", "up", "--cable", "tb5,drop=1%")
        self.assertIn("drop_ppm 10000", self.good("cable", "list"))
        self.good("cable", "set", 0, "latency=3us", "drop=0")
        listed = self.good("cable", "list")
        self.assertIn("latency_ns 3000", listed)
        self.assertIn("drop_ppm 0", listed)
        self.assertIn("rate_bps 80000000000", listed)

    def test_a_cable_that_loses_a_third_comes_up_all_the_same(self):
        self.good("fabric", "up", "--cable", "drop=33%", "--seed", 7)

    def test_bad_settings(self):
        self.bad("fabric", "up", "--cable", "tb6", says=["tb6", "usb4-40"])
        self.bad("fabric", "up", "--cable", "drop=200%", says="drop=200%")
        self.good("fabric", "up")
        self.bad("cable", "set", 0, "colour=red", says=["colour", "latency"])
        self.bad("cable", "set", 5, "drop=1%", says=["no cable '5'", "cable list"])
        self.bad("cable", "unplug", "0-7", says="no cable '0-7'")

    def test_a_cable_that_loses_everything_fails_and_is_undone(self):
        self.bad("fabric", "up", "--cable", "drop=100%", says=["within 5 s", "drop=100%"])
        self.assertEqual(self.daemons(), [])
        self.assertFalse(self.file("").exists())


class BadInput(Fabric):
    def test_unknown_fabric(self):
        self.bad("run", "--host", 0, "--", "true", code=125, says=["no fabric 'default'", "tbt fabric up"])
        self.bad("devices", "--fabric", "x", says=["no fabric 'x'", "--name x"])
        self.bad("cable", "list", says="no fabric 'default'")
        self.bad("fabric", "down", "--name", "x", says="no fabric 'x'")
        self.bad("fabric", "status", "--name", "x", says="no fabric 'x'")

    def test_unknown_host(self):
        self.good("fabric", "up")
        self.bad("run", "--host", 2, "--", "true", code=125, says="hosts 0 to 1")
        self.bad("devices", "--host", 9, says="hosts 0 to 1")

    def test_two_fabrics_of_one_name(self):
        self.good("fabric", "up")
        self.bad("fabric", "up", says=["up already", "tbt fabric down --name default", "--name"])
        self.assertEqual(len(self.daemons()), 4)

    def test_what_dead_daemons_left_is_named(self):
        self.good("fabric", "up")
        for host in range(2):
            self.kill_host(host)
        self.assertTrue(wait_until(lambda: not self.daemons()))
        self.bad("fabric", "up", says=["died", "tbt fabric down --name default"])

    def test_malformed_fabric_files(self):
        self.good("fabric", "up")
        path = self.file("fabric.json")
        whole = path.read_text()
        for text in ("", "{", "[]", whole[:40], whole.replace('"hosts":2', '"hosts":3000000000'), "x" * 100000,
                     whole.replace('"default"', '"other"'), "[" * 60000):
            path.write_text(text)
            self.bad("devices", says=["damaged", "tbt fabric down"])
        path.unlink()
        self.bad("devices", says=["cannot read", "tbt fabric down"])
        path.mkdir()
        self.bad("devices", says="tbt fabric down")
        path.rmdir()

    def test_no_daemon_and_dead_daemon(self):
        self.good("fabric", "up")
        self.kill_host(0)
        self.assertTrue(wait_until(lambda: len(self.daemons()) == 2))
        self.bad("run", "--host", 0, "--", "true", code=125, says=["is dead", "tbt fabric down"])
        self.file("host0.sock").unlink()
        self.bad("run", "--host", 0, "--", "true", code=125, says=["no daemon", "tbt fabric down"])

    def test_a_stopped_daemon_does_not_answer(self):
        self.good("fabric", "up")
        pid = pid_of(self.file("host0.pid"))
        os.kill(pid, signal.SIGSTOP)
        try:
            self.bad("devices", "--host", 0, says=["does not answer", "host0.log"])
        finally:
            os.kill(pid, signal.SIGCONT)

    def test_names(self):
        for name in ("../x", ".", "-x", "a b", "x" * 33):
            self.bad("fabric", "up", f"--name={name}", says="no name for a fabric")

    def test_shapes(self):
        self.bad("fabric", "up", "--hosts", 1, code=2, says="--hosts")
        self.bad("fabric", "up", "--hosts", 9, code=2, says="--hosts")
        self.bad("fabric", "up", "--hops", 5, code=2, says="--hops")
        self.bad("fabric", "up", "--nhi", "apple", code=2, says="--nhi")
        self.bad("fabric", "up", "--nhi", "intel,amd", "--hosts", 3, says="2 flavours for 3 hosts")
        self.bad("fabric", "up", "--topology", "star", says=["star", "mesh"])
        self.bad("fabric", "up", "--topology", "pairs:0-2", says="hosts 0 to 1")
        self.bad("fabric", "up", "--topology", "pairs:0", says="0-1")
        self.bad("fabric", "up", "--hosts", 4, "--topology", "pairs:0-1", says="host 2 has no cable")
        self.bad("fabric", "up", "--hosts", 4, "--hops", 3, says=["3 cables", "room for 2"])
        self.bad("fabric", "up", "--hosts", 8, "--cables-per-pair", 2, says="14 cables")

    def test_words_that_mean_nothing(self):
        self.bad("frobnicate", code=2, says="frobnicate")
        self.bad(code=2, says="tbt --help")
        self.bad("run", "--fabric", "x", "--", "true", code=2, says="--host")

    def test_a_runtime_folder_that_others_may_write(self):
        self.runtime.mkdir(mode=0o700)
        self.runtime.chmod(0o777)
        self.bad("fabric", "up", says=["others may write", "chmod 700"])
        self.runtime.chmod(0o700)

    def test_a_runtime_folder_that_is_none(self):
        self.runtime.write_text("")
        self.bad("fabric", "up", says="is not a folder")
        self.runtime.unlink()
        self.runtime.symlink_to("/tmp")
        self.bad("fabric", "up", says="is not a folder")
        self.runtime.unlink()
        self.bad("fabric", "up", says="cannot make", env={"TBT_RUNTIME_DIR": str(self.runtime / "a" / "b")})

    def test_a_runtime_folder_with_too_long_a_name(self):
        long_dir = self.runtime.parent / ("x" * 100)
        self.bad("fabric", "up", says=["too long", "TBT_RUNTIME_DIR"], env={"TBT_RUNTIME_DIR": str(long_dir)})
        long_dir.rmdir()

    @unittest.skipIf(os.geteuid() != 0, "becomes another user")
    def test_another_users_socket(self):
        self.good("fabric", "up")
        for path in (self.runtime.parent, self.runtime, self.file("")):
            path.chmod(0o755)
        self.file("fabric.json").chmod(0o644)
        words = ["run", "--host", 0, "--", "true"]
        self.bad(*words, code=125, says=["not allowed", "another user"], user=65534, group=65534, extra_groups=[])
        self.file("host0.sock").chmod(0o666)  # the daemon itself looks who calls
        self.bad(*words, code=125, says="not allowed", user=65534, group=65534, extra_groups=[])
        self.file("fabric.json").chmod(0o600)
        self.bad(*words, code=125, says=["not allowed", "run as that user"],
                 user=65534, group=65534, extra_groups=[])
        self.bad("fabric", "down", says="take it down as that user", user=65534, group=65534, extra_groups=[])
        self.assertEqual(len(self.daemons()), 4)
        self.runtime.chmod(0o700)
        self.bad(*words, code=125, says="not allowed to look", user=65534, group=65534, extra_groups=[])

    def test_too_few_descriptors(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))
        self.bad("fabric", "up", "--hosts", 8, says=["files", "ulimit -n"], preexec_fn=limit)
        self.assertEqual(self.daemons(), [])

    def test_too_few_descriptors_for_a_program(self):
        def limit(files):
            return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        self.good("fabric", "up", "--hosts", 8)
        self.bad("run", "--host", 0, "--", "true", code=125, says="ulimit -n 36", preexec_fn=limit(35))
        if SANITIZED:
            self.skipTest("a sanitizer's run time wants descriptors of its own")
        devices = self.tbt("run", "--host", 0, "--", "ibv_devinfo", preexec_fn=limit(36))  # and so many do
        self.assertIn("PORT_ACTIVE", devices.stdout, devices.stderr)

    def test_interrupting_up_undoes_it(self):
        up = subprocess.Popen([BIN / "tbt", "fabric", "up", "--cable", "drop=100%"], env=self.env,
                              stderr=subprocess.PIPE, text=True)
        self.assertTrue(wait_until(lambda: len(self.daemons()) == 4))
        up.send_signal(signal.SIGINT)
        _, errors = up.communicate(timeout=TIMEOUT_S)
        self.assertEqual(up.returncode, 130)
        self.assertIn("interrupted", errors)


class Run(Fabric):
    def setUp(self):
        super().setUp()
        self.good("fabric", "up")

    def test_arguments_environment_and_exit_code_are_the_programs(self):
        script = 'echo "$TBT_SOCKET|$LD_LIBRARY_PATH|$*"'
        out = self.good("run", "--host", 1, "--", "sh", "-c", script, "-", "--a", "--", "-b",
                        env={"LD_LIBRARY_PATH": "/x"})
        socket_path, libraries, words = out.strip().split("|")
        self.assertEqual(socket_path, str(self.file("host1.sock")))
        self.assertTrue((pathlib.Path(libraries.split(":")[0]) / "libibverbs.so.1").exists())
        self.assertEqual(libraries.split(":")[1:], ["/x"])
        self.assertEqual(words, "--a -- -b")
        self.assertEqual(self.tbt("run", "--host", 0, "--", "sh", "-c", "exit 7").returncode, 7)
        self.assertEqual(self.good("run", "--host", 0, "echo", "-n", "x"), "x")

    def test_programs_that_cannot_run(self):
        self.bad("run", "--host", 0, "--", "/nonexistent", code=127, says="No such file")
        self.bad("run", "--host", 0, "--", "/etc/passwd", code=126, says="Permission denied")
        self.bad("run", "--host", 0, "--", code=125, says="no program")


class Protocol(Fabric):
    """Straight to the daemon's socket."""

    def setUp(self):
        super().setUp()
        self.good("fabric", "up")

    def connect(self):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(s.close)
        s.settimeout(10)
        for _ in range(1000):
            try:
                s.connect(str(self.file("host0.sock")))
                return s
            except BlockingIOError:  # the queue of the listener is full for a moment
                time.sleep(0.005)
        self.fail("the daemon does not accept")

    def ask(self, s, request):
        """The reply, or None if the connection was closed; descriptors are counted and closed."""
        s.send(request if isinstance(request, bytes) else json.dumps(request).encode())
        text, fds, _, _ = socket.recv_fds(s, 65536, 64)
        for fd in fds:
            os.close(fd)
        self.fds = len(fds)
        return json.loads(text) if text else None

    def attach(self):
        s = self.connect()
        return s, self.ask(s, {"version": 1, "op": "attach"})

    def slots(self):
        return [p["slot"] for p in self.status()[0]["processes"]]

    def test_attach_gives_a_slot_and_the_descriptors(self):
        s, reply = self.attach()
        self.assertEqual((reply["ok"], reply["host"], reply["hosts"]), (True, 0, 2))
        self.assertEqual(self.fds, 5)
        self.assertEqual(self.slots(), [reply["slot"]])
        s.close()
        self.assertTrue(wait_until(lambda: self.slots() == []))

    def test_attaching_twice_is_refused_and_ends_the_first(self):
        s, _ = self.attach()
        self.assertFalse(self.ask(s, {"version": 1, "op": "attach"})["ok"])
        self.assertTrue(wait_until(lambda: self.slots() == []))

    def test_slots_run_out_and_come_back(self):
        attached = [self.attach() for _ in range(63)]
        self.assertEqual(sorted(reply["slot"] for _, reply in attached), list(range(1, 64)))
        _, reply = self.attach()
        self.assertEqual((reply["ok"], reply["code"]), (False, 11))
        attached[5][0].close()
        self.assertTrue(wait_until(lambda: len(self.slots()) == 62))
        _, reply = self.attach()
        self.assertTrue(reply["ok"])

    def test_a_slot_is_not_given_out_again_at_once(self):
        seen = set()
        for _ in range(20):
            s, reply = self.attach()
            seen.add(reply["slot"])
            s.close()
        self.assertEqual(len(seen), 20)

    def test_a_process_whose_child_holds_the_connection_is_dead_all_the_same(self):
        script = ("import os, socket, sys, time\n"
                  "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
                  f"s.connect({str(self.file('host0.sock'))!r})\n"
                  "s.send(b'{\"version\":1,\"op\":\"attach\"}')\n"
                  "s.recv(65536)\n"
                  "if os.fork() == 0:\n"
                  "    sys.stdout.write(str(os.getpid()) + '\\n'); sys.stdout.flush(); time.sleep(60)\n"
                  "time.sleep(60)\n")
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
            child = int(parent.stdout.readline())
            try:
                self.assertEqual(len(self.slots()), 1)
                parent.kill()
                parent.wait()
                self.assertTrue(wait_until(lambda: self.slots() == []))
            finally:
                os.kill(child, signal.SIGKILL)

    def test_malformed_requests_are_answered_and_end_the_connection(self):
        for request in (b"x", b"{}", b"\x00" * 1000, b"[" * 60000, b'{"version":1}', b'{"version":1,"op":"no"}',
                        b'{"version":99,"op":"attach"}', b'{"version":1,"op":"cable","cable":9}'):
            s = self.connect()
            self.assertFalse(self.ask(s, request)["ok"], request[:40])
            self.assertEqual(s.recv(10), b"")
        s = self.connect()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.assertFalse(self.ask(s, b"x" * 70000)["ok"])
        self.assertEqual(len(self.daemons()), 4)
        self.assertEqual(self.slots(), [])

    def test_descriptors_sent_to_the_daemon_are_closed(self):
        pid = pid_of(self.file("host0.pid"))

        def count():
            return len(os.listdir(f"/proc/{pid}/fd"))

        before = count()  # that of `fabric up` may still be among them
        for _ in range(20):
            s = self.connect()
            socket.send_fds(s, [b"x"], [0] * 32)
            s.recv(1000)
            s.close()
        self.assertTrue(wait_until(lambda: count() <= before), f"{count()} instead of {before}")

    def test_connections_that_say_nothing_do_not_keep_others_out_for_ever(self):
        silent = [self.connect() for _ in range(256)]
        one_more = self.connect()
        reply = json.loads(one_more.recv(1000))
        self.assertEqual((reply["ok"], reply["code"]), (False, 11))
        for s in silent:
            s.close()
        self.assertTrue(wait_until(lambda: self.attach_ok()))

    def attach_ok(self):
        try:
            return self.attach()[1]["ok"]
        except OSError:
            return False


if __name__ == "__main__":
    unittest.main()
