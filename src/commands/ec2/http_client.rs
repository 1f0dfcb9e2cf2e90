//! An HTTP client whose requests and answers are bounded.

use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use tokio::time::timeout;

use crate::config::tls::ClientTlsConfig;
use crate::telemetry::chain;
use crate::tls;

/// The maximum size of an answer in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Creates a client that verifies certificates with the authorities in `ca`, or with those of the system.
///
/// # Errors
/// A message if the authorities cannot be used.
pub(super) fn new(ca: Option<&Path>) -> Result<reqwest::Client, String> {
    let files = ClientTlsConfig { ca: ca.map(Path::to_owned), identity: None };
    let tls = tls::client_config(&files).map_err(|error| error.to_string())?;
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        // Ignores proxies from the environment, which would receive the credentials from the instance metadata.
        .no_proxy()
        .user_agent(concat!("fjord/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| chain(&error))
}

/// Sends a request, and reads the whole answer. Cancel safe.
///
/// # Errors
/// A message if there is no complete answer within `limit`.
pub(super) async fn send(
    client: &reqwest::Client,
    request: reqwest::Request,
    limit: Duration,
) -> Result<(StatusCode, String), String> {
    let answer = async {
        let mut answer = client.execute(request).await.map_err(reason)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(reason)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(format!("expected an answer of at most {ANSWER_BYTES_MAX} bytes"));
            }
        }
        let text =
            String::from_utf8(bytes).map_err(|_| "expected an answer in UTF-8".to_owned())?;
        Ok((answer.status(), text))
    };
    let answered = timeout(limit, answer).await;
    answered.unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs())))
}

fn reason(error: reqwest::Error) -> String {
    chain(&error.without_url())
}
