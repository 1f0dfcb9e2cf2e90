//! Maps SQL Server's error numbers to error kinds. No other file contains SQL Server error numbers.

use tiberius::error::{Error, TokenError};

use super::server_message::{MessageLog, ServerMessage};
use crate::procedures::{
    BackendError, BackendErrorKind, DatabaseError, SentError, SentErrorKind, ServerErrorClass,
};

/// The lowest error number that a procedure raises itself (THROW, RAISERROR).
const USER_ERROR_MIN: u32 = 50_000;
/// Babelfish's number for every error without its own number. No procedure raises it.
const BABELFISH_UNMAPPED: u32 = 33_557_097;
/// The lowest severity at which the server closes the connection.
const FATAL_CLASS: u8 = 20;
/// The number for a deadlock victim. The call's open transaction is rolled back. Work that the call
/// has already committed is not.
const DEADLOCK_VICTIM: u32 = 1205;
/// 266: a procedure changed the transaction count. 3902, 3903: COMMIT or ROLLBACK without BEGIN.
const TRANSACTION_ENDED: [u32; 3] = [266, 3902, 3903];
/// "Data type is unknown" in a remote procedure call. The server does not accept an untyped NULL.
const UNKNOWN_DATA_TYPE: u32 = 8009;

/// A statement names a column that its table does not have.
const INVALID_COLUMN: u32 = 207;
/// "Trying to pass a table-valued parameter with … column(s)": the table type was just recreated.
const OTHER_COLUMNS: u32 = 500;

/// "Invalid object name": a query names a table or view that does not exist.
const UNKNOWN_OBJECT: u32 = 208;

/// Returns the class of an error number. docs/ERRORS.md lists the numbers with their sources.
fn class_of(number: u32) -> ServerErrorClass {
    match number {
        // Unique index, unique or primary key; foreign key or check constraint.
        2601 | 2627 | 547 => ServerErrorClass::Conflict,
        // Snapshot isolation; memory-optimized tables: commit dependency, update conflict,
        // repeatable read, serializable, number of commit dependencies.
        3960 | 41301 | 41302 | 41305 | 41325 | 41839 => ServerErrorClass::SnapshotConflict,
        // Overflow of an integer (220, 244, 248) or of another type (8115); money (235, 236);
        // date or time (241, 242, 295, 296); conversion failed (245, 8114), also to
        // uniqueidentifier (8169).
        220 | 235 | 236 | 241 | 242 | 244 | 245 | 248 | 295 | 296 | 8114 | 8115 | 8169
        // NULL in a column that does not allow it; truncated (2628, 8152); XML; JSON.
        | 515 | 2628 | 8152 | 9400..=9499 | 13609 | 13647 => ServerErrorClass::BadValue,
        // Parameter missing; too many; unknown; unknown procedure; parameter of a statement
        // missing.
        201 | 8144 | 8145 | 2812 | 8178 => ServerErrorClass::Mismatch,
        // No permission on the object, on a column, in the database.
        229 | 230 | 916 => ServerErrorClass::Permission,
        DEADLOCK_VICTIM => ServerErrorClass::Deadlock,
        // Out of memory or locks; lock or memory timeout.
        701 | 802 | 1204 | 1222 | 8645 | 8651 => ServerErrorClass::Transient,
        number if is_throttling(number) => ServerErrorClass::Transient,
        _ => ServerErrorClass::Other,
    }
}

/// Returns whether Azure limits the resources of the database, or moves the database elsewhere.
fn is_throttling(number: u32) -> bool {
    matches!(number, 10928 | 10929 | 40501 | 40613 | 49918..=49920)
}

/// Returns whether a procedure raised the error itself.
fn is_user_error(number: u32) -> bool {
    number >= USER_ERROR_MIN && number != BABELFISH_UNMAPPED
}

/// Returns the error in an answer that determines the call's outcome. `first` is the error that the
/// driver reported.
///
/// An error that closes the connection takes precedence. Next comes the last error that the
/// procedure raised itself or that ended its transaction. If the procedure raised it, the procedure
/// has handled the errors before it. If it ended the transaction, the procedure did not continue.
/// If there is no such error, the first one decides.
pub(super) fn deciding_error(first: ServerMessage, log: &MessageLog) -> ServerMessage {
    let by_last = log.errors_by_last();
    let ends_call = |error: &ServerMessage| {
        is_user_error(error.number) || is_deadlock(error) || is_snapshot_conflict(error)
    };
    let last = by_last.iter().rfind(|error| ends_call(error)).copied();
    let closing = log.errors().find(|error| closes_connection(error));
    closing.or(last).cloned().unwrap_or(first)
}

/// Returns the error of a call that was sent, given the deciding error. `log` contains all errors
/// of the answer.
pub(super) fn sent_error(error: &ServerMessage, log: &MessageLog) -> SentError {
    let number = error.number;
    let class = class_of(number);
    let kind = if class != ServerErrorClass::Transient && closes_connection(error) {
        SentErrorKind::Lost
    } else if is_user_error(number) {
        SentErrorKind::User { number, message: error.text.clone() }
    } else {
        SentErrorKind::Server { number, class }
    };
    let mut origin = error.origin("error");
    let others = log.errors().map(|other| other.number).filter(|other| *other != number);
    let mut others: Vec<String> = others.map(|number| number.to_string()).collect();
    if log.dropped_errors() > 0 {
        others.push(format!("and {} more", log.dropped_errors()));
    }
    if !others.is_empty() {
        origin.push_str(", with other errors: ");
        origin.push_str(&others.join(", "));
    }
    SentError::caused_by(kind, DatabaseError::new(origin, error.text.clone()))
}

