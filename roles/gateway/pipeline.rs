//! The way of a request through the gateway: route → authenticate → rate → parameters → place → respond.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Version, header};

use crate::catalogue::{Endpoint, Execution};
use crate::envelope::{Final, Request as Envelope};
use crate::future::BoxFuture;
use crate::in_flight::Admission;
use crate::outcome::Word;
use crate::problem::{Problem, ProblemKind};
use crate::telemetry::conditions::{self, Condition};
use crate::telemetry::{context, counter, names};

use crate::roles::gateway::admission::accept;
use crate::roles::gateway::admission::auth::Authenticator;
use crate::roles::gateway::admission::cors;
use crate::roles::gateway::admission::idempotency;
use crate::roles::gateway::admission::params;
use crate::roles::gateway::admission::params::Context;
use crate::roles::gateway::admission::prefer;
use crate::roles::gateway::admission::prefer::PREFERENCE_APPLIED;
use crate::roles::gateway::admission::rate::RateLimiter;
use crate::roles::gateway::admission::router::Found;
use crate::roles::gateway::admission::router::Matched;
use crate::roles::gateway::client::byte_budget::ByteBudget;
use crate::roles::gateway::client::caller::Caller;
use crate::roles::gateway::client::caller::Peer;
use crate::roles::gateway::client::network::ClientNetwork;
use crate::roles::gateway::dispatch::place::Answered;
use crate::roles::gateway::dispatch::place::Begun;
use crate::roles::gateway::dispatch::place::Placed;
use crate::roles::gateway::dispatch::place::Placer;
use crate::roles::gateway::dispatch::place::Rest;
use crate::roles::gateway::dispatch::place::Wanted;
use crate::roles::gateway::dispatch::session::Ending;
use crate::roles::gateway::edge::connection::RequestBody;
use crate::roles::gateway::edge::connection::Service;
use crate::roles::gateway::edge::connection::read_body;
use crate::roles::gateway::edge::health::HealthCheck;
use crate::roles::gateway::observation::phases::Phase;
use crate::roles::gateway::observation::trip::Trip;
use crate::roles::gateway::response;
use crate::roles::gateway::response::ConnectionEnd;
use crate::roles::gateway::response::RequestId;
use crate::roles::gateway::response::Response;
use crate::roles::gateway::snapshot::Snapshot;

mod access;

use access::distrusted;

/// When a request that found the gateway full may come again.
const SHED_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Answers requests from whatever the catalogue says at the moment.
#[derive(Debug)]
pub struct Pipeline {
    /// Catalogue, router, keys and limits: replaced whole at a reload.
    pub snapshot: ArcSwap<Snapshot>,
    /// Places requests with workers.
    pub placer: Arc<Placer>,
    /// Counts callers' requests.
    pub rates: RateLimiter,
    /// Requests at once.
    pub in_flight: Admission,
    /// What they hold.
    pub bytes: ByteBudget,
    /// Answers load balancers.
    pub health: HealthCheck,
}

impl Service for Pipeline {
    fn answer<'a>(
        &'a self,
        request: http::Request<&'a mut RequestBody>,
        peer: Peer,
        request_id: RequestId,
    ) -> BoxFuture<'a, Response> {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            if self.snapshot.load().is_health_check(parts.uri.path())
                && let Some(response) = self.health.answer(&parts.method)
            {
                return response;
            }
            let trip = Trip::begin(&parts, &peer, request_id);
            context::serving(trip.served(), self.travel(&parts, body, &peer, trip)).await
        })
    }
}

/// A request that was not answered by a worker.
struct Refusal {
    problem: Problem,
    allow: Option<String>,
    challenge: Option<HeaderValue>,
    outcome: Option<Word>,
    /// Where the connection has to end with it.
    ends: Option<ConnectionEnd>,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, allow: None, challenge: None, outcome: None, ends: None }
    }
}

impl From<Problem> for Box<Refusal> {
    fn from(problem: Problem) -> Self {
        Box::new(problem.into())
    }
}

impl Refusal {
    fn into_response(self, trip: &mut Trip) -> Response {
        trip.outcome = self.outcome.unwrap_or_else(|| self.problem.kind.outcome());
        let mut response = response::problem(&self.problem, &trip.request_id);
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::try_from(allow).ok()) {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        if let Some(end) = self.ends {
            end.mark(&mut response);
        }
        match self.challenge {
            Some(challenge) => response::with_challenge(response, challenge),
            None => response,
        }
    }
}

