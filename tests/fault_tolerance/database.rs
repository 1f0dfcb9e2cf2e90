//! The database fails under load and recovers. The fake server keeps the ledger of executions.

use std::sync::atomic::Ordering;

use fjord::lifecycle::Tasks;
use http::Method;
use serde_json::json;

use super::super::support::eventually::{SOON, TICK, eventually, eventually_some};
use super::super::support::fleet::{Fleet, FleetOptions};
use super::super::support::ledger_load::{CALLERS, LedgerAnswer, Reconciliation, reconcile};
use super::super::support::mssql_server::fake_server;
use super::super::support::ports;
use super::super::support::tds::{FakeSqlServer, PASSWORD};
use super::{answers_under_load, options};

/// Returns a worker configuration that executes both queues of the ledger on the fake server.
fn worker_toml(endpoint: &FakeSqlServer) -> String {
    format!(
        "[worker.queues.ledger-once]\nconcurrency = 4\ndatabase = 'sql'\n\
         [worker.queues.ledger-again]\nconcurrency = 4\ndatabase = 'sql'\n\
         [procedures.databases.sql]\nbackend = 'mssql'\n\
         [procedures.databases.sql.mssql]\nhost = '127.0.0.1'\nport = {}\ndatabase = 'fjord'\n\
         user = 'fjord'\npassword = '{PASSWORD}'\n\
         [procedures.databases.sql.mssql.tls]\nca = '{}'\n",
        endpoint.address.port(),
        endpoint.ca.display(),
    )
}

async fn queues_are(fleet: &Fleet, ready: bool) {
    for worker in &fleet.workers {
        for queue in ["ledger-once", "ledger-again"] {
            let figure = format!(r#"fjord_worker_queue_ready{{queue="{queue}"}}"#);
            eventually_some(format!("{queue} ready: {ready}"), SOON, async || {
                ((worker.metric(&figure).await > 0.5) == ready).then_some(())
            })
            .await;
        }
    }
}

const WORKERS: usize = 2;
/// The number of slots of each worker.
const SLOTS: usize = 8;
/// The maximum number of connection attempts of a worker during an outage of 30 s. The pause between attempts is
/// initially 0.1 s, and varies by up to a fifth.
const TRIES_MAX: usize = 16;
/// The maximum number of connections of a worker: one for each slot, and one for the health check.
const CONNECTIONS_MAX: usize = SLOTS + 1;

/// Starts a fleet on the fake server and waits until its queues are served.
async fn fleet_on(endpoint: &FakeSqlServer) -> Fleet {
    let worker_toml = worker_toml(endpoint);
    let fleet = Fleet::start(FleetOptions { worker_toml, ..options(1, WORKERS) }).await;
    queues_are(&fleet, true).await;
    fleet
}

/// Compares the responses with the ledger of the fake server. Asserts that no repeatable call failed because of a broken
/// connection.
fn reconcile_with(
    fault: &str,
    answers: &[LedgerAnswer],
    endpoint: &FakeSqlServer,
) -> Reconciliation {
    let ledger = endpoint.state.ledger.lock().expect("not poisoned").clone();
    let reconciliation = reconcile(fault, answers, ledger);
    reconciliation.no_request_lost().excludes("502 bad-answer");
    reconciliation
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_served_again_after_a_database_outage() {
    let endpoint = fake_server().await.fake.expect("this is the fake server");
    let mut fleet = fleet_on(&endpoint).await;
    let connects = || endpoint.state.connects.load(Ordering::Acquire);
    let answers = answers_under_load(&mut fleet, async |fleet, load, _, _| {
        endpoint.state.refuses_connections.store(true, Ordering::Release);
        endpoint.state.close_connections();
        let before = connects();
        queues_are(fleet, false).await;
        // During the outage, each caller waits for a worker until the timeout of its endpoint.
        load.wait_for_more(CALLERS).await;
        let tries = connects() - before;
        assert!(tries <= WORKERS * TRIES_MAX, "{tries} attempts during the outage");
        let before = connects();
        endpoint.state.refuses_connections.store(false, Ordering::Release);
        queues_are(fleet, true).await;
        load.wait_for_more(CALLERS * 10).await;
        let made = connects() - before;
        assert!(made <= WORKERS * (CONNECTIONS_MAX + 1), "{made} connections after the outage");
    })
    .await;
    let reconciliation = reconcile_with("database gone and back", &answers, &endpoint);
    reconciliation.includes("503 no-workers").includes("200");

    let answers = answers_under_load(&mut fleet, async |_, _, _, _| {}).await;
    reconcile_with("after it", &answers, &endpoint).all_ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn restarting_the_database_makes_at_most_the_running_calls_fail() {
    let mut endpoint = FakeSqlServer::start_on(ports::pick()).await;
    let mut fleet = fleet_on(&endpoint).await;
    let answers = answers_under_load(&mut fleet, async |fleet, load, _, _| {
        for _ in 0..2 {
            endpoint.end().await;
            queues_are(fleet, false).await;
            endpoint.start_again().await;
            let before = endpoint.state.connects.load(Ordering::Acquire);
            queues_are(fleet, true).await;
            load.wait_for_more(CALLERS * 10).await;
            let made = endpoint.state.connects.load(Ordering::Acquire) - before;
            assert!(made <= WORKERS * CONNECTIONS_MAX, "{made} connections after the restart");
        }
    })
    .await;
    // The outcome of an at-most-once call that was running when its connection broke is unknown. There is at most one
    // such call for each slot and restart.
    let reconciliation = reconcile_with("database ended and started", &answers, &endpoint);
    reconciliation.includes("200").failures_at_most(2 * WORKERS * SLOTS);

    let answers = answers_under_load(&mut fleet, async |_, _, _, _| {}).await;
    reconcile_with("after it", &answers, &endpoint).all_ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeatable_call_is_repeated_after_a_broken_connection() {
    let endpoint = fake_server().await.fake.expect("this is the fake server");
    let fleet = fleet_on(&endpoint).await;
    let client = fleet.client();
    let runs = || endpoint.state.runs("ledger.write");
    let call = |method, path: &'static str| {
        let (client, body) = (client.clone(), json!({ "ms": 1500 }));
        Tasks::new().spawn(async move { client.send(method, path, &body).await })
    };
    let again = call(Method::PUT, "/v1/again");
    let once = call(Method::POST, "/v1/once");
    eventually(SOON, TICK, || runs() == 2).await;
    endpoint.state.close_connections();
    again.await.expect("no panic").is(200);
    once.await.expect("no panic").is_problem(502, "outcome-unknown");
    assert_eq!(runs(), 3, "the repeatable call ran twice");
}