/// Converts the error token of one of fjord's own queries before the call is sent.
pub(super) fn before_sending(token: TokenError) -> BackendError {
    let number = token.code();
    let kind = BackendErrorKind::Server { number, class: class_of(number) };
    BackendError::caused_by(kind, Error::Server(token))
}

/// Converts a driver error that occurred after a call was sent. The connection broke, or the answer
/// is unreadable.
pub(super) fn after_sending(error: Error) -> SentError {
    let kind = match &error {
        Error::Io { .. } | Error::Tls(_) | Error::Routing { .. } => {
            return SentError::caused_by(SentErrorKind::Lost, error);
        }
        Error::Encoding(_) => SentErrorKind::Undecodable(
            "it contains text that the driver cannot decode: the procedure can return CAST(… AS nvarchar)".to_owned(),
        ),
        Error::Utf16 | Error::Utf8 => SentErrorKind::Undecodable(
            "it contains text that is not well-formed Unicode".to_owned(),
        ),
        _ => SentErrorKind::Undecodable("the driver cannot decode it".to_owned()),
    };
    SentError::caused_by(kind, DatabaseError::new("a driver error", error.to_string()))
}

/// Returns the kind of driver error that prevented a table cell from being written. The result is
/// meaningful only if no part of the call was sent. It omits the driver's text, which can contain
/// the value.
pub(super) fn unwritable_cell(error: &Error) -> Option<&'static str> {
    match error {
        Error::Encoding(_) => Some("encoding"),
        Error::BulkInput(_) => Some("bulk input"),
        Error::Conversion(_) => Some("conversion"),
        _ => None,
    }
}

/// Returns whether the login lacks a permission.
pub(super) fn denies_permission(token: &TokenError) -> bool {
    class_of(token.code()) == ServerErrorClass::Permission
}

/// Returns whether the server closes the connection with this error.
pub(super) fn is_fatal(token: &TokenError) -> bool {
    is_fatal_number(token.code(), token.class())
}

/// Returns whether the server closes the connection with this error.
pub(super) fn closes_connection(error: &ServerMessage) -> bool {
    is_fatal_number(error.number, error.class)
}

fn is_fatal_number(number: u32, class: u8) -> bool {
    // 596: session killed; 6005: server shutting down; 40197, 40613: database being moved (Azure).
    class >= FATAL_CLASS || matches!(number, 596 | 6005 | 40197 | 40613)
}

pub(super) fn is_deadlock(error: &ServerMessage) -> bool {
    class_of(error.number) == ServerErrorClass::Deadlock
}

pub(super) fn is_snapshot_conflict(error: &ServerMessage) -> bool {
    class_of(error.number) == ServerErrorClass::SnapshotConflict
}

/// Returns whether a COMMIT failed because the transaction had lost a conflict. It then had no effect, so a confirmed
/// rollback undoes the whole call.
pub(super) fn refuses_commit(token: &TokenError) -> bool {
    class_of(token.code()) == ServerErrorClass::SnapshotConflict
}

/// Returns whether memory, locks or capacity were temporarily unavailable.
pub(super) fn is_transient(error: &ServerMessage) -> bool {
    class_of(error.number) == ServerErrorClass::Transient
}

/// Returns whether a retry must wait until the database has more capacity.
pub(super) fn asks_for_pause(error: &ServerMessage) -> bool {
    is_throttling(error.number)
}

/// Returns whether a procedure ended a transaction that it did not begin.
pub(super) fn ends_transaction(log: &MessageLog) -> bool {
    log.errors().any(|error| TRANSACTION_ENDED.contains(&error.number))
}

/// Returns the error for a procedure that ended the worker's transaction.
pub(super) fn transaction_ended() -> SentError {
    let [number, ..] = TRANSACTION_ENDED;
    let kind = SentErrorKind::Server { number, class: ServerErrorClass::Other };
    SentError::caused_by(kind, "the procedure ended the transaction that the worker had begun")
}

/// Returns whether the server refused the call because of an untyped NULL.
pub(super) fn refuses_untyped_null(error: &ServerMessage) -> bool {
    error.number == UNKNOWN_DATA_TYPE
}

/// Returns whether a query failed because a view does not exist on this server.
pub(super) fn is_unknown_object(token: &TokenError) -> bool {
    matches!(token.code(), UNKNOWN_OBJECT | BABELFISH_UNMAPPED)
}

/// Returns whether the procedure's parameters may have changed since they were read.
pub(super) fn doubts_signature(error: &ServerMessage) -> bool {
    class_of(error.number) == ServerErrorClass::Mismatch || error.number == OTHER_COLUMNS
}

/// Returns whether a statement names a column that does not exist. This is also the error of a
/// statement that inserts rows into a table type whose columns have changed.
pub(super) fn lacks_column(error: &ServerMessage) -> bool {
    error.number == INVALID_COLUMN
}

/// The cause of a failed connection attempt. It determines when the next attempt is made.
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

/// Returns whether the server refused the password and might accept another one.
pub(super) fn refuses_password(error: &Error) -> bool {
    // Wrong password; password expired; password must be changed.
    matches!(error.code(), Some(18456 | 18487 | 18488))
}

#[cfg(test)]
mod tests;
