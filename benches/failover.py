#!/usr/bin/env python3
"""Failover and rebalance of many pins: how long, and how much memory while at it.

usage: benches/failover.py [--pins 10000] [--size 1024] [--copies 2] [--interval 1]
Needs `cargo build --release` (or PINFOLD=<executable>), nothing else. Peers run on loopback with embedded nodes and real content.

Failover: four peers, every pin held by --copies of them including the last one, which is killed (-9). The clock starts
at its last ping and stops when no pin lists it any more, which the leader does only when the new holders have the content.
With repin_grace 0, to show the machinery; the default of 30 s comes on top.
Rebalance: three peers with all pins, a fourth one joins, `pinfold rebalance`.
"""
import argparse, concurrent.futures, json, os, re, shutil, signal, subprocess, sys, tempfile, threading, time, urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
PINFOLD = os.environ.get("PINFOLD", os.path.join(HERE, "..", "target", "release", "pinfold"))
PORT = 19_500


def memory(pid):
    fields = dict(re.findall(r"^(VmRSS|RssAnon):\s+(\d+)", open(f"/proc/{pid}/status").read(), re.M))
    return int(fields["VmRSS"]) / 1024, int(fields["RssAnon"]) / 1024


class Peak(threading.Thread):
    """The most memory of some processes while it runs."""

    def __init__(self, pids):
        super().__init__(daemon=True)
        self.pids, self.going, self.most = pids, True, {p: (0, 0) for p in pids}
        self.start()

    def run(self):
        while self.going:
            for pid in self.pids:
                try:
                    self.most[pid] = tuple(map(max, self.most[pid], memory(pid)))
                except OSError:
                    pass
            time.sleep(0.05)

    def stop(self):
        self.going = False
        self.join()
        return self.most


class Cluster:
    def __init__(self, folder, interval):
        self.folder, self.procs, self.interval = folder, [], interval
        os.makedirs(folder, exist_ok=True)

    def add_peer(self):
        i = len(self.procs)
        d = os.path.join(self.folder, str(i))
        env = dict(os.environ, CLUSTER_SECRET="cd" * 32)
        subprocess.run([PINFOLD, "-c", d, "init"], check=True, env=env, capture_output=True)
        f = os.path.join(d, "service.json")
        c = json.load(open(f))
        c["cluster"].update(peername=f"p{i}", mdns_interval="0s", monitor_ping_interval=f"{self.interval}s", disable_repinning=False,
                            repin_grace="0s", listen_multiaddress=f"/ip4/127.0.0.1/tcp/{PORT + i}")
        c["monitor"]["pubsubmon"]["check_interval"] = "1s"
        c["api"]["restapi"]["http_listen_multiaddress"] = f"/ip4/127.0.0.1/tcp/{PORT + 20 + i}"
        for unused in ("ipfsproxy", "pinsvcapi"):
            c["api"].pop(unused, None)
        c["ipfs_connector"]["embedded"]["listen_multiaddress"] = f"/ip4/127.0.0.1/tcp/{PORT + 40 + i}"
        json.dump(c, open(f, "w"), indent=2)
        args = ["--bootstrap", f"/ip4/127.0.0.1/tcp/{PORT}/p2p/{self.id(0)}"] if i else []
        log = open(os.path.join(self.folder, f"{i}.log"), "w")
        self.procs.append(subprocess.Popen([PINFOLD, "-c", d, "daemon", *args], stdout=log, stderr=log))
        self.wait(f"peer {i}", lambda: "is ready" in open(log.name).read())
        n = len(self.procs)
        for j in range(n):
            self.wait("metrics", lambda: all(len(self.get(j, f"/monitor/metrics/{m}")) == n for m in ("freespace", "tag:group", "ping")))

    def wait(self, what, condition, limit=120):
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except OSError:
                pass
            time.sleep(0.05)
        sys.exit(f"{what}: not within {limit} s, see {self.folder}")

    def id(self, i):
        return json.load(open(os.path.join(self.folder, str(i), "identity.json")))["id"]

    def get(self, i, path, method="GET"):
        request = urllib.request.Request(f"http://127.0.0.1:{PORT + 20 + i}{path}", method=method)
        return json.loads(urllib.request.urlopen(request, timeout=120).read())

    def rows(self, i, path):
        body = urllib.request.urlopen(f"http://127.0.0.1:{PORT + 20 + i}{path}", timeout=120).read()
        return [json.loads(line) for line in body.splitlines()]

    def fill(self, holders, pins, size, copies):
        """Content on these peers, then a pin for each file, spread over them."""
        files = os.path.join(self.folder, "files")
        os.makedirs(files, exist_ok=True)
        for n in range(pins):
            with open(os.path.join(files, str(n)), "wb") as f:
                f.write(os.urandom(size))
        everybody = ",".join(self.id(i) for i in holders)
        out = subprocess.run([PINFOLD, "-c", os.path.join(self.folder, "0"), "--enc", "json", "add", "--no-pin", "--raw-leaves", "--rmin", str(len(holders)),
                              "--rmax", str(len(holders)), "--allocations", everybody, files], check=True, capture_output=True, text=True).stdout
        decoder, cids, at = json.JSONDecoder(), [], 0
        while at < len(out.rstrip()):
            item, at = decoder.raw_decode(out, at)
            for one in item if isinstance(item, list) else [item]:
                if one["name"].count("/") == 1:
                    cids.append(one["cid"]["/"] if isinstance(one["cid"], dict) else one["cid"])
            while at < len(out) and out[at].isspace():
                at += 1
        assert len(cids) == pins, f"{len(cids)} CIDs of {pins}"

        def pin(n_cid):
            n, cid = n_cid
            who = ",".join(self.id_cache[holders[(n + k) % len(holders)]] for k in range(copies))
            self.get(0, f"/pins/{cid}?replication={copies}&user-allocations={who}", "POST")

        self.id_cache = {i: self.id(i) for i in holders}
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(pin, enumerate(cids)))
        self.wait("pinned", lambda: all(not self.rows(i, "/pins?local=true&filter=queued,pinning,error") for i in holders), 600)
        shutil.rmtree(files)

    def leader(self, alive):
        leader = self.get(alive, "/health/consensus")["leader"]
        return next(i for i in range(len(self.procs)) if self.id(i) == leader)

    def stop(self):
        for p in self.procs:
            p.kill()
            p.wait()


