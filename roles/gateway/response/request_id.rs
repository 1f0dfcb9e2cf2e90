//! The id of a request: the one that the client sent, or a new one.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue};
use rand::RngExt;
use uuid::{Builder, Uuid};

use super::X_REQUEST_ID;

/// The maximum size of an id from a client, in bytes.
const BYTES_MAX: usize = 128;

/// The id that appears in a request's response and log lines. Clients can reuse an id, so it is
/// never used as a key.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Returns the client's id if it is valid, otherwise a new one.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(X_REQUEST_ID).iter();
        match (values.next().and_then(|value| value.to_str().ok()), values.next()) {
            (Some(text), None) if is_valid(text) => Self(text.into()),
            _ => Self::generate(),
        }
    }

    /// Generates a `UUIDv7`, so that ids sort by time.
    #[must_use]
    pub fn generate() -> Self {
        // `Uuid::now_v7` would make a system call for the random bits of each id.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let id = Builder::from_unix_timestamp_millis(millis, &rand::rng().random()).into_uuid();
        Self((&*id.hyphenated().encode_lower(&mut Uuid::encode_buffer())).into())
    }

    /// Returns the id as a string slice.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the id as a shared string.
    #[must_use]
    pub fn shared(&self) -> &Arc<str> {
        &self.0
    }

    /// Returns the id as a header value.
    pub(super) fn header_value(&self) -> HeaderValue {
        // This never fails, because both kinds of ids are visible ASCII.
        let mut value = HeaderValue::from_str(&self.0).unwrap_or(HeaderValue::from_static("-"));
        // The id is never indexed (RFC 7541 §6.2.3), because ids would evict recurring headers from
        // HPACK's table.
        value.set_sensitive(true);
        value
    }
}

fn is_valid(text: &str) -> bool {
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
