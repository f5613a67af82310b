#!/usr/bin/env python3
"""The IPFS proxy beside direct Kubo, in one run: (a) in front of Kubo, (b) over the embedded node.

usage: benches/proxy.py [--mib 1024] [--lists 1000] [--rounds 3] [--gib 10]
One pinfold peer per form and one Kubo, on loopback, asked over HTTP by the same client. Kubo's adds are not flushed to
disk, the embedded node's are. `--gib` streams that much through each proxy (up and down again) and watches its memory.
"""
import argparse, hashlib, http.client, json, os, re, shutil, statistics, subprocess, sys, tempfile, threading, time
from cluster import PINFOLD, ROOT, SHARED, run

PIECE = 1 << 20


class Peer:
    """A pinfold peer whose proxy listens on `port`."""

    def __init__(self, folder, port, kubo=None):
        self.folder, self.port = folder, port
        flags = ["--ipfs", "kubo"] if kubo else []
        subprocess.run([PINFOLD, "-c", folder, "init", *flags], check=True, env=dict(os.environ, CLUSTER_SECRET="cd" * 32), capture_output=True)
        f = os.path.join(folder, "service.json")
        c = json.load(open(f))
        at = lambda p: f"/ip4/127.0.0.1/tcp/{p}"
        c["cluster"].update(listen_multiaddress=at(port + 1), mdns_interval="0s", monitor_ping_interval="2s")
        c["api"]["restapi"]["http_listen_multiaddress"] = at(port + 2)
        c["api"].setdefault("ipfsproxy", {})["listen_multiaddress"] = at(port)
        if kubo:
            c["ipfs_connector"]["ipfshttp"]["node_multiaddress"] = at(kubo)
            c["api"]["ipfsproxy"]["node_multiaddress"] = at(kubo)
        else:
            c["ipfs_connector"]["embedded"].update(listen_multiaddress=at(port + 3), storage_max="500GB")
        json.dump(c, open(f, "w"), indent=2)
        self.log = os.path.join(folder, "log")
        self.proc = subprocess.Popen([PINFOLD, "-c", folder, "daemon"], stdout=open(self.log, "w"), stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 60
        while "is ready" not in open(self.log).read():
            if self.proc.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"pinfold is not ready: {open(self.log).read()[-2000:]}")
            time.sleep(0.02)

    def memory(self):
        text = open(f"/proc/{self.proc.pid}/status").read()
        fields = dict(re.findall(r"^(VmRSS|RssAnon):\s+(\d+)", text, re.M))
        return int(fields["VmRSS"]) / 1024, int(fields["RssAnon"]) / 1024

    def stop(self):
        self.proc.terminate()
        self.proc.wait()


class Kubo:
    def __init__(self, folder, bins, port):
        self.folder, self.port, self.env = folder, port, dict(os.environ, BIN=bins)
        subprocess.run(["bash", f"{SHARED}/kubos.sh", "up", "1", folder, str(port)], check=True, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self):
        subprocess.run(["bash", f"{SHARED}/kubos.sh", "down", "1", self.folder], env=self.env)


def pieces(mib, seed):
    """`mib` pieces of a MiB that nothing compresses or stores twice, cheap enough to be made on the way."""
    base = os.urandom(PIECE - 16)
    for n in range(mib):
        yield hashlib.blake2b(f"{seed}/{n}".encode(), digest_size=16).digest() + base[n % 4096:] + base[:n % 4096]


def add(port, mib, seed, options="pin=true&progress=false&cid-version=1"):
    """Adds one file of `mib` MiB; its CID and the time."""
    start = time.monotonic()
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    head = b'--B\r\nContent-Disposition: form-data; name="file"; filename="f"\r\nContent-Type: application/octet-stream\r\n\r\n'
    tail = b"\r\n--B--\r\n"
    c.putrequest("POST", f"/api/v0/add?{options}")
    c.putheader("Content-Type", "multipart/form-data; boundary=B")
    c.putheader("Content-Length", str(len(head) + len(tail) + mib * PIECE))
    c.endheaders()
    c.send(head)
    for piece in pieces(mib, seed):
        c.send(piece)
    c.send(tail)
    answer = c.getresponse()
    lines = answer.read().decode().splitlines()
    if answer.status != 200:
        sys.exit(f"add: {answer.status} {lines}")
    return json.loads(lines[-1])["Hash"], time.monotonic() - start


