//! Kept connections to an IPFS daemon, for the connector and for the proxy alike.
//!
//! A connection belongs to one exchange at a time. Whoever read its answer to the end puts it back; dropped
//! instead, it closes the socket, which is how the daemon learns that nobody waits any more. The pool never
//! gives out a connection that is too old to be trusted or that does not take a request at once, and never keeps
//! more than it was told to.

use super::dial::{Socket, Target};
use crate::runtime;
use hyper::body::Body;
use hyper::client::conn::http1;
use parking_lot::Mutex;
use smol::Task;
use smol_hyper::rt::FuturesIo;
use std::time::{Duration, Instant};

/// An idle connection older than this is not used again: the daemon may be closing it.
pub const IDLE_TIME: Duration = Duration::from_secs(20);
/// How long a kept connection may take to see the end of its last answer.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// One connection and the task that drives it; dropping it closes the socket.
pub struct Connection<B> {
    /// Takes the requests.
    pub sender: http1::SendRequest<B>,
    /// Where it leads.
    pub target: Target,
    driver: Task<()>,
}

impl<B> Connection<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Begins to speak HTTP on a socket.
    ///
    /// # Errors
    /// What hyper says of the handshake.
    pub async fn open(
        builder: &http1::Builder,
        socket: Box<dyn Socket>,
        target: &Target,
    ) -> hyper::Result<Connection<B>> {
        let (sender, connection) = builder.handshake(FuturesIo::new(socket)).await?;
        let driver = runtime::spawn(async move {
            // Its errors reach whoever waits for the answer.
            let _ = connection.await;
        });
        Ok(Connection { sender, target: target.clone(), driver })
    }
}

impl<B> Connection<B> {
    /// Returns when the daemon has closed it.
    pub async fn closed(&mut self) {
        (&mut self.driver).await;
    }
}

/// Idle connections to one daemon.
pub struct Pool<B> {
    idle: Mutex<Vec<(Instant, Connection<B>)>>,
    most: usize,
}

impl<B> Pool<B> {
    /// Keeps at most so many.
    pub fn new(most: usize) -> Self {
        Pool { idle: Mutex::default(), most }
    }

    /// A kept connection that takes a request. One that was put back a moment ago may still have to see the end of
    /// its last answer: that is waited for, it takes less than a new connection.
    pub async fn checkout(&self) -> Option<Connection<B>> {
        loop {
            let (since, mut connection) = self.idle.lock().pop()?;
            if since.elapsed() >= IDLE_TIME || connection.sender.is_closed() {
                continue;
            }
            let ready = smol::future::or(async { connection.sender.ready().await.is_ok() }, async {
                runtime::sleep(SETTLE_TIME).await;
                false
            });
            if ready.await {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose answer was read to its end, if there is room.
    pub fn put_back(&self, connection: Connection<B>) {
        let mut idle = self.idle.lock();
        idle.retain(|(since, c)| since.elapsed() < IDLE_TIME && !c.sender.is_closed());
        if idle.len() < self.most {
            idle.push((Instant::now(), connection));
        }
    }

    /// Closes them all.
    pub fn clear(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        drop(idle);
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.idle.lock().len()
    }
}
