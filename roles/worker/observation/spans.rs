//! The spans of a call: the message that is worked on, and the procedure below it.

use crate::catalogue::{EndpointId, ProcedureName};
use crate::outcome::Word;
use crate::telemetry::traces::{self, Kind, Open, Told, Value};

use crate::roles::worker::Job;
use crate::roles::worker::intake::queue::Queue;

/// The span of a message while it is worked on; there is none unless its sender's is recorded.
#[derive(Debug)]
pub(crate) struct Traced {
    open: Open,
    queue: String,
    subject: String,
    endpoint: EndpointId,
}

impl Traced {
    /// Begins it. What is done for the job from here on is below it.
    pub(crate) fn begin(job: &mut Job, queue: &Queue) -> Option<Self> {
        let open = traces::open(job.request.traceparent.as_deref())?;
        job.request.traceparent = Some(open.traceparent());
        let (queue, subject) = (queue.name.to_string(), queue.subject.to_string());
        Some(Self { open, queue, subject, endpoint: job.endpoint.id.clone() })
    }

    /// The job has ended, its answer is sent.
    pub(crate) fn end(self, outcome: Word) {
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

/// What is told of a procedure's call.
pub(crate) fn call(system: &'static str, procedure: &ProcedureName, outcome: Word) -> Told {
    let attributes = vec![
        ("db.system.name", Value::Word(system)),
        ("db.operation.name", Value::Word("EXECUTE")),
        ("db.stored_procedure.name", Value::Name(procedure.to_string())),
        ("fjord.outcome", Value::Word(outcome.as_str())),
    ];
    // An error that the procedure raises is one of the database's call, whoever is to blame.
    let is_good = matches!(outcome, Word::Ok | Word::NoRow | Word::SqlReturn);
    let error = (!is_good).then(|| outcome.as_str());
    Told { kind: Kind::Client, name: format!("EXECUTE {procedure}"), attributes, error }
}
