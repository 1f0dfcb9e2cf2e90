//! At-most-once requests of an endpoint with two versions, while workers are killed.

use super::{add_ledger_versions, clients, executed_versions, options};
use crate::support::fleet::Fleet;
use crate::support::ledger_load::{CALLERS, GatewayRotation, LedgerLoad, reconcile};
use crate::support::random::SeededRandom;
use crate::support::reload;

/// The number of times that a worker is killed.
const KILLS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn killed_workers_move_no_request_to_the_other_version() {
    let mut fleet = Fleet::start(options(2, 3)).await;
    let mut seed = SeededRandom::new();
    let load = LedgerLoad::start(&GatewayRotation::new(clients(&fleet)), &mut seed);
    load.wait_for_more(50).await;
    // The second version is added under load. It is added to the workers first.
    add_ledger_versions(&fleet);
    for worker in &mut fleet.workers {
        reload::worker(worker).await;
    }
    for gateway in &mut fleet.gateways {
        reload::signal(gateway, "ok").await;
    }
    load.wait_for_more(200).await;
    for _ in 0..KILLS {
        let worker = seed.index(3);
        fleet.workers[worker].process.kill();
        load.wait_for_more(150).await;
        fleet.workers[worker].restart();
        fleet.workers[worker].ready().await;
        load.wait_for_more(150).await;
    }
    let answers = load.stop().await;
    let reconciliation = reconcile("kill -9 workers of two versions", &answers, fleet.ledger());
    reconciliation.no_request_lost().failures_at_most(KILLS * CALLERS);
    let versions = executed_versions(&fleet);
    let both = versions
        .iter()
        .filter(|(_, versions)| versions.contains(&"v1") && versions.contains(&"v2"));
    assert_eq!(both.collect::<Vec<_>>(), [], "each request stays in its version");
    let second = versions.values().filter(|versions| versions.contains(&"v2")).count();
    assert!(second > 300, "only {second} requests were executed by the second version");
}
