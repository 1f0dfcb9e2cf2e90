//! Maps `SQLite`'s result codes to error kinds. No other file contains `SQLite` result codes.

use rusqlite::ffi::{self, ErrorCode};

use crate::procedures::{
    BackendError, BackendErrorKind, DatabaseError, SentError, SentErrorKind, ServerErrorClass,
};

/// Converts an error from an executed statement.
#[expect(clippy::needless_pass_by_value, reason = "map_err passes the error by value")]
pub(super) fn while_running(error: rusqlite::Error) -> SentError {
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
        None => "a driver error".to_owned(),
    };
    SentError::caused_by(kind, DatabaseError::new(origin, error.to_string()))
}

/// Converts an error from beginning a transaction after statements have run. If a lock is not
/// released in time, nothing is rolled back, as with SQL Server's error 1222.
pub(super) fn while_beginning(error: rusqlite::Error) -> SentError {
    let failed = while_running(error);
    match failed.kind {
        SentErrorKind::Server { number, class: ServerErrorClass::Deadlock } => {
            let class = ServerErrorClass::Transient;
            SentError { kind: SentErrorKind::Server { number, class }, ..failed }
        }
        _ => failed,
    }
}

/// Returns the error for a procedure that does not begin and end its transactions in pairs, with
/// SQL Server's error number.
pub(super) fn transaction_count(error: TransactionCountError) -> SentError {
    let (number, text) = match error {
        TransactionCountError::Changed => {
            (266, "the procedure ended with a different number of transactions than it began with")
        }
        TransactionCountError::NothingToCommit => (3902, "COMMIT without BEGIN TRANSACTION"),
        TransactionCountError::NothingToRollBack => (3903, "ROLLBACK without BEGIN TRANSACTION"),
    };
    SentError::caused_by(
        SentErrorKind::Server { number, class: ServerErrorClass::Other },
        DatabaseError::new(text, ""),
    )
}

/// Returns the error for text that is longer than its column, with SQL Server's error number.
pub(super) fn truncated() -> SentErrorKind {
    SentErrorKind::Server { number: 2628, class: ServerErrorClass::BadValue }
}

/// A transaction that was begun or ended without its counterpart.
#[derive(Clone, Copy, Debug)]
pub(super) enum TransactionCountError {
    /// The procedure left a transaction open, possibly because of a RETURN, or it ended the
    /// worker's transaction.
    Changed,
    /// There was no transaction to commit.
    NothingToCommit,
    /// There was no transaction to roll back.
    NothingToRollBack,
}

fn number(error: ffi::Error) -> u32 {
    error.extended_code.unsigned_abs()
}

fn class_of(error: ffi::Error) -> ServerErrorClass {
    match error.code {
        ErrorCode::ConstraintViolation => match error.extended_code {
            // The catalogue cannot express these constraints. The value is invalid, but does not
            // conflict with stored data.
            ffi::SQLITE_CONSTRAINT_NOTNULL | ffi::SQLITE_CONSTRAINT_DATATYPE => {
                ServerErrorClass::BadValue
            }
            // RAISE(ABORT, …) in a trigger has no error number of its own.
            ffi::SQLITE_CONSTRAINT_TRIGGER => ServerErrorClass::Other,
            // UNIQUE, primary key and foreign key. CHECK is included, as in SQL Server's error 547.
            _ => ServerErrorClass::Conflict,
        },
        ErrorCode::TypeMismatch | ErrorCode::TooBig => ServerErrorClass::BadValue,
        ErrorCode::ReadOnly
        | ErrorCode::PermissionDenied
        | ErrorCode::AuthorizationForStatementDenied => ServerErrorClass::Permission,
        // Another process has written, so the transaction is rolled back, as for a deadlock victim.
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => ServerErrorClass::Deadlock,
        _ => ServerErrorClass::Other,
    }
}

/// Converts an error from opening a connection or beginning a transaction.
pub(super) fn before_running(error: rusqlite::Error) -> BackendError {
    BackendError::caused_by(BackendErrorKind::Unavailable, error)
}

/// Converts a prepare error. Omits the SQL text, which the driver's error contains.
pub(super) fn while_preparing(procedure: &str, error: rusqlite::Error) -> BackendError {
    match error {
        rusqlite::Error::SqlInputError { msg, .. } => BackendError::mismatch(procedure, msg),
        rusqlite::Error::SqliteFailure(code, message) if code.code == ErrorCode::Unknown => {
            BackendError::mismatch(procedure, message.unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_not_released_rolls_back_a_statement_but_not_the_ones_before_a_transaction() {
        let busy = || rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None);
        let number = ffi::SQLITE_BUSY.unsigned_abs();
        let kind = |class| SentErrorKind::Server { number, class };
        assert_eq!(while_running(busy()).kind, kind(ServerErrorClass::Deadlock));
        assert_eq!(while_beginning(busy()).kind, kind(ServerErrorClass::Transient));
        let full = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None);
        let number = ffi::SQLITE_FULL.unsigned_abs();
        let class = ServerErrorClass::Other;
        assert_eq!(while_beginning(full).kind, SentErrorKind::Server { number, class });
    }
}