impl Pipeline {
    /// The whole way, to its access line.
    async fn travel(
        &self,
        parts: &Parts,
        body: &mut RequestBody,
        peer: &Peer,
        mut trip: Trip,
    ) -> Response {
        let entered = self.in_flight.enter();
        let answered = match &entered {
            Ok(_guard) => self.respond(parts, body, peer, &mut trip).await,
            Err(problem) => {
                let reason = [(names::REASON, "in_flight".to_owned())];
                counter(&names::GATEWAY_SHED, &reason).increment(1);
                Err(problem.clone().retry_after(SHED_RETRY_AFTER).into())
            }
        };
        let (mut response, rest) = answered
            .unwrap_or_else(|refusal: Box<Refusal>| (refusal.into_response(&mut trip), None));
        trip.rate.apply(response.headers_mut());
        if let Some(endpoint) = trip.endpoint.clone().or_else(|| self.meant(parts)) {
            cors::allow(&endpoint, &parts.headers, response.headers_mut());
        }
        if let Some(timing) = trip.server_timing() {
            response.headers_mut().insert(response::SERVER_TIMING, timing);
        }
        let status = response.status();
        match rest {
            // What has begun was all that it asks for: the call serves nobody any more.
            Some(rest) if parts.method == Method::HEAD => {
                trip.attempts = rest.attempts();
                trip.end(status);
            }
            // It is in flight until its end, and only then known.
            Some(rest) => rest.bring(move |placed| {
                trip.placed(placed);
                trip.outcome = brought(&placed.ending);
                trip.end(status);
                drop(entered);
            }),
            None => trip.end(status),
        }
        response
    }

    async fn respond(
        &self,
        parts: &Parts,
        body: &mut RequestBody,
        peer: &Peer,
        trip: &mut Trip,
    ) -> Result<(Response, Option<Rest>), Box<Refusal>> {
        // In this order: a reload takes the files of TLS before the snapshot that goes with them.
        let snapshot = self.snapshot.load_full();
        let checked = Authenticator::check_connection(peer);
        let peer = &*checked.map_err(|refusal| distrusted(refusal, trip))?;
        let matched = match snapshot.router.find(&parts.method, parts.uri.path()) {
            Found::Matched(matched) => matched,
            Found::Malformed(problem) => return Err(problem.into()),
            Found::Options { allow } => {
                let mut response = options(&allow);
                cors::answer_preflight(&snapshot.router, parts, response.headers_mut());
                return Ok((response, None));
            }
            Found::NoRoute => {
                // Boxed: it is for the rare case, and every request would carry its room.
                let page = Box::pin(self.document(&snapshot, parts, peer, trip));
                return page.await.map(|page| (page, None));
            }
            Found::MethodNotAllowed { allow } => {
                let problem = Problem::new(ProblemKind::MethodNotAllowed);
                return Err(Box::new(Refusal { allow: Some(allow), ..problem.into() }));
            }
        };
        trip.endpoint = Some(Arc::clone(&matched.endpoint));
        let caller = self.admit(&snapshot, &parts.headers, peer, trip).await?;
        trip.enter(Some(Phase::Parameters));
        if !accept::allows_json(&parts.headers) {
            return Err(Problem::new(ProblemKind::NotAcceptable).into());
        }
        trip.transaction_end = prefer::transaction_end(&parts.headers, &matched.endpoint)
            .map_err(|violation| Problem::invalid(vec![violation]))?;
        let bytes_max = matched.endpoint.body_bytes_max;
        let client = ClientNetwork::new(peer.address, snapshot.http.ipv6_prefix_bits);
        let mut room = self.bytes.enter(client)?;
        let body = read_body(body, bytes_max, &snapshot.http, &mut room).await?;
        let sent = Sent { parts, matched: &matched, body: &body };
        let mut envelope = sent.envelope(&caller, peer, trip)?;
        drop(body);
        envelope.window = if envelope.dry_run { 0 } else { self.window(parts, &matched.endpoint) };
        trip.enter(None);
        let wanted = Wanted::new(parts.method != Method::HEAD, room);
        match self.placer.place(&matched.endpoint, envelope, wanted).await {
            Answered::Whole(placed) => {
                trip.placed(&placed);
                Ok((ended(placed, &matched.endpoint, trip)?, None))
            }
            Answered::Begun(begun) => {
                let Begun { head, body, rest } = *begun;
                let begun = response::beginning(&head, body);
                // What it would say of a preference is known at its end only: it says nothing of it.
                let response = begun.map_err(|problem| unusable(problem, &matched.endpoint))?;
                Ok((as_the_endpoint_says(response, &matched.endpoint), Some(rest)))
            }
        }
    }

    /// How many parts of its answer may be on their way to the client; 0 where it has to be whole: HTTP/1.0 cannot tell
    /// a whole answer from one that was cut off. HEAD wants none of them, and always asks for one to hear how it begins:
    /// without a window the worker would send all of the answer at once.
    fn window(&self, parts: &Parts, endpoint: &Endpoint) -> u32 {
        if !endpoint.may_stream() {
            0
        } else if parts.method == Method::HEAD {
            1
        } else if parts.version >= Version::HTTP_11 {
            self.placer.config.load().window_parts
        } else {
            0
        }
    }

