# fish completion for ipfs-cluster-service. Made by `pinfold completion fish --name ipfs-cluster-service`; a test keeps it true.

# The commands behind those of $argv[1].
function __ipfs_cluster_service_children
    switch "$argv[1]"
        case ''
            string split ' ' 'init daemon state version help'
        case 'state'
            string split ' ' 'export import cleanup upgrade'
    end
end

# The flags with a value behind the commands of $argv[1].
function __ipfs_cluster_service_valued
    switch "$argv[1]"
        case ''
            string split ' ' 'config c loglevel l'
        case 'init'
            string split ' ' 'consensus ipfs swarm-key peers config c loglevel l'
        case 'daemon'
            string split ' ' 'bootstrap j config c loglevel l'
        case 'state'
            string split ' ' 'config c loglevel l'
        case 'state export'
            string split ' ' 'file f config c loglevel l'
        case 'state import'
            string split ' ' 'replication-min rmin replication-max rmax allocations allocs config c loglevel l'
        case 'state cleanup'
            string split ' ' 'config c loglevel l'
        case 'state upgrade'
            string split ' ' 'config c loglevel l'
        case 'version'
            string split ' ' 'config c loglevel l'
        case 'help'
            string split ' ' 'config c loglevel l'
    end
end

# The commands before the cursor, without flags and their values.
function __ipfs_cluster_service_path
    set -l at ''
    set -l pending no
    set -l words (commandline -opc)
    for word in $words[2..-1]
        if test $pending = yes
            set pending no
        else if test "$word" = --
            break
        else if string match -q -- '-*=*' $word
            continue
        else if string match -qr -- '^-.' $word
            if contains -- (string replace -r -- '^--?' '' $word) (__ipfs_cluster_service_valued "$at")
                set pending yes
            end
        else if contains -- $word (__ipfs_cluster_service_children "$at")
            set at (string trim -- "$at $word")
        end
    end
    echo -- $at
end

# Whether the commands before the cursor are $argv[1].
function __ipfs_cluster_service_at
    test "$(__ipfs_cluster_service_path)" = "$argv[1]"
end

# The peers, as the peer of this machine knows them; nothing when it does not answer at once.
function __ipfs_cluster_service_peers
    command ipfs-cluster-service --timeout 1 peers ls 2>/dev/null | string replace -rf -- '^([A-Za-z0-9]{40,}) \|.*' '$1'
end

# No files where none are meant.
complete -c ipfs-cluster-service -f

# ipfs-cluster-service
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at ''" -a init -d 'Creates a configuration and an identity'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at ''" -a daemon -d 'Runs the peer'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at ''" -a state -d 'Manages the peer\'s persistent state (pinset); the daemon must be stopped'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at ''" -a version -d 'Prints the version'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at ''" -a help -d 'Shows a list of commands or help for one command'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at ''" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'path to the configuration and data FOLDER'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at ''" -l loglevel -s l -x -a 'critical error warning notice info debug trace' -d 'log level, overall and per facility: info,raft:debug'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at ''" -l force -s f -d 'proceed without asking, e.g. overwriting the configuration'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at ''" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at ''" -l help -s h -d 'show help'

# init
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'init'" -l consensus -x -a 'raft crdt' -d 'the consensus section to write: raft or crdt'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'init'" -l ipfs -x -a 'embedded kubo' -d 'the IPFS node of this peer: embedded, or kubo on 127.0.0.1:5001'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'init'" -l swarm-key -r -F -d 'swarm.key of the embedded node\'s private network; without it the key is made from the cluster\'s secret'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'init'" -l witness -d 'a witness: it votes and holds no content, the third vote of a home with two boards'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'init'" -l loopback -d 'a new peer listens to this machine only, until `pinfold open`, an invitation or joining others'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'init'" -l custom-secret -s s -d 'ask for the cluster secret instead of making one'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'init'" -l peers -x -d 'full addresses (comma list) of the other peers'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'init'" -l force -s f -d 'overwrite the configuration without asking'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'init'" -l randomports -d 'choose free ports for all listeners'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'init'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'path to the configuration and data FOLDER'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'init'" -l loglevel -s l -x -a 'critical error warning notice info debug trace' -d 'log level, overall and per facility: info,raft:debug'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'init'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'init'" -l help -s h -d 'show help'

