#!/usr/bin/env python3
"""Commits, memory and restart of three pinfold peers beside three ipfs-cluster peers, in one run.

usage: benches/cluster.py [--seconds 5] [--pins 100000] [--rounds 3]
Needs ../shared/peers (the reference executables), Go for its load driver, and `cargo build --release` done.
Both sides run on loopback with the same mock IPFS daemon, one after the other in each round; the median counts.
"""
import argparse, json, os, re, shutil, signal, statistics, subprocess, sys, tempfile, time, urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
SHARED = os.path.join(ROOT, "..", "shared", "peers")
PINFOLD = os.environ.get("PINFOLD", os.path.join(ROOT, "target", "release", "pinfold"))


def run(*cmd, **kw):
    return subprocess.run(cmd, check=True, text=True, capture_output=True, **kw).stdout


def memory(pid):
    fields = dict(re.findall(r"^(VmRSS|RssAnon):\s+(\d+)", open(f"/proc/{pid}/status").read(), re.M))
    return int(fields["VmRSS"]) / 1024, int(fields["RssAnon"]) / 1024


class Pinfold:
    """Three peers, the IPFS daemon being the mock on ports 15101..15103 (or embedded)."""

    def __init__(self, folder, bins, embedded=False):
        self.folder, self.procs, self.mock = folder, [], None
        if not embedded:
            self.mock = subprocess.Popen([f"{bins}/mockipfs", "127.0.0.1:15101", "3"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.embedded = embedded
        secret = "cd" * 32
        for i in range(3):
            d = os.path.join(folder, str(i))
            env = dict(os.environ, CLUSTER_SECRET=secret)
            flags = [] if embedded else ["--ipfs", "kubo"]
            subprocess.run([PINFOLD, "-c", d, "init", *flags], check=True, env=env, capture_output=True)
            f = os.path.join(d, "service.json")
            c = json.load(open(f))
            c["cluster"]["peername"] = f"p{i}"
            c["cluster"]["listen_multiaddress"] = f"/ip4/127.0.0.1/tcp/{19700 + i}"
            c["cluster"]["mdns_interval"] = "0s"
            c["cluster"]["monitor_ping_interval"] = "2s"
            c["api"]["restapi"]["http_listen_multiaddress"] = f"/ip4/127.0.0.1/tcp/{19290 + i}"
            for unused in ("ipfsproxy", "pinsvcapi"):
                c["api"].pop(unused, None)
            if embedded:
                c["ipfs_connector"]["embedded"]["listen_multiaddress"] = f"/ip4/127.0.0.1/tcp/{19800 + i}"
            else:
                c["ipfs_connector"]["ipfshttp"]["node_multiaddress"] = f"/ip4/127.0.0.1/tcp/{15101 + i}"
            json.dump(c, open(f, "w"), indent=2)
        for i in range(3):
            args = []
            if i:
                ident = json.load(open(os.path.join(folder, "0", "identity.json")))["id"]
                args = ["--bootstrap", f"/ip4/127.0.0.1/tcp/19700/p2p/{ident}"]
            self.start(i, args)

    def start(self, i, args=()):
        log = open(os.path.join(self.folder, f"{i}.log"), "a")
        p = subprocess.Popen([PINFOLD, "-c", os.path.join(self.folder, str(i)), "daemon", *args], stdout=log, stderr=log)
        if i < len(self.procs):
            self.procs[i] = p
        else:
            self.procs.append(p)
        started = time.monotonic()
        while True:
            try:
                urllib.request.urlopen(f"{self.url(i)}/id", timeout=1).read()
                if b"is ready" in open(os.path.join(self.folder, f"{i}.log"), "rb").read().rsplit(b"--- start", 1)[-1]:
                    return time.monotonic() - started
            except OSError:
                pass
            if p.poll() is not None:
                sys.exit(f"pinfold {i} ended: see {log.name}\n" + open(log.name).read()[-2000:])
            if time.monotonic() - started > 60:
                sys.exit(f"pinfold {i} not ready: see {log.name}")
            time.sleep(0.002)

    def restart(self, i, how=signal.SIGTERM):
        self.procs[i].send_signal(how)
        self.procs[i].wait()
        open(os.path.join(self.folder, f"{i}.log"), "a").write("--- start")
        return self.start(i)

    def url(self, i=0):
        return f"http://127.0.0.1:{19290 + i}"

    def pids(self):
        return [p.pid for p in self.procs]

    def stop(self):
        for p in self.procs:
            p.terminate()
        for p in self.procs:
            p.wait()
        if self.mock:
            self.mock.kill()


class Reference:
    """Three ipfs-cluster peers by shared/peers/refcluster.sh."""

    def __init__(self, folder, bins):
        self.folder, self.env = folder, dict(os.environ, BIN=bins)
        subprocess.run(["bash", f"{SHARED}/refcluster.sh", "up", "3", "raft", folder], check=True, env=self.env, capture_output=True)

    def url(self, i=0):
        return f"http://127.0.0.1:{19090 + i}"

    def pids(self):
        return [int(open(os.path.join(self.folder, f"{i}.pid")).read()) for i in range(3)]

    def stop(self):
        subprocess.run(["bash", f"{SHARED}/refcluster.sh", "down", "3", "raft", self.folder], env=self.env, capture_output=True)


def leader_url(side):
    """The load goes to the first peer of either side, whoever leads."""
    return side.url(0)


def load(bins, url, clients, seconds):
    out = run(f"{bins}/load", "pin", url, str(clients), str(seconds))
    return out.strip()


def rate_of(line):
    numbers = re.findall(r"([\d.]+)\s*(?:pins/s|/s)", line)
    return float(numbers[0]) if numbers else float(re.findall(r"[\d.]+", line)[0])


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--seconds", type=int, default=5)
    a.add_argument("--pins", type=int, default=100_000)
    a.add_argument("--rounds", type=int, default=3)
    a = a.parse_args()
    tmp = tempfile.mkdtemp(prefix="pinfold-bench-")
    bins = run("bash", f"{SHARED}/install.sh", os.path.join(ROOT, "target", "peers")).strip()
    print(f"executable: {os.path.getsize(PINFOLD) / 1e6:.2f} MB")
    rates = {}
    idle = {}
    for rnd in range(a.rounds):
        for name, make in (("pinfold", Pinfold), ("ipfs-cluster", Reference)):
            side = make(os.path.join(tmp, f"{name}-{rnd}"), bins)
            try:
                time.sleep(5)
                idle.setdefault(name, []).append(memory(side.pids()[0]))
                for clients in (1, 16, 64):
                    line = load(bins, leader_url(side), clients, a.seconds)
                    print(f"round {rnd} {name:13} {clients:3} clients: {line}", flush=True)
                    rates.setdefault((name, clients), []).append(rate_of(line))
            finally:
                side.stop()
    print("\n| clients | pinfold, pins/s | ipfs-cluster, pins/s | ratio |\n|---|---|---|---|")
    for clients in (1, 16, 64):
        p, r = (statistics.median(rates[(n, clients)]) for n in ("pinfold", "ipfs-cluster"))
        print(f"| {clients} | {p:,.0f} | {r:,.0f} | {p / r:.1f}x |")
    for name in idle:
        rss, anon = (statistics.median(v) for v in zip(*idle[name]))
        print(f"idle memory of one of three peers, {name}: {rss:.1f} MB RSS, {anon:.1f} MB anonymous")

    if a.pins:
        for name, make in (("pinfold", Pinfold), ("ipfs-cluster", Reference)):
            side = make(os.path.join(tmp, f"{name}-pins"), bins)
            try:
                time.sleep(3)
                before = memory(side.pids()[0])
                line = run(f"{bins}/load", "pinn", side.url(), "64", str(a.pins)).strip()
                time.sleep(15)
                after = memory(side.pids()[0])
                print(f"{name}: {a.pins} pins ({line}); memory {before[0]:.1f} -> {after[0]:.1f} MB RSS, anonymous {before[1]:.1f} -> {after[1]:.1f} MB")
                print(f"{name}: listing: {run(f'{bins}/load', 'ls', side.url()).strip()}")
                if name == "pinfold":
                    clean = [side.restart(1) for _ in range(5)]
                    killed = [side.restart(1, signal.SIGKILL) for _ in range(5)]
                    print(f"pinfold: restart to ready with {a.pins} pins: clean {statistics.median(clean) * 1000:.0f} ms, after kill -9 {statistics.median(killed) * 1000:.0f} ms (median of 5)")
            finally:
                side.stop()
    shutil.rmtree(tmp, ignore_errors=True)


if __name__ == "__main__":
    main()