    /// The endpoint that a page's request was for when it was refused before that was known.
    fn meant(&self, parts: &Parts) -> Option<Arc<Endpoint>> {
        parts.headers.get(header::ORIGIN)?;
        match self.snapshot.load().router.find(&parts.method, parts.uri.path()) {
            Found::Matched(matched) => Some(matched.endpoint),
            _ => None,
        }
    }
}

/// What a client sent, whole.
struct Sent<'a> {
    parts: &'a Parts,
    matched: &'a Matched,
    body: &'a Bytes,
}

impl Sent<'_> {
    /// The request as it travels: checked parameters, and what the gateway knows about the call.
    fn envelope(&self, caller: &Caller, peer: &Peer, trip: &Trip) -> Result<Envelope, Problem> {
        let endpoint = &self.matched.endpoint;
        let idempotency_key = idempotency::key(&self.parts.headers)
            .map_err(|violation| Problem::invalid(vec![violation]))?;
        let context = Context {
            request_id: trip.request_id.as_str(),
            idempotency_key: idempotency_key.as_deref(),
            principal: caller.principal.as_deref(),
            client_ip: peer.address,
        };
        let dry_run = trip.is_dry_run();
        let payload = params::check(self.matched, self.parts, self.body, caller, &context)?;
        Ok(Envelope {
            endpoint: endpoint.id.clone(),
            request_id: Arc::clone(trip.request_id.shared()),
            attempt: 0,
            timeout: Duration::ZERO,
            execution: if dry_run { Execution::AtMostOnce } else { endpoint.execution },
            dry_run,
            waiting: 0,
            window: 0,
            principal: caller.principal.as_deref().map(ToOwned::to_owned),
            idempotency_key,
            traceparent: Some(Arc::clone(trip.trace.traceparent())),
            tracestate: trip.trace.tracestate().map(ToOwned::to_owned),
            payload,
        })
    }
}

/// The one answer of a placed request.
fn ended(placed: Placed, endpoint: &Endpoint, trip: &mut Trip) -> Result<Response, Box<Refusal>> {
    match placed.ending {
        Ending::Final(answer) => {
            trip.outcome = answer.outcome;
            let applied = prefer::applied(trip.transaction_end, &answer, endpoint)?;
            let mut response = passed_on(answer, endpoint)?;
            if let Some(applied) = applied {
                response.headers_mut().insert(PREFERENCE_APPLIED, applied);
            }
            if let Some(room) = &placed.room {
                response::remember(&mut response, room);
            }
            Ok(response)
        }
        // Of an answer that never began.
        Ending::Cut(outcome) => {
            let problem = Problem::new(ProblemKind::BadAnswer);
            Err(Box::new(Refusal { outcome: Some(outcome), ..problem.into() }))
        }
        Ending::Problem(kind) => {
            let problem = Problem { retry_after: placed.retry_after, ..Problem::new(kind) };
            Err(problem.into())
        }
        // Nobody reads it: hyper has dropped this future, or is about to.
        Ending::ClientGone => {
            let problem = Problem::new(ProblemKind::Cancelled);
            Err(Box::new(Refusal { outcome: Some(Word::ClientGone), ..problem.into() }))
        }
    }
}

/// Each of them has its access line.
const CUT_OFF: Condition = Condition::new("answers are cut off");

/// How an answer ended that had begun.
fn brought(ending: &Ending) -> Word {
    match ending {
        Ending::Final(answer) => answer.outcome,
        Ending::Cut(outcome) => {
            if conditions::begins(&CUT_OFF, outcome.as_str()) {
                tracing::warn!(%outcome, "an answer was cut off: it had begun, and could not be ended");
            }
            *outcome
        }
        Ending::Problem(kind) => kind.outcome(),
        Ending::ClientGone => Word::ClientGone,
    }
}

fn passed_on(answer: Final, endpoint: &Endpoint) -> Result<Response, Problem> {
    let response = response::answer(answer).map_err(|problem| unusable(problem, endpoint))?;
    Ok(as_the_endpoint_says(response, endpoint))
}

/// The problem of an answer that came and cannot be told: what is at most once was granted, and has run.
fn unusable(problem: Problem, endpoint: &Endpoint) -> Problem {
    match endpoint.execution {
        Execution::AtMostOnce => Problem::new(ProblemKind::BadAnswerOutcomeUnknown),
        Execution::AtLeastOnce => problem,
    }
}

fn as_the_endpoint_says(mut response: Response, endpoint: &Endpoint) -> Response {
    if response.status().is_success() {
        let headers = response.headers_mut();
        if let Some(value) = &endpoint.cache_control
            && let Ok(value) = HeaderValue::try_from(value)
        {
            headers.insert(header::CACHE_CONTROL, value);
        }
        if endpoint.deprecated {
            // RFC 9745 wants a date, which the catalogue does not have; the beginning of time is in the past.
            headers.insert("deprecation", HeaderValue::from_static("@0"));
        }
    }
    response
}

/// The answer to OPTIONS, from the route table.
fn options(allow: &str) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Ok(allow) = HeaderValue::try_from(allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}
