//! Who is alive, silent, or gone, as the leader sees it. Pure: monotonic time comes in.
//!
//! A peer is *silent* when its ping has expired and *gone* when it has been silent for the grace time more. Only
//! the leader decides that, and only from what it has itself watched: a new leader starts every silence anew, and so
//! does one that has not looked for a while (a board that was suspended must not wake up and find that everybody
//! else has died). A member that was never heard must become gone too: it gets the time of one ping from when
//! the watch began. No wall clock takes part, here or at the peers.

use std::time::Duration;

/// What a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Its ping is valid.
    Live,
    /// It has none, but may come back.
    Silent,
    /// Silent for longer than the grace time.
    Gone,
}

/// The watch of one leader.
#[derive(Clone, Debug)]
pub struct Liveness {
    ping_ttl: u64,
    grace: u64,
    stall: u64,
    /// Since when every silence counts; `None` while nobody watches.
    began: Option<u64>,
    looked: u64,
}

impl Liveness {
    /// `stall`: a pause between two looks that makes the watch start anew.
    pub fn new(ping_ttl: Duration, grace: Duration, stall: Duration) -> Self {
        let ms = |d: Duration| d.as_millis() as u64;
        Liveness { ping_ttl: ms(ping_ttl), grace: ms(grace), stall: ms(stall), began: None, looked: 0 }
    }

    /// The watch ends: somebody else leads.
    pub fn rest(&mut self) {
        self.began = None;
    }

    /// A look at the time; to be followed by [`Liveness::presence`] of each member. Whether the watch began with it.
    pub fn look(&mut self, now: u64) -> bool {
        let anew = self.began.is_none() || now.saturating_sub(self.looked) > self.stall;
        if anew {
            self.began = Some(now);
        }
        self.looked = now;
        anew
    }

    /// What a member is, whose last ping is good until `valid_until` (`None`: never heard).
    pub fn presence(&self, valid_until: Option<u64>) -> Presence {
        let now = self.looked;
        let Some(began) = self.began else { return Presence::Silent };
        let silent_since = match valid_until {
            Some(until) if until > now => return Presence::Live,
            Some(until) => until.max(began),
            None => began + self.ping_ttl,
        };
        if now >= silent_since + self.grace {
            Presence::Gone
        } else {
            Presence::Silent
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(grace: u64) -> Liveness {
        let s = Duration::from_secs;
        Liveness::new(s(30), s(grace), s(60))
    }

    #[test]
    fn silence_becomes_death_after_the_grace() {
        let mut watch = watch(30);
        assert!(watch.look(0));
        assert_eq!(watch.presence(Some(30_000)), Presence::Live);
        for (now, is) in [(29_999, Presence::Live), (30_000, Presence::Silent), (59_999, Presence::Silent)] {
            assert!(!watch.look(now));
            assert_eq!(watch.presence(Some(30_000)), is, "{now}");
        }
        watch.look(60_000);
        assert_eq!(watch.presence(Some(30_000)), Presence::Gone);
        assert_eq!(watch.presence(Some(90_000)), Presence::Live, "it is back");
    }

    #[test]
    fn without_grace_it_is_gone_with_its_ping() {
        let mut watch = watch(0);
        watch.look(0);
        watch.look(30_000);
        assert_eq!(watch.presence(Some(30_000)), Presence::Gone);
    }

    #[test]
    fn a_new_leader_starts_every_silence_anew() {
        let mut watch = watch(30);
        watch.look(100_000);
        assert_eq!(watch.presence(Some(10)), Presence::Silent);
        watch.look(129_999);
        assert_eq!(watch.presence(Some(10)), Presence::Silent);
        watch.look(130_000);
        assert_eq!(watch.presence(Some(10)), Presence::Gone);
        watch.rest();
        assert!(watch.look(131_000), "and so does one that leads again");
        assert_eq!(watch.presence(Some(10)), Presence::Silent);
    }

    #[test]
    fn who_was_never_heard_times_out_too() {
        let mut watch = watch(30);
        watch.look(5_000);
        assert_eq!(watch.presence(None), Presence::Silent);
        watch.look(64_999);
        assert_eq!(watch.presence(None), Presence::Silent);
        watch.look(65_000);
        assert_eq!(watch.presence(None), Presence::Gone);
    }

    #[test]
    fn a_leader_that_was_asleep_declares_nobody_dead() {
        let mut watch = watch(30);
        watch.look(0);
        assert!(watch.look(500_000));
        assert_eq!(watch.presence(Some(30_000)), Presence::Silent);
        assert_eq!(watch.presence(None), Presence::Silent);
    }
}
