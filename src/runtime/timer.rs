//! Timers for limits: cheap to start and to drop, a little late.
//!
//! Nearly every call here runs under a limit of seconds that is dropped unused a millisecond later. async-io wakes
//! its reactor for each timer that is set; at thousands of calls per second that is most of what the
//! threads do (measured: 6 of 10 wake-ups per committed pin). So a wait of [`COARSE`] or more is kept in a table that
//! one task looks at every [`GRAIN`]; it ends up to that much late, never early. Shorter waits are
//! async-io's own and precise. With an empty table nothing runs.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Waits of at least this are kept in the table.
pub const COARSE: Duration = Duration::from_secs(1);
/// How often the table is looked at, and how late a wait may end.
pub const GRAIN: Duration = Duration::from_millis(100);

/// When, and a number that tells waits apart.
type Key = (Instant, u64);

struct Table {
    waits: BTreeMap<Key, Waker>,
    next: u64,
    /// Whether the task runs.
    watched: bool,
}

static TABLE: Mutex<Table> = Mutex::new(Table { waits: BTreeMap::new(), next: 0, watched: false });

/// A point in time to wait for; dropping it costs nothing.
#[derive(Debug)]
pub struct Timer(Kind);

#[derive(Debug)]
enum Kind {
    Fine(async_io::Timer),
    Coarse { at: Instant, key: Option<Key> },
}

impl Timer {
    /// Ends after `wait`. A wait too long for the clock never ends.
    pub fn after(wait: Duration) -> Timer {
        match Instant::now().checked_add(wait) {
            Some(at) if wait >= COARSE => Timer(Kind::Coarse { at, key: None }),
            _ => Timer(Kind::Fine(async_io::Timer::after(wait))),
        }
    }

    /// Ends at `at`.
    pub fn at(at: Instant) -> Timer {
        if at.saturating_duration_since(Instant::now()) >= COARSE {
            Timer(Kind::Coarse { at, key: None })
        } else {
            Timer(Kind::Fine(async_io::Timer::at(at)))
        }
    }
}

impl Future for Timer {
    type Output = Instant;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Instant> {
        match &mut self.0 {
            Kind::Fine(timer) => Pin::new(timer).poll(cx),
            Kind::Coarse { at, key } => {
                if Instant::now() >= *at {
                    if let Some(key) = key.take() {
                        TABLE.lock().waits.remove(&key);
                    }
                    return Poll::Ready(*at);
                }
                let mut table = TABLE.lock();
                let known = *key.get_or_insert_with(|| {
                    table.next += 1;
                    (*at, table.next)
                });
                match table.waits.get_mut(&known) {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => {
                        table.waits.insert(known, cx.waker().clone());
                    }
                }
                if !table.watched {
                    table.watched = true;
                    super::spawn(watch()).detach();
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Kind::Coarse { key: Some(key), .. } = &self.0 {
            TABLE.lock().waits.remove(key);
        }
    }
}

/// Wakes what is due, until nothing waits.
async fn watch() {
    loop {
        async_io::Timer::after(GRAIN).await;
        let due: Vec<Waker> = {
            let mut table = TABLE.lock();
            if table.waits.is_empty() {
                table.watched = false;
                return;
            }
            let later = table.waits.split_off(&(Instant::now(), u64::MAX));
            std::mem::replace(&mut table.waits, later).into_values().collect()
        };
        // Outside the lock: whoever wakes may set the next timer at once.
        due.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_end_in_order_and_never_early() {
        let start = Instant::now();
        let wait = |ms: u64| {
            crate::runtime::spawn(async move {
                let asked = Duration::from_millis(ms);
                Timer::after(asked).await;
                (asked, start.elapsed())
            })
        };
        let waits: Vec<_> = [1_200, 20, 1_000, 300].into_iter().map(wait).collect();
        for wait in waits {
            let (asked, took) = crate::runtime::block_on(wait);
            assert!(took >= asked, "{took:?} for {asked:?}");
        }
    }

    #[test]
    fn a_dropped_wait_leaves_the_table() {
        let mine = Instant::now() + Duration::from_secs(86_400);
        let mut timer = Box::pin(Timer::at(mine));
        let waiting = || TABLE.lock().waits.keys().filter(|(at, _)| *at == mine).count();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(timer.as_mut().poll(&mut cx).is_pending());
        assert!(timer.as_mut().poll(&mut cx).is_pending(), "polled twice it waits once");
        assert_eq!(waiting(), 1);
        drop(timer);
        assert_eq!(waiting(), 0);
    }
}
