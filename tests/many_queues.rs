//! Promise: a worker with hundreds of queues on one database joins them quickly and with few connections, both at startup
//! and after an outage. Errors that prevent it from joining are logged once for each cause.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::client::get_json;
use super::support::eventually::{SOON, eventually_some};
use super::support::fjord_process::FjordProcess;
use super::support::fleet::{Fleet, FleetOptions};
use super::support::mssql_server::fake_server;
use super::support::tds::{FakeSqlServer, PASSWORD};

/// The number of queues on one database.
const QUEUES: usize = 500;
/// The maximum time until all queues are joined, on a server on which a login takes 50 ms and a query for signatures
/// takes 500 ms.
const JOINED_WITHIN: Duration = Duration::from_secs(30);
/// The maximum number of connections that the worker may use to join its queues.
const CONNECTIONS_MAX: usize = 4;
/// The maximum time until a failed queue is verified again.
const VERIFIED_AGAIN: Duration = Duration::from_secs(40);

/// Returns a catalogue with `queues` endpoints, each with its own procedure and queue, and one endpoint whose procedure
/// changes.
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

async fn worker_on(server: &FakeSqlServer, queues: usize) -> Fleet {
    worker_with(server, queues, String::new()).await
}

async fn worker_with(server: &FakeSqlServer, queues: usize, nats_keys: String) -> Fleet {
    let worker_toml = format!(
        "[worker.queues.'many-*']\nconcurrency = 2\ndatabase = 'sql'\n\
         [worker.queues.changed]\nconcurrency = 2\ndatabase = 'sql'\n\
         [procedures.databases.sql]\nbackend = 'mssql'\n\
         [procedures.databases.sql.mssql]\nhost = '127.0.0.1'\nport = {}\n\
         database = 'd'\nuser = 'u'\npassword = '{PASSWORD}'\ntls.ca = '{}'\n",
        server.address.port(),
        server.ca.display(),
    );
    let catalogue = Some(("many.json", catalogue(queues)));
    let options =
        FleetOptions { gateways: 0, worker_toml, catalogue, nats_keys, ..FleetOptions::default() };
    Fleet::start(options).await
}

