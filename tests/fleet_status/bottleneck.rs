//! `fjord status` names the bottleneck, and a Prometheus that scrapes the same fleet agrees.

use std::process::Stdio;
use std::time::SystemTime;

use serde_json::Value;

use super::status_command::{status, text};
use crate::metrics::shipped_rules::panels;
use crate::support::caller_pool::CallerPool;
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fjord_process::FjordProcess;
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::prometheus::{self, PACE, Prometheus};

/// The number of callers of the saturated queue. With four callers for each slot, most waits are between 0.5 and 1 s,
/// in one bucket.
const CALLERS: usize = 24;
/// The number of slots for each queue in each worker.
const LIMIT: u32 = 2;
const WORKERS: u32 = 3;

#[track_caller]
fn near(name: &str, value: &Value, expected: f64, tolerance: f64) {
    let value = value.as_f64().expect("a number");
    println!("{name}: fjord status {value:.3}, expected or by PromQL {expected:.3}");
    let off = (value - expected).abs();
    assert!(off <= expected * tolerance, "{name}: {value} is not near {expected}");
}

/// Runs `fjord status` with text output and, at the same time, with JSON output.
fn run_status(fleet: &Fleet) -> (String, Value) {
    let monitoring = format!("messaging.nats.monitoring={}", fleet.nats.servers[0].monitoring());
    let seconds = PACE.as_secs().to_string();
    let arguments = ["--interval", seconds.as_str(), "--set", monitoring.as_str()];
    let mut page = status(fleet.gateways[0].directory(), &arguments);
    let page = page.stdout(Stdio::piped()).spawn().expect("fjord runs");
    let document = status(fleet.workers[0].directory(), &arguments).arg("--json").output();
    let page = text(&page.wait_with_output().expect("the process ends").stdout);
    let document = document.expect("fjord runs");
    let view = serde_json::from_slice(&document.stdout);
    (page, view.unwrap_or_else(|_| panic!("no JSON document: {}", text(&document.stderr))))
}

