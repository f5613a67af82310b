//! Sizes, times and durations in words, as ipfs-cluster-ctl words them.

use std::time::Duration;

/// Decimal units, each a thousand of the one before.
const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// `10 GB`, `1.1 kB`, `644 B`: two digits at least, decimal units.
pub fn bytes(n: u64) -> String {
    if n < 10 {
        return format!("{n} B");
    }
    // The unit is chosen before rounding, so 999,950 is "1000 kB", as it always was.
    let mut unit = 0;
    let mut scale = 1u64;
    while unit + 1 < UNITS.len() && n / scale >= 1000 {
        scale *= 1000;
        unit += 1;
    }
    let value = (n as f64 / scale as f64 * 10.0 + 0.5).floor() / 10.0;
    if value < 10.0 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;
const MONTH: i64 = 30 * DAY;
const YEAR: i64 = 12 * MONTH;
/// Beyond this it is just "a long while".
const LONG: i64 = 37 * YEAR;

/// `2 seconds from now`, `3 weeks ago`, `now`; both in Unix nanoseconds.
pub fn relative(then: i64, now: i64) -> String {
    const NANOS: i64 = 1_000_000_000;
    let (seconds, label) = if then > now {
        (then.saturating_sub(now) / NANOS, "from now")
    } else {
        (now.saturating_sub(then) / NANOS, "ago")
    };
    let text = match seconds {
        s if s < 1 => return "now".into(),
        s if s < 2 => "1 second".into(),
        s if s < MINUTE => format!("{s} seconds"),
        s if s < 2 * MINUTE => "1 minute".into(),
        s if s < HOUR => format!("{} minutes", s / MINUTE),
        s if s < 2 * HOUR => "1 hour".into(),
        s if s < DAY => format!("{} hours", s / HOUR),
        s if s < 2 * DAY => "1 day".into(),
        s if s < WEEK => format!("{} days", s / DAY),
        s if s < 2 * WEEK => "1 week".into(),
        s if s < MONTH => format!("{} weeks", s / WEEK),
        s if s < 2 * MONTH => "1 month".into(),
        s if s < YEAR => format!("{} months", s / MONTH),
        s if s < 18 * MONTH => "1 year".into(),
        s if s < 2 * YEAR => "2 years".into(),
        s if s < LONG => format!("{} years", s / YEAR),
        _ => "a long while".into(),
    };
    format!("{text} {label}")
}

/// `42s`, `3m05s`, `2h07m`: short, for a progress bar.
pub fn short(d: Duration) -> String {
    let s = d.as_secs();
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_worded_as_recorded() {
        for (n, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (644, "644 B"),
            (1_114, "1.1 kB"),
            (51_200, "51 kB"),
            (9_999_825_275, "10 GB"),
            (98_304, "98 kB"),
            (1_000_000_000_000, "1.0 TB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(bytes(n), text, "{n}");
        }
    }

    #[test]
    fn times_are_worded_as_recorded() {
        let s = 1_000_000_000i64;
        for (offset, text) in [
            (0, "now"),
            (s, "1 second from now"),
            (2 * s + 5, "2 seconds from now"),
            (-90 * s, "1 minute ago"),
            (-3 * 3600 * s, "3 hours ago"),
            (25 * 3600 * s, "1 day from now"),
            (-400 * 86_400 * s, "1 year ago"),
        ] {
            assert_eq!(relative(1_700_000_000 * s + offset, 1_700_000_000 * s), text);
        }
        assert_eq!(relative(i64::MIN, i64::MAX), "a long while ago");
    }

    #[test]
    fn remaining_time_is_short() {
        assert_eq!(short(Duration::from_secs(42)), "42s");
        assert_eq!(short(Duration::from_secs(185)), "3m05s");
        assert_eq!(short(Duration::from_secs(7_620)), "2h07m");
    }
}
