//! Promise: of two workers one hangs, connected and silent, and after the first moments no request fails or waits for it.

use std::time::{Duration, SystemTime};

use super::support::eventually::{TICK, eventually};
use super::support::fjord::{Fleet, FleetOptions};
use super::support::load::{Load, Rotation, Told};
use super::support::seed::Seed;

/// Until the first attempts were missed and those that answer are known.
const NOTICED: Duration = Duration::from_secs(2);
/// Shorter than it takes the NATS server to give the connection up.
const HANGS: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn requests_find_the_worker_that_answers() {
    let options = FleetOptions { workers: 2, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options).await;
    let load = Load::start(&Rotation::new(vec![fleet.client()]), &mut Seed::new());
    load.more(200).await;
    let stopped = SystemTime::now();
    fleet.workers[0].process.pause();
    let hangs = || stopped.elapsed().unwrap_or_default() >= HANGS;
    eventually(HANGS * 3, TICK, hangs).await;
    let suspected = fleet.gateways[0].figure("fjord_gateway_worker_suspected").await;
    assert!(suspected > 0.5, "it is seen");
    let later: Vec<Told> = load.answers();
    fleet.workers[0].process.resume();
    load.stop().await;
    let sent_at = |told: &Told| told.at - told.took;
    let late: Vec<_> = later.iter().filter(|told| sent_at(told) > stopped + NOTICED).collect();
    println!("{} requests while it hung, {} after the first moments", later.len(), late.len());
    assert!(late.len() > 200, "the other one works on: {}", late.len());
    let failed: Vec<_> = late.iter().filter(|told| told.status != 200).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let slow = late.iter().filter(|told| told.took > Duration::from_millis(900)).count();
    assert!(slow * 100 <= late.len(), "{slow} of {} waited for it", late.len());
    let lost = later.iter().filter(|told| told.status != 200).count();
    assert!(lost <= 16, "no more than were under way: {lost}");
}
