//! Errors of calls: one type for a call that was not sent, and another for a call that was sent at
//! least in part.

use std::error::Error;
use std::fmt;

use super::SinkError;

type ErrorSource = Box<dyn Error + Send + Sync>;

/// The error of a call. Only `NotSent` can be reported as *not executed*. Once any part of a call
/// has been sent, its error is `Sent`.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No part of the call was sent to the database, so it had no effect.
    #[error(transparent)]
    NotSent(#[from] BackendError),
    /// The call was sent, so it may have had an effect.
    #[error(transparent)]
    Sent(#[from] SentError),
}

/// An error that occurred before a call was sent, or in one of fjord's own queries.
#[derive(Debug, thiserror::Error)]
#[error("{kind}")]
pub struct BackendError {
    /// The kind of error.
    pub kind: BackendErrorKind,
    /// The cause, usually the driver's error, for the log.
    #[source]
    pub source: Option<ErrorSource>,
}

/// A kind of error that occurs before a call is sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendErrorKind {
    /// The database answered one of fjord's own queries with an error.
    #[error("the database returned error {number}")]
    Server {
        /// The error number.
        number: u32,
        /// The class of the number.
        class: ServerErrorClass,
    },
    /// Arguments cannot be converted to the declared SQL types.
    #[error("arguments cannot be converted to their SQL types: {}", names(.0))]
    Arguments(Vec<BadArgument>),
    /// The catalogue does not match the procedure.
    #[error("the catalogue does not match the procedure {procedure}: {difference}")]
    Mismatch {
        /// The procedure.
        procedure: String,
        /// The difference between the declarations in the catalogue and in the database.
        difference: String,
    },
    /// The deadline passed before the call could be sent.
    #[error("the deadline passed before the call could be sent")]
    TimedOut,
    /// The call was cancelled before it was sent.
    #[error("the call was cancelled before it was sent")]
    Cancelled,
    /// No connection was free in time.
    #[error("no connection was free in time")]
    PoolTimedOut,
    /// The database cannot be reached.
    #[error("the database is not available")]
    Unavailable,
}

/// An argument, or a cell of a table argument, that cannot be converted to its declared SQL type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadArgument {
    /// The name of the procedure's parameter.
    pub argument: String,
    /// The row index and column name of the cell, for a cell of a table argument.
    pub cell: Option<(usize, String)>,
    /// The reason. Only the caller may see it, because it can reveal part of the value.
    pub reason: String,
}

/// Lists the arguments without the reasons, which must not be logged.
fn names(bad: &[BadArgument]) -> String {
    let one = |BadArgument { argument, cell, .. }: &BadArgument| match cell {
        Some((row, column)) => format!("{argument}[{row}].{column}"),
        None => argument.clone(),
    };
    bad.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The error of a call that was sent.
#[derive(Debug)]
pub struct SentError {
    /// The kind of error.
    pub kind: SentErrorKind,
    /// Whether the call had no effect, because it ran entirely in a worker's transaction that was
    /// rolled back.
    pub is_rolled_back: bool,
    /// The error that the database or the driver reported, for the log.
    pub source: Option<ErrorSource>,
}

/// The kind of error of a call that was sent. No kind implies that the call was not executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SentErrorKind {
    /// The procedure itself raised an error (THROW, RAISERROR).
    #[error("the procedure raised error {number}")]
    User {
        /// The error number.
        number: u32,
        /// The message, which is meant for the caller.
        message: String,
    },
    /// A database error. The catalogue can map its number to a status. Its message is meant for the
    /// log.
    #[error("the database returned error {number}")]
    Server {
        /// The error number.
        number: u32,
        /// The class, which determines the status if the catalogue does not map the number.
        class: ServerErrorClass,
    },
    /// The database refused the call because the procedure changed after its signature was read.
    #[error("the catalogue does not match the procedure {procedure}: {difference}")]
    Mismatch {
        /// The procedure.
        procedure: String,
        /// The difference between the declarations in the catalogue and in the database.
        difference: String,
    },
    /// A value in the result cannot be decoded, or has no exact JSON representation.
    #[error("the result cannot be read: {0}")]
    Undecodable(String),
    /// The row sink refused the result.
    #[error(transparent)]
    Sink(SinkError),
    /// The deadline passed while the call ran.
    #[error("the call ran past its deadline")]
    TimedOut,
    /// The call was cancelled.
    #[error("the call was cancelled")]
    Cancelled,
    /// The connection broke during the call. The call may have been executed.
    #[error("the connection was lost during the call")]
    Lost,
}

