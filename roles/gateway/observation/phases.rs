//! The durations of a request's phases, for the histogram, the access line and `Server-Timing`.

use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

use http::HeaderValue;

use crate::envelope::phases;
use crate::telemetry::{Histogram, histogram, names};

/// A phase of a request. Requests pass through the phases in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::roles::gateway) enum RequestPhase {
    /// Routing, authentication and rate limits.
    Auth,
    /// Reading the body and validating the parameters.
    Parameters,
    /// Waiting for a slot, until the last attempt is sent or an unexecuted request ends.
    QueueWait,
    /// Both directions over NATS, including a claim.
    Nats,
    /// The worker's own work, or the whole exchange if the worker reports no phases.
    Worker,
    /// Waiting for a database connection.
    PoolWait,
    /// Calling the procedure.
    Sql,
    /// Creating the response.
    Response,
}

impl RequestPhase {
    pub(in crate::roles::gateway) const ALL: [Self; 8] = [
        Self::Auth,
        Self::Parameters,
        Self::QueueWait,
        Self::Nats,
        Self::Worker,
        Self::PoolWait,
        Self::Sql,
        Self::Response,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Parameters => "parameters",
            Self::QueueWait => "queue_wait",
            Self::Nats => "nats",
            Self::Worker => "worker",
            Self::PoolWait => "pool_wait",
            Self::Sql => "sql",
            Self::Response => "response",
        }
    }
}

/// The histogram of each phase, looked up once.
static HISTOGRAMS: LazyLock<[Histogram; 8]> = LazyLock::new(|| {
    RequestPhase::ALL
        .map(|phase| histogram(&names::GATEWAY_PHASE, &[(names::PHASE, phase.as_str().to_owned())]))
});

/// The duration of each phase that a request has passed through.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::roles::gateway) struct RequestPhases([Option<Duration>; 8]);

impl RequestPhases {
    pub(in crate::roles::gateway) fn set(&mut self, phase: RequestPhase, time: Duration) {
        if let Some(slot) = self.0.get_mut(phase as usize) {
            *slot = Some(time);
        }
    }

    /// Splits `exchange_time`, the time from the last attempt to the answer, into its phases. The
    /// durations that the worker `reported` are clamped to `exchange_time`.
    pub(in crate::roles::gateway) fn split(
        &mut self,
        exchange_time: Duration,
        reported: Option<phases::Phases>,
    ) {
        let Some(reported) = reported else { return self.set(RequestPhase::Worker, exchange_time) };
        let total = reported.total.min(exchange_time);
        let sql = reported.call.min(total);
        let pool = reported.pool.min(total.saturating_sub(sql));
        self.set(RequestPhase::Nats, exchange_time.saturating_sub(total));
        self.set(RequestPhase::Worker, total.saturating_sub(sql).saturating_sub(pool));
        self.set(RequestPhase::PoolWait, pool);
        self.set(RequestPhase::Sql, sql);
    }

    /// Returns the duration of a phase in milliseconds, rounded down to a microsecond.
    pub(in crate::roles::gateway) fn millis(&self, phase: RequestPhase) -> Option<f64> {
        self.0.get(phase as usize).copied().flatten().map(millis)
    }

    /// Returns the name and the duration in milliseconds of every phase that was passed.
    pub(in crate::roles::gateway) fn passed(self) -> impl Iterator<Item = (&'static str, f64)> {
        RequestPhase::ALL
            .into_iter()
            .filter_map(move |phase| Some((phase.as_str(), self.millis(phase)?)))
    }

    pub(in crate::roles::gateway) fn record(&self) {
        for (time, histogram) in self.0.iter().zip(HISTOGRAMS.iter()) {
            if let Some(time) = time {
                histogram.record(time.as_secs_f64());
            }
        }
    }

    /// Returns the value of `Server-Timing` (W3C Server Timing), in milliseconds.
    pub(in crate::roles::gateway) fn server_timing(&self, total: Duration) -> Option<HeaderValue> {
        let mut text = format!("total;dur={}", millis(total));
        for phase in RequestPhase::ALL {
            if let Some(millis) = self.millis(phase) {
                write!(text, ", {};dur={millis}", phase.as_str()).ok()?;
            }
        }
        HeaderValue::try_from(text).ok()
    }
}

/// Converts a duration to milliseconds, rounded down to a microsecond.
pub(in crate::roles::gateway) fn millis(time: Duration) -> f64 {
    let micros = u32::try_from(time.as_micros()).map_or(f64::from(u32::MAX), f64::from);
    micros / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reported_phases_are_clamped_to_the_measured_time() {
        let ms = Duration::from_millis;
        let worker =
            |pool, call, total| phases::Phases { pool: ms(pool), call: ms(call), total: ms(total) };
        for (reported, expected) in [
            (None, [None, Some(10.0), None, None]),
            (Some(worker(1, 6, 8)), [Some(2.0), Some(1.0), Some(1.0), Some(6.0)]),
            (Some(worker(90, 80, 99)), [Some(0.0), Some(0.0), Some(0.0), Some(10.0)]),
            (Some(worker(9, 0, 4)), [Some(6.0), Some(0.0), Some(4.0), Some(0.0)]),
        ] {
            let mut phases = RequestPhases::default();
            phases.split(ms(10), reported);
            let split = [
                RequestPhase::Nats,
                RequestPhase::Worker,
                RequestPhase::PoolWait,
                RequestPhase::Sql,
            ]
            .map(|phase| phases.millis(phase));
            assert_eq!(split, expected, "{reported:?}");
        }
    }

    #[test]
    fn server_timing_has_every_phase_that_was_passed() {
        let mut phases = RequestPhases::default();
        phases.set(RequestPhase::Auth, Duration::from_micros(1250));
        phases.set(RequestPhase::Sql, Duration::from_millis(3));
        let value = phases.server_timing(Duration::from_millis(5)).unwrap();
        assert_eq!(value, "total;dur=5, auth;dur=1.25, sql;dur=3");
    }
}
