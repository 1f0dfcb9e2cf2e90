//! Promise: whatever fails, every request gets a response, no response contradicts what was executed, and no
//! at-most-once request is executed twice. Each test injects faults into a fleet of real processes and three NATS
//! servers under steady load. It then compares all responses with the ledger of executions.

use std::time::Duration;

use super::support::client::Client;
use super::support::eventually::{SOON, eventually_some, for_a_while};
use super::support::fleet::{Fleet, FleetOptions};
use super::support::ledger_load::{
    GatewayRotation, LedgerAnswer, LedgerLoad, Reconciliation, reconcile,
};
use super::support::random::SeededRandom;

mod database;
mod faulty_worker;
mod reconnects;

/// The number of responses to wait for before and after a fault.
const ANSWERS: usize = 150;

fn options(gateways: usize, workers: usize) -> FleetOptions {
    let gateway_toml = "[lifecycle]\ndrain_delay = '1s'\n".to_owned();
    FleetOptions {
        nats_servers: 3,
        gateways,
        workers,
        concurrency: 4,
        gateway_toml,
        ..FleetOptions::default()
    }
}

async fn fleet(gateways: usize, workers: usize) -> Fleet {
    Fleet::start(options(gateways, workers)).await
}

fn all_gateways(fleet: &Fleet) -> Vec<Client> {
    let client = fleet.client();
    fleet.gateways.iter().map(|gateway| client.at(gateway.https())).collect()
}

/// Injects a fault under load and compares the responses with the fleet's ledger.
async fn under_load(
    fault: &str,
    fleet: &mut Fleet,
    inject: impl AsyncFnOnce(&mut Fleet, &LedgerLoad, &GatewayRotation, &mut SeededRandom),
) -> Reconciliation {
    let answers = answers_under_load(fleet, inject).await;
    reconcile(fault, &answers, fleet.ledger())
}

