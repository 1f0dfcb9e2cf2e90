//! Promise: with `"transaction": true`, a call is committed completely or not at all, and a deadlock victim is
//! retried.

use std::sync::atomic::Ordering;

use fjord::procedures::{CallError, SentError, SentErrorKind, ServerErrorClass, Transaction};
use http::Method;
use serde_json::json;

use super::super::{CallAnswer, ProcedureCaller};
use super::run;
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::mssql_server::{SqlServer, fake_server};
use crate::support::tds::PASSWORD;

/// Returns an at-most-once caller whose calls are transactions.
fn caller(server: &SqlServer) -> ProcedureCaller {
    ProcedureCaller { transaction: Transaction::Committed, ..ProcedureCaller::new(server) }
}

#[track_caller]
pub(super) fn sent(result: Result<CallAnswer, CallError>) -> SentError {
    match result {
        Err(CallError::Sent(error)) => error,
        other => panic!("expected an error of a call that was sent, got {other:?}"),
    }
}

#[tokio::test]
async fn a_deadlock_victim_is_retried_and_has_one_effect() {
    for (number, class) in
        [(1205, ServerErrorClass::Deadlock), (3960, ServerErrorClass::SnapshotConflict)]
    {
        let server = fake_server().await;
        let caller = caller(&server);
        let answer = run(&caller, &format!("INSERT twice; THROW {number} - 2")).await;
        assert_eq!(answer.expect("the third attempt succeeds").restarts, 2);
        assert_eq!(server.state().audit.count("twice"), 1);
        assert_eq!(server.state().runs("fjord_test.runs"), 3);
        let error = sent(run(&caller, &format!("INSERT always; THROW {number}")).await);
        assert_eq!(error.kind, SentErrorKind::Server { number, class });
        assert!(error.is_rolled_back);
        assert_eq!(server.state().audit.count("always"), 0);
        assert_eq!(server.state().runs("fjord_test.runs"), 6);
    }
}

#[tokio::test]
async fn a_failed_procedure_is_rolled_back_and_runs_once() {
    let server = fake_server().await;
    let caller = caller(&server);
    let numbers = [201, 229, 515, 547, 2627, 2812, 8144, 8145, 8178, 50409];
    for (executions, number) in numbers.into_iter().enumerate() {
        // The procedure fails while its own transaction is open.
        let script = format!("INSERT a{number}; BEGIN; INSERT a{number}; THROW {number}");
        let error = sent(run(&caller, &script).await);
        assert!(error.is_rolled_back, "{number}: {error:?}");
        assert_eq!(server.state().audit.count(&format!("a{number}")), 0, "{number}");
        assert_eq!(server.state().runs("fjord_test.runs"), executions + 1, "{number}");
    }
    // The next call on the connection is committed.
    run(&caller, "INSERT after; BEGIN; INSERT after; COMMIT").await.expect("a commit");
    assert_eq!(server.state().audit.count("after"), 2);
}

#[tokio::test]
async fn a_procedure_that_ends_the_transaction_fails_and_runs_once() {
    let cases = [
        ("INSERT e; COMMIT", 0),
        ("INSERT e; ROLLBACK", 0),
        ("INSERT e; ROLLBACK; INSERT e", 0),
        ("INSERT e; COMMIT; INSERT e; ROLLBACK", 0),
        // This script commits the worker's transaction.
        ("INSERT e; COMMIT; COMMIT", 1),
    ];
    for (script, rows) in cases {
        let server = fake_server().await;
        let error = sent(run(&caller(&server), script).await);
        assert!(matches!(error.kind, SentErrorKind::Server { number: 266, .. }), "{script}");
        assert!(!error.is_rolled_back, "{script}: not confirmed");
        assert_eq!(server.state().audit.count("e"), rows, "{script}");
        assert_eq!(server.state().runs("fjord_test.runs"), 1, "{script}");
    }
}

#[tokio::test]
async fn a_lost_connection_is_an_unknown_outcome() {
    for (script, loses_commits) in [("INSERT lost", true), ("INSERT lost; DROP", false)] {
        let server = fake_server().await;
        server.state().loses_commits.store(loses_commits, Ordering::Release);
        let error = sent(run(&caller(&server), script).await);
        assert_eq!(error.kind, SentErrorKind::Lost, "{script}");
        assert!(!error.is_rolled_back, "{script}");
        assert_eq!(server.state().runs("fjord_test.runs"), 1, "{script}");
    }
}

