//! Simulated processes, which consist only of their replies to status queries over a real NATS server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fjord::fleet::Report;
use fjord::fleet::report::{DatabaseReport, DemandReport, QueueReport, SlotsReport};
use fjord::lifecycle::Tasks;
use fjord::telemetry::{Distribution, count_as_f64};
use futures_util::StreamExt;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The name of a host and of a queue. In HTML, it would be executed as code.
pub(crate) const HOSTILE: &str = "<img src=x onerror=\"window.injected=1\"><b>";
/// The number of queues.
const QUEUES: usize = 24;
/// Each worker serves one out of this number of queues.
const WORKER_SHARE: usize = 6;
/// One out of this number of processes is a gateway.
const GATEWAY_SHARE: usize = 10;

/// Simulated processes that answer status queries until this value is dropped.
#[derive(Debug)]
pub(crate) struct SimulatedFleet {
    queries: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl SimulatedFleet {
    /// Starts `number` processes, connected to the server at `url`.
    pub(crate) async fn start(url: &str, number: usize) -> Self {
        Self::start_after(url, number, &[0]).await
    }

    /// Starts `number` processes each time the number of queries reaches a value in `queries_before`. Processes that
    /// are started later replace the earlier ones, and have the same names.
    pub(crate) async fn start_after(url: &str, number: usize, queries_before: &[usize]) -> Self {
        let queries_before = queries_before.to_vec();
        let client = async_nats::connect(url).await.expect("the connection succeeds");
        let mut requests = client.subscribe("fjord.status").await.expect("a subscription");
        client.flush().await.expect("the server has the subscription");
        let queries = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&queries);
        let mut started = vec![None; queries_before.len()];
        let task = Tasks::new().spawn(async move {
            while let Some(request) = requests.next().await {
                let earlier = counted.fetch_add(1, Ordering::Relaxed);
                let generation = queries_before.iter().filter(|before| **before <= earlier).count();
                let Some(inbox) = request.reply.filter(|_| generation > 0) else { continue };
                let started = started[generation - 1].get_or_insert_with(Instant::now);
                // A process that is started later has a lower age.
                let age = Duration::from_mins(10) / u32::try_from(generation).expect("a few");
                let seconds = (age + started.elapsed()).as_secs_f64();
                for process in 0..number {
                    let report = serde_json::to_vec(&report(process, seconds)).expect("JSON");
                    client.publish(inbox.clone(), report.into()).await.expect("it is published");
                }
            }
        });
        Self { queries, task }
    }

    /// Returns the number of queries that have arrived.
    pub(crate) fn queries(&self) -> usize {
        self.queries.load(Ordering::Relaxed)
    }
}

impl Drop for SimulatedFleet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns the report of a process that has run for some time.
fn report(process: usize, seconds: f64) -> Report {
    let is_gateway = process.is_multiple_of(GATEWAY_SHARE);
    let has_queue = |queue: &usize| is_gateway || (queue + process).is_multiple_of(WORKER_SHARE);
    let queues = (0..QUEUES).filter(has_queue);
    let queues = queues.map(|queue| queue_report(process, queue, seconds, is_gateway));
    let host = match process {
        5 => HOSTILE.to_owned(),
        _ => format!("host-{:03}.eu-west-1.compute.internal", process / 2),
    };
    let mut report = Report {
        role: if is_gateway { "gateway" } else { "worker" }.to_owned(),
        id: format!("{process:04}simulated"),
        host,
        version: if process.is_multiple_of(7) { "0.0.9" } else { env!("CARGO_PKG_VERSION") }
            .to_owned(),
        uptime_seconds: seconds,
        in_flight: 3 + wave(process, seconds),
        in_flight_max: if is_gateway { 10_000 } else { 96 },
        cpu_seconds: Some(seconds * 0.1 * count_as_f64(1 + as_count(process) % 8)),
        memory_bytes: (!process.is_multiple_of(11))
            .then_some(17_000_000 + 300_000 * as_count(process)),
        queues: queues.collect(),
        ..Report::default()
    };
    if process == 77 {
        report.not_ready.insert("nats".to_owned(), "not connected to NATS".to_owned());
    }
    if !is_gateway {
        let name = "default".to_owned();
        report.databases = vec![DatabaseReport { name, is_up: true, ..DatabaseReport::default() }];
    }
    report
}

fn queue_report(process: usize, queue: usize, seconds: f64, is_gateway: bool) -> QueueReport {
    let rate = 0.4 + count_as_f64((as_count(process) + as_count(queue) * 5) % 9);
    let calls = fjord::telemetry::snapshot::to_count(rate * seconds);
    let is_full = queue == 3;
    let call_seconds = if is_full { 0.4 } else { 0.012 };
    let mut report = QueueReport {
        name: if queue == 7 { HOSTILE.to_owned() } else { format!("queue-{queue:02}") },
        calls,
        errors: if queue == 11 { calls / 20 } else { 0 },
        last_error: if queue == 11 { "sql_timeout" } else { "" }.to_owned(),
        times: times(calls, call_seconds),
        ..QueueReport::default()
    };
    if is_gateway {
        report.demand = Some(DemandReport {
            arrivals: calls * 8,
            waiting: if is_full { 4 } else { 0 },
            waits: times(calls, if is_full { 0.3 } else { 0.001 }),
        });
        report.calls = calls * 8;
        report.times = times(calls * 8, call_seconds * 1.5);
    } else {
        report.slots = Some(SlotsReport {
            limit: 4,
            running: if is_full { 4 } else { 1 },
            used_seconds: seconds
                * if is_full { 3.9 } else { 0.2 + 0.1 * count_as_f64(as_count(queue) % 20) },
            full_seconds: if is_full { seconds * 0.8 } else { 0.0 },
            is_served: true,
            ..SlotsReport::default()
        });
    }
    report
}

/// Returns a number that changes from second to second, like the numbers of real processes.
fn wave(process: usize, seconds: f64) -> u64 {
    fjord::telemetry::snapshot::to_count(
        5.0 + 5.0 * (seconds / 7.0 + count_as_f64(as_count(process))).sin(),
    )
}

fn times(count: u64, seconds: f64) -> Distribution {
    let bounds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
    let share = |bound: f64| (bound / (bound + seconds * 0.5)).powi(3);
    let bucket = |bound: f64| {
        let below = share(bound) * count_as_f64(count);
        (bound, if bound >= 2.5 { count } else { fjord::telemetry::snapshot::to_count(below) })
    };
    let buckets = bounds.into_iter().map(bucket).collect();
    Distribution { count, seconds: count_as_f64(count) * seconds, buckets }
}

fn as_count(number: usize) -> u64 {
    u64::try_from(number).expect("a small number")
}
