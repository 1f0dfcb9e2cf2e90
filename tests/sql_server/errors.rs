//! Promise: every error in an answer counts, and a procedure's messages reach the log. A call that
//! failed for a temporary reason is repeated only if that is harmless.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fjord::lifecycle::Cancel;
use fjord::procedures::{CallError, OwnedCell, SentErrorKind, ServerErrorClass, Transaction};
use tokio::time::Instant;

use super::{CallAnswer, LONG, ProcedureCaller, int, sent_error, text};
use crate::support::mssql_server::{fake_server, servers};

async fn run(caller: &ProcedureCaller, script: &str) -> Result<CallAnswer, CallError> {
    caller.call("runs", &[text("script", script)]).await
}

#[tokio::test]
async fn an_error_of_the_procedure_outranks_the_failed_statement_before_it() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let error = sent_error(caller.call("doubles_then_throws", &[]).await);
        let message = "already there".to_owned();
        assert_eq!(error, SentErrorKind::User { number: 50422, message }, "{}", server.name);
        assert!(caller.call("nothing", &[]).await.is_ok(), "{}", server.name);
    }
}

#[tokio::test]
async fn every_error_of_an_answer_counts() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    for (script, expected) in [
        ("RAISE 547; ROW 1; RAISE 50001; RAISE 2627; ROW 2", 50001),
        ("RAISE 50001; THROW 50422", 50422),
        ("RAISE 547; RAISE 515", 547),
        ("RAISE 547; THROW 1205", 1205),
    ] {
        let number = match sent_error(run(&caller, script).await) {
            SentErrorKind::User { number, .. } | SentErrorKind::Server { number, .. } => number,
            other => panic!("{script}: {other}"),
        };
        assert_eq!(number, expected, "{script}");
    }
    // A deadlock after another error is retried, and an error that the procedure raises is not.
    let repeating = ProcedureCaller { may_repeat: true, ..caller };
    let answer = run(&repeating, "INSERT twice; RAISE 547; THROW 1205 - 1").await;
    assert!(matches!(sent_error(answer), SentErrorKind::Server { number: 547, .. }));
    assert_eq!(server.state().audit.count("twice"), 2);
    sent_error(run(&repeating, "INSERT once; RAISE 1205; THROW 50422").await);
    assert_eq!(server.state().audit.count("once"), 1);
}

/// With `IMPLICIT_TRANSACTIONS`, nothing would confirm that the statements after the ROLLBACK were
/// rolled back as well.
#[tokio::test]
async fn an_unmatched_end_of_a_transaction_after_another_error_does_not_prove_a_rollback() {
    let server = fake_server().await;
    server.state().is_babelfish.store(true, Ordering::Release);
    let transaction = Transaction::Committed;
    let caller = ProcedureCaller { transaction, ..ProcedureCaller::new(&server) };
    for (script, is_rolled_back) in
        [("INSERT a; RAISE 547", true), ("INSERT a; RAISE 547; RAISE 3902", false)]
    {
        let Err(CallError::Sent(error)) = run(&caller, script).await else { panic!("{script}") };
        assert_eq!(error.is_rolled_back, is_rolled_back, "{script}");
    }
}

#[tokio::test]
async fn the_messages_of_a_procedure_reach_the_sink() {
    for server in servers().await {
        let answer = ProcedureCaller::new(&server).call("prints", &[]).await.expect("an answer");
        assert_eq!(*answer.cell(), OwnedCell::Int(1), "{}", server.name);
        assert_eq!(answer.messages.len(), 2, "{}: {:?}", server.name, answer.messages);
        for (message, word) in answer.messages.iter().zip(["before", "after"]) {
            assert!(message.starts_with("message 0, severity 0, state"), "{message}");
            assert!(message.ends_with(word), "{message}");
        }
    }
}

#[tokio::test]
async fn the_messages_of_a_call_are_bounded_and_belong_to_it() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let answer = run(&caller, "PRINT word 1000").await.expect("an answer");
    assert_eq!(answer.messages.len(), 33);
    assert_eq!(answer.messages[32], "968 further messages: ");
    assert!(run(&caller, "ROW 1").await.expect("an answer").messages.is_empty());
    // A failed call has messages too.
    let mut answer = CallAnswer::default();
    let arguments = [text("script", "PRINT one; THROW 50400")];
    let call = ("runs", &arguments[..]);
    caller.call_into(&mut answer, LONG, &Cancel::new(), call).await.expect_err("an error");
    assert_eq!(answer.messages.len(), 1, "{:?}", answer.messages);
}

#[tokio::test]
async fn a_call_that_failed_for_a_temporary_reason_is_made_again_only_if_that_is_harmless() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    for number in [1222, 701, 41301, 41302, 41305, 41325] {
        let script = format!("INSERT a{number}; THROW {number}");
        sent_error(run(&caller, &script).await);
        assert_eq!(server.state().audit.count(&format!("a{number}")), 1, "{number}");
    }
    let repeating = ProcedureCaller { may_repeat: true, ..caller.clone() };
    for number in [1222, 701, 41301, 41302, 41305, 41325] {
        let script = format!("INSERT b{number}; THROW {number} - 2");
        run(&repeating, &script).await.expect("the third attempt succeeds");
        assert_eq!(server.state().audit.count(&format!("b{number}")), 3, "{number}");
    }
    // The whole call was rolled back.
    let transaction = Transaction::Committed;
    let rolled_back = ProcedureCaller { transaction, ..caller };
    run(&rolled_back, "INSERT c; THROW 1222 - 1").await.expect("the second attempt succeeds");
    assert_eq!(server.state().audit.count("c"), 1);
}

#[tokio::test]
async fn a_throttled_call_is_made_again_after_a_pause_that_ends_before_the_deadline() {
    let server = fake_server().await;
    let caller = ProcedureCaller { may_repeat: true, ..ProcedureCaller::new(&server) };
    for number in [40501, 40613, 49918, 10928] {
        let began = Instant::now();
        let script = format!("THROW {number} - 1");
        run(&caller, &script).await.expect("the second attempt succeeds");
        assert!(began.elapsed() > Duration::from_millis(400), "{number}: {:?}", began.elapsed());
    }
    // The pause would end after the deadline.
    let began = Instant::now();
    let arguments = [text("script", "THROW 40501")];
    let short = Duration::from_millis(300);
    let error = sent_error(caller.call_within(short, &Cancel::new(), "runs", &arguments).await);
    let class = ServerErrorClass::Transient;
    assert_eq!(error, SentErrorKind::Server { number: 40501, class });
    assert!(began.elapsed() < short, "{:?}", began.elapsed());
    // Some of these errors close the connection, but that does not count as a lost connection.
    let caller = ProcedureCaller { may_repeat: false, ..caller };
    let arguments = [int("number", 40501), int("class", 20)];
    let error = sent_error(caller.call("raises", &arguments).await);
    assert_eq!(error, SentErrorKind::Server { number: 40501, class });
}
