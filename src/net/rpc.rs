//! Calls between peers, over one stream per call.
//!
//! A call is: method name, then request frames from the caller, then response frames from the callee, then
//! an end mark with success or an [`Error`]. Frames are length-prefixed with [`MAX_FRAME`]; bodies are
//! postcard. The protocol name carries the version. Authorisation is decided before the first frame is
//! handed to a handler: [`Access::Members`] calls are refused to anyone who is not in the member list.
//! Dropping either end cancels the call.
//!
//! A call to ourselves takes the same way through the same code, over a pipe in memory.

mod call;
mod frame;
#[cfg(any(test, fuzzing))]
#[path = "../../tests/fuzz/targets/rpc_frames.rs"]
pub(crate) mod fuzz;
mod pipe;

pub use call::Call;

use super::{Host, Stream};
use crate::error::{Error, Result};
use crate::runtime;
use crate::runtime::Timer;
use async_trait::async_trait;
use call::End;
use frame::{Channel, Wire};
use libp2p::PeerId;
use parking_lot::{Mutex, RwLock};
use serde::{de::DeserializeOwned, Serialize};
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

/// Protocol name of calls.
pub const PROTOCOL: &str = "/pinfold/rpc/1";
/// Largest frame, bytes (a block of 2 MiB plus its envelope fits).
pub const MAX_FRAME: usize = 4 << 20;
/// A call on which nothing moves for this long ends, unless [`Call::set_idle`] says otherwise.
pub const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// How long a caller may take to say which method it calls.
const METHOD_LIMIT: Duration = Duration::from_secs(10);
/// Calls that may be told at once that there are too many; even more are dropped without a word.
const REFUSALS: usize = 64;

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever got through the secret.
    Open,
    /// Members of the cluster only.
    Members,
}

/// Decides who is a member; given by the daemon, backed by the replicated membership.
pub trait Membership: Send + Sync + 'static {
    /// Whether this peer is a member now.
    fn is_member(&self, peer: &PeerId) -> bool;
    /// Whether this peer is still starting, so that calls it does not know yet may come to be known.
    fn is_starting(&self) -> bool {
        false
    }
}

/// Serves one method.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Reads from the call, writes to it; the result becomes the end mark.
    async fn handle(&self, call: &mut Call) -> Result<()>;
}

/// How many calls this peer serves at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls of one peer.
    pub per_peer: usize,
    /// Calls of all peers.
    pub total: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { per_peer: 256, total: 2048 }
    }
}

struct Method {
    access: Access,
    handler: Arc<dyn Handler>,
}

/// Running calls, for the limits.
#[derive(Default)]
struct Running {
    total: usize,
    by_peer: HashMap<PeerId, usize>,
    refusals: usize,
}

struct Inner {
    host: Host,
    members: Arc<dyn Membership>,
    limits: Limits,
    methods: RwLock<HashMap<&'static str, Method>>,
    running: Mutex<Running>,
}

/// The calls of one host.
#[derive(Clone)]
pub struct Rpc {
    inner: Arc<Inner>,
}

/// The right to run one call; given back on drop.
struct Permit {
    inner: Arc<Inner>,
    peer: PeerId,
}

impl Permit {
    fn take(inner: &Arc<Inner>, peer: PeerId) -> Result<Permit> {
        let limits = inner.limits;
        let mut running = inner.running.lock();
        if running.total >= limits.total {
            return Err(Error::unavailable(format!(
                "peer {} already serves {} calls, which is its limit; try again later",
                inner.host.peer_id(),
                limits.total
            )));
        }
        let of_peer = running.by_peer.entry(peer).or_default();
        if *of_peer >= limits.per_peer {
            return Err(Error::unavailable(format!(
                "peer {} already serves {} calls of peer {peer}, which is the limit for one peer; try again later",
                inner.host.peer_id(),
                limits.per_peer
            )));
        }
        *of_peer += 1;
        running.total += 1;
        Ok(Permit { inner: inner.clone(), peer })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut running = self.inner.running.lock();
        running.total -= 1;
        if let Some(of_peer) = running.by_peer.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                running.by_peer.remove(&self.peer);
            }
        }
    }
}

impl Rpc {
    /// Starts serving on the host. Limits: calls per peer, calls in all ([`Limits::default`]).
    pub fn start(host: Host, members: Arc<dyn Membership>) -> Result<Rpc> {
        Rpc::start_with(host, members, Limits::default())
    }

    /// Starts serving with other limits.
    pub fn start_with(host: Host, members: Arc<dyn Membership>, limits: Limits) -> Result<Rpc> {
        let incoming = host.accept(PROTOCOL)?;
        let inner = Inner { host, members, limits, methods: RwLock::default(), running: Mutex::default() };
        let inner = Arc::new(inner);
        let serving = inner.clone();
        runtime::spawn(async move {
            while let Ok((peer, stream)) = incoming.recv().await {
                Inner::admit(&serving, peer, stream);
            }
        })
        .detach();
        Ok(Rpc { inner })
    }

    /// The host below.
    pub fn host(&self) -> &Host {
        &self.inner.host
    }

    /// Registers a method; a second registration of a name is a defect (panics in debug).
    pub fn register(&self, method: &'static str, access: Access, handler: Arc<dyn Handler>) {
        let mut methods = self.inner.methods.write();
        let before = methods.insert(method, Method { access, handler });
        debug_assert!(before.is_none(), "the method {method} is registered twice");
    }

