//! The embedded node on a disk that may go away: unplugged, unmounted, read-only, not there at the start.
//!
//! ```text
//!  Ipfs trait ── Removable ── here: Embedded ── blocks on the disk
//!                   │   └──── away: every call fails with the cause
//!                   └─ watch: once a second, without touching the disk
//! ```
//!
//! A peer whose blocks are away is still a peer: it votes, keeps the log and the pin list, and serves them. Only its
//! IPFS side is gone, as with a Kubo that is down, with the cause in every answer. Others make new copies of what it
//! held after the usual time of grace ([`Ipfs::away`]). When the disk is there again, and [`mark`] finds it to be the
//! same one, the store is opened anew (which reads again what a crash may have left) and the tracker compares.
//!
//! | what happens | what is seen | then |
//! |---|---|---|
//! | unmounted, or not mounted at the start | path, identity | away |
//! | plug pulled | the device is gone, or the file system says so | away |
//! | a write fails | the store says so | closed and opened again, away while that fails |
//! | mounted read-only (ext4 after errors) | mount options | what is there is served, nothing more is taken |
//!
//! Must never: make a store where a disk is missing, say that content is not pinned because it cannot be read now, or
//! keep the peer from starting.

mod mark;
pub(crate) mod mounts;

pub use mark::Place;

use super::embedded::{Embedded, EmbeddedConfig};
use super::{Away, Block, DirEntry, Ipfs, IpfsId, IpfsPin, PinRequest, Progress, RepoStat, Run};
use crate::error::{Error, Kind, Result};
use crate::runtime;
use crate::state::PinMode;
use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use libp2p::{Multiaddr, PeerId};
use mounts::Health;
use parking_lot::Mutex;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Between two looks at the disk, and between two looks for it.
const LOOK: Duration = Duration::from_secs(1);
/// The longest pause between two attempts to open a store that cannot be opened.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A look that takes longer means that the disk hangs.
const HANGS: Duration = Duration::from_secs(15);
/// How long a node whose disk is gone may take to close; what then still hangs is left behind.
const CLOSING: Duration = Duration::from_secs(15);

/// What the node is to be made of, asked each time that the disk is there: identity and key lie beside the blocks.
pub type Settings = Arc<dyn Fn() -> BoxFuture<'static, Result<EmbeddedConfig>> + Send + Sync>;

/// The node, while its disk is there. Clones share it.
#[derive(Clone)]
pub struct Removable(Arc<Inner>);

struct Inner {
    place: Place,
    settings: Settings,
    state: Mutex<State>,
    /// Closed at each change of the state.
    changes: Mutex<Vec<async_channel::Sender<()>>>,
    watch: Mutex<Option<smol::Task<()>>>,
}

/// What is the case. A node with a trouble can be read; no node without one.
struct State {
    node: Option<Embedded>,
    trouble: Option<Error>,
    since: Instant,
    /// How often it was opened.
    opened: u64,
    closed: bool,
}

/// The kind is that of what cannot be had now, whatever the disk said.
fn unavailable(error: Error) -> Error {
    Error::unavailable(error.message())
}

/// What a look at the disk found.
enum Seen {
    Well,
    /// The store can be read and not written.
    ReadOnly,
    /// The store must be given up.
    Gone(Error),
    /// The store must be opened again.
    Doubtful(Error),
}

impl Removable {
    /// Opens the node, or waits for its disk.
    ///
    /// # Errors
    /// Whatever is not the disk's fault: settings, addresses in use, damage.
    pub async fn start(place: Place, settings: Settings) -> Result<Removable> {
        let state = State { node: None, trouble: None, since: Instant::now(), opened: 0, closed: false };
        let inner = Arc::new(Inner {
            place,
            settings,
            state: Mutex::new(state),
            changes: Mutex::default(),
            watch: Mutex::default(),
        });
        match inner.open().await {
            Ok(node) => inner.arrive(node),
            Err((Cause::Disk, error)) => inner.depart(error),
            Err((Cause::Node, error)) => return Err(error),
        }
        *inner.watch.lock() = Some(runtime::spawn(watch(Arc::downgrade(&inner))));
        Ok(Removable(inner))
    }

