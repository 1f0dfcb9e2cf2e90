//! Authenticates callers and checks whether they may call an endpoint.

use std::borrow::Cow;

use http::HeaderMap;

use crate::admin::Readiness;
use crate::catalogue::Endpoint;
use crate::catalogue::{Auth, AuthMethod};
use crate::config::AuthConfig;
use crate::lifecycle::{Cancel, Tasks};
use crate::roles::gateway::client::caller::Caller;
use crate::roles::gateway::client::caller::Peer;
use crate::tls::ClientCertificateError;

mod api_key;
mod client_certificate;
mod credentials;
mod jwt;
mod permissions;
mod rejection;

use api_key::ApiKeys;
use client_certificate::ClientCertificates;
use credentials::Credential;
use jwt::JwtVerifier;
pub use permissions::Permissions;
pub use rejection::{AuthFailure, AuthRejection, PresentedCredential};

/// The configured authentication methods with their keys. A reload creates a new `Authenticator`.
#[derive(Debug)]
pub struct Authenticator {
    jwt: JwtVerifier,
    api_keys: ApiKeys,
    certificates: ClientCertificates,
}

impl Authenticator {
    /// Reads the keys that the configuration names, and validates the rest of the configuration.
    ///
    /// # Errors
    /// Every error found, with its configuration key and, if it concerns a file, the path of the file.
    pub fn load(config: &AuthConfig) -> Result<Self, Vec<String>> {
        let mut errors = Vec::new();
        let jwt = ok_or_collect(JwtVerifier::load(&config.issuers), &mut errors);
        let api_keys = ok_or_collect(ApiKeys::load(&config.api_keys), &mut errors);
        let certificates =
            ok_or_collect(ClientCertificates::load(&config.certificates), &mut errors);
        match (jwt, api_keys, certificates) {
            (Some(jwt), Some(api_keys), Some(certificates)) => {
                Ok(Self { jwt, api_keys, certificates })
            }
            _ => Err(errors),
        }
    }

    /// Starts tasks that fetch the keys of issuers that publish them. The tasks end when `stop` is cancelled or another
    /// authenticator takes over. Keys that `old` has fetched stay valid.
    pub fn fetch_issuer_keys(
        &self,
        old: Option<&Self>,
        readiness: &Readiness,
        tasks: &Tasks,
        stop: &Cancel,
    ) {
        self.jwt.start_fetching(old.map(|old| &old.jwt), readiness, tasks, stop);
    }

    /// Fetches an issuer's keys after a token was rejected because its key is unknown or the issuer's keys are missing. Returns
    /// whether the token should be verified again.
    pub async fn refresh_keys(&self, refusal: &AuthRejection) -> bool {
        let unknown = matches!(refusal.failure, AuthFailure::UnknownKey | AuthFailure::NoKeys);
        match &refusal.presented.issuer {
            Some(issuer) if unknown => self.jwt.refresh_keys(issuer).await,
            _ => false,
        }
    }

    /// Returns an error, together with the endpoint's key that the error concerns, if the endpoint names an issuer that
    /// `[auth]` does not define or accepts only methods that `[auth]` does not configure.
    #[must_use]
    pub fn endpoint_error(&self, endpoint: &Endpoint) -> Option<(&'static str, String)> {
        let Auth::Required { methods, issuers, .. } = &endpoint.auth else { return None };
        if let Some(unknown) = issuers.iter().find(|name| !self.jwt.knows(name)) {
            let expected = format!(
                "expected issuers from the configuration, found {unknown:?}, but there is no [auth.jwt.{unknown}]"
            );
            return Some(("auth.issuers", expected));
        }
        let is_closed = !methods.iter().any(|method| self.is_configured(*method));
        is_closed.then(|| {
            let names: Vec<&str> = methods.iter().map(|method| method.as_str()).collect();
            let expected = format!(
                "expected a method that [auth] in the configuration sets up, found {}",
                names.join(", ")
            );
            ("auth", expected)
        })
    }

    fn is_configured(&self, method: AuthMethod) -> bool {
        match method {
            AuthMethod::Jwt => !self.jwt.is_empty(),
            AuthMethod::ApiKey => !self.api_keys.is_empty(),
            AuthMethod::ClientCertificate => !self.certificates.is_empty(),
        }
    }

