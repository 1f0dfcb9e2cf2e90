//! A client of the library, from its first connection to its end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State as Connection;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::Instant;

use super::connect;
use super::convert;
use super::echo::Echoes;
use super::state::State;
use crate::config::messaging::NatsConfig;
use crate::lifecycle::{Cancel, Tasks};
use crate::messaging::TransportError;

/// A client. When it is dropped, the client closes its connection.
pub(super) struct Live {
    /// Clients are numbered from 1.
    pub(super) number: u64,
    pub(super) client: Client,
    pub(super) operation_timeout: Duration,
    /// Given when its connection task has ended: it will never connect again.
    pub(super) ended: Cancel,
    is_retired: AtomicBool,
    dropped: Cancel,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.dropped.cancel();
    }
}

impl Live {
    /// Starts a client that connects by itself, for as long as it takes. Echoes are the first that it subscribes to.
    pub(super) async fn start(
        config: &NatsConfig,
        name: &str,
        number: u64,
        (state, echoes): (&Arc<State>, &Arc<Echoes>),
    ) -> Result<Self, TransportError> {
        let client = connect::client(config, name, number, state).await?;
        let subject = convert::subject(&echoes.subject());
        // The first command of a new client: there is room for it.
        let subscribed = client.subscribe(subject).await;
        let mut back = subscribed.map_err(|e| TransportError::Refused(e.into()))?;
        let ended = Cancel::new();
        let dropped = Cancel::new();
        let (sign, echoes, at_drop) = (ended.clone(), Arc::clone(echoes), dropped.clone());
        let _detached = Tasks::new().spawn_background(async move {
            let reading = async {
                while let Some(message) = back.next().await {
                    echoes.arrived(&message.subject);
                }
            };
            tokio::select! {
                // It keeps the client open otherwise.
                () = at_drop.cancelled() => {}
                // Ended by the connection task, when it ends itself.
                () = reading => sign.cancel(),
            }
        });
        let operation_timeout = config.operation_timeout;
        let is_retired = AtomicBool::new(false);
        Ok(Self { number, client, operation_timeout, ended, is_retired, dropped })
    }

    /// Whether messages can be sent. The state and not the last event: events go through a small channel and can be lost.
    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == Connection::Connected && self.is_in_use()
    }

    /// Whether it is to be used.
    pub(super) fn is_in_use(&self) -> bool {
        !self.is_retired.load(Ordering::Acquire)
    }

    /// Nothing is sent over it any more.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    /// How often it has connected.
    pub(super) fn connections(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Acquire)
    }

    /// Sends a message to ourselves and waits until it is back. What was sent before it has been read by the server,
    /// and what the server had for us before it has been received. Waits for ever where it is lost; safe to drop.
    pub(super) async fn round_trip(&self, echoes: &Echoes) -> Result<Duration, TransportError> {
        let mut echo = echoes.expect();
        let began = Instant::now();
        let sent = self.client.publish(convert::subject(&echo.subject()), Bytes::new()).await;
        sent.map_err(|e| TransportError::Refused(e.into()))?;
        echo.came().await;
        Ok(began.elapsed())
    }
}
