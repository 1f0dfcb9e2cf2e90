//! The database goes away under load and comes back: what it executed is counted at its own end.

use std::sync::atomic::Ordering;

use fjord::lifecycle::Tasks;
use http::Method;
use serde_json::json;

use super::super::support::eventually::{SOON, TICK, eventually, eventually_some};
use super::super::support::fjord::{Fleet, FleetOptions};
use super::super::support::load::{CALLERS, Reckoning, Told, reckon};
use super::super::support::mssql_server::endpoint;
use super::super::support::ports;
use super::super::support::tds::{Endpoint, PASSWORD};
use super::{answers_under_load, options};

/// Both queues of the ledger on the endpoint.
fn worker_toml(endpoint: &Endpoint) -> String {
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
                ((worker.figure(&figure).await > 0.5) == ready).then_some(())
            })
            .await;
        }
    }
}

/// Workers at once, and the calls that each of them runs at once.
const WORKERS: usize = 2;
const SLOTS: usize = 8;
/// A worker tries once per pause, from 0.1 s up, varied by a fifth: so often at most in half a minute of outage.
const TRIES_MAX: usize = 16;
/// Connections that a worker needs: one for each call at once, one to ask whether the database is there.
const CONNECTIONS_MAX: usize = SLOTS + 1;

/// A fleet on the endpoint, whose queues are served.
async fn fleet_on(endpoint: &Endpoint) -> Fleet {
    let worker_toml = worker_toml(endpoint);
    let fleet = Fleet::start(FleetOptions { worker_toml, ..options(1, WORKERS) }).await;
    queues_are(&fleet, true).await;
    fleet
}

/// Every answer so far was true, and what may be repeated was never given up for a broken connection.
fn reckoned(fault: &str, answers: &[Told], endpoint: &Endpoint) -> Reckoning {
    let ledger = endpoint.state.ledger.lock().expect("not poisoned").clone();
    let reckoning = reckon(fault, answers, ledger);
    reckoning.nothing_lost().none("502 bad-answer");
    reckoning
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_gone_and_back() {
    let endpoint = endpoint().await.endpoint.expect("the endpoint");
    let mut fleet = fleet_on(&endpoint).await;
    let connects = || endpoint.state.connects.load(Ordering::Acquire);
    let answers = answers_under_load(&mut fleet, async |fleet, load, _, _| {
        endpoint.state.is_away.store(true, Ordering::Release);
        endpoint.state.hang_up();
        let before = connects();
        queues_are(fleet, false).await;
        // Each of the callers waits as long as its endpoint's timeout for a worker to come back.
        load.more(CALLERS).await;
        let tries = connects() - before;
        assert!(tries <= WORKERS * TRIES_MAX, "{tries} attempts while it was away");
        let before = connects();
        endpoint.state.is_away.store(false, Ordering::Release);
        queues_are(fleet, true).await;
        load.more(CALLERS * 10).await;
        let made = connects() - before;
        assert!(made <= WORKERS * (CONNECTIONS_MAX + 1), "{made} connections when it was back");
    })
    .await;
    let reckoning = reckoned("database gone and back", &answers, &endpoint);
    reckoning.some("503 no-workers").some("200");

    let answers = answers_under_load(&mut fleet, async |_, _, _, _| {}).await;
    reckoned("after it", &answers, &endpoint).all_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_ended_and_started_again() {
    let mut endpoint = Endpoint::start_on(ports::pick()).await;
    let mut fleet = fleet_on(&endpoint).await;
    let answers = answers_under_load(&mut fleet, async |fleet, load, _, _| {
        for _ in 0..2 {
            endpoint.end().await;
            queues_are(fleet, false).await;
            endpoint.start_again().await;
            let before = endpoint.state.connects.load(Ordering::Acquire);
            queues_are(fleet, true).await;
            load.more(CALLERS * 10).await;
            let made = endpoint.state.connects.load(Ordering::Acquire) - before;
            assert!(made <= WORKERS * CONNECTIONS_MAX, "{made} connections when it was back");
        }
    })
    .await;
    // What may run once and ran when the connection broke is unknown: at most as many as ran, each time.
    let reckoning = reckoned("database ended and started", &answers, &endpoint);
    reckoning.some("200").others_at_most(2 * WORKERS * SLOTS);

    let answers = answers_under_load(&mut fleet, async |_, _, _, _| {}).await;
    reckoned("after it", &answers, &endpoint).all_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_costs_no_caller_of_a_call_that_may_repeat() {
    let endpoint = endpoint().await.endpoint.expect("the endpoint");
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
    endpoint.state.hang_up();
    again.await.expect("no panic").is(200);
    once.await.expect("no panic").is_problem(502, "outcome-unknown");
    assert_eq!(runs(), 3, "one of the two ran again");
}
