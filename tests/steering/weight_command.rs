//! Tests `fjord queue weight`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fjord::lifecycle::Tasks;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{document, run, run_as, text};
use crate::support::client::Client;
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::ledger_load::{CALLERS, GatewayRotation, LedgerLoad, reconcile};
use crate::support::nats::{NatsOptions, SHIPPED_PASSWORD};
use crate::support::random::SeededRandom;
use crate::support::reload;
use crate::weighted_queues::{self, add_ledger_versions, clients, executed_versions};

/// Starts a fleet with several versions of some endpoints and the shipped NATS configuration.
async fn fleet(gateways: usize, workers: usize) -> Fleet {
    let nats = NatsOptions { is_shipped: true, ..NatsOptions::default() };
    Fleet::start(FleetOptions { nats, ..weighted_queues::options(gateways, workers) }).await
}

/// A response: the time at which its request was sent, and its status.
type TimedStatus = (Instant, u16);

/// Clients that call an endpoint until they are stopped.
struct Callers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Vec<TimedStatus>>>,
}

impl Callers {
    fn start(clients: &[Client], path: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let caller = |client: &Client| {
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            Tasks::new().spawn(async move {
                let mut statuses = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let sent_at = Instant::now();
                    let status = client.get(path).await.status.as_u16();
                    statuses.push((sent_at, status));
                }
                statuses
            })
        };
        let tasks = clients.iter().chain(clients).map(caller).collect();
        Self { stop, tasks }
    }

    async fn stop(self) -> Vec<TimedStatus> {
        self.stop.store(true, Ordering::Relaxed);
        let mut statuses = Vec::new();
        for task in self.tasks {
            statuses.extend(task.await.expect("the caller does not panic"));
        }
        statuses
    }
}

