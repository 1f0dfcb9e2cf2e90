//! If the queues of a process do not fit into one message, the process reports the most important ones, and `fjord status` says
//! what is missing.

use std::collections::HashSet;
use std::fmt::Write as _;

use fjord::fleet::Report;
use serde_json::Value;

use super::status_command::{status, text};
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::nats::NatsOptions;

/// The number of queues in addition to those of the tests' catalogue.
const QUEUES: usize = 300;
/// The NATS server's `max_payload`, in bytes. A report of all queues is larger.
const PAYLOAD_BYTES_MAX: usize = 65_536;

fn catalogue() -> String {
    let mut text = String::from("{");
    for n in 0..QUEUES {
        let separator = if n == 0 { "" } else { "," };
        write!(
            text,
            r#"{separator} "many-{n}": {{ "route": "GET /v1/many/{n}", "handler": "echo", "result": "json",
                "timeout": "2s", "auth": "public" }}"#
        )
        .expect("text");
    }
    text + "}"
}

/// Starts a fleet in which every queue has had a request.
async fn fleet(payload_bytes_max: usize) -> Fleet {
    let nats = NatsOptions { has_tls: false, payload_bytes_max, ..NatsOptions::default() };
    let catalogue = Some(("many.json", &*catalogue().leak()));
    let fleet = Fleet::start(FleetOptions { nats, catalogue, ..FleetOptions::default() }).await;
    for n in 0..QUEUES {
        fleet.client().get(&format!("/v1/many/{n}")).await.is(200);
    }
    fleet
}

/// Queries the fleet, and returns the payloads of the replies of a gateway and a worker.
async fn reports(fleet: &Fleet) -> Vec<(usize, Report)> {
    let client = async_nats::connect(&fleet.nats.urls()[0]).await.expect("the connection succeeds");
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await.expect("a subscription");
    client.publish_with_reply("fjord.status", inbox, "".into()).await.expect("it is published");
    let mut reports = Vec::new();
    for _ in 0..2 {
        let reply = futures_util::StreamExt::next(&mut replies).await.expect("a reply");
        reports.push((reply.payload.len(), serde_json::from_slice(&reply.payload).expect("JSON")));
    }
    reports
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_is_too_large_keeps_the_active_queues_and_says_how_many_it_omits() {
    let fleet = fleet(PAYLOAD_BYTES_MAX).await;
    let client = fleet.client();
    let slow_call = fjord::lifecycle::Tasks::new()
        .spawn(async move { drop(client.get("/v1/slow?ms=20000").await) });
    let running = r#"fjord_worker_running{queue="slow"}"#;
    eventually_some("the call runs", SOON, async || {
        (fleet.workers[0].metric(running).await > 0.5).then_some(())
    })
    .await;
    for (bytes, report) in reports(&fleet).await {
        let (kept, omitted) = (report.queues.len(), report.queues_omitted);
        println!("{} {bytes} bytes: {kept} queues, {omitted} omitted", report.role);
        assert!(bytes <= PAYLOAD_BYTES_MAX && bytes > PAYLOAD_BYTES_MAX / 2, "{bytes}");
        assert!(report.is_truncated && kept > 10 && omitted > 10);
        assert!(report.queues.iter().any(|queue| queue.name == "slow"), "its call is running");
    }
    let arguments = ["--interval", "1"];
    let page = status(fleet.gateways[0].directory(), &arguments).output().expect("fjord runs");
    let page = text(&page.stdout);
    println!("{page}");
    let start = "No bottleneck is known: not all queues fit into the processes' reports.";
    assert!(page.starts_with(start), "{page}");
    assert!(page.contains(" queues are omitted, because they do not fit into one message"));
    let rows = page.lines().filter(|line| line.starts_with("many-")).count();
    assert!(rows == 0 && page.contains(" idle)"), "idle queues have no rows: {page}");
    let output = status(fleet.gateways[0].directory(), &["--interval", "1", "--json"]).output();
    let view: Value = serde_json::from_slice(&output.expect("fjord runs").stdout).expect("JSON");
    assert_eq!(view["bottleneck"]["kind"], "none", "{}", view["bottleneck"]);
    let queues = view["queues"].as_array().expect("queues");
    let slow = queues.iter().find(|queue| queue["name"] == "slow").expect("the queue");
    assert!(slow["utilization"].as_f64() > Some(0.05), "both reports have the queue: {slow}");
    for process in view["processes"].as_array().expect("processes") {
        assert!(process["queues_omitted"].as_u64() > Some(10), "{process}");
    }
    for process in fleet.gateways.iter().chain(&fleet.workers) {
        let log = process.process.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("omits queues")).collect();
        let [line] = lines[..] else { panic!("it is logged once: {lines:#?}") };
        assert!(line.contains("weighted_queues_omitted"), "{line}");
    }
    slow_call.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_fits_omits_nothing() {
    let fleet = fleet(NatsOptions::default().payload_bytes_max).await;
    for (bytes, report) in reports(&fleet).await {
        let number = report.queues.len();
        let queue_bytes = bytes / number;
        println!("{}: {bytes} bytes, {queue_bytes} bytes for each queue", report.role);
        assert!((100..1_000).contains(&queue_bytes), "1 MiB has room for at least 1,000 queues");
        assert!(!report.is_truncated && report.queues_omitted == 0);
        let names: HashSet<&str> = report.queues.iter().map(|queue| queue.name.as_str()).collect();
        assert!((0..QUEUES).all(|n| names.contains(format!("many-{n}").as_str())));
        assert!(bytes > PAYLOAD_BYTES_MAX, "it would not fit into the other test's messages");
    }
}
