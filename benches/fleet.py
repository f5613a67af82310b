"""Peers of pinfold on loopback for the measurements in this folder: a library, run nothing by itself.

A `Fleet` is N peers with the mock IPFS daemon of ../shared/peers behind them (or with embedded nodes), configured as
`pinfold init` writes it but for ports, names and what a measurement asks for. Everything it starts it ends.
"""
import base64, hashlib, http.client, json, os, re, shutil, signal, struct, subprocess, sys, tempfile, threading, time, urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
SHARED = os.environ.get("PINFOLD_SHARED", os.path.join(ROOT, "..", "shared")) + "/peers"
PINFOLD = os.environ.get("PINFOLD", os.path.join(ROOT, "target", "release", "pinfold"))
BASE = int(os.environ.get("PINFOLD_BENCH_PORT", "21000"))


def tools():
    """The folder with load, mockipfs, ipfs and ipfs-cluster-service; made on first use."""
    if os.environ.get("PINFOLD_PEERS_BIN"):
        return os.environ["PINFOLD_PEERS_BIN"]
    return subprocess.run(["bash", f"{SHARED}/install.sh", os.path.join(ROOT, "target", "peers")], check=True, text=True, capture_output=True).stdout.strip()


def memory(pid):
    """Resident and anonymous memory of a process, MB."""
    fields = dict(re.findall(r"^(VmRSS|RssAnon):\s+(\d+)", open(f"/proc/{pid}/status").read(), re.M))
    return int(fields["VmRSS"]) / 1024, int(fields["RssAnon"]) / 1024


def written(pid):
    """Bytes that a process has made the system write to storage, pages of shared mappings included."""
    fields = dict(re.findall(r"^(\w+): (\d+)", open(f"/proc/{pid}/io").read(), re.M))
    return int(fields["write_bytes"]) - int(fields["cancelled_write_bytes"])


def cid(n, seed=0):
    """The n-th CID of a seed: a raw block's, version 1, SHA-256, so that they are spread like real ones."""
    digest = hashlib.sha256(struct.pack(">QQ", seed, n)).digest()
    return "b" + base64.b32encode(b"\x01\x55\x12\x20" + digest).decode().lower().rstrip("=")


def wait(what, condition, limit=60.0, pause=0.002):
    """Waits until something is so; how long it took, seconds."""
    start = time.monotonic()
    while True:
        try:
            if condition():
                return time.monotonic() - start
        except (OSError, http.client.HTTPException, ValueError):
            pass
        if time.monotonic() - start > limit:
            sys.exit(f"{what}: not within {limit} s")
        time.sleep(pause)


