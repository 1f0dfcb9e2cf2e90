//! Promise: every request gets exactly one true answer and no at-most-once request is executed twice,
//! whatever dies in between. Each test injects one fault into a fleet of real processes on a cluster of three
//! NATS servers, under steady load, and then holds all answers against the ledger of executions.

use std::time::Duration;

use super::support::client::Client;
use super::support::eventually::{SOON, eventually_some, for_a_while};
use super::support::fjord::{Fleet, FleetOptions};
use super::support::load::{Load, Reckoning, Rotation, Told, reckon};
use super::support::seed::Seed;

mod database;
mod foreign;
mod reconnects;

/// Answers before and after a fault.
const SOME: usize = 150;

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

/// Runs load around a fault.
async fn under_load(
    fault: &str,
    fleet: &mut Fleet,
    inject: impl AsyncFnOnce(&mut Fleet, &Load, &Rotation, &mut Seed),
) -> Reckoning {
    let answers = answers_under_load(fleet, inject).await;
    reckon(fault, &answers, fleet.ledger())
}

/// The same, for a ledger elsewhere.
async fn answers_under_load(
    fleet: &mut Fleet,
    inject: impl AsyncFnOnce(&mut Fleet, &Load, &Rotation, &mut Seed),
) -> Vec<Told> {
    let mut seed = Seed::new();
    let rotation = Rotation::new(all_gateways(fleet));
    let load = Load::start(&rotation, &mut seed);
    load.more(SOME + seed.one_of(SOME)).await;
    inject(fleet, &load, &rotation, &mut seed).await;
    load.more(SOME).await;
    load.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_no_loss() {
    let mut fleet = fleet(1, 2).await;
    let reckoning = under_load("none", &mut fleet, async |_, _, _, _| {}).await;
    reckoning.all_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed() {
    let mut fleet = fleet(1, 3).await;
    let reckoning = under_load("kill -9 a worker", &mut fleet, async |fleet, load, _, seed| {
        let worker = seed.one_of(3);
        fleet.workers[worker].process.kill();
        load.more(SOME).await;
        fleet.workers[worker].restart();
        fleet.workers[worker].ready().await;
    })
    .await;
    // Its calls may be unknown: at most as many as callers that it could serve at once.
    reckoning.nothing_lost().others_at_most(12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stopped_past_its_timeouts_and_continued() {
    let mut fleet = fleet(1, 3).await;
    let reckoning = under_load("SIGSTOP a worker 5 s", &mut fleet, async |fleet, load, _, seed| {
        let worker = seed.one_of(3);
        fleet.workers[worker].process.pause();
        let pause = std::time::Instant::now();
        while pause.elapsed() < Duration::from_secs(5) {
            load.more(10).await;
        }
        fleet.workers[worker].process.resume();
    })
    .await;
    reckoning.nothing_lost().others_at_most(12);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nats_server_of_the_gateway_killed() {
    let mut fleet = fleet(1, 2).await;
    let reckoning = under_load("kill -9 a NATS server", &mut fleet, async |fleet, load, _, _| {
        let number = server_of_the_gateway(fleet).await;
        fleet.nats.servers[number].kill();
        load.more(SOME).await;
        fleet.nats.servers[number].restart().await;
    })
    .await;
    reckoning.nothing_lost().others_at_most(24);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_nats_cluster_restarted() {
    let mut fleet = fleet(1, 2).await;
    let reckoning = under_load("restart all of NATS", &mut fleet, async |fleet, _, _, _| {
        for server in &mut fleet.nats.servers {
            server.kill();
        }
        for server in &mut fleet.nats.servers {
            server.restart().await;
        }
        fleet.nats_whole().await;
    })
    .await;
    reckoning.nothing_lost();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_terminated_in_turn() {
    let mut fleet = fleet(2, 3).await;
    let reckoning =
        under_load("SIGTERM all in turn", &mut fleet, async |fleet, load, rotation, _| {
            for number in 0..fleet.workers.len() {
                let status = fleet.workers[number].stop().await;
                assert_eq!(status.code(), Some(0), "{}", fleet.workers[number].process.log_tail());
                fleet.workers[number].restart();
                fleet.workers[number].ready().await;
                load.more(20).await;
            }
            for number in 0..fleet.gateways.len() {
                // As a balancer does it: it is not ready any more, so it gets no more requests.
                let other = fleet.client().at(fleet.gateways[1 - number].https());
                fleet.gateways[number].process.terminate();
                rotation.set(vec![other]);
                let status = fleet.gateways[number].process.wait(Duration::from_secs(40)).await;
                assert_eq!(status.code(), Some(0), "{}", fleet.gateways[number].process.log_tail());
                fleet.gateways[number].restart();
                fleet.gateways[number].ready().await;
                rotation.set(all_gateways(fleet));
                load.more(20).await;
            }
        })
        .await;
    reckoning.nothing_lost().all_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lame_duck() {
    let mut fleet = fleet(1, 2).await;
    let reckoning = under_load("lame duck", &mut fleet, async |fleet, load, _, _| {
        let number = server_of_the_gateway(fleet).await;
        fleet.nats.servers[number].lame_duck();
        // It ends connections after its grace period of 5 s: whoever has gone by then went by itself.
        let grace = Duration::from_secs(4);
        eventually_some("the gateway leaves early", grace, async || {
            let moves = fleet.gateways[0].figure("fjord_nats_reconnects_total").await;
            (moves > 0.5).then_some(())
        })
        .await;
        load.more(SOME * 2).await;
    })
    .await;
    reckoning.nothing_lost().others_at_most(3);
}

/// The server that the first gateway is connected to.
async fn server_of_the_gateway(fleet: &Fleet) -> usize {
    eventually_some("the gateway's server", SOON, async || {
        for (number, server) in fleet.nats.servers.iter().enumerate() {
            let url = format!("{}/connz", server.monitoring());
            let connections = super::support::client::get_json(&url).await?;
            let is_here = connections["connections"]
                .as_array()?
                .iter()
                .any(|connection| connection["name"] == "fjord gateway");
            if is_here {
                return Some(number);
            }
        }
        None
    })
    .await
}

/// What the soak does to a fleet, one after the other.
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
            fleet.nats_whole().await;
        }
        _ => {
            for server in &mut fleet.nats.servers {
                server.kill();
            }
            for server in &mut fleet.nats.servers {
                server.restart().await;
            }
            fleet.nats_whole().await;
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
    let reckoning = under_load("soak", &mut fleet, async |fleet, load, _, seed| {
        println!("FJORD_SEED={} repeats this sequence of faults", seed.number());
        let start = std::time::Instant::now();
        while start.elapsed() < limit {
            let (kind, number) = (seed.one_of(5), seed.one_of(3));
            println!("{:>4} s: fault {kind} of {number}", start.elapsed().as_secs());
            one_fault(fleet, kind, number).await;
            load.more(50).await;
        }
    })
    .await;
    reckoning.nothing_lost();
}
