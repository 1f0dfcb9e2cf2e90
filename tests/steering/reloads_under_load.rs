//! Many reloads under load. Each of them adds an endpoint and removes another one.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use fjord::lifecycle::Tasks;

use super::reload_command::endpoint;
use super::{fleet, run, text};
use crate::support::ledger_load::{GatewayRotation, LedgerLoad, reconcile};
use crate::support::random::SeededRandom;
use crate::support::reload;

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_added_and_removed_and_no_request_fails() {
    no_request_fails(8).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make test-reloads"]
async fn fifty_reloads_add_and_remove_endpoints_and_no_request_fails() {
    no_request_fails(50).await;
}

async fn no_request_fails(reloads: usize) {
    let mut fleet = fleet(2, 2).await;
    let client = fleet.client();
    let clients: Vec<_> = fleet.gateways.iter().map(|one| client.at(one.https())).collect();
    let load = LedgerLoad::start(&GatewayRotation::new(clients.clone()), &mut SeededRandom::new());
    // Clients call the endpoint that the next reload adds, and the endpoint that it removes.
    let current = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = clients
        .iter()
        .cloned()
        .map(|client| {
            let current = Arc::clone(&current);
            Tasks::new().spawn(async move {
                let mut statuses = BTreeMap::new();
                loop {
                    let number = current.load(Ordering::Relaxed);
                    if number >= reloads {
                        return statuses;
                    }
                    for path in [number, number.saturating_sub(1)] {
                        let answer = client.get(&format!("/v1/added/{path}")).await;
                        *statuses.entry(answer.status.as_u16()).or_insert(0_usize) += 1;
                    }
                }
            })
        })
        .collect();
    let start = Instant::now();
    for number in 0..reloads {
        current.store(number, Ordering::Relaxed);
        let file = |number: usize| fleet.catalogue().join(format!("added-{number}.json"));
        fs::write(file(number), endpoint(number)).unwrap();
        if let Some(old) = number.checked_sub(1) {
            fs::remove_file(file(old)).unwrap();
        }
        let output = run(&fleet, &["reload"]).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let said = text(&output.stdout);
        assert!(said.ends_with("2 workers and 2 gateways use the new configuration\n"), "{said}");
        for client in &clients {
            client.get(&format!("/v1/added/{number}")).await.is(200);
        }
    }
    let took = start.elapsed();
    current.store(reloads, Ordering::Relaxed);
    let mut all = BTreeMap::new();
    for caller in callers {
        let statuses = caller.await.expect("the caller does not panic");
        assert!(statuses.keys().all(|status| [200, 404].contains(status)), "{statuses:?}");
        assert!(statuses.len() == 2, "endpoints came and went: {statuses:?}");
        for (status, count) in statuses {
            *all.entry(status).or_insert(0_usize) += count;
        }
    }
    let answers = load.stop().await;
    let seconds = took.as_secs_f64();
    println!(
        "RELOADS: {reloads} in {seconds:.1} s, answers for the endpoints that change: {all:?}"
    );
    reconcile("fjord reload", &answers, fleet.ledger()).no_request_lost().all_ok();
    for worker in &fleet.workers {
        let queues = reload::queues(worker).await;
        let added: Vec<_> = queues.iter().filter(|name| name.starts_with("own-")).collect();
        assert_eq!(added, [&format!("own-{}", reloads - 1)], "the others were removed");
    }
    let log = fleet.nats.servers[0].process().log();
    let violations: Vec<_> = log.lines().filter(|line| line.contains("Violation")).collect();
    assert_eq!(violations, Vec::<&str>::new());
}
