//! What a connection is busy with: requests that run, bytes that move.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// What a peer has to take in the time in which it may take nothing: less is as good as nothing, and would hold the
/// answer in memory for ever (the slow read of slowhttptest).
pub(super) const TAKEN_BYTES_MIN: u64 = 8 * 1024;

/// The task that asks is polled so many times before the answer is looked at: all parts of it were polled by then.
const ASK_ROUNDS: usize = 3;

/// Counts the requests that run on a connection, and notes when its peer took something.
///
/// Each request moves these several times, and nobody is woken for it: who waits looks again when the time that held
/// until now would have been over.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    running: AtomicUsize,
    has_served: AtomicBool,
    /// Given with the first request.
    first: Notify,
    /// Whether the client of the last request takes interim responses.
    takes_interim: AtomicBool,
    /// Whether bytes came after the last request.
    has_begun: AtomicBool,
    /// When that, or the end of the last request was: microseconds from the connection's begin, as all times here.
    since: AtomicU64,
    /// When the peer last took some bytes.
    written: AtomicU64,
    /// Whether a write waits for the peer.
    is_blocked: AtomicBool,
    /// Bytes of answers that the peer took: that the system took for it, and what it acknowledged while the system took none.
    taken: AtomicU64,
    /// What the peer's system has acknowledged of the socket's bytes, as of the last time that it was asked.
    acknowledged: AtomicU64,
    /// Whether it is to be asked now.
    is_asked: AtomicBool,
    /// Whether no more requests should come.
    requests_ended: AtomicBool,
    /// Those that came all the same.
    late_requests: AtomicU32,
    /// Given when either changes.
    requests_end: Notify,
    /// Whether we have ended it: only the peer's end is waited for, and not for long.
    has_ended: AtomicBool,
}

/// Why an HTTP/1.1 connection has waited long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The head of a request: it has begun, or the connection has not asked anything yet.
    Head,
    /// The next request.
    Next,
}

