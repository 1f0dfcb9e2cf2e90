//! Local stand-ins for the AWS services that an instance uses: its metadata service, `CloudWatch` and Auto Scaling.
//! They check tokens and signatures, and can refuse requests, fail or hang.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use fjord::lifecycle::{Cancel, Tasks};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::certs::Certs;
use super::sigv4::{SigningKey, signature};

/// The region of the instance.
pub(crate) const REGION: &str = "eu-north-1";
/// The role of the instance.
pub(crate) const ROLE: &str = "fjord-gateway";

/// The actions of Auto Scaling that an instance may request.
const LIFECYCLE_ACTIONS: [&str; 2] = ["CompleteLifecycleAction", "RecordLifecycleActionHeartbeat"];

/// The behaviour of the metadata service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetadataMode {
    /// The service requires a session token.
    Version2,
    /// The service issues no session tokens.
    Version1,
    /// The service never answers.
    Hangs,
}

/// The response of a service to one request with a valid signature.
#[derive(Clone, Debug)]
pub(crate) enum ServiceAnswer {
    /// The service refuses the request with this status, code and message.
    Refuse(u16, &'static str, &'static str),
    /// The service answers with this status and text.
    Text(u16, String),
    /// The service never answers.
    Hang,
}

/// The parameters of a request that a service has accepted.
pub(crate) type Accepted = BTreeMap<String, String>;

