//! A command does not succeed if there may be processes that it does not know about.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fjord::fleet::Report;
use fjord::lifecycle::Tasks;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::{document, fleet, run, text};
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fjord_binary;
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::nats::{NatsOptions, SHIPPED_PASSWORD};
use crate::support::simulated_fleet::SimulatedFleet;

/// The maximum number of processes that a query collects.
const PROCESSES_MAX: usize = 1_000;

/// Runs a command that must fail. Returns its errors.
async fn fails(fleet: &Fleet, arguments: &[&str]) -> String {
    let output = run(fleet, arguments).await;
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {} {error}", text(&output.stdout));
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_of_which_no_process_replies_makes_a_command_fail() {
    for (gateways, workers, missing, present) in
        [(1, 0, "worker", "gateway"), (0, 1, "gateway", "worker")]
    {
        let fleet = fleet(gateways, workers).await;
        let directory = fleet.gateways.first().or(fleet.workers.first()).expect("a process");
        let run = async |arguments: &[&str]| {
            super::run_in(directory.directory(), "controller", arguments).await
        };
        let output = run(&["reload"]).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        let named = format!("error: no {missing} has replied: none is running or reachable.");
        assert!(error.contains(&named), "{error}");
        assert!(error.contains("nothing has changed"), "{error}");
        let report = document(&run(&["reload", "--json"]).await);
        assert_eq!((&report["result"], &report["stage"]), (&"failed".into(), &"check".into()));
        assert_eq!(report["gaps"].as_array().map(Vec::len), Some(1), "{report}");
        let output = run(&["log", "fjord=debug", "--for", "5s"]).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(&named) && error.contains(&format!("1 {present}: ")), "{error}");
        // The operator states that the fleet has no other processes.
        for command in [["reload"].as_slice(), &["log", "fjord=debug", "--for", "5s"]] {
            let output = run(&[command, &["--on", present]].concat()).await;
            assert_eq!(output.status.code(), Some(0), "{command:?}: {}", text(&output.stderr));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_that_does_not_list_its_connections_makes_a_command_fail() {
    let fleet = fleet(1, 1).await;
    let closed = "--set=messaging.nats.monitoring=http://127.0.0.1:1";
    let error = fails(&fleet, &["queue", "limit", "slow", "1", closed]).await;
    let reason = "error: not all processes that hang are known, because not all NATS servers list their connections: \
                  http://127.0.0.1:1: /connz";
    assert!(error.contains(reason) && error.contains("1 worker: limited"), "{error}");
    let name = r#"fjord_worker_concurrency_limit{queue="slow"}"#;
    assert!((fleet.workers[0].metric(name).await - 1.0).abs() < 0.5, "it was executed");
    let error = fails(&fleet, &["reload", closed]).await;
    assert!(error.contains(reason) && error.contains("nothing has changed"), "{error}");
    let reloads = fleet.workers[0].metric("fjord_config_reloads_total").await;
    assert!(reloads < 0.5, "the worker has reloaded");
    let error = fails(&fleet, &["log", "fjord=debug", "--for", "5s", closed]).await;
    assert!(error.contains(reason), "{error}");
    // With a server that answers, all of these commands succeed.
    let open = format!("--set=messaging.nats.monitoring={}", fleet.nats.servers[0].monitoring());
    for command in [["reload"].as_slice(), &["queue", "limit", "slow", "configured"]] {
        let output = run(&fleet, &[command, &[&open]].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{command:?}: {}", text(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_that_hangs_makes_a_reload_fail_and_one_that_was_killed_does_not() {
    let nats = NatsOptions { is_shipped: true, ..NatsOptions::default() };
    let mut fleet =
        Fleet::start(FleetOptions { nats, nats_servers: 3, ..FleetOptions::default() }).await;
    let idle = fleet.nats.idle_server().await;
    let set = |key: &str, value: &str| format!("--set=messaging.nats.{key}={value}");
    let servers = set("servers", &format!("[{:?}]", fleet.nats.urls()[(idle + 1) % 3]));
    let (user, password) = (set("system.user", "system"), set("system.password", SHIPPED_PASSWORD));
    let reload = ["reload", "--timeout", "2", &*servers, &*user, &*password];
    let output = run(&fleet, &reload).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    fleet.nats.servers[idle].process().pause();
    let name = format!("nats-{}", fleet.nats.servers[idle].address().port());
    let reason = format!("{name}: has not replied, although other servers are connected to it");
    let error = fails(&fleet, &reload).await;
    assert!(error.contains(&reason) && error.contains("nothing has changed"), "{error}");
    fleet.nats.servers[idle].kill();
    // The other servers know the server for minutes, but have no connection to it.
    eventually_some("the command succeeds", SOON, async || {
        (run(&fleet, &reload).await.status.code() == Some(0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_is_too_large_for_a_query_makes_every_command_fail() {
    let nats = NatsOptions { has_tls: false, ..NatsOptions::default() };
    let fleet = Fleet::start(FleetOptions { nats, ..FleetOptions::default() }).await;
    let _simulated = SimulatedFleet::start(&fleet.nats.urls()[0], PROCESSES_MAX).await;
    let commands: [&[&str]; 4] = [
        &["reload", "--timeout", "1"],
        &["queue", "pause", "echo", "--timeout", "1"],
        &["log", "fjord=debug", "--for", "5s", "--timeout", "1"],
        &["drain", "0007simulated", "--timeout", "1"],
    ];
    for arguments in commands {
        let mut command = tokio::process::Command::new(fjord_binary());
        command.args(arguments).arg("--config").arg(fleet.gateways[0].directory());
        let output = command.output().await.expect("fjord runs");
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        let reason = format!(
            "the fleet is too large for one query: only {PROCESSES_MAX} processes are known"
        );
        assert!(error.contains(&reason), "{arguments:?}: {error:.2000}");
        assert!(!error.contains("WARN"), "{error:.2000}");
    }
    let reloads = fleet.gateways[0].metric("fjord_config_reloads_total").await;
    assert!(reloads < 0.5, "the gateway has reloaded");
}

/// Connects a worker as soon as the fleet is queried for the first time. It replies to later queries, and serves no queue. Returns
/// the number of later queries that do not address this worker alone.
async fn start_worker_at_first_query(url: String) -> Arc<AtomicUsize> {
    let wide = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&wide);
    let observer = async_nats::connect(&url).await.expect("the connection succeeds");
    let mut queries = observer.subscribe("fjord.status").await.expect("a subscription");
    observer.flush().await.expect("the server has the subscription");
    let _detached = Tasks::new().spawn_background(async move {
        queries.next().await.expect("a query");
        let options = async_nats::ConnectOptions::new().name("fjord worker fjord starting");
        let worker = options.connect(url).await.expect("the connection succeeds");
        let mut queries = worker.subscribe("fjord.status").await.expect("a subscription");
        while let Some(query) = queries.next().await {
            if &*query.payload != br#"{"ids":["starting"]}"# {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            let (role, id, host) = ("worker".to_owned(), "starting".to_owned(), "h".to_owned());
            let report = Report { role, id, host, ..Report::default() };
            let report = serde_json::to_vec(&report).expect("JSON");
            let inbox = query.reply.expect("an inbox");
            worker.publish(inbox, report.into()).await.expect("it is published");
        }
    });
    wide
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_has_just_started_is_not_taken_for_one_that_hangs() {
    let nats = NatsOptions { has_tls: false, ..NatsOptions::default() };
    let fleet = Fleet::start(FleetOptions { nats, ..FleetOptions::default() }).await;
    let wide = start_worker_at_first_query(fleet.nats.urls()[0].clone()).await;
    let monitoring = fleet.nats.servers[0].monitoring();
    let mut command = tokio::process::Command::new(fjord_binary());
    command.args(["queue", "pause", "echo", "--timeout", "2", "--config"]);
    command.arg(fleet.gateways[0].directory());
    command.arg(format!("--set=messaging.nats.monitoring={monitoring}"));
    let output = command.output().await.expect("fjord runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(wide.load(Ordering::Relaxed), 0, "the whole fleet was queried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_processes_that_a_query_names_reply() {
    let nats = NatsOptions { has_tls: false, ..NatsOptions::default() };
    let fleet = Fleet::start(FleetOptions { nats, ..FleetOptions::default() }).await;
    let client = async_nats::connect(&fleet.nats.urls()[0]).await.expect("a connection");
    let query = async |payload: String| {
        let inbox = client.new_inbox();
        let mut replies = client.subscribe(inbox.clone()).await.expect("a subscription");
        let sent = client.publish_with_reply("fjord.status", inbox, payload.into());
        sent.await.expect("it is published");
        let mut ids = Vec::new();
        while let Ok(Some(reply)) = timeout(Duration::from_secs(1), replies.next()).await {
            let report: Report = serde_json::from_slice(&reply.payload).expect("JSON");
            ids.push(report.id);
        }
        ids
    };
    let all = query(String::new()).await;
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(query(format!(r#"{{"ids":["x",{:?}]}}"#, all[1])).await, all[1..]);
}
