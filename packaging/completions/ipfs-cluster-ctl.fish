# fish completion for ipfs-cluster-ctl. Made by `pinfold completion fish --name ipfs-cluster-ctl`; a test keeps it true.

# The commands behind those of $argv[1].
function __ipfs_cluster_ctl_children
    switch "$argv[1]"
        case ''
            string split ' ' 'id peers add pin status recover version health ipfs help'
        case 'peers'
            string split ' ' 'ls rm'
        case 'pin'
            string split ' ' 'add rm update ls'
        case 'health'
            string split ' ' 'graph metrics alerts bandwidth'
        case 'ipfs'
            string split ' ' 'gc'
    end
end

# The flags with a value behind the commands of $argv[1].
function __ipfs_cluster_ctl_valued
    switch "$argv[1]"
        case ''
            string split ' ' 'config c host l secret encoding enc timeout t basic-auth'
        case 'id'
            string split ' ' 'config c host l secret encoding enc timeout t basic-auth'
        case 'peers'
            string split ' ' 'config c host l secret encoding enc timeout t basic-auth'
        case 'peers ls'
            string split ' ' 'config c host l secret encoding enc timeout t basic-auth'
        case 'peers rm'
            string split ' ' 'config c host l secret encoding enc timeout t basic-auth'
        case 'add'
            string split ' ' 'name n replication-min rmin replication-max rmax expire-in metadata allocations allocs wait-limit wl wait-timeout wt format layout chunker s cid-version hash config c host l secret encoding enc timeout t basic-auth'
        case 'pin'
            string split ' ' 'config c host l secret encoding enc timeout t basic-auth'
        case 'pin add'
            string split ' ' 'replication r replication-min rmin replication-max rmax allocations allocs name n mode expire-in metadata wait-limit wl wait-timeout wt config c host l secret encoding enc timeout t basic-auth'
        case 'pin rm'
            string split ' ' 'wait-limit wl wait-timeout wt config c host l secret encoding enc timeout t basic-auth'
        case 'pin update'
            string split ' ' 'name n expire-in wait-limit wl wait-timeout wt config c host l secret encoding enc timeout t basic-auth'
        case 'pin ls'
            string split ' ' 'filter config c host l secret encoding enc timeout t basic-auth'
        case 'status'
            string split ' ' 'filter config c host l secret encoding enc timeout t basic-auth'
        case 'recover'
            string split ' ' 'config c host l secret encoding enc timeout t basic-auth'
        case 'version'
            string split ' ' 'config c host l secret encoding enc timeout t basic-auth'
        case 'health'
            string split ' ' 'config c host l secret encoding enc timeout t basic-auth'
        case 'health graph'
            string split ' ' 'file f config c host l secret encoding enc timeout t basic-auth'
        case 'health metrics'
            string split ' ' 'config c host l secret encoding enc timeout t basic-auth'
        case 'health alerts'
            string split ' ' 'config c host l secret encoding enc timeout t basic-auth'
        case 'health bandwidth'
            string split ' ' 'config c host l secret encoding enc timeout t basic-auth'
        case 'ipfs'
            string split ' ' 'config c host l secret encoding enc timeout t basic-auth'
        case 'ipfs gc'
            string split ' ' 'config c host l secret encoding enc timeout t basic-auth'
        case 'help'
            string split ' ' 'config c'
    end
end

# The commands before the cursor, without flags and their values.
function __ipfs_cluster_ctl_path
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
            if contains -- (string replace -r -- '^--?' '' $word) (__ipfs_cluster_ctl_valued "$at")
                set pending yes
            end
        else if contains -- $word (__ipfs_cluster_ctl_children "$at")
            set at (string trim -- "$at $word")
        end
    end
    echo -- $at
end

# Whether the commands before the cursor are $argv[1].
function __ipfs_cluster_ctl_at
    test "$(__ipfs_cluster_ctl_path)" = "$argv[1]"
end

# The peers, as the peer of this machine knows them; nothing when it does not answer at once.
function __ipfs_cluster_ctl_peers
    command ipfs-cluster-ctl --timeout 1 peers ls 2>/dev/null | string replace -rf -- '^([A-Za-z0-9]{40,}) \|.*' '$1'
end

# No files where none are meant.
complete -c ipfs-cluster-ctl -f

# ipfs-cluster-ctl
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -a id -d 'Shows the contacted peer and its IPFS node'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -a peers -d 'Lists and removes peers'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -a add -d 'Adds files or folders, spreads them to the peers and pins them'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -a pin -d 'Pins, unpins and lists content'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -a status -d 'Shows who holds what, in which state'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -a recover -d 'Tries again what is in error'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -a version -d 'Shows the version of the contacted peer'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -a health -d 'Shows how the cluster is doing'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -a ipfs -d 'Manages the IPFS nodes'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -a help -d 'Shows a list of commands or help for one command'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at ''" -l help -s h -d 'show help'

