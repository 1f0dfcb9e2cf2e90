//! Promise: starting a worker costs its database little. However many queues share it, they are soon joined, over a few
//! connections, at the start and after an outage; what keeps them out is said once for each cause.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::client::get_json;
use super::support::eventually::{SOON, eventually_some};
use super::support::fleet::{FjordProcess, Fleet, FleetOptions};
use super::support::mssql_server::endpoint;
use super::support::tds::{Endpoint, PASSWORD};

/// Queues of one database.
const QUEUES: usize = 500;
/// Within this they are joined, on a server whose login takes 50 ms and whose questions about signatures take 500 ms.
const JOINED_WITHIN: Duration = Duration::from_secs(30);
/// Connections that it may cost.
const CONNECTIONS_MAX: usize = 4;
/// Longest wait until a queue that did not fit is looked at again.
const LOOKED_AT_AGAIN: Duration = Duration::from_secs(40);

/// An endpoint for each of so many procedures, each with its own queue, and one whose procedure changes.
fn catalogue(queues: usize) -> &'static str {
    let mut text = String::from(
        r#"{ "changed": { "route": "GET /v1/changed", "procedure": "fjord_test.changed", "auth": "public",
               "parameters": { "old": { "in": "query", "type": "int32" } } }"#,
    );
    for n in 0..queues {
        write!(
            text,
            r#", "many-{n}": {{ "route": "GET /v1/many/{n}", "procedure": "fjord_test.numbered_{n}",
                 "parameters": {{ "ms": {{ "in": "query", "type": "int32" }} }}, "outputs": ["total"],
                 "result": "full", "auth": "public" }}"#
        )
        .expect("text");
    }
    text.push('}');
    Box::leak(text.into_boxed_str())
}

async fn worker_on(endpoint: &Endpoint, queues: usize) -> Fleet {
    let worker_toml = format!(
        "[worker.queues.'many-*']\nconcurrency = 2\ndatabase = 'sql'\n\
         [worker.queues.changed]\nconcurrency = 2\ndatabase = 'sql'\n\
         [procedures.databases.sql]\nbackend = 'mssql'\n\
         [procedures.databases.sql.mssql]\nhost = '127.0.0.1'\nport = {}\n\
         database = 'd'\nuser = 'u'\npassword = '{PASSWORD}'\ntls.ca = '{}'\n",
        endpoint.address.port(),
        endpoint.ca.display(),
    );
    let catalogue = Some(("many.json", catalogue(queues)));
    let options = FleetOptions { gateways: 0, worker_toml, catalogue, ..FleetOptions::default() };
    Fleet::start(options).await
}

