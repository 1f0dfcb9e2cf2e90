//! What the server is, asked once: what a call needs to know before it is sent.

use std::sync::OnceLock;

use tiberius::ColumnData;
use tiberius::error::Error;

use super::connect::Client;
use super::errors;

/// Babelfish says 1, SQL Server nothing. Then the code page of what is `varchar` in this database.
const QUESTION: &str = "SELECT CAST(SERVERPROPERTY('Babelfish') AS int), \
     CAST(COLLATIONPROPERTY(CAST(DATABASEPROPERTYEX(DB_NAME(), 'Collation') AS nvarchar(128)), \
     'CodePage') AS int)";

/// What a server is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Whether it refuses a NULL without a type in a remote procedure call.
    pub(super) refuses_untyped_null: bool,
    /// The code page of the database's collation, which is that of every `varchar` parameter.
    pub(super) code_page: Option<u16>,
}

/// The server of a database.
#[derive(Debug, Default)]
pub(super) struct Server(OnceLock<Facts>);

impl Server {
    /// What it is, as far as it was asked.
    pub(super) fn known(&self) -> Option<Facts> {
        self.0.get().copied()
    }

    /// Asks it. Not safe to drop: discard the connection then.
    pub(super) async fn ask(&self, client: &mut Client) -> Result<Facts, Error> {
        let row = match client.simple_query(QUESTION).await?.into_row().await {
            // One that does not know the question is none of those that differ.
            Err(Error::Server(token)) if !errors::is_fatal(&token) => None,
            answer => answer?,
        };
        let number = |at| {
            let cells = row.as_ref()?.cells().nth(at);
            cells.and_then(|(_, value)| match value {
                ColumnData::I32(number) => *number,
                _ => None,
            })
        };
        let facts = Facts {
            refuses_untyped_null: number(0) == Some(1),
            code_page: number(1).and_then(|page| u16::try_from(page).ok()),
        };
        Ok(*self.0.get_or_init(|| facts))
    }
}
