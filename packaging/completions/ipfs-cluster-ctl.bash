# bash completion for ipfs-cluster-ctl. Made by `pinfold completion bash --name ipfs-cluster-ctl`; a test keeps it true.

# What can stand behind the commands of $1: further commands, flags, arguments.
_ipfs_cluster_ctl_at() {
    children='' flags='' arguments=''
    case "$1" in
    '')
        children='id peers add pin status recover version health ipfs help'
        flags='--config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'id')
        flags='--config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'peers')
        children='ls rm'
        flags='--config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'peers ls')
        flags='--config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'peers rm')
        arguments='peer'
        flags='--config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'add')
        arguments='file'
        flags='--recursive -r --quiet -q --quieter -Q --no-stream --local --name -n --replication-min --rmin --replication-max --rmax --expire-in --metadata --allocations --allocs --no-pin --wait --wait-limit --wl --wait-timeout --wt --wrap-with-directory -w --format --layout --hidden -H --chunker -s --raw-leaves --cid-version --hash --nocopy --config -c --host -l --secret --https --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'pin')
        children='add rm update ls'
        flags='--config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'pin add')
        flags='--replication -r --replication-min --rmin --replication-max --rmax --allocations --allocs --name -n --mode --expire-in --metadata --no-status --ns --wait -w --wait-limit --wl --wait-timeout --wt --config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'pin rm')
        flags='--no-status --ns --wait -w --wait-limit --wl --wait-timeout --wt --config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'pin update')
        flags='--name -n --expire-in --no-status --ns --wait -w --wait-limit --wl --wait-timeout --wt --config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'pin ls')
        flags='--filter --config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'status')
        flags='--local --filter --config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'recover')
        flags='--local --config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'version')
        flags='--config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'health')
        children='graph metrics alerts bandwidth'
        flags='--config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'health graph')
        flags='--file -f --all-ipfs-peers --config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http --debug -d --help -h' ;;
    'health metrics')
        flags='--config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'health alerts')
        flags='--config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'health bandwidth')
        flags='--config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'ipfs')
        children='gc'
        flags='--config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'ipfs gc')
        flags='--local --config -c --host -l --secret --https -s --no-check-certificate --encoding --enc --timeout -t --basic-auth --force-http -f --debug -d --help -h' ;;
    'help')
        arguments='words id peers add pin status recover version health ipfs help'
        flags='--config -c --debug -d --help -h' ;;
    *) return 1 ;;
    esac
}

