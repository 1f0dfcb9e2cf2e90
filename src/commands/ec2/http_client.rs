//! An HTTP client that limits the duration of requests and the size of responses. It can use a proxy.

use std::path::Path;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::timeout;

use super::proxy::ProxySettings;
use crate::config::tls::ClientTlsConfig;
use crate::telemetry::chain;
use crate::tls;

/// The maximum time for connecting to the server, which comprises name resolution, TCP, the proxy's answer to `CONNECT`, and TLS. It
/// is shorter than the time limit for requests that must not be repeated, so that an unreachable server can be distinguished from
/// one that does not answer.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// The maximum size of an answer in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The text in reqwest's error message that precedes the reason why a proxy refused to open a tunnel.
const TUNNEL: &str = "tunnel error: ";

/// A client with an optional proxy.
#[derive(Clone, Debug)]
pub(super) struct HttpClient {
    client: reqwest::Client,
    proxy: Option<ProxySettings>,
}

/// The error for a request that did not receive a complete response.
#[derive(Debug)]
pub(super) struct SendFailure {
    pub(super) reason: String,
    /// Whether the server may have received the request.
    pub(super) was_sent: bool,
}

impl HttpClient {
    /// Creates a client that uses no proxy. Such a client is used for the instance metadata, for example, because a
    /// proxy would see the credentials in the responses. The client verifies certificates against the authorities in
    /// `ca`, or against those of the system if `ca` is `None`.
    ///
    /// # Errors
    /// Returns a message if the authorities cannot be used.
    pub(super) fn direct(ca: Option<&Path>) -> Result<Self, String> {
        Self::new(ca, None)
    }

    /// Creates a client like `direct`, except that it sends requests over TLS through the proxy, if there is one. The
    /// proxy only forwards bytes (`CONNECT`) and cannot read them.
    ///
    /// # Errors
    /// Returns a message if the authorities cannot be used.
    pub(super) fn new(ca: Option<&Path>, proxy: Option<ProxySettings>) -> Result<Self, String> {
        let files = ClientTlsConfig { ca: ca.map(Path::to_owned), identity: None };
        let tls = tls::client_config(&files).map_err(|error| error.to_string())?;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            // The client itself would ignore a proxy whose URL is not valid.
            .no_proxy()
            .user_agent(concat!("fjord/", env!("CARGO_PKG_VERSION")));
        if let Some(settings) = &proxy {
            builder = builder.proxy(settings.proxy.clone());
        }
        let client = builder.build().map_err(|error| chain(&error))?;
        Ok(Self { client, proxy })
    }

    /// Starts building a request.
    pub(super) fn request(&self, method: Method, url: &str) -> reqwest::RequestBuilder {
        self.client.request(method, url)
    }

    /// Sends a request and reads the whole response. Cancel safe.
    ///
    /// # Errors
    /// `SendFailure` if there is no complete answer within `limit`. If there is no connection within `CONNECT_LIMIT`, the request
    /// was not sent. If `limit` is shorter than `CONNECT_LIMIT` and expires, it is unknown whether the request was sent.
    pub(super) async fn send(
        &self,
        request: reqwest::Request,
        limit: Duration,
    ) -> Result<(StatusCode, String), SendFailure> {
        let was_sent = |reason: String| SendFailure { reason, was_sent: true };
        let answer = async {
            let mut answer =
                self.client.execute(request).await.map_err(|error| self.failure(error))?;
            let mut bytes = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(|error| self.failure(error))? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > ANSWER_BYTES_MAX {
                    return Err(was_sent(format!(
                        "expected an answer of at most {ANSWER_BYTES_MAX} bytes"
                    )));
                }
            }
            let text = String::from_utf8(bytes);
            let text = text.map_err(|_| was_sent("expected an answer in UTF-8".to_owned()))?;
            Ok((answer.status(), text))
        };
        let answered = timeout(limit, answer).await;
        answered.unwrap_or_else(|_| {
            Err(was_sent(format!("no answer within {} s{}", limit.as_secs(), self.through())))
        })
    }

    /// Returns a note that names the proxy, if there is one.
    fn through(&self) -> String {
        self.proxy.as_ref().map_or_else(String::new, |settings| {
            format!(" ({} names the proxy {})", settings.variable, settings.address)
        })
    }

    fn failure(&self, error: reqwest::Error) -> SendFailure {
        let was_sent = !error.is_connect();
        if !was_sent && error.is_timeout() {
            let seconds = CONNECT_LIMIT.as_secs();
            let reason = format!("no connection within {seconds} s{}", self.through());
            return SendFailure { reason, was_sent };
        }
        let reason = chain(&error.without_url());
        let Some((settings, (_, cause))) = self.proxy.as_ref().zip(reason.split_once(TUNNEL))
        else {
            return SendFailure { reason, was_sent };
        };
        let ProxySettings { variable, address, .. } = settings;
        let problem = if cause.starts_with("unsuccessful") {
            "refuses to connect to the service: the proxy must permit CONNECT to the service's host and port"
                .to_owned()
        } else if cause.starts_with("proxy authorization required") {
            "refuses to connect to the service without valid credentials (status 407)".to_owned()
        } else {
            format!("cannot be used: {cause}")
        };
        SendFailure { reason: format!("the proxy {address} ({variable}) {problem}"), was_sent }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::net::SocketAddr;

    use tokio::net::{TcpListener, TcpSocket, TcpStream};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// Sends a request, directly or through a proxy, to a server that does not answer. Returns the failure, and whether the request
    /// was sent.
    async fn failure(url: &str, proxy: Option<SocketAddr>) -> (String, bool) {
        let environment =
            proxy.map(|address| (OsString::from("HTTPS_PROXY"), address.to_string().into()));
        let proxy = ProxySettings::read(environment.as_slice()).unwrap();
        let client = HttpClient::new(None, proxy).unwrap();
        let request = client.request(Method::POST, url).build().unwrap();
        let SendFailure { reason, was_sent } = client.send(request, LIMIT).await.unwrap_err();
        (reason, was_sent)
    }

    #[tokio::test]
    async fn a_request_without_a_connection_was_not_sent() {
        // The kernel accepts the connections, and nobody reads what is sent on them.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = (silent.local_addr().unwrap(), silent);
        // The kernel does not answer further connections to a listener whose backlog is full.
        let full = TcpSocket::new_v4().unwrap();
        full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = full.listen(1).unwrap();
        let address = full.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) =
            timeout(Duration::from_millis(200), TcpStream::connect(address)).await
        {
            waiting.push(stream.unwrap());
            assert!(waiting.len() < 100, "the backlog is not limited");
        }
        let server = format!("http://{}/", silent.0);
        let unreachable = format!("http://{address}/");
        let with_tls = server.replace("http:", "https:");
        let (sent, proxy, connection, tls) = tokio::join!(
            failure(&server, None),
            failure("https://service.example/", Some(silent.0)),
            failure(&unreachable, None),
            failure(&with_tls, None),
        );
        assert_eq!(sent, ("no answer within 5 s".to_owned(), true));
        let through =
            format!("no connection within 3 s (HTTPS_PROXY names the proxy http://{})", silent.0);
        assert_eq!(proxy, (through, false));
        for failure in [connection, tls] {
            assert_eq!(failure, ("no connection within 3 s".to_owned(), false));
        }
        drop((waiting, full));
    }
}
