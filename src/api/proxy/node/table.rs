//! The calls of Kubo's RPC API that this node knows: one line each, with arguments and options. `commands` lists them,
//! [`super::call`] checks requests against them, and what is refused is refused here, with its sentence.
//!
//! Calls that are not here do not exist (404, as Kubo answers what it does not know). The intercepted ones (pin/…, add,
//! repo/gc) are here too, so that `commands` tells all that the proxy answers; they never arrive.

/// What a call comes down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Does {
    /// An error with this sentence.
    Refuse(&'static str),
    /// Nothing: the name of a group of calls.
    List,
    Cat,
    Get,
    Ls,
    BlockGet,
    BlockStat,
    BlockPut,
    BlockRm,
    DagGet,
    DagPut,
    DagResolve,
    DagStat,
    DagExport,
    DagImport,
    Refs,
    RefsLocal,
    Resolve,
    Version,
    Id,
    Commands,
    ConfigShow,
    Config,
    KeyList,
    RepoStat,
    RepoVersion,
    RepoVerify,
    StatsBw,
    BitswapStat,
    BitswapWantlist,
    SwarmPeers,
    SwarmConnect,
    SwarmDisconnect,
    SwarmAddrs,
    SwarmAddrsLocal,
    /// An empty list of peers.
    NoPeers,
}

/// What kind of value an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    Int64,
    Text,
}

