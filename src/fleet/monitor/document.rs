//! The JSON document requested by the page of the admin listener.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio::time::Instant;

use crate::fleet::ProcessIdentity;
use crate::fleet::view::{
    Bottleneck, FleetView, ProcessView, QueueView, WorkerQueueView, known_sum,
};
use crate::telemetry::Distribution;

use super::history::{FleetHistory, HistorySeries};
use super::members::MissingMember;
use super::{Collected, INTERVAL};

/// The maximum number of queues in a document.
const QUEUES_MAX: usize = 200;

/// The state of this process.
pub(super) struct Source<'a> {
    pub(super) process: &'a ProcessIdentity,
    pub(super) covers_fleet: bool,
    pub(super) nats: &'static str,
    pub(super) now: Instant,
}

#[derive(Serialize)]
struct PageDocument<'a> {
    /// The process that serves the page.
    process: ServingProcess<'a>,
    /// Whether the process queries the fleet.
    covers_fleet: bool,
    /// The state of the process's connection to NATS.
    nats: &'static str,
    interval_seconds: f64,
    /// The age of the data. `None` before the first query.
    age_seconds: Option<f64>,
    /// The reason why the last query failed.
    failure: Option<&'a str>,
    /// Whether the limits of a query were reached. If so, processes are missing from the document.
    is_cut_off: bool,
    bottleneck: Option<&'a Bottleneck>,
    processes: Vec<ProcessRow<'a>>,
    missing: Vec<MissingMember<'a>>,
    /// The queues, sorted by the number of waiting requests and then by the number of requests, in
    /// descending order.
    queues: Vec<&'a QueueView>,
    /// The number of queues left out of the document.
    queues_hidden: usize,
    /// The sums over all queues.
    totals: Option<Totals>,
    /// The age of the oldest point in the history, in seconds.
    history_seconds: Option<f64>,
    history: HistoryDocument<'a>,
}

#[derive(Default, Serialize)]
struct Totals {
    requests_per_second: f64,
    request_p99_seconds: Option<f64>,
    failed_per_second: f64,
    running: u64,
    limit: u64,
    waiting: u64,
}

#[derive(Serialize)]
struct ServingProcess<'a> {
    role: &'static str,
    id: &'a str,
    host: &'a str,
    version: &'static str,
}

#[derive(Serialize)]
struct ProcessRow<'a> {
    role: &'a str,
    id: &'a str,
    host: &'a str,
    version: &'a str,
    uptime_seconds: f64,
    not_ready: &'a BTreeMap<String, String>,
    in_flight: u64,
    in_flight_max: u64,
    cpu_cores: Option<f64>,
    memory_bytes: Option<u64>,
    calls_per_second: f64,
    errors_per_second: f64,
    p50_seconds: Option<f64>,
    p99_seconds: Option<f64>,
    /// The number of `queues` that the worker is serving.
    queues_served: usize,
    queues: usize,
    /// The queues whose limit an operator has changed.
    changed_limits: Vec<ChangedLimit<'a>>,
    databases_down: Vec<&'a str>,
    is_truncated: bool,
    /// The number of queues that the report of the process lacks, if known; otherwise 0.
    queues_omitted: u64,
    /// Whether rates are missing, because the process has not sent two reports with all its queues.
    is_partial: bool,
}

#[derive(Serialize)]
struct ChangedLimit<'a> {
    name: &'a str,
    limit: u64,
    limit_configured: u64,
}

#[derive(Serialize)]
struct HistoryDocument<'a> {
    /// The queue, or `None` for the whole fleet.
    queue: Option<&'a str>,
    /// Whether a history of the queue is kept.
    is_kept: bool,
    #[serde(flatten)]
    series: HistorySeries,
}

