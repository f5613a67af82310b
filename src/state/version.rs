//! The cluster version: what the members of a cluster may say to each other.
//!
//! Peers are upgraded one after the other, and for a while a cluster runs two versions of pinfold. Whatever is put
//! into the log then must be understood by all of them. So the replicated state itself says up to which version the
//! log may speak: [`FIRST`] until something else is agreed on, raised by the leader (`Command::RaiseVersion`) once
//! every member has told (in its ping) that it understands the next one, and never lowered. A command tells
//! with [`Command::needs`](super::Command::needs) from which version on it may be proposed.
//!
//! The version counts what the log and the replicated rows mean, not releases: a release that adds nothing to them
//! speaks the same version as the one before.
//!
//! What must hold: commands and rows that an earlier version knew keep their bytes, so that peers of different
//! builds have the same digest at the same applied index; a row is a function of the commands before it and never
//! of the build that applies them; a peer that does not speak the cluster's version stops, or does not start,
//! with a sentence, and never guesses.

/// What every pinfold speaks, and what a cluster speaks whose state does not say otherwise.
pub const FIRST: u16 = 1;
/// The highest version that this program speaks.
pub const SPOKEN: u16 = 3;

/// From this version on members' records carry the version of their software.
pub const MEMBER_VERSIONS: u16 = 2;
/// From this version on pins may be moved by `Command::Reallocate`.
pub const REALLOCATE: u16 = 2;
/// From this version on a member may be a witness.
pub const WITNESS: u16 = 3;
/// From this version on proposals say since when they may be in a log (see `consensus::proposals`).
pub const PROPOSALS_SAY_SINCE: u16 = 3;

/// Which releases speak which version: from this release (major, minor) on, until the next line. A release that
/// is not out yet is above the last line and counts as that: it speaks whatever we do.
const RELEASES: [((u64, u64), u16); 3] = [((0, 1), FIRST), ((0, 2), REALLOCATE), ((0, 3), SPOKEN)];

/// What a release speaks at least, by its version (`0.2.1`, `0.3.0-rc1`): all that a joining peer tells of itself.
/// What is no version speaks the first.
#[must_use]
pub fn spoken_by(release: &str) -> u16 {
    let mut numbers = release.trim_start_matches('v').split(['.', '-', '+']).map(str::parse::<u64>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return FIRST };
    let known = RELEASES.iter().rev().find(|(from, _)| (major, minor) >= *from);
    known.map_or(FIRST, |(_, version)| *version)
}

/// The first release that speaks this version, for sentences that say what to install.
#[must_use]
pub fn first_release(version: u16) -> String {
    let known = RELEASES.iter().find(|(_, speaks)| *speaks >= version);
    known
        .map_or_else(|| "a newer one".to_owned(), |((major, minor), _)| format!("{major}.{minor}.0 or newer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_speak_what_they_did() {
        for (release, speaks) in [
            ("0.1.0", 1),
            ("0.1.17", 1),
            ("0.2.0", 2),
            ("v0.2.0-rc1", 2),
            ("0.3.0", 3),
            ("0.3.0-dev", 3),
            ("0.99.0+git", 3),
            ("7.0.0", 3),
            ("", 1),
            ("0", 1),
            ("nonsense", 1),
            ("0.x.1", 1),
            ("99999999999999999999999.1", 1),
        ] {
            assert_eq!(spoken_by(release), speaks, "{release}");
        }
        assert_eq!(spoken_by(crate::VERSION), SPOKEN, "this release is missing in the table");
        assert_eq!(first_release(REALLOCATE), "0.2.0 or newer");
        assert_eq!(first_release(SPOKEN), "0.3.0 or newer");
        assert_eq!(first_release(SPOKEN + 1), "a newer one");
    }
}
