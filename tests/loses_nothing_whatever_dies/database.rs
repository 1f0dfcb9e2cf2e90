//! The database goes away under load and comes back: what it executed is counted at its own end.

use std::sync::atomic::Ordering;

use super::super::support::eventually::{SOON, eventually_some};
use super::super::support::fjord::{Fleet, FleetOptions};
use super::super::support::load::{CALLERS, reckon};
use super::super::support::mssql_server::endpoint;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_database_gone_and_back() {
    let endpoint = endpoint().await.endpoint.expect("the endpoint");
    let worker_toml = worker_toml(&endpoint);
    let options = FleetOptions { worker_toml, ..options(1, 2) };
    let mut fleet = Fleet::start(options).await;
    queues_are(&fleet, true).await;
    let away = async |fleet: &mut Fleet| {
        endpoint.state.is_away.store(true, Ordering::Release);
        endpoint.state.hang_up();
        queues_are(fleet, false).await;
    };
    let answers = answers_under_load(&mut fleet, async |fleet, load, _, _| {
        away(fleet).await;
        // Each of the callers waits as long as its endpoint's timeout for a worker to come back.
        load.more(CALLERS).await;
        endpoint.state.is_away.store(false, Ordering::Release);
        queues_are(fleet, true).await;
    })
    .await;
    let ledger = endpoint.state.ledger.lock().expect("not poisoned").clone();
    let reckoning = reckon("database gone and back", &answers, ledger);
    reckoning.nothing_lost().some("503 no-workers").some("200");

    let answers = answers_under_load(&mut fleet, async |_, _, _, _| {}).await;
    let ledger = endpoint.state.ledger.lock().expect("not poisoned").clone();
    reckon("after it", &answers, ledger).nothing_lost().all_well();
}
