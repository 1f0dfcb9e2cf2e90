//! What two looks at the fleet say together: rates and times of what happened in between.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::fleet::Report;
use crate::fleet::report::{DatabaseReport, QueueReport, SlotsReport};
use crate::telemetry::{Distribution, count_as_f64};

use super::bottleneck::{self, Bottleneck};
use super::monitoring::{Failure, Look};

/// The fleet between two looks.
#[derive(Clone, Debug, Serialize)]
pub(super) struct View {
    /// Seconds between the looks.
    pub(super) window_seconds: f64,
    /// What holds everything else up, if anything does.
    pub(super) bottleneck: Bottleneck,
    /// Every gateway and worker.
    pub(super) processes: Vec<ProcessView>,
    /// Every queue, over all processes.
    pub(super) queues: Vec<QueueView>,
    /// Every NATS server whose monitoring is configured.
    pub(super) nats: Vec<ServerView>,
}

/// One process.
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
    pub(super) flow: Flow,
    pub(super) queues: Vec<ShareView>,
    pub(super) databases: Vec<DatabaseView>,
    /// Whether it has more queues than it could tell.
    pub(super) is_cut: bool,
}

/// What went through in the window.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Flow {
    pub(super) calls_per_second: f64,
    pub(super) errors_per_second: f64,
    pub(super) p50_seconds: Option<f64>,
    pub(super) p99_seconds: Option<f64>,
    #[serde(skip)]
    pub(super) times: Distribution,
}

/// A queue at one worker.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ShareView {
    pub(super) name: String,
    pub(super) limit: u64,
    pub(super) running: u64,
    pub(super) is_served: bool,
    /// Share of its slots that were in use.
    pub(super) utilization: f64,
    /// Share of the time in which all of them were.
    pub(super) saturated: f64,
    #[serde(flatten)]
    pub(super) flow: Flow,
}

/// A database as one worker sees it.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct DatabaseView {
    pub(super) name: String,
    pub(super) is_up: bool,
    /// Mean wait of a call for a connection.
    pub(super) wait_seconds: Option<f64>,
}

/// A queue over all processes.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct QueueView {
    pub(super) name: String,
    /// Workers that serve it now.
    pub(super) workers: u64,
    pub(super) limit: u64,
    pub(super) running: u64,
    /// Requests that wait for a slot.
    pub(super) waiting: u64,
    pub(super) utilization: f64,
    /// Share of the time in which all slots of a worker were taken, the mean of its workers.
    pub(super) saturated: f64,
    pub(super) arrivals_per_second: f64,
    /// Requests answered 500 to 599.
    pub(super) failed_per_second: f64,
    /// 99 of 100 requests waited less until a worker took them.
    pub(super) wait_p99_seconds: Option<f64>,
    /// Slots that the arrivals need (Little), with a fifth kept free.
    pub(super) slots_needed: Option<f64>,
    #[serde(flatten)]
    pub(super) flow: Flow,
    #[serde(skip)]
    pub(super) waits: Distribution,
}

/// One NATS server.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct ServerView {
    pub(super) url: String,
    /// Why there is nothing else.
    pub(super) failure: Option<String>,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) connections: u64,
    pub(super) slow_consumers: u64,
    /// Those of the window.
    pub(super) slow_consumers_new: u64,
    pub(super) in_messages_per_second: f64,
    pub(super) out_messages_per_second: f64,
    pub(super) in_bytes_per_second: f64,
    pub(super) out_bytes_per_second: f64,
    pub(super) cpu_percent: f64,
    /// The client that reads slowest, and what it has not read.
    pub(super) slowest_client: String,
    pub(super) slowest_pending_bytes: u64,
}

/// A look at everything.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) reports: Vec<Report>,
    pub(super) servers: Vec<(String, Result<Look, Failure>)>,
}