/// An argument.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg {
    /// One value that must be there.
    One(&'static str),
    /// One or more values.
    Many(&'static str),
    /// A value that may be left out.
    Maybe,
    /// A form with files.
    File(&'static str),
}

/// An option: its names, the long one first, and its kind.
pub(super) type Opt = (&'static [&'static str], Kind);

/// A call.
#[derive(Debug)]
pub(super) struct Command {
    /// `dag/get`.
    pub(super) path: &'static str,
    pub(super) args: &'static [Arg],
    pub(super) options: &'static [Opt],
    pub(super) does: Does,
}

use Arg::{Many, Maybe, One};
use Kind::{Bool, Int, Int64, Text};

const fn call(path: &'static str, args: &'static [Arg], options: &'static [Opt], does: Does) -> Command {
    Command { path, args, options, does }
}

/// Options that every call takes.
pub(super) const GLOBAL: &[Opt] = &[
    (&["offline"], Bool),
    (&["cid-base"], Text),
    (&["upgrade-cidv0-in-output"], Bool),
    (&["encoding", "enc"], Text),
    (&["stream-channels"], Bool),
    (&["timeout"], Text),
];

const MFS: Does = Does::Refuse(
    "MFS is not offered by the embedded IPFS node: pin content by its CID, or use a Kubo daemon (ipfs_connector.ipfshttp)",
);
const NAMES: Does = Does::Refuse(
    "IPNS names are not offered by the embedded IPFS node, which works offline: give /ipfs paths, or use a Kubo daemon \
     (ipfs_connector.ipfshttp)",
);
const KEYS: Does = Does::Refuse(
    "keys besides the node's own are for IPNS, which the embedded IPFS node does not offer: use a Kubo daemon \
     (ipfs_connector.ipfshttp)",
);
const ROUTING: Does = Does::Refuse(
    "the embedded IPFS node takes no part in a DHT: it asks the nodes it is connected with; connect to who has it \
     (ipfs swarm connect), or use a Kubo daemon (ipfs_connector.ipfshttp)",
);
const PUBSUB: Does = Does::Refuse(
    "pubsub is not offered by the embedded IPFS node: use a Kubo daemon (ipfs_connector.ipfshttp)",
);
const BOOTSTRAP: Does = Does::Refuse(
    "the embedded IPFS node has no bootstrap list: the peers of the cluster are connected with each other; use ipfs swarm \
     connect for others",
);
const SHUTDOWN: Does = Does::Refuse(
    "this IPFS node is part of the pinfold daemon and cannot be shut down alone: stop the daemon (systemctl stop pinfold)",
);
const PING: Does =
    Does::Refuse("ping is not offered by the embedded IPFS node: see who is connected with ipfs swarm peers");
const OBJECT: Does = Does::Refuse("removed, use 'ipfs dag' or 'ipfs files' instead");
const SETTINGS: Does = Does::Refuse(
    "the embedded IPFS node is configured in service.json (ipfs_connector.embedded), not over this API",
);
const FILESTORE: Does = Does::Refuse("filestore is not enabled, see https://git.io/vNItf");
const VERIFY_PINS: Does = Does::Refuse(
    "pin verify is not offered by this node: pinfold status compares every pin with what the node holds, ipfs repo verify \
     reads every block",
);
const MOUNT: Does =
    Does::Refuse("mounting is not offered by the embedded IPFS node: use ipfs get, or a Kubo daemon");
const CLUSTERS: Does = Does::Refuse("this call is answered by the cluster itself");

const CID_OPTIONS: &[Opt] = &[(&["progress", "p"], Bool)];

/// All of them, a group before its members.
pub(super) const COMMANDS: &[Command] = &[
    call(
        "add",
        &[Arg::File("path")],
        &[
            (&["recursive", "r"], Bool),
            (&["quiet", "q"], Bool),
            (&["quieter", "Q"], Bool),
            (&["silent"], Bool),
            (&["progress", "p"], Bool),
            (&["wrap-with-directory", "w"], Bool),
            (&["chunker", "s"], Text),
            (&["raw-leaves"], Bool),
            (&["cid-version"], Int),
            (&["hash"], Text),
            (&["pin"], Bool),
            (&["hidden", "H"], Bool),
        ],
        CLUSTERS,
    ),
    call("bitswap", &[], &[], Does::List),
    call("bitswap/stat", &[], &[(&["verbose", "v"], Bool), (&["human"], Bool)], Does::BitswapStat),
    call("bitswap/wantlist", &[], &[(&["peer", "p"], Text)], Does::BitswapWantlist),
    call("block", &[], &[], Does::List),
    call("block/get", &[One("cid")], &[], Does::BlockGet),
    call(
        "block/put",
        &[Arg::File("data")],
        &[
            (&["cid-codec"], Text),
            (&["mhtype"], Text),
            (&["mhlen"], Int),
            (&["pin"], Bool),
            (&["allow-big-block"], Bool),
            (&["format", "f"], Text),
        ],
        Does::BlockPut,
    ),
    call("block/rm", &[Many("cid")], &[(&["force", "f"], Bool), (&["quiet", "q"], Bool)], Does::BlockRm),
    call("block/stat", &[One("cid")], &[], Does::BlockStat),
    call("bootstrap", &[], &[], Does::NoPeers),
    call("bootstrap/add", &[Maybe], &[], BOOTSTRAP),
    call("bootstrap/list", &[], &[], Does::NoPeers),
    call("bootstrap/rm", &[Maybe], &[], BOOTSTRAP),
    call(
        "cat",
        &[Many("ipfs-path")],
        &[(&["offset", "o"], Int64), (&["length", "l"], Int64), (&["progress", "p"], Bool)],
        Does::Cat,
    ),
    call("commands", &[], &[(&["flags", "f"], Bool)], Does::Commands),
    call("config", &[One("key"), Maybe], &[(&["bool"], Bool), (&["json"], Bool)], Does::Config),
    call("config/profile/apply", &[Maybe], &[], SETTINGS),
    call("config/replace", &[Arg::File("file")], &[], SETTINGS),
    call("config/show", &[], &[], Does::ConfigShow),
    call("dag", &[], &[], Does::List),
    call("dag/export", &[One("root")], CID_OPTIONS, Does::DagExport),
    call("dag/get", &[One("ref")], &[(&["output-codec"], Text)], Does::DagGet),
    call(
        "dag/import",
        &[Arg::File("path")],
        &[(&["pin-roots"], Bool), (&["silent"], Bool), (&["stats"], Bool), (&["allow-big-block"], Bool)],
        Does::DagImport,
    ),
    call(
        "dag/put",
        &[Arg::File("object data")],
        &[
            (&["store-codec"], Text),
            (&["input-codec"], Text),
            (&["pin"], Bool),
            (&["hash"], Text),
            (&["allow-big-block"], Bool),
        ],
        Does::DagPut,
    ),
    call("dag/resolve", &[One("ref")], &[], Does::DagResolve),
    call("dag/stat", &[Many("root")], CID_OPTIONS, Does::DagStat),
    call("files", &[], &[], Does::List),
    call("files/chcid", &[], &[], MFS),
    call("files/cp", &[], &[], MFS),
    call("files/flush", &[], &[], MFS),
    call("files/ls", &[], &[], MFS),
    call("files/mkdir", &[], &[], MFS),
    call("files/mv", &[], &[], MFS),
    call("files/read", &[], &[], MFS),
    call("files/rm", &[], &[], MFS),
    call("files/stat", &[], &[], MFS),
    call("files/write", &[], &[], MFS),
    call("filestore/dups", &[], &[], FILESTORE),
    call("filestore/ls", &[], &[], FILESTORE),
    call("filestore/verify", &[], &[], FILESTORE),
    call(
        "get",
        &[One("ipfs-path")],
        &[
            (&["output", "o"], Text),
            (&["archive", "a"], Bool),
            (&["compress", "C"], Bool),
            (&["compression-level", "l"], Int),
            (&["progress", "p"], Bool),
        ],
        Does::Get,
    ),
    call("id", &[Maybe], &[(&["format", "f"], Text), (&["peerid-base"], Text)], Does::Id),
    call("key", &[], &[], Does::List),
    call("key/export", &[], &[], KEYS),
    call("key/gen", &[One("name")], &[(&["type", "t"], Text), (&["size", "s"], Int)], KEYS),
    call("key/import", &[], &[], KEYS),
    call("key/list", &[], &[(&["l"], Bool), (&["ipns-base"], Text)], Does::KeyList),
    call("key/ls", &[], &[(&["l"], Bool), (&["ipns-base"], Text)], Does::KeyList),
    call("key/rename", &[], &[], KEYS),
    call("key/rm", &[], &[], KEYS),
    call(
        "ls",
        &[Many("ipfs-path")],
        &[
            (&["headers", "v"], Bool),
            (&["resolve-type"], Bool),
            (&["size"], Bool),
            (&["stream", "s"], Bool),
            (&["long", "l"], Bool),
        ],
        Does::Ls,
    ),
    call("mount", &[], &[], MOUNT),
    call("name", &[], &[], Does::List),
    call("name/publish", &[One("ipfs-path")], &[(&["key", "k"], Text)], NAMES),
    call("name/resolve", &[Maybe], &[(&["recursive", "r"], Bool), (&["nocache", "n"], Bool)], NAMES),
    call("object/data", &[], &[], OBJECT),
    call("object/get", &[], &[], OBJECT),
    call("object/links", &[], &[], OBJECT),
    call("object/new", &[], &[], OBJECT),
    call("object/put", &[], &[], OBJECT),
    call("object/stat", &[], &[], OBJECT),
    call("pin", &[], &[], Does::List),
    call(
        "pin/add",
        &[Many("ipfs-path")],
        &[(&["recursive", "r"], Bool), (&["name", "n"], Text), (&["progress"], Bool)],
        CLUSTERS,
    ),
    call(
        "pin/ls",
        &[Maybe],
        &[
            (&["type", "t"], Text),
            (&["quiet", "q"], Bool),
            (&["name", "n"], Text),
            (&["stream", "s"], Bool),
            (&["names"], Bool),
        ],
        CLUSTERS,
    ),
    call("pin/rm", &[Many("ipfs-path")], &[(&["recursive", "r"], Bool)], CLUSTERS),
    call("pin/update", &[One("from-path"), One("to-path")], &[(&["unpin"], Bool)], CLUSTERS),
    call("pin/verify", &[], &[(&["verbose"], Bool), (&["quiet", "q"], Bool)], VERIFY_PINS),
    call("ping", &[Many("peer ID")], &[(&["count", "n"], Int)], PING),
    call("pubsub/ls", &[], &[], PUBSUB),
    call("pubsub/peers", &[], &[], PUBSUB),
    call("pubsub/pub", &[], &[], PUBSUB),
    call("pubsub/sub", &[], &[], PUBSUB),
    call(
        "refs",
        &[Many("ipfs-path")],
        &[
            (&["format"], Text),
            (&["edges", "e"], Bool),
            (&["unique", "u"], Bool),
            (&["recursive", "r"], Bool),
            (&["max-depth"], Int),
        ],
        Does::Refs,
    ),
    call("refs/local", &[], &[], Does::RefsLocal),
    call("repo", &[], &[], Does::List),
    call(
        "repo/gc",
        &[],
        &[(&["stream-errors"], Bool), (&["quiet", "q"], Bool), (&["silent"], Bool)],
        CLUSTERS,
    ),
    call("repo/ls", &[], &[], Does::RefsLocal),
    call("repo/stat", &[], &[(&["size-only", "s"], Bool), (&["human", "H"], Bool)], Does::RepoStat),
    call("repo/verify", &[], &[], Does::RepoVerify),
    call("repo/version", &[], &[(&["quiet", "q"], Bool)], Does::RepoVersion),
    call(
        "resolve",
        &[One("name")],
        &[
            (&["recursive", "r"], Bool),
            (&["dht-record-count", "dhtrc"], Int),
            (&["dht-timeout", "dhtt"], Text),
        ],
        Does::Resolve,
    ),
    call("routing/findpeer", &[Many("peerID")], &[], ROUTING),
    call(
        "routing/findprovs",
        &[Many("key")],
        &[(&["verbose", "v"], Bool), (&["num-providers", "n"], Int)],
        ROUTING,
    ),
    call("routing/get", &[Many("key")], &[], ROUTING),
    call("routing/provide", &[Many("key")], &[(&["recursive", "r"], Bool)], ROUTING),
    call("routing/put", &[One("key")], &[], ROUTING),
    call("dht/findpeer", &[Many("peerID")], &[], ROUTING),
    call("dht/findprovs", &[Many("key")], &[], ROUTING),
    call("dht/provide", &[Many("key")], &[], ROUTING),
    call("dht/query", &[Many("peerID")], &[], ROUTING),
    call("shutdown", &[], &[], SHUTDOWN),
    call("stats", &[], &[], Does::List),
    call("stats/bitswap", &[], &[(&["verbose", "v"], Bool), (&["human"], Bool)], Does::BitswapStat),
    call(
        "stats/bw",
        &[],
        &[(&["peer", "p"], Text), (&["proto", "t"], Text), (&["poll"], Bool), (&["interval", "i"], Text)],
        Does::StatsBw,
    ),
    call("stats/repo", &[], &[(&["size-only", "s"], Bool), (&["human", "H"], Bool)], Does::RepoStat),
    call("swarm", &[], &[], Does::List),
    call("swarm/addrs", &[], &[], Does::SwarmAddrs),
    call("swarm/addrs/listen", &[], &[], Does::SwarmAddrsLocal),
    call("swarm/addrs/local", &[], &[(&["id"], Bool)], Does::SwarmAddrsLocal),
    call("swarm/connect", &[Many("address")], &[], Does::SwarmConnect),
    call("swarm/disconnect", &[Many("address")], &[], Does::SwarmDisconnect),
    call("swarm/peering/ls", &[], &[], Does::NoPeers),
    call(
        "swarm/peers",
        &[],
        &[
            (&["verbose", "v"], Bool),
            (&["streams"], Bool),
            (&["latency"], Bool),
            (&["direction", "d"], Bool),
            (&["identify"], Bool),
        ],
        Does::SwarmPeers,
    ),
    call(
        "version",
        &[],
        &[(&["number", "n"], Bool), (&["commit"], Bool), (&["repo"], Bool), (&["all"], Bool)],
        Does::Version,
    ),
];

/// The call with the longest path that begins `components`, and how many of them it is.
pub(super) fn find(components: &[&str]) -> Option<(&'static Command, usize)> {
    /// No call has more.
    const DEEPEST: usize = 3;
    (1..=components.len().min(DEEPEST)).rev().find_map(|n| {
        let path = components[..n].join("/");
        let found = COMMANDS.iter().find(|command| command.path == path)?;
        // A group takes no arguments: what follows its name would be a call of it, which there is not.
        (found.does != Does::List || n == components.len()).then_some((found, n))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_with_itself() {
        for (n, command) in COMMANDS.iter().enumerate() {
            assert!(!COMMANDS[..n].iter().any(|other| other.path == command.path), "{} twice", command.path);
            let mut names: Vec<_> =
                command.options.iter().chain(GLOBAL).flat_map(|(names, _)| *names).collect();
            names.sort();
            let all = names.len();
            names.dedup();
            assert_eq!(names.len(), all, "{}: an option name twice", command.path);
        }
    }

    #[test]
    fn the_longest_name_wins() {
        let of = |path: &str| {
            let components: Vec<_> = path.split('/').collect();
            find(&components).map(|(command, n)| (command.path, n))
        };
        assert_eq!(of("refs/local"), Some(("refs/local", 2)));
        assert_eq!(of("refs/QmX"), Some(("refs", 1)));
        assert_eq!(of("swarm/addrs/local/x"), Some(("swarm/addrs/local", 3)));
        assert_eq!(of("repo"), Some(("repo", 1)));
        assert_eq!(of("repo/fsck"), None);
        assert_eq!(of("nosuch"), None);
        assert_eq!(of(""), None);
    }
}
