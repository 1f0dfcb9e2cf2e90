//! Tracks the requests that run on a connection and the bytes that its client accepts, and provides the timeouts that depend on
//! them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The minimum number of bytes that a peer must accept within an idle or stall limit. Without this minimum, a slow reader could
/// keep its response in memory indefinitely (the slow read attack of slowhttptest).
pub(super) const DELIVERED_BYTES_MIN: u64 = 8 * 1024;

/// The number of times that a query for the acknowledged bytes yields before it reads the result. By then, the future
/// that owns the socket has been polled, because it is part of the same task.
const QUERY_YIELDS: usize = 3;

/// The state of one connection.
///
/// Each request updates these fields several times, so an update does not wake any task. A waiting task sleeps until the
/// earliest instant at which its timeout could expire, and then checks again.
#[derive(Debug)]
pub(super) struct ConnectionActivity {
    opened_at: Instant,
    running: AtomicUsize,
    has_served: AtomicBool,
    /// Notified by the first request.
    first_request: Notify,
    /// Whether the client of the last request supports interim (1xx) responses.
    accepts_interim: AtomicBool,
    /// Whether bytes of another request have arrived since the last request ended.
    head_begun: AtomicBool,
    /// The time at which the first bytes of another request arrived or the last request ended, whichever is later. All
    /// times are in microseconds since `opened_at`.
    idle_since: AtomicU64,
    /// The time at which the peer last accepted some bytes.
    last_write: AtomicU64,
    /// Whether a write is waiting for the peer.
    is_blocked: AtomicBool,
    /// The delivered response bytes: those that the kernel accepted, plus those that the peer acknowledged while the kernel
    /// accepted none.
    delivered: AtomicU64,
    /// The number of bytes that the peer had acknowledged at the last query.
    acknowledged: AtomicU64,
    /// Whether a query for the acknowledged bytes is pending.
    is_queried: AtomicBool,
    /// Whether the connection accepts no more requests.
    requests_ended: AtomicBool,
    /// The number of requests that arrived after `requests_ended` was set.
    requests_after_goaway: AtomicU32,
    /// Notified when `requests_ended` or `requests_after_goaway` changes.
    requests_changed: Notify,
    /// Whether we have closed our side. The time until the peer closes its side has a separate limit.
    is_closed: AtomicBool,
}

/// The reason why a connection has timed out. On HTTP/2 it is always `NextRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The head of a request is incomplete, or the first request has not arrived.
    Head,
    /// The next request has not arrived.
    NextRequest,
}

/// A running request. It ends when this value is dropped.
#[derive(Debug)]
pub(super) struct RunningRequest(Arc<ConnectionActivity>);

