//! Serves one connection: HTTP/1.1 or HTTP/2 as the handshake agreed, within every limit, and passes on
//! only requests that mean one thing to everybody.

use std::convert::Infallible;
use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue, Request, Version};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::gateway::{CompressionConfig, HttpLimits, ProxyConfig};
use crate::future::BoxFuture;
use crate::lifecycle::{Cancel, Tasks};
use crate::problem::{Problem, ProblemKind};
use crate::telemetry::{self, names};

use crate::roles::gateway::client::caller::Peer;
use crate::roles::gateway::response;
use crate::roles::gateway::response::AnswerBody;
use crate::roles::gateway::response::ConnectionEnd;
use crate::roles::gateway::response::RequestId;
use crate::roles::gateway::response::Response;
use crate::roles::gateway::response::Shape;

mod activity;
mod body;
mod compress;
mod delivery;
mod drive;
mod early;
mod encoding;
mod filter;
mod forwarded;
mod framing;
mod half_closed;
mod held;
mod paced;
mod refusal;
mod socket;
mod taken;
mod together;

use activity::{Activity, Overdue, Running};
pub use body::{RequestBody, read_body};
pub(in crate::roles::gateway) use compress::Compressor;
use drive::{End, drive};
use encoding::Accepted;
use held::{Due, Held, Left};
use paced::Paced;
use socket::Socket;
use taken::Taken;
use together::together;

/// Answers requests that the connection let through. What every response has is added by the connection.
pub trait Service: Debug + Send + Sync {
    /// Answers one request, whether it reads the body or not. The future is dropped when the client leaves.
    fn answer<'a>(
        &'a self,
        request: Request<&'a mut RequestBody>,
        peer: Peer,
        request_id: RequestId,
    ) -> BoxFuture<'a, Response>;
}

/// What requests must keep to.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What one connection may do.
    pub limits: HttpLimits,
    /// Names that requests may be for, without ports; empty: every name.
    pub hosts: Vec<String>,
    /// Where load balancers ask, by whatever name: they know addresses.
    pub health_path: Option<String>,
    /// Who may say which client a request is from.
    pub proxies: ProxyConfig,
    /// How answers are made smaller.
    pub compression: CompressionConfig,
}

/// What connections are served with. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::roles::gateway) struct Serving {
    pub(in crate::roles::gateway) service: Arc<dyn Service>,
    pub(in crate::roles::gateway) compressor: Compressor,
    pub(in crate::roles::gateway) rules: Arc<Rules>,
    pub(in crate::roles::gateway) tasks: Tasks,
    /// Given when connections should end: what runs is finished.
    pub(in crate::roles::gateway) stop: Cancel,
}

/// What the handshake told.
#[derive(Clone, Debug)]
pub(in crate::roles::gateway) struct Agreed {
    pub(in crate::roles::gateway) peer: Peer,
    pub(in crate::roles::gateway) is_http2: bool,
}

/// How much later than ours hyper's own timer is.
const TIMER_SLACK: Duration = Duration::from_secs(1);
/// HTTP/2 flow control: what a client may send ahead on one stream, and on all of a connection.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// See `STREAM_WINDOW_BYTES`.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// What we buffer for one HTTP/2 stream whose client reads slowly.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// The smallest frame limit that RFC 9113 §6.5.2 allows, and its default.
const FRAME_BYTES: u32 = 16 * 1024;
/// Streams that we reset for a client's errors before the connection ends.
const RESETS_LOCAL_MAX: usize = 128;
/// hyper is given this much more than our own limits, so that what is only a little too large is read to its end,
/// and refused with the limit that it broke.
const HEAD_SLACK: usize = 2;
/// Headers that hyper parses without allocating room for them: twice 4 KiB for each request otherwise.
const HEADERS_ON_STACK: usize = 100;
/// The smallest buffer that hyper takes.
const BUFFER_BYTES_MIN: usize = 8 * 1024;

