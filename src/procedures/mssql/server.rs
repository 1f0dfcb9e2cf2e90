//! What the server is, asked once: what a call needs to know before it is sent.

use std::sync::OnceLock;

use tiberius::ColumnData;
use tiberius::error::Error;

use super::connect::Client;
use super::errors;

/// Babelfish says 1, SQL Server nothing.
const QUESTION: &str = "SELECT CAST(SERVERPROPERTY('Babelfish') AS int)";

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Whether it refuses a NULL without a type in a remote procedure call.
    pub(super) refuses_untyped_null: bool,
    /// Whether it puts `nvarchar` of a table into SQL text as it is, instead of as data.
    pub(super) splices_table_text: bool,
    /// Whether it tells of each commit. Where it does not, an error says less about what stays.
    pub(super) tells_of_commits: bool,
}

/// What is assumed of a server that does not say: it takes a NULL like SQL Server, and text no better than Babelfish.
const UNKNOWN: Facts =
    Facts { refuses_untyped_null: false, splices_table_text: true, tells_of_commits: false };

/// The server of a database.
#[derive(Debug, Default)]
pub(super) struct Server(OnceLock<Facts>);

impl Server {
    /// What it is, as far as it was asked.
    pub(super) fn known(&self) -> Option<Facts> {
        self.0.get().copied()
    }

    /// Asks it. An error is not remembered: whoever calls next asks again. Not safe to drop: discard the connection then.
    pub(super) async fn ask(&self, client: &mut Client) -> Result<Facts, Error> {
        let row = match client.simple_query(QUESTION).await?.into_row().await {
            Err(Error::Server(token)) if !errors::is_fatal(&token) => return Ok(UNKNOWN),
            answer => answer?,
        };
        let said = row.as_ref().and_then(|row| row.cells().next().map(|(_, value)| value));
        let is_babelfish = said == Some(&ColumnData::I32(Some(1)));
        let facts = Facts {
            refuses_untyped_null: is_babelfish,
            splices_table_text: is_babelfish,
            tells_of_commits: !is_babelfish,
        };
        Ok(*self.0.get_or_init(|| facts))
    }
}
