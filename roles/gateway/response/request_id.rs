//! A request's id: the client's own, or a new one.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue};
use rand::RngExt;
use uuid::{Builder, Uuid};

use super::X_REQUEST_ID;

/// Longest id that is taken from a client.
const BYTES_MAX: usize = 128;

/// What ties an answer, its log lines and its trace together. Never a key for anything.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The client's id when it is a good one, else a new one.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(X_REQUEST_ID).iter();
        match (values.next().and_then(|value| value.to_str().ok()), values.next()) {
            (Some(text), None) if is_good(text) => Self(text.into()),
            _ => Self::fresh(),
        }
    }

    /// A new id: a `UUIDv7`, so that ids sort by time.
    #[must_use]
    pub fn fresh() -> Self {
        // The crate's own `now_v7` asks the system for every id's random bits.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let id = Builder::from_unix_timestamp_millis(millis, &rand::rng().random()).into_uuid();
        Self((&*id.hyphenated().encode_lower(&mut Uuid::encode_buffer())).into())
    }

    /// The id itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id, to keep.
    #[must_use]
    pub fn shared(&self) -> &Arc<str> {
        &self.0
    }

    /// The id as a header's value.
    pub(super) fn header_value(&self) -> HeaderValue {
        // It cannot fail: `is_good` and UUIDs are visible ASCII.
        let mut value = HeaderValue::from_str(&self.0).unwrap_or(HeaderValue::from_static("-"));
        // HTTP/2 then keeps it out of its table of headers (RFC 7541 §6.2.3). There it would push out what comes again,
        // and be compared with every id before it: hardly any comes twice.
        value.set_sensitive(true);
        value
    }
}

fn is_good(text: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"._~+/=-".contains(&b);
    (1..=BYTES_MAX).contains(&text.len()) && text.bytes().all(is_allowed)
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
