//! Authenticates and authorizes callers, and applies their limits on rates and on requests in flight.

use std::io;
use std::time::Duration;

use http::HeaderMap;
use http::request::Parts;
use tokio::time::Instant;

use crate::catalogue::Endpoint;
use crate::problem::{Problem, ProblemKind};
use crate::roles::gateway::active_config::ActiveConfig;
use crate::roles::gateway::admission::auth::AuthRejection;
use crate::roles::gateway::admission::rate_limit::RateDecision;
use crate::roles::gateway::client::caller::Caller;
use crate::roles::gateway::client::caller::Peer;
use crate::roles::gateway::client::network::ClientNetwork;
use crate::roles::gateway::client::requests_per_caller::{CallerKey, CallerPermit, InFlightLimit};
use crate::roles::gateway::edge::documentation::DocumentationPage;
use crate::roles::gateway::observation::request_log::RequestLog;
use crate::roles::gateway::response::CloseReason;
use crate::roles::gateway::response::Response;
use crate::telemetry::conditions::{self, ConditionKind};
use crate::telemetry::{counter, names};

use super::Pipeline;
use super::rejection::Rejection;

/// All clients share one condition, because a client with many networks could otherwise fill the
/// table of conditions. The access line of each request contains the address.
const TOO_MANY_FAILURES: ConditionKind =
    ConditionKind::new("too many requests from a client fail authentication");

/// The condition has one subject for each of the two limits, but none for each caller. A client with many networks
/// could otherwise fill the table of conditions.
const TOO_MANY_IN_FLIGHT: ConditionKind =
    ConditionKind::new("a caller has too many requests in flight");

/// `Retry-After` for a caller with too many requests in flight. Any of its requests may end at any time.
const IN_FLIGHT_RETRY_AFTER: Duration = Duration::from_secs(1);

const UNTRUSTED_CONNECTIONS: ConditionKind =
    ConditionKind::new("open connections no longer meet the TLS settings");

impl Pipeline {
    /// Authenticates the caller, checks its scopes, and applies its limits on requests in flight and on its rate.
    pub(super) async fn admit(
        &self,
        active_config: &ActiveConfig,
        headers: &HeaderMap,
        peer: &Peer,
        log: &mut RequestLog,
    ) -> Result<(Caller, CallerPermit), Box<Rejection>> {
        let Some(endpoint) = log.endpoint.clone() else {
            return Err(Problem::new(ProblemKind::Internal).into());
        };
        let endpoint = &*endpoint;
        let authenticator = &active_config.authenticator;
        let mut found = authenticator.authenticate(endpoint, headers, peer);
        if let Err(rejection) = &found
            // This future is boxed, because it is rarely needed and would enlarge the future of
            // every request.
            && Box::pin(authenticator.refresh_keys(rejection)).await
        {
            found = authenticator.authenticate(endpoint, headers, peer);
        }
        let caller = found.map_err(|rejection| self.reject(rejection, active_config, peer, log))?;
        if let Some(principal) = &caller.principal {
            log.authenticated(principal);
        }
        log.shows_timing = active_config.shows_timing(&caller);
        let network = ClientNetwork::new(peer.address, active_config.http.ipv6_prefix_bits);
        let key = CallerKey::new(caller.principal.as_deref(), network);
        let permit = self.count_in_flight(key, (&caller, network), endpoint)?;
        match self.rates.admit(endpoint, &caller, network, Instant::now().into_std()) {
            RateDecision::Allowed { headers } => {
                log.rate = headers;
                Ok((caller, permit))
            }
            RateDecision::Limited { problem, headers } => {
                log.rate = headers;
                let label = [(names::ENDPOINT, endpoint.id.to_string())];
                counter(&names::RATE_LIMITED, &label).increment(1);
                Err(problem.into())
            }
        }
    }

    /// Counts a request in flight, unless its caller already has too many requests in flight.
    fn count_in_flight(
        &self,
        key: CallerKey,
        (caller, network): (&Caller, ClientNetwork),
        endpoint: &Endpoint,
    ) -> Result<CallerPermit, Box<Rejection>> {
        self.in_flight_per_caller.try_acquire(key, endpoint).map_err(|limit| {
            let kind = match limit {
                InFlightLimit::Gateway(_) => {
                    let reason = (names::REASON, "in_flight_per_caller".to_owned());
                    counter(&names::GATEWAY_SHED, &[reason]).increment(1);
                    ProblemKind::Overloaded
                }
                InFlightLimit::Endpoint(_) => {
                    let label = (names::ENDPOINT, endpoint.id.to_string());
                    counter(&names::IN_FLIGHT_LIMITED, &[label]).increment(1);
                    ProblemKind::TooManyInFlight
                }
            };
            let max = limit.requests();
            let problem = Problem::with_detail(
                kind,
                format!("a caller may have at most {max} requests in flight"),
            );
            if conditions::raise(&TOO_MANY_IN_FLIGHT, limit.key()) {
                let principal = caller.principal.as_deref();
                tracing::warn!(
                    principal,
                    client = %network,
                    endpoint = endpoint.id.as_str(),
                    limit = limit.key(),
                    max,
                    "a caller has too many requests in flight: responding with {}",
                    problem.kind.status().as_u16()
                );
            }
            problem.retry_after(IN_FLIGHT_RETRY_AFTER).into()
        })
    }

