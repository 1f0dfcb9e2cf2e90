//! Messages with subjects, headers and payloads. `envelope` defines their meaning.

use std::borrow::Cow;
use std::fmt::Debug;

use bytes::Bytes;

mod subject;

pub use subject::{Subject, SubjectError};

/// The initial capacity for the headers of a message. Most requests and replies have no more
/// headers than this.
const HEADERS_USUAL: usize = 6;

/// A message to be published or a received message.
#[derive(Debug)]
pub struct Message {
    /// The subject to which the message is published or on which it was received.
    pub subject: Subject,
    /// The subject for replies.
    pub reply: Option<Subject>,
    /// The headers.
    pub headers: Headers,
    /// The payload.
    pub payload: Bytes,
    /// Whether the server reports that the request's subject has no subscribers (NATS status 503).
    pub no_responders: bool,
}

impl Message {
    /// Creates a message to `subject` without a reply subject, headers or payload.
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

/// The headers of a message. NATS compares header names case-sensitively (ADR-4).
#[derive(Debug)]
pub struct Headers(HeaderSource);

#[derive(Debug)]
enum HeaderSource {
    /// Headers added with `push`, in call order.
    Built(Vec<(Cow<'static, str>, String)>),
    /// Headers of a received message, still owned by the transport.
    Received(Box<dyn ReceivedHeaders>),
}

impl Default for Headers {
    fn default() -> Self {
        Self(HeaderSource::Built(Vec::new()))
    }
}

/// Headers parsed by a transport. They are read in place, because a copy would cost two allocations
/// per header.
pub trait ReceivedHeaders: Debug + Send + Sync {
    /// Calls `visit` with every name and value. Values with the same name are visited in order.
    fn for_each<'a>(&'a self, visit: &mut dyn FnMut(&'a str, &'a str));
}

impl Headers {
    /// Wraps headers received and parsed by the transport.
    #[must_use]
    pub(crate) fn from_received(headers: Box<dyn ReceivedHeaders>) -> Self {
        Self(HeaderSource::Received(headers))
    }

    /// Adds a header. Each name may be added once.
    ///
    /// # Errors
    /// Returns `HeaderError` if the name is not a token or the value contains a control character.
    /// Also returns `HeaderError` if these are the headers of a received message.
    pub fn push(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<String>,
    ) -> Result<(), HeaderError> {
        let (name, value) = (name.into(), value.into());
        // Unlike a loop that stops at the first bad byte, `fold` lets the compiler vectorize the
        // check.
        let breaks_name = |b: u8| !b.is_ascii_graphic() || b == b':';
        let bad_name = name.bytes().fold(name.is_empty(), |bad, b| bad | breaks_name(b));
        let bad_value = value.bytes().fold(false, |bad, b| bad | b.is_ascii_control());
        if bad_name || bad_value {
            return Err(HeaderError);
        }
        let HeaderSource::Built(built) = &mut self.0 else { return Err(HeaderError) };
        debug_assert!(built.iter().all(|(known, _)| *known != name), "{name} is added twice");
        if built.capacity() == 0 {
            built.reserve(HEADERS_USUAL);
        }
        built.push((name, value));
        Ok(())
    }

    /// Calls `visit` with every name and value.
    pub fn for_each<'a>(&'a self, mut visit: impl FnMut(&'a str, &'a str)) {
        match &self.0 {
            HeaderSource::Built(built) => {
                for (name, value) in built {
                    visit(name, value);
                }
            }
            HeaderSource::Received(received) => received.for_each(&mut visit),
        }
    }

    /// Returns the first value with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut first = None;
        self.for_each(|other, value| {
            if first.is_none() && other == name {
                first = Some(value);
            }
        });
        first
    }

    /// Returns the headers that were added with `push`. Static names are returned as such, so the
    /// transport does not have to copy or check them.
    pub(crate) fn into_built(self) -> Vec<(Cow<'static, str>, String)> {
        match self.0 {
            HeaderSource::Built(built) => built,
            HeaderSource::Received(_) => Vec::new(),
        }
    }
}

/// A header that would break the wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a valid header name, and a value without control characters")]
pub struct HeaderError;
