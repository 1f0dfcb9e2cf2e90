//! `[worker]`: the queues that this worker serves.

use std::collections::BTreeMap;
use std::time::Duration;

/// What this worker serves and how.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Queue names, or patterns with `*`, to what holds for them. The longest match wins.
    pub queues: BTreeMap<String, QueueConfig>,
    /// When a running call first reports progress.
    pub progress_first: Duration,
    /// The interval of further progress.
    pub progress_interval: Duration,
    /// How long a claim waits for its grant.
    pub claim_timeout: Duration,
    /// How long an offered slot is kept for the caller it was offered to.
    pub offer_timeout: Duration,
    /// Refused callers that a queue remembers for an offer.
    pub refused_max: usize,
    /// Messages that are still let in after leaving a group, so that none on its way is lost.
    pub leave_messages: u64,
    /// How long the group must be silent before it counts as left.
    pub leave_idle: Duration,
    /// Largest answer in bytes.
    pub answer_bytes_max: usize,
}

/// What holds for one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Calls at once.
    pub concurrency: usize,
    /// The named database its procedures run on; the default one when absent.
    pub database: Option<String>,
}
