#!/usr/bin/env python3
"""Commits on a slow disk, and how much is flushed and written for one.

usage: benches/flushes.py [--delays 0,2,10] [--seconds 4] [--reference]
Three peers on loopback. slow_flush.c stands between them and the disk: each flush takes so many milliseconds more (an
SD card needs 5 to 20), and is counted, as are the bytes that are written to files. The counts are those of the leader,
from a run of its own without delay, log and state apart from each other only in time: the state follows about a
second later and is waited for.
ipfs-cluster makes its system calls without a C library, so that its flushes cannot be slowed down in this way; with
--reference its figure at the disk's own speed is printed beside ours at the same.
"""
import argparse, os, re, struct, subprocess, sys, tempfile, time
import fleet

HERE = fleet.HERE


def shim(folder):
    out = os.path.join(folder, "slow_flush.so")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", out, os.path.join(HERE, "slow_flush.c")], check=True)
    return out


def read_counts(path):
    with open(path, "rb") as f:
        return struct.unpack("5Q", f.read(40))


def fleet_with(folder, so, delay_ms):
    """Three peers, each with a counts file of its own."""
    f = fleet.Fleet(0, env={"LD_PRELOAD": so, "SLOW_FLUSH_US": str(int(delay_ms * 1000))}, change=quick)
    for i in range(3):
        f.env["SLOW_FLUSH_COUNTS"] = os.path.join(folder, f"counts-{delay_ms}-{i}")
        f.add()
    f.settle()
    return f


def quick(config, _):
    # The timing that `pinfold init` writes for a home cluster, whichever IPFS daemon is behind it.
    config["consensus"]["raft"].update(heartbeat_timeout="100ms", election_timeout="400ms", leader_lease_timeout="100ms")


def per_commit(f, folder, what, work):
    """Flushes and bytes of the leader and of a follower for each of the pins that `work` commits."""
    leader = f.leader(0)
    files = {name: os.path.join(folder, f"counts-0.0-{i}") for name, i in (("leader", leader), ("follower", (leader + 1) % 3))}
    quiet(f)
    before = {name: (read_counts(path), fleet.written(f.pid(int(path[-1])))) for name, path in files.items()}
    pins = work()
    at_once = {name: read_counts(path) for name, path in files.items()}
    quiet(f)
    for name, path in files.items():
        now, disk = read_counts(path), fleet.written(f.pid(int(path[-1])))
        (was, was_disk), then = before[name], at_once[name]
        print(f"| {what} | {name} | {pins} | {(then[0] - was[0]) / pins:.3f} | {(now[0] - was[0]) / pins:.3f} | {(now[2] - was[2]) / pins:,.0f} | {(disk - was_disk) / pins:,.0f} |", flush=True)


def quiet(f):
    """Waits until nothing is flushed any more: the state and the tracker's records are on disk."""
    def total():
        return sum(read_counts(os.path.join(os.path.dirname(f.env["SLOW_FLUSH_COUNTS"]), name))[0] for name in os.listdir(os.path.dirname(f.env["SLOW_FLUSH_COUNTS"])) if name.startswith("counts-0.0"))
    last, since = total(), time.monotonic()
    while time.monotonic() - since < 5:
        time.sleep(0.2)
        now = total()
        if now != last:
            last, since = now, time.monotonic()


def bulk(f, first, count, per_request):
    c = f.connection(f.leader(0))
    for start in range(first, first + count, per_request):
        body = "".join(fleet.cid(n, 77) + "\n" for n in range(start, start + per_request)).encode()
        c.request("POST", "/pins", body)
        answer = c.getresponse()
        text = answer.read()
        assert answer.status == 200, text
    return count


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--delays", default="0,2,10")
    a.add_argument("--seconds", type=int, default=4)
    a.add_argument("--reference", action="store_true")
    a = a.parse_args()
    delays = [float(d) for d in a.delays.split(",")]
    with tempfile.TemporaryDirectory(prefix="pinfold-flushes-") as folder:
        so = shim(folder)
        print("| each flush takes longer by | clients | pins/s | p50 | p99 |\n|---|---|---|---|---|", flush=True)
        for delay in delays:
            with fleet_with(folder, so, delay) as f:
                for clients in (1, 16, 64):
                    line, rate, _ = fleet.load(f.url(f.leader(0)), clients, a.seconds)
                    p50, p99 = fleet.percentiles(line)
                    print(f"| {delay:g} ms | {clients} | {rate:,.0f} | {p50} | {p99} |", flush=True)
        if a.reference:
            reference(a.seconds)
        print("\n| what | peer | pins | flushes each, at the answer | flushes each, state included | bytes to write() each | bytes to the disk each |\n|---|---|---|---|---|---|---|")
        with fleet_with(folder, so, 0.0) as f:
            leader = f.url(f.leader(0))
            per_commit(f, folder, "one client", lambda: fleet.load(leader, 1, pins=500)[2])
            per_commit(f, folder, "64 clients", lambda: fleet.load(leader, 64, pins=5000)[2])
            per_commit(f, folder, "a list, 1,000 in one request", lambda: bulk(f, 0, 1_000, 1_000))
            per_commit(f, folder, "a list, 50,000 in one request", lambda: bulk(f, 1_000, 50_000, 50_000))


def reference(seconds):
    folder = tempfile.mkdtemp(prefix="pinfold-reference-")
    env = dict(os.environ, BIN=fleet.tools())
    script = ["bash", f"{fleet.SHARED}/refcluster.sh"]
    subprocess.run([*script, "up", "3", "raft", folder], check=True, env=env, capture_output=True)
    try:
        time.sleep(3)
        for clients in (1, 16, 64):
            line, rate, _ = fleet.load("http://127.0.0.1:19090", clients, seconds)
            p50, p99 = fleet.percentiles(line)
            print(f"| ipfs-cluster, 0 ms | {clients} | {rate:,.0f} | {p50} | {p99} |", flush=True)
    finally:
        subprocess.run([*script, "down", "3", "raft", folder], env=env, capture_output=True)


if __name__ == "__main__":
    main()
