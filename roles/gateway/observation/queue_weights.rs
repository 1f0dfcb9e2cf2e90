//! Exports the weights of endpoints with several queues as metrics, and reports changed weights that a reload replaces.

use std::collections::BTreeSet;

use crate::catalogue::{Catalogue, Endpoint};
use crate::telemetry::{gauge, names, remove};

/// Publishes the current weights of all queues of a catalogue.
pub(in crate::roles::gateway) fn publish(catalogue: &Catalogue) {
    for endpoint in weighted(catalogue) {
        publish_endpoint(endpoint);
    }
}

/// Publishes the current weights of the queues of one endpoint.
pub(in crate::roles::gateway) fn publish_endpoint(endpoint: &Endpoint) {
    for (queue, weight) in endpoint.queues.weights() {
        let labels =
            [(names::ENDPOINT, endpoint.id.to_string()), (names::QUEUE, queue.name.to_string())];
        gauge(&names::GATEWAY_QUEUE_WEIGHT, &labels).set(f64::from(weight));
    }
}

/// Publishes the weights of a catalogue that has replaced another one. Returns a note for each endpoint whose weights
/// an operator had changed, because the weights in the new catalogue now apply.
pub(in crate::roles::gateway) fn replace(old: &Catalogue, new: &Catalogue) -> Vec<String> {
    let ids: BTreeSet<&str> = weighted(old).map(|endpoint| endpoint.id.as_str()).collect();
    for id in ids {
        remove(&[names::GATEWAY_QUEUE_WEIGHT], &(names::ENDPOINT, id.to_owned()));
    }
    publish(new);
    let changed = weighted(old).filter(|endpoint| endpoint.queues.has_changed_weights());
    let notes = changed.map(|endpoint| {
        let now = new.get(&endpoint.id).filter(|endpoint| endpoint.queues.has_several());
        let now =
            now.map_or_else(|| "it no longer has several queues".to_owned(), |it| describe(it));
        let before = describe(endpoint);
        tracing::warn!(
            endpoint = %endpoint.id, before, now,
            "a reload has replaced the weights that an operator had set with those of the catalogue"
        );
        format!(
            "endpoint {}: the weights {before} are replaced with those of the catalogue: {now}",
            endpoint.id
        )
    });
    notes.collect()
}

/// Returns the current weights of an endpoint as text.
pub(in crate::roles::gateway) fn describe(endpoint: &Endpoint) -> String {
    let weights = endpoint.queues.weights().into_iter();
    let weights = weights.map(|(queue, weight)| format!("{}={weight}", queue.name));
    weights.collect::<Vec<_>>().join(", ")
}

fn weighted(catalogue: &Catalogue) -> impl Iterator<Item = &Endpoint> {
    catalogue.endpoints().iter().map(AsRef::as_ref).filter(|one| one.queues.has_several())
}
