//! Lets callers in: credentials, scopes and rates, and how often a client may fail at them.

use http::HeaderMap;
use http::request::Parts;
use tokio::time::Instant;

use crate::problem::{Problem, ProblemKind};
use crate::roles::gateway::admission::auth::AuthRefusal;
use crate::roles::gateway::admission::rate::Verdict;
use crate::roles::gateway::client::caller::Caller;
use crate::roles::gateway::client::caller::Peer;
use crate::roles::gateway::client::network::ClientNetwork;
use crate::roles::gateway::edge::documentation::Page;
use crate::roles::gateway::observation::trip::Trip;
use crate::roles::gateway::response::ConnectionEnd;
use crate::roles::gateway::response::Response;
use crate::roles::gateway::snapshot::Snapshot;
use crate::telemetry::conditions::{self, Condition};
use crate::telemetry::{counter, names};

use super::{Pipeline, Refusal};

/// Of all networks together: a client with many networks would otherwise fill the table of conditions. The access line of
/// each request has the address.
const REFUSED_TOO_OFTEN: Condition = Condition::new("requests of a client are refused too often");

const DISTRUSTED: Condition = Condition::new("open connections no longer meet the TLS settings");

impl Pipeline {
    /// Who calls, whether it may, and whether it is within its rate.
    pub(super) async fn admit(
        &self,
        snapshot: &Snapshot,
        headers: &HeaderMap,
        peer: &Peer,
        trip: &mut Trip,
    ) -> Result<Caller, Box<Refusal>> {
        let Some(endpoint) = trip.endpoint.clone() else {
            return Err(Problem::new(ProblemKind::Internal).into());
        };
        let endpoint = &*endpoint;
        let authenticator = &snapshot.authenticator;
        let mut found = authenticator.authenticate(endpoint, headers, peer);
        if let Err(refusal) = &found
            // Boxed: it is for the rare case, and every request would carry its room.
            && Box::pin(authenticator.look_again(refusal)).await
        {
            found = authenticator.authenticate(endpoint, headers, peer);
        }
        let caller = found.map_err(|refusal| self.refuse(refusal, snapshot, peer, trip))?;
        if let Some(principal) = &caller.principal {
            trip.authenticated(principal);
        }
        trip.shows_timing = snapshot.shows_timing(&caller);
        let network = ClientNetwork::new(peer.address, snapshot.http.ipv6_prefix_bits);
        match self.rates.admit(endpoint, &caller, network, Instant::now().into_std()) {
            Verdict::Allowed { headers } => {
                trip.rate = headers;
                Ok(caller)
            }
            Verdict::Limited { problem, headers } => {
                trip.rate = headers;
                let label = [(names::ENDPOINT, endpoint.id.to_string())];
                counter(&names::RATE_LIMITED, &label).increment(1);
                Err(problem.into())
            }
        }
    }

    /// What is served about the endpoints, as far as the caller may call them.
    pub(super) async fn document(
        &self,
        snapshot: &Snapshot,
        parts: &Parts,
        peer: &Peer,
        trip: &mut Trip,
    ) -> Result<Response, Box<Refusal>> {
        let served = snapshot.documentation.as_ref();
        let documents = match served.and_then(|it| it.page(&parts.method, parts.uri.path())) {
            Some(Page::OfCaller(documents)) => documents,
            Some(Page::Same(page)) => return Ok(page),
            None => return Err(Problem::new(ProblemKind::NoRoute).into()),
        };
        let authenticator = &snapshot.authenticator;
        let kinds = documents.kinds();
        let mut found = authenticator.allowed(kinds, &parts.headers, peer);
        if let Err(refusal) = &found
            && authenticator.look_again(refusal).await
        {
            found = authenticator.allowed(kinds, &parts.headers, peer);
        }
        let allowed = found.map_err(|refusal| self.refuse(refusal, snapshot, peer, trip))?;
        if let Some(principal) = &allowed.principal {
            trip.authenticated(principal);
        }
        Ok(documents.of(&allowed))
    }

    /// Counts and logs a failed authentication. The caller gets its refusal, or 429 if its address had too many.
    ///
    /// Its credential is checked before, whatever its client did: behind one address there are others, and a good one gets
    /// in. Credentials cannot be guessed; the limit bounds what trying costs us.
    fn refuse(
        &self,
        refusal: Box<AuthRefusal>,
        snapshot: &Snapshot,
        peer: &Peer,
        trip: &mut Trip,
    ) -> Box<Refusal> {
        let Refusal { problem, challenge, .. } = *note(refusal, trip);
        if problem.kind == ProblemKind::NotExecuted {
            // 503: that its credential cannot be checked is not the caller's fault.
            return problem.into();
        }
        let network = ClientNetwork::new(peer.address, snapshot.http.ipv6_prefix_bits);
        let per_minute = snapshot.http.auth_failures_per_minute_max;
        let now = Instant::now().into_std();
        let Err(wait) = self.rates.admit_refusal(network, per_minute, now) else {
            return Box::new(Refusal { challenge, ..problem.into() });
        };
        counter(&names::AUTH_FAILURES_LIMITED, &[endpoint(trip)]).increment(1);
        if conditions::begins(&REFUSED_TOO_OFTEN, "") {
            tracing::warn!(client = %network, per_minute, "too many requests of a client were refused: it gets 429");
        }
        let detail = "too many requests from this client address were refused";
        let problem = Problem::with_detail(ProblemKind::RateLimited, detail).retry_after(wait);
        // A good credential would be taken: clients that wait to be asked for it are asked (RFC 9110 §11.6.1).
        Box::new(Refusal { challenge, ends: Some(ConnectionEnd::AuthFailures), ..problem.into() })
    }
}

/// Counts and logs a connection whose client certificate is missing or no longer trusted, and closes it after the response.
pub(super) fn distrusted(refusal: Box<AuthRefusal>, trip: &mut Trip) -> Box<Refusal> {
    let failure = refusal.failure.as_str();
    if conditions::begins(&DISTRUSTED, failure) {
        tracing::warn!(failure, "closing a connection that a new handshake would refuse");
    }
    let refusal = note(refusal, trip);
    Box::new(Refusal { ends: Some(ConnectionEnd::ClientCertificate), ..*refusal })
}

/// Counts and notes that a caller was not let in.
fn note(refusal: Box<AuthRefusal>, trip: &mut Trip) -> Box<Refusal> {
    let reason = (names::REASON, refusal.failure.as_str().to_owned());
    counter(&names::AUTH_FAILURES, &[endpoint(trip), reason]).increment(1);
    if let Some(principal) = &refusal.principal {
        trip.authenticated(principal);
    }
    let (problem, challenge) = (refusal.problem.clone(), refusal.challenge.clone());
    trip.refused = Some(refusal);
    Box::new(Refusal { challenge, ..problem.into() })
}

fn endpoint(trip: &Trip) -> (&'static str, String) {
    let id = trip.endpoint.as_ref().map_or("none", |endpoint| endpoint.id.as_str());
    (names::ENDPOINT, id.to_owned())
}
