//! The endpoints that a reload has removed. Workers must serve them until the last request is complete.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::catalogue::{Catalogue, Endpoint};

/// The interval at which a wait checks whether requests are complete.
const CHECK_INTERVAL: Duration = Duration::from_millis(25);

/// The removed endpoints that requests still use. Every request holds a reference to its endpoint until the request is
/// complete, even if its client has disconnected.
#[derive(Clone, Debug, Default)]
pub(super) struct RemovedEndpoints(Vec<Weak<Endpoint>>);

impl RemovedEndpoints {
    /// Adds the endpoints of the old catalogue that the new one lacks, or that have lost one of their queues. Forgets
    /// removed endpoints that the new catalogue contains again.
    pub(super) fn add(&mut self, old: &Catalogue, new: &Catalogue) {
        let is_removed = |endpoint: &Arc<Endpoint>| {
            let has = |kept: &Endpoint, queue: &str| kept.queues.position(queue).is_some();
            let mut queues = endpoint.queues.iter().map(|queue| queue.name.as_str());
            new.get(&endpoint.id).is_none_or(|kept| !queues.all(|queue| has(kept, queue)))
        };
        self.0.retain(|endpoint| endpoint.upgrade().as_ref().is_some_and(is_removed));
        let added = old.endpoints().iter().filter(|endpoint| is_removed(endpoint));
        self.0.extend(added.map(Arc::downgrade));
    }

    /// Waits until no request uses a removed endpoint.
    ///
    /// # Errors
    /// A line for each endpoint that requests still use at the deadline.
    pub(super) async fn wait_until_unused(mut self, deadline: Instant) -> Result<(), Vec<String>> {
        loop {
            self.0.retain(|endpoint| endpoint.strong_count() > 0);
            if self.0.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.lines());
            }
            sleep(CHECK_INTERVAL).await;
        }
    }

    fn lines(&self) -> Vec<String> {
        let line = |endpoint: Arc<Endpoint>| {
            format!(
                "requests are still in progress for endpoint {}, which has been removed or moved",
                endpoint.id
            )
        };
        let mut lines: Vec<String> = self.0.iter().filter_map(Weak::upgrade).map(line).collect();
        lines.sort();
        lines.dedup();
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::load::fixture::catalogue;
    use crate::lifecycle::Tasks;

    #[tokio::test(start_paused = true)]
    async fn only_requests_for_removed_and_moved_endpoints_are_awaited() {
        let old = catalogue(
            r#""kept": {"route":"GET /kept", KEYS}, "moved": {"route":"GET /moved", KEYS},
               "removed": {"route":"GET /removed", KEYS}"#,
        );
        let new = catalogue(
            r#""kept": {"route":"GET /kept", KEYS}, "moved": {"route":"GET /moved", "queue": "other", KEYS}"#,
        );
        let held = |id: &str| {
            let mut endpoints = old.endpoints().iter();
            Arc::clone(endpoints.find(|endpoint| endpoint.id.as_str() == id).unwrap())
        };
        let (kept, moved, removed) = (held("kept"), held("moved"), held("removed"));
        let mut endpoints = RemovedEndpoints::default();
        endpoints.add(&old, &new);
        // Later reloads do not forget the removed endpoints.
        endpoints.add(&new, &new);
        drop(old);
        let wait = |endpoints: &RemovedEndpoints| {
            endpoints.clone().wait_until_unused(Instant::now() + Duration::from_secs(1))
        };
        let lines = wait(&endpoints).await.unwrap_err();
        assert_eq!(lines.len(), 2, "{lines:?}");
        drop(moved);
        let lines = wait(&endpoints).await.unwrap_err();
        assert!(lines.len() == 1 && lines[0].contains("endpoint removed,"), "{lines:?}");
        // An endpoint that was added again no longer counts as removed.
        let mut restored = endpoints.clone();
        let newest = catalogue(
            r#""kept": {"route":"GET /kept", KEYS}, "moved": {"route":"GET /moved", "queue": "other", KEYS},
               "removed": {"route":"GET /removed", KEYS}"#,
        );
        restored.add(&new, &newest);
        assert_eq!(wait(&restored).await, Ok(()));
        let waiting = Tasks::new().spawn(wait(&endpoints));
        sleep(Duration::from_millis(100)).await;
        drop(removed);
        assert_eq!(waiting.await.unwrap(), Ok(()));
        drop(kept);
    }
}
