"""Programs that work: devices, pingpongs, perftest, many hosts, many processes, the NCCL and JACCL shapes."""
import itertools
import os
import re
import subprocess

from harness import Fabric, expect, free_port
from perftest import ALL, SHORT, run_list, run_perftest
from pingpong import full_matrix, run_all, run_pingpong, run_xsrq, small_matrix
from registry import group


def devices_listed(out):
    """name -> GUID of ibv_devices' output."""
    return dict(re.findall(r"^\s+(\S+)\s+([0-9a-f]{16})$", out, re.M))


def attributes(out):
    """attribute -> first value of ibv_devinfo's output."""
    found = {}
    for key, value in re.findall(r"^\s*([\w\[\] -]+?):\s+(.*?)\s*$", out, re.M):
        found.setdefault(key, value)
    return found


# facts that an application of verbs relies on: (attribute, pattern of its value)
PLAUSIBLE = {
    "transport": r"InfiniBand \(0\)",
    "fw_ver": r"\S+",
    "vendor_id": r"0x8086|0x1022",
    "phys_port_cnt": r"1",
    "max_qp": r"16384",
    "max_qp_wr": r"16384",
    "max_sge": r"30",
    "max_cq": r"65536",
    "max_mr": r"1048576",
    "max_qp_rd_atom": r"128",
    "max_srq": r"4096",
    "atomic_cap": r"ATOMIC_HCA \(1\)|ATOMIC_GLOB \(2\)",
    "max_pkeys": r"1",
    "state": r"PORT_ACTIVE \(4\)",
    "max_mtu": r"4096 \(5\)",
    "active_mtu": r"4096 \(5\)",
    "max_msg_sz": r"0x40000000",
    "link_layer": r"InfiniBand",
    "gid_tbl_len": r"16",
    "pkey_tbl_len": r"1",
    "phys_state": r"LINK_UP \(5\)",
    "GID[  0]": r"fe80:0000:0000:0000:.*",
    "GID[  1]": r"(0000:0000:0000:0000:0000:ffff:.*|::ffff:[\d.]+)(, RoCE v2)?",
}


@group()
def devices(site):
    """ibv_devices and ibv_devinfo -v: both devices of each host, complete and plausible."""
    with Fabric(site) as fabric:
        guids = set()
        for host in range(2):
            listed = devices_listed(fabric.run(host, ["ibv_devices"]).out)
            expect(set(listed) >= {"tbt0", "tbt0c0"}, f"host {host} lists {listed}")
            for ordinal, name in enumerate(("tbt0", "tbt0c0")):
                done = fabric.run(host, ["ibv_devinfo", "-v", "-d", name])
                found = attributes(done.out)
                for key, pattern in PLAUSIBLE.items():
                    expect(re.fullmatch(pattern, found.get(key, "")),
                           f"{name}: {key} is {found.get(key)!r}, not {pattern}\n{done.text()}")
                expect(int(found["port_lid"]) == 64 * (host + 1) + ordinal, f"LID\n{done.text()}")
                expect(int(found["sm_lid"]) == int(found["port_lid"]), f"SM LID\n{done.text()}")
                guid = found["node_guid"].replace(":", "")
                expect(guid == listed[name] and int(guid, 16), f"GUIDs differ\n{done.text()}")
                guids.add(guid)
        expect(len(guids) == 4, f"GUIDs are not unique: {guids}")
        site.say("2 devices on each of 2 hosts")


@group()
def without_fabric(site):
    """With our library but no daemon, programs behave as if we were not there."""
    library = site.build / "lib" / "tbt-rdma"
    expect((library / "libibverbs.so.1").exists(), f"no libibverbs.so.1 in {library}")
    ours = {"LD_LIBRARY_PATH": str(library), "TBT_SOCKET": str(site.folder / "nobody.sock")}
    if site.preload:
        ours["LD_PRELOAD"] = site.preload
    for command in (["ibv_devices"], ["ibv_devinfo"], ["ibv_devinfo", "-d", "tbt0"], ["ibv_rc_pingpong"]):
        plain = site.start(command).wait(20)
        with_us = site.start(command, ours).wait(20)
        expect((plain.status, plain.out) == (with_us.status, with_us.out),
               f"not the same\n{plain.text()}\n{with_us.text()}")
    site.say("4 programs say the same with and without us")


@group()
def pingpong_rc(site):
    """ibv_rc_pingpong: LID and GIDs, events, data check, sizes, extended post."""
    with Fabric(site) as fabric:
        run_all(site, fabric, "rc", small_matrix("rc"))


@group()
def pingpong_uc(site):
    """ibv_uc_pingpong, also in the IBA's drop mode."""
    with Fabric(site) as fabric:
        run_all(site, fabric, "uc", small_matrix("uc"))
        run_pingpong(fabric, "uc", ["-c"], 65536, extra={"TBT_UC_MODE": "drop"})


@group()
def pingpong_ud(site):
    """ibv_ud_pingpong."""
    with Fabric(site) as fabric:
        run_all(site, fabric, "ud", small_matrix("ud"))


@group()
def pingpong_srq(site):
    """ibv_srq_pingpong."""
    with Fabric(site) as fabric:
        run_all(site, fabric, "srq", small_matrix("srq"))


@group()
def same_host(site):
    """Two processes of one host, through the aggregate and through the cable's device."""
    with Fabric(site) as fabric:
        for kind in ("rc", "uc", "ud", "srq"):
            for options in ([], ["-g", "1", "-c"], ["-e"], ["-d", "tbt0c0"]):
                run_pingpong(fabric, kind, options, 2048, server_host=0, client_host=0)
        run_perftest(fabric, "ib_write_bw", [], server_host=0, client_host=0)
        run_perftest(fabric, "ib_read_lat", [], server_host=0, client_host=0)
        site.say("4 kinds of pingpong and 2 perftest programs on host 0")