/// A request that runs, until dropped.
#[derive(Debug)]
pub(super) struct Running(Arc<Activity>);

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            running: AtomicUsize::new(0),
            has_served: AtomicBool::new(false),
            first: Notify::new(),
            takes_interim: AtomicBool::new(false),
            has_begun: AtomicBool::new(false),
            since: AtomicU64::new(0),
            written: AtomicU64::new(0),
            is_blocked: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            is_asked: AtomicBool::new(false),
            requests_ended: AtomicBool::new(false),
            late_requests: AtomicU32::new(0),
            requests_end: Notify::new(),
            has_ended: AtomicBool::new(false),
        }
    }

    /// No more requests should come. Whether that is new.
    pub(super) fn end_requests(&self) -> bool {
        let is_new = !self.requests_ended.swap(true, Ordering::AcqRel);
        self.requests_end.notify_one();
        is_new
    }

    /// Waits until no more requests should come. One task at a time waits for this, or for those that are late.
    pub(super) async fn requests_ended(&self) {
        // A change between the two is not missed: its permit is kept.
        while !self.requests_ended.load(Ordering::Acquire) {
            self.requests_end.notified().await;
        }
    }

    /// Waits until more than so many requests came after that.
    pub(super) async fn late_requests(&self, most: u32) {
        while self.late_requests.load(Ordering::Acquire) <= most {
            self.requests_end.notified().await;
        }
    }

    /// A request begins; whether its client takes interim responses.
    pub(super) fn begin(self: &Arc<Self>, takes_interim: bool) -> Running {
        self.takes_interim.store(takes_interim, Ordering::Release);
        self.running.fetch_add(1, Ordering::AcqRel);
        self.has_begun.store(false, Ordering::Release);
        if self.requests_ended.load(Ordering::Acquire) {
            self.late_requests.fetch_add(1, Ordering::AcqRel);
            self.requests_end.notify_one();
        }
        if !self.has_served.swap(true, Ordering::AcqRel) {
            self.first.notify_waiters();
        }
        Running(Arc::clone(self))
    }

    /// Whether the client of the last request takes interim responses.
    pub(super) fn takes_interim(&self) -> bool {
        self.takes_interim.load(Ordering::Acquire)
    }

    /// The peer sent some bytes.
    pub(super) fn read(&self) {
        if !self.is_running() && !self.has_begun.load(Ordering::Acquire) {
            self.note(&self.since);
            self.has_begun.store(true, Ordering::Release);
        }
    }

    /// The peer took some bytes.
    pub(super) fn wrote(&self) {
        self.note(&self.written);
    }

    /// A write waits for the peer. Whoever says so bounds how long it may.
    pub(super) fn block(&self) {
        self.is_blocked.store(true, Ordering::Release);
    }

    /// All was written.
    pub(super) fn unblock(&self) {
        self.wrote();
        self.is_blocked.store(false, Ordering::Release);
    }

    /// Whether a write waits for the peer.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked.load(Ordering::Acquire)
    }

    /// The peer took so much of its answers.
    pub(super) fn took(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether `acknowledged` is waited for.
    pub(super) fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::Acquire)
    }

    /// The peer's system has acknowledged so much in all.
    pub(super) fn acknowledged(&self, bytes: u64) {
        self.acknowledged.store(bytes, Ordering::Release);
        self.is_asked.store(false, Ordering::Release);
    }

    /// Asks what was acknowledged. Whoever reads from the connection answers: in the task that waits here.
    async fn ask_acknowledged(&self) -> u64 {
        self.is_asked.store(true, Ordering::Release);
        for _ in 0..ASK_ROUNDS {
            tokio::task::yield_now().await;
        }
        self.acknowledged.load(Ordering::Acquire)
    }

    /// We have ended the connection: nothing on it is overdue any more.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
    }

    /// Waits for ever once we have ended the connection: that has bounds of its own.
    async fn unless_ended(&self) {
        if self.has_ended.load(Ordering::Acquire) {
            std::future::pending::<()>().await;
        }
    }

    fn note(&self, time: &AtomicU64) {
        let since = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        time.store(since, Ordering::Release);
    }

    fn time(&self, time: &AtomicU64) -> Instant {
        self.began + Duration::from_micros(time.load(Ordering::Acquire))
    }

    /// Whether more than one request runs.
    pub(super) fn runs_several(&self) -> bool {
        self.running.load(Ordering::Acquire) > 1
    }

    /// Whether any request runs.
    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire) > 0
    }

    /// Whether there was any request yet.
    pub(super) fn has_served(&self) -> bool {
        self.has_served.load(Ordering::Acquire)
    }

    /// Waits for the first request, at most so long.
    pub(super) async fn first(&self, limit: Duration) {
        let mut first = std::pin::pin!(self.first.notified());
        // Registered before the look, or a request between the two would be missed.
        first.as_mut().enable();
        if !self.has_served() {
            // Without one by then there is none.
            drop(tokio::time::timeout(limit, first).await);
        }
    }

    /// Waits until no request ran and the peer took less of its answers than `TAKEN_BYTES_MIN` for so long, or until
    /// `first` is over and there was no request at all.
    pub(super) async fn idle(&self, first: Duration, limit: Duration) {
        self.first(first).await;
        while self.has_served() {
            let before = self.taken.load(Ordering::Relaxed);
            self.quiet(limit).await;
            if self.taken.load(Ordering::Relaxed) - before < TAKEN_BYTES_MIN {
                return;
            }
        }
    }

    /// Waits until no request ran for so long and the peer took too little, of what the system holds for it either.
    pub(super) async fn unresponsive(&self, limit: Duration) {
        loop {
            let taken = self.taken.load(Ordering::Relaxed);
            let acknowledged = self.ask_acknowledged().await;
            self.quiet(limit).await;
            let taken = self.taken.load(Ordering::Relaxed) - taken;
            let acknowledged = self.ask_acknowledged().await.saturating_sub(acknowledged);
            if taken.max(acknowledged) < TAKEN_BYTES_MIN {
                return;
            }
        }
    }

    /// Waits until the head of a request, or the next request, is overdue. Time in which the peer takes an answer
    /// does not count: what comes meanwhile is not read on.
    pub(super) async fn overdue(&self, head: Duration, next: Duration) -> Overdue {
        loop {
            // In this order, as in `quiet`.
            let is_busy = self.is_running() || self.is_blocked();
            let now = Instant::now();
            let is_head = self.has_begun.load(Ordering::Acquire) || !self.has_served();
            let busy = self.time(&self.since).max(self.time(&self.written));
            let end = busy + if is_head { head } else { next };
            if end <= now && !is_busy {
                self.unless_ended().await;
                return if is_head { Overdue::Head } else { Overdue::Next };
            }
            // A head that begins meanwhile cannot be overdue before then.
            let again = now + head;
            sleep_until(if end <= now { again } else { end.min(again) }).await;
        }
    }

    /// Waits until no request ran for so long, whatever the peer takes.
    async fn quiet(&self, limit: Duration) {
        let start = Instant::now();
        loop {
            // In this order, the other than that of a request's end: one that ends in between is not missed.
            let is_running = self.is_running();
            let now = Instant::now();
            let end = self.time(&self.since).max(start) + limit;
            if end <= now && !is_running {
                return self.unless_ended().await;
            }
            // A request that ends meanwhile cannot have been over for so long before then.
            sleep_until(if end <= now { now + limit } else { end }).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.note(&self.0.since);
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_not_idle_while_a_request_runs() {
        let activity = Arc::new(Activity::new());
        let start = Instant::now();
        tokio::join!(activity.idle(SECOND, SECOND), async {
            let running = activity.begin(true);
            tokio::time::sleep(5 * SECOND).await;
            drop(running);
        });
        assert_eq!(start.elapsed(), 6 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_on_is_not_idle() {
        const ENOUGH: u64 = TAKEN_BYTES_MIN;
        let activity = Arc::new(Activity::new());
        drop(activity.begin(true));
        let start = Instant::now();
        let reading = async {
            for _ in 0..4 {
                tokio::time::sleep(SECOND / 2).await;
                activity.took(ENOUGH);
            }
            for _ in 0..100 {
                tokio::time::sleep(SECOND / 10).await;
                activity.took(ENOUGH / 100);
            }
        };
        let idle = async {
            activity.idle(SECOND, SECOND).await;
            start.elapsed()
        };
        let (ended, ()) = tokio::join!(idle, reading);
        assert!(ended >= 2 * SECOND && ended <= 4 * SECOND, "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_own_time_and_the_next_request_another() {
        let start = Instant::now();
        let overdue = async |activity: &Arc<Activity>| {
            (activity.overdue(SECOND, 10 * SECOND).await, start.elapsed())
        };
        let activity = Arc::new(Activity::new());
        assert_eq!(overdue(&activity).await, (Overdue::Head, SECOND), "nothing came");
        let running = activity.begin(true);
        let (found, ()) = tokio::join!(overdue(&activity), async {
            tokio::time::sleep(5 * SECOND).await;
            drop(running);
        });
        assert_eq!(
            found,
            (Overdue::Next, 16 * SECOND),
            "a request is not waited for while one runs"
        );
        activity.read();
        assert_eq!(overdue(&activity).await, (Overdue::Head, 17 * SECOND), "one has begun");
        activity.read();
        let found = overdue(&activity).await;
        assert_eq!(found, (Overdue::Head, 17 * SECOND), "more bytes are no new begin");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_overdue_while_a_write_waits() {
        let start = Instant::now();
        let activity = Arc::new(Activity::new());
        drop(activity.begin(true));
        activity.block();
        activity.read();
        let (found, ()) = tokio::join!(activity.overdue(SECOND, SECOND), async {
            tokio::time::sleep(5 * SECOND).await;
            activity.unblock();
        });
        assert_eq!((found, start.elapsed()), (Overdue::Head, 6 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_overdue_while_an_answer_is_taken() {
        let start = Instant::now();
        let activity = Arc::new(Activity::new());
        drop(activity.begin(true));
        activity.read();
        let reading = async {
            for _ in 0..8 {
                tokio::time::sleep(SECOND / 2).await;
                activity.wrote();
            }
        };
        let (found, ()) = tokio::join!(activity.overdue(SECOND, SECOND), reading);
        assert_eq!(found, Overdue::Head);
        assert!(start.elapsed() > 4 * SECOND, "{:?}", start.elapsed());
    }
}
