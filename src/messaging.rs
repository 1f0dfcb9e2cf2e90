//! The `Transport` trait, which carries messages between processes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use futures_util::{FutureExt, Stream};
use tokio::sync::watch;
use tokio::task::unconstrained;

use crate::config::messaging::TransportConfig;
use crate::future::BoxFuture;
use crate::message::{Message, Subject};

#[cfg(test)]
pub(crate) mod fake;
mod link;
pub mod nats;

pub use link::{
    Link, LinkState, RoundTrip, SettingsState, next_epoch, settings_applied, wait_until_up,
};

/// The key in `Transport::problems` for the note that the client was replaced.
pub const CLIENT_REPLACED: &str = "nats client";

/// Carries messages between processes.
pub trait Transport: Debug + Send + Sync {
    /// Publishes a message. The future must be polled until the client has accepted the message.
    ///
    /// Fails while the link is down. Otherwise, the client library would send the message after the reconnect, when the
    /// message's session may have ended.
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), TransportError>>;
    /// Publishes a message without waiting. Intended for tasks that read a subscription and must not block.
    ///
    /// # Errors
    /// Returns `TransportError::Full` if the client cannot accept the message immediately, or another `TransportError`
    /// if sending fails.
    fn try_publish(&self, message: Message) -> Result<(), TransportError> {
        // Without `unconstrained`, a client that can accept a message would look full to a task that has used up its
        // cooperative budget.
        let sent = unconstrained(self.publish(message)).now_or_never();
        sent.unwrap_or(Err(TransportError::Full))
    }
    /// Subscribes to a subject that belongs to this process alone, such as a reply inbox or a control subject.
    fn subscribe<'a>(
        &'a self,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, TransportError>>;
    /// Subscribes to a subject on which the process does not depend. The link counts as up even if the server refuses
    /// the subscription.
    fn subscribe_optional<'a>(
        &'a self,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, TransportError>>;
    /// Joins a queue group, in which each message is delivered to one member.
    fn queue_subscribe<'a>(
        &'a self,
        subject: &'a Subject,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, TransportError>>;
    /// Waits until the server has received all published messages. Fails if the link is down, or
    /// after `operation_timeout`.
    fn flush(&self) -> BoxFuture<'_, Result<(), TransportError>>;
    /// Like `flush`, but waits for up to `limit` and retries after a reconnect.
    fn flush_within(&self, limit: Duration) -> BoxFuture<'_, Result<(), TransportError>>;
    /// Returns a receiver that watches the link.
    fn link(&self) -> watch::Receiver<Link>;
    /// Returns the round-trip time through the server. It is measured continuously.
    fn round_trip(&self) -> RoundTrip;
    /// Returns the maximum message size in bytes that the server accepts, including headers. It is known only after the
    /// transport has connected.
    fn payload_bytes_max(&self) -> usize;
    /// Applies a reloaded configuration. If it differs from the current one, the transport makes a new connection in
    /// the background. The previous connection is used until the new one is ready. The inbox stays the same.
    fn reconfigure(&self, config: &TransportConfig);
    /// Returns a receiver that watches whether the connection uses the configuration of the last `reconfigure`.
    fn settings(&self) -> watch::Receiver<SettingsState>;
    /// Returns the reason why no server could be reached since the last connection. The text names every server with
    /// the cause of its last failure.
    fn connect_failure(&self) -> Option<String>;
    /// Returns the current and recent problems of the connection, keyed by what they affect, such as refused subjects.
    fn problems(&self) -> BTreeMap<String, String>;
    /// Returns the subject prefix of the reply inbox. Only this process subscribes to subjects below it.
    fn inbox(&self) -> Subject;
}

/// A subscription: a stream that survives reconnects and refusals. The stream ends after a call to `leave_after`.
pub trait Subscription: Stream<Item = Message> + Debug + Send + Unpin {
    /// Leaves the group without losing messages in transit. The server stops after `more` further messages, and the
    /// stream delivers those before it ends.
    fn leave_after(&mut self, more: u64) -> BoxFuture<'_, Result<(), TransportError>>;
    /// Returns a receiver that watches whether the server accepts the subscription. The transport
    /// retries a refused subscription.
    fn served(&self) -> watch::Receiver<bool>;
}

/// The reason why a message could not be sent or a subscription could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The transport is not connected.
    #[error("the message bus is not connected")]
    Disconnected,
    /// The transport did not finish in time.
    #[error("the message bus did not accept the message in time")]
    TimedOut,
    /// The server does not permit messages to this subject or to the subjects below it.
    #[error("the message bus does not permit this user to publish to {0}")]
    PublishNotPermitted(String),
    /// The transport cannot accept a message without waiting.
    #[error("the message bus has no room for the message now")]
    Full,
    /// The message is larger than the server allows.
    #[error("the message is larger than the message bus allows")]
    TooLarge,
    /// The operation failed for another reason, which is the source of this error.
    #[error("the operation on the message bus failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}