@group()
def cable_device(site):
    """The device of one cable, between the hosts."""
    with Fabric(site) as fabric:
        for kind in ("rc", "uc", "ud", "srq"):
            for options in ([], ["-g", "0"], ["-g", "1", "-c"]):
                run_pingpong(fabric, kind, ["-d", "tbt0c0", *options], 2048)
        run_perftest(fabric, "ib_write_bw", ["-d", "tbt0c0"])


@group()
def xrc(site):
    """ibv_xsrq_pingpong between hosts, with clients on two of them at once, and perftest over XRC."""
    with Fabric(site, hosts=3, options=["--topology", "mesh"]) as fabric:
        for options in ([], ["-e"], ["-g", "1"], ["-s", "65536"], ["-m", "256", "-s", "5000"]):
            run_xsrq(fabric, options)
        run_xsrq(fabric, [], clients=(0, 2))
        run_xsrq(fabric, ["-e"], clients=(0, 2))
        for program, options in (("ib_send_bw", []), ("ib_send_lat", ["-e"]), ("ib_write_bw", []), ("ib_read_bw", []),
                                 ("ib_send_bw", ["-q", "4"])):
            run_perftest(fabric, program, ["-c", "XRC", *options])
        site.say("7 runs of ibv_xsrq_pingpong and 5 perftest pairs")


@group()
def perftest_short(site):
    """Each perftest program over RC, UC and UD with its options, one size each."""
    with Fabric(site) as fabric:
        run_list(site, fabric, SHORT)


@group()
def perftest_sizes(site):
    """ib_write_bw, ib_send_lat and ib_read_bw over all sizes from 2 B to 8 MiB."""
    with Fabric(site) as fabric:
        run_list(site, fabric, [("ib_write_bw", ["-a"]), ("ib_send_lat", ["-a"]), ("ib_read_bw", ["-a"])],
                 iterations=100)


@group()
def mesh(site):
    """Four hosts in a mesh: every pair through tbt0 and through its own cable."""
    with Fabric(site, hosts=4, options=["--topology", "mesh"]) as fabric:
        count = 0
        for a, b in itertools.combinations(range(4), 2):
            run_pingpong(fabric, "rc", ["-c"], 8192, server_host=b, client_host=a)
            run_pingpong(fabric, "ud", ["-g", "1"], 2048, server_host=a, client_host=b)
            mesh_pair_by_cable(fabric, a, b)
            count += 1
        site.say(f"{count} pairs of hosts")


def mesh_pair_by_cable(fabric, a, b):
    """In a mesh, cable k of a host leads to the k-th other host."""
    port = free_port()
    command = ["ibv_rc_pingpong", "-p", port, "-s", "8192", "-n", "100", "-c"]
    fabric.pair([*command, "-d", f"tbt0c{a}"], [*command, "-d", f"tbt0c{b - 1}", "127.0.0.1"], port,
                server_host=b, client_host=a)


@group()
def crowd(site):
    """Four pairs at once: eight ranks on whatever processors there are, all through one cable."""
    with Fabric(site) as fabric:
        started = []
        for index in range(4):
            port = free_port()
            command = ["ibv_rc_pingpong", "-p", port, "-s", "16384", "-n", "500", "-c", *(["-e"] * (index % 2))]
            started += fabric.start_pair(command, [*command, "127.0.0.1"], port,
                                         server_host=index % 2, client_host=1 - index % 2)
        for program in started:
            done = program.wait(90)
            expect(done.status == 0 and "500 iters" in done.out, f"failed in the crowd\n{done.text()}")
        site.say(f"{len(started)} processes on {os.cpu_count()} processors")


def shape(site, name, cable=(), **where):
    program = site.build / "tests" / "conformance" / name
    found = [program] if program.exists() else sorted(site.build.rglob(name))
    expect(found, f"{name} was not built")
    with Fabric(site) as fabric:
        if cable:
            site.tbt_command("cable", "--fabric", fabric.name, "set", "0", *cable)
        port = free_port()
        done = fabric.pair([found[0], "server", port], [found[0], "client", "127.0.0.1", port], port, **where)
        site.say(done[1].out.strip().splitlines()[-1] if done[1].out.strip() else "no output")


@group()
def nccl_shape(site):
    """A program that finds libibverbs by dlopen and dlvsym, as NCCL does."""
    shape(site, "nccl_shape")


@group()
def jaccl_shape(site):
    """A program that uses plain dlsym and UC messages the way JACCL does, its receiver late."""
    shape(site, "jaccl_shape")


@group()
def orderly_end(site):
    """A program ends while a slow cable is full of its writes: its peer still gets the last acknowledge."""
    for _ in range(3):
        shape(site, "orderly_end", cable=["rate=100M"])


@group()
def real_library(site):
    """The programs really run on Debian's unmodified files: their packages' checksums hold."""
    done = subprocess.run(["dpkg", "--verify", "ibverbs-utils", "perftest", "libibverbs1"],
                          capture_output=True, text=True)
    changed = [line for line in done.stdout.splitlines() if "/bin/" in line or "/lib/" in line]
    expect(not changed, "changed files:\n" + "\n".join(changed))
    site.say("ibverbs-utils, perftest and libibverbs1 are as packaged")


@group(nightly=True)
def pingpong_full(site):
    """Every pingpong with every combination of address, events, check and size."""
    with Fabric(site) as fabric:
        for kind in ("rc", "uc", "ud", "srq"):
            run_all(site, fabric, kind, full_matrix(kind))


@group(nightly=True)
def perftest_full(site):
    """perftest over all sizes with its options."""
    with Fabric(site) as fabric:
        run_list(site, fabric, ALL, seconds=600)
