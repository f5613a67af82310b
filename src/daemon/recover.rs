//! `state recover`: a majority of the voters is lost for good, and a survivor goes on as a cluster of one.
//!
//! Offline, on a folder whose lock is held. [`look`] says what a survivor has, so that a person can choose the best one;
//! [`state_recover`] makes the new cluster of it. It refuses while any other member answers: who answers may be part of a
//! living majority, or a better survivor. What the new data is made of is `consensus::recover`'s matter, how it takes the
//! old data's place `store::recover`'s.
//!
//! It must never change anything before the person agreed, and never write to the survivor's own data at all.

use super::{legacy, upgrade};
use crate::cluster::founding;
use crate::config::{Config, Env, Folder, FolderLock, Identity};
use crate::consensus::recover::{self, Recovered, Survivor};
use crate::error::{Context as _, Error, Result};
use crate::state::{Member, Role};
use crate::store::recover::{settle, size, Draft};
use crate::store::{self, Options, StateStore, Table};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long an address of another member may take to answer. A board in the same house takes milliseconds.
const KNOCK: Duration = Duration::from_secs(2);
/// Most addresses that are knocked at, all of them at the same time.
const MAX_KNOCKS: usize = 128;

/// What a survivor has.
#[derive(Clone, Debug)]
pub struct Look {
    /// The peer's folder.
    pub folder: PathBuf,
    /// Its libp2p identity.
    pub peer: PeerId,
    /// Cluster, Raft id, term, last entry, members.
    pub survivor: Survivor,
    /// Pins in the state on disk; the log may bring more, or take some away.
    pub pins: u64,
    /// When the log was last written, if the system says.
    pub written: Option<SystemTime>,
}

impl Look {
    /// Raft's order of freshness: the survivor with the highest one is the best.
    pub fn freshness(&self) -> (u64, u64) {
        (self.survivor.last.term, self.survivor.last.index)
    }

    /// The other members.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        self.survivor.members.iter().filter(|m| m.peer_id != self.peer)
    }
}

/// What is about to be done.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The survivor.
    pub look: Look,
    /// Members that answered at one of their addresses; only with `force` is there any.
    pub alive: Vec<(PeerId, SocketAddr)>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Entries, pins, members.
    pub recovered: Recovered,
    /// Where the data from before is.
    pub backup: PathBuf,
}

/// A folder that is held, with what is needed of it.
struct Held {
    folder: Folder,
    config: Config,
    identity: Identity,
    data: PathBuf,
    _lock: FolderLock,
}

fn hold(folder: &Folder) -> Result<Held> {
    let lock = folder.lock("state recover")?;
    let (config, _) = Config::load(folder, &Env::process())?;
    let (identity, _) = Identity::load(folder, Some(&config), &Env::process())?;
    let data = config.resolve(folder, &config.consensus.data_folder);
    legacy::refuse(folder, &data)?;
    Ok(Held { folder: folder.clone(), config, identity, data, _lock: lock })
}

/// Looks at a survivor, changing nothing.
///
/// # Errors
/// The folder is in use, never was a member's, was removed from its cluster, or is damaged.
pub fn look(folder: &Folder) -> Result<Look> {
    look_at(&hold(folder)?)
}

fn look_at(held: &Held) -> Result<Look> {
    let data = &held.data;
    settle(data)?;
    let explain = |error| upgrade::explain(error, &held.folder, data);
    if size(data, &Options::default()).map_err(explain)?.is_none() {
        return Err(Error::not_found(format!(
            "{} holds no data of a cluster: there is nothing to recover here",
            data.display()
        )));
    }
    let written = data.join("log/data.mdb").metadata().and_then(|meta| meta.modified()).ok();
    let (log, state) = store::open(data).map_err(explain)?;
    let state: Arc<dyn StateStore> = Arc::new(state);
    let survivor = recover::survey(&log, &state).context(held.folder.path().display())?;
    if survivor.removed {
        return Err(Error::conflict(format!(
            "{}: this peer was removed from its cluster, so its data is not a survivor's: recover another peer, or start anew with `pinfold state cleanup`",
            held.folder.path().display()
        )));
    }
    Ok(Look {
        folder: held.folder.path().to_path_buf(),
        peer: held.identity.peer_id(),
        pins: state.count(Table::Pins),
        survivor,
        written,
    })
}

