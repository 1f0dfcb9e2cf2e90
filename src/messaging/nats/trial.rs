//! One connection to one server, to see whether it serves a role: for `fjord check --online`.

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

/// What is tried. Nothing of it may reach anybody: others use the server meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// Subjects that are subscribed to, without a group.
    pub subscribe: Vec<Subject>,
    /// Subjects that are subscribed to in a group that is called like their last token.
    pub join: Vec<Subject>,
    /// Subjects that an empty message is published to.
    pub publish: Vec<Subject>,
}

/// What a server said.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its version.
    pub version: String,
    /// The largest message that it takes, headers included.
    pub payload_bytes_max: usize,
    /// How long a message to ourselves takes; `None` when none came back.
    pub round_trip: Option<Duration>,
    /// What it refused, in its own words.
    pub refused: Vec<String>,
}

/// Messages to ourselves that are timed; the quickest counts.
const ECHOES: usize = 3;

/// A server without the user and password that its URL may carry.
#[must_use]
pub fn name_of(server: &str) -> String {
    server.parse().map_or_else(|_| "?".to_owned(), |server| connect::host_of(&server))
}

/// Connects to a server once and tries. Bounded by the configured timeouts.
///
/// # Errors
/// `TransportError` with the cause: no connection, no TLS, no good credentials.
pub async fn run(
    config: &NatsConfig,
    server: &str,
    trial: &Trial,
) -> Result<Found, TransportError> {
    let refused = Arc::new(Mutex::new(Vec::new()));
    let (report, mut is_closed) = watch::channel(false);
    let server: ServerAddr = server.parse().map_err(|e| TransportError::Refused(Box::new(e)))?;
    let options = connect::options(config, "fjord check").ignore_discovered_servers();
    let (heard, report) = (Arc::clone(&refused), Arc::new(report));
    let options = options.event_callback(move |event| {
        match event {
            Event::ServerError(error) => {
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string());
            }
            Event::Closed => {
                report.send_replace(true);
            }
            _ => {}
        }
        std::future::ready(())
    });
    let client = options.connect(server).await.map_err(|e| TransportError::Refused(e.into()))?;
    let ServerInfo { version, max_payload, .. } = client.server_info();
    let limit = config.operation_timeout;
    let tried = attempt(&client, config, trial).await;
    let round_trip = tried.ok().flatten();
    // Events come in order: with the last one everything that was refused is known.
    if timeout(limit, client.drain()).await.is_ok() {
        let _closed = timeout(limit, is_closed.wait_for(|closed| *closed)).await;
    }
    let mut refused = std::mem::take(&mut *refused.lock().unwrap_or_else(PoisonError::into_inner));
    if round_trip.is_none() && refused.is_empty() {
        refused.push("a message to our own inbox did not come back".to_owned());
    }
    Ok(Found { version, payload_bytes_max: max_payload, round_trip, refused })
}

/// Tries, and returns the round trip once the server has read all of it. The way may be long: each message has its own time.
async fn attempt(
    client: &Client,
    config: &NatsConfig,
    trial: &Trial,
) -> Result<Option<Duration>, async_nats::Error> {
    let limit = config.operation_timeout;
    let inbox = format!("{}.{}", config.inbox_prefix, uuid::Uuid::new_v4().simple());
    let mut subscriptions = Vec::new();
    let asking = async {
        for subject in &trial.subscribe {
            subscriptions.push(client.subscribe(subject.as_str().to_owned()).await?);
        }
        for subject in &trial.join {
            let group = subject.as_str().rsplit('.').next().unwrap_or_default().to_owned();
            subscriptions.push(client.queue_subscribe(subject.as_str().to_owned(), group).await?);
        }
        for subject in &trial.publish {
            client.publish(subject.as_str().to_owned(), Bytes::new()).await?;
        }
        Ok::<_, async_nats::Error>(client.subscribe(inbox.clone()).await?)
    };
    let mut echo = timeout(limit, asking).await??;
    let mut quickest = None;
    for _ in 0..=ECHOES {
        let began = Instant::now();
        let sent = timeout(limit, client.publish(inbox.clone(), Bytes::new())).await;
        sent??;
        if !matches!(timeout(limit, echo.next()).await, Ok(Some(_))) {
            break;
        }
        // The first waits for all that was tried before it.
        quickest = Some(quickest.map_or(began.elapsed(), |took| began.elapsed().min(took)));
    }
    Ok(quickest)
}
