//! Promise: a login uses an access token that has not expired. Tokens are fetched one at a time,
//! and are replaced before they expire. A source that fails or hangs cannot block logins for long.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fjord::config::procedures::TokenSource;
use fjord::lifecycle::Tasks;
use fjord::procedures::BackendErrorKind;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{ProcedureCaller, int, unsent_error};
use crate::support::client::install_provider;
use crate::support::eventually::{SOON, TICK, eventually, eventually_some};
use crate::support::mssql_server::{SqlServer, fake_server};

/// Returns a token that expires after this number of seconds.
fn token(name: &str, seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs();
    let exp = i64::try_from(now).expect("a time") + seconds;
    let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"{name}","exp":{exp}}}"#));
    format!("e30.{claims}.c2ln")
}

/// Returns the tokens that all logins have used.
fn used(server: &SqlServer) -> Vec<String> {
    let logins = server.state().logins.lock().expect("not poisoned").clone();
    assert!(logins.iter().all(|login| login.user.is_empty() && login.password.is_empty()));
    logins.into_iter().map(|login| login.token.expect("a token")).collect()
}

async fn close_connections(server: &SqlServer) {
    server.state().close_connections();
    eventually(SOON, TICK, || server.state().connections.load(Ordering::Acquire) == 0).await;
}

/// Starts the fake server, and creates a file for the token.
async fn with_file() -> (SqlServer, PathBuf, tempfile::TempDir) {
    let mut server = fake_server().await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    server.config.tokens = Some(TokenSource::File(file.clone()));
    (server, file, directory)
}

#[tokio::test]
async fn a_token_in_a_file_is_replaced_before_it_expires() {
    let (server, file, _directory) = with_file().await;
    // The first token is used for about two seconds, until ten seconds before it expires.
    let (first, second) = (token("first", 12), token("second", 3600));
    fs::write(&file, &first).expect("a file");
    let caller = ProcedureCaller::new(&server);
    caller.call("nothing", &[]).await.expect("an answer");
    fs::write(&file, format!("{second}\n")).expect("a file");
    close_connections(&server).await;
    caller.call("nothing", &[]).await.expect("an answer");
    assert_eq!(used(&server), [first.clone(), first.clone()], "the first token is valid");
    eventually_some("the second token is used", SOON, async || {
        close_connections(&server).await;
        caller.call("nothing", &[]).await.expect("an answer");
        (used(&server).last() == Some(&second)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn no_login_is_attempted_without_a_valid_token() {
    for contents in [token("old", -1), token("short", 5), "nonsense".to_owned(), String::new()] {
        let (server, file, _directory) = with_file().await;
        fs::write(&file, &contents).expect("a file");
        let error = unsent_error(ProcedureCaller::new(&server).call("nothing", &[]).await);
        assert_eq!(error, BackendErrorKind::Unavailable, "{contents}");
        assert_eq!(server.state().attempts.load(Ordering::Acquire), 0, "{contents}");
    }
}

#[tokio::test]
async fn a_refused_token_is_not_used_again() {
    let (server, file, _directory) = with_file().await;
    let (refused, good) = (token("refused", 3600), token("good", 3600));
    server.state().refused_tokens.lock().expect("not poisoned").push(refused.clone());
    fs::write(&file, &refused).expect("a file");
    let caller = ProcedureCaller::new(&server);
    for _ in 0..3 {
        let error = unsent_error(caller.call("nothing", &[]).await);
        assert_eq!(error, BackendErrorKind::Unavailable);
    }
    assert_eq!(server.state().attempts.load(Ordering::Acquire), 1, "the next attempt is in 30 s");
    fs::write(&file, &good).expect("a file");
    ProcedureCaller::new(&server).call("nothing", &[]).await.expect("an answer");
    assert_eq!(used(&server), [good]);
}

/// A stub of the Azure instance metadata service. It stops when it is dropped.
struct FakeMetadataService {
    url: String,
    requests: Arc<AtomicUsize>,
    /// The answer's status and body.
    answer: Arc<Mutex<(u16, String)>>,
    task: JoinHandle<()>,
}

impl FakeMetadataService {
    async fn start(status: u16, body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/token", listener.local_addr().expect("an address"));
        let requests = Arc::new(AtomicUsize::new(0));
        let answer = Arc::new(Mutex::new((status, body.to_owned())));
        let (count, answers) = (Arc::clone(&requests), Arc::clone(&answer));
        // The provider is installed in the same way as in `main`.
        install_provider();
        let task = Tasks::new().spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.expect("a request"));
                }
                let request = String::from_utf8(request).expect("a request").to_lowercase();
                assert!(request.starts_with(
                    "get /token?api-version=2018-02-01\
                    &resource=https%3a%2f%2fdatabase.windows.net%2f&client_id=one%20two http/1.1"
                ));
                assert!(request.contains("\r\nmetadata: true\r\n"), "{request}");
                count.fetch_add(1, Ordering::AcqRel);
                let (status, body) = answers.lock().expect("not poisoned").clone();
                let length = body.len();
                let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n");
                stream.write_all((head + &body).as_bytes()).await.expect("an answer");
            }
        });
        Self { url, requests, answer, task }
    }

    fn source(&self) -> TokenSource {
        let client_id = Some("one two".to_owned());
        TokenSource::ManagedIdentity { url: self.url.clone(), client_id }
    }
}

