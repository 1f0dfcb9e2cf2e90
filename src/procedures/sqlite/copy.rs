//! Copies a database.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::procedures::{BackendError, BackendErrorKind};

/// Copies the database in a file to a new file. The copy contains every committed transaction.
///
/// # Errors
/// Returns `BackendError` if the file cannot be read, or the copy cannot be written.
pub fn copy(from: &Path, to: &Path) -> Result<(), BackendError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let copied = Connection::open_with_flags(from, flags)
        .and_then(|source| source.execute("VACUUM INTO ?1", [to.display().to_string()]));
    match copied {
        Ok(_) => Ok(()),
        Err(error) => Err(BackendError::caused_by(BackendErrorKind::Unavailable, error)),
    }
}
