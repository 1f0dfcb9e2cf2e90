//! Promise: after the first byte of an at-most-once call has left, it is never sent again, whatever the error, unless
//! all of it was rolled back. What counts are the rows of a database that commits each statement by itself.

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

use super::{Answer, Caller, given, int, kind, text, unsent};
use crate::support::eventually::{SOON, TICK, eventually};
use crate::support::mssql_server::{Direct, Server, direct, endpoint, servers};
use crate::support::tds::State;

const SHORT: Duration = Duration::from_millis(300);

fn state(server: &Server) -> &State {
    &server.endpoint.as_ref().expect("the endpoint").state
}

async fn run(caller: &Caller, script: &str) -> Result<Answer, CallError> {
    caller.call("runs", &[text("script", script)]).await
}

#[tokio::test]
async fn an_error_never_sends_an_at_most_once_call_again() {
    let server = endpoint().await;
    let caller = Caller::of(&server);
    let mut executions = 0;
    for number in [1205, 3960, 201, 8144, 8145, 2812, 8178, 8009, 229, 547, 1222, 50409] {
        // The error's own procedure: none, an inner one, the called one.
        for procedure in ["-", "inner", "runs"] {
            let script = format!("INSERT a{number}{procedure}; THROW {number} {procedure}");
            let error = kind(run(&caller, &script).await);
            let expected = match error {
                SentErrorKind::Server { number, .. } | SentErrorKind::User { number, .. } => number,
                other => panic!("{number} {procedure}: {other}"),
            };
            assert_eq!(expected, number);
            executions += 1;
            let rows = state(&server).audit.count(&format!("a{number}{procedure}"));
            assert_eq!(rows, 1, "{number} {procedure}");
            assert_eq!(state(&server).runs("fjord_test.runs"), executions);
        }
    }
}

#[tokio::test]
async fn a_deadlock_victim_that_may_repeat_is_sent_again() {
    for (number, class) in
        [(1205, ServerErrorClass::Deadlock), (3960, ServerErrorClass::SnapshotConflict)]
    {
        let server = endpoint().await;
        let caller = Caller { may_repeat: true, ..Caller::of(&server) };
        let twice = format!("INSERT twice; THROW {number} - 2");
        let answer = run(&caller, &twice).await.expect("the third try succeeds");
        assert_eq!(answer.restarts, 2);
        assert_eq!(state(&server).audit.count("twice"), 3);
        let always = format!("INSERT always; THROW {number}");
        let error = kind(run(&caller, &always).await);
        assert_eq!(error, SentErrorKind::Server { number, class });
        assert_eq!(state(&server).audit.count("always"), 3);
    }
}

/// It commits the worker's transaction, too, and becomes a deadlock's victim after that.
#[tokio::test]
async fn a_victim_that_committed_our_transaction_is_not_sent_again() {
    for script in
        ["INSERT {}; COMMIT; COMMIT; THROW", "ROLLBACK; BEGIN; INSERT {}; COMMIT; COMMIT; THROW"]
    {
        for number in [1205, 3960] {
            let server = endpoint().await;
            let caller = Caller { transaction: Transaction::Committed, ..Caller::of(&server) };
            let script = format!("{} {number}", script.replace("{}", "kept"));
            let Err(CallError::Sent(error)) = run(&caller, &script).await else {
                panic!("{script}")
            };
            assert!(!error.is_rolled_back, "{script}");
            assert_eq!(state(&server).audit.count("kept"), 1, "{script}");
        }
    }
}

