//! The state of the fleet, computed from two snapshots. `fjord status` and the page of the admin listener show it.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::fleet::Report;
use crate::fleet::report::QueueReport;

mod activity;
mod bottleneck;
mod diagnosis;
pub(crate) mod format;
mod idle_workers;
mod nats_server;
mod pools;
pub(crate) mod weighted_queues;

use activity::ReportPair;

pub(crate) use activity::{CallRates, ProcessView, QueueView, WorkerQueueView};
pub(crate) use bottleneck::Bottleneck;
pub(crate) use diagnosis::QueueDiagnosis;
pub(crate) use idle_workers::{IdleWorker, idle_workers};
pub(crate) use nats_server::{
    Connz, MonitoredConnection, MonitoredConnections, NatsServerView, ServerSample, Varz,
};
pub(crate) use pools::PoolView;
pub(crate) use weighted_queues::WeightedQueueView;

/// The state of the fleet, with rates between two snapshots.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FleetView {
    /// The time between the snapshots, in seconds.
    pub(crate) window_seconds: f64,
    /// Whether the fleet has more processes than a query collects, so that some are missing.
    pub(crate) is_cut_off: bool,
    /// The bottleneck. Its kind is `None` if nothing limits the fleet.
    pub(crate) bottleneck: Bottleneck,
    /// All gateways and workers.
    pub(crate) processes: Vec<ProcessView>,
    /// All queues, summed over the processes.
    pub(crate) queues: Vec<QueueView>,
    /// The pools of workers.
    pub(crate) pools: Vec<PoolView>,
    /// The queues of endpoints with several queues, summed over the gateways.
    pub(crate) weighted_queues: Vec<WeightedQueueView>,
    /// The NATS servers, sampled through the system account or at the configured monitoring URLs.
    pub(crate) nats: Vec<NatsServerView>,
}

/// The reports of the fleet and the samples of the NATS servers at one moment.
#[derive(Clone, Debug)]
pub(crate) struct FleetSnapshot {
    pub(crate) reports: Vec<Report>,
    /// Whether reports are missing because the limits of the query were reached.
    pub(crate) is_cut_off: bool,
    pub(crate) servers: Vec<(String, Result<ServerSample, String>)>,
}

impl FleetView {
    pub(crate) fn between(earlier: &FleetSnapshot, later: &FleetSnapshot) -> Self {
        let pairs = pairs(earlier, later);
        let processes: Vec<ProcessView> =
            pairs.iter().map(|(before, report)| ProcessView::between(*before, report)).collect();
        let queues = queues(&pairs);
        let nats: Vec<_> = later
            .servers
            .iter()
            .map(|(url, sample)| {
                let before = earlier.servers.iter().find(|(other, _)| other == url);
                NatsServerView::between(
                    url,
                    before.and_then(|(_, sample)| sample.as_ref().ok()),
                    sample,
                )
            })
            .collect();
        let weighted_queues = weighted_queues::weighted_queues(&earlier.reports, &later.reports);
        let window_seconds = window(&pairs);
        let pools = pools::pools(&later.reports, &queues);
        let bottleneck = bottleneck::find(&processes, &queues, &nats);
        let is_cut_off = earlier.is_cut_off || later.is_cut_off;
        Self {
            window_seconds,
            is_cut_off,
            bottleneck,
            processes,
            queues,
            pools,
            weighted_queues,
            nats,
        }
    }
}

/// A report of a process, and its earlier report if there is one.
type Pair<'a> = (Option<&'a Report>, &'a Report);

fn pairs<'a>(earlier: &'a FleetSnapshot, later: &'a FleetSnapshot) -> Vec<Pair<'a>> {
    let by_id: HashMap<&str, &Report> =
        earlier.reports.iter().map(|report| (report.id.as_str(), report)).collect();
    later.reports.iter().map(|report| (by_id.get(report.id.as_str()).copied(), report)).collect()
}

/// Returns the time between the snapshots: the largest difference between two uptimes of a process.
fn window(pairs: &[Pair<'_>]) -> f64 {
    let differences = pairs
        .iter()
        .filter_map(|(before, report)| Some(report.uptime_seconds - (*before)?.uptime_seconds));
    differences.fold(0.0, f64::max)
}

/// Returns all queues of all processes.
fn queues(pairs: &[Pair<'_>]) -> Vec<QueueView> {
    let mut queues: BTreeMap<&str, QueueView> = BTreeMap::new();
    let (window, empty) = (window(pairs), QueueReport::default());
    for (before, report) in pairs {
        let pair = ReportPair::new(*before, report);
        // All counts of a process that has started since the earlier snapshot, and of a new queue, are those since then.
        let is_new = report.uptime_seconds <= window;
        let is_complete = is_new || before.is_some_and(|before| !before.is_truncated);
        for (queue, earlier) in pair.queues() {
            let view = queues.entry(&queue.name).or_default();
            view.add(&pair, queue, earlier);
            view.diagnosis.add(queue, earlier.or_else(|| is_complete.then_some(&empty)));
        }
    }
    for (name, view) in &mut queues {
        (*name).clone_into(&mut view.name);
        view.finish();
    }
    queues.into_values().collect()
}
