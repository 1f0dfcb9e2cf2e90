//! Why a call has no outcome: in one type where nothing of it was sent, in another once something was.

use std::error::Error;
use std::fmt;

use super::SinkError;

type Source = Box<dyn Error + Send + Sync>;

/// Why a call has no outcome. Only `NotSent` may become *not executed*, and a call that was sent once never gets back to it.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nothing of it was sent to the database: it certainly had no effect.
    #[error(transparent)]
    NotSent(#[from] BackendError),
    /// It was sent: it may have had an effect.
    #[error(transparent)]
    Sent(#[from] SentError),
}

/// An error before a call was sent, or of a question of our own.
#[derive(Debug, thiserror::Error)]
#[error("{kind}")]
pub struct BackendError {
    /// Which failure it is.
    pub kind: BackendErrorKind,
    /// The database's own number and message, for the log.
    #[source]
    pub source: Option<Source>,
}

/// The failures before a call is sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendErrorKind {
    /// The database answered a question of our own with an error.
    #[error("the database answered error {number}")]
    Server {
        /// The error number.
        number: u32,
        /// What it means.
        class: ServerErrorClass,
    },
    /// Arguments cannot become the declared SQL types.
    #[error("these do not fit their SQL types: {}", names(.0))]
    Arguments(Vec<BadArgument>),
    /// The catalogue and the database disagree about the procedure.
    #[error("catalogue and database disagree about {procedure}: {difference}")]
    Mismatch {
        /// The procedure.
        procedure: String,
        /// Both sides, named.
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

/// An argument, or a cell of one, that cannot become its declared SQL type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadArgument {
    /// The procedure's parameter.
    pub argument: String,
    /// The row and the column of a table.
    pub cell: Option<(usize, String)>,
    /// Why, for the caller alone: it may tell of the value.
    pub reason: String,
}

/// Their names, for the log.
fn names(bad: &[BadArgument]) -> String {
    let one = |BadArgument { argument, cell, .. }: &BadArgument| match cell {
        Some((row, column)) => format!("{argument}[{row}].{column}"),
        None => argument.clone(),
    };
    bad.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// An error of a call that was sent.
#[derive(Debug)]
pub struct SentError {
    /// Which failure it is.
    pub kind: SentErrorKind,
    /// Whether the whole call ran in a transaction of ours that the database rolled back: then nothing of it stays.
    pub is_rolled_back: bool,
    /// What the database or the driver reported, for the log.
    pub source: Option<Source>,
}

/// The failures of a call that was sent. None of them says that it did not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SentErrorKind {
    /// The procedure raised an error of its own (THROW, RAISERROR): its number, and its message for the caller.
    #[error("the procedure raised error {number}")]
    User {
        /// The error number.
        number: u32,
        /// The message, meant for the caller.
        message: String,
    },
    /// An error of the database with a number that the catalogue may map; its message is for the log only.
    #[error("the database answered error {number}")]
    Server {
        /// The error number.
        number: u32,
        /// The status that it means when the catalogue does not say.
        class: ServerErrorClass,
    },
    /// The database refused it, and declares the procedure otherwise now than when the call was made.
    #[error("catalogue and database disagree about {procedure}: {difference}")]
    Mismatch {
        /// The procedure.
        procedure: String,
        /// Both sides, named.
        difference: String,
    },
    /// A value of the result cannot be decoded or expressed.
    #[error("the result cannot be read: {0}")]
    Undecodable(String),
    /// The answer's limit was reached.
    #[error(transparent)]
    Sink(SinkError),
    /// The deadline passed while the call ran.
    #[error("the call ran past its deadline")]
    TimedOut,
    /// The call was cancelled.
    #[error("the call was cancelled")]
    Cancelled,
    /// The connection broke while the call ran: it may have been executed.
    #[error("the connection was lost during the call")]
    Lost,
}

/// What a numbered database error means by itself (DESIGN §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerErrorClass {
    /// A unique or foreign key: 409.
    Conflict,
    /// A change under snapshot isolation that came second, also after the retries: its transaction was rolled back. 409.
    SnapshotConflict,
    /// A value that does not convert or fit: 400.
    BadValue,
    /// Catalogue and database disagree: 500.
    Mismatch,
    /// A permission is missing: 500, a misconfiguration.
    Permission,
    /// Chosen as deadlock victim, also after the retries: its transaction was rolled back.
    Deadlock,
    /// A temporary lack of memory, a lock or capacity: another attempt may succeed. 500 once the call was sent.
    Transient,
    /// Everything else: 500.
    Other,
}

/// An error as the database reported it, as the source of a `SentError`. `Display` and `Debug` omit the message, which can
/// contain values from the request.
pub struct DatabaseError {
    origin: String,
    message: String,
}

impl DatabaseError {
    /// Creates an error. `origin` is safe to log: number, severity, procedure, line.
    #[must_use]
    pub fn new(origin: impl Into<String>, message: impl Into<String>) -> Self {
        Self { origin: origin.into(), message: message.into() }
    }

    /// The message of the database.
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
    /// An error without a cause of its own.
    #[must_use]
    pub fn new(kind: BackendErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// An error with the driver's error as its cause.
    #[must_use]
    pub fn caused_by(kind: BackendErrorKind, source: impl Into<Source>) -> Self {
        Self { kind, source: Some(source.into()) }
    }
}

impl SentError {
    /// An error without a cause of its own.
    #[must_use]
    pub fn new(kind: SentErrorKind) -> Self {
        Self { kind, is_rolled_back: false, source: None }
    }

    /// An error with the driver's error as its cause.
    #[must_use]
    pub fn caused_by(kind: SentErrorKind, source: impl Into<Source>) -> Self {
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
