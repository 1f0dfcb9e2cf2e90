//! Promise: a replaced password is used without a restart, and no login fails often enough to lock
//! the account. A login that Azure refuses because it limits or moves the database does not count as a wrong
//! password.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fjord::config::Secret;
use fjord::config::procedures::{DatabaseConfig, MssqlConfig};
use fjord::procedures::{BackendErrorKind, CallError};
use futures_util::future::join_all;

use super::{ProcedureCaller, int, unsent_error};
use crate::support::eventually::{SOON, TICK, eventually, eventually_some};
use crate::support::mssql_server::{SqlServer, fake_server};
use crate::support::tds::{FakeState, PASSWORD};

const ROTATED: &str = "the next secret of the fake server";

/// The errors of a login to a database that Azure is moving (40613), that is busy (40501), and whose
/// sessions have reached their number (10928).
const THROTTLED: [u32; 3] = [40613, 40501, 10928];

/// The fake server, with a password in a file.
struct ServerWithFile {
    server: SqlServer,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl ServerWithFile {
    async fn start() -> Self {
        let mut server = fake_server().await;
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("password");
        fs::write(&file, PASSWORD).expect("a file");
        server.config.password = read(&file);
        Self { server, file, _directory: directory }
    }

    fn state(&self) -> Arc<FakeState> {
        Arc::clone(&self.server.fake.as_ref().expect("the fake server").state)
    }

    /// Changes the password that the server accepts, and closes all connections.
    async fn rotate(&self, password: &str) {
        password.clone_into(&mut self.state().password.lock().expect("not poisoned"));
        self.close_connections().await;
    }

    async fn close_connections(&self) {
        self.state().close_connections();
        let count = || self.state().connections.load(Ordering::Acquire);
        eventually(SOON, TICK, || count() == 0).await;
    }

    fn attempts(&self) -> usize {
        self.state().attempts.load(Ordering::Acquire)
    }

    fn reloaded(&self) -> DatabaseConfig {
        let password = read(&self.file);
        DatabaseConfig::Mssql(MssqlConfig { password, ..self.server.config.clone() }.into())
    }
}

fn read(file: &Path) -> Secret {
    Secret::from_file(file, &fs::read_to_string(file).expect("a file"))
}

#[tokio::test]
async fn a_rotated_password_is_read_from_its_file() {
    let one = ServerWithFile::start().await;
    let caller = ProcedureCaller::new(&one.server);
    caller.call("nothing", &[]).await.expect("an answer");
    fs::write(&one.file, format!("{ROTATED}\n")).expect("a file");
    one.rotate(ROTATED).await;
    caller.call("nothing", &[]).await.expect("an answer");
    // The file is read before the login, so the old password is not tried again.
    assert_eq!(one.attempts(), 2);
    one.close_connections().await;
    caller.call("nothing", &[]).await.expect("an answer");
    assert_eq!((one.attempts(), one.state().logins()), (3, 3));
}

#[tokio::test]
async fn a_file_that_changes_before_the_login_does_costs_two_attempts() {
    let one = ServerWithFile::start().await;
    let caller = ProcedureCaller::new(&one.server);
    caller.call("nothing", &[]).await.expect("an answer");
    fs::write(&one.file, ROTATED).expect("a file");
    for _ in 0..3 {
        one.close_connections().await;
        caller.call("nothing", &[]).await.expect("the old password is still accepted");
    }
    one.rotate(ROTATED).await;
    for _ in 0..3 {
        one.close_connections().await;
        caller.call("nothing", &[]).await.expect("the new password is accepted now");
    }
    assert_eq!((one.attempts(), one.state().logins()), (9, 7));
}

/// Without the file, the worker has no other password.
#[tokio::test]
async fn a_changed_login_refuses_one_attempt_however_many_calls_wait() {
    let mut one = ServerWithFile::start().await;
    one.server.config.connections_max = 64;
    one.state().login_ms.store(50, Ordering::Release);
    let caller = ProcedureCaller::new(&one.server);
    // Concurrent logins are permitted only shortly after a login was accepted.
    caller.call("slow", &[int("ms", 1200)]).await.expect("an answer");
    ROTATED.clone_into(&mut one.state().password.lock().expect("not poisoned"));
    let slow = [int("ms", 50)];
    for answer in join_all((0..16).map(|_| caller.call("slow", &slow))).await {
        answer.expect("the open connection serves the call");
    }
    assert_eq!((one.attempts(), one.state().logins()), (2, 1));
}

#[tokio::test]
async fn a_changed_file_with_a_wrong_password_costs_two_attempts() {
    let mut one = ServerWithFile::start().await;
    one.server.config.connections_max = 64;
    one.state().login_ms.store(50, Ordering::Release);
    let caller = ProcedureCaller::new(&one.server);
    // While one connection is open, several others are opened at the same time.
    caller.call("nothing", &[]).await.expect("an answer");
    fs::write(&one.file, "not the password").expect("a file");
    ROTATED.clone_into(&mut one.state().password.lock().expect("not poisoned"));
    let slow = [int("ms", 300)];
    for answer in join_all((0..16).map(|_| caller.call("slow", &slow))).await {
        answer.expect("the open connection serves the call");
    }
    // One attempt opened the first connection, another used the password from the file, and a third
    // used the old password.
    assert_eq!((one.attempts(), one.state().logins()), (3, 1));
}

#[tokio::test]
async fn an_unchanged_file_costs_no_further_attempt() {
    let one = ServerWithFile::start().await;
    one.rotate(ROTATED).await;
    let caller = ProcedureCaller::new(&one.server);
    for contents in [PASSWORD, ""] {
        fs::write(&one.file, contents).expect("a file");
        let before = one.attempts();
        let caller = if before == 0 { &caller } else { &ProcedureCaller::new(&one.server) };
        for answer in join_all((0..8).map(|_| caller.call("nothing", &[]))).await {
            assert_eq!(unsent_error(answer), BackendErrorKind::Unavailable);
        }
        assert_eq!(one.attempts() - before, 1, "with {contents:?} in the file");
    }
}

#[tokio::test]
async fn a_reload_logs_in_at_once() {
    let one = ServerWithFile::start().await;
    one.rotate(ROTATED).await;
    let caller = ProcedureCaller::new(&one.server);
    assert_eq!(unsent_error(caller.call("nothing", &[]).await), BackendErrorKind::Unavailable);
    // A reload admits one attempt, even with the same password, which the server may accept now.
    for _ in 0..2 {
        caller.backend.reconfigure(&one.reloaded());
        assert_eq!(unsent_error(caller.call("nothing", &[]).await), BackendErrorKind::Unavailable);
        assert_eq!(unsent_error(caller.call("nothing", &[]).await), BackendErrorKind::Unavailable);
    }
    assert_eq!(one.attempts(), 3);
    fs::write(&one.file, ROTATED).expect("a file");
    caller.backend.reconfigure(&one.reloaded());
    caller.call("nothing", &[]).await.expect("an answer");
    assert_eq!(one.attempts(), 4);
}

/// Fails if such a login counts as refused credentials, because the next attempt is then made after 24
/// seconds or more, or if the call is reported as sent.
#[tokio::test]
async fn a_throttled_login_is_tried_again_soon() {
    for number in THROTTLED {
        let server = fake_server().await;
        let state = server.state();
        let attempts = || state.attempts.load(Ordering::Acquire);
        state.login_error.store(number, Ordering::Release);
        let caller = ProcedureCaller::new(&server);
        let call = async || caller.call("nothing", &[]).await;
        let (kind, cause) = match call().await {
            Err(CallError::NotSent(error)) => (error.kind, error.source.expect("a cause")),
            other => panic!("{number}: {other:?}"),
        };
        assert_eq!(kind, BackendErrorKind::Unavailable, "{number}");
        assert!(cause.to_string().contains(&number.to_string()), "{number}: {cause}");
        assert_eq!(attempts(), 1, "{number}: one attempt for each call");
        eventually_some(format!("a third attempt after {number}"), SOON, async || {
            assert_eq!(unsent_error(call().await), BackendErrorKind::Unavailable, "{number}");
            (attempts() >= 3).then_some(())
        })
        .await;
        assert_eq!((state.logins(), state.runs("fjord_test.nothing")), (0, 0), "{number}");
        state.login_error.store(0, Ordering::Release);
        eventually_some(format!("an answer after {number}"), SOON, async || call().await.ok())
            .await;
        assert_eq!((state.logins(), state.runs("fjord_test.nothing")), (1, 1), "{number}");
    }
}

/// Fails if the other password is tried as well, which would count towards a lockout once the server
/// accepts logins.
#[tokio::test]
async fn a_throttled_login_does_not_try_the_other_password() {
    for number in THROTTLED {
        let one = ServerWithFile::start().await;
        let caller = ProcedureCaller::new(&one.server);
        caller.call("nothing", &[]).await.expect("an answer");
        fs::write(&one.file, ROTATED).expect("a file");
        one.state().login_error.store(number, Ordering::Release);
        one.rotate(ROTATED).await;
        assert_eq!(unsent_error(caller.call("nothing", &[]).await), BackendErrorKind::Unavailable);
        assert_eq!(one.attempts(), 2, "{number}: one password was tried");
        one.state().login_error.store(0, Ordering::Release);
        let before = one.attempts();
        eventually_some(format!("an answer after {number}"), SOON, async || {
            caller.call("nothing", &[]).await.ok()
        })
        .await;
        assert_eq!(one.attempts() - before, 1, "{number}: the new password was accepted at once");
    }
}

#[tokio::test]
async fn only_some_changes_of_a_database_need_new_connections() {
    let server = fake_server().await;
    let old = &server.config;
    let same =
        MssqlConfig { password: Secret::new("new".to_owned()), connections_max: 7, ..old.clone() };
    assert!(!old.differs(&same), "open connections can still be used");
    assert!(old.differs(&MssqlConfig { host: "other".to_owned(), ..same.clone() }));
    assert!(old.differs(&MssqlConfig { user: "other".to_owned(), ..same.clone() }));
    assert!(old.differs(&MssqlConfig { connect_timeout: Duration::from_secs(9), ..same }));
}
