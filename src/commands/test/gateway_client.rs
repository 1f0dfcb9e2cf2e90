//! An HTTPS client that sends examples to a gateway.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Uri};

use super::TestError;
use super::credentials;
use super::evaluation::HttpAnswer;
use super::result::TargetError;
use crate::catalogue::{Auth, Endpoint, ExampleRequest};
use crate::cli::TestArguments;
use crate::config::tls::{CertificateFiles, ClientTlsConfig};
use crate::telemetry::chain;
use crate::tls;

/// The maximum time to wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The maximum time to wait for the files of the credential and of the TLS client.
const FILES_LIMIT: Duration = Duration::from_secs(10);
/// The name of the certificates that are used if the arguments name no file.
const SYSTEM_CERTIFICATES: &str = "the system's CA certificates";
/// The maximum size of a response in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A client for one gateway.
#[derive(Debug)]
pub(super) struct GatewayClient {
    client: reqwest::Client,
    /// The URL without a trailing slash.
    base: String,
    credential: Option<CredentialHeader>,
}

impl GatewayClient {
    /// Creates a client without connecting to the gateway. Blocks for at most `FILES_LIMIT` while reading files, some
    /// of which can be pipes.
    ///
    /// # Errors
    /// Returns an error that describes the unusable arguments.
    pub(super) fn new(url: &str, arguments: &TestArguments) -> Result<Self, TestError> {
        let usage = |error: String| TestError::Usage(vec![error]);
        let base = base_url(url).map_err(|error| {
            // A URL that contains a user name may also contain a password.
            let shown = if url.contains('@') { String::new() } else { format!(" {url}") };
            usage(format!("--url{shown}: {error}"))
        })?;
        let TestArguments { token_file, api_key_file, ca, certificate, key, .. } = arguments;
        let owned = arguments.clone();
        let credential = FileReader::start(&[token_file, api_key_file], move || {
            credentials::header(&owned).map_err(|error| vec![error])
        });
        let identity = certificate.clone().zip(key.clone());
        let files = ClientTlsConfig {
            ca: ca.clone(),
            identity: identity.map(|(certificate, key)| CertificateFiles { certificate, key }),
        };
        let tls = FileReader::start(&[ca, certificate, key], move || {
            let lines = |errors: tls::TlsErrors| errors.0.iter().map(ToString::to_string).collect();
            tls::client_config(&files).map_err(lines)
        });
        let deadline = Instant::now() + FILES_LIMIT;
        let (credential, tls) = match (credential.finish(deadline), tls.finish(deadline)) {
            (Ok(credential), Ok(tls)) => (credential, tls),
            (credential, tls) => {
                let errors = [credential.err(), tls.err()].into_iter().flatten().flatten();
                return Err(TestError::Usage(errors.collect()));
            }
        };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            // Redirects are not followed, because an example can expect one.
            .redirect(reqwest::redirect::Policy::none())
            // Proxies from the environment are ignored, because the URL names the gateway.
            .no_proxy()
            .connect_timeout(CONNECT_LIMIT)
            .user_agent(concat!("fjord/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| TestError::Failed(vec![chain(&error)]))?;
        Ok(Self { client, base, credential })
    }

    /// Sends a request. The caller must set a time limit.
    ///
    /// # Errors
    /// Returns the reason why there is no complete answer.
    pub(super) async fn send(
        &self,
        endpoint: &Endpoint,
        request: ExampleRequest,
    ) -> Result<HttpAnswer, TargetError> {
        let url = format!("{}{}", self.base, request.target);
        let mut built = self.client.request(request.method, url).headers(request.headers);
        if let Some((name, value)) = &self.credential
            && endpoint.auth != Auth::Public
        {
            built = built.header(name, value);
        }
        if let Some(body) = request.body {
            built = built.body(body);
        }
        // The URL is left out of the message because it contains parameter values.
        let reason =
            |error: reqwest::Error| format!("{}: {}", self.base, chain(&error.without_url()));
        let not_answered = |error: reqwest::Error| match error {
            error if error.is_connect() => TargetError::Unreachable(reason(error)),
            error if error.is_builder() => TargetError::Failed(reason(error)),
            // For example, a proxy closed the connection because it could not reach the gateway.
            error => TargetError::NoAnswer(format!("no answer: {}", reason(error))),
        };
        let incomplete = |error: reqwest::Error| {
            TargetError::Failed(format!("the answer is incomplete: {}", reason(error)))
        };
        let mut response = built.send().await.map_err(not_answered)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(incomplete)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                let limit = ANSWER_BYTES_MAX >> 20;
                return Err(TargetError::Failed(format!("the answer has more than {limit} MiB")));
            }
            body.extend_from_slice(&chunk);
        }
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(HttpAnswer { status, headers, body: body.into() })
    }
}

