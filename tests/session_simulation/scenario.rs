//! The faults, load and guards of a run, and its report.

use std::time::Duration;

/// The fault probabilities of the network, the workers and the clients, and the load on them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    pub(super) lose: f64,
    pub(super) duplicate: f64,
    /// The probability that a message is late, by up to three seconds.
    pub(super) late: f64,
    pub(super) crash: f64,
    pub(super) drain: f64,
    pub(super) client_leaves: f64,
    /// The duration of the network's only stall. The stall begins at a random time during the first
    /// seconds.
    pub(super) stall: Duration,
    pub(super) crowd: usize,
    /// The minimum latency of a message.
    pub(super) latency: Duration,
    /// The shortest and the longest duration of a call.
    pub(super) calls: (Duration, Duration),
    pub(super) load: Option<SimulatedLoad>,
}

/// Requests that arrive at a constant rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct SimulatedLoad {
    pub(super) per_second: u32,
    pub(super) at_most_once: bool,
    pub(super) warm_up: Duration,
    pub(super) lasts: Duration,
}

impl SimulatedLoad {
    pub(super) fn requests(&self) -> usize {
        usize::try_from(self.lasts.as_secs()).unwrap() * usize::try_from(self.per_second).unwrap()
    }

    pub(super) fn begin(&self, number: usize) -> Duration {
        Duration::from_secs(1) * u32::try_from(number).unwrap() / self.per_second
    }
}

impl Faults {
    pub(super) const NONE: Self = Self {
        lose: 0.0,
        duplicate: 0.0,
        late: 0.0,
        crash: 0.0,
        drain: 0.0,
        client_leaves: 0.0,
        stall: Duration::ZERO,
        crowd: 3,
        latency: Duration::ZERO,
        calls: (Duration::from_millis(1), Duration::from_millis(1500)),
        load: None,
    };
    pub(super) const ALL: Self = Self {
        lose: 0.05,
        duplicate: 0.05,
        late: 0.05,
        crash: 0.02,
        drain: 0.2,
        client_leaves: 0.05,
        crowd: 8,
        ..Self::NONE
    };
}

/// The guards against double executions. A test disables one of them and must then find a double execution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guards {
    pub(super) worker_awaits_grant: bool,
    pub(super) gateway_grants_once: bool,
    pub(super) claim_times_out_for_good: bool,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            worker_awaits_grant: true,
            gateway_grants_once: true,
            claim_times_out_for_good: true,
        }
    }
}

/// The results of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct RunReport {
    pub(super) requests: usize,
    pub(super) answered_200: usize,
    pub(super) streamed: usize,
    pub(super) cut_off: usize,
    pub(super) outcome_unknown: usize,
    pub(super) executions: usize,
    /// The number of answers after the warm-up of a load.
    pub(super) answered_after_warm_up: usize,
    pub(super) violation: Option<String>,
}

impl RunReport {
    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.answered_200 += other.answered_200;
        self.streamed += other.streamed;
        self.cut_off += other.cut_off;
        self.outcome_unknown += other.outcome_unknown;
        self.executions += other.executions;
        self.answered_after_warm_up += other.answered_after_warm_up;
    }
}
