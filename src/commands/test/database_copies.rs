//! Embedded databases for one run: an example must not change the configured database, and must
//! find the same data in every run.

use std::path::Path;

use crate::commands::private_directory::PrivateDirectory;
use crate::config::Config;
use crate::config::procedures::{DatabaseConfig, SqliteConfig};
use crate::procedures::sqlite;
use crate::telemetry::chain;

/// The prefix of the directory's name.
const PREFIX: &str = "fjord-test";

/// The directory of the databases, which is removed when this value is dropped.
#[derive(Debug)]
pub(super) struct DatabaseCopies {
    _directory: Option<PrivateDirectory>,
}

impl DatabaseCopies {
    /// Returns a value without databases.
    pub(super) fn none() -> Self {
        Self { _directory: None }
    }

    /// Replaces the file of each embedded database with one that does not exist yet, so that it is
    /// created from the schema. If there is no schema, copies the file.
    ///
    /// # Errors
    /// A message that names the database.
    pub(super) async fn create(config: &mut Config) -> Result<Self, String> {
        let databases = config.procedures.databases.iter_mut();
        let embedded = databases.filter_map(|(name, database)| match database {
            DatabaseConfig::Sqlite(sqlite) => Some((name.clone(), sqlite)),
            DatabaseConfig::Mssql(_) => None,
        });
        let embedded: Vec<(String, &mut SqliteConfig)> = embedded.collect();
        if embedded.is_empty() {
            return Ok(Self::none());
        }
        PrivateDirectory::remove_abandoned(PREFIX);
        let directory = PrivateDirectory::temporary(PREFIX)?;
        for (index, (name, sqlite)) in embedded.into_iter().enumerate() {
            let file = directory.path().join(format!("{index}.db"));
            if sqlite.schema.is_none() {
                if !sqlite.file.exists() {
                    let missing = sqlite.file.display();
                    return Err(format!("database {name}: {missing} does not exist"));
                }
                copy(&sqlite.file, &file).await.map_err(|it| format!("database {name}: {it}"))?;
            }
            sqlite.file = file;
        }
        Ok(Self { _directory: Some(directory) })
    }
}

async fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let (from, to) = (from.to_owned(), to.to_owned());
    let copied = tokio::task::spawn_blocking(move || {
        sqlite::copy(&from, &to)
            .map_err(|error| format!("{} cannot be copied: {}", from.display(), chain(&error)))
    });
    copied.await.unwrap_or_else(|error| Err(error.to_string()))
}
