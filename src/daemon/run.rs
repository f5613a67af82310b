//! `daemon`, `up`, `join`: start, wait, stop.

#[cfg(any(test, fuzzing))]
#[path = "../../tests/fuzz/targets/whole_peer.rs"]
pub(crate) mod fuzz;

use super::enter::{self, Entered, Entry};
use super::signals::Stop;
use super::upgrade::{self, Upgraded};
use super::{
    build, files, fresh, legacy, nearby, notify, pulse, reach, say, scrub, DaemonOptions, RunMode, STOP_LIMIT,
};
use crate::api::{self, server::Server};
use crate::cluster::founding::Desk;
use crate::cluster::{Cluster, Parts};
use crate::config::{init, Config, Env, Folder, FolderLock, Identity};
use crate::consensus::wire_rpc::RpcWire;
use crate::consensus::{Consensus, Start};
use crate::error::{Context, Error, Kind, Result};
use crate::ipfs::removable::{check_mounted, mounts::in_memory};
use crate::ipfs::Ipfs;
use crate::net::rpc::{Membership, Rpc};
use crate::net::Host;
use crate::runtime;
use crate::state::{transfer, Pins};
use crate::store::{self, rotate, LogStore, StateStore};
use crate::tracker::Tracker;
use libp2p::multiaddr::Protocol;
use libp2p::PeerId;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Between two looks at whether consensus still runs.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);
/// Limit of the hand-over of leadership in a clean stop.
const HAND_OVER_LIMIT: Duration = Duration::from_millis(1_500);
/// How long running requests may finish in a clean stop.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);
/// Limit of leaving the cluster in a stop that leaves, moving the content included: a third of what systemd grants.
const LEAVE_LIMIT: Duration = Duration::from_secs(30);

/// How long a daemon that systemd started waits for whoever works on its folder: `state export`, an older daemon.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at whether the folder is free.
const LOCK_AGAIN: Duration = Duration::from_millis(200);
/// More time is asked for, for so long at most: while data is upgraded (a large one, on a slow card)...
const UPGRADE_LIMIT: Duration = Duration::from_secs(6 * 3_600);
/// ...while it is opened and its pages are checked...
const OPEN_LIMIT: Duration = Duration::from_secs(3_600);
/// ...while the cluster is looked for and caught up with, which have limits of their own...
const ENTER_LIMIT: Duration = Duration::from_secs(600);
/// ...and while the pins are exported at the end.
const EXPORT_LIMIT: Duration = Duration::from_secs(3_600);

/// Why a running daemon stops.
enum Ending {
    Signal(String),
    Removed,
    /// The cluster was recovered without this peer, under this id, and has all that this peer knows.
    Superseded(u64),
    Failed(Error),
}

/// Runs a peer until it is told to stop.
///
/// # Errors
/// Whatever kept it from starting, or made it stop by itself.
pub fn run(options: DaemonOptions) -> Result<()> {
    // Before anything else: a signal during a slow start must be a clean stop too.
    let mut stop = Stop::catch()?;
    files::raise_limit();
    runtime::block_on(async move {
        // Boxed: everything of a peer passes through this future, too much for a stack frame.
        let started = Box::pin(start(&options));
        let peer = smol::future::or(async { Some(started.await) }, async {
            let signal = stop.wait().await;
            log::info!(target: "service", "stopped by {signal} while starting");
            None
        });
        let Some(peer) = peer.await else { return Ok(()) };
        let mut peer = peer?;
        let ending = match &options.mode {
            // To leave at this stop would undo what it was started for.
            RunMode::Join(join) if join.once => {
                peer.config.cluster.leave_on_shutdown = false;
                Ending::Signal("it has joined".into())
            }
            _ => peer.wait(&mut stop).await,
        };
        notify::notify("STOPPING=1");
        peer.pulse.clear();
        let insist = runtime::spawn(stop.insist());
        let result = Box::pin(peer.stop(&ending, options.leave)).await;
        insist.cancel().await;
        result
    })
}

