#!/usr/bin/env python3
"""A leader is killed with -9: how long until the next write is committed?

usage: benches/leader_death.py [--runs 20] [--reference 5]
Three peers on loopback with the settings that `pinfold init` writes. A survivor is asked for a pin from the moment of
the kill, as a client would: every 5 ms again while it is refused, with a limit of 5 s for each try. The dead peer is
started again before the next run. --reference N does the same N times with ipfs-cluster 1.1.6 (0: not at all).
Needs ../shared/peers and `cargo build --release`.
"""
import argparse, os, re, signal, statistics, subprocess, sys, tempfile, time
import fleet


def commit_time(url):
    line = subprocess.run([f"{fleet.tools()}/load", "wait", url], text=True, capture_output=True).stdout
    found = re.match(r"(\d+) ms", line)
    return int(found.group(1)) if found else None


def ours(runs):
    times = []
    with fleet.Fleet(3, embedded=True) as f:
        f.settle()
        for run in range(runs):
            leader = f.leader((run + 1) % 3)
            ask = (leader + 1 + run % 2) % 3
            f.kill(leader)
            ms = commit_time(f.url(ask))
            print(f"pinfold run {run}: {ms} ms (asked peer {ask}, peer {leader} was killed)", flush=True)
            times.append(ms)
            f.start(leader)
            fleet.wait("the peer that was killed", lambda: f.leader(leader) is not None)
            # Not always at the same moment after the last heartbeat.
            time.sleep(0.5 + 0.037 * run)
    return times


def reference(runs):
    times = []
    for run in range(runs):
        folder = tempfile.mkdtemp(prefix="pinfold-reference-")
        env = dict(os.environ, BIN=fleet.tools())
        script = ["bash", f"{fleet.SHARED}/refcluster.sh"]
        subprocess.run([*script, "up", "3", "raft", folder], check=True, env=env, capture_output=True)
        try:
            time.sleep(5)
            # The first peer founded the cluster and leads it.
            os.kill(int(open(f"{folder}/0.pid").read()), signal.SIGKILL)
            ms = commit_time("http://127.0.0.1:19091")
            print(f"ipfs-cluster run {run}: {ms} ms", flush=True)
            times.append(ms)
        finally:
            subprocess.run([*script, "down", "3", "raft", folder], env=env, capture_output=True)
    return times


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--runs", type=int, default=20)
    a.add_argument("--reference", type=int, default=5)
    a = a.parse_args()
    for name, times in (("pinfold", ours(a.runs)), ("ipfs-cluster 1.1.6", reference(a.reference))):
        if not times:
            continue
        good = [t for t in times if t is not None]
        never = len(times) - len(good)
        words = f", {never} times not within 60 s" if never else ""
        if good:
            print(f"| {name}, leader killed -> next commit, {len(times)} runs | median {statistics.median(good):.0f} ms | worst {max(good)} ms{words} |")
        else:
            print(f"| {name}, leader killed -> next commit, {len(times)} runs | never |")


if __name__ == "__main__":
    main()
