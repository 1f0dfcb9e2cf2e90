//! Copies of the embedded databases for one run. An example must not change the configured database
//! and must find the same data in every run.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::commands::private_directory::PrivateDirectory;
use crate::config::Config;
use crate::config::procedures::{DatabaseConfig, SqliteConfig};
use crate::procedures::sqlite;
use crate::telemetry::chain;

/// The prefix of the directory name.
const PREFIX: &str = "fjord-test";

/// The directory that contains the databases. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct DatabaseCopies {
    directory: Arc<Mutex<Option<PrivateDirectory>>>,
}

impl DatabaseCopies {
    /// Removes the databases if there are any.
    pub(super) fn remove(&self) {
        drop(self.directory.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Changes the configuration so that each embedded database uses a new file. The database is
    /// created from its schema. If there is no schema, the configured file is copied.
    ///
    /// # Errors
    /// Returns a message that names the database.
    pub(super) async fn create(&self, config: &mut Config) -> Result<(), String> {
        let databases = config.procedures.databases.iter_mut();
        let embedded = databases.filter_map(|(name, database)| match database {
            DatabaseConfig::Sqlite(sqlite) => Some((name.clone(), sqlite)),
            DatabaseConfig::Mssql(_) => None,
        });
        let embedded: Vec<(String, &mut SqliteConfig)> = embedded.collect();
        if embedded.is_empty() {
            return Ok(());
        }
        PrivateDirectory::remove_abandoned(PREFIX);
        let directory = PrivateDirectory::temporary(PREFIX)?;
        let path = directory.path().to_owned();
        *self.directory.lock().unwrap_or_else(PoisonError::into_inner) = Some(directory);
        for (index, (name, sqlite)) in embedded.into_iter().enumerate() {
            let file = path.join(format!("{index}.db"));
            if sqlite.schema.is_none() {
                if !sqlite.file.exists() {
                    let missing = sqlite.file.display();
                    return Err(format!("database {name}: {missing} does not exist"));
                }
                copy(&sqlite.file, &file).await.map_err(|it| format!("database {name}: {it}"))?;
            }
            sqlite.file = file;
        }
        Ok(())
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
