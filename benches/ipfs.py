#!/usr/bin/env python3
"""Adding and fetching with the embedded node beside real Kubo, in one run.

usage: benches/ipfs.py [--mib 1024] [--files 10000] [--rounds 3]
Pinfold peers and two connected Kubo daemons on loopback. Both sides add through their command line; pinfold's
content is on disk (flushed) when the command ends, Kubo's default does not flush.
"""
import argparse, json, os, shutil, statistics, subprocess, tempfile, time, urllib.request
from cluster import PINFOLD, ROOT, SHARED, Pinfold, memory, run


def content(folder, mib, files):
    """Fresh random content, so that nothing is found in a store already."""
    big = os.path.join(folder, "big")
    with open(big, "wb") as f:
        for _ in range(mib):
            f.write(os.urandom(1 << 20))
    small = os.path.join(folder, "small")
    os.mkdir(small)
    for i in range(files):
        with open(os.path.join(small, f"{i:05}"), "wb") as f:
            f.write(os.urandom(4096))
    return big, small


def timed(*cmd, **kw):
    t = time.monotonic()
    out = run(*cmd, **kw)
    return time.monotonic() - t, out.strip().splitlines()[-1]


class Kubos:
    def __init__(self, folder, bins):
        self.folder, self.bins = folder, bins
        self.env = dict(os.environ, BIN=bins)
        # The daemons inherit our pipes if we keep them: send their words away.
        subprocess.run(["bash", f"{SHARED}/kubos.sh", "up", "2", folder, "17301"], check=True, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ipfs(self, i, *args):
        return timed(f"{self.bins}/ipfs", *args, env=dict(os.environ, IPFS_PATH=os.path.join(self.folder, str(i))))

    def stop(self):
        subprocess.run(["bash", f"{SHARED}/kubos.sh", "down", "2", self.folder], env=self.env)


def fetch(side, cid):
    """Asks for a second copy; the time until it is there (the third peer holds nothing)."""
    t = time.monotonic()
    req = urllib.request.Request(f"{side.url(0)}/pins/{cid}?replication=2", method="POST")
    urllib.request.urlopen(req).read()
    while True:
        info = json.load(urllib.request.urlopen(f"{side.url(0)}/pins/{cid}"))
        states = [p["status"] for p in info["peer_map"].values()]
        if sorted(states) == ["pinned", "pinned", "remote"]:
            return time.monotonic() - t
        if any(s.endswith("error") for s in states):
            raise SystemExit(json.dumps(info, indent=1))
        time.sleep(0.01)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--mib", type=int, default=1024)
    a.add_argument("--files", type=int, default=10_000)
    a.add_argument("--rounds", type=int, default=3)
    a = a.parse_args()
    tmp = tempfile.mkdtemp(prefix="pinfold-bench-")
    bins = run("bash", f"{SHARED}/install.sh", os.path.join(ROOT, "target", "peers")).strip()
    times = {}

    def note(name, what, seconds, unit):
        times.setdefault((what, name), []).append(seconds)
        print(f"{name:8} {what:28} {seconds:7.2f} s  {unit}", flush=True)

    for rnd in range(a.rounds):
        data = os.path.join(tmp, f"data{rnd}")
        os.mkdir(data)
        big, small = content(data, a.mib, a.files)
        side = Pinfold(os.path.join(tmp, f"p{rnd}"), bins, embedded=True)
        try:
            time.sleep(3)
            me = json.load(open(os.path.join(tmp, f"p{rnd}", "0", "identity.json")))["id"]
            c = os.path.join(tmp, f"p{rnd}", "0")
            flags = ["--local", "--rmin", "1", "--rmax", "1", "--allocs", me, "-Q"]
            s, cid = timed(PINFOLD, "-c", c, "add", *flags, big)
            note("pinfold", "add one file", s, f"{a.mib / s:.0f} MiB/s")
            peak = memory(side.pids()[0])
            print(f"         memory after it: {peak[0]:.0f} MB RSS, {peak[1]:.0f} MB anonymous")
            s = fetch(side, cid)
            note("pinfold", "fetch one file (two peers)", s, f"{a.mib / s:.0f} MiB/s")
            s, cid = timed(PINFOLD, "-c", c, "add", "-r", *flags, small)
            note("pinfold", "add small files", s, f"{a.files / s:.0f} files/s")
            s = fetch(side, cid)
            note("pinfold", "fetch small files (two peers)", s, f"{a.files / s:.0f} files/s")
        finally:
            side.stop()
        kubo = Kubos(os.path.join(tmp, f"k{rnd}"), bins)
        try:
            s, cid = kubo.ipfs(0, "add", "-Q", "--progress=false", big)
            note("kubo", "add one file", s, f"{a.mib / s:.0f} MiB/s")
            s, _ = kubo.ipfs(1, "pin", "add", "--progress=false", cid)
            note("kubo", "fetch one file (two peers)", s, f"{a.mib / s:.0f} MiB/s")
            s, cid = kubo.ipfs(0, "add", "-r", "-Q", "--progress=false", small)
            note("kubo", "add small files", s, f"{a.files / s:.0f} files/s")
            s, _ = kubo.ipfs(1, "pin", "add", "--progress=false", cid)
            note("kubo", "fetch small files (two peers)", s, f"{a.files / s:.0f} files/s")
        finally:
            kubo.stop()
        shutil.rmtree(data)
    print("\n| what | pinfold | Kubo | ratio |\n|---|---|---|---|")
    for what in dict.fromkeys(w for w, _ in times):
        p, k = (statistics.median(times[(what, n)]) for n in ("pinfold", "kubo"))
        print(f"| {what} | {p:.2f} s | {k:.2f} s | {k / p:.1f}x |")
    shutil.rmtree(tmp, ignore_errors=True)


if __name__ == "__main__":
    main()
