//! Bearer tokens: JWTs that a user's password signs.
//!
//! A token names its user (`iss`) and is signed with a key that follows from the password as it stands in the
//! configuration: a plain password is the key itself, as in ipfs-cluster; of a hashed one the key is derived from the
//! hash. So a changed password, and also the change from a plain to a hashed one, revokes every token of that user.
//! A token may carry its end (`exp`).
//!
//! It must never: take a token without signature, or one of a user without password.

use crate::clock::Timestamp;
use crate::password::Password;
use data_encoding::BASE64URL_NOPAD;
use ring::hmac;
use serde_json::Value;
use std::time::Duration;

/// Longest token that is looked at, bytes.
const MAX_TOKEN: usize = 8192;
/// Separates the tokens' key from every other use of the hash.
const PURPOSE: &[u8] = b"pinfold: key of the bearer tokens of this password";

/// The key that a password stands for; `None` for an empty one, with which anybody could sign.
fn key(password: &Password, algorithm: hmac::Algorithm) -> Option<hmac::Key> {
    match password {
        Password::Plain(text) if text.is_empty() => None,
        Password::Plain(text) => Some(hmac::Key::new(algorithm, text.as_bytes())),
        Password::Hashed(hashed) => {
            let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, hashed.hash()), PURPOSE);
            Some(hmac::Key::new(algorithm, derived.as_ref()))
        }
    }
}

/// A token for `user`, good for `life`, or until the password changes. `None` when nothing can sign it.
pub(super) fn issue(user: &str, password: &Password, life: Option<Duration>) -> Option<String> {
    let mut claims = serde_json::json!({ "iss": user });
    if let Some(life) = life {
        claims["exp"] = Timestamp::now().plus(life).secs.into();
    }
    let header = BASE64URL_NOPAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", BASE64URL_NOPAD.encode(claims.to_string().as_bytes()));
    let signature = hmac::sign(&key(password, hmac::HMAC_SHA256)?, signed.as_bytes());
    Some(format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref())))
}

/// The user that a token proves. `password` finds a user's.
pub(super) fn check<'p>(token: &str, password: impl Fn(&str) -> Option<&'p Password>) -> Option<String> {
    if token.len() > MAX_TOKEN {
        return None;
    }
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, payload) = signed.split_once('.')?;
    let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).ok();
    let json = |part: &str| serde_json::from_slice::<Value>(&decode(part)?).ok();
    let (header, claims) = (json(header)?, json(payload)?);
    let user = claims.get("iss")?.as_str().filter(|user| !user.is_empty())?;
    let algorithm = match header.get("alg")?.as_str()? {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        _ => return None,
    };
    let key = key(password(user)?, algorithm)?;
    // Compares in constant time.
    hmac::verify(&key, signed.as_bytes(), &decode(signature)?).ok()?;
    in_time(&claims, Timestamp::now().secs)?.then(|| user.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_claims() {
        let holds = |json: &str| in_time(&serde_json::from_str(json).expect("json"), 100);
        assert_eq!(holds(r#"{"exp":101,"nbf":100,"iat":100}"#), Some(true));
        assert_eq!(holds(r#"{"exp":100}"#), Some(false));
        assert_eq!(holds(r#"{"nbf":101}"#), Some(false));
        assert_eq!(holds(r#"{"exp":"soon"}"#), None);
    }

    #[test]
    fn a_token_may_have_an_end() {
        let password = Password::Plain("secret".into());
        let find = |user: &str| (user == "ann").then_some(&password);
        let good = issue("ann", &password, Some(Duration::from_secs(60))).expect("token");
        assert_eq!(check(&good, find), Some("ann".into()));
        let over = issue("ann", &password, Some(Duration::ZERO)).expect("token");
        assert_eq!(check(&over, find), None);
    }

    #[test]
    fn a_token_of_the_reference_is_taken() {
        // HS256 over {"iss":"ann"} with the key "secret", made by Python's hmac.
        let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJhbm4ifQ.C6SFetxgiP1n7xP3Z4a-b3Vu4yiqA7LcPT9PClWTkGo";
        let password = Password::Plain("secret".into());
        assert_eq!(check(token, |_| Some(&password)), Some("ann".into()));
    }
}
