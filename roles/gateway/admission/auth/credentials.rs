//! Reads the credential from a request's headers.

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::rejection::{AuthFailure, CredentialError, PresentedCredential};
use crate::catalogue::AuthMethod;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A credential that has not been checked yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Credential<'a> {
    /// A bearer token (RFC 6750 §2.1).
    Bearer(&'a str),
    /// An API key.
    ApiKey(&'a str),
}

/// Returns the credential in the headers that belongs to one of `methods`. Credentials in the query are ignored, because
/// queries end up in logs.
pub(super) fn from_headers<'h>(
    methods: &[AuthMethod],
    headers: &'h HeaderMap,
) -> Result<Option<Credential<'h>>, CredentialError> {
    let accepts_tokens = methods.contains(&AuthMethod::Jwt);
    let accepts_keys = methods.contains(&AuthMethod::ApiKey);
    let authorization = match single(headers, &AUTHORIZATION, accepts_tokens || accepts_keys)? {
        Some(text) => parse_authorization(text)?.filter(|credential| match credential {
            Credential::Bearer(_) => accepts_tokens,
            Credential::ApiKey(_) => accepts_keys,
        }),
        None => None,
    };
    let key = single(headers, &X_API_KEY, accepts_keys)?.map(Credential::ApiKey);
    match (authorization, key) {
        (Some(_), Some(_)) => Err((AuthFailure::Ambiguous, PresentedCredential::default())),
        (one, other) => match one.or(other) {
            Some(empty @ (Credential::Bearer("") | Credential::ApiKey(""))) => {
                Err((AuthFailure::Malformed, PresentedCredential::new(empty.method())))
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

/// Returns the value of a header that may occur at most once.
fn single<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    is_accepted: bool,
) -> Result<Option<&'h str>, CredentialError> {
    if !is_accepted {
        return Ok(None);
    }
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => visible(value).map(Some),
        (Some(_), Some(_)) => Err((AuthFailure::Ambiguous, PresentedCredential::default())),
    }
}

fn visible(value: &HeaderValue) -> Result<&str, CredentialError> {
    value.to_str().map_err(|_| (AuthFailure::Malformed, PresentedCredential::default()))
}

/// Splits `scheme credentials` (RFC 9110 §11.4). Credentials with an unknown scheme are ignored.
fn parse_authorization(text: &str) -> Result<Option<Credential<'_>>, CredentialError> {
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
        return Err((AuthFailure::Malformed, PresentedCredential::new(credential.method())));
    }
    Ok(Some(credential))
}
