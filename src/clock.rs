//! Time as data: timestamps in pins and answers, durations in config files.
//!
//! Wall-clock time never decides anything that is replicated (a Pi's clock starts in 1970): it is read
//! here, put into a record as data, and only compared by the peer that proposes a command. Waiting is
//! done with monotonic timers (`crate::runtime`), never with a [`Timestamp`].

use crate::error::{Error, Result};
use serde::{de, Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::{format_description::well_known::Rfc3339, OffsetDateTime};

/// A point in time, to the nanosecond. Go's zero time (year 1) is [`Timestamp::ZERO`] and means "none".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970, UTC.
    pub secs: i64,
    /// Nanoseconds in the second, below 1,000,000,000.
    pub nanos: u32,
}

/// How long before the end of 32-bit time a program is no longer started.
const MARGIN_SECS: i64 = 3_600;
/// Seconds from 1970 back to Go's zero time.
const ZERO_SECS: i64 = -62_135_596_800;
/// Seconds from 1970 to the end of the last year that RFC 3339 can write.
const LAST_SECS: i64 = 253_402_300_799;

impl Timestamp {
    /// `0001-01-01T00:00:00Z`: no time.
    pub const ZERO: Timestamp = Timestamp { secs: ZERO_SECS, nanos: 0 };

    /// The wall clock, as it is (it may be wrong).
    pub fn now() -> Self {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(d) => Timestamp { secs: d.as_secs() as i64, nanos: d.subsec_nanos() },
            Err(_) => Timestamp { secs: 0, nanos: 0 },
        }
    }

    /// Whether every part of this program can tell the time that it is: std and what is built on it cannot where seconds
    /// have 32 bits, and end the process instead. Asked once, before anything else, so that a clock that woke up in the far
    /// future is told in words.
    ///
    /// # Errors
    /// [`crate::Kind::Unavailable`] beyond the 19th of January 2038 on a 32-bit system.
    pub fn can_be_told() -> Result<()> {
        // The kernel itself counts on.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
        within(now, if usize::BITS < 64 { i64::from(i32::MAX) } else { i64::MAX })
    }

    /// A time of whole seconds since 1970.
    pub const fn from_secs(secs: i64) -> Self {
        Timestamp { secs, nanos: 0 }
    }

    /// Whether this is "none".
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    /// The same without the fraction, as stored in the state.
    #[must_use]
    pub fn trunc(self) -> Self {
        Timestamp { secs: self.secs, nanos: 0 }
    }

    /// Nanoseconds since 1970, saturating.
    pub fn unix_nanos(self) -> i64 {
        self.secs.saturating_mul(1_000_000_000).saturating_add(i64::from(self.nanos))
    }

    /// From nanoseconds since 1970.
    pub fn from_unix_nanos(n: i64) -> Self {
        Timestamp { secs: n.div_euclid(1_000_000_000), nanos: n.rem_euclid(1_000_000_000) as u32 }
    }

    /// This time plus a duration, saturating.
    #[must_use]
    pub fn plus(self, d: Duration) -> Self {
        let nanos = self.nanos + d.subsec_nanos();
        let carry = i64::from(nanos / 1_000_000_000);
        let secs = i64::try_from(d.as_secs()).unwrap_or(i64::MAX / 4);
        Timestamp { secs: self.secs.saturating_add(secs).saturating_add(carry), nanos: nanos % 1_000_000_000 }
    }

    /// Parses RFC 3339.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] with the text that was given.
    pub fn parse(text: &str) -> Result<Self> {
        let t = OffsetDateTime::parse(text, &Rfc3339).map_err(|e| {
            Error::invalid(format!("\"{text}\" is not a time like 2006-01-02T15:04:05Z: {e}"))
        })?;
        let secs = t.unix_timestamp();
        // The year zero can be read; and with an hour's offset, the one after the last.
        if !(ZERO_SECS..=LAST_SECS).contains(&secs) {
            return Err(Error::invalid(format!(
                "\"{text}\" is not a time between the years 1 and 9999, UTC"
            )));
        }
        Ok(Timestamp { secs, nanos: t.nanosecond() })
    }

    /// `2006-01-02 15:04:05`, UTC, for people.
    pub fn plain(self) -> String {
        let text = self.to_string();
        text.get(..19).map_or_else(|| text.clone(), |t| t.replace('T', " "))
    }
}

/// Whether a clock that says `now` can be told by who counts to `last`.
fn within(now: i64, last: i64) -> Result<()> {
    // What goes on while the program runs comes after.
    if now <= last.saturating_sub(MARGIN_SECS) {
        return Ok(());
    }
    Err(Error::unavailable(format!(
        "this system's clock says {}, and a 32-bit pinfold can tell the time only until 2038: set the clock \
         (`timedatectl set-ntp true`), or take a 64-bit system",
        Timestamp::from_secs(now)
    )))
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The range that RFC 3339 can write; anything outside is shown as its nearest end.
        let secs = self.secs.clamp(ZERO_SECS, LAST_SECS);
        let t = OffsetDateTime::from_unix_timestamp(secs).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second()
        )?;
        if self.nanos > 0 {
            let fraction = format!("{:09}", self.nanos);
            write!(f, ".{}", fraction.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            s.collect_str(self)
        } else {
            (self.secs, self.nanos).serialize(s)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            let text = String::deserialize(d)?;
            Timestamp::parse(&text).map_err(de::Error::custom)
        } else {
            let (secs, nanos) = <(i64, u32)>::deserialize(d)?;
            Ok(Timestamp { secs, nanos: nanos.min(999_999_999) })
        }
    }
}

