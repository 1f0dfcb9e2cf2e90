//! The `Backend` trait and its types. The trait is implemented for each supported database system.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::catalogue::{
    Endpoint, EndpointQueue, ParameterType, ParameterValue, ProcedureName, QueueName,
};
use crate::config::procedures::DatabaseConfig;
use crate::future::BoxFuture;
use crate::lifecycle::Cancel;

pub mod arguments;
pub mod databases;
pub mod description;
mod error;
mod member_names;
pub mod mssql;
pub mod pool_sizes;
pub mod result_description;
pub mod session_context;
pub mod sqlite;

pub use arguments::RequestArguments;
pub use description::ProcedureDescription;
pub use error::{
    BackendError, BackendErrorKind, BadArgument, CallError, DatabaseError, SentError,
    SentErrorKind, ServerErrorClass,
};
pub use member_names::MemberNames;
pub use result_description::{ColumnDescription, ResultDescription};
pub use session_context::SessionContext;

/// A database system that runs procedures.
pub trait Backend: Debug + Send + Sync {
    /// Returns the system's name for `db.system.name` in OpenTelemetry's semantic conventions.
    fn system(&self) -> &'static str;

    /// Calls a procedure and passes its rows to `rows` as they arrive. After an error, the
    /// connection is either clean or closed.
    ///
    /// Returns by `call.deadline` plus the bounded time that a cancellation takes, even if the database hangs. The
    /// future must not be dropped. To end a call early, set `cancel` and await the result.
    fn call<'a>(
        &'a self,
        call: Call<'a>,
        rows: &'a mut dyn RowSink,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Result<ProcedureResult, CallError>>;

    /// Checks that procedures exist and accept these arguments. Calls `report` as soon as each
    /// result is known. Connections and time are bounded, regardless of the number of procedures.
    ///
    /// This method is cancel safe.
    fn verify<'a>(
        &'a self,
        expected: &'a [ExpectedProcedure],
        report: &'a mut VerifyCallback<'_>,
    ) -> BoxFuture<'a, ()>;

    /// Describes the procedures whose `schema.name` matches `pattern`, for `fjord import`. Patterns
    /// have the syntax of `worker.queues`.
    fn describe<'a>(
        &'a self,
        pattern: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ProcedureDescription>, BackendError>>;

    /// Describes the answer of a procedure without executing it.
    ///
    /// This method is cancel safe.
    fn describe_result<'a>(
        &'a self,
        procedure: &'a ProcedureName,
    ) -> BoxFuture<'a, Result<ResultDescription, BackendError>>;

    /// Checks that the database can be reached within the backend's own connect timeout. Succeeds
    /// if calls are using every connection, so that load is not mistaken for an outage.
    fn ping(&self) -> BoxFuture<'_, Result<(), BackendError>>;

    /// Applies the connection limits and the password of a reloaded configuration in which nothing else about the
    /// database has changed (`DatabaseConfig::differs`). The next `verify` must notice procedures that have changed.
    fn reconfigure(&self, _config: &DatabaseConfig) {}

    /// Stops recording gauges, because a reload has replaced or removed the database. The series of the gauges belong
    /// to the database's replacement. Calls that have started continue.
    fn retire(&self) {}

    /// Cancels running calls and closes all connections.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Receives the index of an expected procedure and its result: `Mismatch` if the procedure does not
/// match, or another error if it could not be checked.
pub type VerifyCallback<'a> = dyn FnMut(usize, Result<(), BackendError>) + Send + 'a;

/// A procedure and the signature that an endpoint expects it to have.
#[derive(Clone, Debug)]
pub struct ExpectedProcedure {
    /// The queue of the endpoint.
    pub queue: QueueName,
    /// The procedure.
    pub procedure: ProcedureName,
    /// The names and types of the arguments.
    pub arguments: Vec<(Arc<str>, ParameterType)>,
    /// The OUTPUT parameters that the endpoint returns, in the body or as headers.
    pub outputs: Vec<String>,
    /// The keys that the endpoint's parameters set in the session context.
    pub session_keys: Vec<Arc<str>>,
}

impl ExpectedProcedure {
    /// Returns the procedures that an endpoint calls, one for each of its queues.
    pub fn from_endpoint(endpoint: &Endpoint) -> impl Iterator<Item = Self> {
        endpoint.queues.iter().filter_map(|queue| Self::from_queue(endpoint, queue))
    }

    /// Returns the procedure that an endpoint calls in one of its queues, or `None` if it calls none.
    #[must_use]
    pub fn from_queue(endpoint: &Endpoint, queue: &EndpointQueue) -> Option<Self> {
        let headers = endpoint.headers.iter().map(|(_, parameter)| parameter.to_string());
        Some(Self {
            queue: queue.name.clone(),
            procedure: queue.procedure.clone()?,
            arguments: endpoint
                .parameters
                .iter()
                .filter(|parameter| !parameter.session_context)
                .map(|parameter| (Arc::clone(&parameter.argument), parameter.kind))
                .collect(),
            outputs: endpoint.outputs.iter().cloned().chain(headers).collect(),
            session_keys: endpoint
                .parameters
                .iter()
                .filter(|parameter| parameter.session_context)
                .map(|parameter| Arc::clone(&parameter.argument))
                .collect(),
        })
    }
}

