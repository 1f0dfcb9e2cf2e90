//! Describes the procedures of a directory for `fjord import`.

use std::io;
use std::path::Path;

use tokio::time::Instant;

use super::declaration::DeclaredParameter;
use super::procedure::SqliteProcedure;
use super::{Sqlite, procedure};
use crate::catalogue::ParameterType;
use crate::config::worker::matches_pattern;
use crate::procedures::description::{ParameterDescription, ProcedureDescription};
use crate::procedures::{BackendError, BackendErrorKind};

/// The type of a parameter that is not declared, because `SQLite` parameters are untyped.
const UNDECLARED: &str = "any";

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
                let parameters = parameters.map_err(unreadable);
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

/// Describes a file that is not named after a procedure.
fn unnamed(file: &str) -> ProcedureDescription {
    let reason = "its file is not named after a procedure, schema.name; rename it".to_owned();
    let (name, parts) = (format!("{file:?}"), (String::new(), file.to_owned()));
    ProcedureDescription { name, parts, parameters: Err(reason) }
}

/// Describes the reason why a procedure cannot be read, and how to resolve it.
fn unreadable(error: BackendError) -> String {
    match error.kind {
        BackendErrorKind::Mismatch { difference, .. } => format!("{difference}; correct its file"),
        kind => format!("{kind}; import it again later"),
    }
}

fn parameters(procedure: &SqliteProcedure) -> Vec<ParameterDescription> {
    match procedure.parameters() {
        Ok(declared) => declared.iter().map(described).collect(),
        Err(names) => names
            .into_iter()
            .map(|name| ParameterDescription {
                kind: Some(ParameterType::String),
                ..ParameterDescription::new(name, UNDECLARED)
            })
            .collect(),
    }
}

/// Describes a declared parameter. A table parameter has no catalogue type, because its columns are
/// not declared.
fn described(parameter: &DeclaredParameter) -> ParameterDescription {
    let DeclaredParameter { name, declared, default, is_output } = parameter;
    let kind = match declared.name.as_str() {
        "bit" => Some(ParameterType::Boolean),
        "tinyint" | "smallint" | "int" => Some(ParameterType::Int32),
        "bigint" => Some(ParameterType::Int64),
        "decimal" | "numeric" | "money" | "smallmoney" => Some(ParameterType::Decimal),
        "real" | "float" => Some(ParameterType::Number),
        "char" | "varchar" | "nchar" | "nvarchar" | "text" | "ntext" | "xml" => {
            Some(ParameterType::String)
        }
        "binary" | "varbinary" => Some(ParameterType::Binary),
        "date" => Some(ParameterType::Date),
        "time" => Some(ParameterType::Time),
        "datetime" | "smalldatetime" | "datetime2" | "datetimeoffset" => {
            Some(ParameterType::Datetime)
        }
        "uniqueidentifier" => Some(ParameterType::Uuid),
        _ => None,
    };
    ParameterDescription {
        kind,
        length_max: declared.text_length(),
        is_output: *is_output,
        has_default: Some(default.is_some()),
        ..ParameterDescription::new(name, declared.to_string())
    }
}
