//! The spans of a job: one for processing its message, and one for calling its procedure.

use crate::catalogue::{EndpointId, ProcedureName};
use crate::envelope::Request;
use crate::outcome::Outcome;
use crate::roles::worker::subjects::QueueSubjects;
use crate::telemetry::traces::{self, AttributeValue, SpanData, SpanHandle, SpanKind};

/// The span for processing a message. It exists only if the sender's span is recorded.
#[derive(Debug)]
pub struct JobSpan {
    open: SpanHandle,
    queue: String,
    subject: String,
    endpoint: EndpointId,
}

impl JobSpan {
    /// Begins the span, which becomes the parent of all later spans of the request.
    pub fn begin(request: &mut Request, queue: &QueueSubjects) -> Option<Self> {
        let open = traces::begin_child(request.traceparent.as_deref())?;
        request.traceparent = Some(open.traceparent());
        let (queue, subject) = (queue.name.to_string(), queue.requests.to_string());
        Some(Self { open, queue, subject, endpoint: request.endpoint.clone() })
    }

    /// Ends the span after the reply has been sent.
    pub fn end(self, outcome: Outcome) {
        let attributes = vec![
            ("messaging.system", AttributeValue::Constant("nats")),
            ("messaging.operation.type", AttributeValue::Constant("process")),
            ("messaging.operation.name", AttributeValue::Constant("process")),
            ("messaging.destination.name", AttributeValue::Name(self.subject)),
            ("messaging.consumer.group.name", AttributeValue::Name(self.queue.clone())),
            ("fjord.endpoint", AttributeValue::Name(self.endpoint.to_string())),
            ("fjord.outcome", AttributeValue::Constant(outcome.as_str())),
        ];
        let name = format!("process {}", self.queue);
        let error = outcome.is_failure().then(|| outcome.as_str());
        self.open.end(SpanData { kind: SpanKind::Consumer, name, attributes, error });
    }
}

/// Returns the span data of a procedure call.
#[must_use]
pub fn procedure_call(
    system: &'static str,
    procedure: &ProcedureName,
    outcome: Outcome,
) -> SpanData {
    let attributes = vec![
        ("db.system.name", AttributeValue::Constant(system)),
        ("db.operation.name", AttributeValue::Constant("EXECUTE")),
        ("db.stored_procedure.name", AttributeValue::Name(procedure.to_string())),
        ("fjord.outcome", AttributeValue::Constant(outcome.as_str())),
    ];
    // An error that the procedure raises counts as a failure of the database call, even if the
    // client caused it.
    let is_success = matches!(outcome, Outcome::Ok | Outcome::NoRow | Outcome::SqlReturn);
    let error = (!is_success).then(|| outcome.as_str());
    SpanData { kind: SpanKind::Client, name: format!("EXECUTE {procedure}"), attributes, error }
}
