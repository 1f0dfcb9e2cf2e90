//! The figures of this process at one moment, asked by name: what `/metrics` says, for those who are not Prometheus.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::names::Metric;
use super::{Format, recorder};

/// Everything that `/metrics` said at one moment.
#[derive(Debug, Default)]
pub struct Reading(HashMap<String, Vec<Sample>>);

#[derive(Debug)]
struct Sample {
    labels: Vec<(String, String)>,
    value: f64,
}

impl Reading {
    /// What holds now. As dear as a scrape.
    #[must_use]
    pub fn now() -> Self {
        Self::parse(&recorder::render(Format::Text))
    }

    fn parse(text: &str) -> Self {
        let mut samples: HashMap<String, Vec<Sample>> = HashMap::new();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        for (name, sample) in lines.filter_map(Sample::parse) {
            samples.entry(name).or_default().push(sample);
        }
        Self(samples)
    }

    /// The values of a metric under one of its labels, all others added up.
    #[must_use]
    pub fn by(&self, metric: &Metric, label: &str) -> BTreeMap<String, f64> {
        self.by_if(metric, label, |_| true)
    }

    /// The same of those samples only whose labels hold.
    #[must_use]
    pub fn by_if(
        &self,
        metric: &Metric,
        label: &str,
        holds: impl Fn(&dyn Fn(&str) -> String) -> bool,
    ) -> BTreeMap<String, f64> {
        let mut found = BTreeMap::new();
        for sample in self.samples(metric.name) {
            if holds(&|name| sample.label(name).unwrap_or_default().to_owned()) {
                let key = sample.label(label).unwrap_or_default().to_owned();
                *found.entry(key).or_default() += sample.value;
            }
        }
        found
    }

    /// The distributions of a histogram under one of its labels.
    #[must_use]
    pub fn distributions(&self, metric: &Metric, label: &str) -> BTreeMap<String, Distribution> {
        let mut found: BTreeMap<String, Distribution> = BTreeMap::new();
        let mut each = |end: &str, take: &dyn Fn(&mut Distribution, &Sample)| {
            for sample in self.samples(&format!("{}_{end}", metric.name)) {
                let key = sample.label(label).unwrap_or_default();
                take(found.entry(key.to_owned()).or_default(), sample);
            }
        };
        each("sum", &|of, sample| of.seconds += sample.value);
        each("count", &|of, sample| of.count += whole(sample.value));
        each("bucket", &|of, sample| {
            let bound = sample.label("le").and_then(|text| text.parse().ok());
            // The last, +Inf, is the count.
            if let Some(bound) = bound.filter(|bound: &f64| bound.is_finite()) {
                of.buckets.push((bound, whole(sample.value)));
            }
        });
        for distribution in found.values_mut() {
            distribution.buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        }
        found
    }

    fn samples(&self, name: &str) -> &[Sample] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }
}

impl Sample {
    /// `name{label="value",…} 1`. Values of ours have no quotes in them.
    fn parse(line: &str) -> Option<(String, Self)> {
        let (series, value) = line.rsplit_once(' ')?;
        let value = value.parse().ok()?;
        let Some((name, labels)) = series.split_once('{') else {
            return Some((series.to_owned(), Self { labels: Vec::new(), value }));
        };
        let labels = labels.strip_suffix('}')?.split("\",").filter_map(|pair| {
            let (name, value) = pair.split_once("=\"")?;
            Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
        });
        Some((name.to_owned(), Self { labels: labels.collect(), value }))
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(each, _)| each == name).map(|(_, value)| value.as_str())
    }
}

/// A count as it is written: whole, and never negative.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are far below 2^53, and a negative one is none"
)]
pub fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}

/// A count as a number to reckon with.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn number(count: u64) -> f64 {
    count as f64
}

/// How times are distributed, as a histogram knows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// How many.
    pub count: u64,
    /// All of them together, in seconds.
    pub seconds: f64,
    /// How many were at most so many seconds long, the bounds ascending.
    pub buckets: Vec<(f64, u64)>,
}

