//! The one table of commands and flags.
//!
//! Everything that knows what the command line looks like reads it from here: the normalising pass,
//! the help texts, `commands`, and later man pages and completions. The typed structs of
//! [`super::args`] repeat only the names; a test walks this table and parses every flag, so the two
//! cannot drift apart.
//!
//! One executable has three *faces*, chosen by the name it is started under: `pinfold` shows
//! everything, `ipfs-cluster-service` and `ipfs-cluster-ctl` show what the programs of that name
//! show. A command or flag belongs to the faces it lists, and never appears on another one: scripts
//! that compare the output of `ipfs-cluster-ctl commands` must see no surprise.

use super::face::Face;

/// Which faces show a command or flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faces(u8);

impl Faces {
    /// `pinfold` only.
    pub const P: Faces = Faces(1);
    /// `ipfs-cluster-service` only.
    pub const S: Faces = Faces(2);
    /// `ipfs-cluster-ctl` only.
    pub const C: Faces = Faces(4);
    /// `pinfold` and `ipfs-cluster-service`.
    pub const PS: Faces = Faces(3);
    /// `pinfold` and `ipfs-cluster-ctl`.
    pub const PC: Faces = Faces(5);
    /// All three.
    pub const ALL: Faces = Faces(7);

    /// Whether `face` is among them.
    pub fn has(self, face: Face) -> bool {
        let bit = match face {
            Face::Pinfold => 1,
            Face::Service => 2,
            Face::Ctl => 4,
        };
        self.0 & bit != 0
    }
}

/// Where a command does its work; global flags belong to one side or to both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// In this process, on a folder.
    Local,
    /// At a peer, over HTTP.
    Client,
    /// Either.
    Both,
}

/// Names every command that can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the documentation
pub enum Cmd {
    Init,
    Daemon,
    Up,
    Join,
    Invite,
    Open,
    SwarmKey,
    Doctor,
    HashPassword,
    StateExport,
    StateImport,
    StateCleanup,
    ConfigUpgrade,
    ConfigCheck,
    ConfigSet,
    ConfigKeys,
    StateUpgrade,
    StateRecover,
    StateCheck,
    Version,
    PeerVersion,
    Id,
    PeersLs,
    PeersAdd,
    PeersRm,
    Drain,
    Rebalance,
    Add,
    PinAdd,
    PinRm,
    PinUpdate,
    PinImport,
    PinLs,
    Status,
    Sync,
    Recover,
    HealthGraph,
    HealthMetrics,
    HealthAlerts,
    HealthBandwidth,
    IpfsGc,
    Get,
    Cat,
    Ls,
    Backup,
    Completion,
    Man,
    Commands,
    Help,
    /// A group such as `pin`, which only shows its help.
    Group,
}

/// A flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// The long name, without dashes. This is the name the typed structs know.
    pub long: &'static str,
    /// Other names, one letter or more, without dashes.
    pub aliases: &'static [&'static str],
    /// What its value is called in the help; `None` for a switch.
    pub value: Option<&'static str>,
    /// Whether every occurrence counts; otherwise the last one does.
    pub repeats: bool,
    /// The default as shown in the help; empty for none.
    pub default: &'static str,
    /// The environment variable that stands in for it; empty for none.
    pub env: &'static str,
    /// One line for a person.
    pub help: &'static str,
    /// Accepted, not shown.
    pub hidden: bool,
}

impl Flag {
    /// A flag without a value.
    pub const fn switch(long: &'static str, aliases: &'static [&'static str], help: &'static str) -> Flag {
        Flag { long, aliases, value: None, repeats: false, default: "", env: "", help, hidden: false }
    }

    /// A flag with a value.
    pub const fn value(
        long: &'static str,
        aliases: &'static [&'static str],
        value: &'static str,
        help: &'static str,
    ) -> Flag {
        Flag { long, aliases, value: Some(value), repeats: false, default: "", env: "", help, hidden: false }
    }

    const fn or(mut self, default: &'static str) -> Flag {
        self.default = default;
        self
    }

    const fn env(mut self, env: &'static str) -> Flag {
        self.env = env;
        self
    }

    const fn many(mut self) -> Flag {
        self.repeats = true;
        self
    }

    const fn hidden(mut self) -> Flag {
        self.hidden = true;
        self
    }

    /// Whether `name` (without dashes) means this flag.
    pub fn is(&self, name: &str) -> bool {
        self.long == name || self.aliases.contains(&name)
    }
}

