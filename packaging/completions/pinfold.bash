# bash completion for pinfold. Made by `pinfold completion bash --name pinfold`; a test keeps it true.

# What can stand behind the commands of $1: further commands, flags, arguments.
_pinfold_at() {
    children='' flags='' arguments=''
    case "$1" in
    '')
        children='init daemon up join invite open swarm-key doctor hash-password state config id peers drain rebalance add get cat ls pin status sync recover health ipfs backup completion man version help'
        flags='--config -c --loglevel -l --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'init')
        flags='--consensus --ipfs --swarm-key --witness --loopback --custom-secret -s --peers --force -f --randomports --config -c --loglevel -l --debug -d --help -h' ;;
    'daemon')
        flags='--bootstrap -j --upgrade -u --insecure-no-secret --config -c --loglevel -l --debug -d --help -h' ;;
    'up')
        flags='--ipfs --swarm-key --witness --loopback --upgrade -u --insecure-no-secret --config -c --loglevel -l --debug -d --help -h' ;;
    'join')
        flags='--ipfs --swarm-key --witness --once --force -f --config -c --loglevel -l --debug -d --help -h' ;;
    'invite')
        flags='--config -c --loglevel -l --debug -d --help -h' ;;
    'open')
        flags='--config -c --loglevel -l --debug -d --help -h' ;;
    'swarm-key')
        arguments='file'
        flags='--show --config -c --loglevel -l --debug -d --help -h' ;;
    'doctor')
        flags='--config -c --loglevel -l --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'hash-password')
        flags='--config -c --loglevel -l --debug -d --help -h' ;;
    'state')
        children='export import cleanup upgrade check recover'
        flags='--config -c --loglevel -l --debug -d --help -h' ;;
    'state export')
        flags='--file -f --config -c --loglevel -l --debug -d --help -h' ;;
    'state import')
        arguments='file'
        flags='--force -f --replication-min --rmin --replication-max --rmax --allocations --allocs --reallocate --skip-bad --config -c --loglevel -l --debug -d --help -h' ;;
    'state cleanup')
        flags='--force -f --config -c --loglevel -l --debug -d --help -h' ;;
    'state upgrade')
        flags='--force -f --yes -y --config -c --loglevel -l --debug -d --help -h' ;;
    'state check')
        arguments='folder'
        flags='--blocks -b --json -j --config -c --loglevel -l --debug -d --help -h' ;;
    'state recover')
        arguments='folder'
        flags='--look -l --json -j --force -f --yes -y --config -c --loglevel --debug -d --help -h' ;;
    'config')
        children='upgrade check set keys'
        flags='--config -c --loglevel -l --debug -d --help -h' ;;
    'config upgrade')
        flags='--dry-run -n --config -c --loglevel -l --debug -d --help -h' ;;
    'config check')
        flags='--config -c --loglevel -l --debug -d --help -h' ;;
    'config set')
        flags='--stdin -i --dry-run -n --managed -m --config -c --loglevel -l --debug -d --help -h' ;;
    'config keys')
        flags='--markdown --config -c --loglevel -l --debug -d --help -h' ;;
    'id')
        flags='--config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'peers')
        children='ls add rm'
        flags='--config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'peers ls')
        flags='--config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'peers add')
        flags='--config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'peers rm')
        arguments='peer'
        flags='--config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'drain')
        arguments='peer'
        flags='--undo --config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'rebalance')
        flags='--dry-run -n --config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'add')
        arguments='file'
        flags='--recursive -r --quiet -q --quieter -Q --no-stream --local --name -n --replication-min --rmin --replication-max --rmax --expire-in --metadata --allocations --allocs --no-pin --wait --wait-limit --wl --wait-timeout --wt --wrap-with-directory -w --format --layout --hidden -H --chunker -s --raw-leaves --cid-version --hash --nocopy --config -c --host -l --https --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'get')
        flags='--output -o --force -f --config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http --debug -d --help -h' ;;
    'cat')
        flags='--config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'ls')
        flags='--config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'pin')
        children='add rm update import ls'
        flags='--config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'pin add')
        flags='--replication -r --replication-min --rmin --replication-max --rmax --allocations --allocs --name -n --mode --expire-in --metadata --no-status --ns --wait -w --wait-limit --wl --wait-timeout --wt --config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'pin rm')
        flags='--no-status --ns --wait -w --wait-limit --wl --wait-timeout --wt --config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'pin update')
        flags='--name -n --expire-in --no-status --ns --wait -w --wait-limit --wl --wait-timeout --wt --config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'pin import')
        arguments='file'
        flags='--replication -r --replication-min --rmin --replication-max --rmax --allocations --allocs --name -n --expire-in --metadata --config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'pin ls')
        flags='--filter --config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'status')
        flags='--local --filter --config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'sync')
        flags='--local --config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'recover')
        flags='--local --config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'health')
        children='graph metrics alerts bandwidth'
        flags='--config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'health graph')
        flags='--file -f --all-ipfs-peers --config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http --debug -d --help -h' ;;
    'health metrics')
        flags='--config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'health alerts')
        flags='--config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'health bandwidth')
        flags='--config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'ipfs')
        children='gc'
        flags='--config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'ipfs gc')
        flags='--local --config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'backup')
        arguments='folder'
        flags='--keep -k --config -c --host -l --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'completion')
        arguments='words bash zsh fish'
        flags='--name -n --config -c --loglevel -l --debug -d --help -h' ;;
    'man')
        arguments='words pinfold.1 pinfold.5 ipfs-cluster-service.1 ipfs-cluster-ctl.1'
        flags='--config -c --loglevel -l --debug -d --help -h' ;;
    'version')
        flags='--config -c --loglevel -l --debug -d --help -h' ;;
    'help')
        arguments='words init daemon up join invite open swarm-key doctor hash-password state config id peers drain rebalance add get cat ls pin status sync recover health ipfs backup completion man version help'
        flags='--config -c --loglevel -l --debug -d --help -h' ;;
    *) return 1 ;;
    esac
}

