//! Promise: the signature of a procedure is read again after it has changed, and reading it does not delay other
//! procedures. A real server cannot be made to lock or to lack a view on demand, so the tests use only the fake server.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fjord::catalogue::{ParameterType, ParameterValue};
use fjord::lifecycle::Tasks;
use fjord::procedures::{
    BackendErrorKind, ExpectedProcedure, OwnedCell, SentErrorKind, ServerErrorClass,
};

use super::{ProcedureCaller, given, int, name, sent_error, unsent_error};
use crate::support::eventually::{SOON, TICK, eventually};
use crate::support::mssql_server::fake_server;

mod json_outputs;
mod vectors;

#[tokio::test]
async fn a_changed_signature_is_read_again() {
    for number in [201, 8144, 8145, 2812] {
        let server = fake_server().await;
        server.state().changed_error.store(number, Ordering::Release);
        let caller = ProcedureCaller::new(&server);
        assert!(caller.call("changed", &[int("old", 1)]).await.is_ok());
        server.state().is_changed.store(true, Ordering::Release);
        // The error can come from an inner procedure, so only the next call uses the new signature.
        let error = sent_error(caller.call("changed", &[int("old", 1)]).await);
        let class = ServerErrorClass::Mismatch;
        assert_eq!(error, SentErrorKind::Server { number, class });
        assert_eq!(server.state().runs("fjord_test.changed"), 2);
        let error = unsent_error(caller.call("changed", &[int("old", 1)]).await).to_string();
        assert!(error.contains("@old") && error.contains("@new"), "{number}: {error}");
        assert!(caller.call("changed", &[int("new", 1)]).await.is_ok(), "{number}");
    }
}

#[tokio::test]
async fn a_repeatable_call_is_retried_with_the_changed_signature() {
    for number in [201, 8144, 8145, 2812] {
        let server = fake_server().await;
        server.state().changed_error.store(number, Ordering::Release);
        let caller = ProcedureCaller { may_repeat: true, ..ProcedureCaller::new(&server) };
        assert!(caller.call("changed", &[int("old", 1)]).await.is_ok());
        server.state().is_changed.store(true, Ordering::Release);
        let error = sent_error(caller.call("changed", &[int("old", 1)]).await);
        assert!(matches!(error, SentErrorKind::Mismatch { .. }), "{number}: {error}");
        let error = error.to_string();
        assert!(error.contains("@old") && error.contains("@new"), "{number}: {error}");
    }
}

#[tokio::test]
async fn a_server_without_sys_parameters_is_queried_with_the_other_view() {
    let server = fake_server().await;
    server.state().lacks_parameters_view.store(true, Ordering::Release);
    let answer = ProcedureCaller::new(&server)
        .call("returns", &[int("status", 4)])
        .await
        .expect("the call succeeds");
    assert_eq!(answer.result.return_status, 4);
}

/// The query on the other view does not follow synonyms, so a synonym would have no parameters. The
/// errors are: out of memory, deadlock, lock timeout, no permission.
#[tokio::test]
async fn only_a_missing_view_is_replaced_by_the_other_one() {
    for number in [701, 1205, 1222, 229] {
        let server = fake_server().await;
        let state = server.state();
        state.parameters_view_error.store(number, Ordering::Release);
        let caller = ProcedureCaller::new(&server);
        let year = [int("größe", 7)];
        let call = || caller.call("[other name]", &year);
        let error = unsent_error(call().await);
        let is_same =
            matches!(error, BackendErrorKind::Server { number: one, .. } if one == number);
        assert!(is_same, "{number}: {error}");
        assert_eq!(*call().await.expect("a synonym").cell(), OwnedCell::Int(7), "{number}");
        assert_eq!(state.fallback_reads.load(Ordering::Acquire), 0, "{number}");
    }
}

#[tokio::test]
async fn a_server_that_refuses_untyped_nulls_gets_statements_from_the_first_call_on() {
    let server = fake_server().await;
    server.state().is_babelfish.store(true, Ordering::Release);
    server.state().refuses_untyped_null.store(true, Ordering::Release);
    let caller = ProcedureCaller::new(&server);
    let arguments = [given("a", ParameterValue::Null), given("b", ParameterValue::Null)];
    for _ in 0..2 {
        let answer = caller.call("defaults", &arguments).await.expect("the call succeeds");
        assert_eq!(answer.sets, [[[OwnedCell::Null, OwnedCell::Null]]]);
    }
    assert_eq!(server.state().statements.load(Ordering::Acquire), 2);
    assert_eq!(server.state().runs("fjord_test.defaults"), 2);
}

#[tokio::test]
async fn a_locked_procedure_does_not_delay_the_verification_of_others() {
    const MANY: usize = 40;
    let mut server = fake_server().await;
    server.config.connect_timeout = Duration::from_millis(300);
    let state = &server.fake.as_ref().expect("this is the fake server").state;
    state.locked.lock().expect("not poisoned").push("fjord_test.numbered_7".to_owned());
    let caller = ProcedureCaller::new(&server);
    let expected = |number| ExpectedProcedure {
        queue: caller.queue.clone(),
        procedure: name(&format!("numbered_{number}")),
        arguments: vec![("ms".into(), ParameterType::Int32)],
        outputs: vec!["total".to_owned()],
        session_keys: Vec::new(),
    };
    let all: Vec<ExpectedProcedure> = (0..MANY).map(expected).collect();
    let results = caller.verify_all(&all).await;
    assert_eq!(results.len(), MANY);
    for (index, result) in results {
        match result {
            Err(error) if index == 7 => assert_eq!(error.kind, BackendErrorKind::Unavailable),
            result => assert!(result.is_ok(), "{index}: {result:?}"),
        }
    }
    state.locked.lock().expect("not poisoned").clear();
    assert!(caller.verify(expected(7)).await.is_ok());
}

#[tokio::test]
async fn verification_waits_for_long_calls_of_other_queues() {
    let mut server = fake_server().await;
    server.config.connect_timeout = Duration::from_millis(500);
    server.config.connections_max = 1;
    let caller = ProcedureCaller::new(&server);
    let running = caller.clone();
    let call = Tasks::new().spawn(async move { running.call("slow", &[int("ms", 1500)]).await });
    eventually(SOON, TICK, || server.state().runs("fjord_test.slow") == 1).await;
    let expected = ExpectedProcedure {
        queue: caller.queue.clone(),
        procedure: name("nothing"),
        arguments: Vec::new(),
        outputs: Vec::new(),
        session_keys: Vec::new(),
    };
    let result = caller.verify(expected).await;
    assert!(result.is_ok(), "{result:?}");
    assert!(call.await.expect("no panic").is_ok());
}
