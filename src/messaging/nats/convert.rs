//! Between our messages and the client library's.

use std::borrow::Cow;

use async_nats::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::message::{HeaderError, Headers, Message, ReceivedHeaders, Subject};
use crate::messaging::TransportError;

/// Bytes of the header block's first line and of its end (`NATS/1.0` CRLF … CRLF).
const HEADER_FRAME_BYTES: usize = 12;
/// Bytes between a header's name and value, and after it (`: ` … CRLF).
const HEADER_LINE_BYTES: usize = 4;

/// The library's headers with the size that they have on the wire.
pub(super) struct WireHeaders {
    map: HeaderMap,
    bytes: usize,
}

impl WireHeaders {
    /// How many bytes they take.
    pub(super) fn wire_len(&self) -> usize {
        self.bytes
    }
}

impl From<WireHeaders> for HeaderMap {
    fn from(headers: WireHeaders) -> Self {
        headers.map
    }
}

/// Our headers as the library's.
pub(super) fn headers(from: Headers) -> Result<WireHeaders, TransportError> {
    let refused = || TransportError::Refused(Box::new(HeaderError));
    let mut map = HeaderMap::new();
    let built = from.into_built();
    let mut bytes = if built.is_empty() { 0 } else { HEADER_FRAME_BYTES };
    for (name, value) in built {
        bytes += name.len() + value.len() + HEADER_LINE_BYTES;
        let name = match name {
            Cow::Borrowed(name) => HeaderName::from_static(name),
            Cow::Owned(name) => HeaderName::try_from(name).map_err(|_| refused())?,
        };
        // The library takes a text without copying it, and panics for a line break: `Headers` has none.
        map.insert(name, HeaderValue::from(value));
    }
    Ok(WireHeaders { map, bytes })
}

/// Our subject as the library's.
pub(super) fn subject(from: &Subject) -> async_nats::Subject {
    async_nats::Subject::from(from.as_str())
}

/// A message that arrived.
pub(super) fn received(message: async_nats::Message) -> Message {
    let headers = message.headers.map_or_else(Headers::default, |map| {
        Headers::from_received(Box::new(Map(map)) as Box<dyn ReceivedHeaders>)
    });
    Message {
        subject: Subject::from_received(&message.subject),
        reply: message.reply.as_deref().map(Subject::from_received),
        headers,
        payload: message.payload,
        no_responders: message.status == Some(StatusCode::NO_RESPONDERS),
    }
}

/// The library's headers, looked at where they are.
#[derive(Debug)]
struct Map(HeaderMap);

impl ReceivedHeaders for Map {
    fn for_each<'a>(&'a self, visit: &mut dyn FnMut(&'a str, &'a str)) {
        for (name, values) in self.0.iter() {
            for value in values {
                visit(name.as_ref(), value.as_str());
            }
        }
    }
}
