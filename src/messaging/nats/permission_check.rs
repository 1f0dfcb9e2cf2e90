//! Tests whether a server accepts a role's connection, subscriptions and messages. This is part of
//! `fjord check --online`. The test uses a separate connection.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Client, Event, ServerAddr, ServerInfo};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::timeout;

use super::connect;
use crate::config::messaging::NatsConfig;
use crate::message::Subject;
use crate::messaging::TransportError;

/// The subscriptions and messages to test. They must not affect other users of the server.
#[derive(Clone, Debug, Default)]
pub struct PermissionCheck {
    /// Subjects to subscribe to without a queue group.
    pub subscribe: Vec<Subject>,
    /// Subjects to subscribe to in a queue group that is named after the last token of the subject.
    pub queue_subscribe: Vec<Subject>,
    /// Subjects to publish an empty message to.
    pub publish: Vec<Subject>,
}

/// The result of a permission check.
#[derive(Clone, Debug)]
pub struct PermissionCheckResult {
    /// The server's version.
    pub version: String,
    /// The size in bytes, headers included, of the largest message that the server accepts.
    pub payload_bytes_max: usize,
    /// The round-trip time of a message from the client to itself. `None` if no message came back.
    pub round_trip: Option<Duration>,
    /// The refusals, in the server's words.
    pub refused: Vec<String>,
}

/// The number of timed messages after the first one. The shortest time is used.
const PROBES: usize = 3;

/// Returns the host and port of a server, without any credentials in its URL.
#[must_use]
pub fn display_name(server: &str) -> String {
    server.parse().map_or_else(|_| "?".to_owned(), |server| connect::host_of(&server))
}

/// Connects to a server and runs the check. The configured timeouts limit its duration.
///
/// # Errors
/// Returns `TransportError` with the cause if the connection, TLS or authentication fails.
pub async fn run(
    config: &NatsConfig,
    server: &str,
    check: &PermissionCheck,
) -> Result<PermissionCheckResult, TransportError> {
    let refused = Arc::new(Mutex::new(Vec::new()));
    let (report, mut is_closed) = watch::channel(false);
    let server: ServerAddr = server.parse().map_err(|e| TransportError::Failed(Box::new(e)))?;
    let options = connect::options(config, "fjord check").ignore_discovered_servers();
    let (errors, report) = (Arc::clone(&refused), Arc::new(report));
    let options = options.event_callback(move |event| {
        match event {
            Event::ServerError(error) => {
                errors.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string());
            }
            Event::Closed => {
                report.send_replace(true);
            }
            _ => {}
        }
        std::future::ready(())
    });
    let client = options.connect(server).await.map_err(|e| TransportError::Failed(e.into()))?;
    let ServerInfo { version, max_payload, .. } = client.server_info();
    let limit = config.operation_timeout;
    let tried = test(&client, config, check).await;
    let round_trip = tried.ok().flatten();
    // Events arrive in order, so all refusals are known once the connection is closed.
    if timeout(limit, client.drain()).await.is_ok() {
        let _closed = timeout(limit, is_closed.wait_for(|closed| *closed)).await;
    }
    let mut refused = std::mem::take(&mut *refused.lock().unwrap_or_else(PoisonError::into_inner));
    if round_trip.is_none() && refused.is_empty() {
        refused.push("a message to the client's own inbox did not arrive".to_owned());
    }
    Ok(PermissionCheckResult { version, payload_bytes_max: max_payload, round_trip, refused })
}

/// Subscribes, publishes and measures the round trip. Each step has its own time limit.
async fn test(
    client: &Client,
    config: &NatsConfig,
    check: &PermissionCheck,
) -> Result<Option<Duration>, async_nats::Error> {
    let limit = config.operation_timeout;
    let inbox = format!("{}.{}", config.inbox_prefix, uuid::Uuid::new_v4().simple());
    let mut subscriptions = Vec::new();
    let sending = async {
        for subject in &check.subscribe {
            subscriptions.push(client.subscribe(subject.as_str().to_owned()).await?);
        }
        for subject in &check.queue_subscribe {
            let group = subject.as_str().rsplit('.').next().unwrap_or_default().to_owned();
            subscriptions.push(client.queue_subscribe(subject.as_str().to_owned(), group).await?);
        }
        for subject in &check.publish {
            client.publish(subject.as_str().to_owned(), Bytes::new()).await?;
        }
        Ok::<_, async_nats::Error>(client.subscribe(inbox.clone()).await?)
    };
    let mut returned = timeout(limit, sending).await??;
    let mut shortest = None;
    for _ in 0..=PROBES {
        let started = Instant::now();
        let sent = timeout(limit, client.publish(inbox.clone(), Bytes::new())).await;
        sent??;
        if !matches!(timeout(limit, returned.next()).await, Ok(Some(_))) {
            break;
        }
        // The first message also waits for everything that was sent before it.
        shortest = Some(shortest.map_or(started.elapsed(), |took| started.elapsed().min(took)));
    }
    Ok(shortest)
}
