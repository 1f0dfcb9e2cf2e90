//! Where procedures run: the `Backend` seam and what goes through it.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::catalogue::{Endpoint, ParameterType, ParameterValue, ProcedureName, QueueName};
use crate::config::procedures::DatabaseConfig;
use crate::future::BoxFuture;
use crate::lifecycle::Cancel;

pub mod arguments;
pub mod connections;
pub mod databases;
pub mod described;
mod error;
pub mod mssql;
pub mod sqlite;

pub use described::Described;
pub use error::{
    BackendError, BackendErrorKind, BadArgument, CallError, DatabaseError, SentError,
    SentErrorKind, ServerErrorClass,
};

/// Where procedures run. After an error the connection is clean or gone.
pub trait Backend: Debug + Send + Sync {
    /// Which database system it is: `db.system.name` of OpenTelemetry's semantic conventions.
    fn system(&self) -> &'static str;

    /// Calls one procedure. Its rows go into `rows` as they come; what ends the call is returned.
    ///
    /// Returns by `call.deadline` plus the bounded time that a cancel takes, whatever the database does.
    /// Not safe to drop: give the `cancel` sign instead and wait for the return.
    fn call<'a>(
        &'a self,
        call: Call<'a>,
        rows: &'a mut dyn RowSink,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Result<Outcome, CallError>>;

    /// Checks that procedures exist and take these arguments, and says what was found of each need as soon as it is.
    /// Costs the database little, however many there are: few connections, few questions, bounded in time.
    ///
    /// Safe to drop.
    fn verify<'a>(&'a self, needs: &'a [Need], found: &'a mut Found<'_>) -> BoxFuture<'a, ()>;

    /// The procedures whose `schema.name` fits a pattern, as in `worker.queues`: for `fjord import`.
    fn describe<'a>(
        &'a self,
        pattern: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Described>, BackendError>>;

    /// Whether the backend can be reached now; bounded by its own connect deadline. Does not wait for a connection
    /// that calls hold: load does not make a database look as if it were away.
    fn ping(&self) -> BoxFuture<'_, Result<(), BackendError>>;

    /// Takes the bounds of a reload: how many connections there may be.
    fn resize(&self, _config: &DatabaseConfig) {}

    /// Closes what is open. Calls still running are cancelled.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Is told the place of a need, and whether it is met: `Mismatch` when it is not, another error when that is not known.
pub type Found<'a> = dyn FnMut(usize, Result<(), BackendError>) + Send + 'a;

/// What an endpoint needs of its procedure.
#[derive(Clone, Debug)]
pub struct Need {
    /// The queue that will call it.
    pub queue: QueueName,
    /// The procedure.
    pub procedure: ProcedureName,
    /// Names of arguments with their types; both sides are named when they do not fit.
    pub arguments: Vec<(Arc<str>, ParameterType)>,
    /// OUTPUT parameters that the answer needs.
    pub outputs: Vec<String>,
}

impl Need {
    /// What an endpoint needs; `None` when it runs no procedure.
    #[must_use]
    pub fn of(endpoint: &Endpoint) -> Option<Self> {
        Some(Self {
            queue: endpoint.queue.clone(),
            procedure: endpoint.procedure.clone()?,
            arguments: endpoint
                .parameters
                .iter()
                .map(|parameter| (Arc::clone(&parameter.argument), parameter.kind))
                .collect(),
            outputs: endpoint.outputs.clone(),
        })
    }
}

/// One call of a procedure.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The queue it came from: the DBA sees it as part of the application name.
    pub queue: &'a QueueName,
    /// The procedure.
    pub procedure: &'a ProcedureName,
    /// The arguments. One that is not there takes the procedure's own default.
    pub arguments: &'a [Argument],
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// Whether a second execution does no harm. Without it a call of which a byte has left is sent again only when all
    /// of it was rolled back.
    pub may_repeat: bool,
    /// Whether the backend puts a transaction around it.
    pub transaction: Transaction,
}

/// The transaction that a backend puts around a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transaction {
    /// None: the procedure's own statements begin and commit what they like.
    #[default]
    None,
    /// One that is committed when the call succeeds, and rolled back when it does not.
    Committed,
    /// One that is always rolled back: a dry run.
    RolledBack,
}

/// One argument of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Argument {
    /// The procedure's parameter, without `@`.
    pub name: Arc<str>,
    /// The type that the catalogue declares.
    pub kind: ParameterType,
    /// The value.
    pub value: ParameterValue<'static>,
    /// For a `table`: its column names and types, in the order of the values.
    pub columns: Arc<[(Arc<str>, ParameterType)]>,
    /// For a `table`: the database's table type, when the catalogue names one.
    pub table_type: Option<Arc<str>>,
}

/// Takes result sets as they come from the database, so that no answer is held twice.
pub trait RowSink: Send {
    /// A result set starts. Column names may be empty or the same.
    ///
    /// # Errors
    /// `SinkError` when the answer cannot take it.
    fn begin_set(&mut self, columns: &[String]) -> Result<(), SinkError>;
    /// The next row of the set: a cell for each column.
    ///
    /// # Errors
    /// `SinkError` when the answer grows past its limit.
    fn row(&mut self, cells: &[Cell<'_>]) -> Result<(), SinkError>;
    /// Forgets everything: the call is tried again. `false` when that is too late.
    fn restart(&mut self) -> bool;
    /// Part of the call's time was waiting for a connection, so long; said once for each wait.
    fn waited(&mut self, _for_a_connection: Duration) {}
    /// Whether enough has gathered that `drain` should be awaited before the next row.
    fn is_full(&self) -> bool {
        false
    }
    /// Passes on what has gathered, so that a large answer is never held whole.
    ///
    /// # Errors
    /// `SinkError` when nobody takes it any more.
    fn drain(&mut self) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The answer cannot take more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// It would be larger than the limit.
    #[error("the answer is larger than the limit")]
    TooLarge,
    /// Nobody takes the rest of it.
    #[error("nobody takes the rest of the answer")]
    Gone,
    /// A result of this shape cannot be expressed.
    #[error("the result does not have the shape that the endpoint declares")]
    Shape,
}

/// One value of a row, borrowed from the driver.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// SQL NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer, every digit.
    Int(i64),
    /// A finite double.
    Float(f64),
    /// An exact number as JSON number text: decimals, money.
    Number(&'a str),
    /// Text: also dates (RFC 3339) and uuids (lower case).
    Text(&'a str),
    /// Bytes: base64 in JSON.
    Binary(&'a [u8]),
}

/// A value that outlives its row: OUTPUT parameters.
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
    /// An exact number as JSON number text.
    Number(String),
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
}

impl OwnedCell {
    /// The same value, borrowed.
    #[must_use]
    pub fn as_cell(&self) -> Cell<'_> {
        match self {
            Self::Null => Cell::Null,
            Self::Bool(value) => Cell::Bool(*value),
            Self::Int(value) => Cell::Int(*value),
            Self::Float(value) => Cell::Float(*value),
            Self::Number(text) => Cell::Number(text),
            Self::Text(text) => Cell::Text(text),
            Self::Binary(bytes) => Cell::Binary(bytes),
        }
    }
}

/// How a call ended, beside its rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// OUTPUT parameters by name, without `@`.
    pub outputs: Vec<(String, OwnedCell)>,
    /// The RETURN status.
    pub return_status: i32,
}
