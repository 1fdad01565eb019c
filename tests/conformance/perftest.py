"""perftest of Debian (4.5): bandwidth and latency programs, on a private port, with few iterations."""
import re

from harness import expect, free_port

ALL_SIZES = 23  # -a measures 2 B .. 8 MiB

# -R (rdma_cm) is not here: librdmacm asks the kernel, which knows nothing of our devices.
# (program, options) that continuous integration runs; each must print one good row.
SHORT = [
    ("ib_send_bw", []),
    ("ib_send_lat", []),
    ("ib_write_bw", []),
    ("ib_write_lat", []),
    ("ib_read_bw", []),
    ("ib_read_lat", []),
    ("ib_atomic_bw", []),
    ("ib_atomic_lat", []),
    ("ib_atomic_bw", ["-A", "CMP_AND_SWAP"]),
    ("ib_send_bw", ["-c", "UC"]),
    ("ib_send_lat", ["-c", "UC"]),
    ("ib_write_bw", ["-c", "UC"]),
    ("ib_write_lat", ["-c", "UC"]),
    ("ib_send_bw", ["-c", "UD"]),
    ("ib_send_lat", ["-c", "UD"]),
    ("ib_send_bw", ["-b"]),
    ("ib_write_bw", ["-b"]),
    ("ib_read_bw", ["-b"]),
    ("ib_atomic_bw", ["-b"]),
    ("ib_send_bw", ["-q", "16"]),
    ("ib_write_bw", ["-q", "16"]),
    ("ib_read_bw", ["-q", "16"]),
    ("ib_send_bw", ["-e"]),
    ("ib_send_lat", ["-e"]),
    ("ib_read_bw", ["-e"]),
    ("ib_atomic_lat", ["-e"]),
    ("ib_read_lat", ["-e"]),
    ("ib_send_bw", ["--use-srq"]),
    ("ib_send_lat", ["--use-srq"]),
    ("ib_send_bw", ["--use-srq", "-q", "16"]),
    ("ib_send_bw", ["-I", "64", "-s", "64"]),
    ("ib_write_bw", ["-I", "64", "-s", "64"]),
    ("ib_send_lat", ["-I", "64", "-s", "64"]),
    ("ib_write_lat", ["-I", "64", "-s", "64"]),
    ("ib_write_bw", ["-x", "0"]),
    ("ib_write_bw", ["-x", "1"]),
    ("ib_send_bw", ["-c", "UD", "-x", "1"]),
    ("ib_write_bw", ["-l", "10"]),
    ("ib_write_bw", ["--use_old_post_send"]),
]

# Every size from 2 B to 8 MiB; minutes, so nightly but for one of each family.
ALL = [
    ("ib_send_bw", ["-a"]), ("ib_write_bw", ["-a"]), ("ib_read_bw", ["-a"]),
    ("ib_send_lat", ["-a"]), ("ib_write_lat", ["-a"]), ("ib_read_lat", ["-a"]),
    ("ib_send_bw", ["-a", "-b"]), ("ib_write_bw", ["-a", "-b"]),
    ("ib_send_bw", ["-a", "-c", "UC"]), ("ib_write_bw", ["-a", "-c", "UC"]),
    ("ib_write_bw", ["-a", "-q", "16"]), ("ib_send_bw", ["-a", "-e"]),
]


def rows(out):
    """Result rows: (size, iterations, numbers that follow)."""
    found = []
    for line in out.splitlines():
        fields = line.split()
        if len(fields) >= 4 and all(re.fullmatch(r"-?[\d.]+(?:e[+-]?\d+)?|inf|-?nan", field) for field in fields):
            found.append((int(fields[0]), int(fields[1]), [float(field) for field in fields[2:]]))
    return found


def default_iterations(program):
    return 200 if program.endswith("_lat") else 500


def run_perftest(fabric, program, options=(), rows_expected=1, iterations=None, seconds=120, **where):
    """One pair; the client's rows must all be there with positive figures."""
    port = free_port()
    iterations = iterations or default_iterations(program)
    command = [program, "-p", port, "-F", "-n", iterations, *options]
    done = fabric.pair(command, [*command, "127.0.0.1"], port, seconds=seconds, **where)
    client = done[1]
    found = rows(client.out)
    expect(len(found) == rows_expected, f"{len(found)} result rows, not {rows_expected}\n{client.text()}")
    for size, _, figures in found:
        expect(size > 0 and figures and max(figures) > 0, f"implausible row for {size} B\n{client.text()}")
    if "-I" in options:
        expect("Disabling it" not in client.out, f"inline refused\n{client.text()}")
    return found


def run_list(site, fabric, cases, **options):
    for program, arguments in cases:
        everything = "-a" in arguments
        run_perftest(fabric, program, arguments, rows_expected=ALL_SIZES if everything else 1, **options)
    site.say(f"{len(cases)} perftest pairs")
