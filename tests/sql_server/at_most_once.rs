//! Promise: after a byte of an at-most-once call has been sent, no error causes the call to be sent
//! again, unless all of its work was rolled back. The tests count rows in a database with
//! autocommit.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fjord::catalogue::ParameterValue;
use fjord::lifecycle::Cancel;
use fjord::procedures::{
    BackendErrorKind, CallError, SentErrorKind, ServerErrorClass, Transaction,
};

use tokio::time::Instant;

mod dry_runs;
mod transactions;

use super::{CallAnswer, ProcedureCaller, given, int, sent_error, text, unsent_error};
use crate::support::eventually::{SOON, TICK, eventually};
use crate::support::mssql_server::{DirectClient, SqlServer, direct, fake_server, servers};

const SHORT: Duration = Duration::from_millis(300);

async fn run(caller: &ProcedureCaller, script: &str) -> Result<CallAnswer, CallError> {
    caller.call("runs", &[text("script", script)]).await
}

#[tokio::test]
async fn no_error_causes_an_at_most_once_call_to_be_sent_again() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let mut executions = 0;
    for number in [1205, 3960, 201, 8144, 8145, 2812, 8178, 8009, 229, 547, 1222, 50409] {
        // The error names no procedure, an inner procedure, or the called one.
        for procedure in ["-", "inner", "runs"] {
            let script = format!("INSERT a{number}{procedure}; THROW {number} {procedure}");
            let error = sent_error(run(&caller, &script).await);
            let expected = match error {
                SentErrorKind::Server { number, .. } | SentErrorKind::User { number, .. } => number,
                other => panic!("{number} {procedure}: {other}"),
            };
            assert_eq!(expected, number);
            executions += 1;
            let rows = server.state().audit.count(&format!("a{number}{procedure}"));
            assert_eq!(rows, 1, "{number} {procedure}");
            assert_eq!(server.state().runs("fjord_test.runs"), executions);
        }
    }
}

#[tokio::test]
async fn a_repeatable_deadlock_victim_is_retried() {
    for (number, class) in
        [(1205, ServerErrorClass::Deadlock), (3960, ServerErrorClass::SnapshotConflict)]
    {
        let server = fake_server().await;
        let caller = ProcedureCaller { may_repeat: true, ..ProcedureCaller::new(&server) };
        let twice = format!("INSERT twice; THROW {number} - 2");
        let answer = run(&caller, &twice).await.expect("the third attempt succeeds");
        assert_eq!(answer.restarts, 2);
        assert_eq!(server.state().audit.count("twice"), 3);
        let always = format!("INSERT always; THROW {number}");
        let error = sent_error(run(&caller, &always).await);
        assert_eq!(error, SentErrorKind::Server { number, class });
        assert_eq!(server.state().audit.count("always"), 3);
    }
}

/// The procedure commits the worker's transaction and then becomes a deadlock victim.
#[tokio::test]
async fn a_deadlock_victim_that_committed_is_not_retried() {
    for script in
        ["INSERT {}; COMMIT; COMMIT; THROW", "ROLLBACK; BEGIN; INSERT {}; COMMIT; COMMIT; THROW"]
    {
        for number in [1205, 3960] {
            let server = fake_server().await;
            let caller = ProcedureCaller {
                transaction: Transaction::Committed,
                ..ProcedureCaller::new(&server)
            };
            let script = format!("{} {number}", script.replace("{}", "kept"));
            let Err(CallError::Sent(error)) = run(&caller, &script).await else {
                panic!("{script}")
            };
            assert!(!error.is_rolled_back, "{script}");
            assert_eq!(server.state().audit.count("kept"), 1, "{script}");
        }
    }
}

