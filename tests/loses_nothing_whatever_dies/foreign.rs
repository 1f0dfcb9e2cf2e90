//! A worker that does not keep to the protocol serves the same queues as good ones: it spoils nothing but what it took.

use std::time::Duration;

use super::super::foreign_workers::python_worker;
use super::super::support::load::{CALLERS, Reckoning, reckon};
use super::{SOME, answers_under_load, fleet};

/// How long an attempt may be unheard of: the default.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(1);

/// Of the requests that reach the bad worker, every third is treated badly.
const EVERY: &str = "3";

async fn with_a_bad_worker(way: &str) -> Reckoning {
    let mut fleet = fleet(1, 2).await;
    let bad = python_worker(&fleet, "ledger-once,ledger-again", &[way, EVERY]).await;
    let answers = answers_under_load(&mut fleet, async |_, load, _, _| load.more(SOME).await).await;
    let log = bad.log();
    let executed = log.lines().filter_map(|line| line.strip_prefix("executed "));
    let executed: Vec<String> = executed.map(ToOwned::to_owned).collect();
    assert!(!executed.is_empty(), "it had its share of the requests");
    reckon(&format!("a worker: {way}"), &answers, [fleet.ledger(), executed].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_answers_garbage() {
    with_a_bad_worker("garbage").await.nothing_lost().some("502 bad-answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_answers_twice() {
    with_a_bad_worker("two-finals").await.nothing_lost().all_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_answer() {
    let reckoning = with_a_bad_worker("silent").await;
    // Those that must not be executed twice, too: nobody claimed them, so they go to another worker. Whoever meets
    // the silent one each time is told the truth in the end.
    reckoning.nothing_lost().others_at_most(CALLERS);
    assert!(reckoning.longest > ACCEPT_TIMEOUT, "some reached the silent worker: {reckoning}");
}