/// Everything of a running peer.
struct Peer {
    folder: Folder,
    config: Config,
    host: Host,
    consensus: Consensus,
    state: Arc<dyn StateStore>,
    ipfs: Arc<dyn Ipfs>,
    tracker: Tracker,
    cluster: Cluster,
    server: Option<Server>,
    proxy: Option<Server>,
    damage: scrub::Damage,
    _lock: FolderLock,
    /// Tells systemd that the peer lives, and how it is.
    pulse: Vec<smol::Task<()>>,
}

/// Members as the calls see them. Calls are served before consensus runs (it needs them), so it is filled later.
#[derive(Default)]
struct Members {
    consensus: OnceLock<Consensus>,
    /// Every call is registered.
    complete: AtomicBool,
}

impl Membership for Members {
    fn is_member(&self, peer: &PeerId) -> bool {
        self.consensus.get().is_some_and(|c| c.is_member(peer))
    }

    fn is_starting(&self) -> bool {
        !self.complete.load(Ordering::Acquire)
    }
}

async fn start(options: &DaemonOptions) -> Result<Peer> {
    let (folder, env) = (options.folder.clone(), Env::process());
    check_mounted(folder.path())?;
    if options.mode == RunMode::Daemon && init::is_fresh(&folder) {
        return Err(Error::invalid(format!(
            "error loading configurations: {} does not exist; run `pinfold init` (or `pinfold up`, which does it by itself) first",
            folder.service_json().display()
        )));
    }
    folder.create()?;
    let what = match options.mode {
        RunMode::Daemon => "daemon",
        RunMode::Up => "up",
        RunMode::Join(_) => "join",
    };
    let lock = lock(&folder, what).await?;
    let secret_is_new = options.mode == RunMode::Up && nearby::secret_is_new(&folder, &env);
    let prepared = fresh::prepare(&folder, &options.mode, &options.fresh, &env)?;
    let (config, warnings) = Config::load(&folder, &env)?;
    for warning in warnings {
        log::warn!(target: "config", "{warning}");
    }
    let folder = folder.with_peerstore(&config.cluster.peerstore_file);
    config.check_exposure(options.insecure_no_secret).context(folder.service_json().display())?;
    let (identity, notice) = Identity::load(&folder, Some(&config), &env)?;
    if let Some(notice) = notice {
        log::info!(target: "config", "{notice}");
    }

    let data = config.resolve(&folder, &config.consensus.data_folder);
    check_mounted(&data)?;
    let joins =
        !options.bootstrap.is_empty() || !prepared.invited.is_empty() || !config.cluster.bootstrap.is_empty();
    if let Some(kind) = in_memory(&data).or_else(|| in_memory(folder.path())) {
        log::warn!(
            target: "service",
            "{} is in memory ({kind}): what is acknowledged here is gone with the power, and this peer with it",
            folder.path().display()
        );
    }
    legacy::before_start(&folder, &data, config.consensus.backups_rotate as usize, joins)?;
    if options.upgrade {
        let data = data.clone();
        let _stage = notify::Stage::begin("upgrading the data", UPGRADE_LIMIT);
        let done = runtime::unblock(move || upgrade::upgrade(&data, &mut |_| Ok(true))).await?;
        if let Upgraded::Done(plan) = done {
            log::info!(target: "service", "{plan}");
        }
    }
    let stage = notify::Stage::begin("opening the data and checking it", OPEN_LIMIT);
    let opened = {
        let data = data.clone();
        runtime::unblock(move || {
            let (log, state) = store::open(&data)?;
            let state: Arc<dyn StateStore> = Arc::new(state);
            scrub::before_start(&state)?;
            Ok((log, state))
        })
        .await
    };
    let (log, state) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let folder = folder.clone();
            return Err(runtime::unblock(move || upgrade::explain(error, &folder, &data)).await);
        }
    };

    drop(stage);
    let stage = notify::Stage::begin("looking for the cluster", ENTER_LIMIT);
    let host = Host::start(build::host(&config, &identity)).await?;
    let members = Arc::new(Members::default());
    let rpc = Rpc::start(host.clone(), members.clone())?;
    let desk = Desk::open(&rpc, &data);
    let around = nearby::Nearby::listen(&host, &desk);
    let mut bootstrap = options.bootstrap.clone();
    bootstrap.extend(prepared.invited.iter().cloned());
    let known = reach::known_addresses(&folder, &config, &bootstrap);
    known.iter().for_each(|(peer, addresses)| host.set_addresses(*peer, addresses.clone()));
    let ipfs = build::ipfs(&config, &folder).await.context("ipfs_connector")?;

    let entry = Entry {
        folder: &folder,
        config: &config,
        identity: &identity,
        data: &data,
        incarnation: log.incarnation(),
        state: state.clone(),
        rpc: &rpc,
        desk: &desk,
        told: &bootstrap,
        around: (!config.cluster.mdns_interval.is_zero() && !secret_is_new).then_some(&around),
    };
    let Entered { start: begin, chosen } = entry.decide().await?;
    prepared.entered(&folder)?;
    let joined = matches!(begin, Start::Join { .. });
    let wire = RpcWire::new(rpc.clone());
    let consensus = Consensus::start(
        build::consensus(&config, &identity),
        begin,
        Box::new(log),
        state.clone(),
        wire.clone(),
    )?;
    wire.serve(&consensus);
    let _ = members.consensus.set(consensus.clone());
    desk.is_member(&consensus, chosen).await;

    let (me, how) = (identity.peer_id(), build::tracker(&config));
    let tracker = match config.consensus.witness {
        true => Tracker::idle(me, how, ipfs.clone(), state.clone()),
        false => Tracker::start(me, how, ipfs.clone(), state.clone(), consensus.events()),
    };
    let cluster = Cluster::start(Parts {
        me: identity.peer_id(),
        name: config.cluster.peername.clone(),
        rpc: rpc.clone(),
        consensus: consensus.clone(),
        state: state.clone(),
        tracker: tracker.clone(),
        ipfs: ipfs.clone(),
        settings: build::settings(&config, &folder),
    });
    members.complete.store(true, Ordering::Release);
    runtime::spawn(reach::listen_to_discovery(host.clone(), consensus.clone())).detach();
    runtime::spawn(around.tell(consensus.downgrade())).detach();
    runtime::spawn(reach::knock(host.clone(), desk, consensus.downgrade(), known)).detach();
    let keep = reach::keep_peerstore(folder.clone(), identity.peer_id(), consensus.downgrade());
    runtime::spawn(keep).detach();
    let damage = scrub::Damage::default();
    runtime::spawn(scrub::watch(state.clone(), consensus.downgrade(), damage.clone())).detach();
    let server = match build::rest(&config, &folder) {
        Some(rest) => Some(api::start_rest(rest, cluster.clone()).await.context("api.restapi")?),
        None => None,
    };
    let proxy = match build::proxy(&config, &folder, &ipfs) {
        Some(proxy) => Some(api::proxy::start(proxy, cluster.clone()).await.context("api.ipfsproxy")?),
        None => None,
    };
    // A peer of a cluster without a majority serves reads and waits; only a joiner must be let in first.
    let patience = config.consensus.wait_for_leader_timeout;
    // Many may join at once, and each is sent the whole state.
    let patience = if joined { patience.max(enter::JOIN_LIMIT) } else { patience };
    drop(stage);
    let stage = notify::Stage::begin("catching up with the cluster", patience + ENTER_LIMIT);
    let waited = consensus.wait_ready(patience).await;
    drop(stage);
    match waited {
        Ok(()) => {}
        Err(error) if joined => return Err(error.context("joined, but could not catch up")),
        Err(error) => {
            log::warn!(target: "cluster", "no leader yet, reads are served and writes will wait: {error}")
        }
    }
    let gone = damage.clone();
    let disk = pulse::Disk::of(&data.join("log").join("data.mdb"))?;
    let watchdog = pulse::feed(consensus.clone(), state.clone(), disk, move |error| gone.set(error));
    let mut peer = Peer {
        folder,
        config,
        host,
        consensus,
        state,
        ipfs,
        tracker,
        cluster,
        server,
        proxy,
        damage,
        _lock: lock,
        pulse: watchdog.into_iter().collect(),
    };
    peer.announce(&identity);
    peer.pulse.extend(pulse::show(me, peer.cluster.clone(), peer.state.clone()));
    Ok(peer)
}