/// Another session holds the second row and then wants the first. The endpoint has no locks.
#[tokio::test]
async fn a_deadlock_with_another_session_leaves_one_execution() {
    for server in servers().await.into_iter().filter(|server| server.endpoint.is_none()) {
        for transaction in [Transaction::None, Transaction::Committed] {
            let caller = Caller { transaction, ..Caller::of(&server) };
            let mut other = direct(&server.config).await;
            execute(&mut other, "DELETE FROM fjord_test.audit").await.expect("an empty table");
            // Who has less to lose is the victim.
            let _not_known_everywhere = execute(&mut other, "SET DEADLOCK_PRIORITY HIGH").await;
            let hold = "BEGIN TRANSACTION; UPDATE fjord_test.locks SET n = n + 1 WHERE id = 2";
            execute(&mut other, hold).await.expect("the second row");
            let crossing = async {
                is_locked(&server).await;
                let cross = "UPDATE fjord_test.locks SET n = n + 1 WHERE id = 1; COMMIT";
                execute(&mut other, cross).await.expect("the first row, and no deadlock here");
            };
            let (ended, ()) = tokio::join!(caller.call("deadlocks", &[]), crossing);
            if transaction == Transaction::None {
                let Err(CallError::Sent(error)) = ended else { panic!("{ended:?}") };
                let class = ServerErrorClass::Deadlock;
                assert_eq!(error.kind, SentErrorKind::Server { number: 1205, class });
                assert!(!error.is_rolled_back, "what was committed before stays");
            } else if server.is_babelfish {
                // It proves nothing of what it rolled back.
                let Err(CallError::Sent(error)) = ended else { panic!("{ended:?}") };
                let class = ServerErrorClass::Deadlock;
                assert_eq!(error.kind, SentErrorKind::Server { number: 1205, class });
                assert!(!error.is_rolled_back);
            } else {
                assert_eq!(ended.expect("another try").restarts, 1);
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

async fn execute(client: &mut Direct, sql: &str) -> tiberius::Result<()> {
    client.simple_query(sql).await?.into_results().await.map(drop)
}

/// Waits until somebody holds the first row.
async fn is_locked(server: &Server) {
    let mut client = direct(&server.config).await;
    execute(&mut client, "SET LOCK_TIMEOUT 50").await.expect("a limit");
    let probe = "UPDATE fjord_test.locks SET n = n WHERE id = 1";
    let limit = Instant::now() + SOON;
    while execute(&mut client, probe).await.is_ok() {
        assert!(Instant::now() < limit, "nobody holds it");
    }
}

#[tokio::test]
async fn a_procedure_that_was_replaced_runs_once() {
    for number in [201, 8144, 8145, 2812] {
        for procedure in ["-", "inner", "replaced"] {
            let server = endpoint().await;
            let caller = Caller::of(&server);
            let arguments = [int("number", number), text("procedure", procedure)];
            caller.call("replaced", &arguments).await.expect("the first one");
            state(&server).is_changed.store(true, Ordering::Release);
            let error = kind(caller.call("replaced", &arguments).await);
            let number = u32::try_from(number).expect("a number");
            let class = ServerErrorClass::Mismatch;
            assert_eq!(error, SentErrorKind::Server { number, class }, "{procedure}");
            assert_eq!(state(&server).audit.count("replaced"), 1, "{number} {procedure}");
        }
    }
}

#[tokio::test]
async fn a_refused_untyped_null_is_sent_again_only_when_it_may_be() {
    let server = endpoint().await;
    state(&server).refuses_untyped_null.store(true, Ordering::Release);
    let arguments = [given("a", ParameterValue::Null), given("b", ParameterValue::Null)];
    let caller = Caller::of(&server);
    let error = kind(caller.call("defaults", &arguments).await);
    assert!(matches!(error, SentErrorKind::Server { number: 8009, .. }), "{error}");
    // The next one knows it.
    assert!(caller.call("defaults", &arguments).await.is_ok());
    let repeating = Caller { may_repeat: true, ..Caller::of(&server) };
    assert!(repeating.call("defaults", &arguments).await.is_ok());
}

#[tokio::test]
async fn what_the_server_is_stays_unknown_when_it_answers_with_an_error() {
    for error in [1222, 1205, 596] {
        let server = endpoint().await;
        state(&server).is_babelfish.store(true, Ordering::Release);
        state(&server).refuses_untyped_null.store(true, Ordering::Release);
        state(&server).facts_error.store(error, Ordering::Release);
        let caller = Caller::of(&server);
        let _one_that_is_fatal_has_no_answer = caller.call("nothing", &[]).await;
        state(&server).facts_error.store(0, Ordering::Release);
        let arguments = [given("a", ParameterValue::Null), given("b", ParameterValue::Null)];
        caller.call("defaults", &arguments).await.expect("it is asked again, and says what it is");
    }
}

/// Another call takes the only connection between two tries, and keeps it.
#[tokio::test]
async fn a_call_that_was_sent_and_finds_no_connection_is_not_called_unexecuted() {
    let mut server = endpoint().await;
    server.config.connections_max = 1;
    server.config.deadlock_retries = 1000;
    let caller = Caller { may_repeat: true, ..Caller::of(&server) };
    let other = caller.clone();
    let holding = async {
        eventually(SOON, TICK, || state(&server).audit.count("sent") > 0).await;
        other.call("slow", &[int("ms", 3000)]).await
    };
    let (cancel, arguments) = (Cancel::new(), [text("script", "INSERT sent; THROW 1205")]);
    let running = caller.call_within(Duration::from_secs(1), &cancel, "runs", &arguments);
    let (ended, held) = tokio::join!(running, holding);
    held.expect("the connection");
    let class = ServerErrorClass::Deadlock;
    assert_eq!(kind(ended), SentErrorKind::Server { number: 1205, class });
}

#[tokio::test]
async fn a_call_that_was_sent_and_finds_no_server_is_not_called_unexecuted() {
    let mut server = endpoint().await;
    server.config.deadlock_retries = 1000;
    let caller = Caller { may_repeat: true, ..Caller::of(&server) };
    let calling = run(&caller, "INSERT gone; THROW 1205");
    let leaving = async {
        eventually(SOON, TICK, || state(&server).audit.count("gone") > 0).await;
        state(&server).is_away.store(true, Ordering::Release);
        state(&server).hang_up();
    };
    let error = kind(tokio::join!(calling, leaving).0);
    assert!(matches!(error, SentErrorKind::Server { .. } | SentErrorKind::Lost), "{error}");
}

#[tokio::test]
async fn what_was_not_sent_says_so() {
    let server = endpoint().await;
    let caller = Caller::of(&server);
    let cancel = Cancel::new();
    cancel.cancel();
    let error = unsent(caller.call_within(SHORT, &cancel, "nothing", &[]).await);
    assert_eq!(error, BackendErrorKind::Cancelled);
    let error = unsent(caller.call_within(Duration::ZERO, &Cancel::new(), "nothing", &[]).await);
    assert!(
        matches!(error, BackendErrorKind::PoolTimedOut | BackendErrorKind::TimedOut),
        "{error}"
    );
    assert_eq!(state(&server).runs("fjord_test.nothing"), 0);
}