/// Another connection locks the second row, and then the first one. The fake server has no locks.
#[tokio::test]
async fn a_real_deadlock_leaves_one_execution() {
    for server in servers().await.into_iter().filter(|server| server.fake.is_none()) {
        for transaction in [Transaction::None, Transaction::Committed] {
            let caller = ProcedureCaller { transaction, ..ProcedureCaller::new(&server) };
            let mut other = direct(&server.config).await;
            execute(&mut other, "DELETE FROM fjord_test.audit")
                .await
                .expect("the table can be emptied");
            // The connection with the lower priority becomes the victim.
            let _unsupported_by_babelfish = execute(&mut other, "SET DEADLOCK_PRIORITY HIGH").await;
            let hold = "BEGIN TRANSACTION; UPDATE fjord_test.locks SET n = n + 1 WHERE id = 2";
            execute(&mut other, hold).await.expect("the second row can be updated");
            let cross_lock = async {
                wait_for_lock(&server).await;
                let cross = "UPDATE fjord_test.locks SET n = n + 1 WHERE id = 1; COMMIT";
                execute(&mut other, cross)
                    .await
                    .expect("the first row can be updated without a deadlock");
            };
            let (ended, ()) = tokio::join!(caller.call("deadlocks", &[]), cross_lock);
            if transaction == Transaction::None {
                let Err(CallError::Sent(error)) = ended else { panic!("{ended:?}") };
                let class = ServerErrorClass::Deadlock;
                assert_eq!(error.kind, SentErrorKind::Server { number: 1205, class });
                assert!(!error.is_rolled_back, "the first row was committed");
            } else if server.is_babelfish {
                // Babelfish does not confirm the rollback.
                let Err(CallError::Sent(error)) = ended else { panic!("{ended:?}") };
                let class = ServerErrorClass::Deadlock;
                assert_eq!(error.kind, SentErrorKind::Server { number: 1205, class });
                assert!(!error.is_rolled_back);
            } else {
                assert_eq!(ended.expect("the retry succeeds").restarts, 1);
            }
            let count = "SELECT CAST(COUNT(*) AS int) FROM fjord_test.audit WHERE who = 'a'";
            let row = other.simple_query(count).await.expect("a count").into_row().await;
            let rows: Option<i32> = row.expect("a count").expect("a row").get(0);
            let is_undone = server.is_babelfish && transaction == Transaction::Committed;
            let expected = Some(i32::from(!is_undone));
            assert_eq!(rows, expected, "{}: {transaction:?}", server.name);
        }
    }
}

async fn execute(client: &mut DirectClient, sql: &str) -> tiberius::Result<()> {
    client.simple_query(sql).await?.into_results().await.map(drop)
}

/// Waits until the first row is locked.
async fn wait_for_lock(server: &SqlServer) {
    let mut client = direct(&server.config).await;
    execute(&mut client, "SET LOCK_TIMEOUT 50").await.expect("the lock timeout can be set");
    let probe = "UPDATE fjord_test.locks SET n = n WHERE id = 1";
    let limit = Instant::now() + SOON;
    while execute(&mut client, probe).await.is_ok() {
        assert!(Instant::now() < limit, "the row is not locked");
    }
}

#[tokio::test]
async fn a_replaced_procedure_runs_once() {
    for number in [201, 8144, 8145, 2812] {
        for procedure in ["-", "inner", "replaced"] {
            let server = fake_server().await;
            let caller = ProcedureCaller::new(&server);
            let arguments = [int("number", number), text("procedure", procedure)];
            caller.call("replaced", &arguments).await.expect("the call succeeds");
            server.state().is_changed.store(true, Ordering::Release);
            let error = sent_error(caller.call("replaced", &arguments).await);
            let number = u32::try_from(number).expect("a number");
            let class = ServerErrorClass::Mismatch;
            assert_eq!(error, SentErrorKind::Server { number, class }, "{procedure}");
            assert_eq!(server.state().audit.count("replaced"), 1, "{number} {procedure}");
        }
    }
}

