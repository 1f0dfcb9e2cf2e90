//! Measures the time that a queue's workers take to reply to this gateway.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::catalogue::EndpointId;
use crate::roles::gateway::dispatch::session::AttemptEstimate;

/// The length of a window. The round trip is the minimum of the current and the previous window.
const MINIMUM_WINDOW: Duration = Duration::from_secs(10);
/// The number of recent samples that are kept for each estimate.
const SAMPLES_MAX: usize = 128;
/// The number of samples that an estimate requires.
const SAMPLES_MIN: usize = 16;
/// How many of the longest samples are ignored. The estimate is the longest of the other samples.
const OUTLIERS: usize = 2;
/// The number of new samples after which the estimate is computed again.
const UPDATE_EVERY: usize = 16;
/// The number of round trips that the first reply may take, including the wait in the worker's
/// backlog.
const FIRST_REPLY_ROUND_TRIPS: u32 = 4;
/// The additional time that a worker can need before its first reply.
const FIRST_REPLY_DELAY: Duration = Duration::from_millis(400);

/// The measured times of one queue.
#[derive(Debug, Default)]
pub struct QueueTiming(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The round trip to the NATS server. No reply can be faster.
    link_round_trip: Duration,
    window_start: Option<Instant>,
    /// The shortest round trip in the current window and in the previous one.
    minimums: [Option<Duration>; 2],
    endpoints: HashMap<EndpointId, EndpointTimes>,
}

#[derive(Debug, Default)]
struct EndpointTimes {
    first_replies: RecentTimes,
    answers: RecentTimes,
}

/// The most recent times, and an upper quantile of them.
#[derive(Debug, Default)]
struct RecentTimes {
    /// The times in microseconds, stored as `u32` to save memory, because a large catalogue has
    /// thousands of endpoints. Times of more than 71 minutes count as 71 minutes.
    micros: Vec<u32>,
    next: usize,
    quantile: Duration,
}

impl QueueTiming {
    /// Records the round trip of a reply that a worker sent without delay.
    pub fn record_round_trip(&self, duration: Duration, now: Instant) {
        let mut state = self.lock();
        let is_over = |start: Instant| now.saturating_duration_since(start) > MINIMUM_WINDOW;
        if state.window_start.is_none_or(is_over) {
            state.window_start = Some(now);
            state.minimums = [None, state.minimums[0].or(state.minimums[1])];
        }
        let minimum = &mut state.minimums[0];
        *minimum = Some(minimum.map_or(duration, |minimum| minimum.min(duration)));
    }

    /// Records the time until the first reply to an attempt.
    pub fn record_first_reply(&self, endpoint: &EndpointId, duration: Duration) {
        self.lock().record(endpoint, |times| times.first_replies.record(duration));
    }

    /// Records the time until an attempt was answered or abandoned.
    pub fn record_answer(&self, endpoint: &EndpointId, duration: Duration) {
        self.lock().record(endpoint, |times| times.answers.record(duration));
    }

    /// Sets the round trip that the transport measured.
    pub fn set_link_round_trip(&self, round_trip: Duration) {
        self.lock().link_round_trip = round_trip;
    }

    /// Returns the round trip to a worker or, while that is unknown, to the NATS server.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.lock().round_trip()
    }

    /// Returns the time to wait for the first reply: `configured`, or longer on a slow network.
    #[must_use]
    pub fn accept_timeout(&self, configured: Duration) -> Duration {
        let round_trip = self.round_trip();
        // On a fast network, the configured time already includes the worker's delay.
        let delay = FIRST_REPLY_DELAY.min(round_trip);
        configured.max(round_trip * FIRST_REPLY_ROUND_TRIPS + delay)
    }

    /// Returns the time that an attempt is expected to need. The first reply takes at least a round trip.
    #[must_use]
    pub fn estimate(&self, endpoint: &EndpointId) -> AttemptEstimate {
        let state = self.lock();
        let times = state.endpoints.get(endpoint);
        let first_reply = times.map_or(Duration::ZERO, |times| times.first_replies.quantile);
        AttemptEstimate {
            first_reply: first_reply.max(state.round_trip()),
            answer: times.map_or(Duration::ZERO, |times| times.answers.quantile),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn round_trip(&self) -> Duration {
        self.minimums.iter().flatten().min().copied().unwrap_or(self.link_round_trip)
    }

    fn record(&mut self, endpoint: &EndpointId, record: impl FnOnce(&mut EndpointTimes)) {
        // `entry` would clone the id for every call.
        match self.endpoints.get_mut(endpoint) {
            Some(times) => record(times),
            None => record(self.endpoints.entry(endpoint.clone()).or_default()),
        }
    }
}

impl RecentTimes {
    fn record(&mut self, duration: Duration) {
        let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
        match self.micros.get_mut(self.next) {
            Some(oldest) => *oldest = micros,
            None => self.micros.push(micros),
        }
        self.next = (self.next + 1) % SAMPLES_MAX;
        if self.next.is_multiple_of(UPDATE_EVERY) && self.micros.len() >= SAMPLES_MIN {
            let mut micros = self.micros.clone();
            let index = micros.len().saturating_sub(1 + OUTLIERS);
            let (_, quantile, _) = micros.select_nth_unstable(index);
            self.quantile = Duration::from_micros((*quantile).into());
        }
    }
}
