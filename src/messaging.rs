//! The `Transport` seam: carries messages between processes.

use std::borrow::Cow;
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, Stream};
use tokio::sync::watch;
use tokio::task::unconstrained;

use crate::future::BoxFuture;

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

/// Bytes of a number with the dot before it.
const NUMBER_BYTES_MAX: usize = 21;

/// A subject made of checked tokens. No text of a client ever becomes part of one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Subject(Arc<str>);

impl Subject {
    /// Longest subject in bytes.
    pub const BYTES_MAX: usize = 512;

    /// Checks a subject without wildcards.
    ///
    /// # Errors
    /// `SubjectError` when a token is empty or has a character that NATS gives a meaning.
    pub fn new(text: &str) -> Result<Self, SubjectError> {
        let good = text.len() <= Self::BYTES_MAX
            && text.split('.').all(|token| {
                !token.is_empty()
                    && token.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'*' | b'>'))
            });
        if good { Ok(Self(text.into())) } else { Err(SubjectError) }
    }

    /// This subject with further tokens.
    ///
    /// # Errors
    /// `SubjectError` when the tail is not made of good tokens.
    pub fn join(&self, tail: impl fmt::Display) -> Result<Self, SubjectError> {
        Self::new(&format!("{}.{tail}", self.0))
    }

    /// This subject with further tokens that are numbers: always good ones.
    #[must_use]
    pub fn numbered<const TOKENS: usize>(&self, numbers: [u64; TOKENS]) -> Self {
        let mut text = String::with_capacity(self.0.len() + TOKENS * NUMBER_BYTES_MAX);
        text.push_str(&self.0);
        let mut digits = itoa::Buffer::new();
        for number in numbers {
            text.push('.');
            text.push_str(digits.format(number));
        }
        Self(text.into())
    }

    /// Every subject below this one: for subscriptions only.
    #[must_use]
    pub fn below(&self) -> Self {
        Self(format!("{}.>", self.0).into())
    }

    /// A subject that arrived with a message: the server has checked it.
    #[must_use]
    pub(crate) fn received(text: &str) -> Self {
        Self(text.into())
    }

    /// The subject's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Debug::fmt(&self.0, f)
    }
}

/// A text that is no subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a subject: empty token, wildcard, blank or control character")]
pub struct SubjectError;

/// Headers of a request, or of an answer, at most times.
const HEADERS_USUAL: usize = 6;

/// What goes over the wire.
#[derive(Debug)]
pub struct Message {
    /// Where it goes, or where it arrived.
    pub subject: Subject,
    /// Where an answer goes.
    pub reply: Option<Subject>,
    /// Its headers.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
    /// Nobody listens on the subject that a request was published to (NATS status 503).
    pub no_responders: bool,
}

impl Message {
    /// A message without reply subject, headers and payload.
    #[must_use]
    pub fn to(subject: Subject) -> Self {
        Self {
            subject,
            reply: None,
            headers: Headers::default(),
            payload: Bytes::new(),
            no_responders: false,
        }
    }
}

/// A message's headers. NATS compares names literally (ADR-4).
#[derive(Debug, Default)]
pub struct Headers(Kept);

#[derive(Debug)]
enum Kept {
    /// Made here, in order.
    Written(Vec<(Cow<'static, str>, String)>),
    /// As they arrived, where the transport has them.
    Arrived(Box<dyn Arrived>),
}

impl Default for Kept {
    fn default() -> Self {
        Self::Written(Vec::new())
    }
}

/// Headers that a transport has read. They are looked at where they are: a copy would be two allocations for each.
pub trait Arrived: Debug + Send + Sync {
    /// Shows every name with its value, the values of one name in their order.
    fn each<'a>(&'a self, show: &mut dyn FnMut(&'a str, &'a str));
}

impl Headers {
    /// Headers that arrived: the server has parsed them already.
    #[must_use]
    pub(crate) fn arrived(headers: Box<dyn Arrived>) -> Self {
        Self(Kept::Arrived(headers))
    }

    /// Adds a header to those that are made here; a name once. A name or value that could break the wire format is
    /// refused.
    ///
    /// # Errors
    /// `HeaderError` when the name is not a token or the value has a control character, or when the headers arrived.
    pub fn push(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<String>,
    ) -> Result<(), HeaderError> {
        let (name, value) = (name.into(), value.into());
        // To the end, whatever is found: such a loop takes many bytes at a time.
        let breaks_name = |b: u8| !b.is_ascii_graphic() || b == b':';
        let bad_name = name.bytes().fold(name.is_empty(), |bad, b| bad | breaks_name(b));
        let bad_value = value.bytes().fold(false, |bad, b| bad | b.is_ascii_control());
        if bad_name || bad_value {
            return Err(HeaderError);
        }
        let Kept::Written(written) = &mut self.0 else { return Err(HeaderError) };
        if written.capacity() == 0 {
            written.reserve(HEADERS_USUAL);
        }
        written.push((name, value));
        Ok(())
    }

    /// Shows every name with its value.
    pub fn each<'a>(&'a self, mut show: impl FnMut(&'a str, &'a str)) {
        match &self.0 {
            Kept::Written(written) => {
                for (name, value) in written {
                    show(name, value);
                }
            }
            Kept::Arrived(arrived) => arrived.each(&mut show),
        }
    }

    /// The first value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut found = None;
        self.each(|other, value| {
            if found.is_none() && other == name {
                found = Some(value);
            }
        });
        found
    }

    /// Those that were made here, with static names still told from others.
    pub(crate) fn into_written(self) -> Vec<(Cow<'static, str>, String)> {
        match self.0 {
            Kept::Written(written) => written,
            Kept::Arrived(_) => Vec::new(),
        }
    }
}

/// A header that would break the wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a header: bad name, or a control character in its value")]
pub struct HeaderError;

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