/// Serves a connection until it ends. Safe to drop: what runs on it is dropped too.
///
/// No `async fn`: that would keep what the connection is made of beside the connection, for as long as it lives.
pub(in crate::roles::gateway) fn serve<IO>(
    io: IO,
    agreed: Agreed,
    serving: Serving,
) -> BoxFuture<'static, ()>
where
    IO: AsyncRead + AsyncWrite + Socket + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let rules = Arc::clone(&serving.rules);
    let (tasks, stop) = (serving.tasks.clone(), serving.stop.clone());
    let stall_limit = rules.limits.body_idle_timeout;
    let io = Paced::new(io, stall_limit, Arc::clone(&activity), stop.clone());
    let (is_http2, peer) = (agreed.is_http2, agreed.peer.clone());
    let due = Due::default();
    let each =
        Arc::new(Each { agreed, serving, activity: Arc::clone(&activity), due: due.clone() });
    let service = service_fn(move |request| {
        let each = Arc::clone(&each);
        // It runs from here on: hyper looks for the end of what the client sends before it asks for the answer.
        let running = each.activity.begin(request.version() >= Version::HTTP_11);
        async move { Ok::<_, Infallible>(each.respond(request, running).await) }
    });
    if is_http2 {
        let io = TokioIo::new(Taken::new(io, Arc::clone(&activity)));
        let builder = http2_builder(&rules.limits, tasks);
        let mut connection = Box::pin(builder.serve_connection(io, service));
        return Box::pin(async move {
            let limits = &rules.limits;
            let idle = async {
                activity.idle(limits.header_timeout, limits.idle_timeout).await;
                Overdue::Next
            };
            let driving = pin!(drive(connection.as_mut(), &activity, idle, limits, &stop));
            let _end = together(&activity, driving).await;
        });
    }
    let io = TokioIo::new(Held::new(io, due, Arc::clone(&activity)));
    let mut connection = Box::pin(http1_builder(&rules.limits).serve_connection(io, service));
    Box::pin(async move {
        let limits = &rules.limits;
        let overdue = activity.overdue(limits.header_timeout, limits.idle_timeout);
        let end = drive(connection.as_mut(), &activity, overdue, limits, &stop).await;
        let parts = Pin::into_inner(connection).into_parts();
        let (io, left) = parts.io.into_inner().into_inner();
        // Where no head has begun there is nothing to answer.
        let is_late = end == End::Late && !parts.read_buf.is_empty();
        let problem = match left {
            Left::Refused(status) => Some(refusal::problem_of(status)),
            Left::Between => is_late.then(|| Problem::new(ProblemKind::RequestTimeout)),
            // The client must notice that its answer was cut off.
            Left::Within => None,
        };
        if let Some(problem) = problem {
            // Boxed: it is for the rare case, and every connection would carry its room.
            Box::pin(refusal::answer_and_close(io, &problem, &peer)).await;
        }
    })
}

fn http1_builder(limits: &HttpLimits) -> http1::Builder {
    let head_bytes = HEAD_SLACK * (limits.header_bytes_max + limits.uri_bytes_max);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // A safety net: what is overdue is ours to say.
        .header_read_timeout(limits.header_timeout.max(limits.idle_timeout) + TIMER_SLACK)
        // A client that has left is noticed while its request runs; who has not, `Held` knows.
        .half_close(false)
        .max_headers(
            (HEAD_SLACK * limits.headers_max).min(HEADERS_ON_STACK).max(limits.headers_max + 1),
        )
        .max_header_size(head_bytes)
        .max_buf_size(head_bytes.max(BUFFER_BYTES_MIN));
    builder
}

fn http2_builder(limits: &HttpLimits, tasks: Tasks) -> http2::Builder<Streams> {
    let head_bytes = HEAD_SLACK * (limits.header_bytes_max + limits.uri_bytes_max);
    let mut builder = http2::Builder::new(Streams(tasks));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(limits.resets_max)
        // No PING asks whether a client is there: it would wait behind what a slow reader has not read yet. TCP asks.
        .max_local_error_reset_streams(RESETS_LOCAL_MAX);
    builder
}

