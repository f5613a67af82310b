//! What the manual says beyond the tables of commands, keys and exit codes: files, variables, examples.

use crate::cli::face::Face;

/// Version and date of the release that the pages belong to. A test asks for a new date when the version changes; no
/// clock is asked, so that pages are the same whenever they are made.
pub(super) const RELEASE: (&str, &str) = ("0.4.0", "2026-11-21");

/// Files and folders below the peer's folder (or with a place of their own), and what they are.
pub(super) const FILES: &[(&str, &str)] = &[
    ("~/.pinfold", "The folder of a peer, unless `-c`, `IPFS_CLUSTER_PATH` or the service manager says otherwise. All below is in it."),
    ("service.json", "The configuration, see pinfold(5)."),
    ("identity.json", "The key of the peer. Whoever has it is the peer."),
    ("cluster.lock", "Held while a daemon or an offline command works on the folder."),
    ("raft/", "The log and the state: the replicated list of pins. `raft.old.N` and the like are what was put aside."),
    ("ipfs/", "Blocks, index and pins of the embedded IPFS node."),
    ("backups/", "Exports of the pin list, written at each clean stop; `backups/daily` has those of `pinfold backup`."),
    ("peerstore", "Addresses of the other members, one per line."),
    ("removed", "A note that this peer was removed from its cluster, so that it does not come back by itself."),
];

/// Files of an installation by a package.
pub(super) const INSTALLED: &[(&str, &str)] = &[
    (
        "/var/lib/pinfold",
        "The folder of the peer that the service manager runs (`systemctl status pinfold`).",
    ),
    ("/etc/default/pinfold", "Variables and options of that peer."),
];

/// Variables of the environment that the program reads, beside those of single keys and flags.
pub(super) const VARIABLES: &[(&str, &str)] = &[
    ("CLUSTER_*", "Every key of service.json has a variable that wins over the file: pinfold(5)."),
    (
        "CREDENTIALS_DIRECTORY",
        "Set by systemd: a file in it that is called like a variable `CLUSTER_*`, alone or after `pinfold.`, stands in for that variable where it is not set.",
    ),
    ("HOME", "Where the folder is that is used when none is named."),
    ("IPFS_PATH", "Where `pinfold doctor` looks for the folder of Kubo."),
    ("NO_COLOR", "When it is not empty, the log on a terminal has no colours."),
    ("IPFS_LOGGING_FMT", "The same when it is `nocolor`."),
    ("TERM", "The same when it is `dumb`."),
    ("JOURNAL_STREAM", "Set by systemd: the log is written for the journal when standard error goes there."),
    ("NOTIFY_SOCKET", "Set by systemd: is told when the peer is ready, how it is, and that it takes longer."),
    ("WATCHDOG_USEC", "Set by systemd: the watchdog is fed so often, as long as consensus turns and the disk answers."),
    ("WATCHDOG_PID", "Set by systemd: for which process the watchdog is."),
    ("SSL_CERT_FILE", "Certificates that are trusted instead of the system's."),
    ("BLOCKING_MAX_THREADS", "Threads that may wait for the disk at once."),
];

/// Examples of a face: what for, and the commands.
pub(super) fn examples(face: Face) -> &'static [(&'static str, &'static str)] {
    match face {
        Face::Pinfold => &[
            ("A first board, and a token for the others:", "pinfold up\npinfold invite"),
            ("On the second board:", "pinfold join TOKEN"),
            (
                "A folder on all boards, and who holds it:",
                "pinfold add -r holiday/ --name holiday\npinfold status",
            ),
            (
                "Two copies of something from elsewhere, waiting until they are there:",
                "pinfold pin add -r 2 --wait CID",
            ),
            ("A board that never comes back:", "pinfold peers rm PEER"),
            ("What is wrong with this board:", "pinfold doctor"),
            ("A peer of its own with another folder:", "pinfold -c /srv/second up"),
        ],
        Face::Service => &[
            ("A new peer:", "ipfs-cluster-service init\nipfs-cluster-service daemon"),
            (
                "Joining the cluster of another peer:",
                "ipfs-cluster-service daemon --bootstrap /ip4/192.168.1.2/tcp/9096/p2p/PEER",
            ),
            (
                "The pin list of a stopped peer, out and in:",
                "ipfs-cluster-service state export >pins.json\nipfs-cluster-service state import pins.json",
            ),
        ],
        Face::Ctl => &[
            (
                "The peers of a cluster elsewhere:",
                "ipfs-cluster-ctl --host /dns4/attic.local/tcp/9094 peers ls",
            ),
            ("A file on two to three peers:", "ipfs-cluster-ctl add --rmin 2 --rmax 3 holiday.jpg"),
            (
                "What is in error, and another try:",
                "ipfs-cluster-ctl status --filter error\nipfs-cluster-ctl recover",
            ),
        ],
    }
}