# What the value of the flag $2 (without dashes) can be behind the commands of $1; fails for a switch.
_pinfold_value() {
    value=''
    case "$1:$2" in
    ':config' | \
    ':c' | \
    'init:config' | \
    'init:c' | \
    'daemon:config' | \
    'daemon:c' | \
    'up:config' | \
    'up:c' | \
    'join:config' | \
    'join:c' | \
    'invite:config' | \
    'invite:c' | \
    'open:config' | \
    'open:c' | \
    'swarm-key:config' | \
    'swarm-key:c' | \
    'doctor:config' | \
    'doctor:c' | \
    'hash-password:config' | \
    'hash-password:c' | \
    'state:config' | \
    'state:c' | \
    'state export:config' | \
    'state export:c' | \
    'state import:config' | \
    'state import:c' | \
    'state cleanup:config' | \
    'state cleanup:c' | \
    'state upgrade:config' | \
    'state upgrade:c' | \
    'state check:config' | \
    'state check:c' | \
    'state recover:config' | \
    'state recover:c' | \
    'config:config' | \
    'config:c' | \
    'config upgrade:config' | \
    'config upgrade:c' | \
    'config check:config' | \
    'config check:c' | \
    'config set:config' | \
    'config set:c' | \
    'config keys:config' | \
    'config keys:c' | \
    'id:config' | \
    'id:c' | \
    'peers:config' | \
    'peers:c' | \
    'peers ls:config' | \
    'peers ls:c' | \
    'peers add:config' | \
    'peers add:c' | \
    'peers rm:config' | \
    'peers rm:c' | \
    'drain:config' | \
    'drain:c' | \
    'rebalance:config' | \
    'rebalance:c' | \
    'add:config' | \
    'add:c' | \
    'get:config' | \
    'get:c' | \
    'cat:config' | \
    'cat:c' | \
    'ls:config' | \
    'ls:c' | \
    'pin:config' | \
    'pin:c' | \
    'pin add:config' | \
    'pin add:c' | \
    'pin rm:config' | \
    'pin rm:c' | \
    'pin update:config' | \
    'pin update:c' | \
    'pin import:config' | \
    'pin import:c' | \
    'pin ls:config' | \
    'pin ls:c' | \
    'status:config' | \
    'status:c' | \
    'sync:config' | \
    'sync:c' | \
    'recover:config' | \
    'recover:c' | \
    'health:config' | \
    'health:c' | \
    'health graph:config' | \
    'health graph:c' | \
    'health metrics:config' | \
    'health metrics:c' | \
    'health alerts:config' | \
    'health alerts:c' | \
    'health bandwidth:config' | \
    'health bandwidth:c' | \
    'ipfs:config' | \
    'ipfs:c' | \
    'ipfs gc:config' | \
    'ipfs gc:c' | \
    'backup:config' | \
    'backup:c' | \
    'completion:config' | \
    'completion:c' | \
    'man:config' | \
    'man:c' | \
    'version:config' | \
    'version:c' | \
    'help:config' | \
    'help:c')
        value='folder' ;;
    ':loglevel' | \
    ':l' | \
    'init:loglevel' | \
    'init:l' | \
    'daemon:loglevel' | \
    'daemon:l' | \
    'up:loglevel' | \
    'up:l' | \
    'join:loglevel' | \
    'join:l' | \
    'invite:loglevel' | \
    'invite:l' | \
    'open:loglevel' | \
    'open:l' | \
    'swarm-key:loglevel' | \
    'swarm-key:l' | \
    'doctor:loglevel' | \
    'doctor:l' | \
    'hash-password:loglevel' | \
    'hash-password:l' | \
    'state:loglevel' | \
    'state:l' | \
    'state export:loglevel' | \
    'state export:l' | \
    'state import:loglevel' | \
    'state import:l' | \
    'state cleanup:loglevel' | \
    'state cleanup:l' | \
    'state upgrade:loglevel' | \
    'state upgrade:l' | \
    'state check:loglevel' | \
    'state check:l' | \
    'state recover:loglevel' | \
    'config:loglevel' | \
    'config:l' | \
    'config upgrade:loglevel' | \
    'config upgrade:l' | \
    'config check:loglevel' | \
    'config check:l' | \
    'config set:loglevel' | \
    'config set:l' | \
    'config keys:loglevel' | \
    'config keys:l' | \
    'completion:loglevel' | \
    'completion:l' | \
    'man:loglevel' | \
    'man:l' | \
    'version:loglevel' | \
    'version:l' | \
    'help:loglevel' | \
    'help:l')
        value='words critical error warning notice info debug trace' ;;
    ':host' | \
    ':l' | \
    ':timeout' | \
    ':t' | \
    ':basic-auth' | \
    'init:peers' | \
    'daemon:bootstrap' | \
    'daemon:j' | \
    'doctor:host' | \
    'doctor:l' | \
    'doctor:timeout' | \
    'doctor:t' | \
    'doctor:basic-auth' | \
    'state import:replication-min' | \
    'state import:rmin' | \
    'state import:replication-max' | \
    'state import:rmax' | \
    'id:host' | \
    'id:l' | \
    'id:timeout' | \
    'id:t' | \
    'id:basic-auth' | \
    'peers:host' | \
    'peers:l' | \
    'peers:timeout' | \
    'peers:t' | \
    'peers:basic-auth' | \
    'peers ls:host' | \
    'peers ls:l' | \
    'peers ls:timeout' | \
    'peers ls:t' | \
    'peers ls:basic-auth' | \
    'peers add:host' | \
    'peers add:l' | \
    'peers add:timeout' | \
    'peers add:t' | \
    'peers add:basic-auth' | \
    'peers rm:host' | \
    'peers rm:l' | \
    'peers rm:timeout' | \
    'peers rm:t' | \
    'peers rm:basic-auth' | \
    'drain:host' | \
    'drain:l' | \
    'drain:timeout' | \
    'drain:t' | \
    'drain:basic-auth' | \
    'rebalance:host' | \
    'rebalance:l' | \
    'rebalance:timeout' | \
    'rebalance:t' | \
    'rebalance:basic-auth' | \
    'add:name' | \
    'add:n' | \
    'add:replication-min' | \
    'add:rmin' | \
    'add:replication-max' | \
    'add:rmax' | \
    'add:expire-in' | \
    'add:metadata' | \
    'add:wait-limit' | \
    'add:wl' | \
    'add:wait-timeout' | \
    'add:wt' | \
    'add:chunker' | \
    'add:s' | \
    'add:host' | \
    'add:l' | \
    'add:timeout' | \
    'add:t' | \
    'add:basic-auth' | \
    'get:host' | \
    'get:l' | \
    'get:timeout' | \
    'get:t' | \
    'get:basic-auth' | \
    'cat:host' | \
    'cat:l' | \
    'cat:timeout' | \
    'cat:t' | \
    'cat:basic-auth' | \
    'ls:host' | \
    'ls:l' | \
    'ls:timeout' | \
    'ls:t' | \
    'ls:basic-auth' | \
    'pin:host' | \
    'pin:l' | \
    'pin:timeout' | \
    'pin:t' | \
    'pin:basic-auth' | \
    'pin add:replication' | \
    'pin add:r' | \
    'pin add:replication-min' | \
    'pin add:rmin' | \
    'pin add:replication-max' | \
    'pin add:rmax' | \
    'pin add:name' | \
    'pin add:n' | \
    'pin add:expire-in' | \
    'pin add:metadata' | \
    'pin add:wait-limit' | \
    'pin add:wl' | \
    'pin add:wait-timeout' | \
    'pin add:wt' | \
    'pin add:host' | \
    'pin add:l' | \
    'pin add:timeout' | \
    'pin add:t' | \
    'pin add:basic-auth' | \
    'pin rm:wait-limit' | \
    'pin rm:wl' | \
    'pin rm:wait-timeout' | \
    'pin rm:wt' | \
    'pin rm:host' | \
    'pin rm:l' | \
    'pin rm:timeout' | \
    'pin rm:t' | \
    'pin rm:basic-auth' | \
    'pin update:name' | \
    'pin update:n' | \
    'pin update:expire-in' | \
    'pin update:wait-limit' | \
    'pin update:wl' | \
    'pin update:wait-timeout' | \
    'pin update:wt' | \
    'pin update:host' | \
    'pin update:l' | \
    'pin update:timeout' | \
    'pin update:t' | \
    'pin update:basic-auth' | \
    'pin import:replication' | \
    'pin import:r' | \
    'pin import:replication-min' | \
    'pin import:rmin' | \
    'pin import:replication-max' | \
    'pin import:rmax' | \
    'pin import:name' | \
    'pin import:n' | \
    'pin import:expire-in' | \
    'pin import:metadata' | \
    'pin import:host' | \
    'pin import:l' | \
    'pin import:timeout' | \
    'pin import:t' | \
    'pin import:basic-auth' | \
    'pin ls:host' | \
    'pin ls:l' | \
    'pin ls:timeout' | \
    'pin ls:t' | \
    'pin ls:basic-auth' | \
    'status:host' | \
    'status:l' | \
    'status:timeout' | \
    'status:t' | \
    'status:basic-auth' | \
    'sync:host' | \
    'sync:l' | \
    'sync:timeout' | \
    'sync:t' | \
    'sync:basic-auth' | \
    'recover:host' | \
    'recover:l' | \
    'recover:timeout' | \
    'recover:t' | \
    'recover:basic-auth' | \
    'health:host' | \
    'health:l' | \
    'health:timeout' | \
    'health:t' | \
    'health:basic-auth' | \
    'health graph:host' | \
    'health graph:l' | \
    'health graph:timeout' | \
    'health graph:t' | \
    'health graph:basic-auth' | \
    'health metrics:host' | \
    'health metrics:l' | \
    'health metrics:timeout' | \
    'health metrics:t' | \
    'health metrics:basic-auth' | \
    'health alerts:host' | \
    'health alerts:l' | \
    'health alerts:timeout' | \
    'health alerts:t' | \
    'health alerts:basic-auth' | \
    'health bandwidth:host' | \
    'health bandwidth:l' | \
    'health bandwidth:timeout' | \
    'health bandwidth:t' | \
    'health bandwidth:basic-auth' | \
    'ipfs:host' | \
    'ipfs:l' | \
    'ipfs:timeout' | \
    'ipfs:t' | \
    'ipfs:basic-auth' | \
    'ipfs gc:host' | \
    'ipfs gc:l' | \
    'ipfs gc:timeout' | \
    'ipfs gc:t' | \
    'ipfs gc:basic-auth' | \
    'backup:keep' | \
    'backup:k' | \
    'backup:host' | \
    'backup:l' | \
    'backup:timeout' | \
    'backup:t' | \
    'backup:basic-auth')
        value='' ;;
    ':encoding' | \
    ':enc' | \
    'doctor:encoding' | \
    'doctor:enc' | \
    'id:encoding' | \
    'id:enc' | \
    'peers:encoding' | \
    'peers:enc' | \
    'peers ls:encoding' | \
    'peers ls:enc' | \
    'peers add:encoding' | \
    'peers add:enc' | \
    'peers rm:encoding' | \
    'peers rm:enc' | \
    'drain:encoding' | \
    'drain:enc' | \
    'rebalance:encoding' | \
    'rebalance:enc' | \
    'add:encoding' | \
    'add:enc' | \
    'get:encoding' | \
    'get:enc' | \
    'cat:encoding' | \
    'cat:enc' | \
    'ls:encoding' | \
    'ls:enc' | \
    'pin:encoding' | \
    'pin:enc' | \
    'pin add:encoding' | \
    'pin add:enc' | \
    'pin rm:encoding' | \
    'pin rm:enc' | \
    'pin update:encoding' | \
    'pin update:enc' | \
    'pin import:encoding' | \
    'pin import:enc' | \
    'pin ls:encoding' | \
    'pin ls:enc' | \
    'status:encoding' | \
    'status:enc' | \
    'sync:encoding' | \
    'sync:enc' | \
    'recover:encoding' | \
    'recover:enc' | \
    'health:encoding' | \
    'health:enc' | \
    'health graph:encoding' | \
    'health graph:enc' | \
    'health metrics:encoding' | \
    'health metrics:enc' | \
    'health alerts:encoding' | \
    'health alerts:enc' | \
    'health bandwidth:encoding' | \
    'health bandwidth:enc' | \
    'ipfs:encoding' | \
    'ipfs:enc' | \
    'ipfs gc:encoding' | \
    'ipfs gc:enc' | \
    'backup:encoding' | \
    'backup:enc')
        value='words text json' ;;
    'init:consensus')
        value='words raft crdt' ;;
    'init:ipfs' | \
    'up:ipfs' | \
    'join:ipfs')
        value='words embedded kubo' ;;
    'init:swarm-key' | \
    'up:swarm-key' | \
    'join:swarm-key' | \
    'state export:file' | \
    'state export:f' | \
    'config set:managed' | \
    'config set:m' | \
    'get:output' | \
    'get:o' | \
    'health graph:file' | \
    'health graph:f')
        value='file' ;;
    'state import:allocations' | \
    'state import:allocs' | \
    'add:allocations' | \
    'add:allocs' | \
    'pin add:allocations' | \
    'pin add:allocs' | \
    'pin import:allocations' | \
    'pin import:allocs')
        value='peers' ;;
    'add:format')
        value='words unixfs car' ;;
    'add:layout')
        value='words balanced trickle' ;;
    'add:cid-version')
        value='words 0 1' ;;
    'add:hash')
        value='words sha2-256' ;;
    'pin add:mode')
        value='words recursive direct' ;;
    'pin ls:filter')
        value='list pin meta-pin clusterdag-pin shard-pin all' ;;
    'status:filter')
        value='list cluster_error error pin_error pin_queued pinned pinning queued remote sharded unexpectedly_unpinned unpin_error unpin_queued unpinned unpinning' ;;
    'completion:name' | \
    'completion:n')
        value='words pinfold ipfs-cluster-service ipfs-cluster-ctl' ;;
    *) return 1 ;;
    esac
}