#[derive(Debug)]
struct State {
    mode: MetadataMode,
    /// The values below `/latest/meta-data/`.
    values: BTreeMap<String, String>,
    /// The number of session tokens that have been issued, and the number of those that are no longer valid.
    tokens: u32,
    revoked_tokens: u32,
    /// The number of times that the credentials have been read. Each read returns new credentials.
    credentials: u32,
    /// The answers to the next requests for an action.
    next_action_answers: BTreeMap<String, VecDeque<ServiceAnswer>>,
    /// The answers to all further requests for an action.
    action_answers: BTreeMap<String, ServiceAnswer>,
    /// The answers to the next requests for other actions. Further requests are accepted.
    answers: VecDeque<ServiceAnswer>,
    accepted: Vec<Accepted>,
    attempts: usize,
    /// The reasons why signatures were invalid.
    bad_signatures: Vec<String>,
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
        let values = [
            ("placement/region", REGION),
            ("services/domain", "amazonaws.example"),
            ("instance-id", "i-0123456789abcdef0"),
            ("iam/security-credentials/", ROLE),
        ];
        let values = values.map(|(path, value)| (path.to_owned(), value.to_owned())).into();
        let state = Arc::new(Mutex::new(State {
            mode: MetadataMode::Version2,
            values,
            tokens: 0,
            revoked_tokens: 0,
            credentials: 0,
            next_action_answers: BTreeMap::new(),
            action_answers: BTreeMap::new(),
            answers: VecDeque::new(),
            accepted: Vec::new(),
            attempts: 0,
            bad_signatures: Vec::new(),
        }));
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
            Some(value) => state.values.insert(path.to_owned(), value.to_owned()),
            None => state.values.remove(path),
        };
    }

    /// Changes the behaviour of the metadata service.
    pub(crate) fn set_mode(&self, mode: MetadataMode) {
        self.lock().mode = mode;
    }

    /// Invalidates all session tokens that have been issued.
    pub(crate) fn revoke_token(&self) {
        let mut state = self.lock();
        state.revoked_tokens = state.tokens;
    }

    /// Sets the answers to the next requests, and discards the answers that were set earlier.
    pub(crate) fn answer_with(&self, answers: impl IntoIterator<Item = ServiceAnswer>) {
        let mut state = self.lock();
        state.answers = answers.into_iter().collect();
        state.accepted.clear();
        state.attempts = 0;
    }

    /// Sets the answer to all further requests for an action. With `None`, they are accepted.
    pub(crate) fn answer_action(&self, action: &str, answer: Option<ServiceAnswer>) {
        let mut state = self.lock();
        match answer {
            Some(answer) => state.action_answers.insert(action.to_owned(), answer),
            None => state.action_answers.remove(action),
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
        self.lock().next_action_answers.insert(action.to_owned(), answers);
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
        assert_eq!(state.bad_signatures, Vec::<String>::new());
        state.accepted.clone()
    }

    /// Returns the number of requests to `CloudWatch` and Auto Scaling.
    pub(crate) fn attempts(&self) -> usize {
        self.lock().attempts
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

/// Returns the secret key of the credentials that the `number`th read returned.
fn secret_key(number: u32) -> String {
    format!("secret-key-{number}")
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
            let answer = if is_api {
                api(&parts, &body, &state)
            } else {
                metadata(&parts, &mut state.lock().unwrap())
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

/// Answers a request to the metadata service. Returns `None` if the service hangs.
fn metadata(parts: &http::request::Parts, state: &mut State) -> Option<(StatusCode, String)> {
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let path = parts.uri.path();
    match state.mode {
        MetadataMode::Hangs => return None,
        MetadataMode::Version1 if parts.method == Method::PUT => {
            return Some((StatusCode::NOT_FOUND, "not found".to_owned()));
        }
        MetadataMode::Version1 | MetadataMode::Version2 => {}
    }
    if parts.method == Method::PUT && path == "/latest/api/token" {
        let seconds: u32 = text("x-aws-ec2-metadata-token-ttl-seconds")?.parse().ok()?;
        assert!((1..=21_600).contains(&seconds), "{seconds}");
        state.tokens += 1;
        return Some((StatusCode::OK, format!("token-{}", state.tokens)));
    }
    let number = text("x-aws-ec2-metadata-token").and_then(|token| token.strip_prefix("token-"));
    let number = number.and_then(|number| number.parse::<u32>().ok()).unwrap_or_default();
    let is_valid = (state.revoked_tokens + 1..=state.tokens).contains(&number);
    if state.mode == MetadataMode::Version2 && !is_valid {
        return Some((StatusCode::UNAUTHORIZED, String::new()));
    }
    let path = path.strip_prefix("/latest/meta-data/").unwrap_or_default();
    if let Some(value) = state.values.get(path) {
        return Some((StatusCode::OK, value.clone()));
    }
    if path == format!("iam/security-credentials/{ROLE}") {
        state.credentials += 1;
        let number = state.credentials;
        let credentials = serde_json::json!({
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": format!("ASIA{number}"),
            "SecretAccessKey": secret_key(number),
            "Token": format!("session-token-{number}"),
            "Expiration": "2026-01-01T06:00:00Z",
        });
        return Some((StatusCode::OK, credentials.to_string()));
    }
    Some((StatusCode::NOT_FOUND, "not found".to_owned()))
}

/// Answers a request to `CloudWatch` or Auto Scaling. Returns `None` if the service hangs.
fn api(
    parts: &http::request::Parts,
    body: &Bytes,
    state: &Mutex<State>,
) -> Option<(StatusCode, String)> {
    let mut state = state.lock().unwrap();
    state.attempts += 1;
    if let Err(reason) = verify(parts, body, state.credentials) {
        state.bad_signatures.push(reason);
        return Some(refusal(403, "SignatureDoesNotMatch", "the signature is not valid"));
    }
    let text = std::str::from_utf8(body).expect("a form");
    let form: Accepted =
        text.split('&').filter_map(|pair| pair.split_once('=')).map(decoded).collect();
    let next = state.next_action_answers.get_mut(&form["Action"]).and_then(VecDeque::pop_front);
    let of_action = next.or_else(|| state.action_answers.get(&form["Action"]).cloned());
    match of_action.or_else(|| state.answers.pop_front()) {
        Some(ServiceAnswer::Hang) => None,
        Some(ServiceAnswer::Refuse(status, code, message)) => Some(refusal(status, code, message)),
        Some(ServiceAnswer::Text(status, text)) => {
            Some((StatusCode::from_u16(status).expect("a status"), text))
        }
        None => {
            state.accepted.push(form);
            Some((StatusCode::OK, "<PutMetricDataResponse/>".to_owned()))
        }
    }
}

/// Decodes a parameter of a form.
fn decoded((name, value): (&str, &str)) -> (String, String) {
    let decoded = |text: &str| {
        percent_encoding::percent_decode_str(text).decode_utf8().expect("UTF-8").into_owned()
    };
    (decoded(name), decoded(value))
}

fn refusal(status: u16, code: &str, message: &str) -> (StatusCode, String) {
    let text = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    );
    (StatusCode::from_u16(status).expect("a status"), text)
}

/// Computes the signature independently, and compares it with the one in the request.
fn verify(parts: &http::request::Parts, body: &[u8], issued: u32) -> Result<(), String> {
    let header = |headers: &HeaderMap, name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        value.ok_or_else(|| format!("no {name}"))
    };
    let get = |name: &str| header(&parts.headers, name);
    let authorization = get("authorization")?;
    let fields = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("another algorithm")?;
    let fields: BTreeMap<&str, &str> =
        fields.split(',').filter_map(|field| field.trim().split_once('=')).collect();
    let field = |name: &str| fields.get(name).copied().ok_or_else(|| format!("no {name}"));
    let credential: Vec<&str> = field("Credential")?.split('/').collect();
    let [id, date, region, service, "aws4_request"] = credential[..] else {
        return Err(format!("the scope {credential:?}"));
    };
    let form = String::from_utf8_lossy(body);
    let expected = if form.starts_with("Action=PutMetricData&Version=2010-08-01&") {
        "monitoring"
    } else if LIFECYCLE_ACTIONS
        .iter()
        .any(|action| form.starts_with(&format!("Action={action}&Version=2011-01-01&")))
    {
        "autoscaling"
    } else {
        return Err(format!("the action {form}"));
    };
    // Several processes can use the service at the same time, each with its own credentials.
    let number = id.strip_prefix("ASIA").and_then(|number| number.parse::<u32>().ok());
    let number = number.filter(|number| (1..=issued).contains(number)).unwrap_or_default();
    let has_token = get("x-amz-security-token")? == format!("session-token-{number}");
    if number == 0 || region != REGION || service != expected || !has_token {
        return Err(format!("the credential {credential:?}"));
    }
    let time = get("x-amz-date")?;
    let signed_at = chrono::NaiveDateTime::parse_from_str(&time, "%Y%m%dT%H%M%SZ");
    let age = chrono::Utc::now() - signed_at.map_err(|error| error.to_string())?.and_utc();
    if age.num_seconds().abs() > 60 || !time.starts_with(date) {
        return Err(format!("the time {time}"));
    }
    let names: Vec<&str> = field("SignedHeaders")?.split(';').collect();
    if names != ["content-type", "host", "x-amz-date", "x-amz-security-token"] {
        return Err(format!("the signed headers {names:?}"));
    }
    let values: Result<Vec<String>, String> = names.iter().map(|name| get(name)).collect();
    let values = values?;
    let headers: Vec<(&str, &str)> =
        names.iter().copied().zip(values.iter().map(String::as_str)).collect();
    let key = SigningKey { secret: &secret_key(number), date, region, service };
    let computed = signature(parts.method.as_str(), &headers, body, &time, key);
    if computed != field("Signature")? {
        return Err(format!("the signature of {headers:?}"));
    }
    Ok(())
}
