//! The names of the protocol's headers. NATS compares them case-sensitively (ADR-4).

/// The endpoint's id in the catalogue.
pub const ENDPOINT: &str = "Fjord-Endpoint";
/// The request's id. It is the same in all attempts.
pub const REQUEST_ID: &str = "Fjord-Request-Id";
/// The number of the attempt, starting at 1.
pub const ATTEMPT: &str = "Fjord-Attempt";
/// The remaining session time in milliseconds. It is a duration, so the clocks of the two sides do
/// not have to agree.
pub const TIMEOUT_MS: &str = "Fjord-Timeout-Ms";
/// `at-least-once`, `at-most-once` or `dry-run`.
pub const EXECUTION: &str = "Fjord-Execution";
/// The media type of the answer, if it is not JSON.
pub const ACCEPT: &str = "Accept";
/// The number of further requests that are waiting at the sender for the same queue. Omitted if 0.
pub const WAITING: &str = "Fjord-Waiting";
/// The maximum number of unacknowledged parts. Omitted if the answer must not be streamed.
pub const WINDOW: &str = "Fjord-Window";
/// The name of the authenticated caller.
pub const PRINCIPAL: &str = "Fjord-Principal";
/// The client's idempotency key.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// W3C Trace Context, always in lower case.
pub const TRACEPARENT: &str = "traceparent";
/// W3C Trace Context.
pub const TRACESTATE: &str = "tracestate";

/// The kind of a worker's reply.
pub const REPLY: &str = "Fjord-Reply";
/// The reason why a worker refused a request.
pub const REASON: &str = "Fjord-Reason";
/// The number of a part, starting at 1. In a final, the number of parts. In an `ack`, the last part
/// that the client has received.
pub const PART: &str = "Fjord-Part";
/// The HTTP status. It is in the final or, if the answer is streamed, in its first part.
pub const STATUS: &str = "Fjord-Status";
/// How the call ended, for metrics and logs: one of the names in `outcome.rs`.
pub const OUTCOME: &str = "Fjord-Outcome";
/// How the worker spent the time, for metrics and logs.
pub const PHASES: &str = "Fjord-Phases";
/// Set to `rolled-back` in the final of a dry run.
pub const TRANSACTION: &str = "Fjord-Transaction";
/// The media type of a final.
pub const CONTENT_TYPE: &str = "Content-Type";

/// The kind of a gateway's control message.
pub const CONTROL: &str = "Fjord-Control";

/// The error code of the NATS service API (ADR-32).
pub const SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";
/// The error text of the NATS service API.
pub const SERVICE_ERROR: &str = "Nats-Service-Error";
/// The prefix of the names of fjord's own headers.
pub const PREFIX: &str = "Fjord-";
