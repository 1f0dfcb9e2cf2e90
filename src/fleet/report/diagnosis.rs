//! The parts of a report that explain why a queue's requests do not make progress.

use serde::{Deserialize, Serialize};

/// The requests that a gateway has sent to a queue: those in progress, and counts of those that have ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeliveryReport {
    /// The number of requests that no worker has accepted.
    pub unaccepted: u64,
    /// The time in seconds since the oldest unaccepted request was sent.
    pub unaccepted_seconds: f64,
    /// The number of requests that a worker has accepted.
    pub accepted: u64,
    /// The time in seconds since the oldest accepted request was accepted.
    pub accepted_seconds: f64,
    /// The session timeout of the oldest accepted request's endpoint, in seconds. 0 if no accepted request is in
    /// progress.
    pub accepted_session_seconds: f64,
    /// The number of requests that workers have answered since the gateway started. Calls that timed out or were cancelled are not
    /// counted.
    pub answered: u64,
    /// The 99th percentile of the time from sending a request to its answer for the `answered` requests, in seconds. 0 if there
    /// are none.
    pub answered_p99_seconds: f64,
    /// The number of requests since the gateway started that were sent but ran out of time before a worker accepted them.
    pub timed_out_unaccepted: u64,
    /// The total time from when these requests were sent until they ran out of time, in seconds.
    pub timed_out_unaccepted_seconds: f64,
    /// The number of requests since the gateway started that a worker accepted and that then ran out of time or whose calls took too
    /// long.
    pub timed_out_accepted: u64,
    /// The number of attempts since the gateway started for which NATS found no worker.
    pub unserved: u64,
}

/// The offers of a queue's slots in a worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OffersReport {
    /// The number of slots currently reserved for offers.
    pub open: u64,
    /// The number of offers made since the worker started.
    pub made: u64,
    /// The number of offers since the worker started that no gateway answered in time.
    pub lapsed: u64,
    /// The number of lapsed offers since the worker started that were answered later.
    pub late: u64,
}
