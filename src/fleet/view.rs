//! The state of the fleet, computed from two snapshots. `fjord status` and the page of the admin listener show it.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use crate::fleet::Report;

mod activity;
mod baseline;
mod bottleneck;
mod diagnosis;
pub(crate) mod format;
mod idle_workers;
mod nats_server;
mod pools;
mod rates;
mod report_pair;
mod stall;
pub(crate) mod weighted_queues;

use rates::UNKNOWN;
use report_pair::ReportPair;

pub(crate) use activity::{ProcessView, QueueView, WorkerQueueView};
pub(crate) use baseline::Baseline;
pub(crate) use bottleneck::Bottleneck;
pub(crate) use diagnosis::QueueDiagnosis;
pub(crate) use idle_workers::{IdleWorker, idle_workers};
pub(crate) use nats_server::{
    Connz, MonitoredConnection, MonitoredConnections, NatsServerView, ServerSample, Varz,
};
pub(crate) use pools::PoolView;
pub(crate) use rates::{CallRates, known_sum};
pub(crate) use weighted_queues::WeightedQueueView;

/// The state of the fleet, with rates computed between two snapshots.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FleetView {
    /// The longest time between two reports of the same process, in seconds. `UNKNOWN` if no process has sent two.
    pub(crate) window_seconds: f64,
    /// Whether processes are missing because the fleet has more than a query can collect.
    pub(crate) is_cut_off: bool,
    /// The bottleneck. Its kind is `None` if nothing limits the fleet.
    pub(crate) bottleneck: Bottleneck,
    /// All gateways and workers.
    pub(crate) processes: Vec<ProcessView>,
    /// All queues, summed over the processes.
    pub(crate) queues: Vec<QueueView>,
    /// The pools of workers.
    pub(crate) pools: Vec<PoolView>,
    /// The queues of endpoints that have several queues, summed over the gateways.
    pub(crate) weighted_queues: Vec<WeightedQueueView>,
    /// The NATS servers, sampled through the system account or at the configured monitoring URLs.
    pub(crate) nats: Vec<NatsServerView>,
}

/// The reports of the fleet and the samples of the NATS servers at a point in time.
#[derive(Clone, Debug)]
pub(crate) struct FleetSnapshot {
    pub(crate) reports: Vec<Report>,
    /// Whether reports are missing because the limits of the query were reached.
    pub(crate) is_cut_off: bool,
    pub(crate) servers: Vec<(String, Result<ServerSample, String>)>,
}

impl FleetView {
    /// Returns the state of the fleet in a snapshot, with rates since the earlier reports.
    pub(crate) fn since(baseline: &Baseline, later: &FleetSnapshot) -> Self {
        let pairs: Vec<ReportPair<'_>> =
            later.reports.iter().map(|report| baseline.pair(report)).collect();
        let processes: Vec<ProcessView> = pairs.iter().map(ProcessView::between).collect();
        let queues = queues(&pairs);
        let servers = later.servers.iter();
        let nats: Vec<_> = servers
            .map(|(url, sample)| NatsServerView::between(url, baseline.server(url), sample))
            .collect();
        let seconds = pairs.iter().filter_map(ReportPair::seconds);
        let pools = pools::pools(&later.reports, &queues);
        let bottleneck = bottleneck::find(&processes, &queues, &nats);
        Self {
            window_seconds: seconds.reduce(f64::max).unwrap_or(UNKNOWN),
            is_cut_off: baseline.is_cut_off || later.is_cut_off,
            bottleneck,
            processes,
            queues,
            pools,
            weighted_queues: weighted_queues::weighted_queues(&pairs),
            nats,
        }
    }
}

/// Returns all queues of all processes.
fn queues(pairs: &[ReportPair<'_>]) -> Vec<QueueView> {
    let mut queues: BTreeMap<&str, QueueView> = BTreeMap::new();
    for pair in pairs {
        for (queue, earlier) in pair.queues() {
            let view = queues.entry(&queue.name).or_insert_with(|| QueueView::new(&queue.name));
            view.add(pair, queue, earlier);
        }
    }
    for pair in pairs.iter().filter(|pair| pair.now.is_truncated) {
        let reported: HashSet<&str> =
            pair.now.queues.iter().map(|queue| queue.name.as_str()).collect();
        let is_gateway = pair.now.role == "gateway";
        for (_, view) in queues.iter_mut().filter(|(name, _)| !reported.contains(*name)) {
            view.diagnosis.may_lack_gateways |= is_gateway;
            view.diagnosis.may_lack_workers |= !is_gateway;
        }
    }
    queues.values_mut().for_each(QueueView::finish);
    queues.into_values().collect()
}

#[cfg(test)]
mod tests;
