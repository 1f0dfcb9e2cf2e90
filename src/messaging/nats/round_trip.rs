//! The measured round trip: a smoothed mean and a recent maximum.

use std::time::Duration;

use tokio::time::Instant;

use crate::messaging::RoundTrip;

/// Measurements after which the maximum before them is forgotten.
const WINDOW: u32 = 8;

/// What was measured so far.
#[derive(Debug, Default)]
pub(super) struct Measured {
    smoothed: Option<Duration>,
    /// The longest of this window and of the one before.
    longest: [Duration; 2],
    in_window: u32,
    /// When the one under way was sent.
    sent_at: Option<Instant>,
}

impl Measured {
    /// One is sent.
    pub(super) fn sent(&mut self, at: Instant) {
        self.sent_at = Some(at);
    }

    /// The one that was sent is waited for no longer.
    pub(super) fn forget(&mut self) {
        self.sent_at = None;
    }

    /// Takes a measurement.
    pub(super) fn add(&mut self, took: Duration) {
        self.forget();
        self.smoothed = Some(self.smoothed.map_or(took, |mean| (mean * 7 + took) / 8));
        if self.in_window == WINDOW {
            self.longest = [Duration::ZERO, self.longest[0]];
            self.in_window = 0;
        }
        self.in_window += 1;
        self.longest[0] = self.longest[0].max(took);
    }

    /// What it comes to.
    pub(super) fn round_trip(&self, now: Instant) -> RoundTrip {
        let [this, before] = self.longest;
        RoundTrip {
            smoothed: self.smoothed.unwrap_or_default(),
            recent_max: this.max(before),
            pending: self.sent_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at)),
        }
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
        let mut measured = Measured::default();
        let now = Instant::now();
        let come_to = |measured: &Measured| {
            let RoundTrip { smoothed, recent_max, pending } = measured.round_trip(now);
            (smoothed, recent_max, pending)
        };
        assert_eq!(measured.round_trip(now), RoundTrip::default());
        measured.add(ms(80));
        assert_eq!(come_to(&measured), (ms(80), ms(80), ms(0)));
        measured.add(ms(160));
        assert_eq!(come_to(&measured), (ms(90), ms(160), ms(0)));
    }

    #[test]
    fn a_way_is_stalled_when_the_one_under_way_takes_much_longer_than_usual() {
        let mut measured = Measured::default();
        let now = Instant::now();
        measured.add(ms(100));
        measured.sent(now);
        assert!(!measured.round_trip(now + ms(450)).is_stalled());
        assert!(measured.round_trip(now + ms(451)).is_stalled());
        measured.add(ms(500));
        assert!(!measured.round_trip(now + ms(500)).is_stalled());
    }

    #[test]
    fn a_maximum_is_kept_for_a_window_and_then_forgotten() {
        let mut measured = Measured::default();
        measured.add(ms(500));
        for _ in 0..WINDOW {
            measured.add(ms(1));
            assert_eq!(measured.round_trip(Instant::now()).recent_max, ms(500));
        }
        for _ in 0..WINDOW {
            measured.add(ms(1));
        }
        assert_eq!(measured.round_trip(Instant::now()).recent_max, ms(1));
    }
}
