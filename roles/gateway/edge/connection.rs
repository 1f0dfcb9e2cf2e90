//! Serves one connection with hyper, as HTTP/1.1 or HTTP/2 as negotiated, within all limits. Ambiguous requests are
//! rejected here. All other requests are handled by an `HttpService`.

use std::convert::Infallible;
use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Version};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::gateway::{CompressionConfig, HttpLimits, ProxyConfig};
use crate::future::BoxFuture;
use crate::lifecycle::{Cancel, Tasks};
use crate::problem::{Problem, ProblemKind};
use crate::telemetry::{self, names};

use super::compression;
use super::compression::Compressor;
use super::compression::accept_encoding::AcceptedCodings;
use crate::roles::gateway::client::caller::Peer;
use crate::roles::gateway::response;
use crate::roles::gateway::response::CloseReason;
use crate::roles::gateway::response::RequestId;
use crate::roles::gateway::response::Response;
use crate::roles::gateway::response::ResponseBody;
use crate::roles::gateway::response::ResponseContext;
use crate::roles::gateway::response::Truncated;

mod activity;
mod drive;
mod hyper_config;
mod io;
mod rejection;
mod request;

use activity::{ConnectionActivity, Overdue, RunningRequest};
use drive::{ConnectionOutcome, drive};
use io::{
    FrameCounter, HasTcpSocket, OpenResponse, ResponseGate, ResponseTracker, StallTimeout,
    coalesce_writes,
};
pub use request::{RequestBody, read_body};
use request::{filter, forwarded_for, unread_body};

/// Handles the requests that a connection accepts. The connection adds the headers that every response has.
pub trait HttpService: Debug + Send + Sync {
    /// Handles one request. The body may be left unread. The future is dropped when the client disconnects.
    fn handle<'a>(
        &'a self,
        request: Request<&'a mut RequestBody>,
        peer: Peer,
        request_id: RequestId,
    ) -> BoxFuture<'a, Response>;

    /// Sets the headers that let a page from another origin read the response to a request that was
    /// rejected before `handle`.
    fn set_cors_headers(&self, _request: &Parts, _response: &mut HeaderMap) {}
}

/// The configuration of connections.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// Sizes, counts and timeouts.
    pub limits: HttpLimits,
    /// The host names that are served, without ports. If empty, every name is served.
    pub hosts: Vec<String>,
    /// The path of the health check. It is served under every host name, because load balancers know only addresses.
    pub health_path: Option<String>,
    /// Proxies that are trusted to name the client of a request.
    pub proxies: ProxyConfig,
    /// The settings for the compression of responses.
    pub compression: CompressionConfig,
}

/// The state that a connection shares with all others. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::roles::gateway) struct ConnectionContext {
    pub(in crate::roles::gateway) service: Arc<dyn HttpService>,
    pub(in crate::roles::gateway) compressor: Compressor,
    pub(in crate::roles::gateway) config: Arc<ConnectionConfig>,
    pub(in crate::roles::gateway) tasks: Tasks,
    /// Cancelled when connections should end. Running requests are completed.
    pub(in crate::roles::gateway) stop: Cancel,
}

/// The result of the TLS handshake, or its equivalent for a plain connection.
#[derive(Clone, Debug)]
pub(in crate::roles::gateway) struct Negotiated {
    pub(in crate::roles::gateway) peer: Peer,
    pub(in crate::roles::gateway) is_http2: bool,
    /// Whether the client sent plain text although the listener expects TLS. Every request is then rejected.
    pub(in crate::roles::gateway) lacks_tls: bool,
}

