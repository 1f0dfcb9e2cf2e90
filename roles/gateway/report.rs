//! The gateway's report for `fjord status`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::admin::Readiness;
use crate::catalogue::Catalogue;
use crate::fleet::report::{DemandReport, QueueReport, WeightedQueueReport};
use crate::fleet::{Report, ReportSource};
use crate::telemetry::{Distribution, names, snapshot};

use crate::roles::gateway::pipeline::Pipeline;

mod delivery;

/// Returns the function that creates the reports.
pub(super) fn source(pipeline: &Arc<Pipeline>, readiness: &Readiness) -> ReportSource {
    let (pipeline, readiness) = (Arc::clone(pipeline), readiness.clone());
    Arc::new(move |identity| {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let reasons =
            readiness.reasons().into_iter().map(|(part, reason)| (part.to_owned(), reason));
        let active_config = pipeline.active_config.load();
        let answered = AnsweredRequests::read();
        let mut queues = queues(&active_config.catalogue, &answered);
        delivery::add(&mut queues, &pipeline.dispatcher.queues());
        Report {
            not_ready: reasons.chain(readiness.notes()).collect(),
            in_flight: count(pipeline.in_flight.in_use()),
            in_flight_max: count(pipeline.in_flight.limit()),
            weighted_queues: answered.of_weighted_queues(&active_config.catalogue),
            without_queue: answered.of_queue(NO_QUEUE),
            queues,
            ..Report::new(identity)
        }
    })
}

/// The value of a missing label. Requests that were answered before they were assigned to a queue have no queue label.
const NO_QUEUE: &str = "";

/// The requests of one endpoint that were assigned to one queue, or to none.
#[derive(Debug, Default)]
struct AnsweredCounts {
    requests: u64,
    client_errors: u64,
    server_errors: u64,
    times: Distribution,
}

/// The requests that this gateway has answered since its start, by queue and by endpoint.
#[derive(Debug, Default)]
struct AnsweredRequests(BTreeMap<String, BTreeMap<String, AnsweredCounts>>);

impl AnsweredRequests {
    fn read() -> Self {
        let mut all = Self::default();
        snapshot::for_each_value(&names::GATEWAY_REQUESTS, |label, value| {
            let (counts, status) = (all.entry(label), label(names::STATUS));
            let number = snapshot::to_count(value);
            counts.requests += number;
            if status.starts_with('5') {
                counts.server_errors += number;
            } else if status.starts_with('4') && status != "499" {
                counts.client_errors += number;
            }
        });
        snapshot::for_each_distribution(&names::GATEWAY_REQUEST_DURATION, |label, times| {
            all.entry(label).times.add(&times);
        });
        all
    }

    fn entry(&mut self, label: &dyn Fn(&str) -> String) -> &mut AnsweredCounts {
        let endpoints = self.0.entry(label(names::QUEUE)).or_default();
        endpoints.entry(label(names::ENDPOINT)).or_default()
    }

    /// Returns the sum over all endpoints, including those that a reload has removed.
    fn of_queue(&self, queue: &str) -> QueueReport {
        let mut report = QueueReport { name: queue.to_owned(), ..QueueReport::default() };
        for counts in self.0.get(queue).into_iter().flat_map(BTreeMap::values) {
            report.calls += counts.requests;
            report.errors += counts.server_errors;
            report.times.add(&counts.times);
        }
        report
    }

    /// Returns a report for each queue of each endpoint with several queues, in the order of the catalogue.
    fn of_weighted_queues(&self, catalogue: &Catalogue) -> Vec<WeightedQueueReport> {
        let endpoints = catalogue.endpoints().iter().filter(|one| one.queues.has_several());
        let mut reports = Vec::new();
        for endpoint in endpoints {
            for (queue, weight) in endpoint.queues.weights() {
                let endpoints = self.0.get(queue.name.as_str());
                let counts = endpoints.and_then(|counts| counts.get(endpoint.id.as_str()));
                let none = AnsweredCounts::default();
                let counts = counts.unwrap_or(&none);
                reports.push(WeightedQueueReport {
                    endpoint: endpoint.id.to_string(),
                    queue: queue.name.to_string(),
                    weight: weight.into(),
                    catalogue_weight: queue.weight.into(),
                    requests: counts.requests,
                    client_errors: counts.client_errors,
                    server_errors: counts.server_errors,
                    times: counts.times.clone(),
                });
            }
        }
        reports
    }
}

/// Returns a report for each queue of the catalogue: its demand, and the requests that were assigned to it.
fn queues(catalogue: &Catalogue, answered: &AnsweredRequests) -> Vec<QueueReport> {
    let arrivals = snapshot::sums(&names::GATEWAY_ARRIVALS, names::QUEUE);
    let waiting = snapshot::sums(&names::GATEWAY_WAITING, names::QUEUE);
    let mut waits = snapshot::distributions(&names::GATEWAY_QUEUE_WAIT, names::QUEUE);
    let count = |sums: &BTreeMap<String, f64>, name: &str| {
        sums.get(name).copied().map_or(0, snapshot::to_count)
    };
    let endpoints = catalogue.endpoints().iter();
    let queues: BTreeSet<&str> = endpoints
        .flat_map(|endpoint| endpoint.queues.iter().map(|queue| queue.name.as_str()))
        .collect();
    let report = |name: &str| {
        let demand = DemandReport {
            arrivals: count(&arrivals, name),
            waiting: count(&waiting, name),
            waits: waits.remove(name).unwrap_or_default(),
        };
        QueueReport { demand: Some(demand), ..answered.of_queue(name) }
    };
    queues.into_iter().map(report).collect()
}
