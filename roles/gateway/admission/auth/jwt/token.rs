//! What a token says before its signature is checked: nothing of it is believed yet.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::strict::UniqueObject;
use crate::roles::gateway::admission::auth::refusal::AuthFailure;

/// Longest token in bytes.
pub(super) const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// A token that was taken apart. Its claims count only once its signature is checked.
#[derive(Debug)]
pub(super) struct Token {
    header: Map<String, Value>,
    /// What it claims.
    pub(super) claims: Map<String, Value>,
}

impl Token {
    pub(super) fn read(token: &str) -> Result<Self, AuthFailure> {
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(AuthFailure::Malformed);
        };
        Ok(Self { header: object(header)?, claims: object(claims)? })
    }

    /// The key that it names, if any.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.header.get("kid").and_then(Value::as_str)
    }

    /// The issuer that it claims to be from. The library would also take a list with the issuer somewhere in it, which
    /// no issuer writes.
    pub(super) fn issuer(&self) -> Result<&str, AuthFailure> {
        self.claims.get("iss").and_then(Value::as_str).ok_or(AuthFailure::BadClaims)
    }

    /// The algorithm that it names.
    pub(super) fn algorithm(&self) -> Option<&str> {
        self.header.get("alg").and_then(Value::as_str)
    }

    /// Refuses a header that asks for what we do not understand, or that is for another use.
    pub(super) fn check_header(&self) -> Result<(), AuthFailure> {
        let is_key_id = matches!(self.header.get("kid"), None | Some(Value::String(_)));
        // Extensions that must be understood (RFC 7515 §4.1.11): we understand none.
        if !is_key_id
            || self.header.contains_key("crit")
            || !is_access_token(self.header.get("typ"))
        {
            return Err(AuthFailure::Malformed);
        }
        Ok(())
    }
}

fn object(part: &str) -> Result<Map<String, Value>, AuthFailure> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthFailure::Malformed)?;
    let UniqueObject(object) =
        serde_json::from_slice(&bytes).map_err(|_| AuthFailure::Malformed)?;
    Ok(object)
}

/// Whether a token is for access (RFC 8725 §3.11): other kinds, such as logout tokens, say so in `typ`.
fn is_access_token(kind: Option<&Value>) -> bool {
    match kind {
        None => true,
        Some(Value::String(kind)) => ["JWT", "at+jwt", "application/at+jwt"]
            .iter()
            .any(|known| kind.eq_ignore_ascii_case(known)),
        Some(_) => false,
    }
}
