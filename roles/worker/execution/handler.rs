//! The `QueueHandler` seam: what a worker does with a message of a queue.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::catalogue::Endpoint;
use crate::envelope::{Phases, Request};
use crate::future::BoxFuture;
use crate::lifecycle::Cancel;

use crate::roles::worker::Ending;
use crate::roles::worker::execution::chunk_channel::Outlet;

/// What a worker does with a message of a queue.
pub trait QueueHandler: Debug + Send + Sync {
    /// Does the job before its deadline; the slot is held until this returns.
    ///
    /// Not safe to drop: the `cancel` sign is given instead, and the return waited for.
    fn handle<'a>(
        &'a self,
        job: Job,
        deadline: Instant,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Ending>;
}

/// A request that holds a slot.
#[derive(Clone, Debug)]
pub struct Job {
    /// The endpoint, as this worker's catalogue has it.
    pub endpoint: Arc<Endpoint>,
    /// The request as it came.
    pub request: Request,
    /// Where its time goes, and where a large answer does: for the handler to say.
    pub times: Arc<Times>,
}

/// What a handler tells while it works: where the time goes, the parts of a large answer, and what stays of a dry run.
#[derive(Debug, Default)]
pub struct Times {
    /// Where parts of the answer may be left before it is whole.
    pub parts: Outlet,
    pool_micros: AtomicU64,
    call_micros: AtomicU64,
    is_rolled_back: AtomicBool,
}

impl Times {
    /// A call took so long, and before it so much was spent waiting for a connection.
    pub fn tell(&self, pool: Duration, call: Duration) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.pool_micros.store(micros(pool), Ordering::Relaxed);
        self.call_micros.store(micros(call), Ordering::Relaxed);
    }

    /// Nothing of a dry run stays: it was rolled back, or never sent.
    pub fn mark_rolled_back(&self) {
        self.is_rolled_back.store(true, Ordering::Relaxed);
    }

    /// Whether that was told.
    #[must_use]
    pub fn is_rolled_back(&self) -> bool {
        self.is_rolled_back.load(Ordering::Relaxed)
    }

    /// What the gateway is told of a job that took `total`.
    #[must_use]
    pub fn phases(&self, total: Duration) -> Phases {
        let time = |micros: &AtomicU64| Duration::from_micros(micros.load(Ordering::Relaxed));
        Phases { pool: time(&self.pool_micros), call: time(&self.call_micros), total }
    }
}