/// Takes the folder. Under systemd nobody is there to try again, so whoever has it for a moment is waited for.
async fn lock(folder: &Folder, what: &str) -> Result<FolderLock> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match folder.lock(what) {
            Err(error) if error.kind() == Kind::Conflict && notify::is_heard() && Instant::now() < until => {
                notify::notify(&format!("STATUS=waiting: {error}"));
                runtime::sleep(LOCK_AGAIN).await;
            }
            done => return done,
        }
    }
}

impl Peer {
    /// Says that it is ready and where everything is.
    fn announce(&self, identity: &Identity) {
        let members = self.consensus.members();
        let me = identity.peer_id();
        log::info!(target: "cluster", "IPFS Cluster v{} listening on:", crate::VERSION);
        for address in self.host.addresses() {
            log::info!(target: "cluster", "        {}", address.with(Protocol::P2p(me)));
        }
        log::info!(target: "cluster", "Cluster Peers (without including ourselves):");
        let others: Vec<_> = members.iter().filter(|m| m.peer_id != me).collect();
        if others.is_empty() {
            log::info!(target: "cluster", "    - No other peers");
        }
        for member in &others {
            log::info!(target: "cluster", "    - {} ({})", member.peer_id, member.name);
        }
        log::info!(target: "cluster", "** IPFS Cluster is READY **");
        notify::notify(&format!("READY=1\nSTATUS={}", pulse::line(me, &self.cluster, &self.state)));
        let scheme = if self.config.restapi.as_ref().is_some_and(|r| r.tls()) { "https" } else { "http" };
        let api: Vec<String> =
            self.server.iter().flat_map(|s| s.local_addrs()).map(|a| format!("{scheme}://{a}")).collect();
        say(format_args!(
            "pinfold {} is ready: peer {} ({me}), {} member(s)",
            crate::VERSION,
            self.config.cluster.peername,
            members.len()
        ));
        say(format_args!("  folder  {}", self.folder.path().display()));
        if self.config.consensus.witness {
            say("  role    witness: it votes and holds no content");
        }
        if !api.is_empty() {
            say(format_args!("  API     {}", api.join(" ")));
        }
        for address in self.proxy.iter().flat_map(|s| s.multiaddrs()) {
            say(format_args!("  IPFS    {address} (the proxy: `ipfs --api {address}` pins in the cluster)"));
        }
        for address in self.host.addresses() {
            say(format_args!("  cluster {}", address.with(Protocol::P2p(me))));
        }
    }

