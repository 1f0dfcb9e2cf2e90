//! The activity of processes and queues, computed from two reports of each process.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::fleet::report::{DatabaseReport, QueueReport, SlotsReport};
use crate::telemetry::{Distribution, count_as_f64};

use super::diagnosis::QueueDiagnosis;
use super::rates::{CallRates, UNKNOWN, known_sum};
use super::report_pair::{ReportPair, since};

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ProcessView {
    pub(crate) role: String,
    pub(crate) id: String,
    pub(crate) host: String,
    pub(crate) version: String,
    pub(crate) uptime_seconds: f64,
    pub(crate) not_ready: BTreeMap<String, String>,
    pub(crate) in_flight: u64,
    pub(crate) in_flight_max: u64,
    /// The CPU time per second, in cores, if known.
    pub(crate) cpu_cores: Option<f64>,
    pub(crate) memory_bytes: Option<u64>,
    #[serde(flatten)]
    pub(crate) rates: CallRates,
    pub(crate) queues: Vec<WorkerQueueView>,
    pub(crate) databases: Vec<DatabaseView>,
    /// Whether queues are missing because they did not fit into the report.
    pub(crate) is_truncated: bool,
    /// The number of these queues. Zero if the process does not report it.
    pub(crate) queues_omitted: u64,
    /// The number of missing queues of endpoints with several queues. Zero if the process does not report it.
    pub(crate) weighted_queues_omitted: u64,
    /// Whether rates are missing because the two reports do not both contain all queues.
    pub(crate) is_partial: bool,
}

/// A queue in one worker.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct WorkerQueueView {
    pub(crate) name: String,
    pub(crate) limit: u64,
    pub(crate) running: u64,
    pub(crate) is_served: bool,
    pub(crate) is_paused: bool,
    /// The configured number of slots. `None` if the worker's version does not report it.
    pub(crate) limit_configured: Option<u64>,
    /// The share of the slots that was in use, or `UNKNOWN`.
    pub(crate) utilization: f64,
    /// The share of the time during which all slots were in use, or `UNKNOWN`.
    pub(crate) saturated: f64,
    #[serde(flatten)]
    pub(crate) rates: CallRates,
}

/// A database in one worker.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct DatabaseView {
    pub(crate) name: String,
    pub(crate) is_up: bool,
    /// The mean time for which a call waits for a connection.
    pub(crate) wait_seconds: Option<f64>,
}

/// A queue, summed over all processes. Rates and shares include only the processes that have sent two reports
/// containing the queue. They are `UNKNOWN` if there is no such process.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct QueueView {
    pub(crate) name: String,
    /// The number of workers that serve the queue.
    pub(crate) workers: u64,
    /// The number of these workers in which the queue is paused.
    pub(crate) paused: u64,
    pub(crate) limit: u64,
    /// The number of slots configured in the workers. Operators may have overridden it in `limit`.
    pub(crate) limit_configured: u64,
    pub(crate) running: u64,
    /// The number of requests that are waiting for a slot.
    pub(crate) waiting: u64,
    pub(crate) utilization: f64,
    /// The share of the time during which all slots of a worker were in use, averaged over the workers.
    pub(crate) saturated: f64,
    pub(crate) arrivals_per_second: f64,
    /// The rate of requests with a status of 500 to 599.
    pub(crate) failed_per_second: f64,
    /// The outcome of the last failed call in one of the workers. Empty if unknown.
    pub(crate) last_error: String,
    pub(crate) request_p50_seconds: Option<f64>,
    /// The 99th percentile of the time from request to response in the gateways.
    pub(crate) request_p99_seconds: Option<f64>,
    /// The 99th percentile of the time until a worker accepted a request.
    pub(crate) wait_p99_seconds: Option<f64>,
    /// The number of slots that the arrival rate requires by Little's law, with a fifth of the slots kept free.
    pub(crate) slots_needed: Option<f64>,
    /// Whether the rates exclude processes that have not sent two reports containing the queue.
    pub(crate) is_partial: bool,
    #[serde(flatten)]
    pub(crate) rates: CallRates,
    #[serde(flatten)]
    pub(crate) diagnosis: QueueDiagnosis,
    #[serde(skip)]
    pub(crate) waits: Distribution,
    #[serde(skip)]
    pub(crate) request_times: Distribution,
    /// The number of workers from which the shares are computed, and the number of their slots.
    #[serde(skip)]
    pub(crate) measured: (u64, u64),
}

impl ProcessView {
    pub(crate) fn between(pair: &ReportPair<'_>) -> Self {
        let now = pair.now;
        let (rates, is_partial) = pair.total();
        let queue = |(queue, earlier)| WorkerQueueView::between(pair, queue, earlier);
        let database = |database: &DatabaseReport| DatabaseView {
            name: database.name.clone(),
            is_up: database.is_up,
            wait_seconds: pair.database_wait(database),
        };
        Self {
            role: now.role.clone(),
            id: now.id.clone(),
            host: now.host.clone(),
            version: now.version.clone(),
            uptime_seconds: now.uptime_seconds,
            not_ready: now.not_ready.clone(),
            in_flight: now.in_flight,
            in_flight_max: now.in_flight_max,
            cpu_cores: pair.cpu_cores(),
            memory_bytes: now.memory_bytes,
            databases: now.databases.iter().map(database).collect(),
            queues: pair.queues().filter_map(queue).collect(),
            is_truncated: now.is_truncated,
            queues_omitted: now.queues_omitted,
            weighted_queues_omitted: now.weighted_queues_omitted,
            rates,
            is_partial,
        }
    }
}

