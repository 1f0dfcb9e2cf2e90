//! The admin listener. It serves `/metrics`, `/healthz`, `/readyz` and `/status`, and a page at `/` that shows the
//! fleet.

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
use crate::fleet::monitor::DocumentSource;
use crate::http_date;
use crate::lifecycle::{Cancel, Tasks};
use crate::listen::{Acceptor, ListenError};
use crate::telemetry::{Format, counter, exposition, names};

mod allowed_hosts;
mod page;
mod readiness;

use allowed_hosts::AllowedHosts;

pub use readiness::Readiness;

/// The maximum number of open connections. This is enough for Prometheus, a health check and a person. When a further
/// connection is opened, the oldest one is closed, so that idle connections cannot keep others out.
const CONNECTIONS_MAX: usize = 64;
/// The maximum time to wait for the headers of a request, and for the next request on an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum lifetime of a connection. Only clients that read slowly reach it, because responses take milliseconds.
const CONNECTION_AGE_MAX: Duration = Duration::from_mins(10);
/// The maximum size of a request head, in bytes. Requests have no body.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// A function that returns the body of a `/status` response. It must not block.
pub type StatusSource = Arc<dyn Fn() -> Value + Send + Sync>;

/// The data that the admin listener serves. Cloning it is cheap.
#[derive(Clone)]
pub struct ProcessHealth {
    /// The parts of the process that must be ready.
    pub readiness: Readiness,
    /// The source of the `/status` document, which contains no secrets or configuration values.
    pub status: StatusSource,
    /// The source of the page's data, which contains no secrets or configuration values.
    pub fleet: DocumentSource,
}

impl fmt::Debug for ProcessHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessHealth").field("readiness", &self.readiness).finish_non_exhaustive()
    }
}

/// The bound admin listener.
#[derive(Debug)]
pub struct Admin {
    acceptor: Acceptor,
    hosts: AllowedHosts,
}

type AdminResponse = Response<Full<Bytes>>;

impl Admin {
    /// Binds the address. Requests are answered only after `serve` has been called.
    ///
    /// # Errors
    /// Returns `ListenError` with the address and the reason.
    pub fn bind(config: &AdminConfig) -> Result<Self, ListenError> {
        let hosts = AllowedHosts::new(&config.hosts, &host_name());
        Ok(Self { acceptor: Acceptor::bind(config.listen)?, hosts })
    }

    /// Returns the bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.acceptor.address()
    }

    /// Serves requests until `stop` is set. A process sets `stop` last, so that its drain can be observed.
    pub fn serve(mut self, health: ProcessHealth, tasks: &Tasks, stop: Cancel) {
        let spawner = tasks.clone();
        let service = Arc::new(AdminService { health, hosts: self.hosts });
        tasks.spawn(async move {
            let mut open = OpenConnections::default();
            loop {
                let (stream, _) = tokio::select! {
                    () = stop.cancelled() => return,
                    next = self.acceptor.next() => next,
                };
                let (service, stop) = (Arc::clone(&service), stop.clone());
                open.make_room();
                open.0.push_back(spawner.spawn(serve_connection(stream, service, stop)));
            }
        });
    }
}

/// The data shared by all connections.
struct AdminService {
    health: ProcessHealth,
    hosts: AllowedHosts,
}

/// The open connections, oldest first.
#[derive(Default)]
struct OpenConnections(VecDeque<JoinHandle<()>>);

impl OpenConnections {
    /// Closes the oldest connections if the limit is reached. They are most likely idle, because responses take
    /// milliseconds.
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

async fn serve_connection(stream: TcpStream, served: Arc<AdminService>, stop: Cancel) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(&request, &served);
        async move { Ok::<_, Infallible>(response) }
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

fn respond(
    request: &Request<Incoming>,
    AdminService { health, hosts }: &AdminService,
) -> AdminResponse {
    if !hosts.allows(request.headers()) {
        // RFC 9110 §15.5.20.
        return text(StatusCode::MISDIRECTED_REQUEST, "this host is not in admin.hosts\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => metrics(request),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => readyz(&health.readiness),
        "/status" => document(StatusCode::OK, &(health.status)()),
        "/" => page::html(),
        "/fleet.json" => page::data(request.headers(), request.uri().query(), &*health.fleet),
        path => page::file(path).unwrap_or_else(|| {
            text(StatusCode::NOT_FOUND, "try / /metrics /healthz /readyz /status\n")
        }),
    }
}

fn metrics(request: &Request<Incoming>) -> AdminResponse {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    response(StatusCode::OK, format.content_type(), exposition::render(format))
}

fn readyz(readiness: &Readiness) -> AdminResponse {
    let reasons = readiness.reasons();
    let (status, state) = if readiness.is_ready() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    document(status, &json!({ "status": state, "reasons": reasons, "notes": readiness.notes() }))
}

fn document(status: StatusCode, value: &Value) -> AdminResponse {
    response(status, "application/json", format!("{value:#}\n"))
}

fn text(status: StatusCode, body: &'static str) -> AdminResponse {
    response(status, "text/plain; charset=utf-8", body)
}

fn response(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> AdminResponse {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::DATE, http_date::now());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests;
