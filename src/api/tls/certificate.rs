//! When a certificate is good: its validity, read from the DER, and said in words.
//!
//! rustls serves an expired certificate without a word (only clients look), so this is looked at here. Of the
//! certificate only the two times are read, by a reader that knows just enough of DER for the way there:
//! `Certificate { tbsCertificate { [0] version?, serialNumber, signature, issuer, validity { notBefore, notAfter } … } }`.

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use std::time::Duration;
use time::{Date, Month, PrimitiveDateTime, Time};

/// A certificate that ends within this time is worth a warning: renewing takes a person a few days.
pub const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// Between which times a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From here on.
    pub not_before: Timestamp,
    /// Up to here.
    pub not_after: Timestamp,
}

/// How a certificate stands at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is good for longer than [`SOON`].
    Good,
    /// It ends soon.
    EndsSoon,
    /// It is over.
    Expired,
    /// Its time has not come, or the clock is wrong.
    NotYet,
}

impl Validity {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] when it is none.
    pub fn read(der: &[u8]) -> Result<Validity> {
        parse(der).ok_or_else(|| Error::invalid("the certificate cannot be read; make it anew"))
    }

    /// How it stands at `now`.
    pub fn at(&self, now: Timestamp) -> Standing {
        if now < self.not_before {
            Standing::NotYet
        } else if now > self.not_after {
            Standing::Expired
        } else if now.plus(SOON) > self.not_after {
            Standing::EndsSoon
        } else {
            Standing::Good
        }
    }

    /// What is worth a word at `now`, as the second half of a sentence about the certificate.
    pub fn complaint(&self, now: Timestamp) -> Option<String> {
        let (from, to) = (self.not_before.plain(), self.not_after.plain());
        let days = |secs: i64| match secs / 86_400 {
            0 => "less than a day".to_owned(),
            1 => "1 day".to_owned(),
            n => format!("{n} days"),
        };
        Some(match self.at(now) {
            Standing::Good => return None,
            Standing::EndsSoon => {
                format!("expires on {to} UTC, in {}; renew it", days(self.not_after.secs - now.secs))
            }
            Standing::Expired => format!(
                "expired on {to} UTC, {} ago: clients refuse it; renew it",
                days(now.secs - self.not_after.secs)
            ),
            Standing::NotYet => format!(
                "is not valid before {from} UTC, and this machine's clock says {} UTC: clients refuse it; set the \
                 clock, or make the certificate anew",
                now.plain()
            ),
        })
    }
}

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// Tag of the version, which version-1 certificates leave out.
const VERSION: u8 = 0xa0;

/// One element: tag, content, rest.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        n @ 0..=0x7f => (usize::from(n), rest),
        n @ 0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(n & 0x7f))?;
            (bytes.iter().try_fold(0usize, |all, b| all.checked_mul(256)?.checked_add(usize::from(*b)))?, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn inside(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(der)?;
    (tag == wanted).then_some((content, rest))
}

fn parse(der: &[u8]) -> Option<Validity> {
    let (certificate, _) = inside(der, SEQUENCE)?;
    let (mut at, _) = inside(certificate, SEQUENCE)?;
    if at.first() == Some(&VERSION) {
        at = element(at)?.2;
    }
    // serialNumber, signature, issuer
    for _ in 0..3 {
        at = element(at)?.2;
    }
    let (validity, _) = inside(at, SEQUENCE)?;
    let (tag, text, rest) = element(validity)?;
    let not_before = moment(tag, text)?;
    let (tag, text, _) = element(rest)?;
    Some(Validity { not_before, not_after: moment(tag, text)? })
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, the only forms that certificates may have.
fn moment(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let two: i32 = number(text.get(..2)?)?;
            (if two < 50 { 2000 + two } else { 1900 + two }, text.get(2..)?)
        }
        GENERALIZED_TIME => (number(text.get(..4)?)?, text.get(4..)?),
        _ => return None,
    };
    if rest.len() != 10 {
        return None;
    }
    let part = |at: usize| rest.get(at..at + 2).and_then(number).and_then(|n| u8::try_from(n).ok());
    let date = Date::from_calendar_date(year, Month::try_from(part(0)?).ok()?, part(2)?).ok()?;
    let time = Time::from_hms(part(4)?, part(6)?, part(8)?).ok()?;
    Some(Timestamp::from_secs(PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp()))
}

fn number(text: &str) -> Option<i32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).expect(text)
    }

    #[test]
    fn the_times_of_both_kinds_are_read() {
        assert_eq!(moment(UTC_TIME, b"260102030405Z"), Some(at("2026-01-02T03:04:05Z")));
        assert_eq!(moment(UTC_TIME, b"500102030405Z"), Some(at("1950-01-02T03:04:05Z")));
        assert_eq!(moment(GENERALIZED_TIME, b"20500102030405Z"), Some(at("2050-01-02T03:04:05Z")));
        for bad in ["", "Z", "2601020304Z", "261302030405Z", "260102030405+0100", "+60102030405Z", "26é102030405Z"] {
            assert_eq!(moment(UTC_TIME, bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_cut_or_damaged_certificate_is_an_error_and_no_panic() {
        let good = [0x30, 3, 0x30, 1, 0];
        for end in 0..good.len() {
            assert!(Validity::read(&good[..end]).is_err());
        }
        assert!(Validity::read(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(Validity::read(&[0x30, 0x89]).is_err());
    }

    #[test]
    fn complaints_name_the_time_and_the_way_out() {
        let validity =
            Validity { not_before: at("2026-01-01T00:00:00Z"), not_after: at("2026-03-01T00:00:00Z") };
        assert_eq!(validity.complaint(at("2026-01-02T00:00:00Z")), None);
        let soon = validity.complaint(at("2026-02-20T00:00:00Z")).expect("soon");
        assert_eq!(soon, "expires on 2026-03-01 00:00:00 UTC, in 9 days; renew it");
        let over = validity.complaint(at("2026-03-02T01:00:00Z")).expect("over");
        assert_eq!(over, "expired on 2026-03-01 00:00:00 UTC, 1 day ago: clients refuse it; renew it");
        let early = validity.complaint(at("1970-01-01T00:00:10Z")).expect("early");
        assert!(early.contains("clock says 1970-01-01 00:00:10 UTC"), "{early}");
    }
}
