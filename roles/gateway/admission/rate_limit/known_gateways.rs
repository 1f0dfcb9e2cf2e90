//! The other gateways of the fleet that have sent messages.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The maximum number of gateways that are counted, including this one.
pub(super) const GATEWAYS_MAX: usize = 64;
/// The time for which a gateway is counted after its last message: the longest window of a limit. A gateway whose
/// callers consume nothing sends no messages, but earlier consumption by these callers may not have been deducted
/// yet.
const COUNTED_FOR: Duration = Duration::from_hours(24);

/// The gateways that share limits with this one, and the time of each one's last message.
#[derive(Debug, Default)]
pub(super) struct KnownGateways {
    heard_at: HashMap<String, Instant>,
}

impl KnownGateways {
    /// Records a message from another gateway.
    pub(super) fn record(&mut self, id: &str, now: Instant) {
        if let Some(heard_at) = self.heard_at.get_mut(id) {
            *heard_at = now;
        } else if self.count(now) < GATEWAYS_MAX {
            self.heard_at.insert(id.to_owned(), now);
        }
    }

    /// Forgets gateways that have sent no message for a day. Returns the number of remaining gateways, including this
    /// one.
    pub(super) fn count(&mut self, now: Instant) -> usize {
        let is_counted = |at: &Instant| now.saturating_duration_since(*at) < COUNTED_FOR;
        self.heard_at.retain(|_, heard_at| is_counted(heard_at));
        self.heard_at.len() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_counts_for_a_day_after_its_last_message() {
        let (mut known, start) = (KnownGateways::default(), Instant::now());
        assert_eq!(known.count(start), 1);
        known.record("a", start);
        known.record("b", start);
        known.record("b", start + COUNTED_FOR / 2);
        assert_eq!(known.count(start + COUNTED_FOR / 2), 3);
        assert_eq!(known.count(start + COUNTED_FOR), 2, "only b is left");
        assert_eq!(known.count(start + COUNTED_FOR * 2), 1);
    }

    #[test]
    fn the_number_of_gateways_is_bounded() {
        let (mut known, now) = (KnownGateways::default(), Instant::now());
        (0..1_000).for_each(|number| known.record(&number.to_string(), now));
        assert_eq!(known.count(now), GATEWAYS_MAX);
    }
}
