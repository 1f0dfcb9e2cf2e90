//! Detects whether the server is SQL Server or Babelfish, because some calls differ between them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tiberius::ColumnData;
use tiberius::error::Error;

use crate::procedures::mssql::error_numbers;
use crate::procedures::mssql::tds::TdsClient;

/// A query for which Babelfish returns 1, and SQL Server returns NULL. The second column is the id
/// of a procedure that SQL Server has had since version 2016.
const QUERY: &str = "SELECT CAST(SERVERPROPERTY('Babelfish') AS int), \
    OBJECT_ID(N'sys.sp_set_session_context')";

/// The capabilities that differ between the kinds of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerCapabilities {
    /// Whether the server refuses an untyped NULL in a remote procedure call.
    pub(crate) refuses_untyped_null: bool,
    /// The encoding in which text for the `char` and `varchar` columns of a table is passed.
    pub(crate) varchar_encoding: VarcharEncoding,
    /// Whether the server reports transactions. If not, a rollback is harder to confirm.
    pub(crate) reports_commits: bool,
    /// The session context.
    pub(crate) session_context: SessionContextKind,
}

/// The session context of a kind of server, and its behaviour when a connection is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionContextKind {
    /// The server has no session context.
    Missing,
    /// Values can be read-only, because the reset of the connection removes them.
    Reset,
    /// The reset of the connection keeps the values, so later calls overwrite them. Babelfish does
    /// not clear its session context.
    Kept,
}

impl SessionContextKind {
    /// Returns whether values can be set.
    pub(crate) fn is_present(self) -> bool {
        self != Self::Missing
    }
}

/// The encoding in which text is passed for table columns that are stored in a code page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VarcharEncoding {
    /// The text is passed as `nvarchar`, and the server converts it, as it does for a parameter.
    AsNvarchar,
    /// The driver encodes the text in the code page of the column's collation. Babelfish needs this
    /// because it copies `nvarchar` cells of a table into SQL text without converting them.
    ByDriver,
    /// The text is not passed, because the kind of server is not known and no encoding suits both
    /// kinds.
    Unknown,
}

/// The capabilities that are assumed while the kind of server is not known. Untyped NULLs are
/// accepted, as on SQL Server. Commits are not reported and the session context is kept, as on
/// Babelfish.
const UNKNOWN: ServerCapabilities = ServerCapabilities {
    refuses_untyped_null: false,
    varchar_encoding: VarcharEncoding::Unknown,
    reports_commits: false,
    session_context: SessionContextKind::Kept,
};

/// Detects the capabilities of a database's server once.
#[derive(Debug, Default)]
pub(crate) struct ServerDetector {
    capabilities: OnceLock<ServerCapabilities>,
    is_refusal_logged: AtomicBool,
}

impl ServerDetector {
    /// Returns the capabilities if they have been detected.
    pub(crate) fn known(&self) -> Option<ServerCapabilities> {
        self.capabilities.get().copied()
    }

    /// Returns the capabilities. Like `detect`, queries the server if they are not known.
    pub(crate) async fn detect_once(
        &self,
        client: &mut TdsClient,
    ) -> Result<ServerCapabilities, Error> {
        match self.known() {
            Some(capabilities) => Ok(capabilities),
            None => self.detect(client).await,
        }
    }

    /// Queries the server. An error is not cached, so the next call queries the server again. If
    /// this future is dropped, the connection must be discarded.
    pub(crate) async fn detect(&self, client: &mut TdsClient) -> Result<ServerCapabilities, Error> {
        // The error can arrive before or after the row's columns.
        let answer = async { client.simple_query(QUERY).await?.into_row().await }.await;
        let row = match answer {
            Err(Error::Server(token)) if !error_numbers::is_fatal(&token) => {
                if !self.is_refusal_logged.swap(true, Ordering::Relaxed) {
                    let number = token.code();
                    tracing::warn!(
                        number,
                        "the server refused the query for its kind: tables with varchar columns are refused until it answers"
                    );
                }
                return Ok(UNKNOWN);
            }
            answer => answer?,
        };
        let mut values = row.iter().flat_map(tiberius::Row::cells).map(|(_, value)| value);
        let is_babelfish = values.next() == Some(&ColumnData::I32(Some(1)));
        let has_session_context = matches!(values.next(), Some(ColumnData::I32(Some(_))));
        let session_context = match (is_babelfish, has_session_context) {
            (true, _) => SessionContextKind::Kept,
            (false, true) => SessionContextKind::Reset,
            (false, false) => SessionContextKind::Missing,
        };
        if session_context == SessionContextKind::Missing {
            tracing::warn!(
                "the server has no session context: procedures cannot read who is calling"
            );
        }
        let capabilities = ServerCapabilities {
            refuses_untyped_null: is_babelfish,
            varchar_encoding: if is_babelfish {
                VarcharEncoding::ByDriver
            } else {
                VarcharEncoding::AsNvarchar
            },
            reports_commits: !is_babelfish,
            session_context,
        };
        Ok(*self.capabilities.get_or_init(|| capabilities))
    }
}

/// Describes the reason why an endpoint with values for the session context does not match its
/// database.
pub(crate) fn unsupported_session_context(names: &[&str]) -> String {
    let names = names.join(", ");
    format!(
        "the endpoint sets {names} in the session context, which SQL Server has since version 2016"
    )
}
