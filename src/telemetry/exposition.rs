//! Installs the metrics of a role and renders them for scrapers. Counters and gauges are rendered
//! by the exporter, and histograms by `scrape_format`.

use metrics::{Key, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::cli::Role;

use super::names::{self, MetricKind};
use super::registry::{self, Instrument, LabelValue};
use super::scrape_format::{self, Format};

const METADATA: Metadata<'static> = Metadata::new("fjord", Level::INFO, None);

/// Publishes the version and role, and initializes the role's rare counters to 0. May be called
/// again for another role.
pub fn install(role: Role) {
    let build = [
        (names::VERSION, env!("CARGO_PKG_VERSION").to_owned()),
        (names::ROLE, role.as_str().to_owned()),
    ];
    registry::gauge(&names::BUILD_INFO, &build).set(1.0);
    start_at_zero(role);
}

/// A counter: its role (`None` for both roles), the metric and its labels.
type RareCounter = (Option<Role>, names::Metric, &'static [(&'static str, &'static str)]);

/// Counters of rare events. They are initialized to 0. Otherwise, the series would begin with the
/// first event, and an alert on the counter's increase would miss that event.
const RARE_COUNTERS: [RareCounter; 15] = [
    (None, names::CONFIG_RELOADS, &[(names::RESULT, "failed")]),
    (None, names::TLS_RELOADS, &[(names::RESULT, "failed")]),
    (None, names::NATS_RECONNECTS, &[]),
    (None, names::NATS_EVENTS, &[(names::EVENT, "slow_consumer")]),
    (None, names::NATS_EVENTS, &[(names::EVENT, "server_error")]),
    (None, names::LOG_LINES_DROPPED, &[]),
    (Some(Role::Gateway), names::GATEWAY_SHED, &[(names::REASON, "queue")]),
    (Some(Role::Gateway), names::GATEWAY_SHED, &[(names::REASON, "in_flight")]),
    (Some(Role::Gateway), names::GATEWAY_SHED, &[(names::REASON, "in_flight_per_caller")]),
    (Some(Role::Gateway), names::GATEWAY_CONNECTIONS_REFUSED, &[(names::REASON, "connections")]),
    (Some(Role::Gateway), names::GATEWAY_LATE_REPLIES, &[]),
    (Some(Role::Gateway), names::GATEWAY_BAD_REPLIES, &[]),
    (Some(Role::Gateway), names::PANICS, &[(names::COMPONENT, "gateway")]),
    (Some(Role::Worker), names::PANICS, &[(names::COMPONENT, "handler")]),
    (Some(Role::Worker), names::WORKER_MALFORMED, &[]),
];

fn start_at_zero(role: Role) {
    for (only_role, metric, labels) in &RARE_COUNTERS {
        if only_role.is_none_or(|only| only == role) {
            let labels: Vec<_> =
                labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            registry::counter(metric, &labels).increment(0);
        }
    }
}

fn new_exporter() -> PrometheusRecorder {
    let exporter = PrometheusBuilder::new().build_recorder();
    for metric in names::ALL {
        let help = SharedString::const_str(metric.help);
        match metric.kind {
            MetricKind::Counter => exporter.describe_counter(metric.name.into(), None, help),
            MetricKind::Gauge => exporter.describe_gauge(metric.name.into(), None, help),
            MetricKind::Histogram => {}
        }
    }
    exporter
}

fn key(name: &'static str, labels: &[LabelValue]) -> Key {
    let labels: Vec<_> =
        labels.iter().map(|(name, value)| Label::new(*name, value.clone())).collect();
    Key::from_parts(name, labels)
}

/// Renders all metrics with their current values.
#[must_use]
pub fn render(format: Format) -> String {
    // Each scrape uses a new exporter, because an exporter keeps series that have been removed from
    // the registry.
    let exporter = new_exporter();
    let mut histograms = String::new();
    let mut last_family = "";
    let mut written = Ok(());
    registry::for_each(|metric, labels, instrument| match instrument {
        Instrument::Counter(counter) => {
            let counter_at_scrape = exporter.register_counter(&key(metric.name, labels), &METADATA);
            counter_at_scrape.absolute(registry::counter_value(counter));
        }
        Instrument::Gauge(gauge) => {
            let gauge_at_scrape = exporter.register_gauge(&key(metric.name, labels), &METADATA);
            gauge_at_scrape.set(registry::gauge_value(gauge));
        }
        Instrument::Histogram(histogram) => {
            if last_family != metric.name {
                written = written.and_then(|()| scrape_format::write_head(metric, &mut histograms));
                last_family = metric.name;
            }
            let times = histogram.distribution();
            written = written.and_then(|()| {
                scrape_format::write_series(metric, labels, &times, format, &mut histograms)
            });
        }
    });
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
    let mut text = scrape_format::convert(&exporter.handle().render(), format);
    text.push_str(&histograms);
    text.push_str(format.end());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_has_buckets_help_texts_and_both_roles() {
        install(Role::Gateway);
        install(Role::Worker);
        crate::telemetry::histogram(
            &names::BACKEND_WAIT,
            &[(names::DATABASE, "exposition-test".to_owned())],
        )
        .record(0.003);
        let text = render(Format::Text);
        for line in [
            "# TYPE fjord_backend_wait_seconds histogram",
            "# HELP fjord_build_info Version and role of this process; always 1.",
            r#"fjord_backend_wait_seconds_bucket{database="exposition-test",le="0.0025"} 0"#,
            r#"fjord_backend_wait_seconds_bucket{database="exposition-test",le="0.005"} 1"#,
            r#"role="gateway""#,
            r#"role="worker""#,
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
        assert!(render(Format::OpenMetrics).ends_with("\n# EOF\n"));
    }
}