/// Injects a fault under load and returns the responses, for tests that do not use the fleet's ledger.
async fn answers_under_load(
    fleet: &mut Fleet,
    inject: impl AsyncFnOnce(&mut Fleet, &LedgerLoad, &GatewayRotation, &mut SeededRandom),
) -> Vec<LedgerAnswer> {
    let mut seed = SeededRandom::new();
    let rotation = GatewayRotation::new(all_gateways(fleet));
    let load = LedgerLoad::start(&rotation, &mut seed);
    load.wait_for_more(ANSWERS + seed.index(ANSWERS)).await;
    inject(fleet, &load, &rotation, &mut seed).await;
    load.wait_for_more(ANSWERS).await;
    load.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fault_every_response_is_ok() {
    let mut fleet = fleet(1, 2).await;
    let reconciliation = under_load("none", &mut fleet, async |_, _, _, _| {}).await;
    reconciliation.all_ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_a_worker_loses_no_response() {
    let mut fleet = fleet(1, 3).await;
    let reconciliation =
        under_load("kill -9 a worker", &mut fleet, async |fleet, load, _, seed| {
            let worker = seed.index(3);
            fleet.workers[worker].process.kill();
            load.wait_for_more(ANSWERS).await;
            fleet.workers[worker].restart();
            fleet.workers[worker].ready().await;
        })
        .await;
    // The outcome of the calls that ran on the killed worker may be unknown. There is at most one such call for each of
    // the 12 concurrent callers.
    reconciliation.no_request_lost().failures_at_most(12);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_a_worker_past_its_timeouts_loses_no_response() {
    let mut fleet = fleet(1, 3).await;
    let reconciliation =
        under_load("SIGSTOP a worker 5 s", &mut fleet, async |fleet, load, _, seed| {
            let worker = seed.index(3);
            fleet.workers[worker].process.pause();
            let pause = std::time::Instant::now();
            while pause.elapsed() < Duration::from_secs(5) {
                load.wait_for_more(10).await;
            }
            fleet.workers[worker].process.resume();
        })
        .await;
    reconciliation.no_request_lost().failures_at_most(12);
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_nats_server_of_the_gateway_loses_no_response() {
    let mut fleet = fleet(1, 2).await;
    let reconciliation =
        under_load("kill -9 a NATS server", &mut fleet, async |fleet, load, _, _| {
            let number = server_of_the_gateway(fleet).await;
            fleet.nats.servers[number].kill();
            load.wait_for_more(ANSWERS).await;
            fleet.nats.servers[number].restart().await;
        })
        .await;
    reconciliation.no_request_lost().failures_at_most(24);
}

#[tokio::test(flavor = "multi_thread")]
async fn restarting_the_nats_cluster_loses_no_response() {
    let mut fleet = fleet(1, 2).await;
    let reconciliation = under_load("restart all of NATS", &mut fleet, async |fleet, _, _, _| {
        for server in &mut fleet.nats.servers {
            server.kill();
        }
        for server in &mut fleet.nats.servers {
            server.restart().await;
        }
        fleet.wait_for_nats_routes().await;
    })
    .await;
    reconciliation.no_request_lost();
}

#[tokio::test(flavor = "multi_thread")]
async fn terminating_each_process_in_turn_fails_no_request() {
    let mut fleet = fleet(2, 3).await;
    let reconciliation =
        under_load("SIGTERM all in turn", &mut fleet, async |fleet, load, rotation, _| {
            for number in 0..fleet.workers.len() {
                let status = fleet.workers[number].stop().await;
                assert_eq!(status.code(), Some(0), "{}", fleet.workers[number].process.log_tail());
                fleet.workers[number].restart();
                fleet.workers[number].ready().await;
                load.wait_for_more(20).await;
            }
            for number in 0..fleet.gateways.len() {
                // The test stops sending requests to this gateway, as a load balancer does when a gateway is not ready.
                let other = fleet.client().at(fleet.gateways[1 - number].https());
                fleet.gateways[number].process.terminate();
                rotation.set(vec![other]);
                let status = fleet.gateways[number].process.wait(Duration::from_secs(40)).await;
                assert_eq!(status.code(), Some(0), "{}", fleet.gateways[number].process.log_tail());
                fleet.gateways[number].restart();
                fleet.gateways[number].ready().await;
                rotation.set(all_gateways(fleet));
                load.wait_for_more(20).await;
            }
        })
        .await;
    reconciliation.no_request_lost().all_ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_in_lame_duck_mode_fails_at_most_three_requests() {
    let mut fleet = fleet(1, 2).await;
    let reconciliation = under_load("lame duck", &mut fleet, async |fleet, load, _, _| {
        let number = server_of_the_gateway(fleet).await;
        fleet.nats.servers[number].lame_duck();
        // The server closes connections after its grace period of 5 s. A gateway that reconnects before that does so
        // because of the notification.
        let grace = Duration::from_secs(4);
        eventually_some("the gateway stops early", grace, async || {
            let moves = fleet.gateways[0].metric("fjord_nats_reconnects_total").await;
            (moves > 0.5).then_some(())
        })
        .await;
        load.wait_for_more(ANSWERS * 2).await;
    })
    .await;
    reconciliation.no_request_lost().failures_at_most(3);
}

/// Returns the index of the server to which the first gateway is connected.
async fn server_of_the_gateway(fleet: &Fleet) -> usize {
    eventually_some("the gateway's server", SOON, async || {
        for (number, server) in fleet.nats.servers.iter().enumerate() {
            let url = format!("{}/connz", server.monitoring());
            let connections = super::support::client::get_json(&url).await?;
            let is_here = connections["connections"]
                .as_array()?
                .iter()
                .filter_map(|connection| connection["name"].as_str())
                .any(|name| name.starts_with("fjord gateway "));
            if is_here {
                return Some(number);
            }
        }
        None
    })
    .await
}

/// Injects one of the faults of the soak test.
async fn one_fault(fleet: &mut Fleet, kind: usize, number: usize) {
    let server = number % fleet.nats.servers.len();
    let worker = number % fleet.workers.len();
    match kind {
        0 => {
            fleet.workers[worker].process.kill();
            fleet.workers[worker].restart();
            fleet.workers[worker].ready().await;
        }
        1 => {
            fleet.workers[worker].stop().await;
            fleet.workers[worker].restart();
            fleet.workers[worker].ready().await;
        }
        2 => {
            fleet.workers[worker].process.pause();
            for_a_while(Duration::from_secs(4)).await;
            fleet.workers[worker].process.resume();
        }
        3 => {
            fleet.nats.servers[server].kill();
            fleet.nats.servers[server].restart().await;
            fleet.wait_for_nats_routes().await;
        }
        _ => {
            for server in &mut fleet.nats.servers {
                server.kill();
            }
            for server in &mut fleet.nats.servers {
                server.restart().await;
            }
            fleet.wait_for_nats_routes().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make soak"]
async fn soak() {
    let seconds = std::env::vars().find(|(name, _)| name == "FJORD_SOAK_SECONDS");
    let seconds = seconds.map_or(60, |(_, text)| text.parse().expect("a number of seconds"));
    let limit = Duration::from_secs(seconds);
    let mut fleet = fleet(1, 3).await;
    let reconciliation = under_load("soak", &mut fleet, async |fleet, load, _, seed| {
        println!("FJORD_SEED={} repeats this sequence of faults", seed.number());
        let start = std::time::Instant::now();
        while start.elapsed() < limit {
            let (kind, number) = (seed.index(5), seed.index(3));
            println!("{:>4} s: fault {kind} of {number}", start.elapsed().as_secs());
            one_fault(fleet, kind, number).await;
            load.wait_for_more(50).await;
        }
    })
    .await;
    reconciliation.no_request_lost();
}