/// Returns the number of queues that are served.
async fn served(worker: &FjordProcess) -> usize {
    let figure = worker.metric(r#"fjord_worker_queue_ready{queue="many-"#).await;
    format!("{:.0}", figure.abs()).parse().expect("a count")
}

async fn are_served(worker: &FjordProcess, count: usize, limit: Duration) {
    eventually_some(format!("{count} queues served"), limit, async || {
        (served(worker).await == count).then_some(())
    })
    .await;
}

/// Returns the note about a queue in `/readyz`.
async fn note(worker: &FjordProcess, queue: &str) -> Option<String> {
    let ready = get_json(&format!("http://{}/readyz", worker.admin())).await?;
    ready["notes"][format!("queue {queue}")].as_str().map(ToOwned::to_owned)
}

/// Returns the log lines that follow the first `from` lines.
fn lines(worker: &FjordProcess, from: usize) -> Vec<Value> {
    let log = worker.process.log();
    log.lines().skip(from).filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn with_message<'a>(lines: &'a [Value], message: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["message"] == message).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_queues_are_joined_quickly_at_startup_and_after_an_outage() {
    let server = fake_server().await.fake.expect("this is the fake server");
    let state = &server.state;
    state.login_ms.store(50, Ordering::Release);
    state.signatures_ms.store(500, Ordering::Release);
    let logins = || state.logins.lock().expect("not poisoned").len();
    let reads = || state.signature_reads.load(Ordering::Acquire);
    let started = Instant::now();
    let fleet = worker_on(&server, QUEUES).await;
    let worker = &fleet.workers[0];
    are_served(worker, QUEUES, JOINED_WITHIN).await;
    let took = started.elapsed();
    println!("START {QUEUES} queues: {took:?}, {} logins, {} queries", logins(), reads());
    assert!(took < JOINED_WITHIN, "{took:?}");
    assert!(logins() <= CONNECTIONS_MAX, "{} logins", logins());
    assert!(reads() <= QUEUES / 100 + 1, "{} queries", reads());

    let (before, lines_before) = ((logins(), reads()), lines(worker, 0).len());
    state.refuses_connections.store(true, Ordering::Release);
    state.close_connections();
    are_served(worker, 0, SOON).await;
    // A procedure changes during the outage.
    state.is_changed.store(true, Ordering::Release);
    state.refuses_connections.store(false, Ordering::Release);
    let back = Instant::now();
    are_served(worker, QUEUES, JOINED_WITHIN).await;
    let (took, logins, reads) = (back.elapsed(), logins() - before.0, reads() - before.1);
    println!("OUTAGE {QUEUES} queues: {took:?}, {logins} logins, {reads} queries");
    assert!(took < JOINED_WITHIN, "{took:?}");
    assert!(logins <= CONNECTIONS_MAX, "{logins} logins");
    assert!(reads <= QUEUES / 100 + 1, "{reads} queries");
    let why = eventually_some("the change is noticed", SOON, async || {
        note(worker, "changed").await.filter(|why| why.contains("@new"))
    })
    .await;
    assert!(why.contains("the catalogue passes @old"), "{why}");

    state.is_changed.store(false, Ordering::Release);
    eventually_some("the queue is verified again", VERIFIED_AGAIN, async || {
        note(worker, "changed").await.is_none().then_some(())
    })
    .await;
    let logged = lines(worker, lines_before);
    assert!(logged.len() <= 12, "{} lines for one outage: {logged:#?}", logged.len());
    let gone = with_message(&logged, "the database does not answer");
    assert_eq!(gone.len(), 1, "{logged:#?}");
    assert_eq!(gone[0]["queues"], QUEUES + 1);
    assert_eq!(with_message(&logged, "the database answers").len(), 1, "{logged:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_procedures_are_logged_once_and_stop_no_other_queue() {
    const DROPPED: usize = 40;
    let server = fake_server().await.fake.expect("this is the fake server");
    let state = &server.state;
    let procedures = (0..DROPPED).map(|n| format!("fjord_test.numbered_{n}"));
    state.dropped.lock().expect("not poisoned").extend(procedures);
    let fleet = worker_on(&server, DROPPED + 2).await;
    let worker = &fleet.workers[0];
    are_served(worker, 2, SOON).await;
    let why = eventually_some("the reason", SOON, async || note(worker, "many-7").await).await;
    assert!(why.contains("fjord_test.numbered_7") && why.contains("the login u"), "{why}");

    let reads = || state.signature_reads.load(Ordering::Acquire);
    let before = reads();
    eventually_some("the queue is verified again", VERIFIED_AGAIN, async || {
        (reads() > before + 1).then_some(())
    })
    .await;
    state.dropped.lock().expect("not poisoned").clear();
    are_served(worker, DROPPED + 2, VERIFIED_AGAIN).await;
    let logged = lines(worker, 0);
    let mismatches = with_message(&logged, "queues do not match their database and are not served");
    assert_eq!(mismatches.len(), 1, "{mismatches:#?}");
    assert_eq!(mismatches[0]["queues"], DROPPED);
    let named = mismatches[0]["named"].as_str().expect("names");
    assert!(named.contains("many-0 (fjord_test.numbered_0)") && named.contains("32 more"));
    assert_eq!(with_message(&logged, "every queue matches its database now").len(), 1);
    assert!(reads() < 12, "{} queries", reads());
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_wait_for_nats_without_a_line_for_each_attempt() {
    const COUNT: usize = 50;
    let server = fake_server().await.fake.expect("this is the fake server");
    // There is less room than the subscriptions of all queues need at the same time.
    let mut fleet = worker_with(&server, COUNT, "commands_max = 64\n".to_owned()).await;
    are_served(&fleet.workers[0], COUNT, SOON).await;
    fleet.nats.servers[0].kill();
    fleet.workers[0].restart();
    let stopped = Instant::now();
    eventually_some("attempts to subscribe would have timed out", SOON, async || {
        let runs = fleet.workers[0].process.log().contains(r#""part":"admin""#);
        // This is longer than `messaging.nats.operation_timeout`.
        (runs && stopped.elapsed() > Duration::from_secs(4)).then_some(())
    })
    .await;
    let unserved = lines(&fleet.workers[0], 0);
    let repeated = with_message(&unserved, "cannot subscribe to the queue's subjects; retrying");
    assert_eq!(repeated.len(), 0, "{repeated:?}");
    fleet.nats.servers[0].restart().await;
    are_served(&fleet.workers[0], COUNT, JOINED_WITHIN).await;
}
