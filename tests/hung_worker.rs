//! Promise: if one of two workers hangs but stays connected, no request fails or waits for it after the first two seconds.

use std::time::{Duration, SystemTime};

use super::support::eventually::{TICK, eventually};
use super::support::fleet::{Fleet, FleetOptions};
use super::support::ledger_load::{GatewayRotation, LedgerAnswer, LedgerLoad};
use super::support::random::SeededRandom;

/// The longest time for which the gateway may still send requests to the hung worker.
const NOTICED: Duration = Duration::from_secs(2);
/// The duration of the hang. It is shorter than the time after which the NATS server closes the connection.
const HUNG_FOR: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_sent_to_the_other_worker() {
    let options = FleetOptions { workers: 2, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options).await;
    let load =
        LedgerLoad::start(&GatewayRotation::new(vec![fleet.client()]), &mut SeededRandom::new());
    load.wait_for_more(200).await;
    let stopped = SystemTime::now();
    fleet.workers[0].process.pause();
    let is_over = || stopped.elapsed().unwrap_or_default() >= HUNG_FOR;
    eventually(HUNG_FOR * 3, TICK, is_over).await;
    let suspected = fleet.gateways[0].metric("fjord_gateway_worker_suspected").await;
    assert!(suspected > 0.5, "the gateway suspects the worker");
    let later: Vec<LedgerAnswer> = load.answers();
    fleet.workers[0].process.resume();
    load.stop().await;
    let sent_at = |answer: &LedgerAnswer| answer.at - answer.took;
    let late: Vec<_> = later.iter().filter(|answer| sent_at(answer) > stopped + NOTICED).collect();
    println!(
        "{} requests while the worker hung, {} of them after {NOTICED:?}",
        later.len(),
        late.len()
    );
    assert!(late.len() > 200, "the other worker answers: {}", late.len());
    let failed: Vec<_> = late.iter().filter(|answer| answer.status != 200).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let slow = late.iter().filter(|answer| answer.took > Duration::from_millis(900)).count();
    assert!(slow * 100 <= late.len(), "{slow} of {} waited for the hung worker", late.len());
    let lost = later.iter().filter(|answer| answer.status != 200).count();
    assert!(lost <= 16, "more requests were lost than were in flight: {lost}");
}