/// Parses a Go duration: `1h2m3s`, `200ms`, `1.5h`, `0`, with an optional sign.
///
/// # Errors
/// [`crate::Kind::Invalid`] naming the text; negative durations are refused.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let bad = || Error::invalid(format!("\"{text}\" is not a duration like \"1h2m3s\" or \"200ms\""));
    if text.starts_with('-') {
        return Err(Error::invalid(format!("\"{text}\" is a negative duration; use \"0s\" or more")));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total: u128 = 0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(bad()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty()
            || fraction.contains('.')
            || whole.len() > 18
            || fraction.len() > 18
        {
            return Err(bad());
        }
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
        total += whole * scale;
        if !fraction.is_empty() {
            let f: u128 = fraction.parse().map_err(|_| bad())?;
            total += f * scale / 10u128.pow(fraction.len() as u32);
        }
        rest = tail;
    }
    if total > i64::MAX as u128 {
        return Err(Error::invalid(format!("\"{text}\" is longer than the longest duration, 2562047h")));
    }
    Ok(Duration::from_nanos(total as u64))
}

/// Writes a duration in Go's canonical form: `5m0s`, `1h0m0s`, `200ms`, `0s`.
pub fn format_duration(d: Duration) -> String {
    let nanos = d.as_nanos();
    let trim = |value: u128, scale: u128| {
        let (whole, fraction) = (value / scale, value % scale);
        if fraction == 0 {
            whole.to_string()
        } else {
            let width = scale.ilog10() as usize;
            format!("{whole}.{}", format!("{fraction:0width$}").trim_end_matches('0'))
        }
    };
    if nanos == 0 {
        return "0s".into();
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return format!("{}µs", trim(nanos, 1_000));
    }
    if nanos < 1_000_000_000 {
        return format!("{}ms", trim(nanos, 1_000_000));
    }
    let secs = nanos / 1_000_000_000;
    let (h, m) = (secs / 3600, secs / 60 % 60);
    let s = trim(nanos - (secs / 60 * 60) * 1_000_000_000, 1_000_000_000);
    match (h, m) {
        (0, 0) => format!("{s}s"),
        (0, _) => format!("{m}m{s}s"),
        _ => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_again_as_the_same_time() {
        for text in ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59.5Z", "9999-12-31T23:59:59Z"] {
            assert_eq!(Timestamp::parse(text).expect(text).to_string(), text);
        }
        // Found by fuzzing: they were read, and written as their nearest neighbour.
        for text in ["0000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"] {
            assert_eq!(Timestamp::parse(text).expect_err(text).kind(), crate::Kind::Invalid, "{text}");
        }
    }

    #[test]
    fn a_clock_beyond_32_bits_is_refused_where_seconds_have_32_bits() {
        let last = i64::from(i32::MAX);
        for now in [0, 1_800_000_000, last - MARGIN_SECS] {
            within(now, last).expect("before the end");
        }
        for now in [last - MARGIN_SECS + 1, last, last + 1, 4_000_000_000] {
            let error = within(now, last).expect_err("at the end");
            assert_eq!(error.kind(), crate::Kind::Unavailable);
            assert!(error.message().contains(&Timestamp::from_secs(now).to_string()), "{error}");
        }
        within(4_000_000_000, i64::MAX).expect("64 bits");
        Timestamp::can_be_told().expect("now");
    }

    #[test]
    fn durations_are_go_s() {
        for (text, canonical) in [
            ("0", "0s"),
            ("5m", "5m0s"),
            ("1h", "1h0m0s"),
            ("200ms", "200ms"),
            ("90s", "1m30s"),
            ("1.5h", "1h30m0s"),
            ("1h2m3.5s", "1h2m3.5s"),
            ("0h2m0s", "2m0s"),
            ("1us", "1µs"),
            ("1500us", "1.5ms"),
            ("7ns", "7ns"),
        ] {
            let d = parse_duration(text).expect(text);
            assert_eq!(format_duration(d), canonical, "{text}");
            assert_eq!(parse_duration(canonical).expect(canonical), d);
        }
        for bad in ["", "5", "s", "1x", "-1s", ".s", "1..2s", "99999999999999999999h", "9999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn timestamps_print_as_go_prints_them() {
        assert_eq!(Timestamp::ZERO.to_string(), "0001-01-01T00:00:00Z");
        let t = Timestamp::parse("2026-11-21T03:02:04.884280450Z").expect("time");
        assert_eq!(t.to_string(), "2026-11-21T03:02:04.88428045Z");
        assert_eq!(t.trunc().plain(), "2026-11-21 03:02:04");
        assert_eq!(Timestamp::parse("2026-11-21T04:02:04+01:00").expect("time"), t.trunc());
        assert_eq!(Timestamp::from_unix_nanos(t.unix_nanos()), t);
        assert_eq!(Timestamp::parse("0001-01-01T00:00:00Z").expect("zero"), Timestamp::ZERO);
    }
}