    /// Returns the documentation page at the request's path, limited to the caller's endpoints.
    pub(super) async fn documentation(
        &self,
        active_config: &ActiveConfig,
        parts: &Parts,
        peer: &Peer,
        log: &mut RequestLog,
    ) -> Result<Response, Box<Rejection>> {
        let (path, headers) = (parts.uri.path(), &parts.headers);
        let documentation = active_config.documentation.as_ref();
        let page = documentation.and_then(|it| it.page(&parts.method, path, headers));
        let generated = |result: io::Result<Response>| -> Result<Response, Box<Rejection>> {
            result.map_err(|error| {
                tracing::error!(%error, "cannot generate the OpenAPI document");
                Problem::new(ProblemKind::Internal).into()
            })
        };
        let documentation = match page {
            Some(DocumentationPage::PerCaller(documentation)) => documentation,
            Some(DocumentationPage::Public(documentation)) => {
                return generated(documentation.public(headers).await);
            }
            Some(DocumentationPage::Page(page)) => return Ok(page),
            None => return Err(Problem::new(ProblemKind::NoRoute).into()),
        };
        let authenticator = &active_config.authenticator;
        let requirements = documentation.documents().requirements();
        let mut found = authenticator.permissions(requirements, &parts.headers, peer);
        if let Err(rejection) = &found
            && authenticator.refresh_keys(rejection).await
        {
            found = authenticator.permissions(requirements, &parts.headers, peer);
        }
        let permissions =
            found.map_err(|rejection| self.reject(rejection, active_config, peer, log))?;
        if let Some(principal) = &permissions.principal {
            log.authenticated(principal);
        }
        generated(documentation.for_caller(&permissions, headers).await)
    }

    /// Counts and logs a failed authentication. Returns the rejection or, after too many failures,
    /// a 429.
    ///
    /// Credentials are checked first, because callers can share an address, and a valid credential must be
    /// accepted. The limit bounds the cost of failures. Guessing a credential is infeasible anyway.
    fn reject(
        &self,
        rejection: Box<AuthRejection>,
        active_config: &ActiveConfig,
        peer: &Peer,
        log: &mut RequestLog,
    ) -> Box<Rejection> {
        let Rejection { problem, challenge, .. } = *record(rejection, log);
        if problem.kind == ProblemKind::NotExecuted {
            // 503: the credential cannot be checked, which is not the caller's fault.
            return problem.into();
        }
        let network = ClientNetwork::new(peer.address, active_config.http.ipv6_prefix_bits);
        let per_minute = active_config.http.auth_failures_per_minute_max;
        let now = Instant::now().into_std();
        let Err(wait) = self.rates.admit_rejection(network, per_minute, now) else {
            return Box::new(Rejection { challenge, ..problem.into() });
        };
        counter(&names::AUTH_FAILURES_LIMITED, &[endpoint(log)]).increment(1);
        if conditions::raise(&TOO_MANY_FAILURES, "") {
            tracing::warn!(client = %network, per_minute, "too many requests from a client failed authentication: \
                                                           responding with 429");
        }
        let detail = "too many requests from this client address failed authentication";
        let problem = Problem::with_detail(ProblemKind::RateLimited, detail).retry_after(wait);
        // The challenge is kept for clients that send credentials only after a challenge (RFC 9110
        // §11.6.1): valid credentials are still accepted.
        Box::new(Rejection { challenge, close: Some(CloseReason::AuthFailures), ..problem.into() })
    }
}

/// Counts and logs a connection whose client certificate is missing or no longer trusted. The
/// connection is closed after the response.
pub(super) fn untrusted_connection(
    rejection: Box<AuthRejection>,
    log: &mut RequestLog,
) -> Box<Rejection> {
    let failure = rejection.failure.as_str();
    if conditions::raise(&UNTRUSTED_CONNECTIONS, failure) {
        tracing::warn!(failure, "closing a connection that a new handshake would refuse");
    }
    let rejection = record(rejection, log);
    Box::new(Rejection { close: Some(CloseReason::ClientCertificate), ..*rejection })
}

/// Counts and records a failed authentication.
fn record(rejection: Box<AuthRejection>, log: &mut RequestLog) -> Box<Rejection> {
    let reason = (names::REASON, rejection.failure.as_str().to_owned());
    counter(&names::AUTH_FAILURES, &[endpoint(log), reason]).increment(1);
    if let Some(principal) = &rejection.principal {
        log.authenticated(principal);
    }
    let (problem, challenge) = (rejection.problem.clone(), rejection.challenge.clone());
    log.refused = Some(rejection);
    Box::new(Rejection { challenge, ..problem.into() })
}

fn endpoint(log: &RequestLog) -> (&'static str, String) {
    let id = log.endpoint.as_ref().map_or("none", |endpoint| endpoint.id.as_str());
    (names::ENDPOINT, id.to_owned())
}
