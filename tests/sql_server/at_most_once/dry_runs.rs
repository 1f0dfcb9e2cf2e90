//! Promise: a dry run changes nothing or fails. A call that commits is never reported as rolled
//! back.

use std::sync::atomic::Ordering;

use fjord::procedures::{OwnedCell, SentErrorKind, Transaction};
use http::Method;
use serde_json::json;

use super::super::{ProcedureCaller, int, text};
use super::run;
use super::transactions::{fleet_on, sent};
use crate::support::client::HttpResponse;
use crate::support::mssql_server::{SqlServer, fake_server, servers};

fn caller(server: &SqlServer) -> ProcedureCaller {
    ProcedureCaller { transaction: Transaction::RolledBack, ..ProcedureCaller::new(server) }
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_retries_a_deadlock_victim() {
    let server = fake_server().await;
    let caller = caller(&server);
    for script in ["INSERT dry; ROW 7", "BEGIN; INSERT dry; COMMIT; ROW 7"] {
        run(&caller, script).await.expect("a dry run");
        assert_eq!(server.state().audit.count("dry"), 0, "{script}");
    }
    for number in [1205, 3960] {
        let answer = run(&caller, &format!("INSERT dry; THROW {number} - 2")).await;
        assert_eq!(answer.expect("the third attempt succeeds").restarts, 2);
    }
    let error = sent(run(&caller, "INSERT dry; THROW 50422").await);
    assert!(error.is_rolled_back);
    assert_eq!(server.state().audit.count("dry"), 0);
    // The next call on the connection is committed.
    run(&ProcedureCaller { transaction: Transaction::None, ..caller }, "INSERT real")
        .await
        .expect("a call");
    assert_eq!(server.state().audit.count("real"), 1);
}

#[tokio::test]
async fn a_dry_run_that_commits_fails_and_runs_once() {
    let cases = [
        ("INSERT e; COMMIT", 0),
        ("INSERT e; ROLLBACK; INSERT e", 0),
        ("INSERT e; COMMIT; COMMIT", 1),
        // The number of open transactions is unchanged, but the transactions are new.
        ("INSERT e; COMMIT; COMMIT; BEGIN", 1),
        ("INSERT e; COMMIT; COMMIT; BEGIN; INSERT e", 1),
        ("INSERT e; COMMIT; COMMIT; THROW 50422", 1),
        ("INSERT e; COMMIT; COMMIT; THROW 1205", 1),
    ];
    for (script, rows) in cases {
        let server = fake_server().await;
        let error = sent(run(&caller(&server), script).await);
        assert!(!error.is_rolled_back, "{script}: not confirmed");
        if !script.contains("THROW") {
            assert!(matches!(error.kind, SentErrorKind::Server { number: 266, .. }), "{script}");
        }
        assert_eq!(server.state().audit.count("e"), rows, "{script}");
        assert_eq!(server.state().runs("fjord_test.runs"), 1, "{script}");
    }
}

/// Babelfish sends no ENVCHANGE for transactions, so only the savepoint can confirm a rollback.
#[tokio::test]
async fn the_lack_of_reports_does_not_prove_a_rollback() {
    let cases = [
        ("INSERT e; THROW 50422", (0, true)),
        ("INSERT e; BEGIN; COMMIT; THROW 547", (0, true)),
        ("INSERT e; BEGIN; INSERT e; THROW 547", (0, true)),
        // Everything was rolled back, but nothing confirms this.
        ("INSERT e; THROW 1205", (0, false)),
        ("INSERT e; THROW 3960", (0, false)),
        ("SET XACT_ABORT; INSERT e; THROW 50422", (0, false)),
        ("INSERT e; COMMIT; COMMIT; THROW 50422", (1, false)),
        ("INSERT e; COMMIT; COMMIT; BEGIN; THROW 547", (1, false)),
        ("INSERT e; COMMIT; COMMIT; THROW 1205", (1, false)),
    ];
    for transaction in [Transaction::RolledBack, Transaction::Committed] {
        for (script, expected) in cases {
            let server = fake_server().await;
            server.state().is_babelfish.store(true, Ordering::Release);
            let error =
                sent(run(&ProcedureCaller { transaction, ..caller(&server) }, script).await);
            let found = (server.state().audit.count("e"), error.is_rolled_back);
            assert_eq!(found, expected, "{transaction:?}: {script}");
            assert_eq!(server.state().runs("fjord_test.runs"), 1, "{transaction:?}: {script}");
        }
    }
}

/// The error ends the procedure and the transaction, and no statement runs after it.
#[tokio::test]
async fn a_procedure_under_xact_abort_is_rolled_back_and_runs_once() {
    for transaction in [Transaction::RolledBack, Transaction::Committed] {
        let server = fake_server().await;
        let caller = ProcedureCaller { transaction, ..caller(&server) };
        for (executions, number) in [515, 547, 2627, 50422].into_iter().enumerate() {
            let script = format!("SET XACT_ABORT; INSERT e; BEGIN; INSERT e; THROW {number}");
            let error = sent(run(&caller, &script).await);
            assert!(error.is_rolled_back, "{transaction:?}: {number}: {error:?}");
            assert_eq!(server.state().audit.count("e"), 0, "{transaction:?}: {number}");
            assert_eq!(server.state().runs("fjord_test.runs"), executions + 1);
        }
    }
}

/// After its own ROLLBACK, a procedure can run in autocommit mode, which no server reports.
#[tokio::test]
async fn statements_after_a_rollback_in_the_procedure_do_not_count_as_rolled_back() {
    let cases = [
        "SET AUTOCOMMIT; ROLLBACK; INSERT e; THROW 50422",
        "SET AUTOCOMMIT; ROLLBACK; INSERT e; THROW 547",
        "SET AUTOCOMMIT; ROLLBACK; INSERT e; THROW 1205",
        "SET AUTOCOMMIT; ROLLBACK; INSERT e; THROW 3960",
        "SET AUTOCOMMIT; SET XACT_ABORT; ROLLBACK; INSERT e; THROW 547",
        "SET AUTOCOMMIT; SET XACT_ABORT; ROLLBACK; INSERT e; BEGIN; BEGIN; THROW 1205",
        "SET AUTOCOMMIT; ROLLBACK; INSERT e; BEGIN; BEGIN; THROW 50422",
        // The procedure continues after the error.
        "SET AUTOCOMMIT; SET XACT_ABORT; RAISE 50422; ROLLBACK; INSERT e",
        "SET AUTOCOMMIT; SET XACT_ABORT; ROLLBACK; INSERT e",
    ];
    for transaction in [Transaction::RolledBack, Transaction::Committed] {
        for (script, is_babelfish) in cases.iter().flat_map(|one| [(one, false), (one, true)]) {
            let server = fake_server().await;
            server.state().is_babelfish.store(is_babelfish, Ordering::Release);
            let error =
                sent(run(&ProcedureCaller { transaction, ..caller(&server) }, script).await);
            assert!(!error.is_rolled_back, "{transaction:?}: {script}: {error:?}");
            assert_eq!(server.state().audit.count("e"), 1, "{transaction:?}: {script}");
            assert_eq!(server.state().runs("fjord_test.runs"), 1, "{transaction:?}: {script}");
        }
    }
}

/// This test also runs on a real server, whose reports about transactions are genuine.
#[tokio::test]
async fn a_dry_run_is_rolled_back_or_fails_on_every_server() {
    for server in servers().await {
        let caller = caller(&server);
        let keeps = async |word: &str, commits, begins| {
            let arguments = [text("word", word), int("commits", commits), int("begins", begins)];
            caller.call("keeps", &arguments).await
        };
        let count = async |word: &str| {
            let plain = ProcedureCaller { transaction: Transaction::None, ..caller.clone() };
            let answer = plain.call("kept_count", &[text("word", word)]).await;
            answer.expect("the call succeeds").cell().clone()
        };
        for _ in 0..2 {
            let answer = keeps("dry", 0, 0).await.expect("a dry run");
            assert_eq!(*answer.cell(), OwnedCell::Int(1), "{}", server.name);
            assert_eq!(count("dry").await, OwnedCell::Int(0), "{}", server.name);
        }
        let arguments = [int("number", 50404), text("message", "no")];
        assert!(sent(caller.call("throws", &arguments).await).is_rolled_back, "{}", server.name);
        for (word, commits, begins, rows) in
            [("one", 1, 0, 0), ("both", 2, 0, 1), ("others", 2, 1, 1)]
        {
            let error = sent(keeps(word, commits, begins).await);
            assert!(!error.is_rolled_back, "{}: {word}: {error:?}", server.name);
            assert_eq!(count(word).await, OwnedCell::Int(rows), "{}: {word}", server.name);
        }
        let committing = ProcedureCaller { transaction: Transaction::Committed, ..caller.clone() };
        let arguments = [text("word", "real"), int("commits", 0), int("begins", 0)];
        committing.call("keeps", &arguments).await.expect("the call succeeds");
        assert_eq!(count("real").await, OwnedCell::Int(1), "{}", server.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_dry_run_says_whether_it_was_rolled_back() {
    let server = fake_server().await;
    let fleet = fleet_on(&server).await;
    let dry = fleet.client().with_header("prefer", "tx=rollback");
    let ask = async |script: &str| {
        dry.send(Method::POST, "/v1/whole", &json!({ "script": script })).await
    };
    let count = |word: &str| server.state().audit.count(word);
    let applied = |answer: &HttpResponse| answer.header("preference-applied").to_owned();

    let answer = ask("INSERT dry; ROW 7; THROW 1205 - 1").await;
    assert_eq!((answer.is(200).json(), applied(&answer).as_str()), (json!(7), "tx=rollback"));
    // These calls were provably rolled back.
    for (script, status, slug) in [
        ("INSERT dry; THROW 547", 409, "conflict"),
        ("INSERT dry; THROW 1205", 500, "internal"),
        ("INSERT dry; THROW 3960", 409, "conflict"),
        ("INSERT dry; THROW 1222", 500, "internal"),
    ] {
        let answer = ask(script).await;
        assert_eq!(answer.is_problem(status, slug)["effect"], "executed", "{script}");
        assert_eq!((applied(&answer).as_str(), count("dry")), ("tx=rollback", 0), "{script}");
    }

    for (script, status, slug) in [
        ("INSERT kept; COMMIT; COMMIT; BEGIN; ROW 7", 500, "internal"),
        ("INSERT kept; COMMIT; COMMIT; THROW 50422", 502, "outcome-unknown"),
        ("INSERT kept; COMMIT; COMMIT; THROW 547", 502, "outcome-unknown"),
        ("SET AUTOCOMMIT; ROLLBACK; INSERT kept; THROW 50422", 502, "outcome-unknown"),
        ("SET AUTOCOMMIT; ROLLBACK; INSERT kept; THROW 1205", 500, "internal"),
        ("SET AUTOCOMMIT; ROLLBACK; INSERT kept; THROW 1222", 504, "outcome-unknown"),
    ] {
        let answer = ask(script).await;
        assert_eq!(answer.is_problem(status, slug)["effect"], "unknown", "{script}");
        assert_eq!(applied(&answer), "", "{script}");
    }
    assert_eq!(count("kept"), 6);

    // The next call on the connection is committed.
    let (client, script) = (fleet.client(), json!({ "script": "INSERT real" }));
    client.send(Method::POST, "/v1/whole", &script).await.is_problem(404, "no-row");
    assert_eq!(count("real"), 1);
    let refused = dry.send(Method::POST, "/v1/parts", &json!({ "script": "INSERT part" })).await;
    refused.is_problem(400, "invalid-request");
    assert_eq!(count("part"), 0);
}
