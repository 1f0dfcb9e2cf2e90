//! A collector of traces on loopback: takes OTLP over HTTP, and has moods.

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

/// What a collector does with an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Takes it.
    Takes,
    /// Answers this status instead.
    Refuses(u16),
    /// Never answers.
    Stalls,
}

/// A running collector; it ends with its value.
#[derive(Debug)]
pub(crate) struct Collector {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    stop: Cancel,
}

#[derive(Debug)]
struct State {
    mood: Mutex<Mood>,
    taken: Mutex<Vec<Taken>>,
    connections: AtomicUsize,
    exports: AtomicUsize,
}

/// A span that was taken.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// The service that it is from.
    pub(crate) service: String,
    /// The headers that it came with.
    pub(crate) headers: HeaderMap,
    /// The span.
    pub(crate) span: Span,
}

impl Taken {
    /// An attribute as text; empty when there is none.
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
        other => panic!("{key}: {other:?} is not what we send"),
    }
}

impl Collector {
    /// Starts one on a port of its own; with certificates it speaks TLS.
    pub(crate) async fn start(certs: Option<&Certs>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let tls = certs
            .map(|certs| TlsAcceptor::from(Arc::new(certs.server_tls(&[&rustls::version::TLS13]))));
        let state = Arc::new(State {
            mood: Mutex::new(Mood::Takes),
            taken: Mutex::default(),
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

    /// Its mood from now on.
    pub(crate) fn feels(&self, mood: Mood) {
        *self.state.mood.lock().unwrap() = mood;
    }

    /// Every span that it took so far.
    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.state.taken.lock().unwrap().clone()
    }

    /// Connections that were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Exports that came, taken or not.
    pub(crate) fn exports(&self) -> usize {
        self.state.exports.load(Ordering::Relaxed)
    }
}

impl Drop for Collector {
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
                    Err(error) => println!("no handshake with the collector: {error}"),
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
    // A client that leaves is none of our business.
    http1::Builder::new().serve_connection(TokioIo::new(io), service).await.ok();
}

async fn answer(request: Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    state.exports.fetch_add(1, Ordering::Relaxed);
    let mood = *state.mood.lock().unwrap();
    let mut response = Response::new(Full::default());
    match mood {
        Mood::Takes => {}
        Mood::Refuses(status) => {
            *response.status_mut() = status.try_into().expect("a status");
            return response;
        }
        Mood::Stalls => std::future::pending().await,
    }
    assert_eq!((parts.method.as_str(), parts.uri.path()), ("POST", "/v1/traces"));
    assert_eq!(parts.headers["content-type"], "application/x-protobuf");
    let Ok(body) = body.collect().await else { return response };
    let export = ExportTraceServiceRequest::decode(body.to_bytes()).expect("OTLP");
    let mut taken = state.taken.lock().unwrap();
    for of_resource in export.resource_spans {
        let resource = of_resource.resource.expect("a resource");
        let service = attribute(&resource.attributes, "service.name");
        let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        taken.extend(spans.map(|span| {
            let (service, headers) = (service.clone(), parts.headers.clone());
            Taken { service, headers, span }
        }));
    }
    response
}
