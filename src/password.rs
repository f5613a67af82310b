//! Passwords as they stand in service.json: plain, as ipfs-cluster has them, or hashed.
//!
//! A hashed one describes itself: `$pbkdf2-sha256$i=600000$<salt>$<hash>`, salt and hash in Base64 without padding, so
//! that the number of rounds can grow without a new key in the configuration. Nothing in it is a comma or a colon,
//! which separate users in the environment variable. Text that begins like a hash and is none is an error, never a
//! plain password: nobody means that, and a cut-off hash must not become a guessable password.
//!
//! Checking a hashed password is slow on purpose; who lets strangers ask for it limits how often
//! (`api::auth`). Nothing here may print or log a password or a hash.

use crate::error::{Error, Result};
use data_encoding::BASE64_NOPAD;
use ring::pbkdf2;
use std::fmt;
use std::num::NonZeroU32;

/// What a hashed password begins with.
pub const PREFIX: &str = "$pbkdf2-sha256$";
/// Rounds of a new hash: about half a second on a Raspberry Pi 4, paid once per user and start.
pub const ROUNDS: u32 = 600_000;
/// Fewest rounds that are accepted: fewer would be a plain password in disguise.
const MIN_ROUNDS: u32 = 1_000;
/// Most rounds that are accepted: a check must end within seconds on a small board.
const MAX_ROUNDS: u32 = 5_000_000;
/// Salt of a new hash, bytes.
const SALT: usize = 16;
/// Salts that are accepted, bytes.
const SALTS: std::ops::RangeInclusive<usize> = 8..=64;
/// Length of SHA-256.
const HASH: usize = 32;
/// Longest password that is taken, bytes: what fits into a request's head.
pub const MAX_PASSWORD: usize = 1024;

/// A password that somebody must prove to know.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// As it is typed.
    Plain(String),
    /// Only recognisable.
    Hashed(Hashed),
}

/// See the module's words.
#[derive(Clone, PartialEq, Eq)]
pub struct Hashed {
    rounds: NonZeroU32,
    salt: Vec<u8>,
    hash: [u8; HASH],
}

impl Password {
    /// Reads the text of the configuration.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] for a damaged hash; the text itself is not in the sentence.
    pub fn parse(text: &str) -> Result<Password> {
        // Any `$pbkdf2…` is meant as a hash, also one of another kind.
        if text.starts_with("$pbkdf2") {
            return Hashed::parse(text).map(Password::Hashed);
        }
        Ok(Password::Plain(text.to_owned()))
    }
}

impl Hashed {
    fn parse(text: &str) -> Result<Hashed> {
        let bad = |what: &str| {
            Error::invalid(format!(
                "the hashed password is damaged ({what}); make a new one with: pinfold hash-password"
            ))
        };
        let rest = text.strip_prefix(PREFIX).ok_or_else(|| bad("it does not begin with $pbkdf2-sha256$"))?;
        let mut parts = rest.split('$');
        let (Some(rounds), Some(salt), Some(hash), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad("it needs three parts: rounds, salt and hash"));
        };
        let rounds: u32 = rounds
            .strip_prefix("i=")
            .and_then(|n| n.parse().ok())
            .filter(|n| (MIN_ROUNDS..=MAX_ROUNDS).contains(n))
            .ok_or_else(|| bad(&format!("rounds are i={MIN_ROUNDS} to i={MAX_ROUNDS}")))?;
        let decode = |part: &str| BASE64_NOPAD.decode(part.as_bytes()).ok();
        let salt = decode(salt).filter(|s| SALTS.contains(&s.len())).ok_or_else(|| bad("its salt"))?;
        let hash = decode(hash).and_then(|h| h.try_into().ok()).ok_or_else(|| bad("its hash"))?;
        let rounds = NonZeroU32::new(rounds).ok_or_else(|| bad("no rounds"))?;
        Ok(Hashed { rounds, salt, hash })
    }

    /// Hashes a password under a fresh salt. Takes as long as checking it.
    ///
    /// # Errors
    /// An empty or overlong password; [`crate::Kind::Io`] when the system has no randomness to give.
    pub fn new(password: &str) -> Result<Hashed> {
        if password.is_empty() {
            return Err(Error::invalid("an empty password lets nobody in; type one"));
        }
        if password.len() > MAX_PASSWORD {
            return Err(Error::invalid(format!("the password is longer than {MAX_PASSWORD} bytes; shorten it")));
        }
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt)
            .map_err(|e| Error::io(format!("cannot read random bytes for the password's salt: {e}")))?;
        let rounds = NonZeroU32::new(ROUNDS).expect("the number of rounds is not zero");
        let mut hash = [0; HASH];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password.as_bytes(), &mut hash);
        Ok(Hashed { rounds, salt: salt.to_vec(), hash })
    }

    /// Whether this is the password. Slow, and in constant time.
    pub fn verify(&self, password: &str) -> bool {
        password.len() <= MAX_PASSWORD
            && pbkdf2::verify(
                pbkdf2::PBKDF2_HMAC_SHA256,
                self.rounds,
                &self.salt,
                password.as_bytes(),
                &self.hash,
            )
            .is_ok()
    }

    /// How slow it is.
    pub fn rounds(&self) -> u32 {
        self.rounds.get()
    }

    /// The hash itself, from which keys may be derived.
    pub fn hash(&self) -> &[u8] {
        &self.hash
    }

    /// The text for service.json. (Not `Display`: it must not slip into a message.)
    pub fn to_text(&self) -> String {
        format!(
            "{PREFIX}i={}${}${}",
            self.rounds,
            BASE64_NOPAD.encode(&self.salt),
            BASE64_NOPAD.encode(&self.hash)
        )
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Password::Plain(_) => "Password(plain, hidden)",
            Password::Hashed(_) => "Password(hashed, hidden)",
        })
    }
}