impl ConnectionActivity {
    pub(super) fn new() -> Self {
        Self {
            opened_at: Instant::now(),
            running: AtomicUsize::new(0),
            has_served: AtomicBool::new(false),
            first_request: Notify::new(),
            accepts_interim: AtomicBool::new(false),
            head_begun: AtomicBool::new(false),
            idle_since: AtomicU64::new(0),
            last_write: AtomicU64::new(0),
            is_blocked: AtomicBool::new(false),
            delivered: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            is_queried: AtomicBool::new(false),
            requests_ended: AtomicBool::new(false),
            requests_after_goaway: AtomicU32::new(0),
            requests_changed: Notify::new(),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Stops accepting requests. Returns whether the connection had accepted requests until this call.
    pub(super) fn end_requests(&self) -> bool {
        let is_new = !self.requests_ended.swap(true, Ordering::AcqRel);
        self.requests_changed.notify_one();
        is_new
    }

    /// Waits until `end_requests` is called. Only one task may wait for this or for
    /// `requests_after_goaway` at a time.
    pub(super) async fn requests_ended(&self) {
        // `Notify` stores a permit, so a change between the check and the wait is not missed.
        while !self.requests_ended.load(Ordering::Acquire) {
            self.requests_changed.notified().await;
        }
    }

    /// Waits until `most` requests have arrived after `end_requests`. The last of them may already have been answered.
    pub(super) async fn requests_after_goaway(&self, most: u32) {
        while self.requests_after_goaway.load(Ordering::Acquire) < most {
            self.requests_changed.notified().await;
        }
    }

    /// Records that a request has begun.
    pub(super) fn begin_request(self: &Arc<Self>, accepts_interim: bool) -> RunningRequest {
        self.accepts_interim.store(accepts_interim, Ordering::Release);
        self.running.fetch_add(1, Ordering::AcqRel);
        self.head_begun.store(false, Ordering::Release);
        if self.requests_ended.load(Ordering::Acquire) {
            self.requests_after_goaway.fetch_add(1, Ordering::AcqRel);
            self.requests_changed.notify_one();
        }
        if !self.has_served.swap(true, Ordering::AcqRel) {
            self.first_request.notify_waiters();
        }
        RunningRequest(Arc::clone(self))
    }

    pub(super) fn accepts_interim(&self) -> bool {
        self.accepts_interim.load(Ordering::Acquire)
    }

    /// Records that bytes arrived from the peer.
    pub(super) fn record_read(&self) {
        if !self.is_running() && !self.head_begun.load(Ordering::Acquire) {
            self.record_time(&self.idle_since);
            self.head_begun.store(true, Ordering::Release);
        }
    }

    /// Records that the peer accepted some bytes.
    pub(super) fn record_write(&self) {
        self.record_time(&self.last_write);
    }

    /// Records that a write is waiting for the peer. The caller must limit how long the write waits.
    pub(super) fn block(&self) {
        self.is_blocked.store(true, Ordering::Release);
    }

    /// Records that everything has been written.
    pub(super) fn unblock(&self) {
        self.record_write();
        self.is_blocked.store(false, Ordering::Release);
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked.load(Ordering::Acquire)
    }

    /// Adds to the delivered response bytes.
    pub(super) fn add_delivered(&self, bytes: u64) {
        self.delivered.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn is_queried(&self) -> bool {
        self.is_queried.load(Ordering::Acquire)
    }

    /// Answers a pending query with the total number of `bytes` that the peer has acknowledged.
    pub(super) fn answer_query(&self, bytes: u64) {
        self.acknowledged.store(bytes, Ordering::Release);
        self.is_queried.store(false, Ordering::Release);
    }

    /// Queries the acknowledged bytes. `StallTimeout::poll_read` answers the query in the same task.
    async fn query_acknowledged(&self) -> u64 {
        self.is_queried.store(true, Ordering::Release);
        for _ in 0..QUERY_YIELDS {
            tokio::task::yield_now().await;
        }
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Records that we have closed our side. Nothing is overdue after that.
    pub(super) fn record_close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Never returns if we have closed our side, because a closed connection has a separate limit. Otherwise returns immediately.
    async fn unless_closed(&self) {
        if self.is_closed.load(Ordering::Acquire) {
            std::future::pending::<()>().await;
        }
    }

    fn record_time(&self, time: &AtomicU64) {
        let elapsed = u64::try_from(self.opened_at.elapsed().as_micros()).unwrap_or(u64::MAX);
        time.store(elapsed, Ordering::Release);
    }

    fn time(&self, time: &AtomicU64) -> Instant {
        self.opened_at + Duration::from_micros(time.load(Ordering::Acquire))
    }

    /// Returns whether more than one request is running.
    pub(super) fn runs_several(&self) -> bool {
        self.running.load(Ordering::Acquire) > 1
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire) > 0
    }

    /// Returns whether any request has arrived.
    pub(super) fn has_served(&self) -> bool {
        self.has_served.load(Ordering::Acquire)
    }

    /// Waits for the first request, for at most `limit`.
    pub(super) async fn first_request(&self, limit: Duration) {
        let mut first = std::pin::pin!(self.first_request.notified());
        // Registered before the check, so that a request that arrives between the check and the wait is not missed.
        first.as_mut().enable();
        if !self.has_served() {
            // An elapsed timeout is not an error: the caller checks `has_served`.
            drop(tokio::time::timeout(limit, first).await);
        }
    }

    /// Waits until, for `limit`, no request has run and the peer has accepted less than `DELIVERED_BYTES_MIN`, or until `first`
    /// has elapsed without any request.
    pub(super) async fn until_idle(&self, first: Duration, limit: Duration) {
        self.first_request(first).await;
        while self.has_served() {
            let before = self.delivered.load(Ordering::Relaxed);
            self.until_quiet(limit).await;
            if self.delivered.load(Ordering::Relaxed) - before < DELIVERED_BYTES_MIN {
                return;
            }
        }
    }

    /// Waits until no request has run for `limit`, and the peer has neither accepted nor acknowledged enough bytes in
    /// that time.
    pub(super) async fn until_unresponsive(&self, limit: Duration) {
        loop {
            let delivered = self.delivered.load(Ordering::Relaxed);
            let acknowledged = self.query_acknowledged().await;
            self.until_quiet(limit).await;
            let delivered = self.delivered.load(Ordering::Relaxed) - delivered;
            let acknowledged = self.query_acknowledged().await.saturating_sub(acknowledged);
            if delivered.max(acknowledged) < DELIVERED_BYTES_MIN {
                return;
            }
        }
    }

    /// Waits until the head of a request, or the next request, is overdue. Time during which the peer accepts a response does
    /// not count, because nothing is read from the peer in that time.
    pub(super) async fn until_overdue(&self, head: Duration, next: Duration) -> Overdue {
        loop {
            // `running` must be read before `idle_since`: see `until_quiet`.
            let is_busy = self.is_running() || self.is_blocked();
            let now = Instant::now();
            let is_head = self.head_begun.load(Ordering::Acquire) || !self.has_served();
            let busy = self.time(&self.idle_since).max(self.time(&self.last_write));
            let end = busy + if is_head { head } else { next };
            if end <= now && !is_busy {
                self.unless_closed().await;
                return if is_head { Overdue::Head } else { Overdue::NextRequest };
            }
            // A head that begins during this sleep cannot be overdue before the sleep ends.
            let again = now + head;
            sleep_until(if end <= now { again } else { end.min(again) }).await;
        }
    }

    /// Waits until no request has run for `limit`, regardless of what the peer accepts.
    async fn until_quiet(&self, limit: Duration) {
        let start = Instant::now();
        loop {
            // `running` is read before `idle_since`, and `RunningRequest::drop` writes them in the opposite order, so a request
            // that ends between the reads is not missed.
            let is_running = self.is_running();
            let now = Instant::now();
            let end = self.time(&self.idle_since).max(start) + limit;
            if end <= now && !is_running {
                return self.unless_closed().await;
            }
            // If a request ends during this sleep, `limit` cannot elapse before the sleep ends.
            sleep_until(if end <= now { now + limit } else { end }).await;
        }
    }
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        self.0.record_time(&self.0.idle_since);
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
