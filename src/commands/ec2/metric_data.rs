//! Encodes the metrics of pools as parameters of `PutMetricData`.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::fleet::view::PoolView;
use crate::telemetry::count_as_f64;

/// The characters that the query protocol percent-encodes: all except letters, digits, `-`, `.`, `_` and `~`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One metric of a pool.
#[derive(Debug, PartialEq)]
pub(super) struct PoolMetric<'a> {
    pub(super) name: &'static str,
    pub(super) pool: &'a str,
    pub(super) value: f64,
    unit: &'static str,
}

/// Returns the metrics of all pools. Unknown values are omitted.
pub(super) fn metrics(pools: &[PoolView]) -> Vec<PoolMetric<'_>> {
    let of_pool = |pool: &'_ PoolView| {
        let workers = count_as_f64(pool.workers);
        let needed = pool.workers_needed.map(count_as_f64);
        [
            ("Load", pool.load.map(|load| load * 100.0), "Percent"),
            ("Workers", Some(workers), "Count"),
            ("WorkersNeeded", needed, "Count"),
            ("WorkersFree", needed.map(|needed| workers - needed), "Count"),
        ]
    };
    let metrics = pools.iter().flat_map(|pool| {
        let known = of_pool(pool).into_iter();
        known.filter_map(|(name, value, unit)| {
            Some(PoolMetric { name, pool: &pool.name, value: value?, unit })
        })
    });
    metrics.collect()
}

/// Encodes the parameters of one request.
pub(super) fn form(namespace: &str, metrics: &[PoolMetric<'_>]) -> String {
    let mut form = format!("Version=2010-08-01&Namespace={}", encoded(namespace));
    for (number, metric) in (1..).zip(metrics) {
        let mut add = |key: &str, value: &str| {
            // Writing to a string cannot fail.
            write!(form, "&MetricData.member.{number}.{key}={}", encoded(value)).ok();
        };
        add("MetricName", metric.name);
        add("Dimensions.member.1.Name", "Pool");
        add("Dimensions.member.1.Value", metric.pool);
        add("Value", &metric.value.to_string());
        add("Unit", metric.unit);
    }
    form
}

/// Percent-encodes a value.
pub(super) fn encoded(value: &str) -> impl std::fmt::Display {
    utf8_percent_encode(value, ENCODED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_load_is_not_published_as_zero() {
        let pool = PoolView { name: "new".to_owned(), workers: 2, ..PoolView::default() };
        let pools = [pool];
        let names: Vec<&str> = metrics(&pools).iter().map(|metric| metric.name).collect();
        assert_eq!(names, ["Workers"]);
    }

    #[test]
    fn each_pool_has_four_metrics() {
        let pool = |name: &str| PoolView {
            name: name.to_owned(),
            workers: 2,
            workers_needed: Some(3),
            workers_free: Some(-1),
            load: Some(1.125),
            ..PoolView::default()
        };
        let pools = [pool("a"), pool("b")];
        let metrics = metrics(&pools);
        assert_eq!(metrics.len(), 8);
        let form = form("team/fjord", &metrics);
        let expected = "Version=2010-08-01&Namespace=team%2Ffjord&MetricData.member.1.MetricName=Load\
                        &MetricData.member.1.Dimensions.member.1.Name=Pool&MetricData.member.1.Dimensions.member.1.Value=a\
                        &MetricData.member.1.Value=112.5&MetricData.member.1.Unit=Percent&MetricData.member.2.";
        assert!(form.starts_with(expected), "{form}");
        assert!(
            form.ends_with("&MetricData.member.8.Value=-1&MetricData.member.8.Unit=Count"),
            "{form}"
        );
    }
}
