//! Reads a procedure from its file, and finds its parameters and variables.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::Connection;

use crate::catalogue::ProcedureName;
use crate::catalogue::names::NameError;
use crate::procedures::{Argument, BackendError, ExpectedProcedure};

use super::{error_codes, script, types};

/// The maximum size of a procedure's file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The variable that sets the RETURN status and ends the procedure.
pub(super) const RETURN: &str = "return";

#[derive(Debug)]
pub(super) struct SqliteProcedure {
    pub(super) statements: Vec<SqliteStatement>,
    /// Whether any statement writes. If so, the procedure takes the write lock first.
    pub(super) writes: bool,
    /// The parameters that no earlier statement sets.
    inputs: BTreeSet<String>,
    /// The variables that the statements set.
    variables: BTreeSet<String>,
}

/// A statement of a procedure.
#[derive(Debug)]
pub(super) struct SqliteStatement {
    pub(super) sql: String,
    /// The parameters without `@`, ordered by index.
    pub(super) parameters: Vec<String>,
    /// Whether the columns set variables instead of forming a result set.
    pub(super) assigns: bool,
}

/// Returns the variable that a column sets, if any: `@id` sets `id`.
pub(super) fn variable(column: &str) -> Option<&str> {
    column.strip_prefix('@').filter(|name| !name.is_empty())
}

/// Reads and prepares a procedure. Blocks the thread.
pub(super) fn load(
    connection: &Connection,
    directory: &Path,
    name: &str,
) -> Result<SqliteProcedure, BackendError> {
    let text = read(directory, name)?;
    let texts = script::statements(&text).map_err(|error| BackendError::mismatch(name, error))?;
    let mut procedure = SqliteProcedure {
        statements: Vec::with_capacity(texts.len()),
        writes: false,
        inputs: BTreeSet::new(),
        variables: BTreeSet::new(),
    };
    for sql in texts {
        inspect(&mut procedure, connection, name, sql)?;
    }
    Ok(procedure)
}

/// Returns the name of a procedure's file without `.sql`: the procedure's name as the catalogue
/// writes it, in which characters that a file name cannot contain are percent-encoded.
fn file_of(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F").replace('\\', "%5C")
}

/// Returns the procedure that a file is named after, in the opposite direction of `file_of`.
pub(super) fn name_of(file: &str) -> Result<ProcedureName, NameError> {
    ProcedureName::new(&file.replace("%5C", "\\").replace("%2F", "/").replace("%25", "%"))
}

fn read(directory: &Path, name: &str) -> Result<String, BackendError> {
    let file = file_of(name);
    let path = directory.join(format!("{file}.sql"));
    let too_large = || BackendError::mismatch(name, "its file is larger than 1 MiB");
    match std::fs::metadata(&path) {
        Ok(file) if file.len() > FILE_BYTES_MAX => return Err(too_large()),
        _ => {}
    }
    std::fs::read_to_string(&path).map_err(|error| {
        BackendError::mismatch(name, format!("its file {file}.sql cannot be read: {error}"))
    })
}

fn inspect(
    procedure: &mut SqliteProcedure,
    connection: &Connection,
    name: &str,
    sql: String,
) -> Result<(), BackendError> {
    let prepared = connection
        .prepare_cached(&sql)
        .map_err(|error| error_codes::while_preparing(name, error))?;
    let mut parameters = Vec::with_capacity(prepared.parameter_count());
    for index in 1..=prepared.parameter_count() {
        let plain = prepared
            .parameter_name(index)
            .and_then(|text| text.strip_prefix(['@', ':', '$']))
            .ok_or_else(|| BackendError::mismatch(name, "a parameter has no name"))?;
        if !procedure.variables.contains(plain) {
            procedure.inputs.insert(plain.to_owned());
        }
        parameters.push(plain.to_owned());
    }
    let columns: Vec<String> =
        prepared.columns().map(|c| types::column(c.name(), None).0).collect();
    let variables: Vec<&str> = columns.iter().filter_map(|column| variable(column)).collect();
    if !variables.is_empty() && variables.len() < columns.len() {
        return Err(BackendError::mismatch(name, "a statement has both columns and @variables"));
    }
    let assigns = !variables.is_empty();
    procedure.variables.extend(variables.into_iter().map(ToOwned::to_owned));
    procedure.writes = procedure.writes || !prepared.readonly();
    drop(prepared);
    procedure.statements.push(SqliteStatement { sql, parameters, assigns });
    Ok(())
}

impl SqliteProcedure {
    /// Returns the input parameters, in order of first use.
    pub(super) fn parameters(&self) -> Vec<&str> {
        let mut parameters: Vec<&str> = Vec::new();
        for name in self.statements.iter().flat_map(|statement| &statement.parameters) {
            if self.inputs.contains(name) && !parameters.contains(&name.as_str()) {
                parameters.push(name);
            }
        }
        parameters
    }

    /// Checks that all arguments of a call are parameters of the procedure.
    pub(super) fn check_arguments(
        &self,
        name: &str,
        arguments: &[Argument],
    ) -> Result<(), BackendError> {
        match arguments.iter().find(|argument| !self.inputs.contains(&*argument.name)) {
            Some(argument) => Err(BackendError::mismatch(name, self.unknown(&argument.name))),
            None => Ok(()),
        }
    }

    /// Checks that the catalogue passes exactly the inputs and returns only variables that are set.
    pub(super) fn compare(&self, expected: &ExpectedProcedure) -> Result<(), BackendError> {
        let given: BTreeSet<&str> = expected.arguments.iter().map(|(name, _)| &**name).collect();
        let mut differences: Vec<String> = given
            .iter()
            .filter(|name| !self.inputs.contains(**name))
            .map(|name| self.unknown(name))
            .collect();
        for name in self.inputs.iter().filter(|name| !given.contains(name.as_str())) {
            differences.push(format!(
                "the procedure needs @{name}, but the catalogue passes {}",
                list(&given)
            ));
        }
        // The RETURN status is not an output.
        let outputs: BTreeSet<&str> =
            self.variables.iter().map(String::as_str).filter(|name| *name != RETURN).collect();
        for output in expected.outputs.iter().filter(|output| !outputs.contains(output.as_str())) {
            let sets = list(&outputs);
            differences
                .push(format!("the catalogue returns @{output}, but the procedure sets {sets}"));
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(BackendError::mismatch(expected.procedure.as_str(), differences.join("; ")))
    }

    fn unknown(&self, name: &str) -> String {
        let inputs = list(&self.inputs.iter().map(String::as_str).collect());
        format!("the catalogue passes @{name}, but the procedure has {inputs}")
    }
}

fn list(names: &BTreeSet<&str>) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("@{name}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_file_of_its_own_in_the_directory() {
        for (written, file) in [
            ("dbo.horse_get", "dbo.horse_get"),
            ("dbo.[Sales by Year]", "dbo.[Sales by Year]"),
            ("dbo.[../../etc/passwd]", "dbo.[..%2F..%2Fetc%2Fpasswd]"),
            (r"dbo.[a\b]", "dbo.[a%5Cb]"),
            ("dbo.[100%2F]", "dbo.[100%252F]"),
            ("dbo.größe", "dbo.größe"),
        ] {
            let name = ProcedureName::new(written).unwrap();
            assert_eq!(file_of(name.as_str()), file);
            assert_eq!(name_of(file).unwrap(), name);
        }
        assert!(name_of("readme").is_err());
    }
}
