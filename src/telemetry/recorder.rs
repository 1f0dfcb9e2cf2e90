//! Gathers the metrics of this process and writes them out for who scrapes them: counters and gauges with the exporter,
//! histograms beside it.

use std::collections::BTreeMap;
use std::sync::{LazyLock, OnceLock, PoisonError, RwLock};

use metrics::{SharedString, with_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::cli::Role;

use super::LabelValue;
use super::exposition::{self, Format};
use super::histogram::Histogram;
use super::names::{self, Kind, Metric};

/// One for the process, whatever it runs: the `metrics` crate has one recorder too.
static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
/// Every histogram, by its metric.
static HISTOGRAMS: LazyLock<RwLock<BTreeMap<&'static str, Family>>> =
    LazyLock::new(RwLock::default);

/// A metric with all its series, by their labels as they are written.
struct Family {
    metric: Metric,
    series: BTreeMap<String, Histogram>,
}

/// The histogram of a metric with these labels: the one that is there, or a new one.
pub(super) fn histogram(metric: &Metric, labels: &[LabelValue]) -> Histogram {
    debug_assert!(metric.kind == Kind::Histogram, "{} is a {:?}", metric.name, metric.kind);
    let labels = exposition::labels(labels);
    let families = HISTOGRAMS.read().unwrap_or_else(PoisonError::into_inner);
    let known = families.get(metric.name).and_then(|family| family.series.get(&labels)).cloned();
    drop(families);
    known.unwrap_or_else(|| {
        let mut families = HISTOGRAMS.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Family { metric: *metric, series: BTreeMap::new() };
        let family = families.entry(metric.name).or_insert_with(new);
        family.series.entry(labels).or_default().clone()
    })
}

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
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::error!("another metrics recorder was installed before ours; /metrics stays empty");
    }
    with_recorder(|recorder| {
        for metric in names::ALL {
            let help = SharedString::const_str(metric.help);
            match metric.kind {
                Kind::Counter => recorder.describe_counter(metric.name.into(), None, help),
                Kind::Gauge => recorder.describe_gauge(metric.name.into(), None, help),
                Kind::Histogram => {}
            }
        }
    });
    handle
}

/// All metrics as they are now; counters and gauges only after `install`.
#[must_use]
pub fn render(format: Format) -> String {
    let exported = HANDLE.get().map(PrometheusHandle::render).unwrap_or_default();
    let mut text = String::with_capacity(2 * exported.len());
    exposition::translated(&exported, format, &mut text);
    let families = HISTOGRAMS.read().unwrap_or_else(PoisonError::into_inner);
    for Family { metric, series } in families.values() {
        let mut written = exposition::write_head(metric, &mut text);
        for (labels, histogram) in series {
            written = written.and_then(|()| {
                exposition::write_series(metric, labels, histogram, format, &mut text)
            });
        }
        debug_assert!(written.is_ok(), "a String takes everything");
    }
    text.push_str(format.end());
    text
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
        let text = render(Format::Text);
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
        assert!(render(Format::OpenMetrics).ends_with("\n# EOF\n"));
    }
}
