//! Tokens: the bearer's, which must prove its user, and the invitation's, which must be whole.

use super::token::{check, issue};
use super::{pair, same};
use crate::config::Invite;
use crate::fuzz::Input;
use crate::password::Password;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::hmac;
use sha2::{Digest, Sha256};

/// A bearer token of any claims, signed rightly or not; an invitation of any body, with its checksum or not; and any text
/// as either. Only the right key proves, and only its own user.
pub(crate) fn tokens(data: &[u8]) {
    let mut input = Input(data);
    let password = Password::Plain("a secret of ann's".to_owned());
    let find = |user: &str| (user == "ann").then_some(&password);
    match input.below(5) {
        0 => {
            let text = input.text();
            assert_eq!(check(&text, find), None, "a token that nobody signed was taken");
            if let Some((user, given)) = pair(&text) {
                assert_eq!(same(&user, &given), user == given);
            }
        }
        1 => {
            let (signed, header) = (input.flag(), input.bytes());
            let claims = input.rest();
            let text = format!("{}.{}", BASE64URL_NOPAD.encode(header), BASE64URL_NOPAD.encode(claims));
            let key: &[u8] = if signed { b"a secret of ann's" } else { b"" };
            let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
            let token = format!("{text}.{}", BASE64URL_NOPAD.encode(signature.as_ref()));
            if let Some(user) = check(&token, find) {
                assert!(signed && user == "ann", "{user} was proven by a wrong signature");
            }
        }
        2 => {
            let mut token = issue("ann", &password, None).expect("a token").into_bytes();
            let before = token.clone();
            for _ in 0..=input.below(3) {
                let at = input.below(token.len());
                token[at] = input.byte();
            }
            let text = String::from_utf8_lossy(&token).into_owned();
            // The last character of base64 may have bits that mean nothing; the decoder refuses them.
            assert_eq!(check(&text, find).is_some(), token == before, "{text}");
        }
        3 => invitation(&input.text()),
        _ => {
            let mut bytes = vec![1];
            let body = input.rest();
            bytes.extend((body.len() as u16 + 4).to_be_bytes());
            bytes.extend_from_slice(body);
            let sum = Sha256::digest(&bytes);
            bytes.extend_from_slice(&sum[..4]);
            invitation(&format!("pinfold1:{}", BASE64URL_NOPAD.encode(&bytes)));
        }
    }
}

fn invitation(text: &str) {
    match Invite::parse(text) {
        Ok(invite) => {
            let token = invite.to_token().expect("what was read can be written");
            assert_eq!(Invite::parse(&token).expect("read again"), invite);
            if let Some(secret) = invite.secret.psk() {
                let shown = format!("{invite:?}");
                assert!(!shown.contains(&HEXLOWER.encode(&secret)), "the secret is shown");
            }
        }
        Err(error) => assert!(!error.message().is_empty()),
    }
}
