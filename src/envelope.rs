//! The protocol between gateways and workers: requests, replies and control messages, and their encoding as NATS
//! messages. `docs/PROTOCOL.md` specifies it for other languages.

pub mod control;
pub mod headers;
pub mod phases;
pub mod reply;
pub mod request;
pub mod worker;

pub use control::{Control, DIRECT_TOKEN, RESEND_NAMES_MAX, RESEND_TOKEN};
pub use phases::Phases;
pub use reply::{AnswerHead, Final, RefusalReason, Reply};
pub use request::Request;
pub use worker::{WORKERS_TOKEN, WorkerId};

/// The last token of the subject on which gateways report to each other how much of their rate limits callers have
/// used.
pub const RATE_TOKEN: &str = "rate";

/// A message that violates the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("header {header}: {expected}")]
pub struct EnvelopeError {
    /// The name of the header that is missing or invalid.
    pub header: &'static str,
    /// A description of the expected value.
    pub expected: &'static str,
}
