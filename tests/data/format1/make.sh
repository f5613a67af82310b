#!/bin/sh
# How the data beside this file was made: by the real pinfold 0.1.0 (commit cc218c3, see tests/old_build.sh), three
# peers on loopback, one of which was killed in the middle of its work. Run as: make.sh PINFOLD-0.1.0
set -eu
old=$1
here=$(cd "$(dirname "$0")" && pwd)
tmp=$(mktemp -d)
export CLUSTER_SECRET=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff CLUSTER_MDNSINTERVAL=0s
export CLUSTER_MONITORPINGINTERVAL=1s
for n in 0 1 2; do
    CLUSTER_PEERNAME="board$n" "$old" -c "$tmp/p$n" init --randomports 2>/dev/null
done
start() { # peer, further arguments
    n=$1; shift
    "$old" -c "$tmp/p$n" daemon "$@" >"$tmp/p$n.log" 2>&1 &
    echo $! >"$tmp/p$n.pid"
    until grep -q 'is ready' "$tmp/p$n.log"; do sleep 0.1; done
}
start 0
address=$(grep -o '/ip4/127.0.0.1/tcp/[0-9]*/p2p/[A-Za-z0-9]*' "$tmp/p0.log" | head -n 1)
start 1 --bootstrap "$address"
start 2 --bootstrap "$address"
sleep 3
api=$(grep -o 'http://127.0.0.1:[0-9]*' "$tmp/p1.log" | head -n 1)
# Content that is there, content that nobody has, every option of a pin.
for n in 1 2 3 4 5; do
    printf 'pinfold %s' "$n" >"$tmp/file$n"
    "$old" -c "$tmp/p1" add -Q --name "file $n" --replication-min 2 --replication-max 2 "$tmp/file$n" >/dev/null
done
curl -sf -X POST "$api/pins/QmegC4srqQjb99iuoL7fzcUeXG6TYPeXUsW2WXEbpmVa7o?name=nobody%20has%20it&replication-min=1&replication-max=2&meta-colour=red&meta-size=large" >/dev/null
curl -sf -X POST "$api/pins/QmfLiVjH2vujCVP2e75zyzBYmpcjktmDeU1YBz6Ct8BBsc?name=expires&expire-at=2099-12-31T23:59:59Z" >/dev/null
curl -sf -X POST "$api/pins/ipfs/QmR9pC5uCF3UExca8RSrCVL8eKv7nHMpATzbEQkAHpXmVM?mode=direct&name=direct" >/dev/null
curl -sf -X POST "$api/pins/QmapoNeQhJxjMDWstx27etyxMNLU4MtkDk8BMfyHRao8P8?name=%C3%BCml%C3%A4ut%20%F0%9F%90%91&origins=/ip4/10.0.0.1/tcp/4001/p2p/12D3KooWNUfLafUxLcHFg89f7Zx473UHz1f2tw4AR227DP6ZP2L3" >/dev/null
curl -sf -X POST "$api/pins/QmZAZBUBbMTufgkTPvKPRg2EYGxE8MEc2443xYCPGXY7gi" >/dev/null
curl -sf -X DELETE "$api/pins/QmZAZBUBbMTufgkTPvKPRg2EYGxE8MEc2443xYCPGXY7gi" >/dev/null
sleep 3
# The last pin is in the log of the killed peer and not yet in its state.
curl -sf -X POST "$api/pins/QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH?name=last" >/dev/null
kill -9 "$(cat "$tmp/p1.pid")"
sleep 1
kill "$(cat "$tmp/p0.pid")" "$(cat "$tmp/p2.pid")"
wait 2>/dev/null || true
"$old" -c "$tmp/p1" state export >"$here/export.ndjson"
rm -rf "$here/raft"
cp -r "$tmp/p1/raft" "$here/raft"
find "$here/raft" -name lock.mdb -delete
cp "$tmp/p1/identity.json" "$here/identity.json"
du -sb "$here/raft"
rm -rf "$tmp"
