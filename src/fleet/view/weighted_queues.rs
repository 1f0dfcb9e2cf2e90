//! The queues of endpoints that have several queues, compared between two snapshots of the gateways.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::format::{rate, seconds};
use super::rates::{UNKNOWN, known_sum};
use super::report_pair::{ReportPair, since};
use crate::fleet::report::WeightedQueueReport;
use crate::telemetry::Distribution;

/// The headings of the table.
pub(crate) const HEADINGS: [&str; 9] =
    ["ENDPOINT", "QUEUE", "WEIGHT", "REQUESTS/s", "SHARE", "p50", "p99", "4xx", "5xx"];

/// One queue of an endpoint that has several, summed over all gateways that have sent two reports containing it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct WeightedQueueView {
    pub(crate) endpoint: String,
    pub(crate) queue: String,
    /// The distinct current weights. There is more than one if the gateways differ.
    pub(crate) weights: BTreeSet<u64>,
    /// The distinct weights in the catalogues.
    pub(crate) catalogue_weights: BTreeSet<u64>,
    /// The request rate. `UNKNOWN` if no gateway has sent two reports containing the queue.
    pub(crate) requests_per_second: f64,
    /// The share of the endpoint's requests that were assigned to this queue. `None` if there were no requests.
    pub(crate) share: Option<f64>,
    /// The share of the queue's requests that were answered with a status of 400 to 498.
    pub(crate) client_error_share: Option<f64>,
    /// The share of the queue's requests that were answered with a status of 500 to 599.
    pub(crate) server_error_share: Option<f64>,
    pub(crate) p50_seconds: Option<f64>,
    /// The 99th percentile of the time from request to response.
    pub(crate) p99_seconds: Option<f64>,
    #[serde(skip)]
    times: Distribution,
    #[serde(skip)]
    client_errors_per_second: f64,
    #[serde(skip)]
    server_errors_per_second: f64,
}

/// Returns the queues of all endpoints that have several queues, grouped by endpoint and in catalogue order.
pub(crate) fn weighted_queues(pairs: &[ReportPair<'_>]) -> Vec<WeightedQueueView> {
    let mut endpoints: BTreeMap<&str, Vec<WeightedQueueView>> = BTreeMap::new();
    for pair in pairs {
        for (now, earlier) in pair.weighted_queues() {
            let queues = endpoints.entry(&now.endpoint).or_default();
            let index = queues.iter().position(|view| view.queue == now.queue);
            let index = index.unwrap_or_else(|| {
                queues.push(WeightedQueueView::new(&now.endpoint, &now.queue));
                queues.len() - 1
            });
            let Some(view) = queues.get_mut(index) else { continue };
            let add = |sum: &mut f64, value: fn(&WeightedQueueReport) -> u64| {
                *sum = known_sum([*sum, pair.rate(value(now), earlier.map(value))]);
            };
            view.weights.insert(now.weight);
            view.catalogue_weights.insert(now.catalogue_weight);
            add(&mut view.requests_per_second, |report| report.requests);
            add(&mut view.client_errors_per_second, |report| report.client_errors);
            add(&mut view.server_errors_per_second, |report| report.server_errors);
            view.times.add(&since(&now.times, earlier.map(|earlier| &earlier.times)));
        }
    }
    let share = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
    for queues in endpoints.values_mut() {
        let all = known_sum(queues.iter().map(|view| view.requests_per_second));
        for view in queues {
            let own = view.requests_per_second;
            view.share = share(own, all);
            view.client_error_share = share(view.client_errors_per_second, own);
            view.server_error_share = share(view.server_errors_per_second, own);
            view.p50_seconds = view.times.quantile(0.5);
            view.p99_seconds = view.times.quantile(0.99);
        }
    }
    endpoints.into_values().flatten().collect()
}

impl WeightedQueueView {
    fn new(endpoint: &str, queue: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            queue: queue.to_owned(),
            requests_per_second: UNKNOWN,
            client_errors_per_second: UNKNOWN,
            server_errors_per_second: UNKNOWN,
            ..Self::default()
        }
    }

    /// Returns the row of the table.
    pub(crate) fn row(&self) -> Vec<String> {
        let optional = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), percent);
        vec![
            self.endpoint.clone(),
            self.queue.clone(),
            self.weight(),
            rate(self.requests_per_second),
            optional(self.share),
            seconds(self.p50_seconds),
            seconds(self.p99_seconds),
            optional(self.client_error_share),
            optional(self.server_error_share),
        ]
    }

    /// Returns the current weight as text, followed by the catalogue's weight if it differs.
    fn weight(&self) -> String {
        let list = |weights: &BTreeSet<u64>| {
            let weights: Vec<String> = weights.iter().map(ToString::to_string).collect();
            weights.join(" or ")
        };
        let current = list(&self.weights);
        if self.weights == self.catalogue_weights {
            current
        } else {
            format!("{current} (catalogue: {})", list(&self.catalogue_weights))
        }
    }
}

