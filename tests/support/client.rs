//! A client of the gateway: HTTPS, the throw-away authority believed, answers that can be checked.

use std::fs;
use std::net::SocketAddr;
use std::sync::Once;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use super::certs::{Certs, Files};

/// Longer than any session of a test: a gateway that does not answer fails the test here.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// Which HTTP is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Http {
    /// What TLS negotiates: HTTP/2 where the gateway has it.
    #[default]
    Negotiated,
    /// HTTP/1.1.
    One,
    /// HTTP/2, from the first byte.
    Two,
}

/// How a client connects.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClientOptions<'a> {
    /// Which HTTP.
    pub(crate) http: Http,
    /// The certificate it shows.
    pub(crate) identity: Option<&'a Files>,
}

/// A client of one gateway, or of several in turn (`Client::at`).
#[derive(Clone, Debug)]
pub(crate) struct Client {
    inner: reqwest::Client,
    base: String,
    headers: HeaderMap,
}

impl Client {
    /// A client that believes the authority and sends to `gateway`.
    pub(crate) fn new(gateway: SocketAddr, certs: &Certs, options: ClientOptions<'_>) -> Self {
        install_provider();
        let ca = fs::read(&certs.ca).expect("the authority's certificate");
        let ca = reqwest::Certificate::from_pem(&ca).expect("PEM");
        let mut builder = reqwest::Client::builder()
            .tls_certs_only([ca])
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ANSWER_TIMEOUT);
        builder = match options.http {
            Http::Negotiated => builder,
            Http::One => builder.http1_only(),
            Http::Two => builder.http2_prior_knowledge(),
        };
        if let Some(files) = options.identity {
            let mut pem = fs::read(&files.key).expect("a key");
            pem.extend(fs::read(&files.certificate).expect("a certificate"));
            builder = builder.identity(reqwest::Identity::from_pem(&pem).expect("PEM"));
        }
        Self {
            inner: builder.build().expect("a client"),
            base: format!("https://{gateway}"),
            headers: HeaderMap::new(),
        }
    }

    /// The same client, connections included, sending to another gateway.
    pub(crate) fn at(&self, gateway: SocketAddr) -> Self {
        Self { base: format!("https://{gateway}"), ..self.clone() }
    }

    /// The same client, sending one header more with each request.
    pub(crate) fn with_header(&self, name: &'static str, value: &str) -> Self {
        let mut headers = self.headers.clone();
        headers.insert(name, value.parse().expect("a header's value"));
        Self { headers, ..self.clone() }
    }

    /// The same client, proving who it is with a token.
    pub(crate) fn with_bearer(&self, token: &str) -> Self {
        self.with_header("authorization", &format!("Bearer {token}"))
    }

    /// A request to be completed and sent by hand.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.base);
        self.inner.request(method, url).headers(self.headers.clone())
    }

    /// GET.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    /// A request with a JSON body.
    pub(crate) async fn send(&self, method: Method, path: &str, body: &Value) -> Answer {
        send(self.request(method, path).json(body)).await
    }

    /// A request that may find nobody: what the load of a fault test records.
    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, reqwest::Error> {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        try_send(request).await
    }
}

/// Sends a request made by hand; fails the test when there is no answer at all.
pub(crate) async fn send(request: reqwest::RequestBuilder) -> Answer {
    try_send(request).await.unwrap_or_else(|error| panic!("no answer: {error:?}"))
}

async fn try_send(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    let (status, headers) = (response.status(), response.headers().clone());
    Ok(Answer { status, headers, body: response.bytes().await?.to_vec() })
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A header's value; empty when there is none, or when it is no text.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {} {}", self.status, self.text()))
    }

    /// Checks the status; the body is in the message when it is another.
    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }

    /// Checks that this is the problem `slug` with `status`, whole and consistent (RFC 9457), and returns it.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, slug: &str) -> Value {
        self.is(status);
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        let problem = self.json();
        let member = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or_default();
        assert_eq!(member("type"), format!("urn:fjord:problem:{slug}"), "{problem}");
        assert_eq!(problem.get("status"), Some(&Value::from(status)), "{problem}");
        assert!(!member("title").is_empty(), "{problem}");
        let id = self.header("x-request-id");
        assert!(!id.is_empty(), "no X-Request-Id: {:?}", self.headers);
        assert_eq!(member("request_id"), id, "{problem}");
        let effects = ["not-executed", "executed", "unknown"];
        assert!(effects.contains(&member("effect")), "{problem}");
        if status == 503 {
            // The contract: certainly not executed, and when to come back.
            assert_eq!(member("effect"), "not-executed", "{problem}");
            let after = self.header("retry-after");
            assert!(after.parse::<u32>().is_ok(), "Retry-After of a 503: {after:?}");
        }
        problem
    }
}

/// Fetches JSON from a plain HTTP listener of this machine; `None` while it does not answer 200.
pub(crate) async fn get_json(url: &str) -> Option<Value> {
    serde_json::from_str(&get_text(url).await?).ok()
}

/// Fetches text from a plain HTTP listener of this machine; `None` while it does not answer 200.
pub(crate) async fn get_text(url: &str) -> Option<String> {
    install_provider();
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build();
    let response = client.expect("a client").get(url).send().await.ok()?;
    if response.status() == StatusCode::OK { response.text().await.ok() } else { None }
}

/// TLS needs to know who computes, once in a process.
pub(crate) fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        assert!(installed.is_ok(), "nobody else chooses the provider of this process");
    });
}
