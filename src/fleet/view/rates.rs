//! Call rates. A rate may be unknown.

use serde::Serialize;

use crate::telemetry::Distribution;

/// An unknown rate or share. It is unknown if there are no two reports between which it can be measured. The value
/// becomes `null` in JSON and `-` in text.
pub(crate) const UNKNOWN: f64 = f64::NAN;

/// Returns the sum of the known values, or `UNKNOWN` if there are none.
pub(crate) fn known_sum(values: impl IntoIterator<Item = f64>) -> f64 {
    let known = values.into_iter().filter(|value| !value.is_nan());
    known.reduce(|sum, value| sum + value).unwrap_or(UNKNOWN)
}

/// Calls between two reports. The rates may be `UNKNOWN`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct CallRates {
    pub(crate) calls_per_second: f64,
    pub(crate) errors_per_second: f64,
    pub(crate) p50_seconds: Option<f64>,
    pub(crate) p99_seconds: Option<f64>,
    #[serde(skip)]
    pub(crate) times: Distribution,
}

impl CallRates {
    pub(crate) const UNKNOWN: Self = Self {
        calls_per_second: UNKNOWN,
        errors_per_second: UNKNOWN,
        p50_seconds: None,
        p99_seconds: None,
        times: Distribution { count: 0, seconds: 0.0, buckets: Vec::new() },
    };

    pub(super) fn with_times(mut self, times: Distribution) -> Self {
        self.p50_seconds = times.quantile(0.5);
        self.p99_seconds = times.quantile(0.99);
        self.times = times;
        self
    }

    /// Adds the calls of another process or queue.
    pub(crate) fn add(&mut self, other: &Self) {
        self.calls_per_second = known_sum([self.calls_per_second, other.calls_per_second]);
        self.errors_per_second = known_sum([self.errors_per_second, other.errors_per_second]);
        let mut times = std::mem::take(&mut self.times);
        times.add(&other.times);
        *self = std::mem::take(self).with_times(times);
    }
}
