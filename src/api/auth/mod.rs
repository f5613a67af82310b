//! Who may talk to an API: users with passwords, plain or hashed, and tokens that a password signs.
//!
//! Basic authentication compares in constant time; hashed passwords are checked behind a door ([`door`]) that
//! strangers cannot overrun. A token is a JWT ([`token`]) that changes of the password revoke. `OPTIONS` (browsers
//! never send credentials with it) and `GET /health` need none: that is for the API to say.
//!
//! It must never: log a password or a token, or let an empty user or password match.

mod door;
#[cfg(any(test, fuzzing))]
#[path = "../../../tests/fuzz/targets/tokens.rs"]
pub(crate) mod fuzz;
mod token;

use crate::error::{Context, Error, Result};
use crate::password::{Hashed, Password};
use data_encoding::BASE64;
use door::{Door, Verdict};
use hyper::header::{HeaderMap, HeaderValue, AUTHORIZATION};
use hyper::StatusCode;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Challenge for user and password.
const BASIC: &str = "Basic realm=\"Restricted IPFS Cluster API\"";
/// Challenge for a token.
const BEARER: &str = "Bearer realm=\"Restricted IPFS Cluster API\"";
/// Challenge after a wrong token.
const BAD_TOKEN: &str = "Bearer realm=\"Restricted IPFS Cluster API\", error=\"invalid_token\"";

/// A refusal: its sentence and the challenges that go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub error: Error,
    /// The status to answer with: 401, or 429 when too many passwords are being checked.
    pub status: StatusCode,
    /// Values for `WWW-Authenticate`, in order.
    pub challenges: Vec<HeaderValue>,
}

impl Refusal {
    fn new(message: &str, challenges: &[&'static str]) -> Self {
        Refusal {
            error: Error::unauthorized(message),
            status: StatusCode::UNAUTHORIZED,
            challenges: challenges.iter().map(|c| HeaderValue::from_static(c)).collect(),
        }
    }

    fn busy() -> Self {
        Refusal {
            error: Error::unavailable("too many passwords are being checked at this moment; try again soon"),
            status: StatusCode::TOO_MANY_REQUESTS,
            challenges: Vec::new(),
        }
    }
}

/// Users and passwords (`basic_auth_credentials`). A clone is the same door.
#[derive(Clone)]
pub struct Auth {
    users: Arc<BTreeMap<String, Password>>,
    /// The slowest of the hashed passwords: what an unknown user is checked against.
    slowest: Option<Hashed>,
    door: Arc<Door>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("users", &self.users.len()).finish()
    }
}

impl Auth {
    /// These users, with their passwords as the configuration has them.
    ///
    /// # Errors
    /// A hashed password that is damaged, by its user's name.
    pub fn new(users: BTreeMap<String, String>) -> Result<Self> {
        let parsed = users.into_iter().map(|(user, text)| {
            let password = Password::parse(&text).context(format!("the user \"{user}\""))?;
            Ok((user, password))
        });
        let users: BTreeMap<String, Password> = parsed.collect::<Result<_>>()?;
        let hashed = users.values().filter_map(|password| match password {
            Password::Hashed(hashed) => Some(hashed),
            Password::Plain(_) => None,
        });
        let slowest = hashed.max_by_key(|hashed| hashed.rounds()).cloned();
        Ok(Auth { users: Arc::new(users), slowest, door: Arc::new(Door::new()?) })
    }

    /// The user that a request's headers prove.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub async fn check(&self, headers: &HeaderMap) -> Result<String, Refusal> {
        let Some(given) = headers.get(AUTHORIZATION).filter(|v| !v.is_empty()) else {
            return Err(Refusal::new("unauthorized: no auth provided", &[BEARER, BASIC]));
        };
        let given = given.to_str().unwrap_or("");
        let (scheme, rest) = given.split_once(' ').unwrap_or((given, ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            return token::check(rest.trim(), |user| self.users.get(user))
                .ok_or_else(|| Refusal::new("unauthorized: invalid token", &[BAD_TOKEN]));
        }
        let denied = || Refusal::new("unauthorized: access denied", &[BASIC]);
        let basic = scheme.eq_ignore_ascii_case("basic").then(|| pair(rest.trim())).flatten();
        let (user, password) = basic.ok_or_else(denied)?;
        match self.verdict(&user, &password).await {
            Verdict::Right => Ok(user),
            Verdict::Wrong => Err(denied()),
            Verdict::Busy => Err(Refusal::busy()),
        }
    }

    async fn verdict(&self, user: &str, given: &str) -> Verdict {
        if user.is_empty() || given.is_empty() {
            return Verdict::Wrong;
        }
        match (self.users.get(user), &self.slowest) {
            (Some(Password::Hashed(hashed)), _) => self.door.ask(Some(user), hashed, given).await,
            (Some(Password::Plain(known)), _) if same(known, given) => Verdict::Right,
            (Some(Password::Plain(_)), _) => Verdict::Wrong,
            // An unknown user costs the same as a known one.
            (None, Some(slowest)) => self.door.ask(None, slowest, given).await,
            (None, None) => {
                same("", given);
                Verdict::Wrong
            }
        }
    }

