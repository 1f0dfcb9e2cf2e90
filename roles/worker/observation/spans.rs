//! The spans of a job: the processing of its message, and the call of its procedure.

use crate::catalogue::{EndpointId, ProcedureName};
use crate::envelope::Request;
use crate::outcome::Word;
use crate::roles::worker::subjects::QueueSubjects;
use crate::telemetry::traces::{self, Kind, Open, Told, Value};

/// The span of a message while it is processed. There is none unless the sender's span is recorded.
#[derive(Debug)]
pub struct JobSpan {
    open: Open,
    queue: String,
    subject: String,
    endpoint: EndpointId,
}

impl JobSpan {
    /// Begins the span. All later spans of the request are below it.
    pub fn begin(request: &mut Request, queue: &QueueSubjects) -> Option<Self> {
        let open = traces::open(request.traceparent.as_deref())?;
        request.traceparent = Some(open.traceparent());
        let (queue, subject) = (queue.name.to_string(), queue.requests.to_string());
        Some(Self { open, queue, subject, endpoint: request.endpoint.clone() })
    }

    /// Ends the span after the reply was sent.
    pub fn end(self, outcome: Word) {
        let attributes = vec![
            ("messaging.system", Value::Word("nats")),
            ("messaging.operation.type", Value::Word("process")),
            ("messaging.operation.name", Value::Word("process")),
            ("messaging.destination.name", Value::Name(self.subject)),
            ("messaging.consumer.group.name", Value::Name(self.queue.clone())),
            ("fjord.endpoint", Value::Name(self.endpoint.to_string())),
            ("fjord.outcome", Value::Word(outcome.as_str())),
        ];
        let name = format!("process {}", self.queue);
        let error = outcome.is_failure().then(|| outcome.as_str());
        self.open.end(Told { kind: Kind::Consumer, name, attributes, error });
    }
}

/// The data of a procedure call's span.
#[must_use]
pub fn procedure_call(system: &'static str, procedure: &ProcedureName, outcome: Word) -> Told {
    let attributes = vec![
        ("db.system.name", Value::Word(system)),
        ("db.operation.name", Value::Word("EXECUTE")),
        ("db.stored_procedure.name", Value::Name(procedure.to_string())),
        ("fjord.outcome", Value::Word(outcome.as_str())),
    ];
    // An error that the procedure raises is an error of the database call, even if the client caused it.
    let is_success = matches!(outcome, Word::Ok | Word::NoRow | Word::SqlReturn);
    let error = (!is_success).then(|| outcome.as_str());
    Told { kind: Kind::Client, name: format!("EXECUTE {procedure}"), attributes, error }
}
