#!/bin/bash
# A board with little memory: three peers on this machine, each in a memory-limited control group (v1 or v2), an upload
# of SIZE MiB that all three keep, and what they used. For root.
#
#   benches/small_board.sh [-b EXECUTABLE] [-l LIMIT_MIB] [-s SIZE_MIB] [-p PINS]
#
# Prints per peer: memory while idle, the peak with the page cache that the group was charged with, anonymous memory
# at the end, how often the limit was met, and kills for want of memory (which must be none).
set -eu

binary=target/release/pinfold limit=128 size=1024 pins=20000
while getopts "b:l:s:p:h" option; do
    case $option in
    b) binary=$OPTARG ;; l) limit=$OPTARG ;; s) size=$OPTARG ;; p) pins=$OPTARG ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
done
binary=$(realpath "$binary")
export CLUSTER_MDNSINTERVAL=0s

root=$(mktemp -d)
groups=()
pids=()
end() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    for group in "${groups[@]}"; do rmdir "$group" 2>/dev/null || true; done
    rm -rf "$root"
}
trap end EXIT

# Makes a group with the limit; its folder.
make_group() {
    local v1=/sys/fs/cgroup/memory v2=/sys/fs/cgroup
    if [ -e $v1/memory.limit_in_bytes ]; then
        mkdir "$v1/$1"
        echo $((limit << 20)) > "$v1/$1/memory.limit_in_bytes"
        echo "$v1/$1"
    else
        echo +memory > $v2/cgroup.subtree_control
        mkdir "$v2/$1"
        echo $((limit << 20)) > "$v2/$1/memory.max"
        echo "$v2/$1"
    fi
}

# The first of these files of a group that there is.
of() {
    local group=$1 name
    shift
    for name; do
        if [ -e "$group/$name" ]; then cat "$group/$name"; return; fi
    done
    echo 0
}

start() {
    local n=$1
    shift
    local group
    group=$(make_group "pinfold-small-$$-$n")
    groups+=("$group")
    # The shell enters the group and becomes the peer: everything it ever touches is charged to it.
    sh -c 'echo $$ > "$0/cgroup.procs"; exec "$@"' "$group" "$binary" -c "$root/$n" "$@" > "$root/$n.log" 2>&1 &
    pids+=($!)
    for _ in $(seq 300); do
        grep -q ' is ready: ' "$root/$n.log" 2>/dev/null && return
        sleep 0.1
    done
    cat "$root/$n.log" >&2
    exit 1
}

anon() { awk '/^RssAnon/ {print $2}' "/proc/$1/status"; }
rss() { awk '/^VmRSS/ {print $2}' "/proc/$1/status"; }

start a up
token=$("$binary" -c "$root/a" invite)
start b join "$token"
start c join "$token"
sleep 5
for n in 0 1 2; do idle[n]="$(rss "${pids[n]}") ($(anon "${pids[n]}"))"; done

head -c $((size << 20)) /dev/urandom > "$root/big"
began=$(date +%s.%N)
"$binary" -c "$root/a" add -Q --wait "$root/big" > "$root/cid"
took=$(awk -v a="$began" -v b="$(date +%s.%N)" 'BEGIN {printf "%.1f", b - a}')
"$binary" -c "$root/b" get "$(cat "$root/cid")" -o "$root/back" > /dev/null
cmp "$root/big" "$root/back"

# That many pins of single blocks that all have.
printf 'a' > "$root/one"
"$binary" -c "$root/a" add -Q --wait "$root/one" > /dev/null
python3 - "$pins" > "$root/list" <<'LIST'
import base64, hashlib, sys
for n in range(int(sys.argv[1])):
    digest = hashlib.sha256(b"%d" % n).digest()
    # Identity of a CIDv1 of a raw block: nobody has it; the pin list is what is measured.
    print("b" + base64.b32encode(b"\x01\x55\x12\x20" + digest).decode().lower().rstrip("="))
LIST
"$binary" -c "$root/a" pin import --rmin 1 --rmax 1 "$root/list" > /dev/null 2>&1 || true
sleep 3

echo "limit $limit MiB per peer; $size MiB added to three peers in $took s, read back whole; then $pins pins"
echo "peer  idle RSS (anonymous) KiB  peak with page cache MiB  RSS (anonymous) at the end KiB  met the limit  killed"
for n in 0 1 2; do
    group=${groups[n]}
    peak=$(($(of "$group" memory.peak memory.max_usage_in_bytes) >> 20))
    met=$(of "$group" memory.failcnt)
    killed=$(of "$group" memory.oom_control memory.events | awk '/oom_kill / {print $2}')
    kill -0 "${pids[n]}" || { echo "peer $n is dead" >&2; exit 1; }
    echo "$n     ${idle[n]}     $peak     $(rss "${pids[n]}") ($(anon "${pids[n]}"))     $met     ${killed:-0}"
done
