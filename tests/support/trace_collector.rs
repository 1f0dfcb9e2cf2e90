//! A local trace collector for OTLP over HTTP. It can reject exports or never respond.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use fjord::lifecycle::{Cancel, Tasks};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::certs::Certs;

/// A collector's response to an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CollectorResponse {
    /// The collector accepts the export.
    Accept,
    /// The collector rejects the export with this status.
    Reject(u16),
    /// The collector never responds.
    Never,
}

/// A running collector. It stops when the value is dropped.
#[derive(Debug)]
pub(crate) struct TraceCollector {
    /// The address of the collector's listener.
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    stop: Cancel,
}

#[derive(Debug)]
struct State {
    response: Mutex<CollectorResponse>,
    spans: Mutex<Vec<CollectedSpan>>,
    connections: AtomicUsize,
    exports: AtomicUsize,
}

/// A received span.
#[derive(Clone, Debug)]
pub(crate) struct CollectedSpan {
    /// The name of the service that sent the span.
    pub(crate) service: String,
    /// The headers of the export that contained the span.
    pub(crate) headers: HeaderMap,
    pub(crate) span: Span,
}

impl CollectedSpan {
    /// Returns an attribute as text, or an empty string if it is absent.
    pub(crate) fn attribute(&self, key: &str) -> String {
        attribute(&self.span.attributes, key)
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|found| found.value.clone()?.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        None => String::new(),
        other => panic!("{key}: unexpected attribute {other:?}"),
    }
}

impl TraceCollector {
    /// Starts a collector on a free port, with TLS if `certs` is given.
    pub(crate) async fn start(certs: Option<&Certs>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let tls = certs
            .map(|certs| TlsAcceptor::from(Arc::new(certs.server_tls(&[&rustls::version::TLS13]))));
        let state = Arc::new(State {
            response: Mutex::new(CollectorResponse::Accept),
            spans: Mutex::default(),
            connections: AtomicUsize::default(),
            exports: AtomicUsize::default(),
        });
        let stop = Cancel::new();
        let (serving, until) = (Arc::clone(&state), stop.clone());
        let _detached = Tasks::new().spawn(async move {
            tokio::select! {
                () = accept(listener, tls, serving) => {}
                () = until.cancelled() => {}
            }
        });
        Self { address, state, stop }
    }

    /// Sets the response to subsequent exports.
    pub(crate) fn respond_with(&self, response: CollectorResponse) {
        *self.state.response.lock().unwrap() = response;
    }

    /// Returns every span received so far.
    pub(crate) fn spans(&self) -> Vec<CollectedSpan> {
        self.state.spans.lock().unwrap().clone()
    }

    /// Returns the number of connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Returns the number of exports received so far, accepted or not.
    pub(crate) fn exports(&self) -> usize {
        self.state.exports.load(Ordering::Relaxed)
    }
}

impl Drop for TraceCollector {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let tasks = Tasks::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        state.connections.fetch_add(1, Ordering::Relaxed);
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        let _detached = tasks.spawn(async move {
            match tls {
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => serve(stream, state).await,
                    Err(error) => println!("TLS handshake with the collector failed: {error}"),
                },
                None => serve(stream, state).await,
            }
        });
    }
}

async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, state: Arc<State>) {
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(request, &state).await) }
    });
    // The client may disconnect at any time.
    http1::Builder::new().serve_connection(TokioIo::new(io), service).await.ok();
}

async fn answer(request: Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    state.exports.fetch_add(1, Ordering::Relaxed);
    let behaviour = *state.response.lock().unwrap();
    let mut response = Response::new(Full::default());
    match behaviour {
        CollectorResponse::Accept => {}
        CollectorResponse::Reject(status) => {
            *response.status_mut() = status.try_into().expect("a status");
            return response;
        }
        CollectorResponse::Never => std::future::pending().await,
    }
    assert_eq!((parts.method.as_str(), parts.uri.path()), ("POST", "/v1/traces"));
    assert_eq!(parts.headers["content-type"], "application/x-protobuf");
    let Ok(body) = body.collect().await else { return response };
    let export =
        ExportTraceServiceRequest::decode(body.to_bytes()).expect("the body is an OTLP export");
    let mut spans = state.spans.lock().unwrap();
    for resource_spans in export.resource_spans {
        let resource = resource_spans.resource.expect("a resource");
        let service = attribute(&resource.attributes, "service.name");
        let sent = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(sent.map(|span| {
            let (service, headers) = (service.clone(), parts.headers.clone());
            CollectedSpan { service, headers, span }
        }));
    }
    response
}
