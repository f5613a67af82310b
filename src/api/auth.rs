//! Who may talk to the API: users with passwords, and tokens signed with a user's password.
//!
//! Basic authentication compares in constant time. A token is a JWT whose `iss` is the user and whose HMAC key is
//! that user's password, so that changing the password revokes its tokens. `OPTIONS` (browsers never send
//! credentials with it) and `GET /health` need none.
//!
//! It must never: log a password or a token, or let an empty user or password match.

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use hyper::header::{HeaderMap, HeaderValue, AUTHORIZATION};
use serde_json::Value;
use sha2::digest::core_api::BlockSizeUser;
use sha2::{Digest, Sha256, Sha384, Sha512};
use std::collections::BTreeMap;

/// Challenge for user and password.
const BASIC: &str = "Basic realm=\"Restricted IPFS Cluster API\"";
/// Challenge for a token.
const BEARER: &str = "Bearer realm=\"Restricted IPFS Cluster API\"";
/// Challenge after a wrong token.
const BAD_TOKEN: &str = "Bearer realm=\"Restricted IPFS Cluster API\", error=\"invalid_token\"";
/// Longest token that is looked at, bytes.
const MAX_TOKEN: usize = 8192;

/// A refusal: its sentence and the challenges that go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub error: Error,
    /// Values for `WWW-Authenticate`, in order.
    pub challenges: Vec<HeaderValue>,
}

impl Refusal {
    fn new(message: &str, challenges: &[&'static str]) -> Self {
        Refusal {
            error: Error::unauthorized(message),
            challenges: challenges.iter().map(|c| HeaderValue::from_static(c)).collect(),
        }
    }
}

/// Users and passwords (`basic_auth_credentials`).
#[derive(Clone)]
pub struct Auth {
    users: BTreeMap<String, String>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("users", &self.users.len()).finish()
    }
}

impl Auth {
    /// These users.
    pub fn new(users: BTreeMap<String, String>) -> Self {
        Auth { users }
    }

    /// The user that a request's headers prove.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn check(&self, headers: &HeaderMap) -> Result<String, Refusal> {
        let Some(given) = headers.get(AUTHORIZATION).filter(|v| !v.is_empty()) else {
            return Err(Refusal::new("unauthorized: no auth provided", &[BEARER, BASIC]));
        };
        let given = given.to_str().unwrap_or("");
        let (scheme, rest) = given.split_once(' ').unwrap_or((given, ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            return self
                .bearer(rest.trim())
                .ok_or_else(|| Refusal::new("unauthorized: invalid token", &[BAD_TOKEN]));
        }
        let user = scheme.eq_ignore_ascii_case("basic").then(|| self.basic(rest.trim())).flatten();
        user.ok_or_else(|| Refusal::new("unauthorized: access denied", &[BASIC]))
    }

    fn basic(&self, encoded: &str) -> Option<String> {
        let text = String::from_utf8(BASE64.decode(encoded.as_bytes()).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        let known = self.users.get(user);
        // An unknown user costs the same comparison as a known one.
        let same = same(known.map_or("", String::as_str), password);
        (same && known.is_some() && !user.is_empty() && !password.is_empty()).then(|| user.to_owned())
    }

    fn bearer(&self, token: &str) -> Option<String> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).ok();
        let json = |part: &str| serde_json::from_slice::<Value>(&decode(part)?).ok();
        let (header, claims) = (json(header)?, json(payload)?);
        let user = claims.get("iss")?.as_str()?;
        let password = self.users.get(user).filter(|p| !p.is_empty())?;
        let (key, text) = (password.as_bytes(), signed.as_bytes());
        let expected = match header.get("alg")?.as_str()? {
            "HS256" => hmac::<Sha256>(key, text),
            "HS384" => hmac::<Sha384>(key, text),
            "HS512" => hmac::<Sha512>(key, text),
            _ => return None,
        };
        let genuine = same_bytes(&expected, &decode(signature)?);
        (genuine && !user.is_empty() && in_time(&claims, Timestamp::now().secs)?).then(|| user.to_owned())
    }

    /// A token for a user, good until the password changes.
    ///
    /// # Errors
    /// [`crate::Kind::Unauthorized`] for an unknown user.
    pub fn token(&self, user: &str) -> Result<String> {
        let password = self.users.get(user).ok_or_else(|| Error::unauthorized("unauthorized"))?;
        let claims = serde_json::json!({ "iss": user }).to_string();
        let header = BASE64URL_NOPAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
        let signed = format!("{header}.{}", BASE64URL_NOPAD.encode(claims.as_bytes()));
        let signature = hmac::<Sha256>(password.as_bytes(), signed.as_bytes());
        Ok(format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)))
    }
}