impl View {
    /// What two looks say.
    pub(super) fn between(earlier: &Snapshot, later: &Snapshot) -> Self {
        let processes: Vec<ProcessView> = later
            .reports
            .iter()
            .map(|report| {
                let before = earlier.reports.iter().find(|each| each.id == report.id);
                ProcessView::between(before, report)
            })
            .collect();
        let queues = queues(earlier, later);
        let nats: Vec<_> = later
            .servers
            .iter()
            .map(|(url, look)| {
                let before = earlier.servers.iter().find(|(each, _)| each == url);
                ServerView::between(url, before.and_then(|(_, look)| look.as_ref().ok()), look)
            })
            .collect();
        let window_seconds = window(earlier, later);
        let bottleneck = bottleneck::find(&processes, &queues, &nats);
        Self { window_seconds, bottleneck, processes, queues, nats }
    }
}

/// How far apart the looks are: as the process that was looked at longest says.
fn window(earlier: &Snapshot, later: &Snapshot) -> f64 {
    let apart = later.reports.iter().filter_map(|report| {
        let before = earlier.reports.iter().find(|each| each.id == report.id)?;
        Some(report.uptime_seconds - before.uptime_seconds)
    });
    apart.fold(0.0, f64::max)
}

/// A report and the one before it. Of a process that came in between, everything is new.
struct Pair<'a> {
    before: Option<&'a Report>,
    now: &'a Report,
    seconds: f64,
}

impl<'a> Pair<'a> {
    fn of(before: Option<&'a Report>, now: &'a Report) -> Self {
        let since = before.map_or(0.0, |before| before.uptime_seconds);
        Self { before, now, seconds: (now.uptime_seconds - since).max(1e-3) }
    }

    /// Every queue with itself before.
    fn queues(&self) -> impl Iterator<Item = (&'a QueueReport, Option<&'a QueueReport>)> {
        let before = self.before;
        self.now.queues.iter().map(move |queue| {
            let earlier =
                before.and_then(|before| before.queues.iter().find(|each| each.name == queue.name));
            (queue, earlier)
        })
    }

    fn rate(&self, now: u64, before: u64) -> f64 {
        count_as_f64(now.saturating_sub(before)) / self.seconds
    }

    fn share(&self, now: f64, before: f64) -> f64 {
        ((now - before) / self.seconds).max(0.0)
    }

    fn flow(&self, now: &QueueReport, before: Option<&QueueReport>) -> Flow {
        let calls = before.map_or(0, |before| before.calls);
        let errors = before.map_or(0, |before| before.errors);
        let flow = Flow {
            calls_per_second: self.rate(now.calls, calls),
            errors_per_second: self.rate(now.errors, errors),
            ..Flow::default()
        };
        flow.with(since(&now.times, before.map(|before| &before.times)))
    }
}

fn since(now: &Distribution, before: Option<&Distribution>) -> Distribution {
    before.map_or_else(|| now.clone(), |before| now.since(before))
}

