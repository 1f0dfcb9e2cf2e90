//! The state of NATS servers and their activity between two samples.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::rates::UNKNOWN;
use crate::telemetry::count_as_f64;

/// A connection is new if it is younger than this, in seconds. The value must exceed the duration of a query and must
/// be at most 60.
const NEW_SECONDS: u64 = 5;

/// The state of a server at one moment.
#[derive(Clone, Debug)]
pub(crate) struct ServerSample {
    /// The time at which the sample was taken.
    pub(crate) at: Instant,
    /// The values from `/varz`.
    pub(crate) values: Varz,
    /// The connection with the most unread bytes.
    pub(crate) slowest: Option<MonitoredConnection>,
}

/// The relevant part of `/varz`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Varz {
    pub(crate) server_name: String,
    pub(crate) version: String,
    pub(crate) connections: u64,
    pub(crate) slow_consumers: u64,
    pub(crate) in_msgs: u64,
    pub(crate) out_msgs: u64,
    pub(crate) in_bytes: u64,
    pub(crate) out_bytes: u64,
    pub(crate) cpu: f64,
}

/// The relevant part of `/connz`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Connz {
    pub(crate) connections: Vec<MonitoredConnection>,
    /// The number of connections of the server. It can exceed the number of listed connections.
    pub(crate) total: usize,
}

/// The known connections of all NATS servers.
#[derive(Clone, Debug, Default)]
pub(crate) struct MonitoredConnections {
    pub(crate) connections: Vec<MonitoredConnection>,
    /// The name of each server whose connections are not all known, and the reason.
    pub(crate) gaps: Vec<String>,
}

impl MonitoredConnections {
    /// Adds the connections of one server, or the reason why they are unknown.
    pub(crate) fn add(&mut self, server: &str, answer: Result<Connz, String>) {
        match answer {
            Ok(Connz { connections, total }) => {
                if connections.len() < total {
                    let listed = connections.len();
                    self.gaps
                        .push(format!("{server} lists only {listed} of its {total} connections"));
                }
                self.connections.extend(connections);
            }
            Err(failure) => self.gaps.push(format!("{server}: {failure}")),
        }
    }
}

impl Connz {
    /// Returns the connection with the most unread bytes, or `None` if no connection has unread bytes. The reply must
    /// be sorted by pending bytes.
    pub(crate) fn slowest(self) -> Option<MonitoredConnection> {
        self.connections.into_iter().next().filter(|connection| connection.pending_bytes > 0)
    }
}

/// A client's connection.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MonitoredConnection {
    pub(crate) name: String,
    pub(crate) ip: String,
    pub(crate) pending_bytes: u64,
    /// How long the connection has existed. The text uses the largest applicable units, such as `3m12s` or `4s`.
    pub(crate) uptime: String,
}

impl MonitoredConnection {
    /// Returns whether the connection is so new that its process may not have received a query that has just ended.
    pub(crate) fn is_new(&self) -> bool {
        let uptime = self.uptime.strip_suffix('s').and_then(|number| number.parse::<u64>().ok());
        uptime.is_some_and(|uptime| uptime < NEW_SECONDS)
    }
}

/// A NATS server, with rates between two samples. Rates are `UNKNOWN` if there is no earlier sample or the server has
/// restarted since the earlier sample.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct NatsServerView {
    pub(crate) url: String,
    /// The reason why the other fields are empty, if the server could not be sampled.
    pub(crate) failure: Option<String>,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) connections: u64,
    pub(crate) slow_consumers: u64,
    /// The number of new slow consumers since the earlier sample.
    pub(crate) slow_consumers_new: u64,
    pub(crate) in_messages_per_second: f64,
    pub(crate) out_messages_per_second: f64,
    pub(crate) in_bytes_per_second: f64,
    pub(crate) out_bytes_per_second: f64,
    pub(crate) cpu_percent: f64,
    /// The client with the most unread bytes.
    pub(crate) slowest_client: String,
    pub(crate) slowest_pending_bytes: u64,
}

impl NatsServerView {
    pub(crate) fn between(
        url: &str,
        before: Option<&ServerSample>,
        now: &Result<ServerSample, String>,
    ) -> Self {
        let (sample, failure) = match now {
            Ok(sample) => (Some(sample), None),
            Err(failure) => (None, Some(failure.clone())),
        };
        let values = sample.map(|sample| sample.values.clone()).unwrap_or_default();
        let pair = before.zip(sample).filter(|(before, sample)| {
            sample.at > before.at && sample.values.in_msgs >= before.values.in_msgs
        });
        let rate = |value: fn(&Varz) -> u64| {
            pair.map_or(UNKNOWN, |(before, sample)| {
                let seconds = sample.at.duration_since(before.at).as_secs_f64();
                count_as_f64(value(&sample.values).saturating_sub(value(&before.values))) / seconds
            })
        };
        let slow_consumers_new = pair.map_or(0, |(before, sample)| {
            sample.values.slow_consumers.saturating_sub(before.values.slow_consumers)
        });
        let slowest = sample.and_then(|sample| sample.slowest.clone()).unwrap_or_default();
        Self {
            url: url.to_owned(),
            failure,
            connections: values.connections,
            slow_consumers: values.slow_consumers,
            slow_consumers_new,
            in_messages_per_second: rate(|values| values.in_msgs),
            out_messages_per_second: rate(|values| values.out_msgs),
            in_bytes_per_second: rate(|values| values.in_bytes),
            out_bytes_per_second: rate(|values| values.out_bytes),
            cpu_percent: values.cpu,
            name: values.server_name,
            version: values.version,
            slowest_client: if slowest.name.is_empty() { slowest.ip } else { slowest.name },
            slowest_pending_bytes: slowest.pending_bytes,
        }
    }
}