/// A flag that stands before or after the sub-command.
#[derive(Clone, Copy, Debug)]
pub struct Global {
    /// Who shows it.
    pub faces: Faces,
    /// Which commands take it.
    pub side: Side,
    /// The flag.
    pub flag: Flag,
}

/// A command, or a group of commands.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Which one it is.
    pub cmd: Cmd,
    /// Its name.
    pub name: &'static str,
    /// Other names.
    pub aliases: &'static [&'static str],
    /// Its arguments as shown in the help.
    pub args: &'static str,
    /// Fewest arguments.
    pub min_args: usize,
    /// Most arguments.
    pub max_args: usize,
    /// One line for a person.
    pub about: &'static str,
    /// More for a person; may be empty.
    pub details: &'static str,
    /// Its own flags.
    pub flags: &'static [Flag],
    /// Its sub-commands.
    pub children: &'static [Command],
    /// Who shows it.
    pub faces: Faces,
    /// Where it works.
    pub side: Side,
    /// Accepted, not listed.
    pub hidden: bool,
}

const fn command(cmd: Cmd, name: &'static str, faces: Faces, side: Side, about: &'static str) -> Command {
    Command {
        cmd,
        name,
        aliases: &[],
        args: "",
        min_args: 0,
        max_args: 0,
        about,
        details: "",
        flags: &[],
        children: &[],
        faces,
        side,
        hidden: false,
    }
}

const fn group(
    name: &'static str,
    faces: Faces,
    side: Side,
    about: &'static str,
    children: &'static [Command],
) -> Command {
    let mut group = command(Cmd::Group, name, faces, side, about);
    group.children = children;
    group
}

impl Command {
    const fn args(mut self, args: &'static str, min: usize, max: usize) -> Command {
        self.args = args;
        self.min_args = min;
        self.max_args = max;
        self
    }

    const fn flags(mut self, flags: &'static [Flag]) -> Command {
        self.flags = flags;
        self
    }

    const fn details(mut self, details: &'static str) -> Command {
        self.details = details;
        self
    }

    const fn aliases(mut self, aliases: &'static [&'static str]) -> Command {
        self.aliases = aliases;
        self
    }

    const fn hidden(mut self) -> Command {
        self.hidden = true;
        self
    }

    /// Whether `word` names this command on `face`.
    pub fn is(&self, word: &str, face: Face) -> bool {
        self.faces.has(face) && (self.name == word || self.aliases.contains(&word))
    }
}

/// More arguments than any command line can hold: "as many as you like".
pub const ANY: usize = usize::MAX;

/// The flags that stand before or after every sub-command.
pub const GLOBALS: &[Global] = &[
    Global {
        faces: Faces::P,
        side: Side::Both,
        flag: Flag::value("config", &["c"], "FOLDER", "configuration and data folder of the peer")
            .or("~/.pinfold")
            .env("IPFS_CLUSTER_PATH"),
    },
    Global {
        faces: Faces::S,
        side: Side::Both,
        flag: Flag::value("config", &["c"], "FOLDER", "path to the configuration and data FOLDER")
            .or("~/.ipfs-cluster")
            .env("IPFS_CLUSTER_PATH"),
    },
    Global {
        faces: Faces::C,
        side: Side::Both,
        flag: Flag::value(
            "config",
            &["c"],
            "FOLDER",
            "take API address and credentials from this peer's folder",
        ),
    },
    Global {
        faces: Faces::PS,
        side: Side::Local,
        flag: Flag::value(
            "loglevel",
            &["l"],
            "LEVEL",
            "log level, overall and per facility: info,raft:debug",
        )
        .or("info")
        .env("IPFS_CLUSTER_LOG_LEVEL"),
    },
    Global {
        faces: Faces::PC,
        side: Side::Client,
        flag: Flag::value(
            "host",
            &["l"],
            "MULTIADDR",
            "API address of a peer; several, by comma, are tried in order",
        )
        .or("/ip4/127.0.0.1/tcp/9094"),
    },
    Global {
        faces: Faces::C,
        side: Side::Client,
        flag: Flag::value(
            "secret",
            &[],
            "HEX",
            "cluster secret, for API addresses that end in /p2p/<peer id>",
        ),
    },
    Global { faces: Faces::PC, side: Side::Client, flag: Flag::switch("https", &["s"], "use HTTPS") },
    Global {
        faces: Faces::PC,
        side: Side::Client,
        flag: Flag::switch("no-check-certificate", &[], "do not verify the server's certificate"),
    },
    Global {
        faces: Faces::PC,
        side: Side::Client,
        flag: Flag::value("encoding", &["enc"], "FORMAT", "output format: text or json").or("text"),
    },
    Global {
        faces: Faces::PC,
        side: Side::Client,
        flag: Flag::value("timeout", &["t"], "SECONDS", "give up on a request after this long; 0 for never")
            .or("0"),
    },
    Global {
        faces: Faces::PC,
        side: Side::Client,
        flag: Flag::value(
            "basic-auth",
            &[],
            "USER[:PASSWORD]",
            "credentials; turns HTTPS on unless --force-http",
        )
        .env("CLUSTER_CREDENTIALS"),
    },
    Global {
        faces: Faces::PC,
        side: Side::Client,
        flag: Flag::switch("force-http", &["f"], "send credentials without encryption"),
    },
    Global {
        faces: Faces::S,
        side: Side::Local,
        flag: Flag::switch("force", &["f"], "proceed without asking, e.g. overwriting the configuration"),
    },
    Global {
        faces: Faces::ALL,
        side: Side::Both,
        flag: Flag::switch("debug", &["d"], "show everything that happens (very verbose)"),
    },
];

