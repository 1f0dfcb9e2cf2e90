//! A worker that violates the protocol serves the same queues as correct workers. Only requests that reach this worker
//! may fail.

use std::time::Duration;

use super::super::foreign_workers::python_worker;
use super::super::support::ledger_load::{CALLERS, Reconciliation, reconcile};
use super::{ANSWERS, answers_under_load, fleet};

/// The default of `gateway.session.accept_timeout`.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(1);

/// The argument that makes the faulty worker violate the protocol for every third request.
const EVERY: &str = "3";

async fn run_with_faulty_worker(behaviour: &str) -> Reconciliation {
    let mut fleet = fleet(1, 2).await;
    let bad = python_worker(&fleet, "ledger-once,ledger-again", &[behaviour, EVERY]).await;
    let answers =
        answers_under_load(&mut fleet, async |_, load, _, _| load.wait_for_more(ANSWERS).await)
            .await;
    let log = bad.log();
    let executed = log.lines().filter_map(|line| line.strip_prefix("executed "));
    let executed: Vec<String> = executed.map(ToOwned::to_owned).collect();
    assert!(!executed.is_empty(), "the faulty worker received requests");
    reconcile(&format!("a worker: {behaviour}"), &answers, [fleet.ledger(), executed].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_answers_garbage_fails_only_its_own_requests() {
    run_with_faulty_worker("garbage").await.no_request_lost().includes("502 bad-answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_answers_twice_fails_no_request() {
    run_with_faulty_worker("two-finals").await.no_request_lost().all_ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_answer_loses_no_request() {
    let reconciliation = run_with_faulty_worker("silent").await;
    // No at-most-once request is lost either. The faulty worker did not claim these requests, so they are sent to
    // another worker. A request that reaches the faulty worker in every attempt ends with a correct error.
    reconciliation.no_request_lost().failures_at_most(CALLERS);
    assert!(
        reconciliation.longest > ACCEPT_TIMEOUT,
        "no request reached the silent worker: {reconciliation}"
    );
}
