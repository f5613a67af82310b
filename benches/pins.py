#!/usr/bin/env python3
"""Many pins: import through one request, memory, restart, listing, status.

usage: benches/pins.py [--pins 100000,1000000] [--single] [--reference]
Three peers on loopback with the mock IPFS daemon. All pins go in by one `POST /pins`, a CID on each line; the trackers of
all peers tell the daemon meanwhile. --single makes the pins with 64 clients and a request each instead. With
--reference ipfs-cluster gets 100,000 pins with 64 clients, and is asked the same.
"""
import argparse, os, signal, statistics, subprocess, sys, tempfile, time, urllib.request
import fleet


class Lines:
    """The list, made as it is sent."""

    def __init__(self, first, count, per_piece=2_000):
        self.first, self.count, self.per_piece = first, count, per_piece

    def __iter__(self):
        for start in range(self.first, self.first + self.count, self.per_piece):
            yield "".join(fleet.cid(n) + "\n" for n in range(start, min(start + self.per_piece, self.first + self.count))).encode()


def prepare(path, first, count):
    with open(path, "wb") as out:
        for piece in Lines(first, count):
            out.write(piece)


def import_file(f, path, at=0):
    """One request; pins in a second."""
    began = time.monotonic()
    c = f.connection(at)
    with open(path, "rb") as body:
        c.request("POST", "/pins", body, {"Content-Length": str(os.path.getsize(path))})
    answer = c.getresponse()
    text = answer.read().decode()
    assert answer.status == 200, text
    return time.monotonic() - began, text.strip()


def settled(f, limit=1800):
    """Waits until every peer has everything pinned; how long."""
    n = len(f.procs)
    began = time.monotonic()
    for i in range(n):
        # A row that is still queued or pinning ends the wait early; none is an empty answer.
        fleet.wait("all pinned", lambda: not urllib.request.urlopen(f.url(i) + "/pins?local=true&filter=queued,pinning,error,unexpectedly_unpinned").read(), limit, 0.5)
    return time.monotonic() - began


def listing(url):
    """Rows in a second of GET /allocations."""
    began = time.monotonic()
    rows = size = 0
    with urllib.request.urlopen(url + "/allocations") as answer:
        while piece := answer.read(1 << 20):
            rows += piece.count(b"\n")
            size += len(piece)
    return rows, rows / (time.monotonic() - began)


def status(program, host):
    """Seconds of a global status through the command line, and its rows."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as out:
        subprocess.run([*program, "--host", host, "status"], check=True, stdout=out, stderr=subprocess.DEVNULL)
        took = time.monotonic() - began
        return took, out.tell()


def ours(count, single):
    with fleet.Fleet(3) as f:
        f.settle()
        time.sleep(3)
        before = [fleet.memory(f.pid(i)) for i in range(3)]
        path = os.path.join(f.folder, "list")
        if single:
            line, rate, _ = fleet.load(f.url(), 64, pins=count)
            print(f"{count:,} pins, 64 clients, a request each: {line}", flush=True)
        else:
            prepare(path, 0, count)
            took, text = import_file(f, path)
            print(f"{count:,} pins in one request: {took:.2f} s, {count / took:,.0f} pins/s; {text}", flush=True)
        print(f"  everything pinned by all three after {settled(f):.1f} s more")
        time.sleep(10)
        for i in range(3):
            now = fleet.memory(f.pid(i))
            print(f"  peer {i}{' (asked)' if i == 0 else ''}: RSS {before[i][0]:.1f} -> {now[0]:.1f} MB, anonymous {before[i][1]:.1f} -> {now[1]:.1f} MB (+{now[1] - before[i][1]:.1f})", flush=True)
        if not single:
            took, text = import_file(f, path)
            print(f"  the same list again: {took:.2f} s, {count / took:,.0f} lines/s; {text}", flush=True)
        rows, rate = listing(f.url())
        print(f"  listing: {rows:,} rows, {rate:,.0f} rows/s")
        took, size = status([fleet.PINFOLD], f"/ip4/127.0.0.1/tcp/{f.base + 200}")
        now = fleet.memory(f.pid(0))
        print(f"  global status through the command line: {took:.2f} s ({size / 1e6:.0f} MB of text); the asked peer has RSS {now[0]:.1f} MB, anonymous {now[1]:.1f} MB after it", flush=True)
        clean = [f.restart(1) for _ in range(5)]
        killed = [f.restart(1, signal.SIGKILL) for _ in range(5)]
        print(f"  restart to ready: clean {statistics.median(clean) * 1000:.0f} ms, after kill -9 {statistics.median(killed) * 1000:.0f} ms (median of 5)", flush=True)
        fresh = f.add(wait_ready=False)
        began = time.monotonic()
        fleet.wait("a fresh peer with everything", lambda: f.applied(3) >= f.applied(0) and f.applied(0) > 0, 600, 0.02)
        print(f"  a fresh peer joins and has everything (snapshot): {time.monotonic() - began:.2f} s", flush=True)


def reference(count=100_000):
    folder = tempfile.mkdtemp(prefix="pinfold-reference-")
    env = dict(os.environ, BIN=fleet.tools())
    script = ["bash", f"{fleet.SHARED}/refcluster.sh"]
    subprocess.run([*script, "up", "3", "raft", folder], check=True, env=env, capture_output=True)
    try:
        pid = int(open(f"{folder}/0.pid").read())
        time.sleep(3)
        before = fleet.memory(pid)
        line, _, _ = fleet.load("http://127.0.0.1:19090", 64, pins=count)
        print(f"ipfs-cluster, {count:,} pins, 64 clients, a request each: {line}")
        time.sleep(10)
        now = fleet.memory(pid)
        print(f"  RSS {before[0]:.1f} -> {now[0]:.1f} MB, anonymous {before[1]:.1f} -> {now[1]:.1f} MB")
        rows, rate = listing("http://127.0.0.1:19090")
        print(f"  listing: {rows:,} rows, {rate:,.0f} rows/s")
        # The same command line for both: what differs is the cluster.
        took, size = status([fleet.PINFOLD], "/ip4/127.0.0.1/tcp/19090")
        now = fleet.memory(pid)
        print(f"  global status through the command line: {took:.2f} s ({size / 1e6:.0f} MB); RSS {now[0]:.1f} MB, anonymous {now[1]:.1f} MB after it")
    finally:
        subprocess.run([*script, "down", "3", "raft", folder], env=env, capture_output=True)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--pins", default="100000,1000000")
    a.add_argument("--single", action="store_true")
    a.add_argument("--reference", action="store_true")
    a = a.parse_args()
    for count in a.pins.split(","):
        ours(int(count), a.single)
    if a.reference:
        reference()


if __name__ == "__main__":
    main()
