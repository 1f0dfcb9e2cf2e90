//! Gathers the metrics of this process and writes them out for Prometheus.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{SharedString, Unit, with_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::cli::Role;
use crate::lifecycle::Cancel;

use super::names::{self, Kind, Metric};

/// The media type of `render` (Prometheus text format 0.0.4).
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Upper bounds of every histogram, in seconds: from a fast row to the longest session.
const BUCKETS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// How often samples move into buckets. Without it they pile up until the next scrape.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// One for the process, whatever it runs: the `metrics` crate has one recorder too.
static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Gathers metrics from here on, and says the version and the role. May be called again, for another role.
pub fn install(role: Role) {
    HANDLE.get_or_init(build);
    super::gauge(
        &names::BUILD_INFO,
        &[
            (names::VERSION, env!("CARGO_PKG_VERSION").to_owned()),
            (names::ROLE, role.as_str().to_owned()),
        ],
    )
    .set(1.0);
    begin_at_zero(role);
}

/// A counter of a role, or of both, with its labels.
type Rare = (Option<Role>, Metric, &'static [(&'static str, &'static str)]);

/// Counters of what hardly ever happens, of both roles and of each. One that is not there before its first event has no
/// increase that an alert could see.
const RARE: [Rare; 14] = [
    (None, names::CONFIG_RELOADS, &[(names::RESULT, "failed")]),
    (None, names::TLS_RELOADS, &[(names::RESULT, "failed")]),
    (None, names::NATS_RECONNECTS, &[]),
    (None, names::NATS_EVENTS, &[(names::EVENT, "slow_consumer")]),
    (None, names::NATS_EVENTS, &[(names::EVENT, "server_error")]),
    (None, names::LOG_LINES_DROPPED, &[]),
    (Some(Role::Gateway), names::GATEWAY_SHED, &[(names::REASON, "queue")]),
    (Some(Role::Gateway), names::GATEWAY_SHED, &[(names::REASON, "in_flight")]),
    (Some(Role::Gateway), names::GATEWAY_CONNECTIONS_REFUSED, &[(names::REASON, "connections")]),
    (Some(Role::Gateway), names::GATEWAY_LATE_REPLIES, &[]),
    (Some(Role::Gateway), names::GATEWAY_BAD_REPLIES, &[]),
    (Some(Role::Gateway), names::PANICS, &[(names::PLACE, "gateway")]),
    (Some(Role::Worker), names::PANICS, &[(names::PLACE, "handler")]),
    (Some(Role::Worker), names::WORKER_MALFORMED, &[]),
];

fn begin_at_zero(role: Role) {
    for (of, metric, labels) in &RARE {
        if of.is_none_or(|of| of == role) {
            let labels: Vec<_> =
                labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            super::counter(metric, &labels).increment(0);
        }
    }
}

fn build() -> PrometheusHandle {
    // Without buckets a histogram becomes a summary, whose quantiles cannot be added up over hosts.
    let builder = names::ALL
        .iter()
        .filter(|metric| metric.kind == Kind::Histogram)
        .try_fold(PrometheusBuilder::new(), |builder, metric| {
            builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), &BUCKETS)
        })
        .unwrap_or_else(|error| {
            tracing::error!(%error, "cannot set the buckets of the histograms");
            PrometheusBuilder::new()
        });
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::error!("another metrics recorder was installed before ours; /metrics stays empty");
    }
    describe();
    handle
}

fn describe() {
    with_recorder(|recorder| {
        for metric in names::ALL {
            let help = SharedString::const_str(metric.help);
            match metric.kind {
                Kind::Counter => recorder.describe_counter(metric.name.into(), None, help),
                Kind::Gauge => recorder.describe_gauge(metric.name.into(), None, help),
                Kind::Histogram => {
                    recorder.describe_histogram(metric.name.into(), Some(Unit::Seconds), help);
                }
            }
        }
    });
}

/// All metrics in Prometheus' text format; empty before `install`.
#[must_use]
pub fn render() -> String {
    HANDLE.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Keeps histograms small until `stop`. Safe to drop.
pub async fn upkeep(stop: Cancel) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Some(handle) = HANDLE.get() {
            handle.run_upkeep();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_has_buckets_help_and_every_role_of_the_process() {
        install(Role::Gateway);
        install(Role::Worker);
        crate::telemetry::histogram(
            &names::BACKEND_WAIT,
            &[(names::DATABASE, "recorder-test".to_owned())],
        )
        .record(0.003);
        let text = render();
        for line in [
            "# TYPE fjord_backend_wait_seconds histogram",
            "# HELP fjord_build_info Version and role of this process; always 1.",
            r#"fjord_backend_wait_seconds_bucket{database="recorder-test",le="0.0025"} 0"#,
            r#"fjord_backend_wait_seconds_bucket{database="recorder-test",le="0.005"} 1"#,
            r#"role="gateway""#,
            r#"role="worker""#,
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }
}
