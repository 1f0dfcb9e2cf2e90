//! The gateway's report for `fjord status`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::admin::Readiness;
use crate::catalogue::Catalogue;
use crate::fleet::report::{DemandReport, QueueReport};
use crate::fleet::{Report, ReportSource};
use crate::telemetry::{Distribution, names, snapshot};

use crate::roles::gateway::pipeline::Pipeline;

/// Returns the function that creates the reports.
pub(super) fn source(pipeline: &Arc<Pipeline>, readiness: &Readiness) -> ReportSource {
    let (pipeline, readiness) = (Arc::clone(pipeline), readiness.clone());
    Arc::new(move |identity| {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let reasons =
            readiness.reasons().into_iter().map(|(part, reason)| (part.to_owned(), reason));
        Report {
            not_ready: reasons.chain(readiness.notes()).collect(),
            in_flight: count(pipeline.in_flight.in_use()),
            in_flight_max: count(pipeline.in_flight.limit()),
            queues: queues(&pipeline.active_config.load().catalogue),
            ..Report::new(identity)
        }
    })
}

/// Returns a report for each queue: its demand, and the results of its endpoints' requests.
fn queues(catalogue: &Catalogue) -> Vec<QueueReport> {
    let mut queues: BTreeMap<&str, QueueReport> = BTreeMap::new();
    let requests = snapshot::sums(&names::GATEWAY_REQUESTS, names::ENDPOINT);
    let errors = snapshot::sums_where(&names::GATEWAY_REQUESTS, names::ENDPOINT, |label| {
        label(names::STATUS).starts_with('5')
    });
    let times = snapshot::distributions(&names::GATEWAY_REQUEST_DURATION, names::ENDPOINT);
    let count = |sums: &BTreeMap<String, f64>, name: &str| {
        sums.get(name).copied().map_or(0, snapshot::to_count)
    };
    for endpoint in catalogue.endpoints() {
        let id = endpoint.id.as_str();
        let queue = queues.entry(endpoint.queue.as_str()).or_default();
        queue.calls += count(&requests, id);
        queue.errors += count(&errors, id);
        queue.times.add(times.get(id).unwrap_or(&Distribution::default()));
    }
    let arrivals = snapshot::sums(&names::GATEWAY_ARRIVALS, names::QUEUE);
    let waiting = snapshot::sums(&names::GATEWAY_WAITING, names::QUEUE);
    let mut waits = snapshot::distributions(&names::GATEWAY_QUEUE_WAIT, names::QUEUE);
    for (name, queue) in &mut queues {
        (*name).clone_into(&mut queue.name);
        queue.demand = Some(DemandReport {
            arrivals: count(&arrivals, name),
            waiting: count(&waiting, name),
            waits: waits.remove(*name).unwrap_or_default(),
        });
    }
    queues.into_values().collect()
}