/// Serves a connection until it ends. Dropping the future also ends the running requests.
///
/// Not an `async fn`, which would keep its arguments in memory for as long as the connection lives.
pub(in crate::roles::gateway) fn serve<IO>(
    io: IO,
    negotiated: Negotiated,
    shared: ConnectionContext,
) -> BoxFuture<'static, ()>
where
    IO: AsyncRead + AsyncWrite + HasTcpSocket + Unpin + Send + 'static,
{
    let activity = Arc::new(ConnectionActivity::new());
    let config = Arc::clone(&shared.config);
    let (tasks, stop) = (shared.tasks.clone(), shared.stop.clone());
    let stall_limit = config.limits.body_idle_timeout;
    let io = StallTimeout::new(io, stall_limit, Arc::clone(&activity), stop.clone());
    let (is_http2, peer) = (negotiated.is_http2, negotiated.peer.clone());
    let lacks_tls = negotiated.lacks_tls;
    let responses = ResponseTracker::default();
    let connection = Arc::new(ConnectionService {
        negotiated,
        shared,
        activity: Arc::clone(&activity),
        responses: responses.clone(),
    });
    let service = service_fn(move |request| {
        let connection = Arc::clone(&connection);
        // The request is counted here and not in the future, because hyper checks whether the
        // client has disconnected before it polls the future.
        let running = connection.activity.begin_request(request.version() >= Version::HTTP_11);
        async move { Ok::<_, Infallible>(connection.respond(request, running).await) }
    });
    if is_http2 {
        let io = TokioIo::new(FrameCounter::new(io, Arc::clone(&activity)));
        let builder = hyper_config::http2(&config.limits, tasks);
        let mut connection = Box::pin(builder.serve_connection(io, service));
        return Box::pin(async move {
            let limits = &config.limits;
            let idle = async {
                activity.until_idle(limits.header_timeout, limits.idle_timeout).await;
                Overdue::NextRequest
            };
            let driving = pin!(drive(connection.as_mut(), &activity, idle, limits, &stop));
            let _outcome = coalesce_writes(&activity, driving).await;
        });
    }
    let io = TokioIo::new(ResponseGate::new(io, responses, Arc::clone(&activity)));
    let builder = hyper_config::http1(&config.limits);
    let mut connection = Box::pin(builder.serve_connection(io, service));
    Box::pin(async move {
        let limits = &config.limits;
        let overdue = activity.until_overdue(limits.header_timeout, limits.idle_timeout);
        let outcome = drive(connection.as_mut(), &activity, overdue, limits, &stop).await;
        let parts = Pin::into_inner(connection).into_parts();
        let gate = parts.io.into_inner();
        if parts.read_buf.starts_with(rejection::HTTP2_PREFACE) && !gate.is_within_response() {
            let io = gate.into_inner();
            return Box::pin(rejection::reject_http2(io, lacks_tls, &peer)).await;
        }
        let has_timed_out = outcome == ConnectionOutcome::HeadTimeout
            // If no part of a request head has arrived, there is nothing to respond to.
            && !parts.read_buf.is_empty()
            // A client whose response was cut off must notice the truncation, so no other response may follow.
            && !gate.is_within_response();
        let problem = match gate.held_status() {
            Some(status) => Some(rejection::problem_for_status(status)),
            None => has_timed_out.then(|| Problem::new(ProblemKind::RequestTimeout)),
        };
        if let Some(problem) = problem {
            // This future is boxed, because it is rarely needed and would make every connection
            // larger.
            Box::pin(rejection::write_and_close(gate.into_inner(), &problem, &peer)).await;
        }
    })
}

/// Counts a connection that the gateway refused or cut off.
pub(in crate::roles::gateway) fn count_refused(reason: &'static str) {
    telemetry::counter(&names::GATEWAY_CONNECTIONS_REFUSED, &[(names::REASON, reason.to_owned())])
        .increment(1);
}

/// The state that the requests of one connection share.
struct ConnectionService {
    negotiated: Negotiated,
    shared: ConnectionContext,
    activity: Arc<ConnectionActivity>,
    responses: ResponseTracker,
}