/// Whether the time claims that are present hold. `None` when one is not a number.
fn in_time(claims: &Value, now: i64) -> Option<bool> {
    let claim = |name: &str| match claims.get(name) {
        None => Some(None),
        Some(value) => value.as_f64().map(|secs| Some(secs as i64)),
    };
    let (expires, not_before, issued) = (claim("exp")?, claim("nbf")?, claim("iat")?);
    Some(
        expires.is_none_or(|at| now < at)
            && not_before.is_none_or(|at| now >= at)
            && issued.is_none_or(|at| now >= at),
    )
}

/// HMAC (RFC 2104) with one of the SHA-2 hashes.
fn hmac<D: Digest + BlockSizeUser>(key: &[u8], text: &[u8]) -> Vec<u8> {
    let block = D::block_size();
    let mut padded = if key.len() > block { D::digest(key).to_vec() } else { key.to_vec() };
    padded.resize(block, 0);
    let pad = |with: u8| padded.iter().map(|b| b ^ with).collect::<Vec<u8>>();
    let inner = D::new().chain_update(pad(0x36)).chain_update(text).finalize();
    D::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
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

    fn auth() -> Auth {
        Auth::new([("ann", "secret"), ("empty", "")].map(|(u, p)| (u.to_owned(), p.to_owned())).into())
    }

    fn check(value: &str) -> Result<String, String> {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).expect("value"))]);
        auth().check(&headers).map_err(|r| r.error.message().to_owned())
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", BASE64.encode(text.as_bytes()))
    }

    #[test]
    fn passwords() {
        assert_eq!(check(&basic("ann:secret")), Ok("ann".into()));
        let denied = Err("unauthorized: access denied".to_owned());
        for text in ["ann:wrong", "ann:", "ann", ":", "empty:", "bob:secret", ":secret"] {
            assert_eq!(check(&basic(text)), denied, "{text}");
        }
        assert_eq!(check("Basic !!!"), denied);
        assert_eq!(check("Digest x"), denied);
        let refusal = auth().check(&HeaderMap::new()).expect_err("nothing sent");
        assert_eq!(refusal.error.message(), "unauthorized: no auth provided");
        assert_eq!(refusal.challenges, [BEARER, BASIC]);
    }

    #[test]
    fn tokens() {
        let token = auth().token("ann").expect("token");
        assert_eq!(check(&format!("bEARER {token}")), Ok("ann".into()));
        let invalid = Err("unauthorized: invalid token".to_owned());
        for at in 0..token.len() {
            let mut broken = token.clone().into_bytes();
            broken[at] = if broken[at] == b'A' { b'B' } else { b'A' };
            let broken = String::from_utf8(broken).expect("ascii");
            if broken != token {
                assert_eq!(check(&format!("Bearer {broken}")), invalid, "{at}");
            }
        }
        for bad in ["", "a.b.c", "..", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJhbm4ifQ."] {
            assert_eq!(check(&format!("Bearer {bad}")), invalid, "{bad}");
        }
        // A token of a user without password could be made by anybody.
        let forged = auth().token("empty").expect("token");
        assert_eq!(check(&format!("Bearer {forged}")), invalid);
        auth().token("bob").expect_err("unknown user");
    }

    #[test]
    fn time_claims() {
        let holds = |json: &str| in_time(&serde_json::from_str(json).expect("json"), 100);
        assert_eq!(holds(r#"{"exp":101,"nbf":100,"iat":100}"#), Some(true));
        assert_eq!(holds(r#"{"exp":100}"#), Some(false));
        assert_eq!(holds(r#"{"nbf":101}"#), Some(false));
        assert_eq!(holds(r#"{"exp":"soon"}"#), None);
    }

    #[test]
    fn hmac_is_rfc_4231_s() {
        let tag = data_encoding::HEXLOWER.encode(&hmac::<Sha256>(b"Jefe", b"what do ya want for nothing?"));
        assert_eq!(tag, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