    fn node(&self) -> Result<Embedded> {
        let state = self.0.state.lock();
        match &state.node {
            Some(node) => Ok(node.clone()),
            None => Err(state.cause()),
        }
    }

    /// The node, when it may change what is on the disk.
    fn writable(&self) -> Result<Embedded> {
        let node = self.node()?;
        match &self.0.state.lock().trouble {
            Some(trouble) => Err(trouble.clone()),
            None => Ok(node),
        }
    }
}

/// Looks whether the store of this place is there, for whoever must not open it.
///
/// # Errors
/// Why it is not.
pub fn look(place: &Place) -> Result<()> {
    mark::examine(place).map(drop)
}

/// The sentence for a folder that lies where fstab wants a disk and none is mounted.
///
/// # Errors
/// That sentence.
pub fn check_mounted(folder: &std::path::Path) -> Result<()> {
    match mounts::unmounted(folder) {
        None => Ok(()),
        Some(missing) => Err(Error::unavailable(format!(
            "the disk of {} is not there: /etc/fstab wants {} at {}, and nothing is mounted there; mount it (mount {}), \
             nothing was made in its place",
            folder.display(),
            missing.device,
            missing.point.display(),
            missing.point.display()
        ))),
    }
}

fn unplugged(place: &Place) -> Error {
    let shown = place.blocks.display();
    Error::unavailable(format!(
        "the disk with the blocks ({shown}) was unplugged: unmount it (umount -l), plug it in again and mount it"
    ))
}

fn shut_down(place: &Place) -> Error {
    let shown = place.blocks.display();
    Error::unavailable(format!(
        "the file system of {shown} was shut down after errors: unmount it, check the disk (fsck), and mount it again"
    ))
}

fn only_readable(place: &Place, so: &str) -> Error {
    let shown = place.blocks.display();
    Error::unavailable(format!(
        "the disk with the blocks ({shown}) can only be read: {so}; see `dmesg`, check the disk, and mount it again to \
         write (mount -o remount,rw)"
    ))
}

/// Why a store must not be opened although its files are there: what is left of an unplugged disk in memory looks like
/// one for a while.
fn ailment(place: &Place) -> Option<Error> {
    let device = place.blocks.metadata().ok()?.dev();
    match mounts::health(&place.blocks) {
        _ if mounts::device_is_gone(device) => Some(unplugged(place)),
        Health::Dead => Some(shut_down(place)),
        Health::ReadOnly => Some(only_readable(place, "nothing is served until it can be written")),
        Health::Well => None,
    }
}

/// Whose fault it is that a node cannot be opened.
enum Cause {
    Disk,
    Node,
}

impl State {
    fn cause(&self) -> Error {
        self.trouble.clone().unwrap_or_else(|| Error::unavailable("the IPFS node is closed"))
    }
}

impl Inner {
    /// Opens the store and the node, if the store is this peer's.
    async fn open(&self) -> Result<Embedded, (Cause, Error)> {
        let disk = |error| (Cause::Disk, error);
        let place = self.place.clone();
        let (found, apart) = runtime::unblock(move || {
            let found = mark::examine(&place).and_then(|found| ailment(&place).map_or(Ok(found), Err));
            (found, place.was_apart())
        })
        .await;
        let found = found.map_err(disk)?;
        if let mark::Found::None(_) = found {
            log::info!(target: "embedded", "a new block store is made in {}", self.place.blocks.display());
        }
        let place = self.place.clone();
        // Beside the configuration a disk that fails ends the peer anyway: then the start says so, at once.
        let blame = |error: Error| {
            let ails = apart || mounts::health(&self.place.blocks) != Health::Well;
            match error.kind() {
                Kind::Io | Kind::Unavailable if ails => (Cause::Disk, error),
                _ => (Cause::Node, error),
            }
        };
        runtime::unblock(move || mark::settle(&place, &found)).await.map_err(blame)?;
        let config = (self.settings)().await.map_err(blame)?;
        let store = Embedded::open_store(&config).await.map_err(blame)?;
        Embedded::open_on(store, config).await.map_err(|error| (Cause::Node, error))
    }

