//! The typed command lines: argh reads the normalised words into these.
//!
//! Every struct is one command; every field one flag under its long name or one plain argument. What
//! the flags mean for a person is said once, in [`super::table`]. Numbers, durations and addresses are
//! checked here or by the command itself, never later than before the first request.

use super::failure::Failure;
use super::normalise::Words;
use super::table::Cmd;
use argh::FromArgs;

/// Flags that stand before or after every sub-command.
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct Globals {
    /// folder of the peer
    #[argh(option)]
    pub config: Option<String>,
    /// log level
    #[argh(option)]
    pub loglevel: Option<String>,
    /// addresses of the API
    #[argh(option)]
    pub host: Option<String>,
    /// cluster secret for libp2p API addresses
    #[argh(option)]
    pub secret: Option<String>,
    /// use HTTPS
    #[argh(switch)]
    pub https: bool,
    /// do not verify certificates
    #[argh(switch)]
    pub no_check_certificate: bool,
    /// text or json
    #[argh(option)]
    pub encoding: Option<String>,
    /// seconds per request
    #[argh(option)]
    pub timeout: Option<u64>,
    /// user:password
    #[argh(option)]
    pub basic_auth: Option<String>,
    /// credentials without encryption
    #[argh(switch)]
    pub force_http: bool,
    /// do not ask
    #[argh(switch)]
    pub force: bool,
    /// show everything
    #[argh(switch)]
    pub debug: bool,
}

/// `init`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct Init {
    /// raft or crdt
    #[argh(option)]
    pub consensus: Option<String>,
    /// accepted, without effect
    #[argh(option)]
    pub datastore: Option<String>,
    /// embedded or kubo
    #[argh(option)]
    pub ipfs: Option<String>,
    /// key file of the private network
    #[argh(option)]
    pub swarm_key: Option<String>,
    /// vote, hold no content
    #[argh(switch)]
    pub witness: bool,
    /// listen to this machine only
    #[argh(switch)]
    pub loopback: bool,
    /// ask for the secret
    #[argh(switch)]
    pub custom_secret: bool,
    /// addresses of the other peers
    #[argh(option)]
    pub peers: Option<String>,
    /// do not ask
    #[argh(switch)]
    pub force: bool,
    /// choose free ports
    #[argh(switch)]
    pub randomports: bool,
    /// where the configuration is read from
    #[argh(positional)]
    pub source: Option<String>,
}

/// `daemon`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct Daemon {
    /// peers to join
    #[argh(option)]
    pub bootstrap: Option<String>,
    /// leave when stopping
    #[argh(switch)]
    pub leave: bool,
    /// serve metrics
    #[argh(switch)]
    pub stats: bool,
    /// accepted
    #[argh(switch)]
    pub tracing: bool,
    /// accepted, without effect
    #[argh(switch)]
    pub no_trust: bool,
    /// upgrade older data first
    #[argh(switch)]
    pub upgrade: bool,
    /// run without a secret
    #[argh(switch)]
    pub insecure_no_secret: bool,
}

/// `up`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct Up {
    /// embedded or kubo
    #[argh(option)]
    pub ipfs: Option<String>,
    /// key file of the private network
    #[argh(option)]
    pub swarm_key: Option<String>,
    /// vote, hold no content
    #[argh(switch)]
    pub witness: bool,
    /// listen to this machine only
    #[argh(switch)]
    pub loopback: bool,
    /// leave when stopping
    #[argh(switch)]
    pub leave: bool,
    /// serve metrics
    #[argh(switch)]
    pub stats: bool,
    /// run without a secret
    #[argh(switch)]
    pub insecure_no_secret: bool,
    /// upgrade older data first
    #[argh(switch)]
    pub upgrade: bool,
}

/// `join`
#[derive(FromArgs, Clone, Debug, PartialEq)]
pub struct Join {
    /// embedded or kubo
    #[argh(option)]
    pub ipfs: Option<String>,
    /// key file of the private network
    #[argh(option)]
    pub swarm_key: Option<String>,
    /// vote, hold no content
    #[argh(switch)]
    pub witness: bool,
    /// stop when joined
    #[argh(switch)]
    pub once: bool,
    /// give up a cluster with pins
    #[argh(switch)]
    pub force: bool,
    /// leave when stopping
    #[argh(switch)]
    pub leave: bool,
    /// serve metrics
    #[argh(switch)]
    pub stats: bool,
    /// from `invite`
    #[argh(positional)]
    pub token: String,
}

