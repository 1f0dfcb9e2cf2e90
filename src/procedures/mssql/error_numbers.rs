//! Maps SQL Server's error numbers to error kinds. No other file contains SQL Server error numbers.

use tiberius::error::{Error, TokenError};

use crate::procedures::{
    BackendError, BackendErrorKind, DatabaseError, SentError, SentErrorKind, ServerErrorClass,
};

/// The lowest error number that a procedure raises itself (THROW, RAISERROR).
const USER_ERROR_MIN: u32 = 50_000;
/// Babelfish's number for every error without its own number. No procedure raises it.
const BABELFISH_UNMAPPED: u32 = 33_557_097;
/// The lowest severity at which the server closes the connection.
const FATAL_CLASS: u8 = 20;
/// The call is the deadlock victim: its transaction is rolled back, but not its earlier commits.
const DEADLOCK_VICTIM: u32 = 1205;
/// An update conflicted under snapshot isolation, and its transaction is rolled back.
const SNAPSHOT_CONFLICT: u32 = 3960;
/// 266: a procedure changed the transaction count. 3902, 3903: COMMIT or ROLLBACK without BEGIN.
const TRANSACTION_ENDED: [u32; 3] = [266, 3902, 3903];
/// "Data type is unknown" in a remote procedure call: this server does not accept an untyped NULL.
const UNKNOWN_DATA_TYPE: u32 = 8009;

/// A statement names a column that its table does not have.
const INVALID_COLUMN: u32 = 207;
/// "Trying to pass a table-valued parameter with … column(s)": the table type was just recreated.
const OTHER_COLUMNS: u32 = 500;

/// "Invalid object name": a query names a table or view that does not exist.
const UNKNOWN_OBJECT: u32 = 208;

/// Returns the class of an error number.
fn class_of(number: u32) -> ServerErrorClass {
    match number {
        // Unique index, unique or primary key; foreign key or check constraint.
        2601 | 2627 | 547 => ServerErrorClass::Conflict,
        SNAPSHOT_CONFLICT => ServerErrorClass::SnapshotConflict,
        // Conversion failed; error converting; overflow; truncated (8152, 2628); integer overflow.
        245 | 8114 | 8115 | 8152 | 2628 | 220 => ServerErrorClass::BadValue,
        // Parameter missing; too many; unknown; unknown procedure; parameter of a statement
        // missing.
        201 | 8144 | 8145 | 2812 | 8178 => ServerErrorClass::Mismatch,
        // No permission on the object, on a column, in the database.
        229 | 230 | 916 => ServerErrorClass::Permission,
        DEADLOCK_VICTIM => ServerErrorClass::Deadlock,
        // Out of memory or locks; lock or memory timeout; Azure's resource limits and throttling.
        701 | 802 | 1204 | 1222 | 8645 | 8651 | 10928 | 10929 | 40501 | 49918..=49920 => {
            ServerErrorClass::Transient
        }
        _ => ServerErrorClass::Other,
    }
}

/// Converts the error token of a call that was sent.
#[expect(clippy::needless_pass_by_value, reason = "the error replaces the token")]
pub(super) fn from_token(token: TokenError) -> SentError {
    let number = token.code();
    let kind = if is_fatal(&token) {
        SentErrorKind::Lost
    } else if number >= USER_ERROR_MIN && number != BABELFISH_UNMAPPED {
        SentErrorKind::User { number, message: token.message().to_owned() }
    } else {
        SentErrorKind::Server { number, class: class_of(number) }
    };
    SentError::caused_by(kind, database_error(&token))
}

/// Describes an error token for the log.
fn database_error(token: &TokenError) -> DatabaseError {
    let (number, severity, state) = (token.code(), token.class(), token.state());
    let mut origin = format!("error {number}, severity {severity}, state {state}");
    if !token.procedure().is_empty() {
        origin.push_str(", procedure ");
        origin.push_str(token.procedure());
    }
    DatabaseError::new(format!("{origin}, line {}", token.line()), token.message())
}

/// Converts the error token of one of fjord's own queries before the call is sent.
pub(super) fn before_sending(token: TokenError) -> BackendError {
    let number = token.code();
    let kind = BackendErrorKind::Server { number, class: class_of(number) };
    BackendError::caused_by(kind, Error::Server(token))
}