# id
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'id'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'id'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'id'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'id'" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'id'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'id'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'id'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'id'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'id'" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'id'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'id'" -l help -s h -d 'show help'

# peers
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers'" -a ls -d 'Lists the peers with their IPFS nodes'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers'" -a rm -d 'Removes a peer from the cluster; its copies move to others'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers'" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers'" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers'" -l help -s h -d 'show help'

# peers ls
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers ls'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers ls'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers ls'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers ls'" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers ls'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers ls'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers ls'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers ls'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers ls'" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers ls'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers ls'" -l help -s h -d 'show help'

# peers rm
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers rm'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers rm'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers rm'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers rm'" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers rm'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers rm'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers rm'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers rm'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers rm'" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers rm'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers rm'" -l help -s h -d 'show help'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'peers rm'" -a '(__ipfs_cluster_ctl_peers)'

# add
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l recursive -s r -d 'add folders with everything in them (pinfold: always)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l quiet -s q -d 'print CIDs only'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l quieter -s Q -d 'print only the last CID'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l no-stream -d 'collect all results, then print them'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l local -d 'keep the blocks on the contacted peer first; others fetch them from there'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l name -s n -x -d 'a name for the pin'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l replication-min -l rmin -x -d 'fewest copies; -1 everywhere, 0 cluster default'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l replication-max -l rmax -x -d 'most copies; -1 everywhere, 0 cluster default'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l expire-in -x -d 'unpin after this long, like 24h'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l metadata -x -d 'metadata of the pin; repeat for more'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l allocations -l allocs -x -a '(__fish_append , (__ipfs_cluster_ctl_peers))' -d 'peer ids (comma list) that get a copy before others'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l no-pin -d 'add the blocks, do not pin them'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l wait -d 'wait until the root is pinned everywhere it should'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l wait-limit -l wl -x -d 'with --wait, be content with N peers'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l wait-timeout -l wt -x -d 'with --wait, how long to wait; 0s for ever'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l wrap-with-directory -s w -d 'wrap everything in a folder (implied by several paths)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l format -x -a 'unixfs car' -d 'what the files are: unixfs or car'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l layout -x -a 'balanced trickle' -d 'shape of the DAG: balanced or trickle'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l hidden -s H -d 'add files whose names begin with a dot, too'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l chunker -s s -x -d 'how files are cut: size-<bytes>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l raw-leaves -d 'leaves without UnixFS wrapping'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l cid-version -x -a '0 1' -d '0 or 1 (1 implies raw leaves)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l hash -x -a 'sha2-256' -d 'hash function (others than sha2-256 imply CID version 1)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l nocopy -d 'for URLs only: refer to the URL instead of storing its content'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l https -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -l help -s h -d 'show help'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'add'" -F

# pin
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin'" -a add -d 'Pins a CID or an IPFS path'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin'" -a rm -d 'Unpins a CID or an IPFS path'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin'" -a update -d 'Pins new content like an existing pin, fetching only what differs'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin'" -a ls -d 'Lists the pinset, or shows one pin'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin'" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin'" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin'" -l help -s h -d 'show help'

# pin add
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l replication -s r -x -d 'number of copies: sets --rmin and --rmax'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l replication-min -l rmin -x -d 'fewest copies; -1 everywhere, 0 cluster default'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l replication-max -l rmax -x -d 'most copies; -1 everywhere, 0 cluster default'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l allocations -l allocs -x -a '(__fish_append , (__ipfs_cluster_ctl_peers))' -d 'peer ids (comma list) that get a copy before others'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l name -s n -x -d 'a name for the pin'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l mode -x -a 'recursive direct' -d 'recursive or direct'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l expire-in -x -d 'unpin after this long, like 24h'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l metadata -x -d 'metadata of the pin; repeat for more'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l no-status -l ns -d 'print the pin, do not ask for its status'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l wait -s w -d 'wait until the pin reached its state everywhere it should'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l wait-limit -l wl -x -d 'with --wait, be content with N peers'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l wait-timeout -l wt -x -d 'with --wait, how long to wait; 0s for ever'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin add'" -l help -s h -d 'show help'

# pin rm
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin rm'" -l no-status -l ns -d 'print the pin, do not ask for its status'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin rm'" -l wait -s w -d 'wait until the pin reached its state everywhere it should'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin rm'" -l wait-limit -l wl -x -d 'with --wait, be content with N peers'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin rm'" -l wait-timeout -l wt -x -d 'with --wait, how long to wait; 0s for ever'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin rm'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin rm'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin rm'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin rm'" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin rm'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin rm'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin rm'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin rm'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin rm'" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin rm'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin rm'" -l help -s h -d 'show help'

