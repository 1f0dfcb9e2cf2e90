//! The 401, 403 or 503 for a request whose caller was rejected, and the reason for metrics and logs.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::catalogue::AuthMethod;
use crate::problem::{Problem, ProblemKind};
use crate::roles::gateway::client::caller::Caller;

/// `Retry-After` while the keys of an issuer are missing.
const NO_KEYS_RETRY_AFTER: Duration = Duration::from_secs(5);

/// The maximum number of logged characters of a name in a rejected credential.
const NAME_CHARACTERS_MAX: usize = 64;

/// The reason why a caller was rejected: a label value of `fjord_auth_failures_total`. It is not disclosed in the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthFailure {
    /// No credentials of a method that the endpoint accepts.
    NoCredentials,
    /// Credentials that cannot be parsed.
    Malformed,
    /// More than one credential, or a certificate that is mapped to several callers.
    Ambiguous,
    /// None of the methods that the endpoint accepts is configured.
    NotConfigured,
    /// The issuer's keys were never fetched, or not recently enough.
    NoKeys,
    /// A token that names an unknown key.
    UnknownKey,
    /// A token whose algorithm is not that of its key.
    WrongAlgorithm,
    /// A token whose signature is invalid.
    BadSignature,
    /// An expired token or API key.
    Expired,
    /// A token that is not valid yet.
    NotYetValid,
    /// A token from an issuer that is unknown or that the endpoint does not accept.
    WrongIssuer,
    /// A token for another audience.
    WrongAudience,
    /// A token that lacks a required claim or has an invalid one.
    BadClaims,
    /// An unknown API key.
    UnknownApiKey,
    /// A certificate that is mapped to no caller.
    UnknownCertificate,
    /// A certificate that has expired since its connection was made.
    ExpiredCertificate,
    /// A certificate whose authority has been removed since its connection was made.
    UntrustedCertificate,
    /// No certificate, on a connection that was made before certificates were required.
    MissingCertificate,
    /// An authenticated caller that lacks a scope.
    MissingScope,
}

impl AuthFailure {
    /// Returns the value of the metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoCredentials => "no-credentials",
            Self::Malformed => "malformed",
            Self::Ambiguous => "ambiguous",
            Self::NotConfigured => "not-configured",
            Self::NoKeys => "no-keys",
            Self::UnknownKey => "unknown-key",
            Self::WrongAlgorithm => "wrong-algorithm",
            Self::BadSignature => "bad-signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::WrongIssuer => "wrong-issuer",
            Self::WrongAudience => "wrong-audience",
            Self::BadClaims => "bad-claims",
            Self::UnknownApiKey => "unknown-api-key",
            Self::UnknownCertificate => "unknown-certificate",
            Self::ExpiredCertificate => "expired-certificate",
            Self::UntrustedCertificate => "untrusted-certificate",
            Self::MissingCertificate => "missing-certificate",
            Self::MissingScope => "missing-scope",
        }
    }
}

/// A description of a rejected credential. It never contains the credential itself.
#[derive(Clone, Debug, Default)]
pub struct PresentedCredential {
    /// The authentication method.
    pub method: Option<AuthMethod>,
    /// The issuer of a token, by its name in the configuration.
    pub issuer: Option<Arc<str>>,
    /// The `kid` of a token, the label of an API key, or the first name in a certificate, escaped for the log.
    pub key: Option<String>,
}

/// The reason why a credential was rejected, and a description of it.
pub(super) type CredentialError = (AuthFailure, PresentedCredential);

impl PresentedCredential {
    /// Describes a credential if only its method is known.
    pub(super) fn new(method: AuthMethod) -> Self {
        Self { method: Some(method), ..Self::default() }
    }

    /// Adds the name of the key. The client can send any text as a name, so the name is shortened and its invisible characters
    /// are escaped.
    pub(super) fn with_key(self, name: Option<&str>) -> Self {
        let key = name.map(|name| {
            let mut shown = name.chars().take(NAME_CHARACTERS_MAX).collect::<String>();
            if !shown.bytes().all(|byte| byte.is_ascii_graphic()) {
                shown = shown.escape_debug().collect();
            }
            if name.chars().nth(NAME_CHARACTERS_MAX).is_some() {
                shown.push('…');
            }
            shown
        });
        Self { key, ..self }
    }
}