impl Drop for FakeMetadataService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn the_token_of_a_managed_identity_is_fetched_once_for_all_logins() {
    let token = token("identity", 3600);
    let body = format!(r#"{{"access_token":"{token}","expires_on":"1","token_type":"Bearer"}}"#);
    let service = FakeMetadataService::start(200, &body).await;
    let mut server = fake_server().await;
    server.config.connections_max = 8;
    server.config.tokens = Some(service.source());
    let caller = ProcedureCaller::new(&server);
    let slow = [int("ms", 300)];
    for answer in join_all((0..8).map(|_| caller.call("slow", &slow))).await {
        answer.expect("an answer");
    }
    assert!(used(&server).len() > 1, "several logins");
    assert!(used(&server).iter().all(|one| *one == token));
    assert_eq!(service.requests.load(Ordering::Acquire), 1);
    // The service may be down while the token is valid.
    *service.answer.lock().expect("not poisoned") = (500, String::new());
    close_connections(&server).await;
    caller.call("nothing", &[]).await.expect("an answer");
}

#[tokio::test]
async fn a_metadata_service_without_a_token_makes_the_database_unavailable() {
    let valid = format!(r#"{{"access_token":"{}"}}"#, token("identity", 3600));
    let long = "x".repeat(100_000);
    for (status, body) in [(400, &*valid), (302, &valid), (200, "{}"), (200, ""), (200, &long)] {
        let service = FakeMetadataService::start(status, body).await;
        let mut server = fake_server().await;
        server.config.tokens = Some(service.source());
        let error = unsent_error(ProcedureCaller::new(&server).call("nothing", &[]).await);
        assert_eq!(error, BackendErrorKind::Unavailable, "{status} {body:.40}");
        assert_eq!(server.state().attempts.load(Ordering::Acquire), 0);
    }
}

/// Writes a program that runs a script.
fn program(directory: &tempfile::TempDir, script: &str) -> TokenSource {
    let file = directory.path().join("program");
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a program");
    let program = file.to_str().expect("a path").to_owned();
    TokenSource::Command(vec![program, "an argument; exit 1".to_owned()])
}

#[tokio::test]
async fn a_program_prints_the_token() {
    let directory = tempfile::tempdir().expect("a directory");
    let token = token("program", 3600);
    let script = format!("[ \"$1\" = 'an argument; exit 1' ] && echo '{token}'");
    let mut server = fake_server().await;
    server.config.tokens = Some(program(&directory, &script));
    ProcedureCaller::new(&server).call("nothing", &[]).await.expect("an answer");
    assert_eq!(used(&server), [token]);
}

/// The time limit of the login does not include the time to fetch the token.
#[tokio::test]
async fn a_slow_program_may_take_longer_than_a_login() {
    let directory = tempfile::tempdir().expect("a directory");
    let token = token("program", 3600);
    let mut server = fake_server().await;
    server.config.connect_timeout = Duration::from_secs(1);
    server.config.tokens = Some(program(&directory, &format!("sleep 2; echo '{token}'")));
    ProcedureCaller::new(&server).call("nothing", &[]).await.expect("an answer");
    assert_eq!(used(&server), [token]);
}

#[tokio::test]
async fn a_program_that_fails_or_hangs_or_never_ends_its_output_is_stopped() {
    let token = token("program", 3600);
    // The program has started another program, which keeps its output open.
    let hang = "sleep 60 & echo $! > \"$0.child\"; echo $$ > \"$0.pid\"; wait".to_owned();
    for script in [format!("echo '{token}'; exit 3"), hang, "exec yes".to_owned()] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut server = fake_server().await;
        server.config.tokens = Some(program(&directory, &script));
        let started = Instant::now();
        let error = unsent_error(ProcedureCaller::new(&server).call("nothing", &[]).await);
        assert_eq!(error, BackendErrorKind::Unavailable, "{script}");
        assert!(started.elapsed() < Duration::from_secs(15), "{script}");
        assert_eq!(server.state().attempts.load(Ordering::Acquire), 0, "{script}");
        for file in ["program.pid", "program.child"] {
            let Ok(pid) = fs::read_to_string(directory.path().join(file)) else { continue };
            let process = PathBuf::from("/proc").join(pid.trim());
            let is_gone = || {
                let status = fs::read_to_string(process.join("stat")).unwrap_or_default();
                status.is_empty() || status.contains(") Z ")
            };
            eventually(SOON, TICK, is_gone).await;
        }
    }
}