/// Counts a connection that was refused, or ended, by one of our limits.
pub(in crate::roles::gateway) fn refused(reason: &'static str) {
    telemetry::counter(&names::GATEWAY_CONNECTIONS_REFUSED, &[(names::REASON, reason.to_owned())])
        .increment(1);
}

/// What every request of a connection shares.
struct Each {
    agreed: Agreed,
    serving: Serving,
    activity: Arc<Activity>,
    due: Due,
}

impl Each {
    async fn respond(&self, request: Request<Incoming>, running: Running) -> Response {
        let shape = Shape {
            request_id: RequestId::from_headers(request.headers()),
            method: request.method().clone(),
            version: request.version(),
            is_tls: self.agreed.peer.is_tls,
        };
        let peer = self.peer(request.headers());
        let rules = &self.serving.rules;
        let accepted = Accepted::of(request.headers(), &rules.compression.codings);
        let checked = filter::check(&request, accepted, rules);
        let (parts, incoming) = request.into_parts();
        let mut body = RequestBody::new(incoming, &parts.headers);
        let response = match checked {
            Ok(()) => {
                let request = Request::from_parts(parts, &mut body);
                self.ask(request, peer, &shape.request_id).await
            }
            Err(problem) => refusal::refuse(&problem, &peer, &shape.request_id),
        };
        let compressor = &self.serving.compressor;
        let mut response = compressor.compress(response, accepted, &rules.compression).await;
        response::count_again(&mut response);
        self.end_connection(&mut response);
        let mut response = response::finish(response, &shape);
        if body.is_over() {
            drop(body);
        } else if shape.version == Version::HTTP_2 {
            early::drain_beside(body, &self.serving.tasks, self.serving.stop.clone());
        } else {
            // Boxed: it is for the rare case, and every request would carry its room.
            Box::pin(early::drain_or_close(body, &mut response)).await;
        }
        if shape.version != Version::HTTP_2 {
            self.due.announce(response.body().size_hint().exact());
        }
        if let AnswerBody::Streamed(body) = response.body() {
            // The request runs for as long as something comes of it.
            let ended = body.ended().clone();
            let _detached = self.serving.tasks.spawn(async move {
                ended.cancelled().await;
                drop(running);
            });
        }
        response
    }

    /// Ends the connection where its response says so. What a client has done is no reason on the connection of a proxy:
    /// others come over it.
    fn end_connection(&self, response: &mut Response) {
        let Some(end) = ConnectionEnd::take(response) else { return };
        let is_proxy = self.serving.rules.proxies.trusted.contains(self.agreed.peer.address);
        if is_proxy && end == ConnectionEnd::AuthFailures {
            return;
        }
        // Over HTTP/1.1 the header does it.
        if !self.agreed.is_http2 || self.activity.end_requests() {
            refused(end.reason());
        }
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }

    /// Who the request is from: the connection's peer, or whom a trusted proxy names.
    fn peer(&self, headers: &HeaderMap) -> Peer {
        let peer = self.agreed.peer.clone();
        let trusted = &self.serving.rules.proxies.trusted;
        Peer { address: forwarded::client(peer.address, headers, trusted), ..peer }
    }

    async fn ask(
        &self,
        request: Request<&mut RequestBody>,
        peer: Peer,
        request_id: &RequestId,
    ) -> Response {
        let service = &self.serving.service;
        let answering = async { service.answer(request, peer, request_id.clone()).await };
        AssertUnwindSafe(answering).catch_unwind().await.unwrap_or_else(|_| {
            let place = (names::PLACE, "gateway".to_owned());
            telemetry::counter(&names::PANICS, &[place]).increment(1);
            tracing::error!(%request_id, "a request's handling panicked");
            response::problem(&Problem::new(ProblemKind::Internal), request_id)
        })
    }
}

/// Spawns the streams of an HTTP/2 connection where the drain sees them.
#[derive(Clone, Debug)]
struct Streams(Tasks);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        drop(self.0.spawn(stream));
    }
}
