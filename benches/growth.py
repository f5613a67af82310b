#!/usr/bin/env python3
"""How a cluster grows: more pins, and more peers.

usage: benches/growth.py [--pins 10000,100000,1000000] [--peers 3,7,20,50] [--peers-pins 10000] [--huge] [--election 400]
Every peer is a real process on loopback, the mock IPFS daemon behind all of them; peers beyond the seventh are learners.
The first table grows the pins of three peers (--huge: 10,000,000 as well), the second the peers, each with --peers-pins
pins. All share this machine's cores, so that the second table shows what one machine can carry rather than what
so many machines would: commit latency there has the work of all peers in it.
Columns: import in one request; memory of a follower that only follows; p50 and p99 of 200 further commits, one after
the other; a global status through the command line (with many peers each row names them all); restart of a peer to
ready; a fresh peer from its start to having everything by snapshot. --election: consensus.raft.election_timeout in ms, the
heartbeat being a fourth of it; dozens of processes on a few cores need more than the usual 400.
"""
import argparse, json, os, signal, statistics, tempfile, time
import fleet, pins as many


def one(peers, count, election, out):
    with fleet.Fleet(peers, change=lambda config, i: calm(config, election)) as f:
        f.settle()
        time.sleep(2)
        leader = f.leader(0)
        quiet = next(i for i in range(1, peers) if i != leader)
        before = fleet.memory(f.pid(quiet))
        path = os.path.join(f.folder, "list")
        many.prepare(path, 0, count)
        took, text = many.import_file(f, path, leader)
        assert json.loads(text)["added"] == count, text
        pinned = many.settled(f)
        time.sleep(10)
        after = fleet.memory(f.pid(quiet))
        line, rate, _ = fleet.load(f.url(leader), 1, pins=200)
        p50, p99 = fleet.percentiles(line)
        status, _ = many.status([fleet.PINFOLD], f"/ip4/127.0.0.1/tcp/{f.base + 200 + leader}")
        restart = statistics.median(f.restart(quiet, signal.SIGKILL) for _ in range(3))
        began = time.monotonic()
        f.add(wait_ready=False)
        new = len(f.procs) - 1
        fleet.wait("a fresh peer with everything", lambda: f.applied(new) >= f.applied(leader) > 0, 1200, 0.02)
        caught_up = time.monotonic() - began
        out.append(f"| {peers} | {count:,} | {count / took:,.0f}/s | {pinned:.0f} s | {after[0]:.0f} MB | {before[1]:.1f} -> {after[1]:.1f} MB | {p50} / {p99} | {status:.2f} s | {restart * 1000:.0f} ms | {caught_up:.2f} s |")
        print(out[-1], flush=True)


def calm(config, election):
    # Pings as often as `pinfold init` has them; the timing of elections, too, which the compatible file lacks.
    beat = f"{election // 4}ms"
    config["consensus"]["raft"].update(
        heartbeat_timeout=beat, election_timeout=f"{election}ms", leader_lease_timeout=beat
    )


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--pins", default="10000,100000,1000000")
    a.add_argument("--peers", default="3,7,20,50")
    a.add_argument("--peers-pins", type=int, default=10_000)
    a.add_argument("--huge", action="store_true")
    a.add_argument("--election", type=int, default=400)
    a = a.parse_args()
    numbers = lambda text: [int(n) for n in text.split(",") if n]
    head = "| peers | pins | import | all pinned after | RSS | anonymous | commit p50 / p99 | global status | restart after kill -9 | fresh peer |\n|---|---|---|---|---|---|---|---|---|---|"
    print(head, flush=True)
    out = []
    for count in numbers(a.pins) + ([10_000_000] if a.huge else []):
        one(3, count, a.election, out)
    for peers in numbers(a.peers):
        one(peers, a.peers_pins, a.election, out)
    print("\n" + head + "\n" + "\n".join(out))


if __name__ == "__main__":
    main()