impl WorkerQueueView {
    /// Returns `None` for a gateway's queue.
    fn between(
        pair: &ReportPair<'_>,
        queue: &QueueReport,
        before: Option<&QueueReport>,
    ) -> Option<Self> {
        let now = queue.slots.as_ref()?;
        let earlier = before.and_then(|before| before.slots.as_ref());
        let earlier = |value: fn(&SlotsReport) -> f64| earlier.map(value);
        let used = pair.share(now.used_seconds, earlier(|slots| slots.used_seconds));
        let full = pair.share(now.full_seconds, earlier(|slots| slots.full_seconds));
        Some(Self {
            name: queue.name.clone(),
            limit: now.limit,
            running: now.running,
            is_served: now.is_served,
            is_paused: now.is_paused,
            limit_configured: now.limit_configured,
            utilization: at_most_one(used / count_as_f64(now.limit.max(1))),
            saturated: at_most_one(full),
            rates: pair.rates(queue, before),
        })
    }
}

/// A queue counts as saturated if all its slots are in use for at least this share of the time.
const SATURATED: f64 = 0.5;

/// Returns a share that is at most 1. `UNKNOWN` stays `UNKNOWN`, which `f64::min` would replace.
fn at_most_one(share: f64) -> f64 {
    if share > 1.0 { 1.0 } else { share }
}

impl QueueView {
    /// Creates a queue to which `add` adds the queues of processes.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            utilization: UNKNOWN,
            saturated: UNKNOWN,
            arrivals_per_second: UNKNOWN,
            failed_per_second: UNKNOWN,
            rates: CallRates::UNKNOWN,
            ..Self::default()
        }
    }

    /// Adds the queue of one process.
    pub(crate) fn add(
        &mut self,
        pair: &ReportPair<'_>,
        now: &QueueReport,
        before: Option<&QueueReport>,
    ) {
        self.is_partial |= before.is_none();
        self.diagnosis.add(now, before);
        if let Some(slots) = &now.slots {
            self.running += slots.running;
            self.waiting += slots.waiting;
            let Some(queue) = WorkerQueueView::between(pair, now, before) else { return };
            self.add_worker(&queue, &now.last_error);
        } else if let Some(demand) = &now.demand {
            let earlier = before.and_then(|before| before.demand.as_ref());
            let rates = pair.rates(now, before);
            let arrivals = pair.rate(demand.arrivals, earlier.map(|earlier| earlier.arrivals));
            self.arrivals_per_second = known_sum([self.arrivals_per_second, arrivals]);
            self.failed_per_second = known_sum([self.failed_per_second, rates.errors_per_second]);
            self.request_times.add(&rates.times);
            self.waiting += demand.waiting;
            self.waits.add(&since(&demand.waits, earlier.map(|earlier| &earlier.waits)));
        }
    }

    /// Returns whether all slots were in use for most of the time.
    pub(crate) fn is_saturated(&self) -> bool {
        self.saturated >= SATURATED
    }

    fn add_worker(&mut self, queue: &WorkerQueueView, last_error: &str) {
        if self.last_error.is_empty() || queue.rates.errors_per_second > 0.0 {
            last_error.clone_into(&mut self.last_error);
        }
        self.rates.add(&queue.rates);
        if !queue.is_served {
            return;
        }
        self.workers += 1;
        self.paused += u64::from(queue.is_paused);
        self.limit += queue.limit;
        self.limit_configured += queue.limit_configured.unwrap_or(queue.limit);
        if !queue.utilization.is_nan() {
            let (workers, slots) = &mut self.measured;
            *workers += 1;
            *slots += queue.limit;
            // These values are sums until `finish` divides them.
            let used = queue.utilization * count_as_f64(queue.limit);
            self.utilization = known_sum([self.utilization, used]);
            self.saturated = known_sum([self.saturated, queue.saturated]);
        }
    }

    /// Converts sums into means. Must be called after the last process has been added.
    pub(crate) fn finish(&mut self) {
        let (workers, slots) = self.measured;
        self.utilization /= count_as_f64(slots.max(1));
        self.saturated /= count_as_f64(workers.max(1));
        self.wait_p99_seconds = self.waits.quantile(0.99);
        self.request_p50_seconds = self.request_times.quantile(0.5);
        self.request_p99_seconds = self.request_times.quantile(0.99);
        let load = self.load(count_as_f64(self.limit), 1.0);
        self.slots_needed = load.call_seconds.and_then(|_| load.slots_needed());
    }
}
