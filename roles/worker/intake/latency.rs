//! Measures the durations of calls and round trips, and derives a queue's backlog size and timeouts
//! from them.
//!
//! This code does not read the clock: all times are passed in.

use std::time::Duration;

use crate::config::limits;

/// The time that a worker needs to read a message and start its call, in addition to the round
/// trip.
const START_TIME: Duration = Duration::from_millis(2);
/// The maximum size of the backlog, in requests.
pub const BACKLOG_MAX: usize = 4096;
/// The backlog covers an extra `1 / JITTER_DIVISOR` of a round trip, because calls end
/// irregularly.
const JITTER_DIVISOR: u32 = 4;
/// There is no backlog if a slot would be idle for less than `1 / IDLE_DIVISOR` of the call time.
const IDLE_DIVISOR: u32 = 20;
/// The maximum wait in the backlog, in addition to two round trips.
const BACKLOG_WAIT: Duration = Duration::from_millis(100);
/// A new sample has a weight of `1 / CALL_WEIGHT` in the moving mean of call times.
const CALL_WEIGHT: u32 = 16;
/// A new sample has a weight of `1 / ROUND_TRIP_WEIGHT` in the moving mean of round trips.
const ROUND_TRIP_WEIGHT: u32 = 8;
/// The value of `consent_share` if every request needs consent.
const WHOLE: u32 = 256;

/// The latencies of one queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLatency {
    /// The configured minimum duration of an offer.
    offer_timeout_min: Duration,
    /// The moving mean of the time for which calls hold a slot, or `None` until a call has ended.
    call_time: Option<Duration>,
    /// The mean time that gateways take to answer offers and claims, or `None` until the first
    /// answer.
    answer_time: Option<Duration>,
    /// The round trip to the NATS server. No gateway can answer faster.
    link: Duration,
    /// The share of requests that need consent, as a fraction of `WHOLE`.
    consent_share: u32,
}

impl QueueLatency {
    /// Creates the latencies of a queue without any measurements.
    #[must_use]
    pub fn new(offer_timeout_min: Duration) -> Self {
        Self {
            offer_timeout_min,
            call_time: None,
            answer_time: None,
            link: Duration::ZERO,
            consent_share: 0,
        }
    }

    /// Changes the configured minimum duration of an offer.
    pub fn set_offer_timeout_min(&mut self, offer_timeout_min: Duration) {
        self.offer_timeout_min = offer_timeout_min;
    }

    /// Records the time for which a call held its slot.
    pub fn record_call(&mut self, took: Duration) {
        self.call_time = Some(mean(self.call_time, took, CALL_WEIGHT));
    }

    /// Records the time that a gateway took to answer an offer or a claim.
    pub fn record_round_trip(&mut self, took: Duration) {
        self.answer_time = Some(mean(self.answer_time, took, ROUND_TRIP_WEIGHT));
    }

    /// Sets the measured round trip to the NATS server.
    pub fn set_link_round_trip(&mut self, round_trip: Duration) {
        self.link = round_trip;
    }

    /// Records whether an accepted request needs consent.
    pub fn record_accepted(&mut self, needs_consent: bool) {
        let sample = if needs_consent { WHOLE / CALL_WEIGHT } else { 0 };
        self.consent_share = self.consent_share - self.consent_share / CALL_WEIGHT + sample;
    }

    /// Raises the call time to at least `at_least`. Call this when a request has waited that long
    /// and no call has ended in the meantime.
    pub fn raise_call_time(&mut self, at_least: Duration) {
        self.call_time = Some(self.call_time.unwrap_or_default().max(at_least));
    }

    /// Doubles the call time, which shrinks the backlog. Call this when a request has waited too
    /// long even though calls have ended.
    pub fn double_call_time(&mut self) {
        self.call_time = self.call_time.map(|time| time.saturating_mul(2));
    }

    /// Returns the mean time for which a call holds its slot, or `None` until a call has ended.
    #[must_use]
    pub fn call_time(&self) -> Option<Duration> {
        self.call_time
    }