/// Returns the document, with the history of a queue or of the whole fleet.
pub(super) fn render(source: &Source<'_>, collected: &Collected, queue: Option<&str>) -> Vec<u8> {
    let view = collected.view.as_ref();
    let (queues, queues_hidden) = view.map(queues).unwrap_or_default();
    let document = PageDocument {
        process: ServingProcess {
            role: source.process.role.as_str(),
            id: &source.process.id,
            host: &source.process.host,
            version: env!("CARGO_PKG_VERSION"),
        },
        covers_fleet: source.covers_fleet,
        nats: source.nats,
        interval_seconds: INTERVAL.as_secs_f64(),
        age_seconds: collected
            .sampled_at
            .map(|at| source.now.saturating_duration_since(at).as_secs_f64()),
        failure: collected.failure.as_deref(),
        is_cut_off: collected.is_cut_off,
        bottleneck: view.map(|view| &view.bottleneck),
        processes: view.map_or_else(Vec::new, |view| view.processes.iter().map(row).collect()),
        missing: collected.members.missing(source.now),
        queues,
        queues_hidden,
        totals: view.map(|view| totals(&view.queues)),
        history_seconds: collected.history.age_seconds(source.now),
        history: history(&collected.history, queue, source.now),
    };
    // Serializing to memory does not fail.
    serde_json::to_vec(&document).unwrap_or_default()
}

fn queues(view: &FleetView) -> (Vec<&QueueView>, usize) {
    let mut queues: Vec<&QueueView> = view.queues.iter().collect();
    // `f64::max` ignores unknown rates.
    let requests =
        |queue: &QueueView| queue.arrivals_per_second.max(queue.rates.calls_per_second).max(0.0);
    queues.sort_by(|a, b| {
        b.waiting
            .cmp(&a.waiting)
            .then(requests(b).total_cmp(&requests(a)))
            .then(a.name.cmp(&b.name))
    });
    let hidden = queues.len().saturating_sub(QUEUES_MAX);
    queues.truncate(QUEUES_MAX);
    (queues, hidden)
}

fn totals(queues: &[QueueView]) -> Totals {
    let sum = |value: fn(&QueueView) -> f64| known_sum(queues.iter().map(value));
    let mut totals = Totals {
        requests_per_second: sum(|queue| queue.arrivals_per_second),
        failed_per_second: sum(|queue| queue.failed_per_second),
        ..Totals::default()
    };
    let mut times = Distribution::default();
    for queue in queues {
        totals.running += queue.running;
        totals.limit += queue.limit;
        totals.waiting += queue.waiting;
        times.add(&queue.request_times);
    }
    totals.request_p99_seconds = times.quantile(0.99);
    totals
}

fn row(process: &ProcessView) -> ProcessRow<'_> {
    let down = process.databases.iter().filter(|database| !database.is_up);
    ProcessRow {
        role: &process.role,
        id: &process.id,
        host: &process.host,
        version: &process.version,
        uptime_seconds: process.uptime_seconds,
        not_ready: &process.not_ready,
        in_flight: process.in_flight,
        in_flight_max: process.in_flight_max,
        cpu_cores: process.cpu_cores,
        memory_bytes: process.memory_bytes,
        calls_per_second: process.rates.calls_per_second,
        errors_per_second: process.rates.errors_per_second,
        p50_seconds: process.rates.p50_seconds,
        p99_seconds: process.rates.p99_seconds,
        queues_served: process.queues.iter().filter(|queue| queue.is_served).count(),
        queues: process.queues.len(),
        changed_limits: process.queues.iter().filter_map(changed_limit).collect(),
        databases_down: down.map(|database| database.name.as_str()).collect(),
        is_truncated: process.is_truncated,
        queues_omitted: process.queues_omitted,
        is_partial: process.is_partial,
    }
}

fn changed_limit(queue: &WorkerQueueView) -> Option<ChangedLimit<'_>> {
    let configured = queue.limit_configured.filter(|configured| *configured != queue.limit)?;
    Some(ChangedLimit { name: &queue.name, limit: queue.limit, limit_configured: configured })
}

fn history<'a>(
    history: &FleetHistory,
    queue: Option<&'a str>,
    now: Instant,
) -> HistoryDocument<'a> {
    let series = history.series(queue, now);
    HistoryDocument { queue, is_kept: series.is_some(), series: series.unwrap_or_default() }
}
