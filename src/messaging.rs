//! The `Transport` seam: carries messages between processes.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::{FutureExt, Stream};
use tokio::sync::watch;
use tokio::task::unconstrained;

use crate::future::BoxFuture;
use crate::message::{Message, Subject};

mod link;
pub mod nats;

pub use link::{Link, LinkState, RoundTrip, next_epoch, up};

/// Carries messages between processes.
pub trait Transport: Debug + Send + Sync {
    /// Publishes one message; the future is ready once the client has taken it, and has to be polled for that.
    ///
    /// Refuses while the link is down: what a client library queues then would be executed after the
    /// reconnect, when nobody waits for it any more.
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), TransportError>>;
    /// Publishes one message if the client takes it at once, for those who must not wait: they read a subscription.
    ///
    /// # Errors
    /// `TransportError`; `Full` when the client had no room.
    fn try_publish(&self, message: Message) -> Result<(), TransportError> {
        // Unconstrained: a task that has used up its share of time would look like a client without room.
        let sent = unconstrained(self.publish(message)).now_or_never();
        sent.unwrap_or(Err(TransportError::Full))
    }
    /// Subscribes to a subject of this process alone: a reply inbox, a control subject.
    fn subscribe<'a>(
        &'a self,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, TransportError>>;
    /// The same, for a subject that this process can do without: it is ready even while the server refuses it.
    fn subscribe_optional<'a>(
        &'a self,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, TransportError>>;
    /// Joins a queue group: each message goes to one member.
    fn queue_subscribe<'a>(
        &'a self,
        subject: &'a Subject,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, TransportError>>;
    /// Waits, bounded, until the server has what was published.
    fn flush(&self) -> BoxFuture<'_, Result<(), TransportError>>;
    /// The same, as long as it takes within `limit`: over a link that is lost meanwhile, too.
    fn flush_within(&self, limit: Duration) -> BoxFuture<'_, Result<(), TransportError>>;
    /// Whether messages can be sent now, and every change of that.
    fn link(&self) -> watch::Receiver<Link>;
    /// How long a message of ours to ourselves takes through the server, measured all the time.
    fn round_trip(&self) -> RoundTrip;
    /// The largest message in bytes, headers included, that the server takes; known once connected.
    fn payload_bytes_max(&self) -> usize;
    /// A subject under which only this process listens, for the reply inbox.
    fn inbox(&self) -> Subject;
}

/// One subscription, read as a stream. It outlives connections and refusals; it ends when it was left.
pub trait Subscription: Stream<Item = Message> + Debug + Send + Unpin {
    /// Leaves the group without losing what is on its way: the server stops after `more` further messages,
    /// and until then, or until it stays silent, the stream goes on.
    fn leave_after(&mut self, more: u64) -> BoxFuture<'_, Result<(), TransportError>>;
    /// Whether the server serves it, as far as is known. One that it refuses is tried again by itself.
    fn served(&self) -> watch::Receiver<bool>;
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Not connected.
    #[error("the message bus is not connected")]
    Disconnected,
    /// The transport did not take it in time.
    #[error("the message bus did not take the message in time")]
    TimedOut,
    /// The transport had no room for it at that moment.
    #[error("the message bus has no room for the message now")]
    Full,
    /// It is larger than the server allows.
    #[error("the message is larger than the message bus allows")]
    TooLarge,
    /// Closed, or refused for another reason.
    #[error("the message bus refused")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}