    /// Returns the round trip to a gateway.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.answer_time.unwrap_or_default().max(self.link)
    }

    /// Returns the number of requests beyond `limit` that keep the slots busy until the next
    /// request arrives, or 0 if calls are much longer than the round trips. A request that needs
    /// consent takes two round trips.
    #[must_use]
    pub fn backlog_max(&self, limit: usize) -> usize {
        let Some(call_time) = self.call_time else { return 0 };
        let mean_trip = self.round_trip().saturating_mul(WHOLE + self.consent_share) / WHOLE;
        let covered = mean_trip + mean_trip / JITTER_DIVISOR + START_TIME;
        if covered.saturating_mul(IDLE_DIVISOR) < call_time {
            return 0;
        }
        let slot_time = covered.as_nanos().saturating_mul(limit as u128);
        let calls = slot_time.div_ceil(call_time.as_nanos().max(1));
        usize::try_from(calls).unwrap_or(BACKLOG_MAX).min(BACKLOG_MAX)
    }

    /// Returns the maximum wait in the backlog. It is about as long as an offer from another worker
    /// takes.
    #[must_use]
    pub fn backlog_wait_max(&self) -> Duration {
        self.round_trip() * 2 + BACKLOG_WAIT
    }

    /// Returns the time for which an offered slot is reserved.
    #[must_use]
    pub fn offer_timeout(&self) -> Duration {
        self.timeout(self.offer_timeout_min)
    }

    /// Returns a configured timeout, or a longer one if the round trip requires it.
    #[must_use]
    pub fn timeout(&self, configured: Duration) -> Duration {
        limits::lengthened_timeout(configured, self.round_trip()).unwrap_or(configured)
    }
}

fn mean(before: Option<Duration>, sample: Duration, weight: u32) -> Duration {
    before.map_or(sample, |before| (before * (weight - 1) + sample) / weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn latency(call_time: Duration, round_trip: Duration) -> QueueLatency {
        let mut latency = QueueLatency::new(ms(250));
        latency.record_call(call_time);
        latency.record_round_trip(round_trip);
        latency
    }

    #[test]
    fn the_backlog_covers_a_round_trip_and_is_empty_for_long_calls() {
        assert_eq!(QueueLatency::new(ms(250)).backlog_max(64), 0, "no measurement yet");
        assert_eq!(latency(ms(100), ms(300)).backlog_max(8), 31, "377 ms of eight slots");
        assert_eq!(latency(ms(10), ms(0)).backlog_max(4), 1);
        assert_eq!(latency(ms(1000), ms(1)).backlog_max(64), 0);
        assert_eq!(latency(ms(1000), ms(800)).backlog_max(2), 3);
        assert_eq!(latency(Duration::from_micros(100), ms(1)).backlog_max(64), 2080);
        assert_eq!(latency(Duration::ZERO, ms(800)).backlog_max(10_000), BACKLOG_MAX);
    }

    #[test]
    fn requests_that_need_consent_count_two_round_trips() {
        let mut latency = latency(ms(125), ms(798));
        assert_eq!(latency.backlog_max(1), 8);
        for _ in 0..200 {
            latency.record_accepted(true);
        }
        assert!((15..=16).contains(&latency.backlog_max(1)), "{}", latency.backlog_max(1));
        for _ in 0..200 {
            latency.record_accepted(false);
        }
        assert!(latency.backlog_max(1) <= 9, "{}", latency.backlog_max(1));
    }

    #[test]
    fn configured_timeouts_are_minima() {
        assert_eq!(latency(ms(1), ms(1)).offer_timeout(), ms(250));
        assert_eq!(latency(ms(1), ms(800)).offer_timeout(), ms(2400));
        let mut far = latency(ms(1), ms(1));
        far.set_link_round_trip(ms(500));
        assert_eq!(far.timeout(ms(1000)), ms(1500));
    }
}