# The peers, as the peer of this machine knows them; nothing when it does not answer at once.
_pinfold_peers() {
    command pinfold --timeout 1 peers ls 2>/dev/null | sed -n 's/^\([A-Za-z0-9]\{40,\}\) |.*/\1/p'
}

# Offers what the action $1 says.
_pinfold_offer() {
    local action=${1%% *} words='' before=''
    case "$1" in *' '*) words=${1#* } ;; esac
    case "$action" in
    file)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return ;;
    folder)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -d -- "$cur")
        return ;;
    peer | peers) words=$(_pinfold_peers) ;;
    esac
    case "$action:$cur" in list:*,* | peers:*,*) before=${cur%,*}, ;; esac
    case "$action" in list | peers) compopt -o nospace 2>/dev/null ;; esac
    mapfile -t COMPREPLY < <(compgen -P "$before" -W "$words" -- "${cur#"$before"}")
}

_pinfold() {
    local cur=${COMP_WORDS[COMP_CWORD]} at='' pending='' plain='' word i
    local children flags arguments value
    COMPREPLY=()
    _pinfold_at ''
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ -n $pending ]]; then
            # --flag=value comes as three words.
            [[ $word == = ]] || pending=''
        elif [[ -n $plain ]]; then
            :
        elif [[ $word == -- ]]; then
            plain=yes
        elif [[ $word == -?* ]]; then
            word=${word#-}
            if _pinfold_value "$at" "${word#-}"; then pending=${word#-}; fi
        elif [[ " $children " == *" $word "* ]]; then
            at=${at:+$at }$word
            _pinfold_at "$at"
        fi
    done
    if [[ -n $pending ]]; then
        [[ $cur == = ]] && cur=''
        _pinfold_value "$at" "$pending" && [[ -n $value ]] && _pinfold_offer "$value"
    elif [[ $cur == -* && -z $plain ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur")
    elif [[ -n $children ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$children" -- "$cur")
    elif [[ -n $arguments ]]; then
        _pinfold_offer "$arguments"
    fi
    return 0
}

complete -F _pinfold pinfold