impl Flow {
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
    fn between(before: Option<&Report>, now: &Report) -> Self {
        let pair = Pair::of(before, now);
        let mut flow = Flow::default();
        let mut shares = Vec::new();
        for (queue, earlier) in pair.queues() {
            let own = pair.flow(queue, earlier);
            flow.add(&own);
            if let Some(slots) = &queue.slots {
                let earlier = earlier.and_then(|earlier| earlier.slots.as_ref());
                shares.push(ShareView::between(&pair, &queue.name, (slots, earlier), own));
            }
        }
        let database = |database: &DatabaseReport| {
            let earlier = before
                .and_then(|before| before.databases.iter().find(|each| each.name == database.name));
            DatabaseView {
                name: database.name.clone(),
                is_up: database.is_up,
                wait_seconds: since(&database.waits, earlier.map(|each| &each.waits)).mean(),
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
            queues: shares,
            is_cut: now.is_cut,
            flow,
        }
    }
}

impl ShareView {
    fn between(
        pair: &Pair<'_>,
        name: &str,
        (now, before): (&SlotsReport, Option<&SlotsReport>),
        flow: Flow,
    ) -> Self {
        let (used, full) = before.map_or((0.0, 0.0), |each| (each.used_seconds, each.full_seconds));
        Self {
            name: name.to_owned(),
            limit: now.limit,
            running: now.running,
            is_served: now.is_served,
            utilization: (pair.share(now.used_seconds, used) / count_as_f64(now.limit.max(1)))
                .min(1.0),
            saturated: pair.share(now.full_seconds, full).min(1.0),
            flow,
        }
    }
}

/// Every queue that anybody knows.
fn queues(earlier: &Snapshot, later: &Snapshot) -> Vec<QueueView> {
    let mut queues: BTreeMap<&str, QueueView> = BTreeMap::new();
    for report in &later.reports {
        let before = earlier.reports.iter().find(|each| each.id == report.id);
        let pair = Pair::of(before, report);
        for (queue, earlier) in pair.queues() {
            let view = queues.entry(&queue.name).or_default();
            view.add(&pair, queue, earlier);
        }
    }
    for (name, view) in &mut queues {
        (*name).clone_into(&mut view.name);
        view.conclude();
    }
    queues.into_values().collect()
}

impl QueueView {
    fn add(&mut self, pair: &Pair<'_>, now: &QueueReport, before: Option<&QueueReport>) {
        let flow = pair.flow(now, before);
        if let Some(slots) = &now.slots {
            let earlier = before.and_then(|before| before.slots.as_ref());
            let share = ShareView::between(pair, &now.name, (slots, earlier), flow);
            self.flow.add(&share.flow);
            self.running += slots.running;
            self.waiting += slots.waiting;
            if slots.is_served {
                self.workers += 1;
                self.limit += slots.limit;
                // Sums for now: `conclude` makes means of them.
                self.utilization += share.utilization * count_as_f64(slots.limit);
                self.saturated += share.saturated;
            }
        } else if let Some(demand) = &now.demand {
            let earlier = before.and_then(|before| before.demand.as_ref());
            let arrivals = earlier.map_or(0, |earlier| earlier.arrivals);
            self.arrivals_per_second += pair.rate(demand.arrivals, arrivals);
            self.failed_per_second += flow.errors_per_second;
            self.waiting += demand.waiting;
            self.waits.add(&since(&demand.waits, earlier.map(|earlier| &earlier.waits)));
        }
    }

    fn conclude(&mut self) {
        self.utilization /= count_as_f64(self.limit.max(1));
        self.saturated /= count_as_f64(self.workers.max(1));
        self.wait_p99_seconds = self.waits.quantile(0.99);
        let arrivals = self.arrivals_per_second.max(self.flow.calls_per_second);
        self.slots_needed =
            self.flow.times.mean().map(|mean| (arrivals * mean / bottleneck::SHARE_USED).ceil());
    }
}

impl ServerView {
    fn between(url: &str, before: Option<&Look>, now: &Result<Look, Failure>) -> Self {
        let (look, failure) = match now {
            Ok(look) => (Some(look), None),
            Err(failure) => (None, Some(failure.clone())),
        };
        let figures = look.map(|look| look.figures.clone()).unwrap_or_default();
        let earlier = before.map_or_else(|| figures.clone(), |before| before.figures.clone());
        let apart = before.zip(look).map(|(before, look)| look.at.duration_since(before.at));
        let seconds = apart.map_or(1.0, |apart| apart.as_secs_f64()).max(1e-3);
        let rate = |now: u64, before: u64| count_as_f64(now.saturating_sub(before)) / seconds;
        let slowest = look.and_then(|look| look.slowest.clone()).unwrap_or_default();
        Self {
            url: url.to_owned(),
            failure,
            connections: figures.connections,
            slow_consumers: figures.slow_consumers,
            slow_consumers_new: figures.slow_consumers.saturating_sub(earlier.slow_consumers),
            in_messages_per_second: rate(figures.in_msgs, earlier.in_msgs),
            out_messages_per_second: rate(figures.out_msgs, earlier.out_msgs),
            in_bytes_per_second: rate(figures.in_bytes, earlier.in_bytes),
            out_bytes_per_second: rate(figures.out_bytes, earlier.out_bytes),
            cpu_percent: figures.cpu,
            name: figures.server_name,
            version: figures.version,
            slowest_client: if slowest.name.is_empty() { slowest.ip } else { slowest.name },
            slowest_pending_bytes: slowest.pending_bytes,
        }
    }
}
