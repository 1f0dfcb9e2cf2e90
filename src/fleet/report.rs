//! What one process says of itself: counts since its start, from the same figures as `/metrics`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::telemetry::{Distribution, names, snapshot};

use super::Identity;

/// A process at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// `gateway` or `worker`.
    pub role: String,
    /// Unique among all that run.
    pub id: String,
    /// The host that it runs on.
    pub host: String,
    /// Its version.
    pub version: String,
    /// When it started: RFC 3339.
    pub started: String,
    /// For how long it runs. Two reports of a process are so many seconds apart as this grew.
    pub uptime_seconds: f64,
    /// What is not ready, and why.
    pub not_ready: BTreeMap<String, String>,
    /// Requests or calls that it serves now.
    pub in_flight: u64,
    /// How many it would serve at once.
    pub in_flight_max: u64,
    /// Each of its queues.
    pub queues: Vec<QueueReport>,
    /// Each database of a worker.
    pub databases: Vec<DatabaseReport>,
    /// Whether queues were left out, because they did not fit into one message.
    pub is_cut: bool,
}

/// A queue as one process sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueReport {
    /// Its name.
    pub name: String,
    /// Calls that ended at a worker; requests that a gateway answered.
    pub calls: u64,
    /// How many of them failed.
    pub errors: u64,
    /// How the last of these ended, where it is known.
    pub last_error: String,
    /// How long calls held their slot; how long requests took.
    pub times: Distribution,
    /// Of a worker.
    pub slots: Option<SlotsReport>,
    /// Of a gateway.
    pub demand: Option<DemandReport>,
}

/// A queue's slots at a worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SlotsReport {
    /// Calls at once, at most.
    pub limit: u64,
    /// Calls that run.
    pub running: u64,
    /// Requests that took a slot ahead and wait for it.
    pub waiting: u64,
    /// Time that calls held slots.
    pub used_seconds: f64,
    /// Time that all slots were taken.
    pub full_seconds: f64,
    /// Whether the worker is a member of the queue's group now.
    pub is_served: bool,
}

/// What is wanted of a queue, as a gateway sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DemandReport {
    /// Requests that were to be placed.
    pub arrivals: u64,
    /// Requests that wait for a slot.
    pub waiting: u64,
    /// How long requests waited until a worker took them.
    pub waits: Distribution,
}

/// A database as a worker sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseReport {
    /// Its name in the configuration.
    pub name: String,
    /// Whether it answers.
    pub is_up: bool,
    /// How long calls waited for a connection.
    pub waits: Distribution,
}

impl Report {
    /// A report that says who it is of, and nothing else yet.
    #[must_use]
    pub fn of(identity: &Identity) -> Self {
        Self {
            role: identity.role.as_str().to_owned(),
            id: identity.id.clone(),
            host: identity.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: identity.started.clone(),
            uptime_seconds: identity.uptime().as_secs_f64(),
            ..Self::default()
        }
    }
}

/// The databases of this process.
#[must_use]
pub fn databases() -> Vec<DatabaseReport> {
    let mut waits = snapshot::distributions(&names::BACKEND_WAIT, names::DATABASE);
    let up = snapshot::sums(&names::BACKEND_UP, names::DATABASE);
    let each = up.into_iter().map(|(name, up)| DatabaseReport {
        is_up: up > 0.0,
        waits: waits.remove(&name).unwrap_or_default(),
        name,
    });
    each.collect()
}