impl ConnectionService {
    async fn respond(
        &self,
        request: Request<Incoming>,
        running: RunningRequest,
    ) -> http::Response<ServedBody> {
        let context = ResponseContext {
            request_id: RequestId::from_headers(request.headers()),
            method: request.method().clone(),
            version: request.version(),
            is_tls: self.negotiated.peer.is_tls,
        };
        let peer = self.peer(request.headers());
        let config = &self.shared.config;
        let codings = AcceptedCodings::from_headers(request.headers(), &config.compression.codings);
        let checked = if self.negotiated.lacks_tls {
            Err(rejection::lacks_tls())
        } else {
            filter::check(&request, codings, config)
        };
        let (mut parts, incoming) = request.into_parts();
        compression::remember_codings(&mut parts, codings, &config.compression);
        let mut body = RequestBody::new(incoming, &parts.headers);
        let response = match checked {
            Ok(()) => {
                let request = Request::from_parts(parts, &mut body);
                self.handle(request, peer, &context.request_id).await
            }
            Err(problem) => {
                let mut response = rejection::respond(&problem, &peer, &context.request_id);
                self.shared.service.set_cors_headers(&parts, response.headers_mut());
                response
            }
        };
        let compressor = &self.shared.compressor;
        let mut response = compressor.compress(response, codings, &config.compression).await;
        response::charge_compressed(&mut response);
        self.close_if_marked(&mut response);
        let mut response = response::finish(response, &context);
        if body.is_complete() {
            drop(body);
        } else if context.version == Version::HTTP_2 {
            let (tasks, stop) = (&self.shared.tasks, self.shared.stop.clone());
            unread_body::drain_in_background(body, tasks, stop);
        } else {
            // This future is boxed, because it is rarely needed and would make every request
            // larger.
            Box::pin(unread_body::drain_or_close(body, &mut response)).await;
        }
        if let ResponseBody::Streamed(body) = response.body() {
            // The request counts as running until its response body has ended.
            let ended = body.ended().clone();
            let _detached = self.shared.tasks.spawn(async move {
                ended.cancelled().await;
                drop(running);
            });
        }
        let open = (context.version != Version::HTTP_2).then(|| self.responses.begin());
        response.map(|body| ServedBody { body, _open: open })
    }

    /// Closes the connection after a response that is marked with a reason. Authentication failures do not close the connection
    /// of a trusted proxy, because it also carries the requests of other clients.
    fn close_if_marked(&self, response: &mut Response) {
        let Some(reason) = CloseReason::take(response) else { return };
        let is_proxy = self.shared.config.proxies.trusted.contains(self.negotiated.peer.address);
        if is_proxy && reason == CloseReason::AuthFailures {
            return;
        }
        // On HTTP/2, only the first such response of a connection is counted. On HTTP/1.1, the header closes the connection.
        if !self.negotiated.is_http2 || self.activity.end_requests() {
            count_refused(reason.as_str());
        }
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }

    /// Returns the client of a request: the connection's peer, or the client that a trusted proxy names.
    fn peer(&self, headers: &HeaderMap) -> Peer {
        let peer = self.negotiated.peer.clone();
        let trusted = &self.shared.config.proxies.trusted;
        Peer { address: forwarded_for::client_address(peer.address, headers, trusted), ..peer }
    }

    /// Runs the service. A panic becomes a 500.
    async fn handle(
        &self,
        request: Request<&mut RequestBody>,
        peer: Peer,
        request_id: &RequestId,
    ) -> Response {
        let service = &self.shared.service;
        let handling = async { service.handle(request, peer, request_id.clone()).await };
        AssertUnwindSafe(handling).catch_unwind().await.unwrap_or_else(|_| {
            let component = (names::COMPONENT, "gateway".to_owned());
            telemetry::counter(&names::PANICS, &[component]).increment(1);
            tracing::error!(%request_id, "request handler panicked");
            response::problem(&Problem::new(ProblemKind::Internal), request_id)
        })
    }
}

/// The body of a response. Dropping it tells the `ResponseGate` that hyper has finished reading it.
struct ServedBody {
    body: ResponseBody,
    _open: Option<OpenResponse>,
}

impl Body for ServedBody {
    type Data = Bytes;
    type Error = Truncated;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Truncated>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
