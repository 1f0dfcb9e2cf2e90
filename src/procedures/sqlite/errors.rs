//! What `SQLite`'s result codes mean. The only file with their numbers.

use rusqlite::ffi::{self, ErrorCode};

use crate::procedures::{
    BackendError, BackendErrorKind, DatabaseError, SentError, SentErrorKind, ServerErrorClass,
};

/// An error of a statement that ran.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn of_running(error: rusqlite::Error) -> SentError {
    let kind = match error.sqlite_error() {
        Some(code) => match code.code {
            ErrorCode::CannotOpen | ErrorCode::NotADatabase | ErrorCode::SystemIoFailure => {
                SentErrorKind::Lost
            }
            ErrorCode::OperationInterrupted => SentErrorKind::Cancelled,
            _ => SentErrorKind::Server { number: number(*code), class: class_of(*code) },
        },
        None => SentErrorKind::Server { number: 0, class: ServerErrorClass::Other },
    };
    let origin = match error.sqlite_error() {
        Some(code) => format!("extended result code {}", code.extended_code),
        None => "an error of the driver".to_owned(),
    };
    SentError::caused_by(kind, DatabaseError::new(origin, error.to_string()))
}

fn number(error: ffi::Error) -> u32 {
    error.extended_code.unsigned_abs()
}

fn class_of(error: ffi::Error) -> ServerErrorClass {
    match error.code {
        ErrorCode::ConstraintViolation => match error.extended_code {
            // The catalogue's types cannot know these two: the value is wrong, not what is stored.
            ffi::SQLITE_CONSTRAINT_NOTNULL | ffi::SQLITE_CONSTRAINT_DATATYPE => {
                ServerErrorClass::BadValue
            }
            // RAISE(ABORT, …) in a trigger has no number of its own.
            ffi::SQLITE_CONSTRAINT_TRIGGER => ServerErrorClass::Other,
            // Unique, primary key, foreign key; CHECK as in SQL Server's 547.
            _ => ServerErrorClass::Conflict,
        },
        ErrorCode::TypeMismatch | ErrorCode::TooBig => ServerErrorClass::BadValue,
        ErrorCode::ReadOnly
        | ErrorCode::PermissionDenied
        | ErrorCode::AuthorizationForStatementDenied => ServerErrorClass::Permission,
        // Another process wrote in between: our transaction is rolled back, as a deadlock's victim is.
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => ServerErrorClass::Deadlock,
        _ => ServerErrorClass::Other,
    }
}

/// An error before anything ran: opening a connection, waiting for the write lock.
pub(super) fn of_starting(error: rusqlite::Error) -> BackendError {
    BackendError::caused_by(BackendErrorKind::Unavailable, error)
}

/// A statement that `SQLite` does not understand: without its text, which the error would repeat.
pub(super) fn of_preparing(procedure: &str, error: rusqlite::Error) -> BackendError {
    match error {
        rusqlite::Error::SqlInputError { msg, .. } => mismatch(procedure, msg),
        rusqlite::Error::SqliteFailure(code, message) if code.code == ErrorCode::Unknown => {
            mismatch(procedure, message.unwrap_or_default())
        }
        error => {
            let kind = match error.sqlite_error() {
                Some(code) if code.code == ErrorCode::OperationInterrupted => {
                    BackendErrorKind::Cancelled
                }
                Some(code) => {
                    BackendErrorKind::Server { number: number(*code), class: class_of(*code) }
                }
                None => BackendErrorKind::Unavailable,
            };
            BackendError::caused_by(kind, error)
        }
    }
}

/// Both sides do not fit.
pub(super) fn mismatch(procedure: &str, difference: impl Into<String>) -> BackendError {
    BackendError::new(BackendErrorKind::Mismatch {
        procedure: procedure.to_owned(),
        difference: difference.into(),
    })
}
