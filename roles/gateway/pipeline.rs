//! Handles a request: routing, authentication, rate limits, parameters, dispatch and response.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};

use crate::catalogue::cors::CorsRules;
use crate::catalogue::{Endpoint, Execution};
use crate::envelope::Request as Envelope;
use crate::future::BoxFuture;
use crate::in_flight::ConcurrencyLimit;
use crate::problem::{Problem, ProblemKind};
use crate::telemetry::{context, counter, names};

use crate::roles::gateway::active_config::ActiveConfig;
use crate::roles::gateway::admission::accept;
use crate::roles::gateway::admission::auth::Authenticator;
use crate::roles::gateway::admission::cors;
use crate::roles::gateway::admission::idempotency_key;
use crate::roles::gateway::admission::parameters;
use crate::roles::gateway::admission::parameters::ContextValues;
use crate::roles::gateway::admission::rate_limit::RateLimiter;
use crate::roles::gateway::admission::router::MatchedRoute;
use crate::roles::gateway::admission::router::RouteLookup;
use crate::roles::gateway::client::byte_budget::{ByteBudget, Reservation};
use crate::roles::gateway::client::caller::Caller;
use crate::roles::gateway::client::caller::Peer;
use crate::roles::gateway::client::network::ClientNetwork;
use crate::roles::gateway::client::requests_per_caller::{CallerPermit, RequestsPerCaller};
use crate::roles::gateway::dispatch::{
    AnswerReservation, AnswerReuse, AnswerSource, DispatchRequest, DispatchResult, Dispatcher,
    ReusableRequest, StreamDriver, StreamingAnswer,
};
use crate::roles::gateway::edge::connection::HttpService;
use crate::roles::gateway::edge::connection::RequestBody;
use crate::roles::gateway::edge::connection::read_body;
use crate::roles::gateway::edge::health_check::HealthCheck;
use crate::roles::gateway::observation::phases::RequestPhase;
use crate::roles::gateway::observation::request_log::RequestLog;
use crate::roles::gateway::response;
use crate::roles::gateway::response::RequestId;
use crate::roles::gateway::response::Response;

mod authentication;
mod conditional;
mod local;
mod negotiation;
mod rejection;
mod session_response;

pub use local::LocalGateway;

use authentication::untrusted_connection;
use negotiation::NegotiatedRequest;
use rejection::Rejection;

/// `Retry-After` for the response when too many requests are in flight.
const IN_FLIGHT_RETRY_AFTER: Duration = Duration::from_secs(1);
/// `Allow` for the paths that the gateway serves itself.
const OWN_METHODS: &str = "GET, HEAD, OPTIONS";

/// Handles the requests of all connections.
#[derive(Debug)]
pub struct Pipeline {
    /// Catalogue, routes, keys and limits. A reload replaces them together.
    pub active_config: ArcSwap<ActiveConfig>,
    /// Dispatches requests to workers.
    pub dispatcher: Dispatcher,
    /// Answers that can be reused.
    pub reuse: AnswerReuse,
    /// The rate limits.
    pub rates: Arc<RateLimiter>,
    /// The limit on concurrent requests.
    pub in_flight: ConcurrencyLimit,
    /// The limits on the concurrent requests of each caller.
    pub in_flight_per_caller: RequestsPerCaller,
    /// The limit on the memory for requests and responses.
    pub bytes: ByteBudget,
    /// The health check for load balancers.
    pub health: HealthCheck,
}

impl HttpService for Pipeline {
    fn handle<'a>(
        &'a self,
        request: http::Request<&'a mut RequestBody>,
        peer: Peer,
        request_id: RequestId,
    ) -> BoxFuture<'a, Response> {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            if self.active_config.load().is_health_check(parts.uri.path())
                && let Some(response) = self.health.respond(&parts.method)
            {
                return response;
            }
            let log = RequestLog::begin(&parts, &peer, request_id);
            context::scope(log.log_context(), self.handle_logged(&parts, body, &peer, log)).await
        })
    }

    fn set_cors_headers(&self, request: &Parts, response: &mut HeaderMap) {
        if let Some(rules) = self.default_cors(request) {
            cors::set_headers(&rules, &request.headers, response);
        }
    }
}