    /// One request, one answer. A call to ourselves works too, without the network. The call has succeeded
    /// when the handler has: an answer followed by an error is that error.
    pub async fn call<Q: Serialize + Sync, A: DeserializeOwned>(
        &self,
        peer: PeerId,
        method: &'static str,
        request: &Q,
        limit: Duration,
    ) -> Result<A> {
        runtime::timeout(limit, &format!("the call \"{method}\" to peer {peer}"), async {
            let mut call = self.open(peer, method, limit).await?;
            call.set_idle(limit);
            call.send(request).await?;
            call.finish().await?;
            let answer = call.need().await?;
            while call.recv_bytes().await?.is_some() {}
            Ok(answer)
        })
        .await
    }

    /// Opens a call for streaming in either direction. `limit` is for opening; afterwards the idle limit counts.
    /// The far side hears of the call with the first flush.
    pub async fn open(&self, peer: PeerId, method: &'static str, limit: Duration) -> Result<Call> {
        let wire = if peer == self.inner.host.peer_id() {
            let (ours, theirs) = pipe::pipe();
            match Permit::take(&self.inner, peer) {
                Ok(permit) => runtime::spawn(serve(permit, Wire::Local(theirs))).detach(),
                Err(error) => return Err(error),
            }
            Wire::Local(ours)
        } else {
            let stream = self.inner.host.open(peer, PROTOCOL, limit).await;
            Wire::Net(Box::new(stream.map_err(|error| {
                Error::new(error.kind(), format!("calling \"{method}\": {}", error.message()))
            })?))
        };
        let mut channel = Channel::new(wire);
        let pushed = channel.push_method(method);
        debug_assert!(pushed.is_ok(), "the method name {method} is too long");
        Ok(Call::new(peer, method.to_owned(), End::Caller, Arc::new(Mutex::new(channel))))
    }
}

impl Inner {
    /// Serves a stream, or says why not.
    fn admit(inner: &Arc<Inner>, peer: PeerId, stream: Stream) {
        let wire = Wire::Net(Box::new(stream));
        match Permit::take(inner, peer) {
            Ok(permit) => runtime::spawn(serve(permit, wire)).detach(),
            Err(error) => {
                {
                    let mut running = inner.running.lock();
                    if running.refusals >= REFUSALS {
                        return;
                    }
                    running.refusals += 1;
                }
                let inner = inner.clone();
                runtime::spawn(async move {
                    let mut call = callee(peer, "", wire);
                    call.set_idle(METHOD_LIMIT);
                    let _ = call.end(&Err(error)).await;
                    inner.running.lock().refusals -= 1;
                })
                .detach();
            }
        }
    }

    /// The handler of a method for this caller.
    fn find(&self, peer: PeerId, method: &str) -> Result<Arc<dyn Handler>> {
        let methods = self.methods.read();
        let ourselves = self.host.peer_id();
        let Some(found) = methods.get(method) else {
            if self.members.is_starting() {
                return Err(Error::unavailable(format!(
                    "peer {ourselves} is still starting and does not answer the call \"{method}\" yet; try again"
                )));
            }
            return Err(Error::version(format!(
                "peer {ourselves} does not know the call \"{method}\"; it runs another version of pinfold: update the older one"
            )));
        };
        // What we ask of ourselves is never a stranger's wish.
        if found.access == Access::Members && peer != ourselves && !self.members.is_member(&peer) {
            return Err(Error::forbidden(format!(
                "peer {peer} is not a member of the cluster, so peer {ourselves} refuses the call \"{method}\"; join first"
            )));
        }
        Ok(found.handler.clone())
    }
}

fn callee(peer: PeerId, method: &str, wire: Wire) -> Call {
    Call::new(peer, method.to_owned(), End::Callee, Arc::new(Mutex::new(Channel::new(wire))))
}

/// Serves one call from its first byte to its end mark.
async fn serve(permit: Permit, wire: Wire) {
    let (inner, peer) = (&permit.inner, permit.peer);
    let channel = Arc::new(Mutex::new(Channel::new(wire)));
    let method =
        smol::future::or(async { Some(poll_fn(|cx| channel.lock().poll_method(cx)).await) }, async {
            Timer::after(METHOD_LIMIT).await;
            None
        })
        .await;
    let method = match method {
        Some(Ok(method)) => method,
        // Gave up, or talks nonsense: nobody is there to read a reason.
        Some(Err(error)) => return log::debug!("peer {peer} opened a call and named no method: {error:?}"),
        None => return log::debug!("peer {peer} opened a call and named no method within {METHOD_LIMIT:?}"),
    };
    let mut call = Call::new(peer, method, End::Callee, channel.clone());
    let result = match inner.find(peer, call.method()) {
        Err(error) => Err(error),
        Ok(handler) => {
            let gone = Error::cancelled(format!("peer {peer} gave up the call \"{}\"", call.method()));
            // The handler is polled first, so the watcher only reads when the handler waits for something.
            let watcher = async {
                poll_fn(|cx| channel.lock().poll_watch(cx)).await;
                Err(gone)
            };
            smol::future::or(handler.handle(&mut call), watcher).await
        }
    };
    if let Err(error) = &result {
        log::debug!("the call \"{}\" of peer {peer} failed: {error}", call.method());
    }
    let _ = call.end(&result).await;
    // Dropping the stream unclosed resets it behind the end mark. That frees a caller which is still sending
    // and would otherwise wait for a reader that is gone; what was sent before stays readable for it.
}
