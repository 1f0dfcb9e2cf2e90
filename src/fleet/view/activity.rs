//! The activity of processes and queues, computed from two reports of each process.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::fleet::Report;
use crate::fleet::report::{DatabaseReport, QueueReport, SlotsReport};
use crate::telemetry::{Distribution, count_as_f64};

use super::diagnosis::QueueDiagnosis;

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
    /// Whether the queues are missing because they did not fit into the report.
    pub(crate) is_truncated: bool,
}

/// Calls between two reports.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct CallRates {
    pub(crate) calls_per_second: f64,
    pub(crate) errors_per_second: f64,
    pub(crate) p50_seconds: Option<f64>,
    pub(crate) p99_seconds: Option<f64>,
    #[serde(skip)]
    pub(crate) times: Distribution,
}

/// A queue in one worker.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct WorkerQueueView {
    pub(crate) name: String,
    pub(crate) limit: u64,
    pub(crate) running: u64,
    pub(crate) is_served: bool,
    pub(crate) is_paused: bool,
    /// The number of slots that the configuration has. `None` if the worker's version does not report it.
    pub(crate) limit_configured: Option<u64>,
    /// The share of the slots that were in use.
    pub(crate) utilization: f64,
    /// The share of the time during which all slots were in use.
    pub(crate) saturated: f64,
    #[serde(flatten)]
    pub(crate) rates: CallRates,
}

/// A database in one worker.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct DatabaseView {
    pub(crate) name: String,
    pub(crate) is_up: bool,
    /// The mean time that a call waits for a connection.
    pub(crate) wait_seconds: Option<f64>,
}

/// A queue, summed over all processes.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct QueueView {
    pub(crate) name: String,
    /// The number of workers that serve the queue.
    pub(crate) workers: u64,
    /// The number of those workers in which the queue is paused.
    pub(crate) paused: u64,
    pub(crate) limit: u64,
    pub(crate) running: u64,
    /// The number of requests that are waiting for a slot.
    pub(crate) waiting: u64,
    pub(crate) utilization: f64,
    /// The share of the time during which all slots of a worker were in use, averaged over the workers.
    pub(crate) saturated: f64,
    pub(crate) arrivals_per_second: f64,
    /// The rate of requests with a status of 500 to 599.
    pub(crate) failed_per_second: f64,
    /// The outcome of the last failed call in one of the workers; empty if none is known.
    pub(crate) last_error: String,
    pub(crate) request_p50_seconds: Option<f64>,
    /// The 99th percentile of the time from request to response, in the gateways.
    pub(crate) request_p99_seconds: Option<f64>,
    /// The 99th percentile of the time until a worker accepted the request.
    pub(crate) wait_p99_seconds: Option<f64>,
    /// The number of slots that the arrivals need by Little's law if a fifth of them is kept free.
    pub(crate) slots_needed: Option<f64>,
    #[serde(flatten)]
    pub(crate) rates: CallRates,
    #[serde(flatten)]
    pub(crate) diagnosis: QueueDiagnosis,
    #[serde(skip)]
    pub(crate) waits: Distribution,
    #[serde(skip)]
    pub(crate) request_times: Distribution,
}

/// Two reports of a process. Without an earlier report, rates are averaged over the time since the process started.
pub(crate) struct ReportPair<'a> {
    before: Option<&'a Report>,
    now: &'a Report,
    seconds: f64,
}

impl<'a> ReportPair<'a> {
    pub(crate) fn new(before: Option<&'a Report>, now: &'a Report) -> Self {
        let since = before.map_or(0.0, |before| before.uptime_seconds);
        Self { before, now, seconds: (now.uptime_seconds - since).max(1e-3) }
    }

    /// Returns every queue's report with its earlier report.
    pub(crate) fn queues(
        &self,
    ) -> impl Iterator<Item = (&'a QueueReport, Option<&'a QueueReport>)> {
        let before = self.before;
        self.now.queues.iter().map(move |queue| {
            let earlier = before
                .and_then(|before| before.queues.iter().find(|other| other.name == queue.name));
            (queue, earlier)
        })
    }

    pub(crate) fn rate(&self, now: u64, before: u64) -> f64 {
        count_as_f64(now.saturating_sub(before)) / self.seconds
    }

    fn share(&self, now: f64, before: f64) -> f64 {
        ((now - before) / self.seconds).max(0.0)
    }

    fn rates(&self, now: &QueueReport, before: Option<&QueueReport>) -> CallRates {
        let calls = before.map_or(0, |before| before.calls);
        let errors = before.map_or(0, |before| before.errors);
        let rates = CallRates {
            calls_per_second: self.rate(now.calls, calls),
            errors_per_second: self.rate(now.errors, errors),
            ..CallRates::default()
        };
        rates.with(since(&now.times, before.map(|before| &before.times)))
    }
}