/// One call to a procedure.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The queue of the request. It selects the pool, whose application name is visible to the DBA.
    pub queue: &'a QueueName,
    /// The procedure.
    pub procedure: &'a ProcedureName,
    /// The arguments. A missing argument takes the procedure's default.
    pub arguments: &'a [Argument],
    /// The facts about the call for the session context. Databases without a session context ignore
    /// them.
    pub session: SessionContext<'a>,
    /// The time at which the caller stops waiting.
    pub deadline: Instant,
    /// Whether a second execution is harmless. If not, a sent call is retried only if it was rolled
    /// back.
    pub may_repeat: bool,
    /// The transaction in which the backend runs the call.
    pub transaction: Transaction,
}

/// The transaction in which a backend runs a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transaction {
    /// No transaction: the procedure begins and commits its own.
    #[default]
    None,
    /// A transaction that is committed if the call succeeds, and rolled back otherwise.
    Committed,
    /// A transaction that is always rolled back, for a dry run.
    RolledBack,
}

/// One argument of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Argument {
    /// The procedure's parameter, without `@`.
    pub name: Arc<str>,
    /// The type in the catalogue.
    pub kind: ParameterType,
    /// The value.
    pub value: ParameterValue<'static>,
    /// The column names and types of a `table` argument, in the order of the values.
    pub columns: Arc<[(Arc<str>, ParameterType)]>,
    /// The database's table type for a `table` argument, if the catalogue names one.
    pub table_type: Option<Arc<str>>,
}

/// Receives result sets as they arrive from the database, so that the backend need not buffer them.
pub trait RowSink: Send {
    /// Starts a result set. Column names may be empty or repeated.
    ///
    /// # Errors
    /// Returns `SinkError` if the answer cannot contain the result set.
    fn begin_set(&mut self, columns: &[String]) -> Result<(), SinkError>;

    /// Adds a row with one cell per column.
    ///
    /// # Errors
    /// Returns `SinkError` if the answer exceeds its limit.
    fn row(&mut self, cells: &[Cell<'_>]) -> Result<(), SinkError>;

    /// Discards everything that was received, for a retry. Returns `false` if this is no longer possible.
    fn restart(&mut self) -> bool;

    /// Records the time for which the call waited for a connection. Called at most once for each attempt.
    fn add_connection_wait(&mut self, _wait: Duration) {}

    /// Records a message that the procedure sent, such as the text of PRINT, for the log. The number and size of the
    /// messages are bounded for each attempt.
    fn add_message(&mut self, _message: &DatabaseError) {}

    /// Returns whether `drain` must be awaited before the next row.
    fn is_full(&self) -> bool {
        false
    }

    /// Sends the buffered rows, so that a large answer is never held in memory as a whole. If the
    /// future is dropped, `drain` can be called again.
    ///
    /// # Errors
    /// Returns `SinkError` if the receiver is gone.
    fn drain(&mut self) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The reason why a `RowSink` refused a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The answer would exceed its limit.
    #[error("the answer is larger than the limit")]
    TooLarge,
    /// The receiver of the answer is gone.
    #[error("the receiver of the answer is gone")]
    Closed,
    /// The result does not have the declared shape.
    #[error("the result does not have the shape that the endpoint declares")]
    Shape,
}

/// A value in a row, borrowed from the driver.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// SQL NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A finite double.
    Float(f64),
    /// An exact number (decimal, money) as the text of a JSON number.
    Number(&'a str),
    /// Text, including dates (RFC 3339) and UUIDs (lower case).
    Text(&'a str),
    /// The text of a JSON value, which becomes part of the answer unchanged.
    Json(&'a str),
    /// Bytes, encoded as base64 in JSON.
    Binary(&'a [u8]),
}

/// An owned value, used for OUTPUT parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum OwnedCell {
    /// SQL NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A finite double.
    Float(f64),
    /// An exact number as the text of a JSON number.
    Number(String),
    /// The text of a JSON value.
    Json(String),
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
}

impl OwnedCell {
    /// Borrows the value.
    #[must_use]
    pub fn as_cell(&self) -> Cell<'_> {
        match self {
            Self::Null => Cell::Null,
            Self::Bool(value) => Cell::Bool(*value),
            Self::Int(value) => Cell::Int(*value),
            Self::Float(value) => Cell::Float(*value),
            Self::Number(text) => Cell::Number(text),
            Self::Json(text) => Cell::Json(text),
            Self::Text(text) => Cell::Text(text),
            Self::Binary(bytes) => Cell::Binary(bytes),
        }
    }
}

/// The result of a call, except for its rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcedureResult {
    /// The OUTPUT parameters by name, without `@`.
    pub outputs: Vec<(String, OwnedCell)>,
    /// The RETURN status.
    pub return_status: i32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::load::fixture::catalogue;

    #[test]
    fn a_procedure_must_have_the_output_parameters_of_the_body_and_of_the_headers() {
        let catalogue = catalogue(
            r#""e": {"route":"GET /e", KEYS, "result":"row", "outputs":["id"],
                     "headers":{"ETag":"@version","X-Total-Count":"total"}}"#,
        );
        let expected = ExpectedProcedure::from_endpoint(&catalogue.endpoints()[0]).next().unwrap();
        assert_eq!(expected.outputs, ["id", "version", "total"]);
    }
}