/// How many of the queues are served.
async fn served(worker: &FjordProcess) -> usize {
    let figure = worker.metric(r#"fjord_worker_queue_ready{queue="many-"#).await;
    format!("{figure:.0}").parse().expect("a count")
}

async fn are_served(worker: &FjordProcess, count: usize, limit: Duration) {
    eventually_some(format!("{count} queues served"), limit, async || {
        (served(worker).await == count).then_some(())
    })
    .await;
}

/// What `/readyz` notes of a queue.
async fn note(worker: &FjordProcess, queue: &str) -> Option<String> {
    let ready = get_json(&format!("http://{}/readyz", worker.admin())).await?;
    ready["notes"][format!("queue {queue}")].as_str().map(ToOwned::to_owned)
}

/// The log's lines from here on that are no debugging.
fn lines(worker: &FjordProcess, from: usize) -> Vec<Value> {
    let log = worker.process.log();
    log.lines().skip(from).filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn with_message<'a>(lines: &'a [Value], message: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["message"] == message).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_queues_join_soon_and_again_after_an_outage() {
    let endpoint = endpoint().await.endpoint.expect("the endpoint");
    let state = &endpoint.state;
    state.login_ms.store(50, Ordering::Release);
    state.signatures_ms.store(500, Ordering::Release);
    let logins = || state.logins.lock().expect("not poisoned").len();
    let reads = || state.signature_reads.load(Ordering::Acquire);
    let started = Instant::now();
    let fleet = worker_on(&endpoint, QUEUES).await;
    let worker = &fleet.workers[0];
    are_served(worker, QUEUES, JOINED_WITHIN).await;
    let took = started.elapsed();
    println!("START {QUEUES} queues: {took:?}, {} logins, {} questions", logins(), reads());
    assert!(took < JOINED_WITHIN, "{took:?}");
    assert!(logins() <= CONNECTIONS_MAX, "{} logins", logins());
    assert!(reads() <= QUEUES / 100 + 1, "{} questions", reads());

    let (before, lines_before) = ((logins(), reads()), lines(worker, 0).len());
    state.is_away.store(true, Ordering::Release);
    state.hang_up();
    are_served(worker, 0, SOON).await;
    // Somebody deploys meanwhile.
    state.is_changed.store(true, Ordering::Release);
    state.is_away.store(false, Ordering::Release);
    let back = Instant::now();
    are_served(worker, QUEUES, JOINED_WITHIN).await;
    let (took, logins, reads) = (back.elapsed(), logins() - before.0, reads() - before.1);
    println!("OUTAGE {QUEUES} queues: {took:?}, {logins} logins, {reads} questions");
    assert!(took < JOINED_WITHIN, "{took:?}");
    assert!(logins <= CONNECTIONS_MAX, "{logins} logins");
    assert!(reads <= QUEUES / 100 + 1, "{reads} questions");
    let why = eventually_some("what changed is noticed", SOON, async || {
        note(worker, "changed").await.filter(|why| why.contains("@new"))
    })
    .await;
    assert!(why.contains("the catalogue passes @old"), "{why}");

    state.is_changed.store(false, Ordering::Release);
    eventually_some("it is looked at again", LOOKED_AT_AGAIN, async || {
        note(worker, "changed").await.is_none().then_some(())
    })
    .await;
    let said = lines(worker, lines_before);
    assert!(said.len() <= 12, "{} lines for one outage: {said:#?}", said.len());
    let gone = with_message(&said, "the database does not answer");
    assert_eq!(gone.len(), 1, "{said:#?}");
    assert_eq!(gone[0]["queues"], QUEUES + 1);
    assert_eq!(with_message(&said, "the database answers").len(), 1, "{said:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_many_queues_out_is_said_once_and_stops_no_other() {
    const DROPPED: usize = 40;
    let endpoint = endpoint().await.endpoint.expect("the endpoint");
    let state = &endpoint.state;
    let procedures = (0..DROPPED).map(|n| format!("fjord_test.numbered_{n}"));
    state.dropped.lock().expect("not poisoned").extend(procedures);
    let fleet = worker_on(&endpoint, DROPPED + 2).await;
    let worker = &fleet.workers[0];
    are_served(worker, 2, SOON).await;
    let why = eventually_some("both sides", SOON, async || note(worker, "many-7").await).await;
    assert!(why.contains("fjord_test.numbered_7") && why.contains("the login u"), "{why}");

    let reads = || state.signature_reads.load(Ordering::Acquire);
    let before = reads();
    eventually_some("it is looked at again", LOOKED_AT_AGAIN, async || {
        (reads() > before + 1).then_some(())
    })
    .await;
    state.dropped.lock().expect("not poisoned").clear();
    are_served(worker, DROPPED + 2, LOOKED_AT_AGAIN).await;
    let said = lines(worker, 0);
    let misfits = with_message(&said, "queues do not fit their database and are not served");
    assert_eq!(misfits.len(), 1, "{misfits:#?}");
    assert_eq!(misfits[0]["queues"], DROPPED);
    let named = misfits[0]["named"].as_str().expect("some are named");
    assert!(named.contains("many-0 (fjord_test.numbered_0)") && named.contains("32 more"));
    assert_eq!(with_message(&said, "every queue fits its database now").len(), 1);
    assert!(reads() < 12, "{} questions: it is hammered", reads());
}
