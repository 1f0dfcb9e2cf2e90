//! Local stand-ins for the services of AWS that an instance uses: its metadata service, `CloudWatch` and Auto Scaling.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use fjord::lifecycle::{Cancel, Tasks};
use http::{Request, Response};
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::certs::Certs;

mod instance_metadata;
mod signed_api;

pub(crate) use instance_metadata::MetadataMode;
pub(crate) use signed_api::{Accepted, ServiceAnswer};

use instance_metadata::MetadataState;
use signed_api::ApiState;

/// The region of the instance.
pub(crate) const REGION: &str = "eu-north-1";
/// The role of the instance.
pub(crate) const ROLE: &str = "fjord-gateway";

#[derive(Debug)]
struct State {
    metadata: MetadataState,
    api: ApiState,
}

/// The services, which stop when the value is dropped.
#[derive(Debug)]
pub(crate) struct AwsServices {
    metadata: SocketAddr,
    api: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Cancel,
}

impl AwsServices {
    /// Starts the metadata service, and a TLS service that plays the roles of both `CloudWatch` and Auto Scaling.
    pub(crate) async fn start(certs: &Certs) -> Self {
        let metadata = MetadataState::new();
        let state = Arc::new(Mutex::new(State { metadata, api: ApiState::default() }));
        let stop = Cancel::new();
        let tls = TlsAcceptor::from(Arc::new(certs.server_tls(&[&rustls::version::TLS13])));
        let metadata = listen(None, Arc::clone(&state), &stop).await;
        let api = listen(Some(tls), Arc::clone(&state), &stop).await;
        Self { metadata, api, state, stop }
    }

    /// Returns the URL of the metadata service.
    pub(crate) fn metadata_url(&self) -> String {
        format!("http://{}", self.metadata)
    }

    /// Returns the URL of `CloudWatch` and Auto Scaling.
    pub(crate) fn api_url(&self) -> String {
        format!("https://{}", self.api)
    }

    /// Sets or removes a value of the metadata service.
    pub(crate) fn set(&self, path: &str, value: Option<&str>) {
        let mut state = self.lock();
        match value {
            Some(value) => state.metadata.values.insert(path.to_owned(), value.to_owned()),
            None => state.metadata.values.remove(path),
        };
    }

    /// Changes the behaviour of the metadata service.
    pub(crate) fn set_mode(&self, mode: MetadataMode) {
        self.lock().metadata.mode = mode;
    }

    /// Invalidates all session tokens that have been issued.
    pub(crate) fn revoke_token(&self) {
        self.lock().metadata.revoke_tokens();
    }

    /// Sets the answers to the next requests, and discards the answers that were set earlier.
    pub(crate) fn answer_with(&self, answers: impl IntoIterator<Item = ServiceAnswer>) {
        let mut state = self.lock();
        state.api.answers = answers.into_iter().collect();
        state.api.accepted.clear();
        state.api.attempts = 0;
    }

    /// Sets the answer to all further requests for an action. With `None`, they are accepted.
    pub(crate) fn answer_action(&self, action: &str, answer: Option<ServiceAnswer>) {
        let mut state = self.lock();
        match answer {
            Some(answer) => state.api.action_answers.insert(action.to_owned(), answer),
            None => state.api.action_answers.remove(action),
        };
    }

    /// Sets the answers to the next requests for an action. They take precedence over the answer that `answer_action`
    /// has set.
    pub(crate) fn answer_next(
        &self,
        action: &str,
        answers: impl IntoIterator<Item = ServiceAnswer>,
    ) {
        let answers = answers.into_iter().collect();
        self.lock().api.next_action_answers.insert(action.to_owned(), answers);
    }

    /// Returns the accepted requests for an action.
    pub(crate) fn accepted_for(&self, action: &str) -> Vec<Accepted> {
        let is_action = |form: &Accepted| form.get("Action").is_some_and(|name| name == action);
        self.accepted().into_iter().filter(is_action).collect()
    }

    /// Returns the address of `CloudWatch` and Auto Scaling.
    pub(crate) fn api_address(&self) -> SocketAddr {
        self.api
    }

    /// Returns the accepted requests. Panics if any signature was invalid.
    pub(crate) fn accepted(&self) -> Vec<Accepted> {
        let state = self.lock();
        assert_eq!(state.api.bad_signatures, Vec::<String>::new());
        state.api.accepted.clone()
    }

    /// Returns the number of requests to `CloudWatch` and Auto Scaling.
    pub(crate) fn attempts(&self) -> usize {
        self.lock().api.attempts
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for AwsServices {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn listen(tls: Option<TlsAcceptor>, state: Arc<Mutex<State>>, stop: &Cancel) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let until = stop.clone();
    let accept = async move {
        let tasks = Tasks::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let (tls, state) = (tls.clone(), Arc::clone(&state));
            let _detached = tasks.spawn(async move {
                match tls {
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => serve(stream, state, true).await,
                        Err(error) => println!("TLS handshake failed: {error}"),
                    },
                    None => serve(stream, state, false).await,
                }
            });
        }
    };
    let _detached = Tasks::new().spawn(async move {
        tokio::select! {
            () = accept => {}
            () = until.cancelled() => {}
        }
    });
    address
}

async fn serve(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    state: Arc<Mutex<State>>,
    is_api: bool,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let state = Arc::clone(&state);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
            let answer = {
                let State { metadata, api } = &mut *state.lock().unwrap();
                if is_api {
                    api.answer(&parts, &body, metadata.credentials)
                } else {
                    metadata.answer(&parts)
                }
            };
            let Some((status, text)) = answer else { std::future::pending().await };
            let mut response = Response::new(Full::new(Bytes::from(text)));
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        }
    });
    // The client may disconnect at any time.
    http1::Builder::new().serve_connection(TokioIo::new(io), service).await.ok();
}