/// Returns the row of a queue in the output of `fjord status --json`.
async fn status_of(fleet: &Fleet, queue: &str) -> Value {
    let output = run_as(fleet, "operator", &["status", "--json", "--interval", "1"]).await;
    let document = document(&output);
    let rows = document["weighted_queues"].as_array().expect("the queues").iter();
    rows.clone().find(|row| row["queue"] == queue).cloned().expect("the queue")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_is_seen_and_taken_back_in_less_than_a_second() {
    const ROUNDS: usize = 4;
    let fleet = fleet(2, 1).await;
    let clients = clients(&fleet);
    let mut fastest = Duration::MAX;
    for round in 0..ROUNDS {
        let output = run(&fleet, &["queue", "weight", "broken", "broken-v2=60", "--json"]).await;
        assert_eq!(document(&output)["result"], "ok", "{}", text(&output.stderr));
        let callers = Callers::start(&clients, "/v1/broken");
        let row = status_of(&fleet, "broken-v2").await;
        if round == 0 {
            // The version gets 60 of 155 requests, all of which fail. The interval is long enough for many requests.
            assert_eq!(row["server_error_share"], 1.0, "{row}");
            let share = row["share"].as_f64().expect("a share");
            assert!((0.2..0.6).contains(&share), "{row}");
            assert_eq!((&row["weights"], &row["catalogue_weights"]), (&json!([60]), &json!([5])));
            let sound = status_of(&fleet, "broken").await;
            assert_eq!(sound["server_error_share"], 0.0, "{sound}");
            for gateway in &fleet.gateways {
                let labels =
                    r#"{endpoint="broken",queue="broken-v2",status="500",outcome="sql_user"}"#;
                let name = format!("fjord_gateway_requests_total{labels}");
                assert!(gateway.metric(&name).await > 0.5);
                let labels = r#"{endpoint="broken",queue="broken",status="500""#;
                let name = format!("fjord_gateway_requests_total{labels}");
                assert!(gateway.metric(&name).await < 0.5);
            }
            let output = run_as(&fleet, "operator", &["status", "--interval", "1"]).await;
            let page = text(&output.stdout);
            let line =
                page.lines().find(|line| line.starts_with("broken ") && line.contains("broken-v2"));
            assert!(line.is_some_and(|line| line.ends_with("100 %")), "{page}");
            assert!(line.is_some_and(|line| line.contains("60 (catalogue: 5)")), "{page}");
        }
        let began = Instant::now();
        let output = run(&fleet, &["queue", "weight", "broken", "broken-v2=0"]).await;
        let confirmed = Instant::now();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let said = text(&output.stdout);
        assert_eq!(said.matches("endpoint broken: broken=95, broken-v2=0").count(), 2, "{said}");
        assert!(said.contains("2 gateways: weights changed until their next reload"), "{said}");
        let seen = callers.tasks.len();
        let row = status_of(&fleet, "broken-v2").await;
        assert_eq!((&row["weights"], &row["share"]), (&json!([0]), &json!(0.0)), "{row}");
        let statuses = callers.stop().await;
        let failed = statuses.iter().filter(|(_, status)| *status == 500);
        let last = failed.map(|(sent_at, _)| *sent_at).max().expect("requests have failed");
        assert!(last < confirmed, "a request failed after the command had ended");
        let after = statuses.iter().filter(|(sent_at, _)| *sent_at > confirmed).count();
        assert!(after > seen, "only {after} requests after the command");
        assert!(statuses.iter().all(|(_, status)| [200, 500].contains(status)));
        let took = last.saturating_duration_since(began);
        println!(
            "WEIGHTS taken back | last request of the version {took:?} after the command's start"
        );
        fastest = fastest.min(took);
    }
    // Only the fastest round counts, because starting the command takes longer on a busy machine.
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_change_under_load_and_no_request_fails() {
    let mut fleet = fleet(2, 2).await;
    add_ledger_versions(&fleet);
    let output = run(&fleet, &["reload"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let mut seed = SeededRandom::new();
    let load = LedgerLoad::start(&GatewayRotation::new(clients(&fleet)), &mut seed);
    for round in 0..12 {
        let weights = [[0, 1], [95, 5], [1, 0], [7, 1_000_000]][round % 4];
        for id in ["ledger-once", "ledger-again"] {
            let [first, second] = weights;
            let (first, second) = (format!("{id}={first}"), format!("{id}-v2={second}"));
            let output = run(&fleet, &["queue", "weight", id, &first, &second, "--json"]).await;
            let report = document(&output);
            assert_eq!(output.status.code(), Some(0), "{report}");
            assert_eq!(
                (&report["result"], &report["members"][1]["role"]),
                (&"ok".into(), &"gateway".into())
            );
        }
        load.wait_for_more(40).await;
    }
    let answers = load.stop().await;
    reconcile("changing weights", &answers, fleet.ledger()).no_request_lost().all_ok();
    let versions = executed_versions(&fleet);
    for version in ["v1", "v2"] {
        let count = versions.values().filter(|versions| versions.contains(&version)).count();
        assert!(count > 100, "{version}: {count} requests");
    }
    // With a weight of 0, a version gets no requests.
    let calls = async |fleet: &Fleet| {
        let mut calls = 0.0;
        for worker in &fleet.workers {
            calls += worker.metric(r#"fjord_worker_calls_total{queue="split-v2""#).await;
        }
        calls
    };
    let output = run(&fleet, &["queue", "weight", "split", "split-v2=0"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let before = calls(&fleet).await;
    for client in clients(&fleet).iter().cycle().take(200) {
        assert_eq!(client.get("/v1/split").await.is(200).text(), "\"v1\"");
    }
    assert!((calls(&fleet).await - before).abs() < 0.5);

    // A reload restores the weights in the catalogue, and reports this.
    let output = run(&fleet, &["reload"]).await;
    let said = text(&output.stdout);
    let note = "endpoint split: the weights split=95, split-v2=0 are replaced with those of the catalogue: split=95, split-v2=5";
    assert_eq!(said.matches(note).count(), 2, "{said}");
    assert_eq!(status_of(&fleet, "split-v2").await["weights"], json!([5]));
    fleet.gateways[0].process.log_line(&["a reload has replaced the weights"]).await;
    // A restart of a gateway has the same effect, and fjord status shows that the gateways differ.
    let output = run(&fleet, &["queue", "weight", "split", "split-v2=0"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    fleet.gateways[1].restart();
    fleet.gateways[1].ready().await;
    assert_eq!(status_of(&fleet, "split-v2").await["weights"], json!([0, 5]));
    let output = run_as(&fleet, "operator", &["status", "--interval", "1"]).await;
    let page = text(&output.stdout);
    assert!(page.contains("endpoint split: the gateways have different weights"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_change_while_workers_are_killed_and_nothing_runs_twice() {
    const KILLS: usize = 4;
    let mut fleet = fleet(2, 3).await;
    add_ledger_versions(&fleet);
    for worker in &mut fleet.workers {
        reload::worker(worker).await;
    }
    for gateway in &mut fleet.gateways {
        reload::signal(gateway, "ok").await;
    }
    let mut seed = SeededRandom::new();
    let load = LedgerLoad::start(&GatewayRotation::new(clients(&fleet)), &mut seed);
    load.wait_for_more(100).await;
    for kill in 0..KILLS {
        let worker = seed.index(3);
        fleet.workers[worker].process.kill();
        let second = format!("ledger-once-v2={}", if kill % 2 == 0 { 0 } else { 200 });
        let output = run(&fleet, &["queue", "weight", "ledger-once", &second]).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        load.wait_for_more(100).await;
        fleet.workers[worker].restart();
        fleet.workers[worker].ready().await;
    }
    let answers = load.stop().await;
    let reconciliation = reconcile("changing weights, kill -9", &answers, fleet.ledger());
    reconciliation.no_request_lost().failures_at_most(KILLS * CALLERS);
    for (id, versions) in executed_versions(&fleet) {
        assert!(versions.iter().all(|version| *version == versions[0]), "{id}: {versions:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_weights_change_nothing_and_the_reason_is_given() {
    let fleet = fleet(2, 1).await;
    for (arguments, expected) in [
        (
            &["split", "split-v2=0", "split=0"][..],
            "endpoint split: the weights of all its queues would be 0",
        ),
        (
            &["split", "split-v3=1"],
            "endpoint split: it has no queue \"split-v3\": expected one of split, split-v2",
        ),
        (&["slow", "slow=1"], "endpoint slow: it has only the queue slow"),
        (&["none", "none=1"], "there is no endpoint \"none\""),
    ] {
        let output = run(&fleet, &[&["queue", "weight"], arguments].concat()).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let errors = text(&output.stderr);
        assert_eq!(errors.matches(expected).count(), 2, "{arguments:?}: {errors}");
        assert!(errors.contains("error: gateway "), "{errors}");
    }
    for (arguments, expected) in [
        (&["split"][..], "QUEUE=WEIGHT"),
        (&["split", "split-v2"], "split-v2: expected QUEUE=WEIGHT"),
        (
            &["split", "split-v2=-1"],
            "split-v2=-1: expected QUEUE=WEIGHT, with a whole number from 0 to 1000000",
        ),
        (&["split", "split-v2=1.5"], "split-v2=1.5: expected QUEUE=WEIGHT"),
        (&["split", "split-v2=1000001"], "split-v2=1000001: expected QUEUE=WEIGHT"),
        (&["split", "split v2=1"], "split v2=1: expected"),
        (&["split", "split-v2=1", "split-v2=2"], "split-v2: given more than once"),
        (&["s plit", "split-v2=1"], "s plit: expected"),
    ] {
        let output = run(&fleet, &[&["queue", "weight"], arguments].concat()).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(expected), "{arguments:?}: {}", text(&output.stderr));
    }
    assert_eq!(status_of(&fleet, "split-v2").await["weights"], json!([5]));

    // Only a user with the permission may change weights.
    let output =
        run_as(&fleet, "operator", &["queue", "weight", "split", "split-v2=0", "--timeout", "1"])
            .await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("no reply to weigh-queues within 1s"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(status_of(&fleet, "split-v2").await["weights"], json!([5]));

    let output = run(&fleet, &["queue", "weight", "split", "split-v2=6", "--json"]).await;
    let report = document(&output);
    assert_eq!(report["members"].as_array().map(Vec::len), Some(2), "only gateways: {report}");
    for gateway in &fleet.gateways {
        let audit = gateway.process.log_line(&["received a command", "split split-v2=6"]).await;
        let audit: Value = serde_json::from_str(&audit).expect("JSON");
        assert_eq!(audit["command"], "weigh-queues", "{audit}");
        assert!(audit["by"].as_str().is_some_and(|by| by.starts_with("grace@")), "{audit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_hangs_is_named_and_the_others_change() {
    let mut fleet = fleet(2, 1).await;
    fleet.gateways[1].process.pause();
    let user = "messaging.nats.system.user=system".to_owned();
    let password = format!("messaging.nats.system.password={SHIPPED_PASSWORD}");
    let arguments = [
        "queue",
        "weight",
        "split",
        "split-v2=0",
        "--timeout",
        "2",
        "--json",
        "--set",
        &user,
        "--set",
        &password,
    ];
    let output = run(&fleet, &arguments).await;
    fleet.gateways[1].process.resume();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let report = document(&output);
    let members = report["members"].as_array().expect("the members");
    let silent: Vec<_> = members.iter().filter(|one| one["replied_to"].is_null()).collect();
    assert_eq!((members.len(), silent.len()), (2, 1), "{report}");
    assert_eq!(silent[0]["faults"][0], "no reply to weigh-queues within 2s");
    // If the sender of a command has stopped waiting, the command is not executed later. The gateways therefore
    // differ until it is repeated.
    assert_eq!(status_of(&fleet, "split-v2").await["weights"], json!([0, 5]));
    let output = run(&fleet, &arguments).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}
