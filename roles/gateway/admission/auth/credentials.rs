//! Finds the credential in a request's headers.

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::refusal::{AuthFailure, Presented, Refused};
use crate::catalogue::AuthMethod;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A credential as it was sent, not checked at all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Credential<'a> {
    /// A token (RFC 6750 §2.1).
    Bearer(&'a str),
    /// An API key.
    ApiKey(&'a str),
}

/// The one credential of a method that the endpoint accepts; never from the query, where logs would keep it.
pub(super) fn presented<'h>(
    methods: &[AuthMethod],
    headers: &'h HeaderMap,
) -> Result<Option<Credential<'h>>, Refused> {
    let takes_tokens = methods.contains(&AuthMethod::Jwt);
    let takes_keys = methods.contains(&AuthMethod::ApiKey);
    let authorization = match single(headers, &AUTHORIZATION, takes_tokens || takes_keys)? {
        Some(text) => with_scheme(text)?.filter(|credential| match credential {
            Credential::Bearer(_) => takes_tokens,
            Credential::ApiKey(_) => takes_keys,
        }),
        None => None,
    };
    let key = single(headers, &X_API_KEY, takes_keys)?.map(Credential::ApiKey);
    match (authorization, key) {
        (Some(_), Some(_)) => Err((AuthFailure::Ambiguous, Presented::default())),
        (one, other) => match one.or(other) {
            Some(empty @ (Credential::Bearer("") | Credential::ApiKey(""))) => {
                Err((AuthFailure::Malformed, Presented::of(empty.method())))
            }
            sent => Ok(sent),
        },
    }
}

impl Credential<'_> {
    fn method(&self) -> AuthMethod {
        match self {
            Self::Bearer(_) => AuthMethod::Jwt,
            Self::ApiKey(_) => AuthMethod::ApiKey,
        }
    }
}

/// The text of a header that may be there once.
fn single<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    wanted: bool,
) -> Result<Option<&'h str>, Refused> {
    if !wanted {
        return Ok(None);
    }
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => visible(value).map(Some),
        (Some(_), Some(_)) => Err((AuthFailure::Ambiguous, Presented::default())),
    }
}

fn visible(value: &HeaderValue) -> Result<&str, Refused> {
    value.to_str().map_err(|_| (AuthFailure::Malformed, Presented::default()))
}

/// Splits `scheme credentials` (RFC 9110 §11.4); a scheme that is not ours is no credential.
fn with_scheme(text: &str) -> Result<Option<Credential<'_>>, Refused> {
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim_matches(' ');
    let credential = if scheme.eq_ignore_ascii_case("Bearer") {
        Credential::Bearer(rest)
    } else if scheme.eq_ignore_ascii_case("ApiKey") {
        Credential::ApiKey(rest)
    } else {
        return Ok(None);
    };
    if rest.contains(|c: char| !c.is_ascii_graphic() || c == ',') {
        return Err((AuthFailure::Malformed, Presented::of(credential.method())));
    }
    Ok(Some(credential))
}