/// `swarm-key`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct SwarmKey {
    /// the node's present key
    #[argh(switch)]
    pub show: bool,
    /// where to write
    #[argh(positional)]
    pub file: Option<String>,
}

/// `state export`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct StateExport {
    /// where to write
    #[argh(option)]
    pub file: Option<String>,
}

/// `state import`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct StateImport {
    /// do not ask
    #[argh(switch)]
    pub force: bool,
    /// fewest copies
    #[argh(option)]
    pub replication_min: Option<i32>,
    /// most copies
    #[argh(option)]
    pub replication_max: Option<i32>,
    /// holders
    #[argh(option)]
    pub allocations: Option<String>,
    /// drop unknown holders
    #[argh(switch)]
    pub reallocate: bool,
    /// import the rest
    #[argh(switch)]
    pub skip_bad: bool,
    /// what to read
    #[argh(positional)]
    pub file: Option<String>,
}

/// `state cleanup`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct StateCleanup {
    /// do not ask
    #[argh(switch)]
    pub force: bool,
}

/// `config upgrade`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct ConfigUpgrade {
    /// change nothing
    #[argh(switch)]
    pub dry_run: bool,
}

/// `config set`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct ConfigSet {
    /// read assignments from standard input
    #[argh(switch)]
    pub stdin: bool,
    /// change nothing
    #[argh(switch)]
    pub dry_run: bool,
    /// the record of what was set before
    #[argh(option)]
    pub managed: Option<String>,
    /// KEY=VALUE
    #[argh(positional)]
    pub words: Vec<String>,
}

/// `config keys`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct ConfigKeys {
    /// as a page of the documentation
    #[argh(switch)]
    pub markdown: bool,
    /// how the keys begin
    #[argh(positional)]
    pub prefix: Option<String>,
}

/// `state upgrade`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct StateUpgrade {
    /// do not ask
    #[argh(switch)]
    pub force: bool,
    /// do not ask
    #[argh(switch)]
    pub yes: bool,
}

/// `state check`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct StateCheck {
    /// read every block
    #[argh(switch)]
    pub blocks: bool,
    /// as JSON
    #[argh(switch)]
    pub json: bool,
    /// folders to look at
    #[argh(positional)]
    pub folders: Vec<String>,
}

/// `state recover`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct StateRecover {
    /// change nothing
    #[argh(switch)]
    pub look: bool,
    /// as JSON
    #[argh(switch)]
    pub json: bool,
    /// although others answer
    #[argh(switch)]
    pub force: bool,
    /// do not ask
    #[argh(switch)]
    pub yes: bool,
    /// further folders to look at
    #[argh(positional)]
    pub folders: Vec<String>,
}

/// `backup`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct Backup {
    /// files that stay
    #[argh(option)]
    pub keep: Option<usize>,
    /// where the files are
    #[argh(positional)]
    pub folder: Option<String>,
}

/// `completion`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct Completion {
    /// the program's name
    #[argh(option)]
    pub name: Option<String>,
    /// the shell
    #[argh(positional)]
    pub shell: String,
}

/// Commands without flags and with at most one argument.
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct One {
    /// the argument
    #[argh(positional)]
    pub what: Option<String>,
}

/// Commands with `--local` and at most one argument.
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct LocalOne {
    /// only the contacted peer
    #[argh(switch)]
    pub local: bool,
    /// the argument
    #[argh(positional)]
    pub what: Option<String>,
}

/// `drain`
#[derive(FromArgs, Clone, Debug, PartialEq)]
pub struct Drain {
    /// take pins again
    #[argh(switch)]
    pub undo: bool,
    /// the peer
    #[argh(positional)]
    pub peer: String,
}

/// `rebalance`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct Rebalance {
    /// only say
    #[argh(switch)]
    pub dry_run: bool,
}

