//! How a program of this machine asks the daemon of a folder: with the address and the credentials of its own
//! service.json.
//!
//! Whoever may read service.json may command the daemon. A plain password in it is used as it is; from a
//! hashed one, which cannot be typed, a short-lived token is signed. The certificate is not checked: it is our own
//! file, on our own machine, and may well be what is wrong.

use super::auth::Auth;
use crate::config::{host_port, Config, Folder};
use crate::error::{Context, Error, Kind, Result};
use crate::password::PREFIX;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Life of a token that is signed for one command: longer than any clock is set back by a time server.
pub const TOKEN_LIFE: Duration = Duration::from_secs(300);
/// Largest answer that is read, bytes.
const MAX_ANSWER: u64 = 16 << 20;

/// The daemon of a folder, as its configuration describes it.
pub struct OwnApi {
    base: String,
    authorization: Option<String>,
    agent: ureq::Agent,
}

impl OwnApi {
    /// From a configuration; answers must come within `limit`.
    ///
    /// # Errors
    /// The API is off or on no TCP address, or a password is damaged.
    pub fn of(config: &Config, limit: Duration) -> Result<OwnApi> {
        let rest = config.restapi.as_ref().ok_or_else(|| {
            Error::invalid("api.restapi is off in service.json: the daemon cannot be asked")
        })?;
        let address = rest.http_listen_multiaddress.iter().find_map(host_port).ok_or_else(|| {
            Error::invalid("api.restapi.http_listen_multiaddress holds no TCP address")
        })?;
        let scheme = if rest.tls() { "https" } else { "http" };
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(limit))
            .http_status_as_error(false)
            .proxy(None)
            .tls_config(ureq::tls::TlsConfig::builder().disable_verification(true).build())
            .build()
            .into();
        Ok(OwnApi {
            base: format!("{scheme}://{}", address.for_client().authority()),
            authorization: authorization(rest.basic_auth_credentials.0.iter().flatten())?,
            agent,
        })
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// The JSON that a GET answers. Blocks.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when nobody answers; otherwise what the answer says.
    pub fn get(&self, path: &str) -> Result<Value> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let mut answer = request.call().map_err(|e| Error::unavailable(e.to_string()))?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_string();
        let body = body.map_err(|e| Error::unavailable(format!("the answer broke off: {e}")))?;
        if status >= 400 {
            return Err(Error::new(Kind::Conflict, format!("status {status}: {}", body.trim())));
        }
        // Streamed answers are one value per line.
        let values: std::result::Result<Vec<Value>, _> =
            serde_json::Deserializer::from_str(&body).into_iter().collect();
        let mut values = values
            .map_err(|e| Error::corrupt(format!("{}{path} answered what is not JSON: {e}", self.base)))?;
        Ok(if values.len() == 1 { values.remove(0) } else { Value::Array(values) })
    }
}

/// The `Authorization` header that an API with these credentials accepts; `None` when it asks nobody.
///
/// # Errors
/// A damaged hashed password.
pub fn authorization<'c>(users: impl Iterator<Item = (&'c String, &'c String)>) -> Result<Option<String>> {
    // A user without a password can never log in.
    let mut users = users.filter(|(user, password)| !user.is_empty() && !password.is_empty());
    let Some((user, password)) = users.next() else { return Ok(None) };
    if !password.starts_with(PREFIX) {
        let pair = data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes());
        return Ok(Some(format!("Basic {pair}")));
    }
    let auth = Auth::new(BTreeMap::from([(user.clone(), password.clone())]))?;
    Ok(Some(format!("Bearer {}", auth.token(user, Some(TOKEN_LIFE))?)))
}

/// Asks the running daemon of a folder; its absence becomes the sentence that says how to start it.
///
/// # Errors
/// As [`OwnApi::get`].
pub fn ask<T: serde::de::DeserializeOwned>(
    folder: &Folder,
    config: &Config,
    path: &str,
    limit: Duration,
) -> Result<T> {
    let api = OwnApi::of(config, limit)?;
    let value = api.get(path).map_err(|e| match e.kind() {
        Kind::Unavailable => Error::unavailable(format!(
            "no answer from the daemon of {} at {} ({e}): start it with `pinfold up -c {}` first",
            folder.path().display(),
            api.url(),
            folder.path().display()
        )),
        _ => e,
    })?;
    serde_json::from_value(value)
        .map_err(|e| Error::corrupt(e.to_string()))
        .context(format!("the daemon at {} answered nonsense to GET {path}", api.url()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::Hashed;

    #[test]
    fn a_hashed_password_signs_a_token_and_a_plain_one_is_sent() {
        let header = |user: &str, password: &str| {
            let users = BTreeMap::from([(user.to_owned(), password.to_owned())]);
            authorization(users.iter()).expect("header")
        };
        assert_eq!(header("ann", "secret").as_deref(), Some("Basic YW5uOnNlY3JldA=="));
        assert_eq!(header("ann", ""), None);
        let hash = Hashed::new("secret").expect("hash").to_text();
        let token = header("ann", &hash).expect("token");
        assert!(token.starts_with("Bearer ey") && !token.contains(&hash), "{token}");
    }
}