    /// A token for a user, good for `life`, or without one until the password changes.
    ///
    /// # Errors
    /// [`crate::Kind::Unauthorized`] for an unknown user, or one without password.
    pub fn token(&self, user: &str, life: Option<Duration>) -> Result<String> {
        let password = self.users.get(user);
        password
            .and_then(|password| token::issue(user, password, life))
            .ok_or_else(|| Error::unauthorized("unauthorized"))
    }
}

/// User and password of basic authentication.
fn pair(encoded: &str) -> Option<(String, String)> {
    let text = String::from_utf8(BASE64.decode(encoded.as_bytes()).ok()?).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

/// Equality in a time that depends on neither text, only on the length of what was sent.
fn same(known: &str, given: &str) -> bool {
    same_bytes(&Sha256::digest(known), &Sha256::digest(given))
}

fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (x, y)| std::hint::black_box(all | (x ^ y))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::block_on;

    fn users(list: &[(&str, &str)]) -> Auth {
        Auth::new(list.iter().map(|(u, p)| ((*u).to_owned(), (*p).to_owned())).collect()).expect("users")
    }

    fn auth() -> Auth {
        users(&[("ann", "secret"), ("empty", "")])
    }

    fn check(auth: &Auth, value: &str) -> Result<String, String> {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).expect("value"))]);
        block_on(auth.check(&headers)).map_err(|r| r.error.message().to_owned())
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", BASE64.encode(text.as_bytes()))
    }

    fn denied() -> Result<String, String> {
        Err("unauthorized: access denied".to_owned())
    }

    #[test]
    fn passwords() {
        assert_eq!(check(&auth(), &basic("ann:secret")), Ok("ann".into()));
        for text in ["ann:wrong", "ann:", "ann", ":", "empty:", "bob:secret", ":secret"] {
            assert_eq!(check(&auth(), &basic(text)), denied(), "{text}");
        }
        assert_eq!(check(&auth(), "Basic !!!"), denied());
        assert_eq!(check(&auth(), "Digest x"), denied());
        let refusal = block_on(auth().check(&HeaderMap::new())).expect_err("nothing sent");
        assert_eq!(refusal.error.message(), "unauthorized: no auth provided");
        assert_eq!(refusal.challenges, [BEARER, BASIC]);
        assert_eq!(refusal.status, StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn hashed_passwords_beside_plain_ones() {
        let hash = Hashed::new("sesame:open").expect("hash").to_text();
        let auth = users(&[("ann", "secret"), ("bob", &hash)]);
        assert_eq!(check(&auth, &basic("bob:sesame:open")), Ok("bob".into()));
        assert_eq!(check(&auth, &basic("ann:secret")), Ok("ann".into()));
        for text in ["bob:wrong", "eve:sesame:open", &format!("bob:{hash}"), "bob:"] {
            assert_eq!(check(&auth, &basic(text)), denied(), "{text}");
        }
        let bad = Auth::new([("ann".to_owned(), "$pbkdf2-sha256$i=1$x$y".to_owned())].into());
        assert!(bad.expect_err("damaged").message().contains("the user \"ann\""));
    }

    #[test]
    fn tokens() {
        let token = auth().token("ann", None).expect("token");
        assert_eq!(check(&auth(), &format!("bEARER {token}")), Ok("ann".into()));
        let invalid = Err("unauthorized: invalid token".to_owned());
        for at in 0..token.len() {
            let mut broken = token.clone().into_bytes();
            broken[at] = if broken[at] == b'A' { b'B' } else { b'A' };
            let broken = String::from_utf8(broken).expect("ascii");
            if broken != token {
                assert_eq!(check(&auth(), &format!("Bearer {broken}")), invalid, "{at}");
            }
        }
        for bad in ["", "a.b.c", "..", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJhbm4ifQ."] {
            assert_eq!(check(&auth(), &format!("Bearer {bad}")), invalid, "{bad}");
        }
        // A token of a user without password could be made by anybody.
        auth().token("empty", None).expect_err("no password");
        auth().token("bob", None).expect_err("unknown user");
    }

    #[test]
    fn a_token_ends_with_the_password_that_signed_it() {
        let (one, two) = (Hashed::new("secret").expect("hash"), Hashed::new("secret").expect("hash"));
        let (one, two) = (users(&[("ann", &one.to_text())]), users(&[("ann", &two.to_text())]));
        let token = format!("Bearer {}", one.token("ann", None).expect("token"));
        assert_eq!(check(&one, &token), Ok("ann".into()));
        for changed in [&two, &auth()] {
            assert!(check(changed, &token).is_err(), "{changed:?}");
        }
        let plain = format!("Bearer {}", auth().token("ann", None).expect("token"));
        assert!(check(&one, &plain).is_err(), "neither does a plain password sign for its hash");
    }
}
