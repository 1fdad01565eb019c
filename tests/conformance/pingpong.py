"""ibv_*_pingpong of ibverbs-utils, as Debian ships them."""
import itertools
import re

from harness import expect, free_port

ROUNDS = 100
UD_BYTES_MAX = 4096

# Options of one run: (name, program's options). GID 0 and 1 put a GRH in front (link-local and IPv4-mapped).
ADDRESSES = {"lid": [], "gid0": ["-g", "0"], "gid1": ["-g", "1"]}
SIZES = {"1B": 1, "4K": 4096, "64K": 65536, "1M": 1 << 20}


def sizes_for(kind):
    """UD sends one packet only; its checked variant wants at least a word."""
    return {"1B": 1, "2K": 2048, "4K": UD_BYTES_MAX} if kind == "ud" else SIZES


def run_pingpong(fabric, kind, options=(), size=4096, rounds=ROUNDS, server_host=1, client_host=0, extra=None):
    """One exchange, both outputs checked: every round trip happened, no program complained."""
    port = free_port()
    command = [f"ibv_{kind}_pingpong", "-p", port, "-s", size, "-n", rounds, *options]
    done = fabric.pair(command, [*command, "127.0.0.1"], port, server_host=server_host,
                       client_host=client_host, extra=extra)
    for end in done:
        match = re.search(r"^(\d+) iters in", end.out, re.M)
        expect(match, f"no result line\n{end.text()}")
        expect(int(match.group(1)) == rounds, f"not {rounds} round trips\n{end.text()}")
        expect("invalid data" not in end.out, f"damaged data\n{end.text()}")
    return done


def run_xsrq(fabric, options, clients=(0,), server_host=1, rounds=ROUNDS):
    """A server with one SRQ for its clients, each on a host of its own."""
    port = free_port()
    command = ["ibv_xsrq_pingpong", "-p", port, "-n", rounds, *options]
    server, client = fabric.start_pair([*command, "-c", len(clients)], [*command, "127.0.0.1"], port,
                                       server_host=server_host, client_host=clients[0])
    ends = [client, *(fabric.start(host, [*command, "127.0.0.1"]) for host in clients[1:]), server]
    for end in ends:
        done = end.wait(60)
        expect(done.status == 0, f"ibv_xsrq_pingpong failed\n{done.text()}")
        expect(re.search(r"^\s*success\s*$", done.out, re.M), f"not all round trips\n{done.text()}")


def small_matrix(kind):
    """Each option once, sizes once, a few together."""
    for size in sizes_for(kind).values():
        yield ["-c"], size
    for address in ADDRESSES.values():
        yield address, 4096 if kind != "ud" else 2048
    yield ["-e"], 2048
    yield ["-e", "-c", "-g", "1"], sizes_for(kind)["4K"]
    if kind == "rc":
        yield ["-N"], 4096
        yield ["-t"], 4096
        yield ["-N", "-e", "-c"], 65536
    if kind in ("rc", "uc"):
        yield ["-m", "4096"], 1 << 20
        yield ["-m", "256", "-c"], 5000


def full_matrix(kind):
    for address, events, check, size in itertools.product(
            ADDRESSES.values(), ([], ["-e"]), ([], ["-c"]), sizes_for(kind).values()):
        yield [*address, *events, *check], size


def run_all(site, fabric, kind, matrix, **where):
    count = 0
    for options, size in matrix:
        run_pingpong(fabric, kind, options, size, **where)
        count += 1
    site.say(f"ibv_{kind}_pingpong: {count} runs")
