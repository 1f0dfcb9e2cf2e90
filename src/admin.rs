//! The admin listener: `/metrics`, `/healthz`, `/readyz`, `/status`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::config::AdminConfig;
use crate::fleet::host_name;
use crate::lifecycle::{Cancel, Tasks};
use crate::listen::{Acceptor, ListenError};
use crate::telemetry::{Format, counter, names, recorder};

mod host;
mod readiness;

use host::AllowedHosts;

pub use readiness::Readiness;

/// Connections at once: Prometheus, a probe, a person. One more closes the oldest, so that nobody can keep the others out.
const CONNECTIONS_MAX: usize = 64;
/// Longest wait for a request's headers; also how long an idle connection is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest life of a connection: nothing here takes long, so a slow reader is cut off.
const CONNECTION_AGE_MAX: Duration = Duration::from_mins(10);
/// Most bytes of a request's head; nothing here has a body.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Makes the document of `/status`. It must not wait for anything.
pub type StatusSource = Arc<dyn Fn() -> Value + Send + Sync>;

/// What the admin listener tells of its process. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    /// Which parts are ready.
    pub readiness: Readiness,
    /// What the process says about itself. No secrets, no configuration values.
    pub status: StatusSource,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("readiness", &self.readiness).finish_non_exhaustive()
    }
}

/// The bound admin listener.
#[derive(Debug)]
pub struct Admin {
    acceptor: Acceptor,
    hosts: AllowedHosts,
}

type Answer = Response<Full<Bytes>>;

impl Admin {
    /// Binds; nothing is answered before `serve`.
    ///
    /// # Errors
    /// `ListenError` says the address and why.
    pub fn bind(config: &AdminConfig) -> Result<Self, ListenError> {
        let hosts = AllowedHosts::new(&config.hosts, &host_name());
        Ok(Self { acceptor: Acceptor::bind(config.listen)?, hosts })
    }

    /// The address that was bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.acceptor.address()
    }

    /// Answers until `stop`: the last thing to end, so that a drain can be watched.
    pub fn serve(mut self, health: Health, tasks: &Tasks, stop: Cancel) {
        let spawner = tasks.clone();
        let service = Arc::new(Service { health, hosts: self.hosts });
        tasks.spawn(async move {
            let mut open = Connections::default();
            loop {
                let (stream, _) = tokio::select! {
                    () = stop.cancelled() => return,
                    next = self.acceptor.next() => next,
                };
                let (service, stop) = (Arc::clone(&service), stop.clone());
                open.make_room();
                open.0.push_back(spawner.spawn(connection(stream, service, stop)));
            }
        });
    }
}

/// What every connection is answered from.
struct Service {
    health: Health,
    hosts: AllowedHosts,
}

/// The open connections, oldest first.
#[derive(Default)]
struct Connections(VecDeque<JoinHandle<()>>);

impl Connections {
    /// Closes the oldest when all places are taken: an answer takes milliseconds, so it is one that only keeps its place.
    fn make_room(&mut self) {
        self.0.retain(|connection| !connection.is_finished());
        while self.0.len() >= CONNECTIONS_MAX
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
            counter(&names::ADMIN_CONNECTIONS_EVICTED, &[]).increment(1);
        }
    }
}

async fn connection(stream: TcpStream, served: Arc<Service>, stop: Cancel) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(&request, &served);
        async move { Ok::<_, Infallible>(answer) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        () = stop.cancelled() => {}
        result = tokio::time::timeout(CONNECTION_AGE_MAX, serving) => {
            if let Ok(Err(error)) = result {
                tracing::debug!(%error, "an admin connection ended early");
            }
        }
    }
}

fn answer(request: &Request<Incoming>, Service { health, hosts }: &Service) -> Answer {
    if !hosts.allows(request.headers()) {
        // RFC 9110 §15.5.20.
        return text(StatusCode::MISDIRECTED_REQUEST, "admin.hosts does not have this host\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match request.uri().path() {
        "/metrics" => metrics(request),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => readyz(&health.readiness),
        "/status" => document(StatusCode::OK, &(health.status)()),
        _ => text(StatusCode::NOT_FOUND, "try /metrics /healthz /readyz /status\n"),
    }
}

fn metrics(request: &Request<Incoming>) -> Answer {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    written(StatusCode::OK, format.content_type(), recorder::render(format))
}

fn readyz(readiness: &Readiness) -> Answer {
    let reasons = readiness.reasons();
    let (status, word) = if readiness.is_ready() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    document(status, &json!({ "status": word, "reasons": reasons, "notes": readiness.notes() }))
}

fn document(status: StatusCode, value: &Value) -> Answer {
    written(status, "application/json", format!("{value:#}\n"))
}

fn text(status: StatusCode, words: &'static str) -> Answer {
    written(status, "text/plain; charset=utf-8", words)
}

fn written(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

#[cfg(test)]
mod tests;
