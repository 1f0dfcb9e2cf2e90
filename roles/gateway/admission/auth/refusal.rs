//! What a caller is told who was not let in, and what we count.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::catalogue::AuthMethod;
use crate::problem::{Problem, ProblemKind};
use crate::roles::gateway::client::caller::Caller;

/// When to come again while the issuer's keys are not there.
const NO_KEYS_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Characters of a name in a refused credential that are logged.
const NAME_CHARACTERS_MAX: usize = 64;

/// Why a caller was not let in: a label of `fjord_auth_failures_total`. The caller learns none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthFailure {
    /// No credentials of a method that the endpoint accepts.
    NoCredentials,
    /// Credentials that cannot be read.
    Malformed,
    /// More than one credential, or a certificate that stands for several callers.
    Ambiguous,
    /// None of the methods that the endpoint accepts is configured.
    NotConfigured,
    /// The issuer's keys could not be fetched yet, or not for too long.
    NoKeys,
    /// A token that names no key of ours.
    UnknownKey,
    /// A token with another algorithm than its key's.
    WrongAlgorithm,
    /// A token that its key did not sign.
    BadSignature,
    /// A token or an API key past its end.
    Expired,
    /// A token before its begin.
    NotYetValid,
    /// A token of another issuer.
    WrongIssuer,
    /// A token for somebody else.
    WrongAudience,
    /// A token without a claim that we need, or with one that makes no sense.
    BadClaims,
    /// An API key that is not ours.
    UnknownApiKey,
    /// A certificate that stands for nobody.
    UnknownCertificate,
    /// A certificate that ended after its connection was made.
    ExpiredCertificate,
    /// A certificate whose authority has been removed since its connection was made.
    UntrustedCertificate,
    /// No certificate, on a connection that was made before one had to be shown.
    MissingCertificate,
    /// A known caller that lacks a scope.
    MissingScope,
}

impl AuthFailure {
    /// The word for the label.
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

/// What is known of a credential that was refused, and never the credential itself.
#[derive(Clone, Debug, Default)]
pub struct Presented {
    /// Its kind.
    pub method: Option<AuthMethod>,
    /// The issuer that a token names, by its name in the configuration.
    pub issuer: Option<Arc<str>>,
    /// The `kid` that a token names, the label of an API key, the first name in a certificate; as it can be logged.
    pub key: Option<String>,
}

/// A credential that was refused, and what is known of it.
pub(super) type Refused = (AuthFailure, Presented);

impl Presented {
    /// Of a credential of which nothing else is known.
    pub(super) fn of(method: AuthMethod) -> Self {
        Self { method: Some(method), ..Self::default() }
    }

    /// The same, with the name of its key. It may be anybody's text: what does not show is escaped, and it is cut.
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

/// A caller that is not let in.
#[derive(Clone, Debug)]
pub struct AuthRefusal {
    /// What it had presented.
    pub presented: Presented,
    /// Who it is: of a caller that proved it, and may not call.
    pub principal: Option<Arc<str>>,
    /// What the caller is told: its kind alone, unless it is we who cannot check.
    pub problem: Problem,
    /// The answer's `WWW-Authenticate`: always on a 401 (RFC 9110 §11.6.1), on a 403 for bearer tokens.
    pub challenge: Option<HeaderValue>,
    /// Why, for the metric and the log.
    pub failure: AuthFailure,
}

impl AuthRefusal {
    pub(super) fn unauthenticated(
        failure: AuthFailure,
        presented: Presented,
        methods: &[AuthMethod],
    ) -> Self {
        if failure == AuthFailure::NoKeys {
            // Not the caller's fault: a 401 would make it ask for another token.
            let detail = "the token cannot be checked now: the issuer's keys are not there";
            let problem = Problem::with_detail(ProblemKind::NotExecuted, detail.to_owned());
            let problem = problem.retry_after(NO_KEYS_RETRY_AFTER);
            return Self { presented, principal: None, problem, challenge: None, failure };
        }
        // Who sent no credentials is told no error (RFC 6750 §3.1). All others get the same word, so that
        // nobody can feel the way to a good token.
        let bearer = match failure {
            AuthFailure::NoCredentials | AuthFailure::NotConfigured => r#"Bearer realm="fjord""#,
            _ => r#"Bearer realm="fjord", error="invalid_token""#,
        };
        let challenges: Vec<&str> = methods
            .iter()
            .map(|method| match method {
                AuthMethod::Jwt => bearer,
                AuthMethod::ApiKey => r#"ApiKey realm="fjord""#,
                // No scheme is registered for TLS client certificates; a 401 needs one all the same.
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
        // RFC 6750 §3.1 would let us name the scope. Which scopes there are is nobody's business.
        let challenge = (method == AuthMethod::Jwt).then_some(HeaderValue::from_static(
            r#"Bearer realm="fjord", error="insufficient_scope""#,
        ));
        Self {
            presented: Presented { issuer: caller.issuer, ..Presented::of(method) },
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
    fn a_name_is_logged_short_and_so_that_all_of_it_shows() {
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
            let presented = Presented::of(AuthMethod::Jwt).with_key(Some(sent));
            assert_eq!(presented.key.as_deref(), Some(shown), "{sent:?}");
        }
    }
}
