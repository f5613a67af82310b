#!/usr/bin/env python3
"""What three peers write to disk while nobody asks for anything.

usage: benches/idle.py [--idle 600] [--pins 1000] [--settle 45]
Three peers on loopback with embedded nodes and some pins, settled for a while, then left alone. What each process makes
the system write to storage is read from /proc/PID/io, which counts pages of shared mappings, too (LMDB's table
of readers is one). With --kubo the mock IPFS daemon is behind them. Prints also the files that changed.
"""
import argparse, json, os, re, subprocess, time, urllib.request
import fleet


def files(folder):
    found = {}
    for path, _, names in os.walk(folder):
        for name in names:
            whole = os.path.join(path, name)
            try:
                about = os.stat(whole)
                found[whole] = (about.st_mtime_ns, about.st_size)
            except OSError:
                pass
    return found


def add_files(f, count):
    """Content that the embedded nodes can really have: files, each of them pinned everywhere."""
    folder = os.path.join(f.folder, "content")
    os.makedirs(folder)
    for n in range(count):
        with open(os.path.join(folder, str(n)), "wb") as out:
            out.write(os.urandom(1024))
    run = [fleet.PINFOLD, "-c", os.path.join(f.folder, "0"), "--enc", "json", "add", "--raw-leaves", folder]
    out = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    cids = re.findall(r'"cid": *"(b[a-z2-7]+|Qm\w+)"', out)
    body = "".join(c + "\n" for c in cids).encode()
    f.get(0, "/pins", "POST", body)
    fleet.wait("all pinned", lambda: not any(row["peer_map"][p]["status"] != "pinned" for row in rows(f) for p in row["peer_map"]), 120, 0.2)


def rows(f):
    return [json.loads(line) for line in urllib.request.urlopen(f.url() + "/pins").read().splitlines()]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--idle", type=float, default=600)
    a.add_argument("--settle", type=float, default=45)
    a.add_argument("--pins", type=int, default=1_000)
    a.add_argument("--kubo", action="store_true")
    a = a.parse_args()
    with fleet.Fleet(3, embedded=not a.kubo) as f:
        f.settle()
        if a.kubo:
            fleet.load(f.url(), 16, pins=a.pins)
        else:
            add_files(f, a.pins)
        # The state is flushed, the tracker has done what it can, pages that were dirty are on disk.
        time.sleep(a.settle)
        os.sync()
        before, was = [fleet.written(f.pid(i)) for i in range(3)], files(f.folder)
        cpu = [cpu_seconds(f.pid(i)) for i in range(3)]
        time.sleep(a.idle)
        bytes_each = [fleet.written(f.pid(i)) - before[i] for i in range(3)]
        used = [cpu_seconds(f.pid(i)) - cpu[i] for i in range(3)]
        leader = f.leader(0)
        for i in range(3):
            role = "leader" if i == leader else "follower"
            print(f"| {role} {i} | {a.idle:g} s idle | {bytes_each[i]} bytes written | {100 * used[i] / a.idle:.2f} % of a core |")
        for path, about in files(f.folder).items():
            if was.get(path) != about:
                print(f"changed: {os.path.relpath(path, f.folder)}")


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
