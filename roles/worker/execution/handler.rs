//! The `QueueHandler` trait. Its implementations execute requests to an endpoint.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::catalogue::{Endpoint, Representation};
use crate::envelope::{Phases, Request};
use crate::future::BoxFuture;
use crate::lifecycle::Cancel;
use crate::procedures::databases::Database;

use super::chunk_channel::ChunkChannel;
use super::job_result::JobResult;

/// Executes requests to an endpoint.
pub trait QueueHandler: Debug + Send + Sync {
    /// Handles a request before its deadline. The slot stays occupied until the future completes.
    ///
    /// The worker never drops the future early. Instead, it triggers `cancel` and waits for the future to complete.
    fn handle<'a>(
        &'a self,
        job: Job,
        deadline: Instant,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, JobResult>;
}

/// A request to execute.
#[derive(Clone, Debug)]
pub struct Job {
    /// The endpoint from this worker's catalogue, restricted to the queue of the request.
    pub endpoint: Arc<Endpoint>,
    /// The request as it was received.
    pub request: Request,
    /// The record in which the handler reports its progress.
    pub progress: Arc<JobProgress>,
}

impl Job {
    /// Returns the representation of the answer that the request asks for, or `None` if the endpoint does not have
    /// it.
    #[must_use]
    pub fn representation(&self) -> Option<&Representation> {
        self.endpoint.representation(self.request.accept.as_deref())
    }
}

/// Progress that a handler reports: chunks of a large answer, times, and the rollback of a dry run.
#[derive(Debug, Default)]
pub struct JobProgress {
    /// The channel for chunks that are sent before the answer is complete.
    pub chunks: ChunkChannel,
    pool_micros: AtomicU64,
    call_micros: AtomicU64,
    is_rolled_back: AtomicBool,
}

impl JobProgress {
    /// Records the duration of a call, and the time that it waited for a connection beforehand.
    pub fn record_call(&self, pool: Duration, call: Duration) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.pool_micros.store(micros(pool), Ordering::Relaxed);
        self.call_micros.store(micros(call), Ordering::Relaxed);
    }

    /// Records that a dry run left no changes, because it was rolled back or was never sent.
    pub fn mark_rolled_back(&self) {
        self.is_rolled_back.store(true, Ordering::Relaxed);
    }

    /// Returns whether `mark_rolled_back` was called.
    #[must_use]
    pub fn is_rolled_back(&self) -> bool {
        self.is_rolled_back.load(Ordering::Relaxed)
    }

    /// Returns the times to report to the gateway for a job that took `total`.
    #[must_use]
    pub fn phases(&self, total: Duration) -> Phases {
        let time = |micros: &AtomicU64| Duration::from_micros(micros.load(Ordering::Relaxed));
        Phases { pool: time(&self.pool_micros), call: time(&self.call_micros), total }
    }
}

/// The resources that a worker provides to the handlers of a queue.
#[derive(Clone, Debug)]
pub struct HandlerContext {
    /// The database that the queue's configuration selects, if any.
    pub database: Option<Database>,
    /// The size limit of an answer, in bytes.
    pub answer_bytes_max: usize,
}

/// The reason why a handler cannot be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandlerError {
    /// No handler has the name given in the catalogue.
    #[error("there is no handler '{name}': expected one of {known}")]
    Unknown {
        /// The name in the catalogue.
        name: String,
        /// The names of all handlers.
        known: String,
    },
    /// The handler calls procedures, but the queue has no database.
    #[error("the handler 'procedure' needs a database, but none is configured for the queue")]
    NeedsDatabase,
}
