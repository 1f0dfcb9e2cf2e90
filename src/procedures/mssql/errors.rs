//! What SQL Server's error numbers mean: the only file that knows them.

use tiberius::error::{Error, TokenError};

use crate::procedures::{
    BackendError, BackendErrorKind, DatabaseError, SentError, SentErrorKind, ServerErrorClass,
};

/// Numbers from here on are the procedure's own (THROW, RAISERROR).
const USER_ERROR_MIN: u32 = 50_000;
/// Babelfish's number for every error that it has no number for: never the procedure's own.
const BABELFISH_UNMAPPED: u32 = 33_557_097;
/// From this severity on the server closes the connection.
const FATAL_CLASS: u8 = 20;
/// Chosen as deadlock victim: its transaction is rolled back, and what was committed before stays.
const DEADLOCK_VICTIM: u32 = 1205;
/// An update under snapshot isolation came second: its transaction is rolled back.
const SNAPSHOT_CONFLICT: u32 = 3960;
/// A procedure left with another count of open transactions; COMMIT, ROLLBACK without one.
const TRANSACTION_ENDED: [u32; 3] = [266, 3902, 3903];
/// "Data type is unknown" in a remote procedure call: an untyped NULL that this server does not take.
const UNKNOWN_DATA_TYPE: u32 = 8009;

/// "Trying to pass a table-valued parameter with … column(s)": the table type was recreated just before the call.
const OTHER_COLUMNS: u32 = 500;

/// The class of an error by its number (DESIGN §7).
fn class_of(number: u32) -> ServerErrorClass {
    match number {
        // Unique index, unique or primary key; foreign key or check constraint.
        2601 | 2627 | 547 => ServerErrorClass::Conflict,
        SNAPSHOT_CONFLICT => ServerErrorClass::SnapshotConflict,
        // Conversion failed; does not convert; overflow; too long; too long, with names; overflow of an integer.
        245 | 8114 | 8115 | 8152 | 2628 | 220 => ServerErrorClass::BadValue,
        // Parameter missing; too many; not a parameter; no such procedure; parameter of a statement missing.
        201 | 8144 | 8145 | 2812 | 8178 => ServerErrorClass::Mismatch,
        // No permission on the object; on a column; in the database.
        229 | 230 | 916 => ServerErrorClass::Permission,
        DEADLOCK_VICTIM => ServerErrorClass::Deadlock,
        // Memory; locks; lock timeout; waiting for memory; Azure's limits of resources, its throttling.
        701 | 802 | 1204 | 1222 | 8645 | 8651 | 10928 | 10929 | 40501 | 49918..=49920 => {
            ServerErrorClass::Transient
        }
        _ => ServerErrorClass::Other,
    }
}

/// The error that an error token of a call stands for.
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
    SentError::caused_by(kind, reported(&token))
}

/// What an error token of a call reports.
fn reported(token: &TokenError) -> DatabaseError {
    let (number, severity, state) = (token.code(), token.class(), token.state());
    let mut origin = format!("error {number}, severity {severity}, state {state}");
    if !token.procedure().is_empty() {
        origin.push_str(", procedure ");
        origin.push_str(token.procedure());
    }
    DatabaseError::new(format!("{origin}, line {}", token.line()), token.message())
}

/// The error of a question of our own that the server answered with an error token.
pub(super) fn of_question(token: TokenError) -> BackendError {
    let number = token.code();
    let kind = BackendErrorKind::Server { number, class: class_of(number) };
    BackendError::caused_by(kind, Error::Server(token))
}

/// The error that a broken connection or an unreadable answer stands for, once the call may have run.
pub(super) fn after_sending(error: Error) -> SentError {
    let kind = match &error {
        Error::Io { .. } | Error::Tls(_) | Error::Routing { .. } => {
            return SentError::caused_by(SentErrorKind::Lost, error);
        }
        Error::Utf16 | Error::Utf8 => {
            SentErrorKind::Undecodable("it has text that is not well-formed Unicode".to_owned())
        }
        _ => SentErrorKind::Undecodable("the driver cannot decode it".to_owned()),
    };
    SentError::caused_by(kind, DatabaseError::new("an error of the driver", error.to_string()))
}

/// What the driver calls it when it cannot write a value into a column of a table. To be asked only when nothing was sent.
/// The driver's own text is left out: it may quote the value.
pub(super) fn refused_cell(error: &Error) -> Option<&'static str> {
    match error {
        Error::Encoding(_) => Some("encoding"),
        Error::BulkInput(_) => Some("bulk input"),
        Error::Conversion(_) => Some("conversion"),
        _ => None,
    }
}

/// Whether the server ends the session with this error.
pub(super) fn is_fatal(token: &TokenError) -> bool {
    // 596: the session was killed; 6005: the server shuts down; 40197, 40613: it moves (Azure).
    token.class() >= FATAL_CLASS || matches!(token.code(), 596 | 6005 | 40197 | 40613)
}

/// Whether the server chose the call as a deadlock victim.
pub(super) fn is_deadlock(token: &TokenError) -> bool {
    token.code() == DEADLOCK_VICTIM
}

/// Whether an update of the call conflicted under snapshot isolation.
pub(super) fn is_snapshot_conflict(token: &TokenError) -> bool {
    token.code() == SNAPSHOT_CONFLICT
}

/// Whether the error says that a procedure ended a transaction that it did not begin.
pub(super) fn ends_transaction(token: &TokenError) -> bool {
    TRANSACTION_ENDED.contains(&token.code())
}

/// The error of a procedure that ended the transaction which the worker had begun.
pub(super) fn transaction_ended() -> SentError {
    let [number, ..] = TRANSACTION_ENDED;
    let kind = SentErrorKind::Server { number, class: ServerErrorClass::Other };
    SentError::caused_by(kind, "the procedure ended the transaction that the worker had begun")
}

/// Whether the server refused the call because of an untyped NULL.
pub(super) fn refuses_untyped_null(token: &TokenError) -> bool {
    token.code() == UNKNOWN_DATA_TYPE
}

/// Whether the error says that the procedure's parameters may not be what was read from the database.
pub(super) fn doubts_signature(token: &TokenError) -> bool {
    class_of(token.code()) == ServerErrorClass::Mismatch || token.code() == OTHER_COLUMNS
}

/// What a failed login means for the attempts after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoginFailure {
    /// The credentials are refused: every further attempt counts against the account.
    Refused,
    /// The server or the database is not there now.
    Away,
}

/// What an error while connecting means.
pub(super) fn login_failure(error: &Error) -> LoginFailure {
    match error.code() {
        // Wrong password or disabled; not a trusted login; expired or to be changed; locked.
        Some(18452 | 18456 | 18470 | 18486 | 18487 | 18488) => LoginFailure::Refused,
        _ => LoginFailure::Away,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_the_design_has_its_class() {
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
