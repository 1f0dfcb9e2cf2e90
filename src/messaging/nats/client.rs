//! A client of the NATS library, from its first connection until it ends.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State as LibraryState;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::Instant;

use super::connect;
use super::connection_state::ConnectionState;
use super::convert;
use super::probe::LinkProbes;
use crate::config::messaging::NatsConfig;
use crate::lifecycle::{Cancel, Tasks};
use crate::messaging::TransportError;

/// A NATS library client and the state needed to replace it. Dropping it closes the connection.
pub(super) struct NatsClient {
    /// The number of the client in this process, counted from 1.
    pub(super) number: u64,
    pub(super) inner: Client,
    pub(super) operation_timeout: Duration,
    /// Set when the connection task has ended. After that, the client never connects again.
    pub(super) ended: Cancel,
    is_retired: AtomicBool,
    dropped: Cancel,
}

impl fmt::Debug for NatsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsClient").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Drop for NatsClient {
    fn drop(&mut self) {
        self.dropped.cancel();
    }
}

impl NatsClient {
    /// Starts a client that connects in the background and retries indefinitely. Its first command
    /// subscribes to probes.
    pub(super) async fn start(
        config: &NatsConfig,
        name: &str,
        number: u64,
        (state, probes): (&Arc<ConnectionState>, &Arc<LinkProbes>),
    ) -> Result<Self, TransportError> {
        let inner = connect::client(config, name, number, state).await?;
        let subject = convert::subject(&probes.subject());
        // This is the first command of a new client, so its queue has room.
        let subscribed = inner.subscribe(subject).await;
        let mut returned = subscribed.map_err(|e| TransportError::Failed(e.into()))?;
        let ended = Cancel::new();
        let dropped = Cancel::new();
        let (on_end, probes, on_drop) = (ended.clone(), Arc::clone(probes), dropped.clone());
        let _detached = Tasks::new().spawn_background(async move {
            let reading = async {
                while let Some(message) = returned.next().await {
                    probes.on_message(&message.subject);
                }
            };
            tokio::select! {
                // Without this branch, the subscription would keep the client open.
                () = on_drop.cancelled() => {}
                // The stream ends together with the connection task.
                () = reading => on_end.cancel(),
            }
        });
        let operation_timeout = config.operation_timeout;
        let is_retired = AtomicBool::new(false);
        Ok(Self { number, inner, operation_timeout, ended, is_retired, dropped })
    }

    /// Returns whether messages can be sent. This reads the current state, because events can be
    /// lost.
    pub(super) fn is_connected(&self) -> bool {
        self.inner.connection_state() == LibraryState::Connected && self.is_in_use()
    }

    /// Returns whether the client is still in use, that is, has not been retired.
    pub(super) fn is_in_use(&self) -> bool {
        !self.is_retired.load(Ordering::Acquire)
    }

    /// Stops using this client for new messages.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    /// Returns how many connections the client has made.
    pub(super) fn connections(&self) -> u64 {
        self.inner.statistics().connects.load(Ordering::Acquire)
    }

    /// Sends a probe, waits until it comes back, and returns the elapsed time. By then, the server
    /// has read everything that was sent before the probe. This process has received everything
    /// that the server sent before it returned the probe. Waits forever if the probe is lost.
    /// Cancel safe.
    pub(super) async fn round_trip(&self, probes: &LinkProbes) -> Result<Duration, TransportError> {
        let mut probe = probes.start();
        let started = Instant::now();
        let sent = self.inner.publish(convert::subject(&probe.subject()), Bytes::new()).await;
        sent.map_err(|e| TransportError::Failed(e.into()))?;
        probe.returned().await;
        Ok(started.elapsed())
    }
}