/// Makes a cluster of one of this survivor, asking `agree` before anything is changed. `None` when that says no. Without
/// `force` it refuses while another member answers.
///
/// # Errors
/// As [`look`]; another member answers; the disk refuses or is full. The data is then what it was.
pub fn state_recover(
    folder: &Folder,
    force: bool,
    agree: &mut dyn FnMut(&Offer) -> Result<bool>,
) -> Result<Option<Done>> {
    let held = hold(folder)?;
    let look = look_at(&held)?;
    let alive = who_answers(&look);
    if !alive.is_empty() && !force {
        let all: Vec<String> = alive.iter().map(|(peer, at)| format!("{peer} at {at}")).collect();
        return Err(Error::conflict(format!(
            "something answers at the address of {} other member(s): {}. If a majority of the voters is alive, the cluster needs no recovery; \
             and every survivor must be stopped before one is chosen. With --force they are given up all the same",
            alive.len(),
            all.join(", ")
        )));
    }
    let offer = Offer { look, alive };
    if !agree(&offer)? {
        return Ok(None);
    }
    run(&held, &offer.look).map(Some)
}

fn run(held: &Held, look: &Look) -> Result<Done> {
    let (data, us) = (&held.data, held.identity.peer_id());
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|e| Error::io(format!("no randomness for a cluster id: {e}")))?;
    let into = u64::from_le_bytes(random).max(1);
    let given_up = || format!("the recovery was given up, and {} is what it was", data.display());
    let (draft, mut fresh, state) = Draft::begin(data, &Options::default()).context(given_up())?;
    let state: Arc<dyn StateStore> = Arc::new(state);
    let name = &held.config.cluster.peername;
    let log = store::open_log(&data.join("log"), &Options::default()).context(given_up())?;
    let recovered = recover::recover(&look.survivor, &log, &state, &mut fresh, us, name, into)
        .and_then(|recovered| {
            founding::renew_record(draft.path(), store::LogStore::incarnation(&fresh).raft_id)?;
            Ok(recovered)
        })
        .context(given_up())?;
    // Closed before their folders change names.
    drop((log, fresh, state));
    let backup = draft.finish(recovered.from, recovered.into)?;
    Ok(Done { recovered, backup })
}

/// The other members at whose addresses something answers. Voters only matter for a majority, but a learner may be the
/// better survivor, so all are knocked at.
fn who_answers(look: &Look) -> Vec<(PeerId, SocketAddr)> {
    let own: Vec<&Multiaddr> =
        look.survivor.members.iter().filter(|m| m.peer_id == look.peer).flat_map(|m| &m.addresses).collect();
    let mut doors: Vec<(PeerId, Vec<SocketAddr>)> = Vec::new();
    for member in look.others() {
        let mut sockets: Vec<SocketAddr> =
            member.addresses.iter().filter(|a| !own.contains(a)).flat_map(sockets).collect();
        // Loopback is this machine. It means the other one only where nothing else is known of it.
        if sockets.iter().any(|s| !s.ip().is_loopback()) {
            sockets.retain(|s| !s.ip().is_loopback());
        }
        doors.push((member.peer_id, sockets));
    }
    let knocks: Vec<(PeerId, SocketAddr)> = doors
        .into_iter()
        .flat_map(|(peer, sockets)| sockets.into_iter().map(move |socket| (peer, socket)))
        .take(MAX_KNOCKS)
        .collect();
    let mut alive: Vec<(PeerId, SocketAddr)> = std::thread::scope(|scope| {
        let knock = |at: SocketAddr| move || TcpStream::connect_timeout(&at, KNOCK).is_ok();
        let running: Vec<_> = knocks.iter().map(|(peer, at)| (*peer, *at, scope.spawn(knock(*at)))).collect();
        let answered = running.into_iter().filter_map(|(peer, at, thread)| {
            // A thread that cannot say is no answer.
            thread.join().unwrap_or(false).then_some((peer, at))
        });
        answered.collect()
    });
    alive.dedup_by_key(|(peer, _)| *peer);
    alive
}

/// Where a TCP address leads; names are asked for.
fn sockets(address: &Multiaddr) -> Vec<SocketAddr> {
    let (mut ip, mut name): (Option<IpAddr>, Option<String>) = (None, None);
    for part in address {
        match part {
            Protocol::Ip4(found) => ip = Some(found.into()),
            Protocol::Ip6(found) => ip = Some(found.into()),
            Protocol::Dns(found) | Protocol::Dns4(found) | Protocol::Dns6(found) => {
                name = Some(found.to_string())
            }
            Protocol::Tcp(port) => {
                return match (ip, name) {
                    (Some(ip), _) => vec![SocketAddr::new(ip, port)],
                    (None, Some(name)) => {
                        (name.as_str(), port).to_socket_addrs().map(Iterator::collect).unwrap_or_default()
                    }
                    (None, None) => Vec::new(),
                }
            }
            _ => {}
        }
    }
    Vec::new()
}

/// How many voters must agree in the cluster that a survivor is of, and how many it has.
pub fn majority_of(survivor: &Survivor) -> (usize, usize) {
    let voters = survivor.members.iter().filter(|m| m.role == Role::Voter).count();
    (voters / 2 + 1, voters)
}
