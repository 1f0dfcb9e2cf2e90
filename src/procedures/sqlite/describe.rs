//! Describes the procedures of a directory for `fjord import`.

use std::io;
use std::path::Path;

use tokio::time::Instant;

use super::{Sqlite, procedure};
use crate::catalogue::ParameterType;
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
        for file in self.names().await? {
            let Ok(name) = procedure::name_of(&file) else {
                if matches_pattern(pattern, &file) {
                    descriptions.push(unnamed(&file));
                }
                continue;
            };
            let parts = (name.schema(), name.procedure());
            if matches_pattern(pattern, &format!("{}.{}", parts.0, parts.1)) {
                let loaded = self.procedure(&name, deadline, &self.closing).await;
                let parameters = loaded.map(|procedure| parameters(&procedure));
                let parameters = parameters.map_err(|error| error.to_string());
                descriptions.push(ProcedureDescription::new(parts, parameters));
            }
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

/// Describes a file whose name is not that of a procedure.
fn unnamed(file: &str) -> ProcedureDescription {
    let reason = "the name of its file is not that of a procedure, schema.name".to_owned();
    let (name, parts) = (format!("{file:?}"), (String::new(), file.to_owned()));
    ProcedureDescription { name, parts, parameters: Err(reason) }
}

fn parameters(procedure: &procedure::SqliteProcedure) -> Vec<ParameterDescription> {
    let taken = procedure.parameters().into_iter().map(|name| ParameterDescription {
        kind: Some(ParameterType::String),
        ..ParameterDescription::new(name, DECLARED)
    });
    taken.collect()
}