/// The class of a database's error number. It determines the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerErrorClass {
    /// A violated unique, foreign key or check constraint: 409.
    Conflict,
    /// A conflict under snapshot isolation, or on a memory-optimized table, that outlasted all
    /// retries and was rolled back: 409.
    SnapshotConflict,
    /// A value that cannot be converted or is out of range: 400.
    BadValue,
    /// The catalogue does not match the procedure: 500.
    Mismatch,
    /// A missing permission, which is a configuration error: 500.
    Permission,
    /// A deadlock that outlasted all retries and was rolled back: 500.
    Deadlock,
    /// A temporary lack of memory, locks or capacity that outlasted all retries: 504 if the call
    /// was sent.
    Transient,
    /// All other errors: 500.
    Other,
}

/// An error or a message that the database reported. An error is the source of a `SentError`.
/// `Display` and `Debug` omit the message, which can contain values from the request.
pub struct DatabaseError {
    origin: String,
    message: String,
}

impl DatabaseError {
    /// Creates an error. `origin` (number, severity, procedure, line) must be safe to log.
    #[must_use]
    pub fn new(origin: impl Into<String>, message: impl Into<String>) -> Self {
        Self { origin: origin.into(), message: message.into() }
    }

    /// Returns the database's message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)
    }
}

impl fmt::Debug for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseError").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Error for DatabaseError {}

impl BackendError {
    /// Creates an error without a cause.
    #[must_use]
    pub fn new(kind: BackendErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// Creates a `Mismatch` error.
    #[must_use]
    pub fn mismatch(procedure: &str, difference: impl Into<String>) -> Self {
        let (procedure, difference) = (procedure.to_owned(), difference.into());
        Self::new(BackendErrorKind::Mismatch { procedure, difference })
    }

    /// Creates an error with a cause, usually the driver's error.
    #[must_use]
    pub fn caused_by(kind: BackendErrorKind, source: impl Into<ErrorSource>) -> Self {
        Self { kind, source: Some(source.into()) }
    }
}

impl SentError {
    /// Creates an error without a cause.
    #[must_use]
    pub fn new(kind: SentErrorKind) -> Self {
        Self { kind, is_rolled_back: false, source: None }
    }

    /// Creates an error with a cause, usually the driver's error.
    #[must_use]
    pub fn caused_by(kind: SentErrorKind, source: impl Into<ErrorSource>) -> Self {
        Self { source: Some(source.into()), ..Self::new(kind) }
    }
}

impl fmt::Display for SentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl Error for SentError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl From<BackendErrorKind> for BackendError {
    fn from(kind: BackendErrorKind) -> Self {
        Self::new(kind)
    }
}

impl From<BackendErrorKind> for CallError {
    fn from(kind: BackendErrorKind) -> Self {
        Self::NotSent(kind.into())
    }
}

impl From<SentErrorKind> for SentError {
    fn from(kind: SentErrorKind) -> Self {
        Self::new(kind)
    }
}

impl From<SentErrorKind> for CallError {
    fn from(kind: SentErrorKind) -> Self {
        Self::Sent(kind.into())
    }
}

impl From<SinkError> for SentErrorKind {
    fn from(error: SinkError) -> Self {
        Self::Sink(error)
    }
}
