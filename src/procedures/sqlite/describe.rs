//! The procedures of a directory, for `fjord import`.

use tokio::time::Instant;

use super::Sqlite;
use crate::catalogue::{ParameterType, ProcedureName};
use crate::config::worker::matches_pattern;
use crate::procedures::described::{Described, DescribedParameter};
use crate::procedures::{BackendError, BackendErrorKind};

/// What a parameter is declared as: the embedded database has no types for them.
const DECLARED: &str = "any";

impl Sqlite {
    /// Describes the procedures whose `schema.name` fits the pattern.
    pub(super) async fn describe_all(
        &self,
        pattern: &str,
        deadline: Instant,
    ) -> Result<Vec<Described>, BackendError> {
        let mut described = Vec::new();
        for name in self.names()?.into_iter().filter(|name| matches_pattern(pattern, name)) {
            let parameters = match ProcedureName::new(&name) {
                Ok(procedure) => match self.procedure(&procedure, deadline, &self.closing).await {
                    Ok(procedure) => Ok(parameters(&procedure)),
                    Err(error) => Err(error.to_string()),
                },
                Err(error) => Err(error.to_string()),
            };
            described.push(Described { name, parameters });
        }
        Ok(described)
    }

    fn names(&self) -> Result<Vec<String>, BackendError> {
        let unavailable = |error| BackendError::caused_by(BackendErrorKind::Unavailable, error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.procedures).map_err(unavailable)? {
            let name = entry.map_err(unavailable)?.file_name();
            let name = name.to_string_lossy();
            names.extend(name.strip_suffix(".sql").map(ToOwned::to_owned));
        }
        names.sort();
        Ok(names)
    }
}

fn parameters(procedure: &super::procedure::Procedure) -> Vec<DescribedParameter> {
    let taken = procedure.takes().into_iter().map(|name| DescribedParameter {
        kind: Some(ParameterType::String),
        ..DescribedParameter::new(name, DECLARED)
    });
    taken.collect()
}
