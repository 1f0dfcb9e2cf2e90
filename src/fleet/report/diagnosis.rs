//! The parts of a report that explain why a queue's requests do not progress.

use serde::{Deserialize, Serialize};

/// The requests for a queue that a gateway has sent and that have not ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeliveryReport {
    /// The number of requests that no worker has accepted.
    pub unaccepted: u64,
    /// The time since the oldest of them was sent, in seconds.
    pub unaccepted_seconds: f64,
    /// The number of requests that a worker has accepted.
    pub accepted: u64,
    /// The time since the oldest of them was accepted, in seconds.
    pub accepted_seconds: f64,
    /// The session time of the endpoint of the oldest of them, in seconds. 0 if there is none.
    pub accepted_session_seconds: f64,
    /// The number of requests that a worker has answered, since the start. Calls that timed out, or were cancelled, do not count.
    pub answered: u64,
    /// The time from acceptance to answer in seconds that 99 % of these requests did not exceed. 0 if there are none.
    pub answered_p99_seconds: f64,
    /// The number of requests that ran out of time after they had been sent and before a worker had accepted them, since the start.
    pub timed_out_unaccepted: u64,
    /// The total time that these requests spent between the two, in seconds.
    pub timed_out_unaccepted_seconds: f64,
    /// The number of requests that ran out of time, or whose calls took too long, after a worker had accepted them, since the start.
    pub timed_out_accepted: u64,
    /// The number of attempts for which NATS found no worker, since the start.
    pub unserved: u64,
}

/// The offers of a queue's slots, in a worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OffersReport {
    /// The number of slots that are reserved for offers now.
    pub open: u64,
    /// The number of offers made since the start.
    pub made: u64,
    /// The number of offers that no gateway has answered in time, since the start.
    pub lapsed: u64,
    /// The number of these offers that were answered after they had lapsed, since the start.
    pub late: u64,
}
