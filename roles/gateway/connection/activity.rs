//! What a connection is busy with: requests that run, bytes that move.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// Counts the requests that run on a connection and the writes that its peer took.
#[derive(Debug)]
pub(super) struct Activity {
    requests: watch::Sender<Requests>,
    writes: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Requests {
    running: usize,
    has_served: bool,
}

/// A request that runs, until dropped.
#[derive(Debug)]
pub(super) struct Running<'a>(&'a Activity);

impl Activity {
    pub(super) fn new() -> Self {
        Self { requests: watch::Sender::new(Requests::default()), writes: AtomicU64::new(0) }
    }

    /// A request begins.
    pub(super) fn begin(&self) -> Running<'_> {
        self.requests.send_modify(|requests| {
            requests.running += 1;
            requests.has_served = true;
        });
        Running(self)
    }

    /// The peer took some bytes.
    pub(super) fn wrote(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether there was any request yet.
    pub(super) fn has_served(&self) -> bool {
        self.requests.borrow().has_served
    }

    /// Waits for the first request, at most so long.
    pub(super) async fn first(&self, limit: Duration) {
        let mut requests = self.requests.subscribe();
        let first = requests.wait_for(|requests| requests.has_served);
        // Without one by then there is none.
        drop(tokio::time::timeout(limit, first).await);
    }

    /// Waits until no request ran and the peer took nothing for so long; without a limit for ever.
    pub(super) async fn idle(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return std::future::pending().await };
        loop {
            let before = self.writes.load(Ordering::Relaxed);
            self.quiet(limit).await;
            if self.writes.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    /// Waits until no request ran for so long, whatever the peer takes.
    pub(super) async fn quiet(&self, limit: Duration) {
        let mut requests = self.requests.subscribe();
        loop {
            // The sender lives as long as `self`: neither wait can fail.
            drop(requests.wait_for(|requests| requests.running == 0).await);
            let begins = requests.changed();
            if tokio::time::timeout(limit, begins).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.requests.send_modify(|requests| requests.running -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_not_idle_while_a_request_runs() {
        let activity = Activity::new();
        let start = Instant::now();
        tokio::join!(activity.idle(Some(SECOND)), async {
            let running = activity.begin();
            tokio::time::sleep(5 * SECOND).await;
            drop(running);
        });
        assert_eq!(start.elapsed(), 6 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_on_is_not_idle_but_quiet() {
        let activity = Activity::new();
        let start = Instant::now();
        let reading = async {
            for _ in 0..4 {
                tokio::time::sleep(SECOND / 2).await;
                activity.wrote();
            }
        };
        tokio::join!(activity.idle(Some(SECOND)), reading, async {
            activity.quiet(SECOND).await;
            assert_eq!(start.elapsed(), SECOND);
        });
        assert!(start.elapsed() >= 3 * SECOND, "{:?}", start.elapsed());
    }
}
