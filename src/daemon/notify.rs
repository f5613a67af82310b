//! sd_notify: tells systemd what the daemon is doing. Without `$NOTIFY_SOCKET` everything here does nothing.
//!
//! The protocol is `sd_notify(3)`: datagrams of `KEY=value` lines to a Unix socket.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Sends one message; a failure is only logged, for the daemon works without systemd.
pub fn notify(message: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let path = path.to_string_lossy().into_owned();
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent =
        address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address));
    if let Err(error) = sent {
        log::debug!(target: "service", "systemd was not told \"{message}\": {error}");
    }
}

/// How often the watchdog must be fed: half of what `$WATCHDOG_USEC` says, for this process.
pub fn watchdog_interval() -> Option<Duration> {
    let for_us = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
    let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (for_us && micros > 0).then(|| Duration::from_micros(micros / 2))
}
