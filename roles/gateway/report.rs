//! The gateway's report for `fjord status`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::admin::Readiness;
use crate::catalogue::{Catalogue, Endpoint, EndpointQueue};
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
        let weighted_queues = weighted_queues(&active_config.catalogue);
        let mut queues = queues(&active_config.catalogue, &weighted_queues);
        delivery::add(&mut queues, &pipeline.dispatcher.queues());
        Report {
            not_ready: reasons.chain(readiness.notes()).collect(),
            in_flight: count(pipeline.in_flight.in_use()),
            in_flight_max: count(pipeline.in_flight.limit()),
            queues,
            weighted_queues,
            ..Report::new(identity)
        }
    })
}

/// Returns a report for each queue: its demand, and the results of its endpoints' requests.
fn queues(catalogue: &Catalogue, weighted: &[WeightedQueueReport]) -> Vec<QueueReport> {
    let mut queues: BTreeMap<&str, QueueReport> = BTreeMap::new();
    let requests = snapshot::sums(&names::GATEWAY_REQUESTS, names::ENDPOINT);
    let errors = snapshot::sums_where(&names::GATEWAY_REQUESTS, names::ENDPOINT, |label| {
        label(names::STATUS).starts_with('5')
    });
    let times = snapshot::distributions(&names::GATEWAY_REQUEST_DURATION, names::ENDPOINT);
    let count = |sums: &BTreeMap<String, f64>, name: &str| {
        sums.get(name).copied().map_or(0, snapshot::to_count)
    };
    let mut weighted = weighted.iter();
    for endpoint in catalogue.endpoints() {
        let id = endpoint.id.as_str();
        let (mut calls, mut failed) = (count(&requests, id), count(&errors, id));
        if endpoint.queues.has_several() {
            // Both are in the order of the catalogue.
            for (queue, own) in endpoint.queues.iter().zip(weighted.by_ref()) {
                let report = queues.entry(queue.name.as_str()).or_default();
                report.calls += own.requests;
                report.errors += own.server_errors;
                calls = calls.saturating_sub(own.requests);
                failed = failed.saturating_sub(own.server_errors);
            }
        }
        // Includes requests that were answered before they were given a queue.
        let queue = queues.entry(endpoint.queues.first().name.as_str()).or_default();
        queue.calls += calls;
        queue.errors += failed;
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

/// Returns a report for each queue of each endpoint with several queues, in the order of the catalogue.
fn weighted_queues(catalogue: &Catalogue) -> Vec<WeightedQueueReport> {
    let endpoints = || catalogue.endpoints().iter().filter(|one| one.queues.has_several());
    if endpoints().next().is_none() {
        return Vec::new();
    }
    let mut answered: BTreeMap<(String, String), [u64; 3]> = BTreeMap::new();
    snapshot::for_each_value(&names::GATEWAY_QUEUE_REQUESTS, |label, value| {
        let key = (label(names::ENDPOINT), label(names::QUEUE));
        let [all, client_errors, server_errors] = answered.entry(key).or_default();
        let (status, value) = (label(names::STATUS), snapshot::to_count(value));
        *all += value;
        if status.starts_with('5') {
            *server_errors += value;
        } else if status.starts_with('4') && status != "499" {
            *client_errors += value;
        }
    });
    let report = |endpoint: &Arc<Endpoint>| -> Vec<WeightedQueueReport> {
        let report = |(queue, weight): (&EndpointQueue, u32)| {
            let key = (endpoint.id.to_string(), queue.name.to_string());
            let answered = answered.get(&key).copied().unwrap_or_default();
            let [requests, client_errors, server_errors] = answered;
            let (endpoint, queue, catalogue_weight) = (key.0, key.1, queue.weight.into());
            let weight = weight.into();
            WeightedQueueReport {
                endpoint,
                queue,
                weight,
                catalogue_weight,
                requests,
                client_errors,
                server_errors,
            }
        };
        endpoint.queues.weights().into_iter().map(report).collect()
    };
    endpoints().flat_map(report).collect()
}
