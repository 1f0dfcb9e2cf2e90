//! Omits queues from a report that does not fit into one message.

use serde::Serialize;

use super::{QueueReport, Report};

/// The bytes that are reserved for the numbers of omitted entries, which grow by a few digits.
const RESERVED_BYTES: usize = 64;
/// The part of the room for queues that endpoints with several queues may use.
const WEIGHTED_SHARE: usize = 4;

impl Report {
    /// Returns the report without the queues for which a message of `bytes_max` bytes has no room. Queues with requests, calls or a
    /// changed state are kept first, then those with the most calls.
    #[must_use]
    pub fn shortened(&self, bytes_max: usize) -> Self {
        let mut short = Self { queues: Vec::new(), weighted_queues: Vec::new(), ..self.clone() };
        short.is_truncated = true;
        let room = bytes_max.saturating_sub(json_bytes(&short) + RESERVED_BYTES);
        let mut weighted_room = room / WEIGHTED_SHARE;
        let weighted = self.weighted_queues.iter().map_while(|queue| {
            weighted_room = weighted_room.checked_sub(json_bytes(queue) + 1)?;
            Some(queue.clone())
        });
        short.weighted_queues = weighted.collect();
        let used: usize = short.weighted_queues.iter().map(|queue| json_bytes(queue) + 1).sum();
        let mut ranked: Vec<(usize, &QueueReport)> = self.queues.iter().enumerate().collect();
        ranked.sort_by_key(|(_, queue)| std::cmp::Reverse((queue.is_active(), queue.calls)));
        let mut room = room - used;
        let mut kept: Vec<_> = ranked
            .into_iter()
            .map_while(|(place, queue)| {
                room = room.checked_sub(json_bytes(queue) + 1)?;
                Some((place, queue))
            })
            .collect();
        kept.sort_by_key(|(place, _)| *place);
        short.queues = kept.into_iter().map(|(_, queue)| queue.clone()).collect();
        let omitted = |all: usize, kept: usize| u64::try_from(all - kept).unwrap_or(u64::MAX);
        short.queues_omitted = omitted(self.queues.len(), short.queues.len());
        short.weighted_queues_omitted =
            omitted(self.weighted_queues.len(), short.weighted_queues.len());
        short
    }
}

impl QueueReport {
    /// Returns whether the queue has requests or running calls now, or is not served as configured.
    fn is_active(&self) -> bool {
        let slots = self.slots.as_ref().is_some_and(|slots| {
            let is_changed = slots.limit_configured.is_some_and(|limit| limit != slots.limit);
            slots.running + slots.waiting > 0 || slots.is_paused || !slots.is_served || is_changed
        });
        let waiting = self.demand.as_ref().is_some_and(|demand| demand.waiting > 0);
        let sent = self.delivery.as_ref().is_some_and(|one| one.unaccepted + one.accepted > 0);
        slots || waiting || sent
    }
}

/// Returns the size of a value as JSON. A report can always be written as JSON.
fn json_bytes(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX / 4, |json| json.len())
}

#[cfg(test)]
mod tests {
    use super::super::{DemandReport, SlotsReport, WeightedQueueReport};
    use super::*;

    fn queue(number: u64, waiting: u64) -> QueueReport {
        QueueReport {
            name: format!("queue-{number:04}"),
            calls: number,
            demand: Some(DemandReport { waiting, ..DemandReport::default() }),
            ..QueueReport::default()
        }
    }

    fn report(queues: u64, weighted: usize) -> Report {
        Report {
            queues: (0..queues).map(|number| queue(number, u64::from(number == 3))).collect(),
            weighted_queues: vec![WeightedQueueReport::default(); weighted],
            ..Report::default()
        }
    }

    #[test]
    fn the_queues_that_matter_most_are_kept() {
        let whole = report(1_000, 1_000);
        for bytes in [20_000, 100_000] {
            let short = whole.shortened(bytes);
            let size = json_bytes(&short);
            assert!(size <= bytes && size > bytes * 3 / 4, "{size} of {bytes}");
            let kept = short.queues.len();
            assert!(short.is_truncated && (10..1_000).contains(&kept), "{kept}");
            assert_eq!(short.queues_omitted, 1_000 - u64::try_from(kept).unwrap());
            let weighted = u64::try_from(short.weighted_queues.len()).unwrap();
            assert!(weighted > 0 && short.weighted_queues_omitted == 1_000 - weighted);
            // The queue with a waiting request, and then those with the most calls, in the same order as before.
            assert_eq!(short.queues[0], whole.queues[3]);
            assert_eq!(short.queues[1..], whole.queues[1_001 - kept..]);
        }
    }

    #[test]
    fn a_report_without_room_for_queues_says_so() {
        let short = report(7, 2).shortened(100);
        assert_eq!((short.queues.len(), short.queues_omitted), (0, 7));
        assert_eq!((short.weighted_queues.len(), short.weighted_queues_omitted), (0, 2));
    }

    #[test]
    fn queues_that_are_not_served_as_configured_are_active() {
        let with = |slots| QueueReport { slots: Some(slots), ..QueueReport::default() };
        let idle = SlotsReport {
            limit: 4,
            limit_configured: Some(4),
            is_served: true,
            ..SlotsReport::default()
        };
        assert!(!with(idle.clone()).is_active());
        for slots in [
            SlotsReport { running: 1, ..idle.clone() },
            SlotsReport { is_paused: true, ..idle.clone() },
            SlotsReport { is_served: false, ..idle.clone() },
            SlotsReport { limit: 3, ..idle },
        ] {
            assert!(with(slots).is_active());
        }
    }
}
