//! Processes, queues and servers as `fjord status` shows them, computed from two reports or samples of each.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::fleet::Report;
use crate::fleet::report::{DatabaseReport, QueueReport, SlotsReport};
use crate::telemetry::{Distribution, count_as_f64};

use super::monitoring::ServerSample;

/// The largest share of its slots that a queue should use, so that waits stay short. The recording rules use the same
/// value.
const TARGET_UTILIZATION: f64 = 0.8;

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct ProcessView {
    pub(super) role: String,
    pub(super) id: String,
    pub(super) host: String,
    pub(super) version: String,
    pub(super) uptime_seconds: f64,
    pub(super) not_ready: BTreeMap<String, String>,
    pub(super) in_flight: u64,
    pub(super) in_flight_max: u64,
    #[serde(flatten)]
    pub(super) rates: CallRates,
    pub(super) queues: Vec<WorkerQueueView>,
    pub(super) databases: Vec<DatabaseView>,
    /// Whether the queues are missing because they did not fit into the report.
    pub(super) is_truncated: bool,
}

/// Calls between two reports.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct CallRates {
    pub(super) calls_per_second: f64,
    pub(super) errors_per_second: f64,
    pub(super) p50_seconds: Option<f64>,
    pub(super) p99_seconds: Option<f64>,
    #[serde(skip)]
    pub(super) times: Distribution,
}

/// A queue in one worker.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct WorkerQueueView {
    pub(super) name: String,
    pub(super) limit: u64,
    pub(super) running: u64,
    pub(super) is_served: bool,
    pub(super) is_paused: bool,
    /// The number of slots that the configuration has. `None` if the worker's version does not report it.
    pub(super) limit_configured: Option<u64>,
    /// The share of the slots that were in use.
    pub(super) utilization: f64,
    /// The share of the time during which all slots were in use.
    pub(super) saturated: f64,
    #[serde(flatten)]
    pub(super) rates: CallRates,
}

/// A database in one worker.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct DatabaseView {
    pub(super) name: String,
    pub(super) is_up: bool,
    /// The mean time that a call waits for a connection.
    pub(super) wait_seconds: Option<f64>,
}

/// A queue, summed over all processes.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct QueueView {
    pub(super) name: String,
    /// The number of workers that serve the queue.
    pub(super) workers: u64,
    /// The number of those workers in which the queue is paused.
    pub(super) paused: u64,
    pub(super) limit: u64,
    pub(super) running: u64,
    /// The number of requests that are waiting for a slot.
    pub(super) waiting: u64,
    pub(super) utilization: f64,
    /// The share of the time during which all slots of a worker were in use, averaged over the workers.
    pub(super) saturated: f64,
    pub(super) arrivals_per_second: f64,
    /// The rate of requests with a status of 500 to 599.
    pub(super) failed_per_second: f64,
    /// The 99th percentile of the time until a worker accepted the request.
    pub(super) wait_p99_seconds: Option<f64>,
    /// The number of slots that the arrivals need by Little's law if a fifth of them is kept free.
    pub(super) slots_needed: Option<f64>,
    #[serde(flatten)]
    pub(super) rates: CallRates,
    #[serde(skip)]
    pub(super) waits: Distribution,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct NatsServerView {
    pub(super) url: String,
    /// The reason why the other fields are empty.
    pub(super) failure: Option<String>,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) connections: u64,
    pub(super) slow_consumers: u64,
    /// The number of new slow consumers since the earlier sample.
    pub(super) slow_consumers_new: u64,
    pub(super) in_messages_per_second: f64,
    pub(super) out_messages_per_second: f64,
    pub(super) in_bytes_per_second: f64,
    pub(super) out_bytes_per_second: f64,
    pub(super) cpu_percent: f64,
    /// The client with the most unread bytes.
    pub(super) slowest_client: String,
    pub(super) slowest_pending_bytes: u64,
}

/// Two reports of a process. Without an earlier report, rates are averaged over the time since the process started.
pub(super) struct ReportPair<'a> {
    before: Option<&'a Report>,
    now: &'a Report,
    seconds: f64,
}

