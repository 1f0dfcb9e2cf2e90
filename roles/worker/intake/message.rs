//! A message as it arrived at a queue. It may come from anybody.

use std::sync::Arc;

use crate::envelope::request::TEXT_BYTES_MAX;
use crate::envelope::{EnvelopeError, Request, headers};
use crate::message::{Headers, Message, Subject};
use crate::telemetry::context::Served;

/// A message as it was read, before it is known whether it can be worked on.
pub(super) struct Read {
    pub(super) request: Result<Request, EnvelopeError>,
    pub(super) reply: Option<Subject>,
    pub(super) served: Arc<Served>,
}

impl Read {
    pub(super) fn of(message: Message) -> Self {
        let request = Request::parse(&message.headers, message.payload);
        let served = match &request {
            Ok(request) => Served {
                request_id: Arc::clone(&request.request_id),
                traceparent: request.traceparent.clone().unwrap_or_default(),
            },
            Err(_) => served(&message.headers),
        };
        Self { request, reply: message.reply, served: Arc::new(served) }
    }
}

/// What every line that is logged for a message says that cannot be read. It may come from anybody: what is too long is
/// left out.
fn served(from: &Headers) -> Served {
    let text = |name| from.get(name).filter(|value| value.len() <= TEXT_BYTES_MAX);
    let [request_id, traceparent] = [headers::REQUEST_ID, headers::TRACEPARENT]
        .map(|name| text(name).unwrap_or_default().into());
    Served { request_id, traceparent }
}
