#!/usr/bin/env python3
"""Size of the executable of each target, and the memory of a peer that nobody asks anything.

usage: benches/idle_memory.py [--settle 60] [TARGET=]EXECUTABLE ...
One peer after the other, alone in its cluster, with the embedded node and an empty pin list, as `pinfold init` configures
it. What this machine cannot run itself is run by qemu (`tests/foreign --wrapper`), and then the figures are those of the
emulator with the program in it: its translated code and its own heap come on top, and all pages of the program are counted as
anonymous. On a board it is less; what can be compared is one emulated target with another of the same emulator.
"""
import argparse, os, subprocess, sys, time
import fleet

NATIVE = "x86_64"
VARIABLE = {"x86_64": "PINFOLD_FOREIGN_X86_64", "aarch64": "PINFOLD_FOREIGN_AARCH64", "armv7": "PINFOLD_FOREIGN_ARMV7", "arm": "PINFOLD_FOREIGN_ARMV6"}


def runner(target, executable):
    """A program that runs the executable here."""
    env = dict(os.environ, **{VARIABLE[target.split("-")[0]]: executable})
    made = subprocess.run([os.path.join(fleet.ROOT, "tests", "foreign"), "--wrapper", target], env=env, text=True, capture_output=True)
    if made.returncode:
        sys.exit(made.stderr.strip())
    return made.stdout.strip()


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--settle", type=float, default=60)
    a.add_argument("what", nargs="+")
    a = a.parse_args()
    print("| target | executable | idle peer, RSS | anonymous | |\n|---|---|---|---|---|")
    for what in a.what:
        target, _, executable = what.rpartition("=")
        target = target or "x86_64-unknown-linux-gnu"
        executable = os.path.abspath(executable)
        fleet.PINFOLD = executable if target.startswith(NATIVE) else runner(target, executable)
        with fleet.Fleet(1, embedded=True) as f:
            time.sleep(a.settle)
            rss, anonymous = fleet.memory(f.pid(0))
        how = "native" if target.startswith(NATIVE) else "with qemu-user in it"
        print(f"| {target} | {os.path.getsize(executable) / 1e6:.2f} MB | {rss:.1f} MB | {anonymous:.1f} MB | {how} |", flush=True)


if __name__ == "__main__":
    main()
