//! Omits queues from a report that does not fit into one message.

use std::cmp::Reverse;
use std::iter::Peekable;

use serde::Serialize;

use super::{QueueReport, Report};

/// The bytes that are reserved for the numbers of omitted entries, which grow by a few digits.
const RESERVED_BYTES: usize = 64;
/// The reciprocal of the fraction of the space that is reserved for the queues of endpoints with several queues. Entries of either
/// kind may use space that the other kind leaves free.
const WEIGHTED_SHARE: usize = 4;

impl Report {
    /// Returns the report without the queues that do not fit into a message of `bytes_max` bytes. Queues with requests, running calls
    /// or a changed state are kept first, then those with the most calls.
    #[must_use]
    pub fn shortened(&self, bytes_max: usize) -> Self {
        let mut short = self.without_queues();
        let room = bytes_max.saturating_sub(json_bytes(&short) + RESERVED_BYTES);
        let mut weighted: Vec<_> = self.weighted_queues.iter().enumerate().collect();
        weighted.sort_by_key(|(_, queue)| Reverse(queue.requests));
        let mut weighted = weighted.into_iter().peekable();
        let mut queues: Vec<_> = self.queues.iter().enumerate().collect();
        queues.sort_by_key(|(_, queue)| Reverse((queue.is_active(), queue.calls)));
        let mut queues = queues.into_iter().peekable();
        let mut weighted_room = room / WEIGHTED_SHARE;
        let mut weighted_kept = take_fitting(&mut weighted, &mut weighted_room);
        let mut room = room - room / WEIGHTED_SHARE + weighted_room;
        short.queues = in_order(take_fitting(&mut queues, &mut room));
        weighted_kept.extend(take_fitting(&mut weighted, &mut room));
        short.weighted_queues = in_order(weighted_kept);
        short.queues_omitted = queues.len().try_into().unwrap_or(u64::MAX);
        short.weighted_queues_omitted = weighted.len().try_into().unwrap_or(u64::MAX);
        short
    }

    /// Returns the report as if no queue fitted into it.
    fn without_queues(&self) -> Self {
        Self {
            role: self.role.clone(),
            id: self.id.clone(),
            host: self.host.clone(),
            version: self.version.clone(),
            started: self.started.clone(),
            uptime_seconds: self.uptime_seconds,
            not_ready: self.not_ready.clone(),
            pool: self.pool.clone(),
            in_flight: self.in_flight,
            in_flight_max: self.in_flight_max,
            cpu_seconds: self.cpu_seconds,
            memory_bytes: self.memory_bytes,
            queues: Vec::new(),
            without_queue: self.without_queue.clone(),
            weighted_queues: Vec::new(),
            databases: self.databases.clone(),
            is_truncated: true,
            queues_omitted: 0,
            weighted_queues_omitted: 0,
        }
    }
}

/// Takes entries for as long as they fit, and deducts their sizes from `room`.
fn take_fitting<'a, T: Serialize>(
    entries: &mut Peekable<impl Iterator<Item = (usize, &'a T)>>,
    room: &mut usize,
) -> Vec<(usize, &'a T)> {
    let mut taken = Vec::new();
    while let Some((_, entry)) = entries.peek()
        && let Some(rest) = room.checked_sub(json_bytes(entry) + 1)
    {
        *room = rest;
        taken.extend(entries.next());
    }
    taken
}

/// Returns the entries in their original order.
fn in_order<T: Clone>(mut entries: Vec<(usize, &T)>) -> Vec<T> {
    entries.sort_by_key(|(place, _)| *place);
    entries.into_iter().map(|(_, entry)| entry.clone()).collect()
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
    fn each_kind_of_queue_uses_the_room_that_the_other_leaves() {
        let mut whole = report(5, 1_000);
        for (number, queue) in (0..).zip(&mut whole.weighted_queues) {
            queue.requests = number;
        }
        let short = whole.shortened(20_000);
        let size = json_bytes(&short);
        assert!(size <= 20_000 && size > 19_000, "{size}");
        assert_eq!((short.queues.len(), short.queues_omitted), (5, 0));
        let kept = short.weighted_queues.len();
        assert_eq!(short.weighted_queues[..], whole.weighted_queues[1_000 - kept..]);
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
