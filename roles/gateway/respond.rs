//! Turns problems and finals into HTTP responses.

use bytes::Bytes;
use http_body_util::Full;

/// The body of every response.
pub type AnswerBody = Full<Bytes>;
/// Every response.
pub type Response = http::Response<AnswerBody>;