/// A header that contains a credential.
type CredentialHeader = (HeaderName, HeaderValue);

/// A thread that reads files. A separate thread is needed because opening or reading a pipe can block forever. A thread
/// that exceeds the time limit is abandoned.
struct FileReader<T> {
    /// The files, for messages.
    names: String,
    result: Receiver<Result<T, Vec<String>>>,
}

impl<T: Send + 'static> FileReader<T> {
    fn start(
        files: &[&Option<PathBuf>],
        read: impl FnOnce() -> Result<T, Vec<String>> + Send + 'static,
    ) -> Self {
        let names: Vec<String> =
            files.iter().filter_map(|file| Some(file.as_ref()?.display().to_string())).collect();
        let names =
            if names.is_empty() { SYSTEM_CERTIFICATES.to_owned() } else { names.join(", ") };
        let (sender, result) = mpsc::sync_channel(1);
        let failed = sender.clone();
        let thread = std::thread::Builder::new().name("files".to_owned());
        if let Err(error) = thread.spawn(move || sender.send(read()).ok()) {
            failed.send(Err(vec![format!("{names}: cannot start a thread: {error}")])).ok();
        }
        Self { names, result }
    }

    /// Waits for the result.
    fn finish(self, deadline: Instant) -> Result<T, Vec<String>> {
        let left = deadline.saturating_duration_since(Instant::now());
        let reason = match self.result.recv_timeout(left) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Timeout) => format!("cannot be read within {FILES_LIMIT:?}"),
            Err(RecvTimeoutError::Disconnected) => {
                "cannot be read: the thread that reads it has panicked".to_owned()
            }
        };
        Err(vec![format!("{}: {reason}", self.names)])
    }
}

/// Checks the URL of a gateway and removes a trailing slash. The URL can have a path if a proxy serves the gateway
/// under that path.
fn base_url(url: &str) -> Result<String, String> {
    let expected = "expected the URL of a gateway without a query, e.g. https://localhost:8443";
    let parsed: Uri = url.parse().map_err(|error| format!("{error}; {expected}"))?;
    let (Some(scheme), Some(authority)) = (parsed.scheme_str(), parsed.authority()) else {
        return Err(expected.to_owned());
    };
    if parsed.query().is_some() || url.contains('#') || authority.as_str().contains('@') {
        return Err(expected.to_owned());
    }
    let host = authority.host().trim_matches(['[', ']']);
    let is_loopback =
        host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    match scheme {
        "https" => {}
        "http" if is_loopback => {}
        "http" => {
            return Err(
                "expected https:// except for this machine, because others can read what is sent"
                    .to_owned(),
            );
        }
        _ => return Err(expected.to_owned()),
    }
    Ok(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_has_its_name_and_its_reason() {
        let deadline = Instant::now() + FILES_LIMIT;
        let ca = Some(PathBuf::from("ca.pem"));
        let panicking = FileReader::<()>::start(&[&ca, &None], || panic!("expected by the test"));
        let error = panicking.finish(deadline).unwrap_err().concat();
        assert_eq!(error, "ca.pem: cannot be read: the thread that reads it has panicked");
        let (sender, receiver) = mpsc::channel::<()>();
        let slow = FileReader::start(&[&None], move || receiver.recv().map_err(|_| Vec::new()));
        let error = slow.finish(Instant::now()).unwrap_err().concat();
        assert_eq!(error, "the system's CA certificates: cannot be read within 10s");
        drop(sender);
    }

    #[test]
    fn only_urls_of_gateways_are_taken() {
        for (url, base) in [
            ("https://localhost:8443", "https://localhost:8443"),
            ("https://api.example/register/", "https://api.example/register"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]:8080/", "http://[::1]:8080"),
        ] {
            assert_eq!(base_url(url).as_deref(), Ok(base), "{url}");
        }
        for (url, part) in [
            ("localhost:8443", "expected the URL"),
            ("/v1", "expected the URL"),
            ("ftp://localhost", "expected the URL"),
            ("https://localhost?x=1", "without a query"),
            ("https://user:secret@localhost", "expected the URL"),
            ("http://api.example", "expected https://"),
            ("https://a b", "expected the URL"),
        ] {
            let error = base_url(url).unwrap_err();
            assert!(error.contains(part), "{url}: {error}");
        }
    }
}
