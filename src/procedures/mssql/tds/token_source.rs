//! Fetches an access token from a file, the Azure instance metadata service, or a program.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use crate::config::procedures::TokenSource;
use crate::telemetry::chain;

/// The time limit for fetching a token, before the login's own limit begins.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum size of an answer that contains a token.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The version of the metadata service's interface, and the resource that tokens are for.
const QUERY: &str = "api-version=2018-02-01&resource=https%3A%2F%2Fdatabase.windows.net%2F";

/// Fetches an answer that contains a token. The error contains no part of the answer. The future
/// can be dropped safely: a program that is still running is killed, together with the programs
/// that it has started.
pub(super) async fn fetch(source: &TokenSource) -> Result<Vec<u8>, String> {
    let fetched = async {
        match source {
            TokenSource::File(path) => from_file(path).await,
            TokenSource::ManagedIdentity { url, client_id } => {
                from_service(url, client_id.as_deref()).await
            }
            TokenSource::Command(command) => from_command(command).await,
        }
    };
    tokio::time::timeout(FETCH_TIMEOUT, fetched)
        .await
        .unwrap_or_else(|elapsed| Err(format!("the source does not answer: {elapsed}")))
}

async fn from_file(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    read(file).await.map_err(|error| format!("{}: {error}", path.display()))
}

async fn from_service(url: &str, client_id: Option<&str>) -> Result<Vec<u8>, String> {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        // The service must not be asked through a proxy, because the proxy would get the token.
        .no_proxy()
        .build()
        .map_err(|error| chain(&error))?;
    let id = client_id.map(|id| {
        let id = percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC);
        format!("&client_id={id}")
    });
    let url = format!("{url}?{QUERY}{}", id.unwrap_or_default());
    // The service requires this header, because neither a browser nor a proxy adds it.
    let request = client.get(url).header("Metadata", "true");
    let mut answer = request.send().await.map_err(|error| chain(&error))?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("the metadata service answers with status {status}"));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| chain(&error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(too_long());
        }
    }
    Ok(bytes)
}

async fn from_command(command: &[String]) -> Result<Vec<u8>, String> {
    let (program, arguments) = command.split_first().ok_or("no program is configured")?;
    let failed = |error: std::io::Error| format!("{program}: {error}");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // The program might print the token when it fails.
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut group = ProcessGroup(child.id());
    let output = child.stdout.take().ok_or("the program has no output")?;
    let bytes = read(output).await.map_err(|error| format!("{program}: {error}"))?;
    let status = child.wait().await.map_err(failed)?;
    // From now on, another process may be given the group's id.
    group.0 = None;
    if status.success() { Ok(bytes) } else { Err(format!("{program}: {status}")) }
}

/// A process group that is killed when this value is dropped, unless the group's first process has
/// been waited for. The group has the id of that process.
struct ProcessGroup(Option<u32>);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        let Some(id) = self.0.and_then(|id| i32::try_from(id).ok()) else { return };
        if let Err(error) = killpg(Pid::from_raw(id), Signal::SIGKILL) {
            tracing::warn!(%error, "the program that prints the access token cannot be killed");
        }
    }
}

async fn read(from: impl AsyncRead + Unpin) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let bytes_max = u64::try_from(ANSWER_BYTES_MAX + 1).unwrap_or(u64::MAX);
    let read = from.take(bytes_max).read_to_end(&mut bytes).await;
    read.map_err(|error| error.to_string())?;
    if bytes.len() > ANSWER_BYTES_MAX { Err(too_long()) } else { Ok(bytes) }
}

fn too_long() -> String {
    format!("expected at most {ANSWER_BYTES_MAX} bytes")
}
