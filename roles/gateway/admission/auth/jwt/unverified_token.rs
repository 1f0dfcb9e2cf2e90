//! A token before its signature is verified. Nothing in it is trusted yet.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::unique_json::UniqueObject;
use crate::roles::gateway::admission::auth::rejection::AuthFailure;

/// The maximum length of a token, in bytes.
pub(super) const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// A parsed token. Its claims may be used only after its signature is verified.
#[derive(Debug)]
pub(super) struct UnverifiedToken {
    header: Map<String, Value>,
    pub(super) claims: Map<String, Value>,
}

impl UnverifiedToken {
    pub(super) fn read(token: &str) -> Result<Self, AuthFailure> {
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(AuthFailure::Malformed);
        };
        Ok(Self { header: object(header)?, claims: object(claims)? })
    }

    pub(super) fn key_id(&self) -> Option<&str> {
        self.header.get("kid").and_then(Value::as_str)
    }

    /// Returns the issuer in the token's claims. An array that contains the issuer is rejected: `jsonwebtoken` would accept it,
    /// but no issuer sends one.
    pub(super) fn issuer(&self) -> Result<&str, AuthFailure> {
        self.claims.get("iss").and_then(Value::as_str).ok_or(AuthFailure::BadClaims)
    }

    pub(super) fn algorithm(&self) -> Option<&str> {
        self.header.get("alg").and_then(Value::as_str)
    }

    /// Rejects a header that has an invalid key id, has extensions, or belongs to another kind of
    /// token.
    pub(super) fn check_header(&self) -> Result<(), AuthFailure> {
        let is_key_id = matches!(self.header.get("kid"), None | Some(Value::String(_)));
        // `crit` lists extensions that the recipient must understand (RFC 7515 §4.1.11). None is supported.
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

/// Returns whether `typ` is absent or names an access token (RFC 8725 §3.11). Other kinds of tokens, such as logout tokens,
/// have other types.
fn is_access_token(kind: Option<&Value>) -> bool {
    match kind {
        None => true,
        Some(Value::String(kind)) => ["JWT", "at+jwt", "application/at+jwt"]
            .iter()
            .any(|known| kind.eq_ignore_ascii_case(known)),
        Some(_) => false,
    }
}
