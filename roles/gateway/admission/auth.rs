//! Says who a caller is, and whether it may call an endpoint.

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

mod allowed;
mod api_key;
mod certificate;
mod credentials;
mod jwt;
mod refusal;

pub use allowed::Allowed;
use api_key::ApiKeys;
use certificate::Certificates;
use credentials::Credential;
use jwt::JwtVerifier;
pub use refusal::{AuthFailure, AuthRefusal, Presented};

/// Every way for a caller to prove who it is, loaded. A reload makes a new one.
#[derive(Debug)]
pub struct Authenticator {
    jwt: JwtVerifier,
    api_keys: ApiKeys,
    certificates: Certificates,
}

impl Authenticator {
    /// Reads the keys that the configuration names and checks everything else in it.
    ///
    /// # Errors
    /// Every error, each with its key and, where one was read, its file.
    pub fn load(config: &AuthConfig) -> Result<Self, Vec<String>> {
        let mut errors = Vec::new();
        let jwt = keep(JwtVerifier::load(&config.issuers), &mut errors);
        let api_keys = keep(ApiKeys::load(&config.api_keys), &mut errors);
        let certificates = keep(Certificates::load(&config.certificates), &mut errors);
        match (jwt, api_keys, certificates) {
            (Some(jwt), Some(api_keys), Some(certificates)) => {
                Ok(Self { jwt, api_keys, certificates })
            }
            _ => Err(errors),
        }
    }

    /// Keeps fetching issuers' keys, where they are fetched, until `stop` or another authenticator is in use.
    /// What the one from before has fetched goes on to count.
    pub fn follow_issuers(
        &self,
        old: Option<&Self>,
        readiness: &Readiness,
        tasks: &Tasks,
        stop: &Cancel,
    ) {
        self.jwt.follow(old.map(|old| &old.jwt), readiness, tasks, stop);
    }

    /// Looks for the key of a token that was refused because its key is not known. Whether it is worth to try it again.
    pub async fn look_again(&self, refusal: &AuthRefusal) -> bool {
        let unknown = matches!(refusal.failure, AuthFailure::UnknownKey | AuthFailure::NoKeys);
        match &refusal.presented.issuer {
            Some(issuer) if unknown => self.jwt.look_again(issuer).await,
            _ => false,
        }
    }

    /// Why nobody could ever call an endpoint: `[auth]` says nothing about any method, or an issuer, that it accepts.
    #[must_use]
    pub fn endpoint_error(&self, endpoint: &Endpoint) -> Option<String> {
        let Auth::Required { methods, issuers, .. } = &endpoint.auth else { return None };
        if let Some(unknown) = issuers.iter().find(|name| !self.jwt.knows(name)) {
            let id = &endpoint.id;
            return Some(format!(
                "endpoint {id}: its auth names the issuer {unknown:?}, but there is no [auth.jwt.{unknown}]"
            ));
        }
        let is_closed = !methods.iter().any(|method| self.knows(*method));
        is_closed.then(|| {
            let id = &endpoint.id;
            format!("endpoint {id}: [auth] is empty for every method that its auth accepts")
        })
    }

    /// Whether anybody can prove who they are by this method.
    fn knows(&self, method: AuthMethod) -> bool {
        match method {
            AuthMethod::Jwt => !self.jwt.is_empty(),
            AuthMethod::ApiKey => !self.api_keys.is_empty(),
            AuthMethod::ClientCertificate => !self.certificates.is_empty(),
        }
    }

    /// A connection's peer as it would be after a handshake now: a reload may have taken the authority of its certificate
    /// away, ask for certificates where none was asked for, or for none any more, and its time may be over.
    ///
    /// # Errors
    /// `AuthRefusal`: for whatever is asked on the connection, as a new one would not be made.
    pub fn check_connection(peer: &Peer) -> Result<Cow<'_, Peer>, Box<AuthRefusal>> {
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
        Err(Box::new(AuthRefusal::unauthenticated(failure, of_certificate(peer), &methods)))
    }

    /// Finds out who calls, and whether it may.
    ///
    /// Only credentials of methods that the endpoint accepts, and that are configured, are looked at; a
    /// public endpoint looks at none. One credential in the headers, if any, decides alone: when it is bad,
    /// a good certificate does not help, so that no caller is ever taken for another than the one it named.
    ///
    /// # Errors
    /// `AuthRefusal`: 401 when the caller did not prove who it is, 403 when it lacks a scope.
    pub fn authenticate(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Caller, Box<AuthRefusal>> {
        let Auth::Required { methods, scopes, issuers } = &endpoint.auth else {
            return Ok(Caller::default());
        };
        let (method, caller) = self.prove(methods, issuers, headers, peer)?;
        if has_all(&caller, scopes) {
            Ok(caller)
        } else {
            Err(Box::new(AuthRefusal::forbidden(method, caller)))
        }
    }

    /// Finds out who calls, by one of these methods and, with a token, of one of these issuers.
    fn prove(
        &self,
        methods: &[AuthMethod],
        issuers: &[String],
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<(AuthMethod, Caller), Box<AuthRefusal>> {
        let usable: Vec<AuthMethod> =
            methods.iter().copied().filter(|method| self.knows(*method)).collect();
        self.identify((&usable, issuers), headers, peer).map_err(|(failure, presented)| {
            Box::new(AuthRefusal::unauthenticated(failure, presented, &usable))
        })
    }

    fn identify(
        &self,
        (methods, issuers): (&[AuthMethod], &[String]),
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<(AuthMethod, Caller), (AuthFailure, Presented)> {
        if methods.is_empty() {
            return Err((AuthFailure::NotConfigured, Presented::default()));
        }
        match credentials::presented(methods, headers)? {
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
                let found = found.map_err(|failure| (failure, of_certificate(peer)))?;
                Ok((AuthMethod::ClientCertificate, found))
            }
            None => Err((AuthFailure::NoCredentials, Presented::default())),
        }
    }
}

/// What is known of a certificate that was refused.
fn of_certificate(peer: &Peer) -> Presented {
    let name = peer.certificate_names.first().map(String::as_str);
    Presented::of(AuthMethod::ClientCertificate).with_key(name)
}

/// Whether a caller has every one of some scopes.
fn has_all(caller: &Caller, scopes: &[String]) -> bool {
    scopes.iter().all(|scope| caller.scopes.contains(scope))
}

/// Keeps what was loaded, or the errors.
fn keep<T>(loaded: Result<T, Vec<String>>, errors: &mut Vec<String>) -> Option<T> {
    loaded.map_err(|found| errors.extend(found)).ok()
}

/// The wall clock in seconds since 1970; tokens and keys end by it.
fn unix_seconds() -> i64 {
    chrono::Utc::now().timestamp()
}
