//! The one executor of the process: smol's, on a fixed number of named threads.
//!
//! Everything asynchronous runs here; everything that blocks (disk, name resolution) goes through
//! [`unblock`], whose pool is smol's and is bounded by [`BLOCKING_THREADS`]. Nothing in pinfold may
//! start a runtime of its own. Timers are monotonic: the wall clock never decides when work is done.

mod timer;

pub use timer::Timer;

use crate::error::{Error, Result};
use smol::Executor;
use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

/// Executor threads. Two use both halves of a small board's time without costing memory.
pub const EXECUTOR_THREADS: usize = 2;
/// The most threads that may block at once; more work waits in line.
pub const BLOCKING_THREADS: usize = 16;

static EXECUTOR: OnceLock<Executor<'static>> = OnceLock::new();

fn executor() -> &'static Executor<'static> {
    static STARTED: OnceLock<()> = OnceLock::new();
    let executor = EXECUTOR.get_or_init(Executor::new);
    STARTED.get_or_init(|| {
        if std::env::var_os("BLOCKING_MAX_THREADS").is_none() {
            std::env::set_var("BLOCKING_MAX_THREADS", BLOCKING_THREADS.to_string());
        }
        for n in 0..EXECUTOR_THREADS {
            // A process that cannot start its first threads cannot do anything: abort with the reason.
            if let Err(error) = std::thread::Builder::new()
                .name(format!("pinfold-{n}"))
                .spawn(|| smol::block_on(executor.run(std::future::pending::<()>())))
            {
                panic!("cannot start an executor thread: {error}");
            }
        }
    });
    executor
}

/// Starts a task. Dropping the handle cancels it; `.detach()` lets it run.
pub fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> smol::Task<T> {
    executor().spawn(future)
}

/// Runs a blocking closure on the bounded pool.
pub async fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    executor();
    smol::unblock(work).await
}

/// Runs a future on the calling thread until it is done, with the executor alive beside it.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    executor();
    smol::block_on(future)
}

/// Waits for `duration`; see [`Timer`] for how exactly.
pub async fn sleep(duration: Duration) {
    Timer::after(duration).await;
}

/// The future's output, or [`crate::error::Kind::Timeout`] with `what` after `limit`.
pub async fn timeout<T>(limit: Duration, what: &str, future: impl Future<Output = Result<T>>) -> Result<T> {
    smol::future::or(future, async {
        sleep(limit).await;
        Err(Error::timeout(format!("{what}: no answer within {limit:?}")))
    })
    .await
}
