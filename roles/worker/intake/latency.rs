//! How long calls and round trips take on a queue, and what follows: how many messages to take beyond the slots, and how
//! long to wait for an answer.
//!
//! No clock in here: every time is passed in.

use std::time::Duration;

use crate::config::limits;

/// What a process needs to take a message and start its call, on top of a round trip.
const OWN_PACE: Duration = Duration::from_millis(2);
/// Messages beyond the slots at most.
pub const BACKLOG_MAX: usize = 4096;
/// Calls end unevenly: one part in so many more of a round trip is bridged.
const UNEVEN: u32 = 4;
/// A slot that is idle for less than this part of a call needs no backlog.
const IDLE_SHARE: u32 = 20;
/// The longest that a message waits beyond the slots, on top of two round trips.
const PATIENCE: Duration = Duration::from_millis(100);
/// Moving means give a new sample one part in so many.
const CALL_WEIGHT: u32 = 16;
const ROUND_TRIP_WEIGHT: u32 = 8;
/// All messages ask for consent.
const ALL: u32 = 256;

/// The pace of one queue.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Configured; the least that an offer is kept for.
    offer_timeout: Duration,
    /// How long a call holds a slot: a moving mean, once one has ended.
    call: Option<Duration>,
    /// How long gateways take to answer offers and claims: a moving mean, once one has.
    answer: Option<Duration>,
    /// The transport's own round trip to its server: the least that an answer takes.
    link: Duration,
    /// The part of messages that ask for consent before they run, of `ALL`.
    claims: u32,
}

impl Pace {
    /// Of a queue of which nothing is known.
    #[must_use]
    pub fn new(offer_timeout: Duration) -> Self {
        Self { offer_timeout, call: None, answer: None, link: Duration::ZERO, claims: 0 }
    }

    /// A call held a slot for so long.
    pub fn record_call(&mut self, took: Duration) {
        self.call = Some(mean(self.call, took, CALL_WEIGHT));
    }

    /// A gateway took so long to answer an offer or a claim.
    pub fn record_answer(&mut self, took: Duration) {
        self.answer = Some(mean(self.answer, took, ROUND_TRIP_WEIGHT));
    }

    /// What the transport measured.
    pub fn set_link(&mut self, round_trip: Duration) {
        self.link = round_trip;
    }

    /// A message was taken that asks for consent, or one that does not.
    pub fn record_taken(&mut self, claims: bool) {
        let sample = if claims { ALL / CALL_WEIGHT } else { 0 };
        self.claims = self.claims - self.claims / CALL_WEIGHT + sample;
    }

    /// Calls are longer than they seemed: a message waited for so long and none ended.
    pub fn set_call_at_least(&mut self, took: Duration) {
        self.call = Some(self.call.unwrap_or_default().max(took));
    }

    /// A message waited too long although calls ended meanwhile: there are too many for this pace.
    pub fn slow_down(&mut self) {
        self.call = self.call.map(|call| call.saturating_mul(2));
    }

    /// How long a call holds a slot.
    #[must_use]
    pub fn call(&self) -> Option<Duration> {
        self.call
    }

    /// The round trip to a gateway.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.answer.unwrap_or_default().max(self.link)
    }

    /// How many messages beyond `limit` slots keep these busy while a further one is on its way: those that ask for consent
    /// travel twice. None where calls are long beside that.
    #[must_use]
    pub fn backlog(&self, limit: usize) -> usize {
        let Some(call) = self.call else { return 0 };
        let travel = self.round_trip().saturating_mul(ALL + self.claims) / ALL;
        let travel = travel + travel / UNEVEN + OWN_PACE;
        if travel.saturating_mul(IDLE_SHARE) < call {
            return 0;
        }
        let calls =
            (travel.as_nanos().saturating_mul(limit as u128)).div_ceil(call.as_nanos().max(1));
        usize::try_from(calls).unwrap_or(BACKLOG_MAX).min(BACKLOG_MAX)
    }

    /// How long a message may wait beyond the slots: about what an offer elsewhere costs.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.round_trip() * 2 + PATIENCE
    }

    /// How long an offer is open.
    #[must_use]
    pub fn offer_timeout(&self) -> Duration {
        self.at_least(self.offer_timeout)
    }

    /// A configured time, or longer where a few round trips take longer.
    #[must_use]
    pub fn at_least(&self, configured: Duration) -> Duration {
        limits::too_short(configured, self.round_trip()).unwrap_or(configured)
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

    fn pace(call: Duration, round_trip: Duration) -> Pace {
        let mut pace = Pace::new(ms(250));
        pace.record_call(call);
        pace.record_answer(round_trip);
        pace
    }

    #[test]
    fn a_backlog_keeps_slots_busy_for_a_round_trip_and_is_none_for_long_calls() {
        assert_eq!(Pace::new(ms(250)).backlog(64), 0, "nothing is known");
        assert_eq!(pace(ms(100), ms(300)).backlog(8), 31, "377 ms of eight slots");
        assert_eq!(pace(ms(10), ms(0)).backlog(4), 1);
        assert_eq!(pace(ms(1000), ms(1)).backlog(64), 0);
        assert_eq!(pace(ms(1000), ms(800)).backlog(2), 3);
        assert_eq!(pace(Duration::from_micros(100), ms(1)).backlog(64), 2080);
        assert_eq!(pace(Duration::ZERO, ms(800)).backlog(10_000), BACKLOG_MAX);
    }

    #[test]
    fn who_asks_for_consent_travels_twice() {
        let mut pace = pace(ms(125), ms(798));
        assert_eq!(pace.backlog(1), 8);
        for _ in 0..200 {
            pace.record_taken(true);
        }
        assert!((15..=16).contains(&pace.backlog(1)), "{}", pace.backlog(1));
        for _ in 0..200 {
            pace.record_taken(false);
        }
        assert!(pace.backlog(1) <= 9, "{}", pace.backlog(1));
    }

    #[test]
    fn configured_times_are_floors() {
        assert_eq!(pace(ms(1), ms(1)).offer_timeout(), ms(250));
        assert_eq!(pace(ms(1), ms(800)).offer_timeout(), ms(2400));
        let mut far = pace(ms(1), ms(1));
        far.set_link(ms(500));
        assert_eq!(far.at_least(ms(1000)), ms(1500));
    }
}
