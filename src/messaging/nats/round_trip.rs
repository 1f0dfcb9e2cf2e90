//! The measured round-trip time: a smoothed mean and a recent maximum.

use std::time::Duration;

use tokio::time::Instant;

use crate::messaging::RoundTrip;

/// The number of measurements in a window. The maximum covers the current and the previous window.
const WINDOW: u32 = 8;
/// The time by which a round trip must exceed twice the mean before the link counts as stalled.
const STALL_MIN: Duration = Duration::from_millis(250);

/// The measurements so far.
#[derive(Debug, Default)]
pub(super) struct RoundTripMeter {
    smoothed: Option<Duration>,
    /// The longest measurement in the current window and in the previous one.
    longest: [Duration; 2],
    in_window: u32,
    /// The time at which the pending probe was sent.
    sent_at: Option<Instant>,
    /// The time at which the first probe was sent after the last one that came back.
    unconfirmed_since: Option<Instant>,
    /// The time at which the latest stall ended.
    stall_end: Option<Instant>,
}

impl RoundTripMeter {
    /// Records that a probe was sent.
    pub(super) fn sent(&mut self, at: Instant) {
        self.sent_at = Some(at);
        self.unconfirmed_since.get_or_insert(at);
    }

    /// Discards the pending probe, because it was lost. A stall continues until a later probe comes
    /// back.
    pub(super) fn cancel(&mut self) {
        self.sent_at = None;
    }

    /// Adds a measurement that ended at `now`.
    pub(super) fn add(&mut self, took: Duration, now: Instant) {
        if self.is_stalled(now) {
            self.stall_end = Some(now);
        }
        (self.sent_at, self.unconfirmed_since) = (None, None);
        self.smoothed = Some(self.smoothed.map_or(took, |mean| (mean * 7 + took) / 8));
        if self.in_window == WINDOW {
            self.longest = [Duration::ZERO, self.longest[0]];
            self.in_window = 0;
        }
        self.in_window += 1;
        self.longest[0] = self.longest[0].max(took);
    }

    /// Returns the results of the measurements so far.
    pub(super) fn round_trip(&self, now: Instant) -> RoundTrip {
        let [current, previous] = self.longest;
        RoundTrip {
            smoothed: self.smoothed.unwrap_or_default(),
            recent_max: current.max(previous),
            pending: self.pending(now),
            stalled_at: if self.is_stalled(now) { Some(now) } else { self.stall_end },
        }
    }

    fn pending(&self, now: Instant) -> Duration {
        self.sent_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }

    fn is_stalled(&self, now: Instant) -> bool {
        let limit = self.smoothed.unwrap_or_default() * 2 + STALL_MIN;
        self.unconfirmed_since.is_some_and(|since| now.saturating_duration_since(since) > limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_measurement_is_the_mean_and_later_ones_move_it() {
        let mut meter = RoundTripMeter::default();
        let now = Instant::now();
        let values = |meter: &RoundTripMeter| {
            let RoundTrip { smoothed, recent_max, pending, .. } = meter.round_trip(now);
            (smoothed, recent_max, pending)
        };
        assert_eq!(meter.round_trip(now), RoundTrip::default());
        meter.add(ms(80), now);
        assert_eq!(values(&meter), (ms(80), ms(80), ms(0)));
        meter.add(ms(160), now);
        assert_eq!(values(&meter), (ms(90), ms(160), ms(0)));
    }

    #[test]
    fn the_link_is_stalled_when_a_probe_takes_much_longer_than_usual() {
        let mut meter = RoundTripMeter::default();
        let now = Instant::now();
        let stalled_at = |meter: &RoundTripMeter, after| meter.round_trip(now + after).stalled_at;
        meter.add(ms(100), now);
        meter.sent(now);
        assert_eq!(stalled_at(&meter, ms(450)), None);
        assert_eq!(stalled_at(&meter, ms(451)), Some(now + ms(451)));
        meter.add(ms(500), now + ms(500));
        assert_eq!(stalled_at(&meter, ms(900)), Some(now + ms(500)), "when the stall ended");
    }

    #[test]
    fn a_stall_lasts_over_a_lost_connection_until_a_probe_comes_back() {
        let mut meter = RoundTripMeter::default();
        let now = Instant::now();
        let stalled_at = |meter: &RoundTripMeter, after| meter.round_trip(now + after).stalled_at;
        meter.sent(now);
        meter.cancel();
        assert_eq!(stalled_at(&meter, ms(200)), None);
        assert_eq!(stalled_at(&meter, ms(600)), Some(now + ms(600)), "no connection");
        meter.sent(now + ms(1000));
        assert_eq!(stalled_at(&meter, ms(1001)), Some(now + ms(1001)), "not confirmed yet");
        meter.add(ms(2), now + ms(1002));
        assert_eq!(stalled_at(&meter, ms(5000)), Some(now + ms(1002)));
    }

    #[test]
    fn a_maximum_is_kept_for_a_window_and_then_forgotten() {
        let mut meter = RoundTripMeter::default();
        let now = Instant::now();
        meter.add(ms(500), now);
        for _ in 0..WINDOW {
            meter.add(ms(1), now);
            assert_eq!(meter.round_trip(now).recent_max, ms(500));
        }
        for _ in 0..WINDOW {
            meter.add(ms(1), now);
        }
        assert_eq!(meter.round_trip(now).recent_max, ms(1));
    }
}