const NO_STATUS: Flag = Flag::switch("no-status", &["ns"], "print the pin, do not ask for its status");
const WAIT: Flag = Flag::switch("wait", &["w"], "wait until the pin reached its state everywhere it should");
const WAIT_LIMIT: Flag =
    Flag::value("wait-limit", &["wl"], "N", "with --wait, be content with N peers").or("0");
const WAIT_TIMEOUT: Flag =
    Flag::value("wait-timeout", &["wt"], "DURATION", "with --wait, how long to wait; 0s for ever").or("0s");
const NAME: Flag = Flag::value("name", &["n"], "NAME", "a name for the pin");
const RMIN: Flag =
    Flag::value("replication-min", &["rmin"], "N", "fewest copies; -1 everywhere, 0 cluster default").or("0");
const RMAX: Flag =
    Flag::value("replication-max", &["rmax"], "N", "most copies; -1 everywhere, 0 cluster default").or("0");
const ALLOCS: Flag =
    Flag::value("allocations", &["allocs"], "PEERS", "peer ids (comma list) that get a copy before others");
const EXPIRE_IN: Flag = Flag::value("expire-in", &[], "DURATION", "unpin after this long, like 24h");
const METADATA: Flag =
    Flag::value("metadata", &[], "KEY=VALUE", "metadata of the pin; repeat for more").many();
const LOCAL: Flag = Flag::switch("local", &[], "only on the contacted peer");
const FORCE: Flag = Flag::switch("force", &["f"], "do not ask");
const INSECURE: Flag =
    Flag::switch("insecure-no-secret", &[], "run without a cluster secret although strangers can connect");
const UPGRADE: Flag =
    Flag::switch("upgrade", &["u"], "bring older data to the present format first, as `state upgrade` does");

const IPFS: Flag =
    Flag::value("ipfs", &[], "NODE", "the IPFS node of this peer: embedded, or kubo on 127.0.0.1:5001");
const SWARM_KEY: Flag = Flag::value(
    "swarm-key",
    &[],
    "FILE",
    "swarm.key of the embedded node's private network; without it the key is made from the cluster's secret",
);
const WITNESS: Flag = Flag::switch(
    "witness",
    &[],
    "a witness: it votes and holds no content, the third vote of a home with two boards",
);

const LOOPBACK: Flag = Flag::switch(
    "loopback",
    &[],
    "a new peer listens to this machine only, until `pinfold open`, an invitation or joining others",
);

