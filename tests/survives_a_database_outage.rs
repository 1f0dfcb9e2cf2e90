//! Promise: a database that is not there stops only the queues that need it, says so, and is tried again.

use super::support::client::get_json;
use super::support::eventually::{SOON, eventually_some};
use super::support::fjord::{Fleet, FleetOptions};

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