fn check_view(view: &Value) -> &Value {
    let bottleneck = &view["bottleneck"];
    assert_eq!((&bottleneck["kind"], &bottleneck["name"]), (&"queue".into(), &"slow".into()));
    let processes = view["processes"].as_array().expect("processes");
    let roles: Vec<_> = processes.iter().map(|each| each["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["gateway", "gateway", "worker", "worker", "worker"]);
    let queues = view["queues"].as_array().expect("queues");
    let slow = queues.iter().find(|queue| queue["name"] == "slow").expect("the queue");
    let there = (&slow["limit"], &slow["workers"]);
    assert_eq!(there, (&(LIMIT * WORKERS).into(), &WORKERS.into()), "{slow}");
    assert!(slow["saturated"].as_f64() > Some(0.5), "{slow}");
    assert!(slow["waiting"].as_u64() > Some(5), "{slow}");
    // Six slots with calls of 0.2 s allow 30 calls per second. A busy machine is slower.
    near("calls/s", &slow["calls_per_second"], 28.0, 0.35);
    near("p50, s", &slow["p50_seconds"], 0.2, 0.4);
    near("window, s", &view["window_seconds"], PACE.as_secs_f64(), 0.4);
    let nats = &view["nats"][0];
    // The connections are those of two gateways, three workers and two commands. One of the commands may have ended
    // already.
    assert!(matches!(nats["connections"].as_u64(), Some(6 | 7)), "{nats}");
    assert!(nats["in_messages_per_second"].as_f64() > Some(50.0), "{nats}");
    slow
}

/// Compares the values with Prometheus, both with the shipped rules and with the underlying metrics.
async fn check_prometheus(prometheus: &Prometheus, moment: SystemTime, slow: &Value) {
    let query = async |name: &str, of_queue: &str| {
        let value = prometheus.value(of_queue, Some(moment)).await;
        let value = value.unwrap_or_else(|| panic!("{of_queue} has no value"));
        println!("{name}: {of_queue} = {value:.3}");
        value
    };
    let of = |rule: &str| format!("{rule}{{queue=\"slow\"}}");
    let rate = format!("sum(rate({}[10s]))", of("fjord_worker_calls_total"));
    near("calls/s", &slow["calls_per_second"], query("throughput", &rate).await, 0.2);
    let arrivals = query("arrivals", &of("queue:fjord_arrivals:rate2m")).await;
    near("arrivals/s", &slow["arrivals_per_second"], arrivals, 0.2);
    let used = query("slots in use", &of("queue:fjord_slots_used:ratio2m")).await;
    near("utilization", &slow["utilization"], used, 0.15);
    let full = query("saturation", &of("queue:fjord_saturated:ratio5m")).await;
    near("saturated", &slow["saturated"], full, 0.15);
    let wait = query(
        "wait, p99",
        "histogram_quantile(0.99, sum by (le) (rate(fjord_gateway_queue_wait_seconds_bucket{queue=\"slow\"}[10s])))",
    );
    near("wait p99, s", &slow["wait_p99_seconds"], wait.await, 0.3);
    let needed = query("slots needed", &of("queue:fjord_slots_needed:now")).await;
    near("slots needed, with a fifth free", &slow["slots_needed"], needed / 0.8, 0.25);
    near("slots", &slow["limit"], query("slots", &of("queue:fjord_slots:sum")).await, 0.0);
    let workers = query("workers", &of("queue:fjord_workers:count")).await;
    near("workers", &slow["workers"], workers, 0.0);
    let at_p95 = query("workers needed", &of("queue:fjord_workers_needed:p95_1h")).await;
    assert!((4.0..=6.0).contains(&at_p95), "the load needs more than three workers");
    let headroom = query("headroom", &of("queue:fjord_workers_headroom:p95_1h")).await;
    assert!(
        (headroom - (workers - at_p95)).abs() < 0.5,
        "the headroom is the number of missing workers"
    );
}

/// Checks that every expression of the dashboard is valid and has data under load.
async fn check_dashboard(prometheus: &Prometheus) {
    let mut empty = Vec::new();
    for expression in panels("10s") {
        let series = prometheus.series(&expression).await;
        if series.unwrap_or_else(|| panic!("Prometheus does not take {expression}")) == 0 {
            empty.push(expression);
        }
    }
    // No endpoint requires authentication or limits its callers, and no request is lost, so these panels stay empty.
    let quiet = ["auth_failures", "rate_limited", "in_flight_limited", "resubmissions"];
    empty.retain(|expression: &String| !quiet.iter().any(|name| expression.contains(name)));
    assert_eq!(empty, Vec::<String>::new(), "panels without data");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saturated_queue_is_named_as_the_bottleneck_and_prometheus_agrees() {
    let (gateways, workers, concurrency) = (2, WORKERS as usize, LIMIT as usize);
    let options = FleetOptions { gateways, workers, concurrency, ..FleetOptions::default() };
    let fleet = Fleet::start(options).await;
    let executable = prometheus::server("the bottleneck with PromQL");
    let prometheus = match executable {
        Some(executable) => {
            let nodes = fleet.gateways.iter().chain(&fleet.workers);
            let targets: Vec<_> = nodes.map(FjordProcess::admin).collect();
            Some(Prometheus::start_at_pace(executable, &targets).await)
        }
        None => None,
    };
    let first = fleet.client();
    let clients = [first.clone(), first.at(fleet.gateways[1].https())];
    let full = CallerPool::start(&clients, "/v1/slow?ms=200", 200, CALLERS);
    let easy = CallerPool::start(&clients, "/v1/echo/1", 200, 1);
    let late = CallerPool::start(&clients, "/v1/strict?ms=5000", 504, 1);
    eventually_some("the queue is saturated for a whole window", SOON * 3, async || {
        let mut saturated = 0.0;
        for worker in &fleet.workers {
            saturated +=
                worker.metric(r#"fjord_worker_saturated_seconds_total{queue="slow"}"#).await;
        }
        (saturated > f64::from(WORKERS) * PACE.as_secs_f64()).then_some(())
    })
    .await;
    let (page, view) = run_status(&fleet);
    let moment = SystemTime::now();
    println!("{page}");
    let start = "The bottleneck is queue slow: all 6 slots of its 3 workers";
    assert!(page.starts_with(start), "{page}");
    let slow = check_view(&view);
    if let Some(prometheus) = &prometheus {
        check_prometheus(prometheus, moment, slow).await;
        check_dashboard(prometheus).await;
    }
    for callers in [full, easy, late] {
        callers.stop().await;
    }
}
