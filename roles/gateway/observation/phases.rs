//! Where the time of a request went: for the histogram, the access line and `Server-Timing`.

use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

use http::HeaderValue;

use crate::envelope::phases;
use crate::telemetry::{Histogram, histogram, names};

/// A phase of a request, in the order in which it passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::roles::gateway) enum Phase {
    /// Route, credentials, rate.
    Auth,
    /// The body, and every parameter against its type.
    Parameters,
    /// Until a worker took it: the time before it was last sent, or all of it when none did.
    QueueWait,
    /// Both ways over the bus, a claim included.
    Nats,
    /// The worker's own work. Of a worker that does not tell: everything since it was sent.
    Worker,
    /// The wait for a connection to the database.
    PoolWait,
    /// The procedure.
    Sql,
    /// Making the response.
    Response,
}

impl Phase {
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

/// The histograms, looked up once: every request moves all of them.
static FIGURES: LazyLock<[Histogram; 8]> = LazyLock::new(|| {
    Phase::ALL
        .map(|phase| histogram(&names::GATEWAY_PHASE, &[(names::PHASE, phase.as_str().to_owned())]))
});

/// The time of each phase that a request has passed.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::roles::gateway) struct Phases([Option<Duration>; 8]);

impl Phases {
    pub(in crate::roles::gateway) fn set(&mut self, phase: Phase, time: Duration) {
        if let Some(slot) = self.0.get_mut(phase as usize) {
            *slot = Some(time);
        }
    }

    /// What happened between sending and answer, as far as the worker tells. It is not believed more than there was.
    pub(in crate::roles::gateway) fn split(
        &mut self,
        round: Duration,
        told: Option<phases::Phases>,
    ) {
        let Some(told) = told else { return self.set(Phase::Worker, round) };
        let total = told.total.min(round);
        let sql = told.call.min(total);
        let pool = told.pool.min(total.saturating_sub(sql));
        self.set(Phase::Nats, round.saturating_sub(total));
        self.set(Phase::Worker, total.saturating_sub(sql).saturating_sub(pool));
        self.set(Phase::PoolWait, pool);
        self.set(Phase::Sql, sql);
    }

    /// A phase in milliseconds, to the microsecond.
    pub(in crate::roles::gateway) fn millis(&self, phase: Phase) -> Option<f64> {
        self.0.get(phase as usize).copied().flatten().map(millis)
    }

    /// Every phase that was passed, in milliseconds.
    pub(in crate::roles::gateway) fn passed(self) -> impl Iterator<Item = (&'static str, f64)> {
        Phase::ALL.into_iter().filter_map(move |phase| Some((phase.as_str(), self.millis(phase)?)))
    }

    pub(in crate::roles::gateway) fn record(&self) {
        for (time, figure) in self.0.iter().zip(FIGURES.iter()) {
            if let Some(time) = time {
                figure.record(time.as_secs_f64());
            }
        }
    }

    /// The value of `Server-Timing` (W3C Server Timing): milliseconds.
    pub(in crate::roles::gateway) fn server_timing(&self, total: Duration) -> Option<HeaderValue> {
        let mut text = format!("total;dur={}", millis(total));
        for phase in Phase::ALL {
            if let Some(millis) = self.millis(phase) {
                write!(text, ", {};dur={millis}", phase.as_str()).ok()?;
            }
        }
        HeaderValue::try_from(text).ok()
    }
}

/// Milliseconds to the microsecond: more digits say nothing.
pub(in crate::roles::gateway) fn millis(time: Duration) -> f64 {
    let micros = u32::try_from(time.as_micros()).map_or(f64::from(u32::MAX), f64::from);
    micros / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phases_of_a_round_add_up_whatever_the_worker_says() {
        let ms = Duration::from_millis;
        let told =
            |pool, call, total| phases::Phases { pool: ms(pool), call: ms(call), total: ms(total) };
        for (told, expected) in [
            (None, [None, Some(10.0), None, None]),
            (Some(told(1, 6, 8)), [Some(2.0), Some(1.0), Some(1.0), Some(6.0)]),
            (Some(told(90, 80, 99)), [Some(0.0), Some(0.0), Some(0.0), Some(10.0)]),
            (Some(told(9, 0, 4)), [Some(6.0), Some(0.0), Some(4.0), Some(0.0)]),
        ] {
            let mut phases = Phases::default();
            phases.split(ms(10), told);
            let found = [Phase::Nats, Phase::Worker, Phase::PoolWait, Phase::Sql]
                .map(|phase| phases.millis(phase));
            assert_eq!(found, expected, "{told:?}");
        }
    }

    #[test]
    fn server_timing_has_every_phase_that_was_passed() {
        let mut phases = Phases::default();
        phases.set(Phase::Auth, Duration::from_micros(1250));
        phases.set(Phase::Sql, Duration::from_millis(3));
        let value = phases.server_timing(Duration::from_millis(5)).unwrap();
        assert_eq!(value, "total;dur=5, auth;dur=1.25, sql;dur=3");
    }
}