impl Pipeline {
    /// Handles a request and writes its access line when the request ends.
    async fn handle_logged(
        &self,
        parts: &Parts,
        body: &mut RequestBody,
        peer: &Peer,
        mut log: RequestLog,
    ) -> Response {
        let acquired = self.in_flight.acquire();
        let answered = match &acquired {
            Ok(_guard) => self.respond(parts, body, peer, &mut log).await,
            Err(problem) => {
                let reason = [(names::REASON, "in_flight".to_owned())];
                counter(&names::GATEWAY_SHED, &reason).increment(1);
                Err(problem.clone().retry_after(IN_FLIGHT_RETRY_AFTER).into())
            }
        };
        let (mut response, stream) = answered
            .unwrap_or_else(|rejection: Box<Rejection>| (rejection.into_response(&mut log), None));
        log.rate.apply(response.headers_mut());
        vary_by_accept(&log, response.headers_mut());
        let rules = match &log.endpoint {
            Some(endpoint) => endpoint.cors.clone(),
            None => self.default_cors(parts),
        };
        if let Some(rules) = rules {
            cors::set_headers(&rules, &parts.headers, response.headers_mut());
        }
        if let Some(timing) = log.server_timing() {
            response.headers_mut().insert(response::SERVER_TIMING, timing);
        }
        let status = response.status();
        match stream {
            // HEAD needs only the head of the answer. Dropping the driver counts as a disconnect.
            Some(mut stream) if parts.method == Method::HEAD => {
                log.attempts = stream.attempts_made();
                log.end(status);
            }
            // A request is in flight until its answer is complete and its outcome is known.
            Some(stream) => stream.drive(move |result| {
                log.dispatched(result);
                log.outcome = session_response::streamed_outcome(&result.end);
                log.end(status);
                drop(acquired);
            }),
            None => log.end(status),
        }
        response
    }

    async fn respond(
        &self,
        parts: &Parts,
        body: &mut RequestBody,
        peer: &Peer,
        log: &mut RequestLog,
    ) -> Result<(Response, Option<StreamDriver>), Box<Rejection>> {
        // Loaded before the TLS settings are read: a reload replaces the TLS settings first.
        let active_config = self.active_config.load_full();
        let checked = Authenticator::check_connection(peer);
        let peer = &*checked.map_err(|rejection| untrusted_connection(rejection, log))?;
        if active_config.is_documentation_asset(parts.uri.path()) {
            let asset = Box::pin(self.own_path(&active_config, parts, peer, log));
            return asset.await.map(|asset| (asset, None));
        }
        let matched = match active_config.router.find(&parts.method, parts.uri.path()) {
            RouteLookup::Matched(matched) => matched,
            RouteLookup::Malformed(problem) => return Err(problem.into()),
            RouteLookup::Options { allow } => {
                let mut response = options(&allow);
                cors::answer_preflight(&active_config.router, parts, response.headers_mut());
                return Ok((response, None));
            }
            RouteLookup::NotFound => {
                // This future is boxed, because it is rarely needed and would enlarge the future of
                // every request.
                let page = Box::pin(self.own_path(&active_config, parts, peer, log));
                return page.await.map(|page| (page, None));
            }
            RouteLookup::MethodNotAllowed { allow } => {
                let problem = Problem::new(ProblemKind::MethodNotAllowed);
                return Err(Box::new(Rejection { allow: Some(allow), ..problem.into() }));
            }
        };
        log.endpoint = Some(Arc::clone(&matched.endpoint));
        let (caller, permit) = self.admit(&active_config, &parts.headers, peer, log).await?;
        log.enter(Some(RequestPhase::Parameters));
        let negotiated = NegotiatedRequest::new(parts, &matched.endpoint)?;
        log.transaction_end = negotiated.preferences.transaction_end;
        let bytes_max = matched.endpoint.body_bytes_max;
        let limits = Arc::clone(&active_config.http);
        // A long request must not keep endpoints in memory that a reload replaces or removes.
        drop(active_config);
        let client = ClientNetwork::new(peer.address, limits.ipv6_prefix_bits);
        let mut room = self.bytes.enter(client)?;
        let body = read_body(body, bytes_max, &limits, &mut room).await?;
        drop(limits);
        let request = MatchedRequest { parts, matched: &matched, body: &body };
        let mut envelope = request.envelope(&caller, peer, log)?;
        drop(body);
        room.shrink_to(envelope.payload.len());
        envelope.accept = negotiated.accept();
        envelope.window =
            if negotiated.may_stream() { self.window(parts, &matched.endpoint) } else { 0 };
        log.enter(None);
        self.call(&negotiated, envelope, (room, permit), log).await
    }

    /// Calls the procedure, or reuses an answer, and returns the response.
    async fn call(
        &self,
        request: &NegotiatedRequest<'_>,
        envelope: Envelope,
        (room, permit): (Reservation, CallerPermit),
        log: &mut RequestLog,
    ) -> Result<(Response, Option<StreamDriver>), Box<Rejection>> {
        let queues = &request.endpoint.queues;
        let queue = queues.choose(envelope.key().as_ref());
        log.queue = Some(queue);
        let (result, source) = if request.endpoint.cache.reuses_answers() {
            let endpoint = Arc::clone(request.endpoint);
            let is_head = request.parts.method == Method::HEAD;
            let reusable =
                ReusableRequest { endpoint, queue, envelope, reservation: room, permit, is_head };
            // This future is boxed, because it is rarely needed and would enlarge the future of
            // every request.
            Box::pin(self.reuse.dispatch(&self.dispatcher, reusable)).await
        } else {
            let reservation = AnswerReservation::new(request.keeps_answer(), room);
            let destination = (request.endpoint, &queues.get(queue).name);
            let request = DispatchRequest { envelope, reservation, permit };
            let result = self.dispatcher.dispatch(destination, request).await;
            (result, AnswerSource::Call)
        };
        log.answer_source = source;
        match result {
            DispatchResult::Complete(result) => {
                log.dispatched(&result);
                let mut response = session_response::complete(result, request, log)?;
                if let AnswerSource::Cache(age) = source {
                    response.headers_mut().insert(header::AGE, HeaderValue::from(age.as_secs()));
                }
                Ok((response, None))
            }
            DispatchResult::Streaming(answer) => {
                let StreamingAnswer { head, body, driver } = *answer;
                let response = session_response::streamed(&head, body, request)?;
                Ok((response, Some(driver)))
            }
        }
    }

