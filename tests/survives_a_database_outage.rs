//! Promise: a database that is not there stops only the queues that need it, says so, and is tried again.

use std::sync::atomic::Ordering;

use http::Method;
use serde_json::json;

use super::support::client::get_json;
use super::support::eventually::{SOON, eventually_some};
use super::support::fjord::{Fleet, FleetOptions};
use super::support::mssql_server::endpoint;
use super::support::tds::PASSWORD;

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_stops_its_own_queues_only() {
    let closed = super::support::ports::pick();
    let worker_toml = format!(
        "[worker.queues.slow]\nconcurrency = 2\ndatabase = 'away'\n\
         [procedures.databases.away]\nbackend = 'mssql'\n\
         [procedures.databases.away.mssql]\nhost = '127.0.0.1'\nport = {closed}\n\
         database = 'd'\nuser = 'u'\npassword = 'not a secret'\ninsecure_trust_any = true\n"
    );
    let fleet = Fleet::start(FleetOptions { worker_toml, ..FleetOptions::default() }).await;
    fleet.client().get("/v1/strict?ms=1").await.is(200);
    let problem = fleet.client().get("/v1/slow?ms=1").await.is_problem(503, "no-workers");
    assert_eq!(problem["effect"], "not-executed");
    let ready = format!("http://{}/readyz", fleet.workers[0].admin());
    eventually_some("the queue is named", SOON, async || {
        get_json(&ready).await?["notes"]["queue slow"].as_str().map(ToOwned::to_owned)
    })
    .await;
    let worker = &fleet.workers[0];
    assert!(worker.figure(r#"fjord_worker_queue_ready{queue="slow"}"#).await < 0.5);
    assert!(worker.figure(r#"fjord_worker_queue_ready{queue="strict"}"#).await > 0.5);
    assert!(worker.figure(r#"fjord_backend_up{database="away"}"#).await < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_away_stops_only_who_reads_from_it() {
    let endpoint = endpoint().await.endpoint.expect("the endpoint");
    endpoint.state.refuses_readers.store(true, Ordering::Release);
    let worker_toml = format!(
        "[worker.queues]\nledger-once = {{ database = 'sql' }}\n\
         ledger-again = {{ database = 'sql', application_intent = 'read-only' }}\n\
         [procedures.databases.sql]\nbackend = 'mssql'\n\
         [procedures.databases.sql.mssql]\nhost = '127.0.0.1'\nport = {}\n\
         database = 'd'\nuser = 'u'\npassword = '{PASSWORD}'\ntls.ca = '{}'\n",
        endpoint.address.port(),
        endpoint.ca.display(),
    );
    let fleet = Fleet::start(FleetOptions { worker_toml, ..FleetOptions::default() }).await;
    let (client, worker) = (fleet.client(), &fleet.workers[0]);
    let body = json!({ "ms": 1 });
    client.send(Method::POST, "/v1/once", &body).await.is(200);
    client.send(Method::PUT, "/v1/again", &body).await.is_problem(503, "no-workers");
    assert!(worker.figure(r#"fjord_backend_up{database="sql"}"#).await > 0.5);
    assert!(worker.figure(r#"fjord_backend_up{database="sql:read-only"}"#).await < 0.5);
    endpoint.state.refuses_readers.store(false, Ordering::Release);
    eventually_some("the replica is back", SOON, async || {
        let answer = client.send(Method::PUT, "/v1/again", &body).await;
        (answer.status == 200).then_some(())
    })
    .await;
    let logins = endpoint.state.logins.lock().expect("not poisoned").clone();
    for login in logins.iter().filter(|login| login.application != "fjord") {
        assert_eq!(login.is_read_only, login.application == "fjord:ledger-again", "{login:?}");
    }
}