/// A request whose caller was rejected.
#[derive(Clone, Debug)]
pub struct AuthRejection {
    /// The description of the rejected credential.
    pub presented: PresentedCredential,
    /// The caller's name, if it was authenticated and lacks a scope.
    pub principal: Option<Arc<str>>,
    /// The problem in the response. It has a detail only if the caller is not at fault.
    pub problem: Problem,
    /// `WWW-Authenticate`: set for every 401 (RFC 9110 §11.6.1), and for a 403 if the caller sent a bearer token.
    pub challenge: Option<HeaderValue>,
    /// The reason, for metrics and logs.
    pub failure: AuthFailure,
}

impl AuthRejection {
    pub(super) fn unauthenticated(
        failure: AuthFailure,
        presented: PresentedCredential,
        methods: &[AuthMethod],
    ) -> Self {
        if failure == AuthFailure::NoKeys {
            // The caller is not at fault. After a 401, it would request another token.
            let detail = "the token cannot be checked now: the issuer's keys are not available";
            let problem = Problem::with_detail(ProblemKind::NotExecuted, detail.to_owned());
            let problem = problem.retry_after(NO_KEYS_RETRY_AFTER);
            return Self { presented, principal: None, problem, challenge: None, failure };
        }
        // A request without credentials gets no error code (RFC 6750 §3.1). All other failures get the same code, so that the
        // code does not help an attacker find a valid token.
        let bearer = match failure {
            AuthFailure::NoCredentials | AuthFailure::NotConfigured => r#"Bearer realm="fjord""#,
            _ => r#"Bearer realm="fjord", error="invalid_token""#,
        };
        let challenges: Vec<&str> = methods
            .iter()
            .map(|method| match method {
                AuthMethod::Jwt => bearer,
                AuthMethod::ApiKey => r#"ApiKey realm="fjord""#,
                // No scheme is registered for TLS client certificates, but a 401 needs one.
                AuthMethod::ClientCertificate => r#"ClientCertificate realm="fjord""#,
            })
            .collect();
        let challenge = HeaderValue::try_from(challenges.join(", "))
            .ok()
            .filter(|value| !value.is_empty())
            .unwrap_or(HeaderValue::from_static(r#"Bearer realm="fjord""#));
        Self {
            presented,
            principal: None,
            problem: Problem::new(ProblemKind::Unauthenticated),
            challenge: Some(challenge),
            failure,
        }
    }

    pub(super) fn forbidden(method: AuthMethod, caller: Caller) -> Self {
        // RFC 6750 §3.1 allows naming the missing scope, but that would disclose which scopes exist.
        let challenge = (method == AuthMethod::Jwt).then_some(HeaderValue::from_static(
            r#"Bearer realm="fjord", error="insufficient_scope""#,
        ));
        Self {
            presented: PresentedCredential {
                issuer: caller.issuer,
                ..PresentedCredential::new(method)
            },
            principal: caller.principal,
            problem: Problem::new(ProblemKind::Forbidden),
            challenge,
            failure: AuthFailure::MissingScope,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logged_name_is_short_and_visible() {
        let long = "k".repeat(64);
        for (sent, shown) in [
            ("2026-11", "2026-11"),
            ("", ""),
            ("a\"b", "a\"b"),
            ("a\r\nb", "a\\r\\nb"),
            ("\u{202e}x\u{200b}", "\\u{202e}x\\u{200b}"),
            ("é 1", "é 1"),
            (&long, &long),
            (&"k".repeat(8_000), &format!("{long}…")),
        ] {
            let presented = PresentedCredential::new(AuthMethod::Jwt).with_key(Some(sent));
            assert_eq!(presented.key.as_deref(), Some(shown), "{sent:?}");
        }
    }
}