    /// Waits for a reason to stop.
    async fn wait(&self, stop: &mut Stop) -> Ending {
        let watch = async {
            loop {
                let status = self.consensus.status();
                if let Some(error) = status.failed.or_else(|| self.damage.get()) {
                    return Ending::Failed(error);
                }
                if let Some(news) = status.superseded.filter(|news| news.covered) {
                    return Ending::Superseded(news.into);
                }
                if status.removed {
                    return Ending::Removed;
                }
                runtime::sleep(HEALTH_INTERVAL).await;
            }
        };
        smol::future::or(async { Ending::Signal(stop.wait().await) }, watch).await
    }

    /// Stops everything, in order.
    async fn stop(mut self, ending: &Ending, leave: bool) -> Result<()> {
        match ending {
            Ending::Signal(signal) => log::info!(target: "service", "stopping: {signal}"),
            Ending::Removed => {
                log::warn!(target: "service", "this peer was removed from the cluster: stopping")
            }
            Ending::Superseded(into) => {
                log::warn!(target: "service", "the cluster was recovered without this peer, as {into:016x}: stopping")
            }
            Ending::Failed(reason) => log::error!(target: "service", "stopping: {reason}"),
        }
        let alive = matches!(ending, Ending::Signal(_));
        let mut left = matches!(ending, Ending::Removed | Ending::Superseded(_));
        let stage = notify::Stage::begin("stopping: leaving or handing over", LEAVE_LIMIT + STOP_LIMIT * 2);
        if alive && (leave || self.config.cluster.leave_on_shutdown) {
            match Box::pin(runtime::timeout(LEAVE_LIMIT, "leaving the cluster", self.cluster.leave())).await {
                Ok(gone) => left = gone,
                Err(error) => log::warn!(target: "service", "could not leave the cluster: {error}"),
            }
        }
        let addresses = reach::member_addresses(self.host.peer_id(), &self.consensus);
        let servers: Vec<Server> = self.server.take().into_iter().chain(self.proxy.take()).collect();
        let steps = async {
            // At the same time: their limits must not add up.
            futures::future::join_all(servers.into_iter().map(|s| s.close(DRAIN_LIMIT))).await;
            if alive && !left {
                if let Err(error) = self.consensus.hand_over(HAND_OVER_LIMIT).await {
                    log::debug!(target: "service", "leadership was not handed over: {error}");
                }
            }
            self.tracker.stop().await;
            self.cluster.stop().await;
            self.consensus.stop().await;
            self.ipfs.close().await;
            self.host.close().await;
            Ok(())
        };
        if let Err(error) = runtime::timeout(STOP_LIMIT, "a clean stop", steps).await {
            log::warn!(target: "service", "{error}; what is committed is safe");
        }
        if matches!(ending, Ending::Removed) {
            enter::note_removal(&self.folder, self.consensus.status().cluster_id);
        } else if !self.consensus.members().is_empty() {
            if let Err(error) = self.folder.write_peerstore(&addresses) {
                log::warn!(target: "service", "{error}");
            }
        }
        drop(stage);
        let _stage = notify::Stage::begin("stopping: exporting the pin list", EXPORT_LIMIT);
        self.put_away(ending, left).await
    }

