//! The header names of the protocol. NATS compares them literally (ADR-4).

/// The endpoint's id in the catalogue.
pub const ENDPOINT: &str = "Fjord-Endpoint";
/// The request's id, the same over all attempts.
pub const REQUEST_ID: &str = "Fjord-Request-Id";
/// Which attempt this is, from 1.
pub const ATTEMPT: &str = "Fjord-Attempt";
/// The budget left in milliseconds: relative, so that clocks need not agree.
pub const TIMEOUT_MS: &str = "Fjord-Timeout-Ms";
/// `at-least-once`, `at-most-once` or `dry-run`.
pub const EXECUTION: &str = "Fjord-Execution";
/// How many more requests for the queue wait at the sender; left out when there are none.
pub const WAITING: &str = "Fjord-Waiting";
/// How many parts of an answer the sender takes ahead of what it has acknowledged; left out when it takes none.
pub const WINDOW: &str = "Fjord-Window";
/// Who calls.
pub const PRINCIPAL: &str = "Fjord-Principal";
/// The client's key for one effect.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// W3C Trace Context: always lower case.
pub const TRACEPARENT: &str = "traceparent";
/// W3C Trace Context.
pub const TRACESTATE: &str = "tracestate";

/// What a worker's reply is.
pub const REPLY: &str = "Fjord-Reply";
/// Why a worker refused.
pub const REASON: &str = "Fjord-Reason";
/// The number of a part, from 1; in the final, how many parts there were; in `taken`, the last one that was taken.
pub const PART: &str = "Fjord-Part";
/// The HTTP status of a final, or of an answer that begins with its first part.
pub const STATUS: &str = "Fjord-Status";
/// How the call ended, as one word for metrics and logs.
pub const OUTCOME: &str = "Fjord-Outcome";
/// Where the worker's time went, for metrics and logs.
pub const PHASES: &str = "Fjord-Phases";
/// In the final of a dry run: `rolled-back`.
pub const TRANSACTION: &str = "Fjord-Transaction";
/// The media type of a final.
pub const CONTENT_TYPE: &str = "Content-Type";

/// What a gateway tells a worker: a word of `Control`.
pub const CONTROL: &str = "Fjord-Control";

/// An error of the NATS service API (ADR-32).
pub const SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";
/// Its text.
pub const SERVICE_ERROR: &str = "Nats-Service-Error";
/// Every header of ours starts with this.
pub const PREFIX: &str = "Fjord-";
