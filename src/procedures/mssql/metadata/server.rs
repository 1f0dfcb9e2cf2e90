//! Finds out whether the server is SQL Server or Babelfish, because some calls depend on it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tiberius::ColumnData;
use tiberius::error::Error;

use crate::procedures::mssql::error_numbers;
use crate::procedures::mssql::tds::TdsClient;

/// Babelfish returns 1, SQL Server NULL.
const QUERY: &str = "SELECT CAST(SERVERPROPERTY('Babelfish') AS int)";

/// Differences between servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerTraits {
    /// Whether it refuses an untyped NULL in a remote procedure call.
    pub(crate) refuses_untyped_null: bool,
    /// How text for the `char` and `varchar` columns of a table is passed.
    pub(crate) narrow_text: NarrowText,
    /// Whether it reports each commit. If it does not, an error proves less about what was rolled back.
    pub(crate) reports_commits: bool,
}

/// How text for columns of a table that are stored in a code page is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NarrowText {
    /// As `nvarchar`: the server converts it, as it does for a parameter.
    AsNvarchar,
    /// In the code page that the driver derives from the column's collation: Babelfish copies the `nvarchar` cells of a
    /// table into SQL text without converting them.
    ByDriver,
    /// Not at all: the server is not known, and either of the above would be wrong for the other server.
    Unknown,
}

/// Assumed while the server is not known: it accepts an untyped NULL like SQL Server, and reports no commits like Babelfish.
const UNKNOWN: ServerTraits = ServerTraits {
    refuses_untyped_null: false,
    narrow_text: NarrowText::Unknown,
    reports_commits: false,
};

/// Detects the traits of a database's server, once.
#[derive(Debug, Default)]
pub(crate) struct ServerProbe {
    traits: OnceLock<ServerTraits>,
    is_refusal_logged: AtomicBool,
}

impl ServerProbe {
    /// Returns the traits if they were detected.
    pub(crate) fn known(&self) -> Option<ServerTraits> {
        self.traits.get().copied()
    }

    /// Queries the server. An error is not remembered: the next call queries again. Not safe to drop: discard the connection
    /// then.
    pub(crate) async fn detect(&self, client: &mut TdsClient) -> Result<ServerTraits, Error> {
        // The error may arrive before or after the columns of the row.
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
        let value = row.as_ref().and_then(|row| row.cells().next().map(|(_, value)| value));
        let is_babelfish = value == Some(&ColumnData::I32(Some(1)));
        let traits = ServerTraits {
            refuses_untyped_null: is_babelfish,
            narrow_text: if is_babelfish { NarrowText::ByDriver } else { NarrowText::AsNvarchar },
            reports_commits: !is_babelfish,
        };
        Ok(*self.traits.get_or_init(|| traits))
    }
}