/// Memory-optimized tables detect some conflicts only at COMMIT.
#[tokio::test]
async fn a_call_whose_commit_lost_a_conflict_is_retried_and_has_one_effect() {
    let mut server = fake_server().await;
    server.config.connections_max = 1;
    let state = server.state();
    let caller = caller(&server);
    // From the second call on, the session context is set in the call's message.
    for number in [41305, 41325, 41301] {
        run(&caller, &format!("INSERT before{number}")).await.expect("an answer");
        state.refused_commits.lock().expect("not poisoned").push(number);
        run(&caller, &format!("INSERT a{number}")).await.expect("the second attempt succeeds");
        assert_eq!(state.audit.count(&format!("a{number}")), 1, "{number}");
    }
    assert_eq!(state.logins.lock().expect("not poisoned").len(), 1, "the connection was kept");
    // Any other error leaves it unknown whether the call was committed.
    state.refused_commits.lock().expect("not poisoned").push(1222);
    let error = sent(run(&caller, "INSERT b").await);
    assert!(!error.is_rolled_back, "{error:?}");
    assert_eq!(state.audit.count("b"), 0);
}

/// Two at-most-once endpoints. Calls of the first one are transactions and can be dry runs.
const CATALOGUE: &str = r#"{
    "whole": { "route": "POST /v1/whole", "queue": "whole", "procedure": "fjord_test.runs",
        "transaction": true, "dry_run": true, "result": "value", "auth": "public",
        "parameters": { "script": { "in": "body", "type": "string" } } },
    "parts": { "route": "POST /v1/parts", "queue": "whole", "procedure": "fjord_test.runs",
        "result": "value", "auth": "public",
        "parameters": { "script": { "in": "body", "type": "string" } } }
}"#;

pub(super) async fn fleet_on(server: &SqlServer) -> Fleet {
    let endpoint = server.fake.as_ref().expect("this is the fake server");
    let worker_toml = format!(
        "[worker.queues.whole]\ndatabase = 'sql'\n\
         [procedures.databases.sql]\nbackend = 'mssql'\n\
         [procedures.databases.sql.mssql]\nhost = '127.0.0.1'\nport = {}\n\
         database = 'd'\nuser = 'u'\npassword = '{PASSWORD}'\ntls.ca = '{}'\n",
        endpoint.address.port(),
        endpoint.ca.display(),
    );
    let catalogue = Some(("whole.json", CATALOGUE));
    Fleet::start(FleetOptions { catalogue, worker_toml, ..FleetOptions::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_decides_whether_calls_are_transactions() {
    let server = fake_server().await;
    let fleet = fleet_on(&server).await;
    let client = fleet.client();
    let ask = async |path: &'static str, script: &str| {
        client.send(Method::POST, path, &json!({ "script": script })).await
    };
    let count = |word: &str| server.state().audit.count(word);

    let answer = ask("/v1/whole", "INSERT whole; ROW 7; THROW 1205 - 1").await;
    assert_eq!((answer.is(200).json(), count("whole")), (json!(7), 1));
    let answer = ask("/v1/parts", "INSERT part; ROW 7; THROW 1205 - 1").await;
    assert_eq!(answer.is_problem(500, "internal")["effect"], "unknown");
    assert_eq!(count("part"), 1);

    let cases = [
        ("INSERT none; THROW 1205", 500, "internal", "unknown"),
        ("INSERT none; THROW 3960", 409, "conflict", "unknown"),
        ("INSERT none; THROW 547", 409, "conflict", "executed"),
        ("INSERT none; COMMIT", 500, "internal", "unknown"),
    ];
    for (script, status, slug, effect) in cases {
        let problem = ask("/v1/whole", script).await.is_problem(status, slug);
        assert_eq!((&problem["effect"], count("none")), (&json!(effect), 0), "{script}");
    }

    // The procedure raises an error, with and without confirmation of the rollback.
    let problem = ask("/v1/whole", "INSERT none; THROW 50422").await.is_problem(422, "refused");
    assert_eq!((&problem["effect"], count("none")), (&json!("executed"), 0));
    let script = "SET AUTOCOMMIT; ROLLBACK; INSERT logged; THROW 50422";
    let problem = ask("/v1/whole", script).await.is_problem(422, "refused");
    assert_eq!((&problem["effect"], count("logged")), (&json!("unknown"), 1));

    let before = server.state().runs("fjord_test.runs");
    server.state().loses_commits.store(true, Ordering::Release);
    ask("/v1/whole", "INSERT lost; ROW 7").await.is_problem(502, "outcome-unknown");
    assert_eq!(server.state().runs("fjord_test.runs"), before + 1);
}