# What the value of the flag $2 (without dashes) can be behind the commands of $1; fails for a switch.
_ipfs_cluster_ctl_value() {
    value=''
    case "$1:$2" in
    ':config' | \
    ':c' | \
    'id:config' | \
    'id:c' | \
    'peers:config' | \
    'peers:c' | \
    'peers ls:config' | \
    'peers ls:c' | \
    'peers rm:config' | \
    'peers rm:c' | \
    'add:config' | \
    'add:c' | \
    'pin:config' | \
    'pin:c' | \
    'pin add:config' | \
    'pin add:c' | \
    'pin rm:config' | \
    'pin rm:c' | \
    'pin update:config' | \
    'pin update:c' | \
    'pin ls:config' | \
    'pin ls:c' | \
    'status:config' | \
    'status:c' | \
    'recover:config' | \
    'recover:c' | \
    'version:config' | \
    'version:c' | \
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
    'help:config' | \
    'help:c')
        value='folder' ;;
    ':host' | \
    ':l' | \
    ':secret' | \
    ':timeout' | \
    ':t' | \
    ':basic-auth' | \
    'id:host' | \
    'id:l' | \
    'id:secret' | \
    'id:timeout' | \
    'id:t' | \
    'id:basic-auth' | \
    'peers:host' | \
    'peers:l' | \
    'peers:secret' | \
    'peers:timeout' | \
    'peers:t' | \
    'peers:basic-auth' | \
    'peers ls:host' | \
    'peers ls:l' | \
    'peers ls:secret' | \
    'peers ls:timeout' | \
    'peers ls:t' | \
    'peers ls:basic-auth' | \
    'peers rm:host' | \
    'peers rm:l' | \
    'peers rm:secret' | \
    'peers rm:timeout' | \
    'peers rm:t' | \
    'peers rm:basic-auth' | \
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
    'add:secret' | \
    'add:timeout' | \
    'add:t' | \
    'add:basic-auth' | \
    'pin:host' | \
    'pin:l' | \
    'pin:secret' | \
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
    'pin add:secret' | \
    'pin add:timeout' | \
    'pin add:t' | \
    'pin add:basic-auth' | \
    'pin rm:wait-limit' | \
    'pin rm:wl' | \
    'pin rm:wait-timeout' | \
    'pin rm:wt' | \
    'pin rm:host' | \
    'pin rm:l' | \
    'pin rm:secret' | \
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
    'pin update:secret' | \
    'pin update:timeout' | \
    'pin update:t' | \
    'pin update:basic-auth' | \
    'pin ls:host' | \
    'pin ls:l' | \
    'pin ls:secret' | \
    'pin ls:timeout' | \
    'pin ls:t' | \
    'pin ls:basic-auth' | \
    'status:host' | \
    'status:l' | \
    'status:secret' | \
    'status:timeout' | \
    'status:t' | \
    'status:basic-auth' | \
    'recover:host' | \
    'recover:l' | \
    'recover:secret' | \
    'recover:timeout' | \
    'recover:t' | \
    'recover:basic-auth' | \
    'version:host' | \
    'version:l' | \
    'version:secret' | \
    'version:timeout' | \
    'version:t' | \
    'version:basic-auth' | \
    'health:host' | \
    'health:l' | \
    'health:secret' | \
    'health:timeout' | \
    'health:t' | \
    'health:basic-auth' | \
    'health graph:host' | \
    'health graph:l' | \
    'health graph:secret' | \
    'health graph:timeout' | \
    'health graph:t' | \
    'health graph:basic-auth' | \
    'health metrics:host' | \
    'health metrics:l' | \
    'health metrics:secret' | \
    'health metrics:timeout' | \
    'health metrics:t' | \
    'health metrics:basic-auth' | \
    'health alerts:host' | \
    'health alerts:l' | \
    'health alerts:secret' | \
    'health alerts:timeout' | \
    'health alerts:t' | \
    'health alerts:basic-auth' | \
    'health bandwidth:host' | \
    'health bandwidth:l' | \
    'health bandwidth:secret' | \
    'health bandwidth:timeout' | \
    'health bandwidth:t' | \
    'health bandwidth:basic-auth' | \
    'ipfs:host' | \
    'ipfs:l' | \
    'ipfs:secret' | \
    'ipfs:timeout' | \
    'ipfs:t' | \
    'ipfs:basic-auth' | \
    'ipfs gc:host' | \
    'ipfs gc:l' | \
    'ipfs gc:secret' | \
    'ipfs gc:timeout' | \
    'ipfs gc:t' | \
    'ipfs gc:basic-auth')
        value='' ;;
    ':encoding' | \
    ':enc' | \
    'id:encoding' | \
    'id:enc' | \
    'peers:encoding' | \
    'peers:enc' | \
    'peers ls:encoding' | \
    'peers ls:enc' | \
    'peers rm:encoding' | \
    'peers rm:enc' | \
    'add:encoding' | \
    'add:enc' | \
    'pin:encoding' | \
    'pin:enc' | \
    'pin add:encoding' | \
    'pin add:enc' | \
    'pin rm:encoding' | \
    'pin rm:enc' | \
    'pin update:encoding' | \
    'pin update:enc' | \
    'pin ls:encoding' | \
    'pin ls:enc' | \
    'status:encoding' | \
    'status:enc' | \
    'recover:encoding' | \
    'recover:enc' | \
    'version:encoding' | \
    'version:enc' | \
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
    'ipfs gc:enc')
        value='words text json' ;;
    'add:allocations' | \
    'add:allocs' | \
    'pin add:allocations' | \
    'pin add:allocs')
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
    'health graph:file' | \
    'health graph:f')
        value='file' ;;
    *) return 1 ;;
    esac
}

# The peers, as the peer of this machine knows them; nothing when it does not answer at once.
_ipfs_cluster_ctl_peers() {
    command ipfs-cluster-ctl --timeout 1 peers ls 2>/dev/null | sed -n 's/^\([A-Za-z0-9]\{40,\}\) |.*/\1/p'
}

# Offers what the action $1 says.
_ipfs_cluster_ctl_offer() {
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
    peer | peers) words=$(_ipfs_cluster_ctl_peers) ;;
    esac
    case "$action:$cur" in list:*,* | peers:*,*) before=${cur%,*}, ;; esac
    case "$action" in list | peers) compopt -o nospace 2>/dev/null ;; esac
    mapfile -t COMPREPLY < <(compgen -P "$before" -W "$words" -- "${cur#"$before"}")
}

_ipfs_cluster_ctl() {
    local cur=${COMP_WORDS[COMP_CWORD]} at='' pending='' plain='' word i
    local children flags arguments value
    COMPREPLY=()
    _ipfs_cluster_ctl_at ''
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
            if _ipfs_cluster_ctl_value "$at" "${word#-}"; then pending=${word#-}; fi
        elif [[ " $children " == *" $word "* ]]; then
            at=${at:+$at }$word
            _ipfs_cluster_ctl_at "$at"
        fi
    done
    if [[ -n $pending ]]; then
        [[ $cur == = ]] && cur=''
        _ipfs_cluster_ctl_value "$at" "$pending" && [[ -n $value ]] && _ipfs_cluster_ctl_offer "$value"
    elif [[ $cur == -* && -z $plain ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur")
    elif [[ -n $children ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$children" -- "$cur")
    elif [[ -n $arguments ]]; then
        _ipfs_cluster_ctl_offer "$arguments"
    fi
    return 0
}

complete -F _ipfs_cluster_ctl ipfs-cluster-ctl