/// Converts a driver error after a call was sent: a broken connection, or an unreadable answer.
pub(super) fn after_sending(error: Error) -> SentError {
    let kind = match &error {
        Error::Io { .. } | Error::Tls(_) | Error::Routing { .. } => {
            return SentError::caused_by(SentErrorKind::Lost, error);
        }
        Error::Utf16 | Error::Utf8 => SentErrorKind::Undecodable(
            "it contains text that is not well-formed Unicode".to_owned(),
        ),
        _ => SentErrorKind::Undecodable("the driver cannot decode it".to_owned()),
    };
    SentError::caused_by(kind, DatabaseError::new("a driver error", error.to_string()))
}

/// Returns the kind of error with which the driver refused to write a table cell. Meaningful only
/// if no part of the call was sent. Omits the driver's text, which can contain the value.
pub(super) fn unwritable_cell(error: &Error) -> Option<&'static str> {
    match error {
        Error::Encoding(_) => Some("encoding"),
        Error::BulkInput(_) => Some("bulk input"),
        Error::Conversion(_) => Some("conversion"),
        _ => None,
    }
}

/// Returns whether the server closes the connection with this error.
pub(super) fn is_fatal(token: &TokenError) -> bool {
    // 596: session killed; 6005: server shutting down; 40197, 40613: database being moved (Azure).
    token.class() >= FATAL_CLASS || matches!(token.code(), 596 | 6005 | 40197 | 40613)
}

pub(super) fn is_deadlock(token: &TokenError) -> bool {
    token.code() == DEADLOCK_VICTIM
}

pub(super) fn is_snapshot_conflict(token: &TokenError) -> bool {
    token.code() == SNAPSHOT_CONFLICT
}

/// Returns whether a procedure ended a transaction that it did not begin.
pub(super) fn ends_transaction(token: &TokenError) -> bool {
    TRANSACTION_ENDED.contains(&token.code())
}

/// Returns the error for a procedure that ended the worker's transaction.
pub(super) fn transaction_ended() -> SentError {
    let [number, ..] = TRANSACTION_ENDED;
    let kind = SentErrorKind::Server { number, class: ServerErrorClass::Other };
    SentError::caused_by(kind, "the procedure ended the transaction that the worker had begun")
}

/// Returns whether the server refused the call because of an untyped NULL.
pub(super) fn refuses_untyped_null(token: &TokenError) -> bool {
    token.code() == UNKNOWN_DATA_TYPE
}

/// Returns whether a query failed because a view does not exist on this server.
pub(super) fn is_unknown_object(token: &TokenError) -> bool {
    matches!(token.code(), UNKNOWN_OBJECT | BABELFISH_UNMAPPED)
}

/// Returns whether the procedure's parameters may have changed since they were read.
pub(super) fn doubts_signature(token: &TokenError) -> bool {
    class_of(token.code()) == ServerErrorClass::Mismatch || token.code() == OTHER_COLUMNS
}

/// Returns whether a statement names a column that does not exist. This is also the error of a
/// statement that inserts rows into a table type whose columns have changed.
pub(super) fn lacks_column(token: &TokenError) -> bool {
    token.code() == INVALID_COLUMN
}

/// The cause of a failed connection attempt, which determines when the next one is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoginFailure {
    /// The credentials were refused. Each further attempt counts towards an account lockout.
    Refused,
    /// The server or the database cannot be reached.
    Unreachable,
}

pub(super) fn login_failure(error: &Error) -> LoginFailure {
    match error.code() {
        // Untrusted login; wrong password; disabled; locked; password expired; must be changed.
        Some(18452 | 18456 | 18470 | 18486 | 18487 | 18488) => LoginFailure::Refused,
        _ => LoginFailure::Unreachable,
    }
}

/// Returns whether the server refused the password, so that another one may be accepted.
pub(super) fn refuses_password(error: &Error) -> bool {
    // Wrong password; password expired; password must be changed.
    matches!(error.code(), Some(18456 | 18487 | 18488))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_number_has_its_class() {
        let table: [(&[u32], ServerErrorClass); 8] = [
            (&[2601, 2627, 547], ServerErrorClass::Conflict),
            (&[3960], ServerErrorClass::SnapshotConflict),
            (&[245, 8114, 8115, 8152, 2628, 220], ServerErrorClass::BadValue),
            (&[201, 8144, 8145, 2812], ServerErrorClass::Mismatch),
            (&[229], ServerErrorClass::Permission),
            (&[1205], ServerErrorClass::Deadlock),
            (&[701, 1222, 8645, 10928, 40501, 49919], ServerErrorClass::Transient),
            (&[8134, 515, 266, 208], ServerErrorClass::Other),
        ];
        for (numbers, class) in table {
            for number in numbers {
                assert_eq!(class_of(*number), class, "{number}");
            }
        }
    }
}
