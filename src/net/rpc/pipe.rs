//! A byte stream in memory: what a call to ourselves runs over instead of the network.
//!
//! Two ends, each a reader and a writer with [`CAPACITY`] bytes in between, so that a local call has the
//! back-pressure of a remote one. Dropping an end is what a reset is on the network: the other end still reads
//! what is in the pipe, then meets the end; its writes fail.

use futures::{AsyncRead, AsyncWrite};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Bytes on the way in each direction.
const CAPACITY: usize = 256 << 10;

#[derive(Default)]
struct Lane {
    bytes: VecDeque<u8>,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Lane {
    fn close(&mut self) {
        self.closed = true;
        [self.reader.take(), self.writer.take()].into_iter().flatten().for_each(Waker::wake);
    }
}

/// One end.
pub(super) struct Pipe {
    incoming: Arc<Mutex<Lane>>,
    outgoing: Arc<Mutex<Lane>>,
}

/// Two ends.
pub(super) fn pipe() -> (Pipe, Pipe) {
    let (a, b) = (Arc::<Mutex<Lane>>::default(), Arc::<Mutex<Lane>>::default());
    (Pipe { incoming: a.clone(), outgoing: b.clone() }, Pipe { incoming: b, outgoing: a })
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut lane = self.incoming.lock();
        if lane.bytes.is_empty() && !lane.closed {
            lane.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = lane.bytes.read(buffer)?;
        if let Some(writer) = lane.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(n))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut lane = self.outgoing.lock();
        if lane.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let n = bytes.len().min(CAPACITY.saturating_sub(lane.bytes.len()));
        if n == 0 && !bytes.is_empty() {
            lane.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        lane.bytes.extend(&bytes[..n]);
        if let Some(reader) = lane.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.lock().close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.incoming.lock().close();
        self.outgoing.lock().close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn a_full_pipe_holds_the_writer_up_and_a_dropped_end_is_noticed() {
        crate::runtime::block_on(async {
            let (mut a, mut b) = pipe();
            let sent: Vec<u8> = (0..3 * CAPACITY).map(|n| n as u8).collect();
            let copy = sent.clone();
            let writer = crate::runtime::spawn(async move {
                a.write_all(&copy).await.expect("write");
                a
            });
            let mut got = vec![0; sent.len()];
            b.read_exact(&mut got).await.expect("read");
            assert!(got == sent);
            let mut a = writer.await;
            a.write_all(b"last words").await.expect("write");
            drop(a);
            let mut rest = Vec::new();
            b.read_to_end(&mut rest).await.expect("read");
            assert_eq!(rest, b"last words");
            assert!(b.write(b"x").await.is_err());
        });
    }
}