class Fleet:
    """N peers. `change(config, i)` may alter the settings of a peer, `env` is added to every peer's environment."""

    def __init__(self, peers, folder=None, embedded=False, change=None, env=None, base=BASE):
        self.folder = folder or tempfile.mkdtemp(prefix="pinfold-fleet-")
        self.made = folder is None
        self.base, self.embedded, self.change = base, embedded, change
        self.env = dict(os.environ, **(env or {}))
        self.procs, self.mock = [], None
        if not embedded:
            self.mock = subprocess.Popen([f"{tools()}/mockipfs", f"127.0.0.1:{base + 600}", str(max(peers, 1) + 8)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(peers):
                self.add()
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def add(self, wait_ready=True):
        """Configures one more peer and starts it; how long until it was ready, seconds."""
        i = len(self.procs)
        self.init(i)
        join = ["--bootstrap", f"/ip4/127.0.0.1/tcp/{self.base}/p2p/{self.id(0)}"] if i else []
        self.procs.append(None)
        return self.start(i, join, wait_ready)

    def init(self, i):
        d = os.path.join(self.folder, str(i))
        flags = [] if self.embedded else ["--ipfs", "kubo"]
        subprocess.run([PINFOLD, "-c", d, "init", *flags], check=True, env=dict(os.environ, CLUSTER_SECRET="cd" * 32), capture_output=True)
        f = os.path.join(d, "service.json")
        c = json.load(open(f))
        c["cluster"].update(peername=f"p{i}", mdns_interval="0s", listen_multiaddress=f"/ip4/127.0.0.1/tcp/{self.base + i}")
        c["api"]["restapi"]["http_listen_multiaddress"] = f"/ip4/127.0.0.1/tcp/{self.base + 200 + i}"
        for unused in ("ipfsproxy", "pinsvcapi"):
            c["api"].pop(unused, None)
        if self.embedded:
            c["ipfs_connector"]["embedded"]["listen_multiaddress"] = f"/ip4/127.0.0.1/tcp/{self.base + 400 + i}"
        else:
            c["ipfs_connector"]["ipfshttp"]["node_multiaddress"] = f"/ip4/127.0.0.1/tcp/{self.base + 600 + i}"
        if self.change:
            self.change(c, i)
        json.dump(c, open(f, "w"), indent=2)

    def log(self, i):
        return os.path.join(self.folder, f"{i}.log")

    def start(self, i, args=(), wait_ready=True):
        """Starts a peer; how long until it was ready, seconds."""
        mark = os.path.getsize(self.log(i)) if os.path.exists(self.log(i)) else 0
        began = time.monotonic()
        # Through a pipe, as to systemd: lines of the log are not the peer's own writes to the disk.
        p = self.procs[i] = subprocess.Popen([PINFOLD, "-c", os.path.join(self.folder, str(i)), "daemon", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.env)
        threading.Thread(target=self.keep_log, args=(p.stdout, i), daemon=True).start()
        while not os.path.exists(self.log(i)):
            time.sleep(0.001)
        if not wait_ready:
            return None
        while True:
            with open(self.log(i), "rb") as f:
                f.seek(mark)
                if b"is ready" in f.read():
                    return time.monotonic() - began
            if p.poll() is not None:
                sys.exit(f"peer {i} ended:\n" + open(self.log(i)).read()[-2000:])
            if time.monotonic() - began > 120:
                sys.exit(f"peer {i} is not ready: see {self.log(i)}")
            time.sleep(0.002)

    def keep_log(self, pipe, i):
        with open(self.log(i), "ab", buffering=0) as log:
            while piece := os.read(pipe.fileno(), 1 << 16):
                log.write(piece)

    def kill(self, i, how=signal.SIGKILL):
        self.procs[i].send_signal(how)
        self.procs[i].wait()

    def restart(self, i, how=signal.SIGTERM):
        """Ends a peer and starts it again; how long the start took, seconds."""
        self.kill(i, how)
        return self.start(i)

    def pid(self, i):
        return self.procs[i].pid

    def id(self, i):
        return json.load(open(os.path.join(self.folder, str(i), "identity.json")))["id"]

    def url(self, i=0):
        return f"http://127.0.0.1:{self.base + 200 + i}"

    def connection(self, i=0):
        return http.client.HTTPConnection("127.0.0.1", self.base + 200 + i, timeout=600)

    def get(self, i, path, method="GET", body=None, timeout=600):
        request = urllib.request.Request(self.url(i) + path, method=method, data=body)
        return json.loads(urllib.request.urlopen(request, timeout=timeout).read() or b"null")

    def leader(self, ask):
        """Which peer leads, as far as `ask` knows; None while nobody does."""
        leader = self.get(ask, "/health/consensus", timeout=5)["leader"]
        return next((i for i in range(len(self.procs)) if self.id(i) == leader), None)

    def settle(self, ask=0):
        """Waits until all members know each other's metrics and whoever may vote does."""
        n = len(self.procs)
        wait("the metrics of all", lambda: len(self.get(ask, "/monitor/metrics/ping")) == n and len(self.get(ask, "/monitor/metrics/freespace")) >= n, 120)
        voters = lambda: sum(m["role"] == "voter" for m in self.get(ask, "/health/consensus")["members"])
        wait("the voters", lambda: voters() == min(n, 7), 120)

    def applied(self, i):
        return self.get(i, "/health/consensus")["applied"]

    def stop(self):
        for p in self.procs:
            if p is not None:
                p.kill()
                p.wait()
        if self.mock:
            self.mock.kill()
            self.mock.wait()
        if self.made:
            shutil.rmtree(self.folder, ignore_errors=True)


def load(url, clients, seconds=None, pins=None, seed=None):
    """Runs the load driver; its line of figures and the rate in it."""
    kind, amount = ("pin", seconds) if pins is None else ("pinn", pins)
    more = [] if seed is None else [str(seed)]
    line = subprocess.run([f"{tools()}/load", kind, url, str(clients), str(amount), *more], check=True, text=True, capture_output=True).stdout.strip()
    return line, float(re.search(r"rate (\d+)/s", line).group(1)), int(re.search(r"ok (\d+)", line).group(1))


def percentiles(line):
    """p50 and p99 of the load driver's line, as it prints them."""
    return re.search(r"p50 (\S+)", line).group(1), re.search(r"p99 (\S+)", line).group(1)
