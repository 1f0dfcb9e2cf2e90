//! What the server is, asked once: what a call needs to know before it is sent.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

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
    /// How text for the `char` and `varchar` columns of a table is passed.
    pub(super) narrow_text: NarrowText,
    /// Whether it tells of each commit. Where it does not, an error says less about what stays.
    pub(super) tells_of_commits: bool,
}

/// How text for columns of a table that are stored in a code page is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NarrowText {
    /// As `nvarchar`: the server converts it, as it does for a parameter.
    AsNvarchar,
    /// In the code page that the driver takes for the column's: Babelfish puts `nvarchar` of a table into SQL text as it is.
    ByDriver,
    /// Not at all: the server did not say what it is, and each would be wrong for the other.
    Unknown,
}

/// What is assumed of a server that does not say: it takes a NULL like SQL Server, and tells of commits like Babelfish.
const UNKNOWN: Facts = Facts {
    refuses_untyped_null: false,
    narrow_text: NarrowText::Unknown,
    tells_of_commits: false,
};

/// The server of a database.
#[derive(Debug, Default)]
pub(super) struct Server {
    facts: OnceLock<Facts>,
    is_refusal_logged: AtomicBool,
}

impl Server {
    /// What it is, as far as it was asked.
    pub(super) fn known(&self) -> Option<Facts> {
        self.facts.get().copied()
    }

    /// Asks it. An error is not remembered: whoever calls next asks again. Not safe to drop: discard the connection then.
    pub(super) async fn ask(&self, client: &mut Client) -> Result<Facts, Error> {
        // The error may come before the row's columns or behind them.
        let answer = async { client.simple_query(QUESTION).await?.into_row().await }.await;
        let row = match answer {
            Err(Error::Server(token)) if !errors::is_fatal(&token) => {
                if !self.is_refusal_logged.swap(true, Ordering::Relaxed) {
                    let number = token.code();
                    tracing::warn!(
                        number,
                        "the server does not say what it is: tables with varchar columns are refused until it does"
                    );
                }
                return Ok(UNKNOWN);
            }
            answer => answer?,
        };
        let said = row.as_ref().and_then(|row| row.cells().next().map(|(_, value)| value));
        let is_babelfish = said == Some(&ColumnData::I32(Some(1)));
        let facts = Facts {
            refuses_untyped_null: is_babelfish,
            narrow_text: if is_babelfish { NarrowText::ByDriver } else { NarrowText::AsNvarchar },
            tells_of_commits: !is_babelfish,
        };
        Ok(*self.facts.get_or_init(|| facts))
    }
}