# pin update
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin update'" -l name -s n -x -d 'a name for the pin'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin update'" -l expire-in -x -d 'unpin after this long, like 24h'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin update'" -l no-status -l ns -d 'print the pin, do not ask for its status'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin update'" -l wait -s w -d 'wait until the pin reached its state everywhere it should'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin update'" -l wait-limit -l wl -x -d 'with --wait, be content with N peers'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin update'" -l wait-timeout -l wt -x -d 'with --wait, how long to wait; 0s for ever'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin update'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin update'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin update'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin update'" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin update'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin update'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin update'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin update'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin update'" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin update'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin update'" -l help -s h -d 'show help'

# pin ls
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin ls'" -l filter -x -a '(__fish_append , pin meta-pin clusterdag-pin shard-pin all)' -d 'types of pins: pin, meta-pin, clusterdag-pin, shard-pin, all'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin ls'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin ls'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin ls'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin ls'" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin ls'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin ls'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin ls'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin ls'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin ls'" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin ls'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'pin ls'" -l help -s h -d 'show help'

# status
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'status'" -l local -d 'only on the contacted peer'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'status'" -l filter -x -a '(__fish_append , cluster_error error pin_error pin_queued pinned pinning queued remote sharded unexpectedly_unpinned unpin_error unpin_queued unpinned unpinning)' -d 'only these (comma list): pinned, pinning, error, queued, pin_error, …'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'status'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'status'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'status'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'status'" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'status'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'status'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'status'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'status'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'status'" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'status'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'status'" -l help -s h -d 'show help'

# recover
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'recover'" -l local -d 'only on the contacted peer'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'recover'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'recover'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'recover'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'recover'" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'recover'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'recover'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'recover'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'recover'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'recover'" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'recover'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'recover'" -l help -s h -d 'show help'

# version
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'version'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'version'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'version'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'version'" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'version'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'version'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'version'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'version'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'version'" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'version'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'version'" -l help -s h -d 'show help'

# health
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health'" -a graph -d 'Writes the connections between peers as a DOT graph'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health'" -a metrics -d 'Lists metrics, or the last values of one'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health'" -a alerts -d 'Lists metrics that expired'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health'" -a bandwidth -d 'Shows traffic per protocol'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health'" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health'" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health'" -l help -s h -d 'show help'

# health graph
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health graph'" -l file -s f -r -F -d 'where to write; standard output without it'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health graph'" -l all-ipfs-peers -d 'show IPFS nodes that do not belong to the cluster, too'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health graph'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health graph'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health graph'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health graph'" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health graph'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health graph'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health graph'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health graph'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health graph'" -l force-http -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health graph'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health graph'" -l help -s h -d 'show help'

# health metrics
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health metrics'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health metrics'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health metrics'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health metrics'" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health metrics'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health metrics'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health metrics'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health metrics'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health metrics'" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health metrics'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health metrics'" -l help -s h -d 'show help'

# health alerts
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health alerts'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health alerts'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health alerts'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health alerts'" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health alerts'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health alerts'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health alerts'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health alerts'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health alerts'" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health alerts'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health alerts'" -l help -s h -d 'show help'

# health bandwidth
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health bandwidth'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health bandwidth'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health bandwidth'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health bandwidth'" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health bandwidth'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health bandwidth'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health bandwidth'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health bandwidth'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health bandwidth'" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health bandwidth'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'health bandwidth'" -l help -s h -d 'show help'

# ipfs
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs'" -a gc -d 'Removes unpinned blocks'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs'" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs'" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs'" -l help -s h -d 'show help'

# ipfs gc
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs gc'" -l local -d 'only on the contacted peer'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs gc'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs gc'" -l host -s l -x -d 'API address of a peer; several, by comma, are tried in order'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs gc'" -l secret -x -d 'cluster secret, for API addresses that end in /p2p/<peer id>'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs gc'" -l https -s s -d 'use HTTPS'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs gc'" -l no-check-certificate -d 'do not verify the server\'s certificate'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs gc'" -l encoding -l enc -x -a 'text json' -d 'output format: text or json'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs gc'" -l timeout -s t -x -d 'give up on a request after this long; 0 for never'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs gc'" -l basic-auth -x -d 'credentials; turns HTTPS on unless --force-http'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs gc'" -l force-http -s f -d 'send credentials without encryption'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs gc'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'ipfs gc'" -l help -s h -d 'show help'

# help
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'help'" -l config -s c -x -a '(__fish_complete_directories (commandline -ct))' -d 'take API address and credentials from this peer\'s folder'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'help'" -l debug -s d -d 'show everything that happens (very verbose)'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'help'" -l help -s h -d 'show help'
complete -c ipfs-cluster-ctl -n "__ipfs_cluster_ctl_at 'help'" -a 'id peers add pin status recover version health ipfs help'
