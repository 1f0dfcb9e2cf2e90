//! The spans of a request's attempts. Each span lasts from the publication of an attempt to the
//! reply that ends it.

use std::sync::Arc;

use crate::catalogue::QueueName;
use crate::envelope::{EnvelopeError, Reply, Request};
use crate::message::Subject;
use crate::telemetry::traces::{self, AttributeValue, SpanData, SpanHandle, SpanKind};

/// The maximum number of attempts that are recorded for one request. While all workers are busy, a
/// request can make many similar attempts.
const SPANS_MAX: usize = 16;
/// The recorded reply and error of an attempt that was not ended by a reply.
const UNANSWERED: &str = "unanswered";

/// The spans of a request whose trace is recorded.
#[derive(Debug)]
pub(in crate::roles::gateway::dispatch) struct AttemptSpans {
    /// The request's own span, the parent of all spans of attempts.
    parent: Arc<str>,
    queue: QueueName,
    subject: Subject,
    recorded: usize,
    open: Vec<(u32, SpanHandle)>,
}

impl AttemptSpans {
    /// Creates the spans of a request, or returns `None` if its trace is not recorded.
    pub(in crate::roles::gateway::dispatch) fn from_request(
        request: &Request,
        queue: &QueueName,
        subject: &Subject,
    ) -> Option<Box<Self>> {
        let parent = request.traceparent.as_ref().filter(|parent| traces::is_recorded(parent))?;
        Some(Box::new(Self {
            parent: Arc::clone(parent),
            queue: queue.clone(),
            subject: subject.clone(),
            recorded: 0,
            open: Vec::with_capacity(1),
        }))
    }

    /// Begins the span of the next attempt and makes it the parent of the worker's spans.
    pub(super) fn begin(&mut self, attempt: u32, request: &mut Request) {
        let span = traces::begin_child(Some(&self.parent)).filter(|_| self.recorded < SPANS_MAX);
        request.traceparent =
            Some(span.map_or_else(|| Arc::clone(&self.parent), |span| span.traceparent()));
        if let Some(span) = span {
            self.recorded += 1;
            self.open.push((attempt, span));
        }
    }

    /// Handles a reply. A final, a refusal, no responders or an unreadable reply ends the span.
    pub(super) fn on_reply(&mut self, attempt: u32, reply: &Result<Reply, EnvelopeError>) {
        let (word, reason, error) = match reply {
            Ok(Reply::Final(answer)) => {
                let error = answer.outcome.is_failure().then(|| answer.outcome.as_str());
                ("final", Some(answer.outcome.as_str()), error)
            }
            Ok(Reply::Refused { reason, .. }) => ("refused", Some(reason.as_str()), None),
            Ok(Reply::NoResponders) => ("no_responders", None, None),
            Ok(_) => return,
            Err(_) => ("unreadable", None, Some("bad_answer")),
        };
        if let Some(at) = self.open.iter().position(|(number, _)| *number == attempt) {
            let (_, span) = self.open.swap_remove(at);
            self.end(attempt, span, SpanEnd { reply: word, outcome: reason, error });
        }
    }

    fn end(&self, attempt: u32, span: SpanHandle, end: SpanEnd) {
        let mut attributes = vec![
            ("messaging.system", AttributeValue::Constant("nats")),
            ("messaging.operation.type", AttributeValue::Constant("send")),
            ("messaging.operation.name", AttributeValue::Constant("publish")),
            ("messaging.destination.name", AttributeValue::Name(self.subject.to_string())),
            ("fjord.attempt", AttributeValue::Number(attempt.into())),
            ("fjord.reply", AttributeValue::Constant(end.reply)),
        ];
        if let Some(reason) = end.outcome {
            attributes.push(("fjord.outcome", AttributeValue::Constant(reason)));
        }
        let name = format!("publish {}", self.queue);
        span.end(SpanData { kind: SpanKind::Producer, name, attributes, error: end.error });
    }
}

/// The result of an attempt.
#[derive(Clone, Copy)]
struct SpanEnd {
    reply: &'static str,
    outcome: Option<&'static str>,
    error: Option<&'static str>,
}

/// Records attempts that were not ended by a reply as unanswered.
impl Drop for AttemptSpans {
    fn drop(&mut self) {
        for (attempt, span) in std::mem::take(&mut self.open) {
            let error = Some(UNANSWERED);
            self.end(attempt, span, SpanEnd { reply: UNANSWERED, outcome: None, error });
        }
    }
}