    /// The node is there.
    fn arrive(&self, node: Embedded) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        if state.trouble.take().is_some() {
            log::info!(
                target: "embedded",
                "the disk with the blocks is there again: {}",
                self.place.blocks.display()
            );
        }
        state.node = Some(node);
        state.opened += 1;
        drop(state);
        self.changes.lock().clear();
    }

    /// The node is not there, or no longer. Says so once for each cause.
    fn depart(&self, cause: Error) {
        let cause = unavailable(cause);
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        let left = state.node.take();
        if left.is_some() || state.opened == 0 && state.trouble.is_none() {
            state.since = Instant::now();
        }
        if state.trouble.as_ref() != Some(&cause) {
            log::error!(target: "embedded", "{cause}; until then this peer votes and holds no content");
            state.trouble = Some(cause);
        }
        drop(state);
        self.changes.lock().clear();
        if let Some(node) = left {
            runtime::spawn(async move {
                let close = async {
                    node.close().await;
                    Ok(())
                };
                if let Err(error) = runtime::timeout(CLOSING, "closing the block store", close).await {
                    log::warn!(target: "embedded", "{error}");
                }
            })
            .detach();
        }
    }

    /// The disk takes nothing more, or takes it again (then the node is opened anew).
    fn only_read(&self) {
        let mut state = self.state.lock();
        if state.node.is_some() && state.trouble.is_none() {
            let cause = only_readable(&self.place, "what is there is served, nothing more is taken");
            log::error!(target: "embedded", "{cause}");
            state.trouble = Some(cause);
        }
    }

    /// Looks at the disk without waking it.
    fn seen(&self) -> Option<Seen> {
        let (node, ailing) = {
            let state = self.state.lock();
            (state.node.clone()?, state.trouble.is_some())
        };
        let store = node.blocks();
        let shown = self.place.blocks.display();
        let gone = |why: String| {
            // Why it is not there is told in the words of a start, where those know.
            let error = mark::examine(&self.place).err();
            Some(Seen::Gone(error.unwrap_or_else(|| Error::unavailable(why))))
        };
        if mounts::device_is_gone(store.device()) {
            return Some(Seen::Gone(unplugged(&self.place)));
        }
        match store.is_still_there() {
            Ok(true) => {}
            Ok(false) => return gone(format!("the disk with the blocks is not mounted at {shown} any more")),
            Err(error) => return gone(format!("{shown} cannot be looked at: {error}")),
        }
        Some(match (mounts::health(&self.place.blocks), store.trouble()) {
            (Health::Dead, _) => Seen::Gone(shut_down(&self.place)),
            (Health::ReadOnly, _) => Seen::ReadOnly,
            (Health::Well, Some(error)) => Seen::Doubtful(error),
            // It was read-only: what the store believes to be written may not be.
            (Health::Well, None) if ailing => Seen::Doubtful(Error::unavailable(format!(
                "the disk with the blocks ({shown}) was read-only"
            ))),
            (Health::Well, None) => Seen::Well,
        })
    }
}