def show(title, before, most, after):
    print(f"{title}: RSS {before[0]:.1f} -> at most {most[0]:.1f} -> {after[0]:.1f} MB, anonymous {before[1]:.1f} -> at most {most[1]:.1f} -> {after[1]:.1f} MB")


def failover(folder, a):
    c = Cluster(folder, a.interval)
    try:
        for _ in range(4):
            c.add_peer()
        # The dead one has a part of everything that p0 and p1 hold; p2 has nothing yet.
        c.fill([0, 1, 3], a.pins, a.size, a.copies)
        dead = c.id(3)
        lead = c.leader(0)
        if lead == 3:
            sys.exit("the peer that is to die leads; run again")
        lost = sum(dead in p["allocations"] for p in c.rows(0, "/allocations"))
        time.sleep(3)
        pid = c.procs[lead].pid
        before, peak = memory(pid), Peak([c.procs[i].pid for i in range(3)])
        c.procs[3].kill()
        last = 0
        listed = None
        while True:
            for m in c.get(0, "/monitor/metrics/ping"):
                if m["peer"] == dead:
                    last = max(last, m["received_at"] / 1e9)
            pins = c.rows(0, "/allocations")
            if listed is None and all(dead not in p["allocations"] or len(p["allocations"]) > a.copies for p in pins):
                listed = time.time()
            if all(dead not in p["allocations"] for p in pins):
                break
            time.sleep(0.05)
        done = time.time()
        most = peak.stop()
        assert all(len(p["allocations"]) == a.copies for p in pins)
        detection = 2 * a.interval
        print(f"failover of {lost} of {a.pins} pins ({a.size} bytes, {a.copies} copies): last ping to all pinned elsewhere {done - last:.2f} s, "
              f"of which {detection} s are the life of a ping; all re-allocated after {listed - last:.2f} s")
        show(f"memory of the leader (p{lead})", before, most[pid], memory(pid))
        for i in range(3):
            if i != lead:
                print(f"  p{i}: at most RSS {most[c.procs[i].pid][0]:.1f}, anonymous {most[c.procs[i].pid][1]:.1f} MB")
    finally:
        c.stop()


def rebalance(folder, a):
    c = Cluster(folder, a.interval)
    try:
        for _ in range(3):
            c.add_peer()
        c.fill([0, 1, 2], a.pins, a.size, a.copies)
        c.add_peer()
        time.sleep(3)
        lead = c.leader(0)
        pid, new = c.procs[lead].pid, c.procs[3].pid
        before, peak = memory(pid), Peak([pid, new])
        start = time.time()
        out = subprocess.run([PINFOLD, "-c", os.path.join(folder, "0"), "rebalance"], check=True, capture_output=True, text=True).stdout
        took = time.time() - start
        most = peak.stop()
        print(f"rebalance of {a.pins} pins ({a.copies} copies) onto a fourth peer: {took:.2f} s")
        print("  " + "\n  ".join(out.splitlines()[-5:]))
        show(f"memory of the leader (p{lead})", before, most[pid], memory(pid))
        print(f"  the new peer: at most RSS {most[new][0]:.1f}, anonymous {most[new][1]:.1f} MB")
    finally:
        c.stop()


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--pins", type=int, default=10_000)
    a.add_argument("--size", type=int, default=1_024)
    a.add_argument("--copies", type=int, default=2)
    a.add_argument("--interval", type=int, default=1)
    a = a.parse_args()
    tmp = tempfile.mkdtemp(prefix="pinfold-bench-")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    failover(os.path.join(tmp, "failover"), a)
    rebalance(os.path.join(tmp, "rebalance"), a)
    shutil.rmtree(tmp, ignore_errors=True)


if __name__ == "__main__":
    main()
