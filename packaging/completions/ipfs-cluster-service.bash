# bash completion for ipfs-cluster-service. Made by `pinfold completion bash --name ipfs-cluster-service`; a test keeps it true.

# What can stand behind the commands of $1: further commands, flags, arguments.
_ipfs_cluster_service_at() {
    children='' flags='' arguments=''
    case "$1" in
    '')
        children='init daemon state version help'
        flags='--config -c --loglevel -l --force -f --debug -d --help -h' ;;
    'init')
        flags='--consensus --ipfs --swarm-key --witness --loopback --custom-secret -s --peers --force -f --randomports --config -c --loglevel -l --debug -d --help -h' ;;
    'daemon')
        flags='--bootstrap -j --upgrade -u --insecure-no-secret --config -c --loglevel -l --force -f --debug -d --help -h' ;;
    'state')
        children='export import cleanup upgrade'
        flags='--config -c --loglevel -l --force -f --debug -d --help -h' ;;
    'state export')
        flags='--file -f --config -c --loglevel -l --force --debug -d --help -h' ;;
    'state import')
        arguments='file'
        flags='--force -f --replication-min --rmin --replication-max --rmax --allocations --allocs --reallocate --skip-bad --config -c --loglevel -l --debug -d --help -h' ;;
    'state cleanup')
        flags='--force -f --config -c --loglevel -l --debug -d --help -h' ;;
    'state upgrade')
        flags='--force -f --yes -y --config -c --loglevel -l --debug -d --help -h' ;;
    'version')
        flags='--config -c --loglevel -l --force -f --debug -d --help -h' ;;
    'help')
        arguments='words init daemon state version help'
        flags='--config -c --loglevel -l --force -f --debug -d --help -h' ;;
    *) return 1 ;;
    esac
}

# What the value of the flag $2 (without dashes) can be behind the commands of $1; fails for a switch.
_ipfs_cluster_service_value() {
    value=''
    case "$1:$2" in
    ':config' | \
    ':c' | \
    'init:config' | \
    'init:c' | \
    'daemon:config' | \
    'daemon:c' | \
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
    'version:loglevel' | \
    'version:l' | \
    'help:loglevel' | \
    'help:l')
        value='words critical error warning notice info debug trace' ;;
    'init:consensus')
        value='words raft crdt' ;;
    'init:ipfs')
        value='words embedded kubo' ;;
    'init:swarm-key' | \
    'state export:file' | \
    'state export:f')
        value='file' ;;
    'init:peers' | \
    'daemon:bootstrap' | \
    'daemon:j' | \
    'state import:replication-min' | \
    'state import:rmin' | \
    'state import:replication-max' | \
    'state import:rmax')
        value='' ;;
    'state import:allocations' | \
    'state import:allocs')
        value='peers' ;;
    *) return 1 ;;
    esac
}

# The peers, as the peer of this machine knows them; nothing when it does not answer at once.
_ipfs_cluster_service_peers() {
    command ipfs-cluster-service --timeout 1 peers ls 2>/dev/null | sed -n 's/^\([A-Za-z0-9]\{40,\}\) |.*/\1/p'
}

# Offers what the action $1 says.
_ipfs_cluster_service_offer() {
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
    peer | peers) words=$(_ipfs_cluster_service_peers) ;;
    esac
    case "$action:$cur" in list:*,* | peers:*,*) before=${cur%,*}, ;; esac
    case "$action" in list | peers) compopt -o nospace 2>/dev/null ;; esac
    mapfile -t COMPREPLY < <(compgen -P "$before" -W "$words" -- "${cur#"$before"}")
}

_ipfs_cluster_service() {
    local cur=${COMP_WORDS[COMP_CWORD]} at='' pending='' plain='' word i
    local children flags arguments value
    COMPREPLY=()
    _ipfs_cluster_service_at ''
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
            if _ipfs_cluster_service_value "$at" "${word#-}"; then pending=${word#-}; fi
        elif [[ " $children " == *" $word "* ]]; then
            at=${at:+$at }$word
            _ipfs_cluster_service_at "$at"
        fi
    done
    if [[ -n $pending ]]; then
        [[ $cur == = ]] && cur=''
        _ipfs_cluster_service_value "$at" "$pending" && [[ -n $value ]] && _ipfs_cluster_service_offer "$value"
    elif [[ $cur == -* && -z $plain ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur")
    elif [[ -n $children ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$children" -- "$cur")
    elif [[ -n $arguments ]]; then
        _ipfs_cluster_service_offer "$arguments"
    fi
    return 0
}

complete -F _ipfs_cluster_service ipfs-cluster-service
