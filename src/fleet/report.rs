//! The report of one process, with counts since its start. The counts come from the same metrics as `/metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::{Deserialize, Serialize};

use crate::telemetry::{Distribution, names, snapshot};

use super::ProcessIdentity;

mod diagnosis;
mod shortening;

pub use diagnosis::{DeliveryReport, OffersReport};

/// The file in which Linux describes this process.
const STATUS_FILE: &str = "/proc/self/status";

/// The state of a process at a point in time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// `gateway` or `worker`.
    pub role: String,
    /// The unique id of the process.
    pub id: String,
    /// The host name.
    pub host: String,
    /// The version of fjord.
    pub version: String,
    /// The start time in RFC 3339 format.
    pub started: String,
    /// The time since the process started. Subtracting the values of two reports gives the time between them.
    pub uptime_seconds: f64,
    /// The parts that are not ready, each with the reason.
    pub not_ready: BTreeMap<String, String>,
    /// The pool to which a worker belongs (`worker.pool`).
    pub pool: String,
    /// The number of requests or calls in progress.
    pub in_flight: u64,
    /// The limit on requests or calls in progress.
    pub in_flight_max: u64,
    /// The CPU time that the process has used, in seconds, if known.
    pub cpu_seconds: Option<f64>,
    /// The physical memory that the process uses, in bytes, if known.
    pub memory_bytes: Option<u64>,
    /// The queues.
    pub queues: Vec<QueueReport>,
    /// The requests that a gateway answered without choosing a queue, such as those without valid credentials. The
    /// `name` of this entry is empty.
    pub without_queue: QueueReport,
    /// The queues of a gateway's endpoints that have several queues.
    pub weighted_queues: Vec<WeightedQueueReport>,
    /// The databases of a worker.
    pub databases: Vec<DatabaseReport>,
    /// Whether `queues` and `weighted_queues` are not complete, because they did not fit into one message.
    pub is_truncated: bool,
    /// The number of entries that `queues` lacks. Earlier versions omitted all queues and did not report their number.
    pub queues_omitted: u64,
    /// The number of entries that `weighted_queues` lacks.
    pub weighted_queues_omitted: u64,
}

/// A queue in one process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueReport {
    /// The name.
    pub name: String,
    /// The number of calls that a worker has finished, or of requests that a gateway has assigned to the queue and
    /// answered.
    pub calls: u64,
    /// The number of those calls or requests that failed.
    pub errors: u64,
    /// The number of a worker's calls that it stopped, because their time had run out or their session had ended.
    pub stopped: u64,
    /// The number of a worker's calls that it did not start, because time ran out or the claim was not granted.
    pub not_started: u64,
    /// The outcome of the last failure, if known.
    pub last_error: String,
    /// How long calls occupied a slot (in a worker) or requests took (in a gateway).
    pub times: Distribution,
    /// The slots, in a worker.
    pub slots: Option<SlotsReport>,
    /// The demand, in a gateway.
    pub demand: Option<DemandReport>,
    /// The state of requests that a gateway has sent to workers.
    pub delivery: Option<DeliveryReport>,
    /// The offers of slots, in a worker.
    pub offers: Option<OffersReport>,
}

/// The slots of a queue in a worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SlotsReport {
    /// The number of slots.
    pub limit: u64,
    /// The number of running calls.
    pub running: u64,
    /// The number of accepted requests that are waiting for a slot.
    pub waiting: u64,
    /// The total time that calls have held slots, in seconds.
    pub used_seconds: f64,
    /// The total time during which no slot was free, in seconds.
    pub full_seconds: f64,
    /// Whether the worker is a member of the queue group.
    pub is_served: bool,
    /// The configured number of slots. An operator may have overridden it in `limit`. `None` if the worker's version
    /// does not report it.
    pub limit_configured: Option<u64>,
    /// Whether an operator has paused the queue.
    pub is_paused: bool,
}

/// The demand for a queue in a gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DemandReport {
    /// The number of requests for the queue.
    pub arrivals: u64,
    /// The number of requests that are waiting for a slot.
    pub waiting: u64,
    /// How long requests waited for a worker to accept them.
    pub waits: Distribution,
}

/// One queue of an endpoint that has several, in a gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WeightedQueueReport {
    /// The id of the endpoint.
    pub endpoint: String,
    /// The name of the queue.
    pub queue: String,
    /// The current weight.
    pub weight: u64,
    /// The weight in the catalogue. A reload or a restart restores it.
    pub catalogue_weight: u64,
    /// The number of the endpoint's requests that were assigned to this queue and have been answered.
    pub requests: u64,
    /// The number of the endpoint's requests to this queue that were answered with a status of 400 to 498. (499 means
    /// that the client has disconnected.)
    pub client_errors: u64,
    /// The number of the endpoint's requests to this queue that were answered with a status of 500 to 599.
    pub server_errors: u64,
    /// How long the requests took.
    pub times: Distribution,
}

/// A database used by one worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseReport {
    /// The name in the configuration.
    pub name: String,
    /// Whether the database answers.
    pub is_up: bool,
    /// How long calls waited for a connection.
    pub waits: Distribution,
}

impl Report {
    /// Creates a report that contains only the identity of the process.
    #[must_use]
    pub fn new(identity: &ProcessIdentity) -> Self {
        Self {
            role: identity.role.as_str().to_owned(),
            id: identity.id.clone(),
            host: identity.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: identity.started.clone(),
            uptime_seconds: identity.uptime().as_secs_f64(),
            cpu_seconds: cpu_seconds(),
            memory_bytes: memory_bytes(),
            ..Self::default()
        }
    }
}

/// Returns the CPU time that this process has used, in seconds.
fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let duration = |time: TimeVal| {
        let seconds = Duration::from_secs(time.tv_sec().try_into().ok()?);
        Some(seconds + Duration::from_micros(time.tv_usec().try_into().ok()?))
    };
    let used: Duration = duration(usage.user_time())? + duration(usage.system_time())?;
    Some(used.as_secs_f64())
}

/// Returns the physical memory that this process uses, in bytes.
fn memory_bytes() -> Option<u64> {
    resident_bytes(&std::fs::read_to_string(STATUS_FILE).ok()?)
}

/// Returns the resident set size in bytes from Linux's description of a process.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Returns the reports of this process's databases.
#[must_use]
pub fn databases() -> Vec<DatabaseReport> {
    let mut waits = snapshot::distributions(&names::BACKEND_WAIT, names::DATABASE);
    let up = snapshot::sums(&names::BACKEND_UP, names::DATABASE);
    let reports = up.into_iter().map(|(name, up)| DatabaseReport {
        is_up: up > 0.0,
        waits: waits.remove(&name).unwrap_or_default(),
        name,
    });
    reports.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_memory_and_cpu_time() {
        assert!(memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
        assert!(cpu_seconds().is_some_and(|seconds| seconds >= 0.0));
        let status = "Name:\tfjord\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n";
        assert_eq!(resident_bytes(status), Some(1 << 20));
        for unknown in ["", "VmRSS: x kB", "VmRSS: 12", "VmRSS: -1 kB"] {
            assert_eq!(resident_bytes(unknown), None, "{unknown}");
        }
    }
}