impl<'a> ReportPair<'a> {
    pub(super) fn new(before: Option<&'a Report>, now: &'a Report) -> Self {
        let since = before.map_or(0.0, |before| before.uptime_seconds);
        Self { before, now, seconds: (now.uptime_seconds - since).max(1e-3) }
    }

    /// Returns every queue's report with its earlier report.
    pub(super) fn queues(
        &self,
    ) -> impl Iterator<Item = (&'a QueueReport, Option<&'a QueueReport>)> {
        let before = self.before;
        self.now.queues.iter().map(move |queue| {
            let earlier = before
                .and_then(|before| before.queues.iter().find(|other| other.name == queue.name));
            (queue, earlier)
        })
    }

    fn rate(&self, now: u64, before: u64) -> f64 {
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

    fn add(&mut self, other: &Self) {
        self.calls_per_second += other.calls_per_second;
        self.errors_per_second += other.errors_per_second;
        let mut times = std::mem::take(&mut self.times);
        times.add(&other.times);
        *self = std::mem::take(self).with(times);
    }
}

impl ProcessView {
    pub(super) fn between(before: Option<&Report>, now: &Report) -> Self {
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
    pub(super) fn add(
        &mut self,
        pair: &ReportPair<'_>,
        now: &QueueReport,
        before: Option<&QueueReport>,
    ) {
        let rates = pair.rates(now, before);
        if let Some(slots) = &now.slots {
            let earlier = before.and_then(|before| before.slots.as_ref());
            let queue = WorkerQueueView::between(pair, &now.name, (slots, earlier), rates);
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
            self.waiting += demand.waiting;
            self.waits.add(&since(&demand.waits, earlier.map(|earlier| &earlier.waits)));
        }
    }

    /// Turns sums into means. Must be called after the last process has been added.
    pub(super) fn finish(&mut self) {
        self.utilization /= count_as_f64(self.limit.max(1));
        self.saturated /= count_as_f64(self.workers.max(1));
        self.wait_p99_seconds = self.waits.quantile(0.99);
        let arrivals = self.arrivals_per_second.max(self.rates.calls_per_second);
        self.slots_needed =
            self.rates.times.mean().map(|mean| (arrivals * mean / TARGET_UTILIZATION).ceil());
    }
}

impl NatsServerView {
    pub(super) fn between(
        url: &str,
        before: Option<&ServerSample>,
        now: &Result<ServerSample, String>,
    ) -> Self {
        let (sample, failure) = match now {
            Ok(sample) => (Some(sample), None),
            Err(failure) => (None, Some(failure.clone())),
        };
        let values = sample.map(|sample| sample.values.clone()).unwrap_or_default();
        let earlier = before.map_or_else(|| values.clone(), |before| before.values.clone());
        let elapsed =
            before.zip(sample).map(|(before, sample)| sample.at.duration_since(before.at));
        let seconds = elapsed.map_or(1.0, |elapsed| elapsed.as_secs_f64()).max(1e-3);
        let rate = |now: u64, before: u64| count_as_f64(now.saturating_sub(before)) / seconds;
        let slowest = sample.and_then(|sample| sample.slowest.clone()).unwrap_or_default();
        Self {
            url: url.to_owned(),
            failure,
            connections: values.connections,
            slow_consumers: values.slow_consumers,
            slow_consumers_new: values.slow_consumers.saturating_sub(earlier.slow_consumers),
            in_messages_per_second: rate(values.in_msgs, earlier.in_msgs),
            out_messages_per_second: rate(values.out_msgs, earlier.out_msgs),
            in_bytes_per_second: rate(values.in_bytes, earlier.in_bytes),
            out_bytes_per_second: rate(values.out_bytes, earlier.out_bytes),
            cpu_percent: values.cpu,
            name: values.server_name,
            version: values.version,
            slowest_client: if slowest.name.is_empty() { slowest.ip } else { slowest.name },
            slowest_pending_bytes: slowest.pending_bytes,
        }
    }
}
