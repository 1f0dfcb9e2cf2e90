//! Sends replies to gateways.

use std::future::ready;
use std::sync::Arc;

use tokio::sync::watch;

use crate::envelope::Reply;
use crate::future::BoxFuture;
use crate::message::Subject;
use crate::messaging::{Link, RoundTrip, Transport, TransportError};
use crate::telemetry::{counter, names};

/// Bytes of each message that are reserved for the headers of a part or a final.
const HEADER_BYTES_MAX: usize = 1024;

/// A sender of replies over the transport.
#[derive(Clone, Debug)]
pub struct ReplySender {
    transport: Arc<dyn Transport>,
}

impl ReplySender {
    /// Creates a sender.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    /// Sends a reply without waiting. This is meant for tasks that read a subscription. A reply
    /// that cannot be sent immediately is dropped and counted, and the gateway's timers handle the
    /// loss.
    pub fn try_send(&self, reply: Reply, to: Subject) {
        let message = reply.into_message(to).map_err(|e| TransportError::Failed(Box::new(e)));
        if let Err(error) = message.and_then(|message| self.transport.try_publish(message)) {
            counter(&names::WORKER_UNSENT, &[]).increment(1);
            tracing::debug!(%error, "a reply to a gateway was dropped");
        }
    }

    /// Sends a reply. The transport may send it before the future is polled, but only a completed
    /// future confirms that it was sent.
    pub fn send(&self, reply: Reply, to: Subject) -> BoxFuture<'_, Result<(), TransportError>> {
        match reply.into_message(to) {
            Ok(message) => self.transport.publish(message),
            Err(error) => Box::pin(ready(Err(TransportError::Failed(Box::new(error))))),
        }
    }

    /// Returns the size limit of the body of a part or a final, in bytes.
    #[must_use]
    pub fn body_bytes_max(&self) -> usize {
        self.transport.payload_bytes_max().saturating_sub(HEADER_BYTES_MAX).max(1)
    }

    /// Returns the measured round trip to the NATS server.
    #[must_use]
    pub fn round_trip(&self) -> RoundTrip {
        self.transport.round_trip()
    }

    /// Returns a receiver of the state of the connection.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.transport.link()
    }
}
