//! A stream of a call, as any peer that got through the secret may write it.

use super::frame::{Channel, Frame, Wire, WireError, METHOD_MAX};
use super::{pipe, serve, Permit, Rpc, MAX_FRAME};
use crate::error::Error;
use crate::fuzz::pieces;
use bytes::Bytes;
use futures::task::noop_waker;
use futures::AsyncWriteExt;
use std::task::{Context, Poll};

/// What a stream says: the method, the frames, and how it ends.
#[derive(Debug, PartialEq)]
struct Said {
    method: Option<String>,
    frames: Vec<Result<Bytes, Result<(), Error>>>,
    end: String,
}

/// Reads a stream whose pieces arrive one by one; the watcher looks at it in between when `watched`.
fn listen(pieces: &[Bytes], watched: bool) -> Said {
    let (mut far, near) = pipe::pipe();
    let mut channel = Channel::new(Wire::Local(near));
    let waker = noop_waker();
    let mut cx = Context::from_waker(&waker);
    let mut said = Said { method: None, frames: Vec::new(), end: String::new() };
    let mut rest = pieces.iter();
    let mut next = rest.next();
    loop {
        match next {
            Some(piece) => {
                futures::executor::block_on(far.write_all(piece)).expect("the pipe has room for an input");
                next = rest.next();
            }
            None => futures::executor::block_on(far.close()).expect("closed"),
        }
        let over = pieces.is_empty() || next.is_none();
        if watched {
            let _ = channel.poll_watch(&mut cx);
        }
        loop {
            let error = if said.method.is_none() {
                match channel.poll_method(&mut cx) {
                    Poll::Ready(Ok(method)) => {
                        assert!((1..=METHOD_MAX).contains(&method.len()));
                        said.method = Some(method);
                        continue;
                    }
                    Poll::Ready(Err(error)) => error,
                    Poll::Pending => break,
                }
            } else {
                match channel.poll_frame(&mut cx) {
                    Poll::Ready(Ok(Frame::Data(bytes))) => {
                        assert!(bytes.len() <= MAX_FRAME);
                        said.frames.push(Ok(bytes));
                        continue;
                    }
                    Poll::Ready(Ok(Frame::End(outcome))) => {
                        said.frames.push(Err(outcome));
                        continue;
                    }
                    Poll::Ready(Err(error)) => error,
                    Poll::Pending => break,
                }
            };
            said.end = match error {
                WireError::Gone => "gone".to_owned(),
                other => format!("{other:?}"),
            };
            return said;
        }
        if over && next.is_none() {
            futures::executor::block_on(far.close()).expect("closed");
        }
    }
}

/// Any bytes as a stream, in one piece and in many: the same is heard. What was heard, said again, is heard again.
pub(crate) fn frames(data: &[u8]) {
    let Some((&seed, data)) = data.split_first() else { return };
    let whole = listen(&[Bytes::copy_from_slice(data)], false);
    let many: Vec<Bytes> = pieces(data, seed).into_iter().flatten().collect();
    assert_eq!(listen(&many, seed & 1 == 1), whole, "it matters how it arrives");

    let Some(method) = &whole.method else { return };
    let (near, far) = pipe::pipe();
    let mut channel = Channel::new(Wire::Local(near));
    channel.push_method(method).expect("a name that was read can be written");
    let waker = noop_waker();
    let mut cx = Context::from_waker(&waker);
    for frame in &whole.frames {
        match frame {
            Ok(bytes) => {
                if channel.must_flush() {
                    assert!(matches!(channel.poll_flush(&mut cx), Poll::Ready(Ok(()))));
                }
                channel.push_bytes(bytes.clone()).expect("what was read can be written");
            }
            Err(outcome) => channel.push_end(outcome),
        }
    }
    assert!(matches!(channel.poll_flush(&mut cx), Poll::Ready(Ok(()))), "the pipe has room for an input");
    assert_eq!(channel.pending(), 0);
    drop(channel);
    let mut back = Channel::new(Wire::Local(far));
    let Poll::Ready(Ok(again)) = back.poll_method(&mut cx) else { panic!("the method is gone") };
    assert_eq!(&again, method);
    for frame in &whole.frames {
        match (back.poll_frame(&mut cx), frame) {
            (Poll::Ready(Ok(Frame::Data(bytes))), Ok(said)) => assert_eq!(&bytes, said),
            (Poll::Ready(Ok(Frame::End(outcome))), Err(said)) => assert_eq!(&outcome, said),
            (heard, said) => panic!("{said:?} was said and {:?} was heard", heard.is_ready()),
        }
    }
}

/// Makes a call of ours out of raw bytes and gives the answer's messages; `None` when there was no end mark, which is how a
/// stream of nonsense ends.
pub(crate) async fn raw_call(rpc: &Rpc, bytes: &[u8]) -> Option<Vec<Bytes>> {
    let (mut near, far) = pipe::pipe();
    let permit = Permit::take(&rpc.inner, rpc.host().peer_id()).ok()?;
    let serving = crate::runtime::spawn(serve(permit, Wire::Local(far)));
    // A handler that does not want to read all of it ends the call.
    let _ = near.write_all(bytes).await;
    let _ = near.close().await;
    let mut channel = Channel::new(Wire::Local(near));
    let mut messages = Vec::new();
    loop {
        match std::future::poll_fn(|cx| channel.poll_frame(cx)).await {
            Ok(Frame::Data(message)) => messages.push(message),
            Ok(Frame::End(_)) => break,
            Err(WireError::Gone) => return None,
            Err(error) => panic!("the answer is malformed: {error:?}"),
        }
    }
    serving.await;
    Some(messages)
}