    /// Returns the maximum number of parts that a worker may send ahead of the client. It is 0 if the endpoint does not
    /// stream, and 0 for HTTP/1.0, which cannot mark a truncated body. It is 1 for HEAD, so that the worker sends only
    /// the head and one part. Without a window, the worker would send the whole answer without waiting.
    fn window(&self, parts: &Parts, endpoint: &Endpoint) -> u32 {
        if !endpoint.may_stream() {
            0
        } else if parts.method == Method::HEAD {
            1
        } else if parts.version >= Version::HTTP_11 {
            self.dispatcher.config().window_parts
        } else {
            0
        }
    }

    /// Answers a request whose path has no endpoint. The path may belong to the documentation.
    async fn own_path(
        &self,
        active_config: &ActiveConfig,
        parts: &Parts,
        peer: &Peer,
        log: &mut RequestLog,
    ) -> Result<Response, Box<Rejection>> {
        match parts.method {
            _ if !active_config.is_own_path(parts.uri.path()) => {
                Err(Problem::new(ProblemKind::NoRoute).into())
            }
            Method::GET | Method::HEAD => self.documentation(active_config, parts, peer, log).await,
            Method::OPTIONS => {
                let mut response = options(OWN_METHODS);
                if let Some(rules) = &active_config.default_cors {
                    cors::answer_own_preflight(rules, &parts.headers, response.headers_mut());
                }
                Ok(response)
            }
            _ => {
                let allow = Some(OWN_METHODS.to_owned());
                let problem = Problem::new(ProblemKind::MethodNotAllowed);
                Err(Box::new(Rejection { allow, ..problem.into() }))
            }
        }
    }

    /// Returns the CORS rules of a response to a request that was not routed to an endpoint. The response to OPTIONS has its
    /// own headers.
    fn default_cors(&self, parts: &Parts) -> Option<Arc<CorsRules>> {
        if parts.method == Method::OPTIONS {
            return None;
        }
        self.active_config.load().cors_rules(&parts.method, parts.uri.path())
    }
}

/// A request with its endpoint and complete body.
struct MatchedRequest<'a> {
    parts: &'a Parts,
    matched: &'a MatchedRoute,
    body: &'a Bytes,
}

impl MatchedRequest<'_> {
    /// Checks the parameters and returns the request for the workers.
    fn envelope(
        &self,
        caller: &Caller,
        peer: &Peer,
        log: &RequestLog,
    ) -> Result<Envelope, Problem> {
        let endpoint = &self.matched.endpoint;
        let idempotency_key = idempotency_key::from_headers(&self.parts.headers)
            .map_err(|violation| Problem::invalid(vec![violation]))?;
        let context = ContextValues {
            request_id: log.request_id.as_str(),
            idempotency_key: idempotency_key.as_deref(),
            principal: caller.principal.as_deref(),
            client_ip: peer.address,
        };
        let dry_run = log.is_dry_run();
        let payload = parameters::check(self.matched, self.parts, self.body, caller, &context)?;
        Ok(Envelope {
            endpoint: endpoint.id.clone(),
            request_id: Arc::clone(log.request_id.shared()),
            attempt: 0,
            timeout: Duration::ZERO,
            execution: if dry_run { Execution::AtMostOnce } else { endpoint.execution },
            dry_run,
            waiting: 0,
            window: 0,
            accept: None,
            principal: caller.principal.as_deref().map(ToOwned::to_owned),
            idempotency_key,
            traceparent: Some(Arc::clone(log.trace.traceparent())),
            tracestate: log.trace.tracestate().map(ToOwned::to_owned),
            payload,
        })
    }
}

/// Tells caches that the answer depends on `Accept`, if it does.
fn vary_by_accept(log: &RequestLog, headers: &mut HeaderMap) {
    if log.endpoint.as_ref().is_some_and(|endpoint| endpoint.produces.len() > 1) {
        headers.append(header::VARY, accept::VARY_ACCEPT);
    }
}

fn options(allow: &str) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Ok(allow) = HeaderValue::try_from(allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}