const ADD: &[Flag] = &[
    Flag::switch("recursive", &["r"], "add folders with everything in them (pinfold: always)"),
    Flag::switch("quiet", &["q"], "print CIDs only"),
    Flag::switch("quieter", &["Q"], "print only the last CID"),
    Flag::switch("no-stream", &[], "collect all results, then print them"),
    Flag::switch("local", &[], "keep the blocks on the contacted peer first; others fetch them from there"),
    NAME,
    RMIN,
    RMAX,
    EXPIRE_IN,
    METADATA,
    ALLOCS,
    Flag::switch("no-pin", &[], "add the blocks, do not pin them"),
    Flag::switch("wait", &[], "wait until the root is pinned everywhere it should"),
    WAIT_LIMIT,
    WAIT_TIMEOUT,
    Flag::switch("wrap-with-directory", &["w"], "wrap everything in a folder (implied by several paths)"),
    Flag::value("format", &[], "FORMAT", "what the files are: unixfs or car").or("unixfs"),
    Flag::value("layout", &[], "LAYOUT", "shape of the DAG: balanced or trickle").or("balanced"),
    Flag::switch("hidden", &["H"], "add files whose names begin with a dot, too"),
    Flag::value("chunker", &["s"], "CHUNKER", "how files are cut: size-<bytes>").or("size-262144"),
    Flag::switch("raw-leaves", &[], "leaves without UnixFS wrapping"),
    Flag::value("cid-version", &[], "N", "0 or 1 (1 implies raw leaves)").or("0"),
    Flag::value("hash", &[], "NAME", "hash function (others than sha2-256 imply CID version 1)")
        .or("sha2-256"),
    Flag::switch("nocopy", &[], "for URLs only: refer to the URL instead of storing its content"),
];

