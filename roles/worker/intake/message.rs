//! A message as it was received. Its sender may be anyone who is allowed to publish to the queue.

use std::sync::Arc;

use crate::envelope::request::TEXT_BYTES_MAX;
use crate::envelope::{EnvelopeError, Request, headers};
use crate::message::{Headers, Message, Subject};
use crate::telemetry::context::LogContext;

/// A message, with the request that it contains.
pub(super) struct ReceivedMessage {
    pub(super) request: Result<Request, EnvelopeError>,
    pub(super) reply: Option<Subject>,
    /// The ids that are logged with every line about the message.
    pub(super) ids: Arc<LogContext>,
}

impl ReceivedMessage {
    pub(super) fn parse(message: Message) -> Self {
        let request = Request::parse(&message.headers, message.payload);
        let ids = match &request {
            Ok(request) => LogContext {
                request_id: Arc::clone(&request.request_id),
                traceparent: request.traceparent.clone().unwrap_or_default(),
            },
            Err(_) => ids_of_malformed(&message.headers),
        };
        Self { request, reply: message.reply, ids: Arc::new(ids) }
    }
}

/// Returns the ids of a message that is not a valid request. Ids that are too long are omitted.
fn ids_of_malformed(headers: &Headers) -> LogContext {
    let text = |name| headers.get(name).filter(|value| value.len() <= TEXT_BYTES_MAX);
    let [request_id, traceparent] = [headers::REQUEST_ID, headers::TRACEPARENT]
        .map(|name| text(name).unwrap_or_default().into());
    LogContext { request_id, traceparent }
}
