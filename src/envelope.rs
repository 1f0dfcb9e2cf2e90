//! All that travels over NATS (DESIGN §4; docs/PROTOCOL.md for other languages).

pub mod control;
pub mod headers;
pub mod phases;
mod promise;
pub mod reply;
pub mod request;
pub mod worker;

pub use control::{Control, DIRECT_TOKEN, REPEAT_NAMES_MAX, REPEAT_TOKEN};
pub use phases::Phases;
pub use reply::{Final, Head, Reason, Reply};
pub use request::Request;
pub use worker::{WORKERS_TOKEN, WorkerId};

/// A message that does not keep to the protocol; says what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("header {header}: {expected}")]
pub struct EnvelopeError {
    /// The header.
    pub header: &'static str,
    /// What was expected.
    pub expected: &'static str,
}