#[tokio::test]
async fn a_call_with_a_refused_untyped_null_is_retried_only_if_it_is_repeatable() {
    let server = fake_server().await;
    server.state().refuses_untyped_null.store(true, Ordering::Release);
    let arguments = [given("a", ParameterValue::Null), given("b", ParameterValue::Null)];
    let caller = ProcedureCaller::new(&server);
    let error = sent_error(caller.call("defaults", &arguments).await);
    assert!(matches!(error, SentErrorKind::Server { number: 8009, .. }), "{error}");
    // The next call is sent as a statement.
    assert!(caller.call("defaults", &arguments).await.is_ok());
    let repeating = ProcedureCaller { may_repeat: true, ..ProcedureCaller::new(&server) };
    assert!(repeating.call("defaults", &arguments).await.is_ok());
}

#[tokio::test]
async fn the_kind_of_server_is_queried_again_after_an_error() {
    for error in [1222, 1205, 596] {
        let server = fake_server().await;
        server.state().is_babelfish.store(true, Ordering::Release);
        server.state().refuses_untyped_null.store(true, Ordering::Release);
        server.state().probe_error.store(error, Ordering::Release);
        let caller = ProcedureCaller::new(&server);
        let _fails_if_the_error_is_fatal = caller.call("nothing", &[]).await;
        server.state().probe_error.store(0, Ordering::Release);
        let arguments = [given("a", ParameterValue::Null), given("b", ParameterValue::Null)];
        caller.call("defaults", &arguments).await.expect("the second query succeeds");
    }
}

/// Between two attempts, another call takes the only connection and keeps it.
#[tokio::test]
async fn a_sent_call_that_gets_no_connection_for_its_retry_is_not_reported_as_not_executed() {
    let mut server = fake_server().await;
    server.config.connections_max = 1;
    server.config.deadlock_retries = 1000;
    let caller = ProcedureCaller { may_repeat: true, ..ProcedureCaller::new(&server) };
    let other = caller.clone();
    let holding = async {
        eventually(SOON, TICK, || server.state().audit.count("sent") > 0).await;
        other.call("slow", &[int("ms", 3000)]).await
    };
    let (cancel, arguments) = (Cancel::new(), [text("script", "INSERT sent; THROW 1205")]);
    let running = caller.call_within(Duration::from_secs(1), &cancel, "runs", &arguments);
    let (ended, held) = tokio::join!(running, holding);
    held.expect("the connection stays open");
    let class = ServerErrorClass::Deadlock;
    assert_eq!(sent_error(ended), SentErrorKind::Server { number: 1205, class });
}

#[tokio::test]
async fn a_sent_call_whose_server_is_gone_at_its_retry_is_not_reported_as_not_executed() {
    let mut server = fake_server().await;
    server.config.deadlock_retries = 1000;
    let caller = ProcedureCaller { may_repeat: true, ..ProcedureCaller::new(&server) };
    let calling = run(&caller, "INSERT gone; THROW 1205");
    let outage = async {
        eventually(SOON, TICK, || server.state().audit.count("gone") > 0).await;
        server.state().refuses_connections.store(true, Ordering::Release);
        server.state().close_connections();
    };
    let error = sent_error(tokio::join!(calling, outage).0);
    assert!(matches!(error, SentErrorKind::Server { .. } | SentErrorKind::Lost), "{error}");
}

#[tokio::test]
async fn a_call_that_was_not_sent_is_reported_as_not_sent() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let cancel = Cancel::new();
    cancel.cancel();
    let error = unsent_error(caller.call_within(SHORT, &cancel, "nothing", &[]).await);
    assert_eq!(error, BackendErrorKind::Cancelled);
    let error =
        unsent_error(caller.call_within(Duration::ZERO, &Cancel::new(), "nothing", &[]).await);
    assert!(
        matches!(error, BackendErrorKind::PoolTimedOut | BackendErrorKind::TimedOut),
        "{error}"
    );
    assert_eq!(server.state().runs("fjord_test.nothing"), 0);
}
