//! Compares two snapshots of the fleet.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::fleet::Report;

use super::bottleneck::{self, Bottleneck};
use super::monitoring::ServerSample;
use super::pools::{PoolView, pools};
use super::view::{NatsServerView, ProcessView, QueueView, ReportPair};

/// The state of the fleet, with rates between two snapshots.
#[derive(Clone, Debug, Serialize)]
pub(in crate::commands) struct FleetView {
    /// The time between the snapshots, in seconds.
    pub(super) window_seconds: f64,
    /// The bottleneck. Its kind is `None` if nothing limits the fleet.
    pub(super) bottleneck: Bottleneck,
    /// All gateways and workers.
    pub(in crate::commands) processes: Vec<ProcessView>,
    /// All queues, summed over the processes.
    pub(super) queues: Vec<QueueView>,
    /// The pools of workers.
    pub(in crate::commands) pools: Vec<PoolView>,
    /// The NATS servers, sampled through the system account or at the configured monitoring URLs.
    pub(super) nats: Vec<NatsServerView>,
}

/// The reports of the fleet and the samples of the NATS servers at one moment.
#[derive(Clone, Debug)]
pub(super) struct FleetSnapshot {
    pub(super) reports: Vec<Report>,
    pub(super) servers: Vec<(String, Result<ServerSample, String>)>,
}

impl FleetView {
    pub(super) fn between(earlier: &FleetSnapshot, later: &FleetSnapshot) -> Self {
        let processes: Vec<ProcessView> = later
            .reports
            .iter()
            .map(|report| {
                let before = earlier.reports.iter().find(|other| other.id == report.id);
                ProcessView::between(before, report)
            })
            .collect();
        let queues = queues(earlier, later);
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
        let window_seconds = window(earlier, later);
        let bottleneck = bottleneck::find(&processes, &queues, &nats);
        let pools = pools(&later.reports, &queues);
        Self { window_seconds, bottleneck, processes, queues, pools, nats }
    }
}

/// Returns the time between the snapshots: the largest difference between two uptimes of a process.
fn window(earlier: &FleetSnapshot, later: &FleetSnapshot) -> f64 {
    let differences = later.reports.iter().filter_map(|report| {
        let before = earlier.reports.iter().find(|other| other.id == report.id)?;
        Some(report.uptime_seconds - before.uptime_seconds)
    });
    differences.fold(0.0, f64::max)
}

/// Returns all queues of all processes.
fn queues(earlier: &FleetSnapshot, later: &FleetSnapshot) -> Vec<QueueView> {
    let mut queues: BTreeMap<&str, QueueView> = BTreeMap::new();
    for report in &later.reports {
        let before = earlier.reports.iter().find(|other| other.id == report.id);
        let pair = ReportPair::new(before, report);
        for (queue, earlier) in pair.queues() {
            let view = queues.entry(&queue.name).or_default();
            view.add(&pair, queue, earlier);
        }
    }
    for (name, view) in &mut queues {
        (*name).clone_into(&mut view.name);
        view.finish();
    }
    queues.into_values().collect()
}