impl fmt::Debug for Hashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hashed({} rounds, hidden)", self.rounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_written_by_others_is_understood() {
        // Python: hashlib.pbkdf2_hmac("sha256", b"secret", b"saltsalt", 1000)
        let text = "$pbkdf2-sha256$i=1000$c2FsdHNhbHQ$hgR9HsqtKupWxpnv8y99TrPDajTT/9PcSTlNafpdLXQ";
        let Password::Hashed(hashed) = Password::parse(text).expect("parse") else { panic!("hashed") };
        assert!(hashed.verify("secret") && !hashed.verify("secret "));
        assert_eq!(hashed.to_text(), text);
    }

    #[test]
    fn only_the_password_itself_is_recognised() {
        let hashed = Hashed::new("correct horse").expect("hash");
        let text = hashed.to_text();
        assert!(text.starts_with("$pbkdf2-sha256$i=600000$"), "{text}");
        assert!(!text.contains([',', ':']), "separators of the environment variable: {text}");
        let Password::Hashed(read) = Password::parse(&text).expect("parse") else { panic!("hashed") };
        assert_eq!(read, hashed);
        assert!(read.verify("correct horse"));
        assert!(!read.verify("correct horsf") && !read.verify("") && !read.verify(&text));
        assert_ne!(Hashed::new("correct horse").expect("again").to_text(), text, "salted");
    }

    #[test]
    fn a_damaged_hash_is_never_taken_for_a_plain_password() {
        for bad in [
            "$pbkdf2-sha256$",
            "$pbkdf2-sha256$i=600000",
            "$pbkdf2-sha256$i=10$c2FsdHNhbHQ$AAAA",
            "$pbkdf2-sha256$i=99999999999$c2FsdHNhbHQ$AAAA",
            "$pbkdf2-sha256$i=1000$c2FsdHNhbHQ$AAAA",
            "$pbkdf2-sha256$i=1000$c2Fsd$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "$pbkdf2-sha256$i=1000$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA$more",
            "$pbkdf2-sha512$i=1000$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ] {
            let error = Password::parse(bad).expect_err(bad);
            assert!(error.message().contains("pinfold hash-password"), "{error}");
            assert!(!error.message().contains("c2Fsd"), "{error}");
        }
        for plain in ["secret", "$1$abc", "", "pbkdf2"] {
            assert_eq!(Password::parse(plain).expect(plain), Password::Plain(plain.into()));
        }
    }

    #[test]
    fn nothing_shows_in_debug() {
        let hashed = Password::Hashed(Hashed::new("hunter2").expect("hash"));
        for shown in [format!("{hashed:?}"), format!("{:?}", Password::Plain("hunter2".into()))] {
            assert!(!shown.contains("hunter2") && !shown.contains("pbkdf2"), "{shown}");
        }
    }
}
