//! The spans of a request's attempts: each message to a worker, until it is answered.

use std::sync::Arc;

use crate::catalogue::QueueName;
use crate::envelope::{EnvelopeError, Reply, Request};
use crate::message::Subject;
use crate::telemetry::traces::{self, AttributeValue, SpanData, SpanHandle, SpanKind};

/// Attempts that are recorded of one request. A queue that is full may take many, which all say the same.
const SPANS_MAX: usize = 16;
/// What is told of an attempt that nobody answered.
const UNANSWERED: &str = "unanswered";

/// The attempts of a request whose trace is recorded.
#[derive(Debug)]
pub(in crate::roles::gateway) struct Traced {
    /// The request's own span: every attempt is below it.
    parent: Arc<str>,
    queue: QueueName,
    subject: Subject,
    recorded: usize,
    open: Vec<(u32, SpanHandle)>,
}

impl Traced {
    /// Nothing unless the request is recorded.
    pub(in crate::roles::gateway) fn of(
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

    /// An attempt is about to be sent: what its worker does is below its span.
    pub(in crate::roles::gateway) fn sent(&mut self, attempt: u32, request: &mut Request) {
        let span = traces::begin_child(Some(&self.parent)).filter(|_| self.recorded < SPANS_MAX);
        request.traceparent =
            Some(span.map_or_else(|| Arc::clone(&self.parent), |span| span.traceparent()));
        if let Some(span) = span {
            self.recorded += 1;
            self.open.push((attempt, span));
        }
    }

    /// A reply came. The last one of an attempt ends its span.
    pub(in crate::roles::gateway) fn heard(
        &mut self,
        attempt: u32,
        reply: &Result<Reply, EnvelopeError>,
    ) {
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
            self.end(attempt, span, Answered { word, reason, error });
        }
    }

    fn end(&self, attempt: u32, span: SpanHandle, answered: Answered) {
        let mut attributes = vec![
            ("messaging.system", AttributeValue::Constant("nats")),
            ("messaging.operation.type", AttributeValue::Constant("send")),
            ("messaging.operation.name", AttributeValue::Constant("publish")),
            ("messaging.destination.name", AttributeValue::Name(self.subject.to_string())),
            ("fjord.attempt", AttributeValue::Number(attempt.into())),
            ("fjord.reply", AttributeValue::Constant(answered.word)),
        ];
        if let Some(reason) = answered.reason {
            attributes.push(("fjord.outcome", AttributeValue::Constant(reason)));
        }
        let name = format!("publish {}", self.queue);
        span.end(SpanData { kind: SpanKind::Producer, name, attributes, error: answered.error });
    }
}

/// What came of an attempt.
#[derive(Clone, Copy)]
struct Answered {
    word: &'static str,
    reason: Option<&'static str>,
    error: Option<&'static str>,
}

/// The session is over: what was not answered will not be.
impl Drop for Traced {
    fn drop(&mut self) {
        for (attempt, span) in std::mem::take(&mut self.open) {
            let error = Some(UNANSWERED);
            self.end(attempt, span, Answered { word: UNANSWERED, reason: None, error });
        }
    }
}
