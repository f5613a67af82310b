//! The addresses of this machine, as they come and go.
//!
//! The kernel tells of every change on a netlink socket (rtnetlink(7)). What it tells is not read: after any word all
//! addresses are listed again (getifaddrs(3)), and the difference is what has happened. So a word that was lost when the
//! socket was full costs nothing, and nobody can make us parse anything.

use async_io::Async;
use if_addrs::get_if_addrs;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{bind, recv, socket_with, AddressFamily, RecvFlags, SocketFlags, SocketType};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

/// Changes of IPv4 and of IPv6 addresses (`RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV6_IFADDR` of linux/rtnetlink.h).
const GROUPS: u32 = 0x10 | 0x100;
/// Words of the kernel taken in one go before the addresses are listed: a machine that starts many containers at once
/// has them listed once.
const AT_ONCE: usize = 256;

/// What has happened to an address of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// An interface has it now.
    Came(IpAddr),
    /// No interface has it any more.
    Went(IpAddr),
}

/// Watches the addresses of all interfaces of the network namespace in which it was made.
pub(super) struct Interfaces {
    socket: Async<OwnedFd>,
    known: BTreeSet<IpAddr>,
    /// The kernel has spoken since `known` was listed.
    stale: bool,
    changes: VecDeque<Change>,
}

impl Interfaces {
    /// Begins; the first changes are the addresses that are there.
    ///
    /// # Errors
    /// A sandbox without netlink; no file descriptor left.
    pub(super) fn new() -> io::Result<Interfaces> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // No protocol is protocol 0, NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        let socket = Async::new_nonblocking(socket)?;
        let mut interfaces =
            Interfaces { socket, known: BTreeSet::new(), stale: true, changes: VecDeque::new() };
        // After the socket listens: nothing falls between.
        interfaces.look()?;
        Ok(interfaces)
    }

    /// The next change. An error is one that passes: to be asked again after a while.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Change>> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return Poll::Ready(Ok(change));
            }
            self.stale |= self.heard()?;
            if self.stale {
                self.look()?;
            } else if let Poll::Ready(ready) = self.socket.poll_readable(cx) {
                ready?;
            } else {
                return Poll::Pending;
            }
        }
    }

    /// Whether the kernel has said anything.
    fn heard(&self) -> io::Result<bool> {
        for word in 0..AT_ONCE {
            // Cut off by the kernel: one byte stands for the word.
            match recv(self.socket.get_ref(), &mut [0u8; 1], RecvFlags::DONTWAIT) {
                // Words were lost, which is a word, too.
                Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(word > 0),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn look(&mut self) -> io::Result<()> {
        let now: BTreeSet<IpAddr> = get_if_addrs()?.iter().map(if_addrs::Interface::ip).collect();
        self.changes.extend(self.known.difference(&now).map(|ip| Change::Went(*ip)));
        self.changes.extend(now.difference(&self.known).map(|ip| Change::Came(*ip)));
        (self.known, self.stale) = (now, false);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn loopback_is_there_from_the_beginning_and_then_it_is_quiet() {
        crate::runtime::block_on(async {
            let mut interfaces = Interfaces::new().expect("netlink");
            let mut all = Vec::new();
            futures::future::poll_fn(|cx| {
                while let Poll::Ready(change) = interfaces.poll(cx) {
                    all.push(change.expect("a change"));
                }
                Poll::Ready(())
            })
            .await;
            assert!(all.contains(&Change::Came(Ipv4Addr::LOCALHOST.into())), "{all:?}");
            assert!(all.iter().all(|change| matches!(change, Change::Came(_))), "{all:?}");
        });
    }

    #[test]
    fn what_goes_and_what_comes_is_the_difference() {
        let mut interfaces = Interfaces::new().expect("netlink");
        let first: Vec<Change> = interfaces.changes.drain(..).collect();
        // As if the last look had shown another machine.
        let other = IpAddr::from([192, 0, 2, 77]);
        interfaces.known = BTreeSet::from([other]);
        interfaces.look().expect("a look");
        assert_eq!(interfaces.changes[0], Change::Went(other));
        assert_eq!(Vec::from(interfaces.changes.clone())[1..], first);
    }
}