/// `add`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct Add {
    /// folders too
    #[argh(switch)]
    pub recursive: bool,
    /// print CIDs only
    #[argh(switch)]
    pub quiet: bool,
    /// last CID only
    #[argh(switch)]
    pub quieter: bool,
    /// collect first
    #[argh(switch)]
    pub no_stream: bool,
    /// blocks to the contacted peer
    #[argh(switch)]
    pub local: bool,
    /// pin name
    #[argh(option)]
    pub name: Option<String>,
    /// fewest copies
    #[argh(option)]
    pub replication_min: Option<i32>,
    /// most copies
    #[argh(option)]
    pub replication_max: Option<i32>,
    /// unpin after
    #[argh(option)]
    pub expire_in: Option<String>,
    /// key=value
    #[argh(option)]
    pub metadata: Vec<String>,
    /// preferred holders
    #[argh(option)]
    pub allocations: Option<String>,
    /// do not pin
    #[argh(switch)]
    pub no_pin: bool,
    /// wait for the root
    #[argh(switch)]
    pub wait: bool,
    /// peers that are enough
    #[argh(option)]
    pub wait_limit: Option<usize>,
    /// how long
    #[argh(option)]
    pub wait_timeout: Option<String>,
    /// wrap in a folder
    #[argh(switch)]
    pub wrap_with_directory: bool,
    /// unixfs or car
    #[argh(option)]
    pub format: Option<String>,
    /// balanced or trickle
    #[argh(option)]
    pub layout: Option<String>,
    /// hidden files too
    #[argh(switch)]
    pub hidden: bool,
    /// how files are cut
    #[argh(option)]
    pub chunker: Option<String>,
    /// leaves without UnixFS
    #[argh(switch)]
    pub raw_leaves: bool,
    /// version 0 or 1
    #[argh(option)]
    pub cid_version: Option<u8>,
    /// hash function
    #[argh(option)]
    pub hash: Option<String>,
    /// refer to URLs
    #[argh(switch)]
    pub nocopy: bool,
    /// what to add
    #[argh(positional)]
    pub paths: Vec<String>,
}

/// How to wait, and whether to show the status: common to `pin add`, `pin rm`, `pin update`, `add`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Waiting {
    /// Print the pin only.
    pub no_status: bool,
    /// Wait.
    pub wait: bool,
    /// Peers that are enough; 0 for the pin's own need.
    pub limit: usize,
    /// How long; `None` for ever.
    pub timeout: Option<String>,
}

/// `pin add`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct PinAdd {
    /// copies
    #[argh(option)]
    pub replication: Option<i32>,
    /// fewest copies
    #[argh(option)]
    pub replication_min: Option<i32>,
    /// most copies
    #[argh(option)]
    pub replication_max: Option<i32>,
    /// preferred holders
    #[argh(option)]
    pub allocations: Option<String>,
    /// pin name
    #[argh(option)]
    pub name: Option<String>,
    /// recursive or direct
    #[argh(option)]
    pub mode: Option<String>,
    /// unpin after
    #[argh(option)]
    pub expire_in: Option<String>,
    /// key=value
    #[argh(option)]
    pub metadata: Vec<String>,
    /// do not ask for the status
    #[argh(switch)]
    pub no_status: bool,
    /// wait
    #[argh(switch)]
    pub wait: bool,
    /// peers that are enough
    #[argh(option)]
    pub wait_limit: Option<usize>,
    /// how long
    #[argh(option)]
    pub wait_timeout: Option<String>,
    /// a CID or path
    #[argh(positional)]
    pub what: Option<String>,
}

/// `pin rm`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct PinRm {
    /// do not ask for the status
    #[argh(switch)]
    pub no_status: bool,
    /// wait
    #[argh(switch)]
    pub wait: bool,
    /// peers that are enough
    #[argh(option)]
    pub wait_limit: Option<usize>,
    /// how long
    #[argh(option)]
    pub wait_timeout: Option<String>,
    /// a CID or path
    #[argh(positional)]
    pub what: Option<String>,
}