# daemon
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'daemon'" -l bootstrap -s j -x -d 'join the cluster of these peers (comma list)'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'daemon'" -l upgrade -s u -d 'bring older data to the present format first, as `state upgrade` does'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'daemon'" -l insecure-no-secret -d 'run without a cluster secret although strangers can connect'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'daemon'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'path to the configuration and data FOLDER'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'daemon'" -l loglevel -s l -x -a 'critical error warning notice info debug trace' -d 'log level, overall and per facility: info,raft:debug'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'daemon'" -l force -s f -d 'proceed without asking, e.g. overwriting the configuration'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'daemon'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'daemon'" -l help -s h -d 'show help'

# state
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state'" -a export -d 'Writes the pinset as JSON, one pin per line'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state'" -a import -d 'Replaces the pinset by one that was exported'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state'" -a cleanup -d 'Moves the peer\'s state out of the way'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state'" -a upgrade -d 'Brings data of an older version to the present format'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'path to the configuration and data FOLDER'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state'" -l loglevel -s l -x -a 'critical error warning notice info debug trace' -d 'log level, overall and per facility: info,raft:debug'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state'" -l force -s f -d 'proceed without asking, e.g. overwriting the configuration'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state'" -l help -s h -d 'show help'

# state export
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state export'" -l file -s f -r -F -d 'where to write; standard output without it'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state export'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'path to the configuration and data FOLDER'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state export'" -l loglevel -s l -x -a 'critical error warning notice info debug trace' -d 'log level, overall and per facility: info,raft:debug'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state export'" -l force -d 'proceed without asking, e.g. overwriting the configuration'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state export'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state export'" -l help -s h -d 'show help'

# state import
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state import'" -l force -s f -d 'do not ask'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state import'" -l replication-min -l rmin -x -d 'use this for all pins'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state import'" -l replication-max -l rmax -x -d 'use this for all pins'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state import'" -l allocations -l allocs -x -a '(__fish_append , (__ipfs_cluster_service_peers))' -d 'use these peers (comma list) for all pins'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state import'" -l reallocate -d 'drop holders that this folder does not know; the cluster chooses others'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state import'" -l skip-bad -d 'import what is good of input of which something is not'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state import'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'path to the configuration and data FOLDER'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state import'" -l loglevel -s l -x -a 'critical error warning notice info debug trace' -d 'log level, overall and per facility: info,raft:debug'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state import'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state import'" -l help -s h -d 'show help'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state import'" -F

# state cleanup
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state cleanup'" -l force -s f -d 'do not ask'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state cleanup'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'path to the configuration and data FOLDER'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state cleanup'" -l loglevel -s l -x -a 'critical error warning notice info debug trace' -d 'log level, overall and per facility: info,raft:debug'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state cleanup'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state cleanup'" -l help -s h -d 'show help'

# state upgrade
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state upgrade'" -l force -s f -d 'do not ask'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state upgrade'" -l yes -s y -d 'do not ask'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state upgrade'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'path to the configuration and data FOLDER'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state upgrade'" -l loglevel -s l -x -a 'critical error warning notice info debug trace' -d 'log level, overall and per facility: info,raft:debug'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state upgrade'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'state upgrade'" -l help -s h -d 'show help'

# version
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'version'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'path to the configuration and data FOLDER'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'version'" -l loglevel -s l -x -a 'critical error warning notice info debug trace' -d 'log level, overall and per facility: info,raft:debug'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'version'" -l force -s f -d 'proceed without asking, e.g. overwriting the configuration'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'version'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'version'" -l help -s h -d 'show help'

# help
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'help'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'path to the configuration and data FOLDER'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'help'" -l loglevel -s l -x -a 'critical error warning notice info debug trace' -d 'log level, overall and per facility: info,raft:debug'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'help'" -l force -s f -d 'proceed without asking, e.g. overwriting the configuration'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'help'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'help'" -l help -s h -d 'show help'
complete -c ipfs-cluster-service -n "__ipfs_cluster_service_at 'help'" -a 'init daemon state version help'
