#!/usr/bin/env python3
"""What the same work costs in processor time, for several executables side by side.

usage: benches/executables.py [--rounds 3] NAME=FILE NAME=FILE…
For choosing how to compile (opt-level, allocator): wall time on a shared machine differs by more than what is looked for,
processor time (user and system, of all peers and of the command line) by less. Each round runs all executables one
after the other; the least of the rounds counts, and the first executable is what the others are compared with.
"""
import argparse, os, resource, subprocess, tempfile, time
import fleet, pins

# Clients that each wait for their answer, and their pins.
CLIENTS, PINS = 16, 12_000
# Pins of one request, for the listing; how often they are listed.
LIST, LISTINGS = 100_000, 5
# One file for an embedded node.
MIB = 1024
TICK = os.sysconf("SC_CLK_TCK")


def spent(f):
    """Processor seconds of all peers until now."""
    total = 0
    for p in f.procs:
        fields = open(f"/proc/{p.pid}/stat").read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def commits_and_listing():
    found = {}
    with fleet.Fleet(3) as f:
        f.settle()
        before = spent(f)
        _, _, done = fleet.load(f.url(), CLIENTS, pins=PINS)
        found[f"a commit of {CLIENTS} clients, three peers, ms"] = (spent(f) - before) / done * 1e3
        body = "".join(fleet.cid(n, 7) + "\n" for n in range(LIST)).encode()
        before = spent(f)
        f.get(0, "/pins", "POST", body)
        pins.settled(f)
        found[f"import of {LIST:,} pins until all have them, three peers, s"] = spent(f) - before
        before = spent(f)
        for _ in range(LISTINGS):
            with fleet.urllib.request.urlopen(f.url() + "/allocations") as answer:
                while answer.read(1 << 20):
                    pass
        found[f"listing of {LIST:,} pins, s"] = (spent(f) - before) / LISTINGS
    return found


def adding(content):
    with fleet.Fleet(1, embedded=True) as f:
        before, ours = spent(f), children()
        began = time.monotonic()
        subprocess.run([fleet.PINFOLD, "-c", os.path.join(f.folder, "0"), "add", "--raw-leaves", content], check=True, capture_output=True)
        took = time.monotonic() - began
        return {f"add of {MIB} MiB, s": spent(f) - before + children() - ours, "  the same, wall time, s": took}


def main():
    a = argparse.ArgumentParser(usage=__doc__.split("\n")[2][7:])
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("executables", nargs="+", metavar="NAME=FILE")
    a = a.parse_args()
    programs = dict(pair.split("=", 1) for pair in a.executables)
    least = {name: {} for name in programs}
    with tempfile.NamedTemporaryFile() as content:
        for _ in range(MIB):
            content.write(os.urandom(1 << 20))
        content.flush()
        for number in range(a.rounds):
            for name, path in programs.items():
                fleet.PINFOLD = os.path.abspath(path)
                found = {**commits_and_listing(), **adding(content.name)}
                print(f"round {number} {name}: " + "; ".join(f"{what} {value:.3f}" for what, value in found.items()), flush=True)
                for what, value in found.items():
                    least[name][what] = min(value, least[name].get(what, value))
    print("\n| | " + " | ".join(programs) + " |\n|---" * (len(programs) > 0) + "|---" * len(programs) + "|")
    print("| size, bytes | " + " | ".join(f"{os.path.getsize(path):,}" for path in programs.values()) + " |")
    first = next(iter(programs))
    for what in least[first]:
        row = [f"{least[name][what]:.3f} ({least[name][what] / least[first][what] - 1:+.0%})" for name in programs]
        print(f"| {what} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
