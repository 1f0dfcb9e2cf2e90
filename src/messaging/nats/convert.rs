//! Conversions between fjord's messages and those of the client library.

use std::borrow::Cow;

use async_nats::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::message::{HeaderError, Headers, Message, ReceivedHeaders, Subject};
use crate::messaging::TransportError;

/// The size in bytes of a header block's first line and end (`NATS/1.0` CRLF … CRLF).
const HEADER_FRAME_BYTES: usize = 12;
/// The size in bytes of the separators in a header line (`: ` … CRLF).
const HEADER_LINE_BYTES: usize = 4;

/// Headers in the library's type, with their size on the wire.
pub(super) struct WireHeaders {
    map: HeaderMap,
    bytes: usize,
}

impl WireHeaders {
    /// Returns the size in bytes on the wire.
    pub(super) fn wire_len(&self) -> usize {
        self.bytes
    }
}

impl From<WireHeaders> for HeaderMap {
    fn from(headers: WireHeaders) -> Self {
        headers.map
    }
}

/// Converts headers to the library's type.
pub(super) fn headers(from: Headers) -> Result<WireHeaders, TransportError> {
    let refused = || TransportError::Failed(Box::new(HeaderError));
    let mut map = HeaderMap::new();
    let built = from.into_built();
    let mut bytes = if built.is_empty() { 0 } else { HEADER_FRAME_BYTES };
    for (name, value) in built {
        bytes += name.len() + value.len() + HEADER_LINE_BYTES;
        let name = match name {
            Cow::Borrowed(name) => HeaderName::from_static(name),
            Cow::Owned(name) => HeaderName::try_from(name).map_err(|_| refused())?,
        };
        // The library does not copy the text. It panics on line breaks, which `Headers` rules out.
        map.insert(name, HeaderValue::from(value));
    }
    Ok(WireHeaders { map, bytes })
}

/// Converts a subject to the library's type.
pub(super) fn subject(from: &Subject) -> async_nats::Subject {
    async_nats::Subject::from(from.as_str())
}

/// Converts a received message.
pub(super) fn received(message: async_nats::Message) -> Message {
    let headers = message.headers.map_or_else(Headers::default, |map| {
        Headers::from_received(Box::new(NatsHeaders(map)) as Box<dyn ReceivedHeaders>)
    });
    Message {
        subject: Subject::from_received(&message.subject),
        reply: message.reply.as_deref().map(Subject::from_received),
        headers,
        payload: message.payload,
        no_responders: message.status == Some(StatusCode::NO_RESPONDERS),
    }
}

/// Received headers, kept in the library's type.
#[derive(Debug)]
struct NatsHeaders(HeaderMap);

impl ReceivedHeaders for NatsHeaders {
    fn for_each<'a>(&'a self, visit: &mut dyn FnMut(&'a str, &'a str)) {
        for (name, values) in self.0.iter() {
            for value in values {
                visit(name.as_ref(), value.as_str());
            }
        }
    }
}