def cat(port, cid):
    start, total = time.monotonic(), 0
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    c.request("POST", f"/api/v0/cat?arg={cid}")
    answer = c.getresponse()
    buffer = bytearray(PIECE)
    while n := answer.readinto(buffer):
        total += n
    return total, time.monotonic() - start


def lists(port, times):
    start = time.monotonic()
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    for _ in range(times):
        c.request("POST", "/api/v0/pin/ls?type=recursive")
        answer = c.getresponse()
        answer.read()
        if answer.status != 200:
            sys.exit(f"pin/ls: {answer.status}")
    return time.monotonic() - start


class Watch(threading.Thread):
    """The most memory a peer has while something runs."""

    def __init__(self, peer):
        super().__init__(daemon=True)
        self.peer, self.peak, self.ends = peer, (0.0, 0.0), threading.Event()
        self.start()

    def run(self):
        while not self.ends.wait(0.05):
            self.peak = tuple(max(a, b) for a, b in zip(self.peak, self.peer.memory()))

    def end(self):
        self.ends.set()
        self.join()
        return self.peak


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--mib", type=int, default=1024)
    a.add_argument("--lists", type=int, default=1000)
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--gib", type=float, default=10)
    a = a.parse_args()
    tmp = tempfile.mkdtemp(prefix="pinfold-bench-")
    bins = os.environ.get("PEERS_BIN") or run("bash", f"{SHARED}/install.sh", os.path.join(ROOT, "target", "peers")).strip()
    started = []
    sides = {"Kubo, direct": 17501, "proxy in front of Kubo": 17701, "embedded node": 17801}
    times = {}
    try:
        started.append(Kubo(os.path.join(tmp, "kubo"), bins, 17501))
        front = Peer(os.path.join(tmp, "front"), 17701, kubo=17501)
        started.append(front)
        own = Peer(os.path.join(tmp, "own"), 17801)
        started.append(own)
        for rnd in range(a.rounds):
            cids = {}
            for name, port in sides.items():
                cids[name], s = add(port, a.mib, f"{rnd}/{name}")
                times.setdefault(("add", name), []).append(s)
                print(f"{name:24} add {a.mib} MiB   {s:7.2f} s  {a.mib / s:6.0f} MiB/s", flush=True)
            for name, port in sides.items():
                total, s = cat(port, cids[name])
                if total != a.mib * PIECE:
                    sys.exit(f"{name}: cat gave {total} bytes")
                times.setdefault(("cat", name), []).append(s)
                print(f"{name:24} cat {a.mib} MiB   {s:7.2f} s  {a.mib / s:6.0f} MiB/s", flush=True)
            for name, port in sides.items():
                s = lists(port, a.lists)
                times.setdefault(("pin ls", name), []).append(s)
                print(f"{name:24} {a.lists} x pin ls {s:7.2f} s  {a.lists / s:6.0f}/s", flush=True)
        print("\n| what | " + " | ".join(sides) + " | ratio (a) | ratio (b) |\n|---|---|---|---|---|---|")
        for what in ("add", "cat", "pin ls"):
            k, p, e = (statistics.median(times[(what, n)]) for n in sides)
            size = f"{a.lists} x {what}" if what == "pin ls" else f"{what} {a.mib} MiB"
            print(f"| {size} | {k:.2f} s | {p:.2f} s | {e:.2f} s | {p / k:.2f} | {e / k:.2f} |")
        print("(a ratio is time through pinfold to time of direct Kubo: below 1 is faster)")
        mib = int(a.gib * 1024)
        for name, peer in (("proxy in front of Kubo", front), ("embedded node", own)) if mib else ():
            before = peer.memory()
            watch = Watch(peer)
            cid, up = add(peer.port, mib, f"stream/{name}", "pin=false&progress=false&cid-version=1")
            total, down = cat(peer.port, cid)
            peak = watch.end()
            print(f"{name}: {a.gib:g} GiB up ({mib / up:.0f} MiB/s) and down ({total / PIECE / down:.0f} MiB/s): RSS {before[0]:.0f} -> {peak[0]:.0f} MB at most, anonymous {before[1]:.0f} -> {peak[1]:.0f} MB", flush=True)
    finally:
        for side in reversed(started):
            side.stop()
        shutil.rmtree(tmp, ignore_errors=True)


if __name__ == "__main__":
    main()