fn since(now: &Distribution, before: Option<&Distribution>) -> Distribution {
    before.map_or_else(|| now.clone(), |before| now.since(before))
}

impl CallRates {
    fn with(mut self, times: Distribution) -> Self {
        self.p50_seconds = times.quantile(0.5);
        self.p99_seconds = times.quantile(0.99);
        self.times = times;
        self
    }

    /// Adds the calls of another process or queue.
    pub(crate) fn add(&mut self, other: &Self) {
        self.calls_per_second += other.calls_per_second;
        self.errors_per_second += other.errors_per_second;
        let mut times = std::mem::take(&mut self.times);
        times.add(&other.times);
        *self = std::mem::take(self).with(times);
    }
}

impl ProcessView {
    pub(crate) fn between(before: Option<&Report>, now: &Report) -> Self {
        let pair = ReportPair::new(before, now);
        let mut rates = CallRates::default();
        let mut worker_queues = Vec::new();
        for (queue, earlier) in pair.queues() {
            let own = pair.rates(queue, earlier);
            rates.add(&own);
            if let Some(slots) = &queue.slots {
                let earlier = earlier.and_then(|earlier| earlier.slots.as_ref());
                worker_queues.push(WorkerQueueView::between(
                    &pair,
                    &queue.name,
                    (slots, earlier),
                    own,
                ));
            }
        }
        let database = |database: &DatabaseReport| {
            let earlier = before.and_then(|before| {
                before.databases.iter().find(|other| other.name == database.name)
            });
            DatabaseView {
                name: database.name.clone(),
                is_up: database.is_up,
                wait_seconds: since(&database.waits, earlier.map(|other| &other.waits)).mean(),
            }
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
            cpu_cores: now.cpu_seconds.map(|used| {
                pair.share(used, before.and_then(|before| before.cpu_seconds).unwrap_or_default())
            }),
            memory_bytes: now.memory_bytes,
            databases: now.databases.iter().map(database).collect(),
            queues: worker_queues,
            is_truncated: now.is_truncated,
            rates,
        }
    }
}

impl WorkerQueueView {
    fn between(
        pair: &ReportPair<'_>,
        name: &str,
        (now, before): (&SlotsReport, Option<&SlotsReport>),
        rates: CallRates,
    ) -> Self {
        let (used, full) =
            before.map_or((0.0, 0.0), |slots| (slots.used_seconds, slots.full_seconds));
        Self {
            name: name.to_owned(),
            limit: now.limit,
            running: now.running,
            is_served: now.is_served,
            is_paused: now.is_paused,
            limit_configured: now.limit_configured,
            utilization: (pair.share(now.used_seconds, used) / count_as_f64(now.limit.max(1)))
                .min(1.0),
            saturated: pair.share(now.full_seconds, full).min(1.0),
            rates,
        }
    }
}

impl QueueView {
    /// Adds the queue of one process.
    pub(crate) fn add(
        &mut self,
        pair: &ReportPair<'_>,
        now: &QueueReport,
        before: Option<&QueueReport>,
    ) {
        let rates = pair.rates(now, before);
        if let Some(slots) = &now.slots {
            let earlier = before.and_then(|before| before.slots.as_ref());
            let queue = WorkerQueueView::between(pair, &now.name, (slots, earlier), rates);
            if self.last_error.is_empty() || queue.rates.errors_per_second > 0.0 {
                self.last_error.clone_from(&now.last_error);
            }
            self.rates.add(&queue.rates);
            self.running += slots.running;
            self.waiting += slots.waiting;
            if slots.is_served {
                self.workers += 1;
                self.paused += u64::from(slots.is_paused);
                self.limit += slots.limit;
                // These are sums until `finish` divides them.
                self.utilization += queue.utilization * count_as_f64(slots.limit);
                self.saturated += queue.saturated;
            }
        } else if let Some(demand) = &now.demand {
            let earlier = before.and_then(|before| before.demand.as_ref());
            let arrivals = earlier.map_or(0, |earlier| earlier.arrivals);
            self.arrivals_per_second += pair.rate(demand.arrivals, arrivals);
            self.failed_per_second += rates.errors_per_second;
            self.request_times.add(&rates.times);
            self.waiting += demand.waiting;
            self.waits.add(&since(&demand.waits, earlier.map(|earlier| &earlier.waits)));
        }
    }

    /// Turns sums into means. Must be called after the last process has been added.
    pub(crate) fn finish(&mut self) {
        self.utilization /= count_as_f64(self.limit.max(1));
        self.saturated /= count_as_f64(self.workers.max(1));
        self.wait_p99_seconds = self.waits.quantile(0.99);
        self.request_p50_seconds = self.request_times.quantile(0.5);
        self.request_p99_seconds = self.request_times.quantile(0.99);
        let load = self.load(count_as_f64(self.limit), 1.0);
        self.slots_needed = load.call_seconds.map(|_| load.slots_needed());
    }
}