    /// Checks whether a new TLS handshake with a connection's peer would still succeed. Since the
    /// connection was made, a reload may have removed the authority that signed the peer's
    /// certificate or changed whether certificates are requested, or the certificate may have
    /// expired. Returns the peer without its certificate if certificates are no longer requested.
    ///
    /// # Errors
    /// `AuthRejection` if the handshake would fail. The rejection applies to every request on the connection.
    pub fn check_connection(peer: &Peer) -> Result<Cow<'_, Peer>, Box<AuthRejection>> {
        let failure = match (&peer.certificate, &peer.tls) {
            (Some(_), Some(tls)) if !tls.asks_for_certificates() => {
                return Ok(Cow::Owned(Peer::new(peer.address, peer.is_tls)));
            }
            (Some(certificate), _) => match certificate.check() {
                Ok(()) => return Ok(Cow::Borrowed(peer)),
                Err(ClientCertificateError::Expired) => AuthFailure::ExpiredCertificate,
                Err(ClientCertificateError::Untrusted) => AuthFailure::UntrustedCertificate,
            },
            (None, Some(tls)) if tls.requires_certificates() => AuthFailure::MissingCertificate,
            (None, _) => return Ok(Cow::Borrowed(peer)),
        };
        let methods = [AuthMethod::ClientCertificate];
        Err(Box::new(AuthRejection::unauthenticated(failure, rejected_certificate(peer), &methods)))
    }

    /// Authenticates the caller of an endpoint and checks its scopes.
    ///
    /// Considers only credentials of methods that the endpoint accepts and that are configured. For a public endpoint,
    /// it considers none. A credential in the headers takes precedence over a client certificate: if it is invalid, the
    /// request is rejected even if the certificate is valid. A caller is therefore never authenticated under an
    /// identity other than the one that it named.
    ///
    /// # Errors
    /// `AuthRejection`: 401 if the caller is not authenticated, 403 if it lacks a scope.
    pub fn authenticate(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Caller, Box<AuthRejection>> {
        let Auth::Required { methods, scopes, issuers } = &endpoint.auth else {
            return Ok(Caller::default());
        };
        let (method, caller) = self.authenticate_by(methods, issuers, headers, peer)?;
        if has_all(&caller, scopes) {
            Ok(caller)
        } else {
            Err(Box::new(AuthRejection::forbidden(method, caller)))
        }
    }

    /// Authenticates the caller with one of `methods`. A token must come from one of `issuers`.
    fn authenticate_by(
        &self,
        methods: &[AuthMethod],
        issuers: &[String],
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<(AuthMethod, Caller), Box<AuthRejection>> {
        let usable: Vec<AuthMethod> =
            methods.iter().copied().filter(|method| self.is_configured(*method)).collect();
        self.identify((&usable, issuers), headers, peer).map_err(|(failure, presented)| {
            Box::new(AuthRejection::unauthenticated(failure, presented, &usable))
        })
    }

    fn identify(
        &self,
        (methods, issuers): (&[AuthMethod], &[String]),
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<(AuthMethod, Caller), (AuthFailure, PresentedCredential)> {
        if methods.is_empty() {
            return Err((AuthFailure::NotConfigured, PresentedCredential::default()));
        }
        match credentials::from_headers(methods, headers)? {
            Some(Credential::Bearer(token)) => {
                Ok((AuthMethod::Jwt, self.jwt.verify(token, issuers)?))
            }
            Some(Credential::ApiKey(key)) => {
                Ok((AuthMethod::ApiKey, self.api_keys.find(key, unix_seconds())?))
            }
            None if methods.contains(&AuthMethod::ClientCertificate)
                && !peer.certificate_names.is_empty() =>
            {
                let found = self.certificates.find(&peer.certificate_names);
                let found = found.map_err(|failure| (failure, rejected_certificate(peer)))?;
                Ok((AuthMethod::ClientCertificate, found))
            }
            None => Err((AuthFailure::NoCredentials, PresentedCredential::default())),
        }
    }
}

fn rejected_certificate(peer: &Peer) -> PresentedCredential {
    let name = peer.certificate_names.first().map(String::as_str);
    PresentedCredential::new(AuthMethod::ClientCertificate).with_key(name)
}

fn has_all(caller: &Caller, scopes: &[String]) -> bool {
    scopes.iter().all(|scope| caller.scopes.contains(scope))
}

/// Returns the loaded value, or adds the errors to `errors`.
fn ok_or_collect<T>(loaded: Result<T, Vec<String>>, errors: &mut Vec<String>) -> Option<T> {
    loaded.map_err(|more| errors.extend(more)).ok()
}

/// Returns the wall-clock time, in seconds since 1970. It determines whether tokens and keys have expired.
fn unix_seconds() -> i64 {
    chrono::Utc::now().timestamp()
}