    /// After everything is closed: the export, or the rotation of what is no longer a member's.
    async fn put_away(self, ending: &Ending, left: bool) -> Result<()> {
        if let Ending::Failed(error) = ending {
            // With its kind, by which systemd knows whether starting again can help.
            return Err(error.clone());
        }
        let backups = self.folder.path().join("backups");
        let data = self.config.resolve(&self.folder, &self.config.consensus.data_folder);
        let keep = self.config.consensus.backups_rotate as usize;
        // Nobody asked for the removal of this data: at least one copy of it is kept.
        let keep = if matches!(ending, Ending::Superseded(_)) { keep.max(1) } else { keep };
        let state = self.state.clone();
        // Handlers of calls still hold the environments, which is no harm: nothing writes any more, and moving their
        // folder aside leaves what is open in it alone.
        let Peer { _lock: lock, .. } = self;
        let result: Result<()> = runtime::unblock(move || {
            transfer::backup(&Pins::new(state), &backups)?;
            if left {
                rotate::rotate(&data, keep)?;
            }
            Ok(())
        })
        .await;
        drop(lock);
        result.context("the pin list could not be put away")?;
        match ending {
            Ending::Removed => Err(Error::conflict(
                "this peer was removed from the cluster; its data was put aside, `pinfold join` with a new token lets it back in",
            )),
            // The peerstore stays: it is the way into the recovered cluster.
            Ending::Superseded(into) => Err(Error::conflict(format!(
                "the cluster lost its majority and was recovered without this peer, as {into:016x}; all that this peer knew is in it, and its data was put aside (raft.old.0): start it again, and it joins as a new member with the content that it has"
            ))),
            _ => Ok(()),
        }
    }
}