impl Distribution {
    /// Counts another one's times too. Both have the same bounds, or one has none.
    pub fn add(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.seconds += other.seconds;
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
        } else {
            for ((_, own), (_, others)) in self.buckets.iter_mut().zip(&other.buckets) {
                *own = own.saturating_add(*others);
            }
        }
    }

    /// What came since an earlier look.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = earlier.buckets.iter().map(|(_, count)| *count);
        let before = before.chain(std::iter::repeat(0));
        let buckets = self.buckets.iter().zip(before);
        Self {
            count: self.count.saturating_sub(earlier.count),
            seconds: (self.seconds - earlier.seconds).max(0.0),
            buckets: buckets.map(|((le, now), was)| (*le, now.saturating_sub(was))).collect(),
        }
    }

    /// The mean in seconds, when there is any.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.seconds / number(self.count))
    }

    /// The time that this share stays below, in seconds: as Prometheus' `histogram_quantile` reckons it, evenly within
    /// a bucket. What is beyond the last bound counts as that.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let rank = share * number(self.count);
        let (mut from, mut below) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            let count = number(*count);
            if count >= rank && count > below {
                return Some(from + (bound - from) * (rank - below) / (count - below));
            }
            (from, below) = (*bound, count);
        }
        Some(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::names;

    const TEXT: &str = r#"# HELP fjord_worker_calls_total Calls
fjord_worker_calls_total{queue="a",outcome="ok"} 7
fjord_worker_calls_total{queue="a",outcome="busy"} 2
fjord_worker_calls_total{queue="b",outcome="ok"} 1
fjord_nats_connected 1
fjord_worker_call_duration_seconds_bucket{queue="a",le="0.1"} 50
fjord_worker_call_duration_seconds_bucket{queue="a",le="0.5"} 100
fjord_worker_call_duration_seconds_bucket{queue="a",le="+Inf"} 100
fjord_worker_call_duration_seconds_sum{queue="a"} 12.5
fjord_worker_call_duration_seconds_count{queue="a"} 100
"#;

    fn near(found: Option<f64>, expected: f64) -> bool {
        found.is_some_and(|found| (found - expected).abs() < 1e-9)
    }

    #[test]
    fn what_metrics_say_is_found_by_name_and_label() {
        let reading = Reading::parse(TEXT);
        let calls = reading.by(&names::WORKER_CALLS, names::QUEUE);
        assert!(near(calls.get("a").copied(), 9.0) && near(calls.get("b").copied(), 1.0));
        let good =
            reading.by_if(&names::WORKER_CALLS, names::QUEUE, |of| of(names::OUTCOME) == "ok");
        assert!(near(good.get("a").copied(), 7.0), "{good:?}");
        assert!(near(reading.by(&names::NATS_CONNECTED, "none").get("").copied(), 1.0));
        assert!(reading.by(&names::PANICS, names::PLACE).is_empty());
    }

    #[test]
    fn a_quantile_is_the_one_of_prometheus() {
        let times = Reading::parse(TEXT).distributions(&names::WORKER_CALL_DURATION, names::QUEUE);
        let times = &times["a"];
        assert_eq!(times.buckets, [(0.1, 50), (0.5, 100)]);
        assert!(near(times.mean(), 0.125));
        assert!(near(times.quantile(0.25), 0.05), "half of the first bucket");
        assert!(near(times.quantile(0.99), 0.1 + 0.4 * 0.98));
        let late = times.since(&Distribution {
            count: 50,
            seconds: 2.5,
            buckets: vec![(0.1, 50), (0.5, 50)],
        });
        assert_eq!((late.count, late.buckets[0].1), (50, 0));
        assert!(near(late.quantile(0.5), 0.3), "{late:?}");
        assert_eq!(Distribution::default().quantile(0.5), None);
        let mut both = late.clone();
        both.add(times);
        assert_eq!((both.count, both.buckets[1].1), (150, 150));
    }
}
