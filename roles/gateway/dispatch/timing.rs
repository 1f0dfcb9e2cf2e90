//! How long a queue's workers take to answer, as this gateway sees it: the round trip, and what a call needs.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::catalogue::EndpointId;

/// The round trip is the least of what was seen in the last one to two of these.
const WINDOW: Duration = Duration::from_secs(10);
/// Calls of an endpoint that are looked at, the newest.
const SAMPLES: usize = 128;
/// Calls that are needed before they say anything.
const SAMPLES_MIN: usize = 16;
/// The call that stands for them: so many were longer.
const LONGER: usize = 2;
/// What was measured is looked at again after so many calls.
const LOOK_EVERY: usize = 16;
/// Round trips that the first sign of an attempt may take: there and back, and in a worker's backlog meanwhile.
const ROUND_TRIPS: u32 = 4;
/// What a worker may need before its first sign, on top of that.
const FIRST_SIGN: Duration = Duration::from_millis(400);

/// The times of one queue.
#[derive(Debug, Default)]
pub struct Timing(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The transport's own round trip: the least that an answer takes.
    link: Duration,
    since: Option<Instant>,
    /// The least of this window and of the one before.
    round_trip: [Option<Duration>; 2],
    endpoints: HashMap<EndpointId, Calls>,
}

/// What an attempt needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Until its first sign.
    pub sign: Duration,
    /// Until its answer.
    pub answer: Duration,
}

/// What was seen of an endpoint's attempts.
#[derive(Debug, Default)]
struct Calls {
    signs: Window,
    answers: Window,
}

/// The newest times, and a high quantile of them.
#[derive(Debug, Default)]
struct Window {
    times: Vec<Duration>,
    next: usize,
    quantile: Duration,
}

impl Timing {
    /// A worker has answered at once, after so long.
    pub fn record_round_trip(&self, took: Duration, now: Instant) {
        let mut state = self.lock();
        if state.since.is_none_or(|since| now.saturating_duration_since(since) > WINDOW) {
            state.since = Some(now);
            state.round_trip = [None, state.round_trip[0].or(state.round_trip[1])];
        }
        let least = &mut state.round_trip[0];
        *least = Some(least.map_or(took, |least| least.min(took)));
    }

    /// An attempt gave its first sign after so long.
    pub fn record_sign(&self, endpoint: &EndpointId, took: Duration) {
        self.lock().record(endpoint, |calls| calls.signs.record(took));
    }

    /// An attempt was answered after so long, or was given up then.
    pub fn record_answer(&self, endpoint: &EndpointId, took: Duration) {
        self.lock().record(endpoint, |calls| calls.answers.record(took));
    }

    /// What the transport measured.
    pub fn set_link(&self, round_trip: Duration) {
        self.lock().link = round_trip;
    }

    /// The round trip through NATS to a worker and back; while that is unknown, to NATS and back.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        let state = self.lock();
        let [this, before] = state.round_trip;
        this.into_iter().chain(before).min().unwrap_or(state.link)
    }

    /// How long an attempt may be unheard of: as configured, or longer where the network is.
    #[must_use]
    pub fn accept_timeout(&self, configured: Duration) -> Duration {
        let round_trip = self.round_trip();
        // What the configured time has room for anyhow needs no more.
        configured.max(round_trip * ROUND_TRIPS + FIRST_SIGN.min(round_trip))
    }

    /// What an attempt of this endpoint needs; nothing while that is unknown.
    #[must_use]
    pub fn needs(&self, endpoint: &EndpointId) -> Needs {
        let state = self.lock();
        let Some(calls) = state.endpoints.get(endpoint) else { return Needs::default() };
        Needs { sign: calls.signs.quantile, answer: calls.answers.quantile }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn record(&mut self, endpoint: &EndpointId, record: impl FnOnce(&mut Calls)) {
        // Nearly every time it is there, and needs no name of its own.
        match self.endpoints.get_mut(endpoint) {
            Some(calls) => record(calls),
            None => record(self.endpoints.entry(endpoint.clone()).or_default()),
        }
    }
}

impl Window {
    fn record(&mut self, took: Duration) {
        match self.times.get_mut(self.next) {
            Some(oldest) => *oldest = took,
            None => self.times.push(took),
        }
        self.next = (self.next + 1) % SAMPLES;
        if self.next.is_multiple_of(LOOK_EVERY) && self.times.len() >= SAMPLES_MIN {
            let mut times = self.times.clone();
            let place = times.len().saturating_sub(1 + LONGER);
            let (_, time, _) = times.select_nth_unstable(place);
            self.quantile = *time;
        }
    }
}