/// Formats a share as a percentage. A small share, which is typical for a new version, is shown with one decimal.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 10.0 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

/// Returns a line for each endpoint whose weights differ between gateways.
pub(crate) fn notes(queues: &[WeightedQueueView]) -> impl Iterator<Item = String> {
    let differ = queues.iter().filter(|view| view.weights.len() > 1);
    let endpoints: BTreeSet<&str> = differ.map(|view| &*view.endpoint).collect();
    endpoints.into_iter().map(|endpoint| {
        format!(
            "endpoint {endpoint}: the gateways have different weights: set them with fjord queue weight, or reload all gateways"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Report;

    fn report(id: &str, seconds: f64, queues: &[(&str, u64, [u64; 3])]) -> Report {
        let queue =
            |(queue, weight, [requests, client_errors, server_errors]): &(&str, u64, [u64; 3])| {
                WeightedQueueReport {
                    endpoint: "horse-get".to_owned(),
                    queue: (*queue).to_owned(),
                    weight: *weight,
                    catalogue_weight: 5,
                    requests: *requests,
                    client_errors: *client_errors,
                    server_errors: *server_errors,
                    ..WeightedQueueReport::default()
                }
            };
        Report {
            id: id.to_owned(),
            uptime_seconds: seconds,
            weighted_queues: queues.iter().map(queue).collect(),
            ..Report::default()
        }
    }

    #[test]
    fn rates_and_shares_are_those_between_the_snapshots() {
        let before = [report("g1", 10.0, &[("v1", 5, [100, 0, 0]), ("v2", 5, [50, 1, 9])])];
        let after = [
            report("g1", 12.0, &[("v1", 5, [250, 0, 3]), ("v2", 5, [60, 3, 14])]),
            report("g2", 1.0, &[("v1", 5, [30, 0, 0]), ("v2", 0, [0, 0, 0])]),
        ];
        // The second gateway has sent only one report, so its request rate is unknown.
        let pairs =
            [ReportPair::new(Some(&before[0]), &after[0]), ReportPair::new(None, &after[1])];
        let views = weighted_queues(&pairs);
        let rows: Vec<String> = views.iter().map(|view| view.row().join("|")).collect();
        // v1: 75/s, of which 1.5/s are errors; v2: 5/s, of which 1/s and 2.5/s are errors.
        assert_eq!(rows[0], format!("horse-get|v1|5|{}|94 %|-|-|0 %|2.0 %", rate(75.0)));
        assert_eq!(
            rows[1],
            format!("horse-get|v2|0 or 5 (catalogue: 5)|{}|6.2 %|-|-|20 %|50 %", rate(5.0))
        );
        let notes: Vec<String> = notes(&views).collect();
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].starts_with("endpoint horse-get: the gateways have different weights"));
    }

    #[test]
    fn queues_without_requests_have_no_shares() {
        let idle = [1.0, 2.0].map(|seconds| report("g1", seconds, &[("v1", 5, [0, 0, 0])]));
        let views = weighted_queues(&[ReportPair::new(Some(&idle[0]), &idle[1])]);
        assert_eq!(views[0].row()[3..], ["0", "-", "-", "-", "-", "-"]);
        let views = weighted_queues(&[ReportPair::new(None, &idle[1])]);
        assert_eq!(views[0].row()[3..], ["-", "-", "-", "-", "-", "-"], "not known yet");
        assert_eq!(notes(&views).count(), 0);
    }
}
