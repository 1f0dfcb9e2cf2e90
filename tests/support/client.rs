//! An HTTPS client that trusts the throw-away authority, and assertions on responses.

use std::fs;
use std::net::SocketAddr;
use std::sync::Once;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use super::certs::{Certs, PemFiles};
use super::fjord_process::FjordProcess;

/// The time limit for a response. It is longer than any session in a test, so only a gateway that
/// never responds exceeds it.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(90);

/// The version of HTTP that a client uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    /// The version that TLS negotiates: HTTP/2 if the gateway offers it.
    #[default]
    Negotiated,
    /// HTTP/1.1.
    One,
    /// HTTP/2 with prior knowledge.
    Two,
}

/// The options of a [`Client`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClientOptions<'a> {
    pub(crate) http: HttpVersion,
    /// The client certificate.
    pub(crate) identity: Option<&'a PemFiles>,
}

/// A client of one gateway. `at` returns a client of another gateway.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    inner: reqwest::Client,
    base: String,
    headers: HeaderMap,
}

impl Client {
    /// Creates a client that trusts the authority and sends to `gateway`.
    pub(crate) fn new(gateway: SocketAddr, certs: &Certs, options: ClientOptions<'_>) -> Self {
        install_provider();
        let ca = fs::read(&certs.ca).expect("the CA certificate can be read");
        let ca = reqwest::Certificate::from_pem(&ca).expect("PEM");
        let mut builder = reqwest::Client::builder()
            .tls_certs_only([ca])
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(RESPONSE_TIMEOUT);
        builder = match options.http {
            HttpVersion::Negotiated => builder,
            HttpVersion::One => builder.http1_only(),
            HttpVersion::Two => builder.http2_prior_knowledge(),
        };
        if let Some(files) = options.identity {
            let mut pem = fs::read(&files.key).expect("the key file can be read");
            pem.extend(fs::read(&files.certificate).expect("the certificate file can be read"));
            builder = builder.identity(reqwest::Identity::from_pem(&pem).expect("PEM"));
        }
        Self {
            inner: builder.build().expect("a client"),
            base: format!("https://{gateway}"),
            headers: HeaderMap::new(),
        }
    }

    /// Returns a client that shares this client's connections and sends to another gateway.
    pub(crate) fn at(&self, gateway: SocketAddr) -> Self {
        Self { base: format!("https://{gateway}"), ..self.clone() }
    }

    /// Returns a client that adds a header to each request.
    pub(crate) fn with_header(&self, name: &'static str, value: &str) -> Self {
        let mut headers = self.headers.clone();
        headers.insert(name, value.parse().expect("the header value is valid"));
        Self { headers, ..self.clone() }
    }

    /// Returns a client that sends a bearer token.
    pub(crate) fn with_bearer(&self, token: &str) -> Self {
        self.with_header("authorization", &format!("Bearer {token}"))
    }

    /// Returns a request builder, to be passed to `send`.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.base);
        self.inner.request(method, url).headers(self.headers.clone())
    }

    /// Sends a GET request.
    pub(crate) async fn get(&self, path: &str) -> HttpResponse {
        send(self.request(Method::GET, path)).await
    }

    /// Sends a request with a JSON body.
    pub(crate) async fn send(&self, method: Method, path: &str, body: &Value) -> HttpResponse {
        send(self.request(method, path).json(body)).await
    }

    /// Sends a request and returns the error if it fails, for example because no gateway is running.
    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<HttpResponse, reqwest::Error> {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        try_send(request).await
    }
}

/// Sends a request. Panics if there is no response.
pub(crate) async fn send(request: reqwest::RequestBuilder) -> HttpResponse {
    try_send(request).await.unwrap_or_else(|error| panic!("no response: {error:?}"))
}

async fn try_send(request: reqwest::RequestBuilder) -> Result<HttpResponse, reqwest::Error> {
    let response = request.send().await?;
    let (status, headers) = (response.status(), response.headers().clone());
    Ok(HttpResponse { status, headers, body: response.bytes().await?.to_vec() })
}

/// A complete HTTP response.
#[derive(Clone, Debug)]
pub(crate) struct HttpResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl HttpResponse {
    /// Returns a header's value, or an empty string if the header is absent or not text.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Returns the body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {} {}", self.status, self.text()))
    }

    /// Asserts the status. The failure message contains the body.
    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }

    /// Asserts that the response is a complete problem document (RFC 9457) with this status and
    /// slug. Returns the document.
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
            // A 503 promises that nothing was executed.
            assert_eq!(member("effect"), "not-executed", "{problem}");
            let after = self.header("retry-after");
            assert!(after.parse::<u32>().is_ok(), "Retry-After of a 503: {after:?}");
            let proxy_status = self.header("proxy-status");
            let (start, end) = ("fjord; error=", format!("; details=\"{slug}\""));
            assert!(
                proxy_status.starts_with(start) && proxy_status.ends_with(&end),
                "{proxy_status}"
            );
        }
        problem
    }
}

/// Fetches JSON over plain HTTP. Returns `None` unless the status is 200.
pub(crate) async fn get_json(url: &str) -> Option<Value> {
    serde_json::from_str(&get_text(url).await?).ok()
}

/// Fetches the data that the page of an admin listener shows, in the same way as the page.
pub(crate) async fn get_page_data(process: &FjordProcess) -> Option<Value> {
    let url = format!("http://{}/fleet.json", process.admin());
    serde_json::from_str(&get_text_with(&url, &[("fjord-page", "1")]).await?).ok()
}

/// Fetches text over plain HTTP. Returns `None` unless the status is 200.
pub(crate) async fn get_text(url: &str) -> Option<String> {
    get_text_with(url, &[]).await
}

async fn get_text_with(url: &str, headers: &[(&str, &str)]) -> Option<String> {
    install_provider();
    // The client trusts no authorities, because loading the system's authorities takes longer than
    // the request.
    let builder = reqwest::Client::builder().no_proxy().tls_certs_only([]);
    let client = builder.timeout(Duration::from_secs(5)).build();
    let mut request = client.expect("a client").get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.ok()?;
    if response.status() == StatusCode::OK { response.text().await.ok() } else { None }
}

/// Installs the crypto provider of rustls, once per process.
pub(crate) fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        assert!(installed.is_ok(), "the crypto provider of this process is not set yet");
    });
}