/// Looks at the disk for as long as the node is wanted.
async fn watch(inner: Weak<Inner>) {
    let mut pause = LOOK;
    loop {
        runtime::sleep(pause).await;
        let Some(inner) = inner.upgrade() else { return };
        pause = LOOK;
        let looker = inner.clone();
        let mut look = Box::pin(runtime::unblock(move || looker.seen()));
        let seen = {
            let hangs = async {
                runtime::sleep(HANGS).await;
                None
            };
            smol::future::or(async { Some((&mut look).await) }, hangs).await
        };
        let seen = match seen {
            Some(seen) => seen,
            None => {
                let shown = inner.place.blocks.display();
                inner.depart(Error::unavailable(format!(
                    "the disk with the blocks ({shown}) does not answer: see `dmesg`"
                )));
                look.await
            }
        };
        match seen {
            Some(Seen::Well) => continue,
            Some(Seen::ReadOnly) => {
                inner.only_read();
                continue;
            }
            Some(Seen::Gone(error)) => {
                inner.depart(error);
                continue;
            }
            Some(Seen::Doubtful(error)) => inner.depart(error),
            None => {}
        }
        match inner.open().await {
            Ok(node) => inner.arrive(node),
            // Requests from before still hold the store.
            Err((_, error)) if error.kind() == Kind::Conflict => {}
            Err((cause, error)) => {
                inner.depart(error);
                // What only mounting can cure is looked for often, at no cost; what fails while it is tried, seldom.
                if !matches!(cause, Cause::Disk) || mounts::health(&inner.place.blocks) != Health::Well {
                    pause = LONGEST_PAUSE;
                }
            }
        }
    }
}

#[async_trait]
impl Ipfs for Removable {
    fn embedded(&self) -> Option<Embedded> {
        self.node().ok()
    }

    fn away(&self) -> Option<Away> {
        let state = self.0.state.lock();
        match &state.node {
            Some(_) => None,
            None => Some(Away { cause: state.cause().message().to_owned(), since: state.since }),
        }
    }

    async fn id(&self) -> Result<IpfsId> {
        self.node()?.id().await
    }

    async fn current_run(&self) -> Result<Run> {
        let id = self.node()?.id().await?.id;
        let opened = self.0.state.lock().opened;
        Ok(Run { id, started: Some(opened.to_string()) })
    }

    async fn run_over(&self) {
        let (sender, changed) = async_channel::bounded::<()>(1);
        let before = {
            let state = self.0.state.lock();
            // Under the state's lock: a change after this closes the channel.
            self.0.changes.lock().push(sender);
            state.node.is_some()
        };
        if before {
            let _ = changed.recv().await;
        }
    }

    async fn pin(&self, request: PinRequest, progress: Progress) -> Result<()> {
        self.writable()?.pin(request, progress).await
    }

    async fn unpin(&self, cid: &Cid) -> Result<()> {
        self.writable()?.unpin(cid).await
    }

    async fn pin_state(&self, cid: &Cid) -> Result<IpfsPin> {
        self.node()?.pin_state(cid).await
    }

    async fn list_pins(&self) -> Result<BoxStream<'static, Result<(Cid, PinMode)>>> {
        self.node()?.list_pins().await
    }

    async fn put_blocks(&self, blocks: Vec<Block>) -> Result<()> {
        self.writable()?.put_blocks(blocks).await
    }

    async fn get_block(&self, cid: &Cid, fetch: bool) -> Result<Bytes> {
        self.node()?.get_block(cid, fetch).await
    }

    /// How much room there is: none that can be told while nothing can be written.
    async fn repo_stat(&self) -> Result<RepoStat> {
        self.writable()?.repo_stat().await
    }

    async fn gc(&self) -> Result<BoxStream<'static, Result<Cid>>> {
        self.writable()?.gc().await
    }

    async fn swarm_peers(&self) -> Result<Vec<PeerId>> {
        self.node()?.swarm_peers().await
    }

    async fn swarm_connect(&self, address: &Multiaddr) -> Result<()> {
        self.node()?.swarm_connect(address).await
    }

    async fn resolve(&self, path: &str) -> Result<Cid> {
        self.node()?.resolve(path).await
    }

    async fn cat(&self, path: &str, range: Option<Range<u64>>) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.node()?.cat(path, range).await
    }

    async fn ls(&self, path: &str) -> Result<(DirEntry, BoxStream<'static, Result<DirEntry>>)> {
        self.node()?.ls(path).await
    }

    async fn close(&self) {
        // First the watch: it must not open what is being closed.
        let watch = self.0.watch.lock().take();
        if let Some(watch) = watch {
            watch.cancel().await;
        }
        let node = {
            let mut state = self.0.state.lock();
            state.closed = true;
            state.node.take()
        };
        if let Some(node) = node {
            node.close().await;
        }
    }
}
