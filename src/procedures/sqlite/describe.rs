//! Describes the procedures of a directory for `fjord import`.

use std::io;
use std::path::Path;

use tokio::time::Instant;

use super::Sqlite;
use crate::catalogue::{ParameterType, ProcedureName};
use crate::config::worker::matches_pattern;
use crate::procedures::description::{ParameterDescription, ProcedureDescription};
use crate::procedures::{BackendError, BackendErrorKind};

/// The declared type of every parameter, because `SQLite` parameters are untyped.
const DECLARED: &str = "any";

impl Sqlite {
    /// Describes the procedures whose `schema.name` matches `pattern`.
    pub(super) async fn describe_all(
        &self,
        pattern: &str,
        deadline: Instant,
    ) -> Result<Vec<ProcedureDescription>, BackendError> {
        let mut descriptions = Vec::new();
        for name in self.names().await?.into_iter().filter(|name| matches_pattern(pattern, name)) {
            let parameters = match ProcedureName::new(&name) {
                Ok(procedure) => match self.procedure(&procedure, deadline, &self.closing).await {
                    Ok(procedure) => Ok(parameters(&procedure)),
                    Err(error) => Err(error.to_string()),
                },
                Err(error) => Err(error.to_string()),
            };
            descriptions.push(ProcedureDescription { name, parameters });
        }
        Ok(descriptions)
    }

    async fn names(&self) -> Result<Vec<String>, BackendError> {
        let directory = self.directory.clone();
        tokio::task::spawn_blocking(move || names(&directory))
            .await
            .map_err(|error| BackendError::caused_by(BackendErrorKind::Unavailable, error))?
            .map_err(|error| BackendError::caused_by(BackendErrorKind::Unavailable, error))
    }
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        names.extend(name.strip_suffix(".sql").map(ToOwned::to_owned));
    }
    names.sort();
    Ok(names)
}

fn parameters(procedure: &super::procedure::SqliteProcedure) -> Vec<ParameterDescription> {
    let taken = procedure.parameters().into_iter().map(|name| ParameterDescription {
        kind: Some(ParameterType::String),
        ..ParameterDescription::new(name, DECLARED)
    });
    taken.collect()
}
