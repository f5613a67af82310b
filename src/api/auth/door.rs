//! The door: how much work strangers can make us do by trying passwords.
//!
//! Checking a hashed password takes half a second of a core, on purpose. So checks stand in one line: one at a time,
//! [`MAX_WAITING`] in line, and everybody beyond that is told to come back. A wrong password keeps the door closed
//! for as long again as it took, so that a flood of them costs at most half a core. Whoever was right once is known by
//! a keyed digest of what he sent and passes without a check, however long the line is; the digests live in memory
//! only, under a key that is made at start.
//!
//! It must never: keep a password, remember a wrong one, or end a check because the client hung up (an attacker who
//! hangs up would otherwise have as many checks at once as connections).

use crate::password::Hashed;
use crate::runtime;
use futures::channel::oneshot;
use parking_lot::Mutex;
use ring::hmac;
use smol::lock::Semaphore;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Instant;

/// Checks that may stand in line, the one under way included.
pub(super) const MAX_WAITING: usize = 16;

/// What came of asking at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The password is right.
    Right,
    /// It is not.
    Wrong,
    /// The line is full; nothing was checked.
    Busy,
}

/// See the module's words.
pub(super) struct Door {
    /// Of whom we know that he was right. Bounded: one digest per user of the configuration.
    known: Mutex<BTreeMap<String, [u8; 32]>>,
    key: hmac::Key,
    one: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

/// A place in the line, given back however the check ends.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn take(count: &Arc<AtomicUsize>) -> Option<Waiting> {
        let room = |n| (n < MAX_WAITING).then_some(n + 1);
        count.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).ok()?;
        Some(Waiting(count.clone()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Door {
    /// A door that knows nobody yet.
    pub(super) fn new() -> crate::Result<Door> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)
            .map_err(|e| crate::Error::io(format!("cannot read random bytes for the API's logins: {e}")))?;
        Ok(Door {
            known: Mutex::default(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            one: Arc::new(Semaphore::new(1)),
            waiting: Arc::default(),
        })
    }

    /// Whether `given` is the password of `user`. Without `user` the answer is never "right": the check is only made so
    /// that an unknown user takes as long as a known one.
    pub(super) async fn ask(&self, user: Option<&str>, hashed: &Hashed, given: &str) -> Verdict {
        let digest = self.digest(user.unwrap_or(""), given);
        if user.is_some_and(|user| self.knows(user, &digest)) {
            return Verdict::Right;
        }
        let Some(place) = Waiting::take(&self.waiting) else { return Verdict::Busy };
        let (tell, told) = oneshot::channel();
        let (one, hashed, given) = (self.one.clone(), hashed.clone(), given.to_owned());
        // Detached, so that it runs in line to its end whether or not the client still waits.
        runtime::spawn(async move {
            let _place = place;
            let _turn = one.acquire_arc().await;
            let began = Instant::now();
            let right = runtime::unblock(move || hashed.verify(&given)).await;
            let took = began.elapsed();
            let _ = tell.send(right);
            if !right {
                runtime::sleep(took).await;
            }
        })
        .detach();
        match (told.await, user) {
            (Ok(true), Some(user)) => {
                self.known.lock().insert(user.to_owned(), digest);
                Verdict::Right
            }
            _ => Verdict::Wrong,
        }
    }

    fn digest(&self, user: &str, given: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&(user.len() as u64).to_be_bytes());
        context.update(user.as_bytes());
        context.update(given.as_bytes());
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    fn knows(&self, user: &str, digest: &[u8; 32]) -> bool {
        let known = self.known.lock();
        known.get(user).is_some_and(|known| super::same_bytes(known, digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed() -> Hashed {
        Hashed::new("secret").expect("hash")
    }

    #[test]
    fn who_was_right_once_passes_without_a_check() {
        runtime::block_on(async {
            let (door, hashed) = (Door::new().expect("door"), hashed());
            assert_eq!(door.ask(Some("ann"), &hashed, "wrong").await, Verdict::Wrong);
            assert_eq!(door.ask(Some("ann"), &hashed, "secret").await, Verdict::Right);
            // The line is full from here on, and ann does not stand in it.
            door.waiting.store(MAX_WAITING, Ordering::Release);
            assert_eq!(door.ask(Some("ann"), &hashed, "secret").await, Verdict::Right);
            assert_eq!(door.ask(Some("ann"), &hashed, "wrong").await, Verdict::Busy);
            assert_eq!(door.ask(Some("bob"), &hashed, "secret").await, Verdict::Busy);
        });
    }

    #[test]
    fn an_unknown_user_is_never_right_and_never_remembered() {
        runtime::block_on(async {
            let (door, hashed) = (Door::new().expect("door"), hashed());
            assert_eq!(door.ask(None, &hashed, "secret").await, Verdict::Wrong);
            assert!(door.known.lock().is_empty());
        });
    }

    #[test]
    fn a_flood_stands_in_one_line_of_limited_length() {
        runtime::block_on(async {
            let (door, hashed) = (Arc::new(Door::new().expect("door")), hashed());
            let (tell, told) = async_channel::unbounded();
            let asked: Vec<_> = (0..3 * MAX_WAITING)
                .map(|_| {
                    let (door, hashed, tell) = (door.clone(), hashed.clone(), tell.clone());
                    runtime::spawn(async move {
                        let verdict = door.ask(Some("ann"), &hashed, "wrong").await;
                        let _ = tell.send(verdict).await;
                    })
                })
                .collect();
            for _ in 0..2 * MAX_WAITING {
                assert_eq!(told.recv().await, Ok(Verdict::Busy), "those beyond the line are told at once");
            }
            // The clients hang up; their checks stay in line all the same.
            drop(asked);
            assert_eq!(door.ask(Some("ann"), &hashed, "wrong").await, Verdict::Busy);
            assert!(door.one.try_acquire().is_none(), "one check is under way");
        });
    }
}
