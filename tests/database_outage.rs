//! Promise: a database outage stops only the queues that use the database. The outage is logged and shown in metrics
//! and `/readyz`. The queues are served again afterwards without a restart.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fjord::lifecycle::{Cancel, Tasks};
use http::Method;
use serde_json::json;

use super::support::client::get_json;
use super::support::eventually::{SOON, eventually_some};
use super::support::fleet::{Fleet, FleetOptions};
use super::support::mssql_server::fake_server;
use super::support::reload;
use super::support::tds::PASSWORD;

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_database_stops_only_its_own_queues() {
    let closed = super::support::ports::pick();
    let worker_toml = format!(
        "[worker.queues]\nslow = {{ concurrency = 2, database = 'away' }}\n\
         echo = {{ concurrency = 2, database = 'away' }}\n\
         [procedures.databases.away]\nbackend = 'mssql'\n\
         [procedures.databases.away.mssql]\nhost = '127.0.0.1'\nport = {closed}\n\
         database = 'd'\nuser = 'u'\npassword = 'not a secret'\ninsecure_trust_any = true\n"
    );
    let fleet = Fleet::start(FleetOptions { worker_toml, ..FleetOptions::default() }).await;
    fleet.client().get("/v1/strict?ms=1").await.is(200);
    let problem = fleet.client().get("/v1/slow?ms=1").await.is_problem(503, "no-workers");
    assert_eq!(problem["effect"], "not-executed");
    let ready = format!("http://{}/readyz", fleet.workers[0].admin());
    eventually_some("the log names the queue", SOON, async || {
        get_json(&ready).await?["notes"]["queue slow"].as_str().map(ToOwned::to_owned)
    })
    .await;
    let worker = &fleet.workers[0];
    assert!(worker.metric(r#"fjord_worker_queue_ready{queue="slow"}"#).await < 0.5);
    assert!(worker.metric(r#"fjord_worker_queue_ready{queue="strict"}"#).await > 0.5);
    // The handler `echo` needs no database, although one is configured for its queue.
    fleet.client().get("/v1/echo/a").await.is(200);
    assert!(worker.metric(r#"fjord_backend_up{database="away"}"#).await < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_replica_stops_only_read_only_queues() {
    let server = fake_server().await.fake.expect("this is the fake server");
    server.state.refuses_readers.store(true, Ordering::Release);
    let worker_toml = format!(
        "[worker.queues]\nledger-once = {{ database = 'sql' }}\n\
         ledger-again = {{ database = 'sql', application_intent = 'read-only', application_name = 'again' }}\n\
         [procedures.databases.sql]\nbackend = 'mssql'\n\
         [procedures.databases.sql.mssql]\nhost = '127.0.0.1'\nport = {}\n\
         database = 'd'\nuser = 'u'\npassword = '{PASSWORD}'\ntls.ca = '{}'\n",
        server.address.port(),
        server.ca.display(),
    );
    let fleet = Fleet::start(FleetOptions { worker_toml, ..FleetOptions::default() }).await;
    let (client, worker) = (fleet.client(), &fleet.workers[0]);
    let body = json!({ "ms": 1 });
    client.send(Method::POST, "/v1/once", &body).await.is(200);
    client.send(Method::PUT, "/v1/again", &body).await.is_problem(503, "no-workers");
    assert!(worker.metric(r#"fjord_backend_up{database="sql"}"#).await > 0.5);
    assert!(worker.metric(r#"fjord_backend_up{database="sql:read-only"}"#).await < 0.5);
    server.state.refuses_readers.store(false, Ordering::Release);
    eventually_some("the replica is back", SOON, async || {
        let answer = client.send(Method::PUT, "/v1/again", &body).await;
        (answer.status == 200).then_some(())
    })
    .await;
    let logins = server.state.logins.lock().expect("not poisoned").clone();
    for login in &logins {
        assert_eq!(login.is_read_only, login.application == "again", "{login:?}");
    }
    assert!(logins.iter().any(|login| login.is_read_only), "{logins:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_the_served_endpoints_return_while_reloaded_ones_do_not_match() {
    let server = fake_server().await.fake.expect("this is the fake server");
    let worker_toml = format!(
        "[worker.queues]\nledger-once = {{ database = 'sql' }}\nledger-again = {{ database = 'sql' }}\n\
         [procedures.databases.sql]\nbackend = 'mssql'\n\
         [procedures.databases.sql.mssql]\nhost = '127.0.0.1'\nport = {}\n\
         database = 'd'\nuser = 'u'\npassword = '{PASSWORD}'\ntls.ca = '{}'\n",
        server.address.port(),
        server.ca.display(),
    );
    let mut fleet = Fleet::start(FleetOptions { worker_toml, ..FleetOptions::default() }).await;
    let client = fleet.client();
    let body = json!({ "ms": 1 });
    client.send(Method::PUT, "/v1/again", &body).await.is(200);
    let file = fleet.catalogue().join("ledger.json");
    let text = fs::read_to_string(&file).unwrap();
    let mut catalogue: serde_json::Value = serde_json::from_str(&text).unwrap();
    catalogue["ledger-again"]["procedure"] = "ledger.none".into();
    fs::write(&file, catalogue.to_string()).unwrap();
    reload::signal(&mut fleet.workers[0], "ok").await;
    let pending = async |fleet: &Fleet| {
        let status = reload::status(&fleet.workers[0]).await;
        status["pending"]["ledger-again"].as_str().map(ToOwned::to_owned)
    };
    eventually_some("the new procedure is missing", SOON, async || {
        pending(&fleet).await?.contains("ledger.none").then_some(())
    })
    .await;
    let ready = r#"fjord_worker_queue_ready{queue="ledger-again"}"#;
    let is_served =
        async |served: bool| ((fleet.workers[0].metric(ready).await > 0.5) == served).then_some(());
    server.state.refuses_connections.store(true, Ordering::Release);
    server.state.close_connections();
    eventually_some("the queue is not served", SOON, async || is_served(false).await).await;
    server.state.refuses_connections.store(false, Ordering::Release);
    eventually_some("the queue is served again", SOON, async || is_served(true).await).await;
    client.send(Method::PUT, "/v1/again", &body).await.is(200);
    eventually_some("the new endpoint still waits", SOON, async || {
        pending(&fleet).await?.contains("ledger.none").then_some(())
    })
    .await;
    fs::write(&file, text).unwrap();
    reload::worker(&mut fleet.workers[0]).await;
    client.send(Method::PUT, "/v1/again", &body).await.is(200);
}

/// The number of callers of each queue. Each caller sends one request at a time.
const CALLERS: usize = 16;
/// The number of calls that must be refused for the test to be meaningful.
const REFUSED: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_under_load_logs_few_lines() {
    let server = fake_server().await.fake.expect("this is the fake server");
    let worker_toml = format!(
        "[worker.queues]\nledger-once = {{ concurrency = 16, database = 'sql' }}\n\
         ledger-again = {{ concurrency = 16, database = 'sql' }}\n\
         [procedures.databases.sql]\nbackend = 'mssql'\n\
         [procedures.databases.sql.mssql]\nhost = '127.0.0.1'\nport = {}\n\
         database = 'd'\nuser = 'u'\npassword = '{PASSWORD}'\ntls.ca = '{}'\n",
        server.address.port(),
        server.ca.display(),
    );
    let fleet = Fleet::start(FleetOptions { worker_toml, ..FleetOptions::default() }).await;
    let worker = &fleet.workers[0];
    let ready = r#"fjord_worker_queue_ready{queue="ledger-"#;
    let is_served = async |served: bool| {
        let figure = worker.metric(ready).await;
        (if served { figure > 1.5 } else { figure < 0.5 }).then_some(())
    };
    eventually_some("both queues are served", SOON, async || is_served(true).await).await;
    let before = worker.process.log().lines().count();
    let (stop, refused) = (Cancel::new(), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..2 * CALLERS)
        .map(|number| {
            let (client, stop, refused) = (fleet.client(), stop.clone(), Arc::clone(&refused));
            let once = number % 2 == 0;
            let (method, path) =
                if once { (Method::POST, "/v1/once") } else { (Method::PUT, "/v1/again") };
            Tasks::new().spawn(async move {
                while !stop.is_cancelled() {
                    let answer = client.send(method.clone(), path, &json!({ "ms": 1 })).await;
                    refused.fetch_add(usize::from(answer.status == 503), Ordering::AcqRel);
                }
            })
        })
        .collect();
    let calls = r#"fjord_worker_calls_total{queue="ledger-"#;
    eventually_some("calls", SOON, async || (worker.metric(calls).await > 100.0).then_some(()))
        .await;
    server.state.refuses_connections.store(true, Ordering::Release);
    server.state.close_connections();
    eventually_some("no queue is served", SOON, async || is_served(false).await).await;
    server.state.refuses_connections.store(false, Ordering::Release);
    eventually_some("both queues are served again", SOON, async || is_served(true).await).await;
    stop.cancel();
    for caller in callers {
        caller.await.expect("no panic");
    }
    let log = worker.process.log();
    let lines: Vec<&str> = log.lines().skip(before).collect();
    println!("{} lines, {} requests refused", lines.len(), refused.load(Ordering::Acquire));
    // Each call that was running when its connection broke has its own log line, because its outcome is unknown.
    let (lost, lines): (Vec<&str>, Vec<&str>) =
        lines.into_iter().partition(|line| line.contains("the connection was lost"));
    assert!(lost.len() <= 2 * CALLERS, "{}", lost.join("\n"));
    assert!(lines.len() <= 12, "{}", lines.join("\n"));
    let back: Vec<&&str> =
        lines.iter().filter(|line| line.contains("\"the database answers\"")).collect();
    assert_eq!(back.len(), 1, "{}", lines.join("\n"));
    let back: serde_json::Value = serde_json::from_str(back[0]).expect("a line of JSON");
    assert!(back["calls_refused"].as_u64() >= Some(REFUSED), "{back}");
    let gateway_log = fleet.gateways[0].process.log();
    let others: Vec<&str> =
        gateway_log.lines().filter(|line| !line.contains("fjord::access")).collect();
    assert!(others.len() <= 12, "{}", others.join("\n"));
}
