//! The measured round trip: a smoothed mean and a recent maximum.

use std::time::Duration;

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
}

impl Measured {
    /// Takes a measurement.
    pub(super) fn add(&mut self, took: Duration) {
        self.smoothed = Some(self.smoothed.map_or(took, |mean| (mean * 7 + took) / 8));
        if self.in_window == WINDOW {
            self.longest = [Duration::ZERO, self.longest[0]];
            self.in_window = 0;
        }
        self.in_window += 1;
        self.longest[0] = self.longest[0].max(took);
    }

    /// What it comes to.
    pub(super) fn round_trip(&self) -> RoundTrip {
        let [this, before] = self.longest;
        RoundTrip { smoothed: self.smoothed.unwrap_or_default(), recent_max: this.max(before) }
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
        assert_eq!(measured.round_trip(), RoundTrip::default());
        measured.add(ms(80));
        assert_eq!(measured.round_trip(), RoundTrip { smoothed: ms(80), recent_max: ms(80) });
        measured.add(ms(160));
        assert_eq!(measured.round_trip(), RoundTrip { smoothed: ms(90), recent_max: ms(160) });
    }

    #[test]
    fn a_maximum_is_kept_for_a_window_and_then_forgotten() {
        let mut measured = Measured::default();
        measured.add(ms(500));
        for _ in 0..WINDOW {
            measured.add(ms(1));
            assert_eq!(measured.round_trip().recent_max, ms(500));
        }
        for _ in 0..WINDOW {
            measured.add(ms(1));
        }
        assert_eq!(measured.round_trip().recent_max, ms(1));
    }
}