/// `pin update`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct PinUpdate {
    /// pin name
    #[argh(option)]
    pub name: Option<String>,
    /// unpin after
    #[argh(option)]
    pub expire_in: Option<String>,
    /// do not ask for the status
    #[argh(switch)]
    pub no_status: bool,
    /// wait
    #[argh(switch)]
    pub wait: bool,
    /// peers that are enough
    #[argh(option)]
    pub wait_limit: Option<usize>,
    /// how long
    #[argh(option)]
    pub wait_timeout: Option<String>,
    /// existing CID, new CID or path
    #[argh(positional)]
    pub what: Vec<String>,
}

/// `pin import`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct PinImport {
    /// copies
    #[argh(option)]
    pub replication: Option<i32>,
    /// fewest copies
    #[argh(option)]
    pub replication_min: Option<i32>,
    /// most copies
    #[argh(option)]
    pub replication_max: Option<i32>,
    /// preferred holders
    #[argh(option)]
    pub allocations: Option<String>,
    /// pin name
    #[argh(option)]
    pub name: Option<String>,
    /// unpin after
    #[argh(option)]
    pub expire_in: Option<String>,
    /// key=value
    #[argh(option)]
    pub metadata: Vec<String>,
    /// the list
    #[argh(positional)]
    pub file: String,
}

/// `pin ls`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct PinLs {
    /// types
    #[argh(option)]
    pub filter: Option<String>,
    /// one CID
    #[argh(positional)]
    pub what: Option<String>,
}

/// `status`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// only the contacted peer
    #[argh(switch)]
    pub local: bool,
    /// states
    #[argh(option)]
    pub filter: Option<String>,
    /// the CIDs
    #[argh(positional)]
    pub cids: Vec<String>,
}

/// `health graph`
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct HealthGraph {
    /// where to write
    #[argh(option)]
    pub file: Option<String>,
    /// show IPFS nodes outside of the cluster, too
    #[argh(switch)]
    pub all_ipfs_peers: bool,
}

/// `get`
#[derive(FromArgs, Clone, Debug, PartialEq)]
pub struct Get {
    /// where to write
    #[argh(option)]
    pub output: Option<String>,
    /// replace what is there
    #[argh(switch)]
    pub force: bool,
    /// a CID or path
    #[argh(positional)]
    pub what: String,
}

/// `cat`, `ls`, and what takes a list of words
#[derive(FromArgs, Clone, Debug, Default, PartialEq)]
pub struct Many {
    /// the words
    #[argh(positional)]
    pub what: Vec<String>,
}

/// A command with its flags and arguments.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // named as the commands are
pub enum Parsed {
    Init(Init),
    Daemon(Daemon),
    Up(Up),
    Join(Join),
    Invite,
    Open,
    SwarmKey(SwarmKey),
    Doctor,
    HashPassword,
    StateExport(StateExport),
    StateImport(StateImport),
    StateCleanup(StateCleanup),
    ConfigUpgrade(ConfigUpgrade),
    ConfigCheck,
    ConfigSet(ConfigSet),
    ConfigKeys(ConfigKeys),
    StateUpgrade(StateUpgrade),
    StateRecover(StateRecover),
    StateCheck(StateCheck),
    Version,
    PeerVersion,
    Id,
    PeersLs,
    PeersAdd(One),
    PeersRm(One),
    Drain(Drain),
    Rebalance(Rebalance),
    Add(Box<Add>),
    Get(Get),
    Cat(Many),
    Ls(Many),
    PinAdd(Box<PinAdd>),
    PinRm(PinRm),
    PinUpdate(PinUpdate),
    PinImport(Box<PinImport>),
    PinLs(PinLs),
    Status(Status),
    Sync(LocalOne),
    Recover(LocalOne),
    HealthGraph(HealthGraph),
    HealthMetrics(One),
    HealthAlerts,
    HealthBandwidth,
    IpfsGc(LocalOne),
    Backup(Backup),
    Completion(Completion),
    Man(One),
    Commands,
}

