#!/usr/bin/env python3
"""The same peers from several executables that differ in how they were built: speed and memory of each.

usage: benches/allocator.py [--rounds 3] [--seconds 3] [--pins 100000] [--idle 60] NAME=EXECUTABLE[,VARIABLE=VALUE...] ...
Three peers on loopback with the mock IPFS daemon, all clients at the first. Each round takes every executable in turn, in
an order that turns too, so that whatever else the machine does hits all of them; medians count. For each: commits a second
with 1, 16 and 64 clients, and the processor time of all three peers for one (which a busy machine disturbs far less); then a list of pins in one request, the memory of the first peer meanwhile (sampled) and after,
again after a while of nothing, and rows a second of the listing, with the processor time of one.
"""
import argparse, os, re, statistics, subprocess, sys, threading, time
import fleet

# How often the pins are listed.
LISTINGS = 5


class Peak(threading.Thread):
    """The most anonymous memory that a process was seen to have."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.most, self.ended = pid, 0.0, threading.Event()

    def run(self):
        while not self.ended.wait(0.02):
            self.most = max(self.most, fleet.memory(self.pid)[1])

    def end(self):
        self.ended.set()
        self.join()
        return self.most


def busy(f):
    """Processor time of all peers so far, seconds."""
    ticks = 0
    for i in range(3):
        fields = open(f"/proc/{f.pid(i)}/stat").read().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def listing(f):
    line = subprocess.run([f"{fleet.tools()}/load", "ls", f.url()], check=True, text=True, capture_output=True).stdout
    return float(re.search(r"([\d.]+) ?rows/s", line).group(1))


def measure(a, path, env):
    fleet.PINFOLD, got = path, {}
    with fleet.Fleet(3, env=env) as f:
        f.settle()
        time.sleep(3)
        got["idle RSS, MB"], got["idle anonymous, MB"] = fleet.memory(f.pid(0))
        for clients in (1, 16, 64):
            before = busy(f)
            _, got[f"{clients} clients, pins/s"], done = fleet.load(f.url(), clients, seconds=a.seconds)
            got[f"{clients} clients, processor µs/pin"] = (busy(f) - before) / max(done, 1) * 1e6
        peak = Peak(f.pid(0))
        peak.start()
        body = "".join(fleet.cid(n, seed=1) + "\n" for n in range(a.pins)).encode()
        began, before = time.monotonic(), busy(f)
        f.get(0, "/pins", "POST", body)
        got["import, pins/s"] = a.pins / (time.monotonic() - began)
        for i in range(3):
            fleet.wait("everything applied", lambda: f.applied(i) == f.applied(0), 60, 0.05)
        got["import, processor µs/pin"] = (busy(f) - before) / a.pins * 1e6
        before = busy(f)
        got["listing, rows/s"] = statistics.median(listing(f) for _ in range(LISTINGS))
        got["listing, processor µs/row"] = (busy(f) - before) / LISTINGS / a.pins * 1e6
        got["peak anonymous, MB"] = peak.end()
        got["after RSS, MB"], got["after anonymous, MB"] = fleet.memory(f.pid(0))
        time.sleep(a.idle)
        got["settled RSS, MB"], got["settled anonymous, MB"] = fleet.memory(f.pid(0))
    return got


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--seconds", type=int, default=3)
    a.add_argument("--pins", type=int, default=100_000)
    a.add_argument("--idle", type=float, default=60)
    a.add_argument("what", nargs="+")
    a = a.parse_args()
    sides = {}
    for what in a.what:
        name, path = what.split("=", 1)
        path, *variables = path.split(",")
        sides[name] = (os.path.abspath(path), dict(v.split("=", 1) for v in variables))
    found = {name: [] for name in sides}
    for n in range(a.rounds):
        names = list(sides)
        turn = n % len(names)
        for name in names[turn:] + names[:turn]:
            got = measure(a, *sides[name])
            found[name].append(got)
            print(f"round {n} {name}: " + ", ".join(f"{k} {v:.0f}" if v > 100 else f"{k} {v:.1f}" for k, v in got.items()), file=sys.stderr, flush=True)
    middle = lambda name, key: statistics.median(got[key] for got in found[name])
    print("| | " + " | ".join(sides) + " |")
    print("|---" * (len(sides) + 1) + "|")
    print("| executable, MB | " + " | ".join(f"{os.path.getsize(path) / 1e6:.2f}" for path, _ in sides.values()) + " |")
    for key in next(iter(found.values()))[0]:
        cell = lambda name: f"{middle(name, key):,.0f}" if middle(name, key) >= 100 else f"{middle(name, key):.1f}"
        print(f"| {key} | " + " | ".join(cell(name) for name in sides) + " |")


if __name__ == "__main__":
    main()