/// All commands.
pub const COMMANDS: &[Command] = &[
    command(Cmd::Init, "init", Faces::PS, Side::Local, "Creates a configuration and an identity")
        .args("[http-source-url]", 0, 1)
        .details(
            "Writes service.json and identity.json into the folder. An identity that is there is never overwritten. \
             A configuration on a web server is refused for now: fetch it and put it there as service.json.",
        )
        .flags(&[
            Flag::value("consensus", &[], "NAME", "the consensus section to write: raft or crdt").or("raft"),
            Flag::value("datastore", &[], "NAME", "accepted for ipfs-cluster's scripts; pinfold has one store").hidden(),
            IPFS.or("embedded; kubo for ipfs-cluster-service"),
            SWARM_KEY,
            WITNESS,
            LOOPBACK,
            Flag::switch("custom-secret", &["s"], "ask for the cluster secret instead of making one"),
            Flag::value("peers", &[], "ADDRESSES", "full addresses (comma list) of the other peers"),
            Flag::switch("force", &["f"], "overwrite the configuration without asking"),
            Flag::switch("randomports", &[], "choose free ports for all listeners"),
        ]),
    command(Cmd::Daemon, "daemon", Faces::PS, Side::Local, "Runs the peer")
        .details("Runs until SIGINT, SIGTERM or SIGHUP. `init` (or `up`, or `join`) comes first.")
        .flags(&[
            Flag::value("bootstrap", &["j"], "ADDRESSES", "join the cluster of these peers (comma list)"),
            Flag::switch("leave", &["x"], "leave the cluster when stopping").hidden(),
            Flag::switch("stats", &[], "accepted for ipfs-cluster's scripts; there are no Prometheus metrics yet").hidden(),
            Flag::switch("tracing", &[], "accepted for ipfs-cluster's scripts").hidden(),
            Flag::switch("no-trust", &[], "accepted for ipfs-cluster's scripts").hidden(),
            UPGRADE,
            INSECURE,
        ]),
    command(Cmd::Up, "up", Faces::P, Side::Local, "Runs a peer; makes its configuration first where there is none")
        .details(
            "On a fresh folder: makes identity, secret and configuration, chooses free ports where the usual ones are \
             taken, starts a cluster of one and says where everything is. Afterwards the same as `daemon`.",
        )
        .flags(&[
            IPFS.or("embedded"),
            SWARM_KEY,
            WITNESS,
            LOOPBACK,
            Flag::switch("leave", &["x"], "leave the cluster when stopping").hidden(),
            Flag::switch("stats", &[], "accepted for ipfs-cluster's scripts; there are no Prometheus metrics yet").hidden(),
            UPGRADE,
            INSECURE,
        ]),
    command(Cmd::Join, "join", Faces::P, Side::Local, "Makes a peer that joins a cluster, and runs it")
        .args("TOKEN", 1, 1)
        .details(
            "The token comes from `pinfold invite` on any peer of the cluster; it carries secret and addresses. With - it is \
             read from standard input, where other users of the machine do not see it. A peer that has been running alone \
             gives up its own cluster, if that holds no pins; its data is kept beside it. On a machine that runs the peer \
             as a service, `sudo pinfold join TOKEN` stops the service, joins, and starts it again.",
        )
        .flags(&[
            IPFS.or("embedded"),
            SWARM_KEY,
            WITNESS,
            Flag::switch("once", &[], "stop as soon as the peer has joined: something else runs it from then on"),
            Flag::switch("force", &["f"], "give up a cluster of its own that holds pins; its data is kept beside it"),
            Flag::switch("leave", &["x"], "leave the cluster when stopping").hidden(),
            Flag::switch("stats", &[], "accepted for ipfs-cluster's scripts; there are no Prometheus metrics yet").hidden(),
        ]),
    command(Cmd::Invite, "invite", Faces::P, Side::Local, "Prints a token that lets another board join")
        .details(
            "The token contains the cluster secret: whoever has it can join and see the cluster's content. On a machine that \
             runs the peer as a service, `sudo pinfold invite` opens the peer to the network first, if need be.",
        ),
    command(Cmd::Open, "open", Faces::P, Side::Local, "Lets other machines reach a peer that listens to its own only")
        .details(
            "Writes it into service.json: the cluster's port and that of the embedded IPFS node, which ask everyone for the \
             cluster's secret. The HTTP APIs stay where they are. It takes effect at the next start; `sudo pinfold open` \
             restarts the service of this machine.",
        ),
    command(Cmd::SwarmKey, "swarm-key", Faces::P, Side::Local, "Makes the key of a private IPFS network")
        .args("[FILE]", 0, 1)
        .details(
            "Writes a new key to FILE (which must not be there yet), or to standard output: the swarm.key of Kubo, and \
             of the embedded node by ipfs_connector.embedded.swarm_key_file. Nodes with the same key talk to each other \
             and to nobody else.",
        )
        .flags(&[Flag::switch(
            "show",
            &[],
            "the key that this peer's embedded node uses, for a Kubo that should talk to it, instead of a new one",
        )]),
    command(Cmd::Doctor, "doctor", Faces::P, Side::Both, "Looks at everything a peer needs, and says what is wrong and how to mend it")
        .details(
            "Works with the daemon running and stopped, and changes nothing. Each line is OK, WARN or FAIL, with a command that \
             mends it. The exit code is 1 when something fails, else 0.",
        ),
    command(Cmd::HashPassword, "hash-password", Faces::P, Side::Local, "Reads a password and prints its hash for basic_auth_credentials")
        .details(
            "Asks for the password, or reads one line of standard input. What is printed goes into service.json instead of \
             the password: {\"user\": \"$pbkdf2-sha256$...\"}.",
        ),
    group("state", Faces::PS, Side::Local, "Manages the peer's persistent state (pinset); the daemon must be stopped", &[
        command(Cmd::StateExport, "export", Faces::PS, Side::Local, "Writes the pinset as JSON, one pin per line")
            .flags(&[Flag::value("file", &["f"], "FILE", "where to write; standard output without it")]),
        command(Cmd::StateImport, "import", Faces::PS, Side::Local, "Replaces the pinset by one that was exported")
            .args("[FILE]", 0, 1)
            .details(
                "Reads standard input without FILE: what `state export` wrote, also that of ipfs-cluster of any age. Input of \
                 which something cannot be read changes nothing.",
            )
            .flags(&[
                FORCE,
                Flag::value("replication-min", &["rmin"], "N", "use this for all pins").or("0"),
                Flag::value("replication-max", &["rmax"], "N", "use this for all pins").or("0"),
                Flag::value("allocations", &["allocs"], "PEERS", "use these peers (comma list) for all pins"),
                Flag::switch("reallocate", &[], "drop holders that this folder does not know; the cluster chooses others"),
                Flag::switch("skip-bad", &[], "import what is good of input of which something is not"),
            ]),
        command(Cmd::StateCleanup, "cleanup", Faces::PS, Side::Local, "Moves the peer's state out of the way")
            .flags(&[FORCE]),
        command(Cmd::StateUpgrade, "upgrade", Faces::PS, Side::Local, "Brings data of an older version to the present format")
            .details(
                "Works on a verified copy that takes the data's place in one step; the old data is kept beside it. Running \
                 it again, also after a power cut, does no harm.",
            )
            .flags(&[FORCE, Flag::switch("yes", &["y"], "do not ask")]),
        command(Cmd::StateCheck, "check", Faces::P, Side::Local, "Verifies everything that this peer has on disk, changing nothing")
            .args("[FOLDER...]", 0, ANY)
            .details(
                "Works on a stopped peer, and beside a running daemon. Each finding says what to do about it. The exit code is 10 \
                 when something is damaged, else 0.",
            )
            .flags(&[
                Flag::switch("blocks", &["b"], "read every block of the embedded node and check its hash, which takes its time"),
                Flag::switch("json", &["j"], "as JSON"),
            ]),
        command(Cmd::StateRecover, "recover", Faces::P, Side::Local, "Makes a cluster of one of a survivor, when the majority is lost for good")
            .args("[FOLDER...]", 0, ANY)
            .details(
                "Says what this peer has, explains, and asks. The data from before is kept beside the new. Refuses while another \
                 member answers. With --look it only shows what this peer has, and the peers of the FOLDERs, to find the best \
                 survivor.",
            )
            .flags(&[
                Flag::switch("look", &["l"], "only show what there is to recover, and change nothing"),
                Flag::switch("json", &["j"], "with --look: as JSON"),
                Flag::switch("force", &["f"], "give members up although something answers at their addresses"),
                Flag::switch("yes", &["y"], "do not ask"),
            ]),
    ]),
    group("config", Faces::P, Side::Local, "Checks, changes, explains and upgrades the configuration", &[
        command(Cmd::ConfigUpgrade, "upgrade", Faces::P, Side::Local, "Writes today's service.json from one of any age")
            .details(
                "The new file means what the old one meant. The old one stays beside it as service.json.bak.N; an \
                 identity that it carries goes to identity.json. The daemon must be stopped.",
            )
            .flags(&[Flag::switch("dry-run", &["n"], "say what would change, and change nothing")]),
        command(Cmd::ConfigCheck, "check", Faces::P, Side::Local, "Reads the configuration and says what is wrong with it")
            .details("Ends with 0 when a peer would start with it, whatever the warnings; with 2 and the mistake otherwise."),
        command(Cmd::ConfigSet, "set", Faces::P, Side::Local, "Gives keys of service.json other values, all or none")
            .args("[KEY=VALUE...]", 0, ANY)
            .details(
                "A VALUE is written as in the key's variable (config keys). A section of api, informer or ipfs_connector \
                 can be set to on or off. A key may have dashes for underscores. Nothing is written unless a peer would \
                 start with it; a peer that runs reads it at its next start. Secrets only by --stdin.",
            )
            .flags(&[
                Flag::switch("stdin", &["i"], "read more from standard input: a line for each KEY=VALUE, or a JSON object like service.json"),
                Flag::switch("dry-run", &["n"], "say what would change, and change nothing"),
                Flag::value("managed", &["m"], "FILE", "put back first what was set with the same FILE before, which keeps a record"),
            ]),
        command(Cmd::ConfigKeys, "keys", Faces::P, Side::Local, "Explains the keys of service.json and their variables")
            .args("[PREFIX]", 0, 1)
            .details("With PREFIX only the keys that begin with it, like consensus.raft.")
            .flags(&[Flag::switch("markdown", &[], "as the page docs/configuration.md")]),
    ]),
    command(Cmd::Id, "id", Faces::PC, Side::Client, "Shows the contacted peer and its IPFS node"),
    group("peers", Faces::PC, Side::Client, "Lists and removes peers", &[
        command(Cmd::PeersLs, "ls", Faces::PC, Side::Client, "Lists the peers with their IPFS nodes"),
        command(Cmd::PeersAdd, "add", Faces::P, Side::Client, "Says how a peer is added: it adds itself").args("<address>", 1, 1),
        command(Cmd::PeersRm, "rm", Faces::PC, Side::Client, "Removes a peer from the cluster; its copies move to others")
            .args("<peer ID>", 0, 1),
    ]),
    command(Cmd::Drain, "drain", Faces::P, Side::Client, "Moves all pins off a peer, which takes no new ones until --undo")
        .args("<peer ID>", 1, 1)
        .details(
            "The peer keeps each copy until another peer has one. It stays drained across restarts. Interrupting this \
             command does not stop the draining; --undo does. Pins that are on every peer stay.",
        )
        .flags(&[Flag::switch("undo", &[], "let the peer take pins again; it gets none back by itself")]),
    command(Cmd::Rebalance, "rebalance", Faces::P, Side::Client, "Evens out the copies between the peers, for example after adding one")
        .details(
            "Moves as few copies as it takes to fill all peers in proportion to their capacity, with the copies of one \
             pin in different groups (tags) where there are several. A copy is dropped only when the new one is \
             complete. Interrupting the command stops it, with every pin keeping its copies; run it again to go on.",
        )
        .flags(&[Flag::switch("dry-run", &["n"], "only say what would move")]),
    command(Cmd::Add, "add", Faces::PC, Side::Client, "Adds files or folders, spreads them to the peers and pins them")
        .args("<path or URL> ...", 1, ANY)
        .flags(ADD),
    command(Cmd::Get, "get", Faces::P, Side::Client, "Downloads a file or folder")
        .args("<CID[/path]>", 1, 1)
        .flags(&[
            Flag::value("output", &["o"], "PATH", "where to write; the last part of the path without it"),
            Flag::switch("force", &["f"], "replace what is there"),
        ]),
    command(Cmd::Cat, "cat", Faces::P, Side::Client, "Writes the content of files to standard output")
        .args("<CID[/path]> ...", 1, ANY),
    command(Cmd::Ls, "ls", Faces::P, Side::Client, "Lists a folder").args("<CID[/path]>", 1, 1),
    group("pin", Faces::PC, Side::Client, "Pins, unpins and lists content", &[
        command(Cmd::PinAdd, "add", Faces::PC, Side::Client, "Pins a CID or an IPFS path")
            .args("<CID or path>", 0, 1)
            .flags(&[
                Flag::value("replication", &["r"], "N", "number of copies: sets --rmin and --rmax").or("0"),
                RMIN,
                RMAX,
                ALLOCS,
                NAME,
                Flag::value("mode", &[], "MODE", "recursive or direct").or("recursive"),
                EXPIRE_IN,
                METADATA,
                NO_STATUS,
                WAIT,
                WAIT_LIMIT,
                WAIT_TIMEOUT,
            ]),
        command(Cmd::PinRm, "rm", Faces::PC, Side::Client, "Unpins a CID or an IPFS path")
            .args("<CID or path>", 0, 1)
            .flags(&[NO_STATUS, WAIT, WAIT_LIMIT, WAIT_TIMEOUT]),
        command(Cmd::PinUpdate, "update", Faces::PC, Side::Client, "Pins new content like an existing pin, fetching only what differs")
            .args("<existing CID> <new CID or path>", 0, 2)
            .flags(&[NAME, EXPIRE_IN, NO_STATUS, WAIT, WAIT_LIMIT, WAIT_TIMEOUT]),
        command(Cmd::PinImport, "import", Faces::P, Side::Client, "Pins everything that a list names, in one request")
            .args("<FILE>", 1, 1)
            .details(
                "FILE (- for standard input) has a CID on each line, or a pin in JSON as `state export` and GET \
                 /allocations write it; flags are for the lines that are a CID alone. Pins that are there already stay \
                 as they are, so that a list may be sent again. Lines that are no pins are printed, the others are pinned.",
            )
            .flags(&[
                Flag::value("replication", &["r"], "N", "number of copies: sets --rmin and --rmax").or("0"),
                RMIN,
                RMAX,
                ALLOCS,
                NAME,
                EXPIRE_IN,
                METADATA,
            ]),
        command(Cmd::PinLs, "ls", Faces::PC, Side::Client, "Lists the pinset, or shows one pin")
            .args("[CID]", 0, 1)
            .flags(&[Flag::value("filter", &[], "TYPES", "types of pins: pin, meta-pin, clusterdag-pin, shard-pin, all").or("all")]),
    ]),
    command(Cmd::Status, "status", Faces::PC, Side::Client, "Shows who holds what, in which state")
        .args("[CID ...]", 0, ANY)
        .flags(&[
            LOCAL,
            Flag::value("filter", &[], "STATES", "only these (comma list): pinned, pinning, error, queued, pin_error, …"),
        ]),
    command(Cmd::Sync, "sync", Faces::P, Side::Client, "Compares what is known with what IPFS has now; shows what differed or is in error")
        .args("[CID]", 0, 1)
        .flags(&[LOCAL]),
    command(Cmd::Sync, "sync", Faces::C, Side::Client, "Compares what is known with what IPFS has now; shows what differed or is in error")
        .args("[CID]", 0, 1)
        .flags(&[LOCAL])
        .hidden(),
    command(Cmd::Recover, "recover", Faces::PC, Side::Client, "Tries again what is in error")
        .args("[CID]", 0, 1)
        .flags(&[LOCAL]),
    command(Cmd::PeerVersion, "version", Faces::C, Side::Client, "Shows the version of the contacted peer"),
    group("health", Faces::PC, Side::Client, "Shows how the cluster is doing", &[
        command(Cmd::HealthGraph, "graph", Faces::PC, Side::Client, "Writes the connections between peers as a DOT graph")
            .flags(&[
                Flag::value("file", &["f"], "FILE", "where to write; standard output without it"),
                Flag::switch("all-ipfs-peers", &[], "show IPFS nodes that do not belong to the cluster, too"),
            ]),
        command(Cmd::HealthMetrics, "metrics", Faces::PC, Side::Client, "Lists metrics, or the last values of one")
            .args("[metric name]", 0, 1),
        command(Cmd::HealthAlerts, "alerts", Faces::PC, Side::Client, "Lists metrics that expired"),
        command(Cmd::HealthBandwidth, "bandwidth", Faces::PC, Side::Client, "Shows traffic per protocol"),
    ]),
    group("ipfs", Faces::PC, Side::Client, "Manages the IPFS nodes", &[
        command(Cmd::IpfsGc, "gc", Faces::PC, Side::Client, "Removes unpinned blocks").flags(&[LOCAL]),
    ]),
    command(Cmd::Backup, "backup", Faces::P, Side::Client, "Writes the pin list of the running peer into one more file, and removes the oldest")
        .args("[FOLDER]", 0, 1)
        .details(
            "Into backups/daily of the peer's folder, unless FOLDER says otherwise. `state import` and `pin import` take a file \
             back. A list that is like the newest file makes no new one, and one that is empty takes no other one's place.",
        )
        .flags(&[Flag::value("keep", &["k"], "N", "how many files stay").or("14")]),
    command(Cmd::Completion, "completion", Faces::P, Side::Local, "Prints what makes a shell complete commands, flags and values")
        .args("SHELL", 1, 1)
        .details(
            "SHELL is bash, zsh or fish. The packages install it; elsewhere: `pinfold completion bash \
             >~/.local/share/bash-completion/completions/pinfold`, `pinfold completion zsh` into a file _pinfold of a folder \
             in $fpath, `pinfold completion fish >~/.config/fish/completions/pinfold.fish`.",
        )
        .flags(&[Flag::value("name", &["n"], "PROGRAM", "for pinfold under another name: ipfs-cluster-service or ipfs-cluster-ctl")
            .or("pinfold")]),
    command(Cmd::Man, "man", Faces::P, Side::Local, "Prints a manual page")
        .args("[PAGE]", 0, 1)
        .details(
            "PAGE is pinfold.1 (the default), pinfold.5 (the keys of service.json), ipfs-cluster-service.1 or \
             ipfs-cluster-ctl.1. Read it with `pinfold man | man -l -`, or put it where man finds it: `pinfold man \
             >/usr/local/share/man/man1/pinfold.1`. The packages install all of them.",
        ),
    command(Cmd::Version, "version", Faces::PS, Side::Local, "Prints the version"),
    command(Cmd::Commands, "commands", Faces::PC, Side::Client, "Lists all commands").hidden(),
    command(Cmd::Help, "help", Faces::ALL, Side::Local, "Shows a list of commands or help for one command")
        .aliases(&["h"])
        .args("[command]", 0, ANY),
];

/// The global flags that `face` shows for commands of `side` ([`Side::Both`]: all of the face).
pub fn globals(face: Face, side: Side) -> impl Iterator<Item = &'static Flag> {
    GLOBALS
        .iter()
        .filter(move |g| g.faces.has(face) && (side == Side::Both || g.side == Side::Both || g.side == side))
        .map(|g| &g.flag)
}

/// Calls `visit` with the path of every command and group of a face, in the table's order.
pub fn walk(face: Face, visit: &mut dyn FnMut(&[&'static Command])) {
    fn inside(
        face: Face,
        commands: &'static [Command],
        path: &mut Vec<&'static Command>,
        visit: &mut dyn FnMut(&[&'static Command]),
    ) {
        for command in commands.iter().filter(|c| c.faces.has(face)) {
            path.push(command);
            visit(path);
            inside(face, command.children, path, visit);
            path.pop();
        }
    }
    inside(face, COMMANDS, &mut Vec::new(), visit);
}