/// Reads normalised words.
///
/// # Errors
/// [`Failure::Usage`] naming the flag and the value that does not fit.
pub fn parse(words: &Words) -> Result<(Globals, Parsed), Failure> {
    let command = words.command();
    let name = [command.name];
    let globals = typed(&name, &words.globals)?;
    let own = &words.own;
    let parsed = match command.cmd {
        Cmd::Init => Parsed::Init(typed(&name, own)?),
        Cmd::Daemon => Parsed::Daemon(typed(&name, own)?),
        Cmd::Up => Parsed::Up(typed(&name, own)?),
        Cmd::Join => Parsed::Join(typed(&name, own)?),
        Cmd::Invite => Parsed::Invite,
        Cmd::Open => Parsed::Open,
        Cmd::SwarmKey => Parsed::SwarmKey(typed(&name, own)?),
        Cmd::Doctor => Parsed::Doctor,
        Cmd::HashPassword => Parsed::HashPassword,
        Cmd::StateExport => Parsed::StateExport(typed(&name, own)?),
        Cmd::StateImport => Parsed::StateImport(typed(&name, own)?),
        Cmd::StateCleanup => Parsed::StateCleanup(typed(&name, own)?),
        Cmd::ConfigUpgrade => Parsed::ConfigUpgrade(typed(&name, own)?),
        Cmd::ConfigCheck => Parsed::ConfigCheck,
        Cmd::ConfigSet => Parsed::ConfigSet(typed(&name, own)?),
        Cmd::ConfigKeys => Parsed::ConfigKeys(typed(&name, own)?),
        Cmd::StateUpgrade => Parsed::StateUpgrade(typed(&name, own)?),
        Cmd::StateRecover => Parsed::StateRecover(typed(&name, own)?),
        Cmd::StateCheck => Parsed::StateCheck(typed(&name, own)?),
        Cmd::Version => Parsed::Version,
        Cmd::PeerVersion => Parsed::PeerVersion,
        Cmd::Id => Parsed::Id,
        Cmd::PeersLs => Parsed::PeersLs,
        Cmd::PeersAdd => Parsed::PeersAdd(typed(&name, own)?),
        Cmd::PeersRm => Parsed::PeersRm(typed(&name, own)?),
        Cmd::Drain => Parsed::Drain(typed(&name, own)?),
        Cmd::Rebalance => Parsed::Rebalance(typed(&name, own)?),
        Cmd::Add => Parsed::Add(Box::new(typed(&name, own)?)),
        Cmd::Get => Parsed::Get(typed(&name, own)?),
        Cmd::Cat => Parsed::Cat(typed(&name, own)?),
        Cmd::Ls => Parsed::Ls(typed(&name, own)?),
        Cmd::PinAdd => Parsed::PinAdd(Box::new(typed(&name, own)?)),
        Cmd::PinRm => Parsed::PinRm(typed(&name, own)?),
        Cmd::PinUpdate => Parsed::PinUpdate(typed(&name, own)?),
        Cmd::PinImport => Parsed::PinImport(Box::new(typed(&name, own)?)),
        Cmd::PinLs => Parsed::PinLs(typed(&name, own)?),
        Cmd::Status => Parsed::Status(typed(&name, own)?),
        Cmd::Sync => Parsed::Sync(typed(&name, own)?),
        Cmd::Recover => Parsed::Recover(typed(&name, own)?),
        Cmd::HealthGraph => Parsed::HealthGraph(typed(&name, own)?),
        Cmd::HealthMetrics => Parsed::HealthMetrics(typed(&name, own)?),
        Cmd::HealthAlerts => Parsed::HealthAlerts,
        Cmd::HealthBandwidth => Parsed::HealthBandwidth,
        Cmd::IpfsGc => Parsed::IpfsGc(typed(&name, own)?),
        Cmd::Backup => Parsed::Backup(typed(&name, own)?),
        Cmd::Completion => Parsed::Completion(typed(&name, own)?),
        Cmd::Man => Parsed::Man(typed(&name, own)?),
        Cmd::Commands => Parsed::Commands,
        // The normalising pass answers both with a help text.
        Cmd::Help | Cmd::Group => Parsed::Commands,
    };
    Ok((globals, parsed))
}

fn typed<T: FromArgs>(name: &[&str], words: &[String]) -> Result<T, Failure> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    T::from_args(name, &words)
        .map_err(|exit| Failure::Usage(exit.output.split_whitespace().collect::<Vec<_>>().join(" ")))
}
