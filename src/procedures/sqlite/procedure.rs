//! Reads a procedure from its file, and finds its parameters and variables.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::Value as SqlValue;

use crate::catalogue::names::NameError;
use crate::catalogue::{ParameterValue, ProcedureName};
use crate::procedures::{Argument, BackendError, BackendErrorKind, BadArgument, ExpectedProcedure};

use super::declaration::{self, DeclaredParameter};
use super::script::{self, ScriptStatement, TransactionStatement};
use super::{error_codes, types};

/// The maximum size of a procedure's file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The variable that sets the RETURN status and ends the procedure.
pub(super) const RETURN: &str = "return";

#[derive(Debug)]
pub(super) struct SqliteProcedure {
    pub(super) steps: Vec<ProcedureStep>,
    /// Whether any statement writes. If so, a transaction takes the write lock at its start.
    pub(super) writes: bool,
    /// The declared parameters or, if the file has no head, the parameters that are used before a
    /// statement sets them.
    inputs: BTreeSet<String>,
    /// The parameters that the file's head declares, if it has one.
    declared: Option<Vec<DeclaredParameter>>,
    /// The variables that the statements set.
    variables: BTreeSet<String>,
}

/// A step of a procedure.
#[derive(Debug)]
pub(super) enum ProcedureStep {
    /// Executes a statement.
    Statement(SqliteStatement),
    /// Begins or ends a transaction.
    Transaction(TransactionStatement),
}

/// A statement of a procedure.
#[derive(Debug)]
pub(super) struct SqliteStatement {
    pub(super) sql: String,
    /// The parameters without `@`, ordered by index.
    pub(super) parameters: Vec<String>,
    /// Whether the columns set variables instead of forming a result set.
    pub(super) assigns: bool,
    pub(super) writes: bool,
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
    // Windows editors write a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mismatch = |error: String| BackendError::mismatch(name, error);
    let head = declaration::head(text, name).map_err(mismatch)?;
    let body = head.as_ref().map_or(text, |(_, body)| *body);
    let texts = script::statements(body).map_err(mismatch)?;
    let mut procedure = SqliteProcedure {
        steps: Vec::with_capacity(texts.len()),
        writes: false,
        inputs: BTreeSet::new(),
        declared: None,
        variables: BTreeSet::new(),
    };
    for statement in texts {
        match statement {
            ScriptStatement::Sql(sql) => inspect(&mut procedure, connection, name, sql)?,
            ScriptStatement::Transaction(one) => {
                procedure.steps.push(ProcedureStep::Transaction(one));
            }
        }
    }
    if let Some((declared, _)) = head {
        procedure.declare(declared).map_err(mismatch)?;
    }
    Ok(procedure)
}

/// Returns the name of a procedure's file. It is the procedure's name as the catalogue writes it,
/// with characters that a file name cannot contain percent-encoded.
pub(super) fn file_of(name: &str) -> String {
    let name = name.replace('%', "%25").replace('/', "%2F").replace('\\', "%5C");
    format!("{name}.sql")
}

/// Returns the procedure that a file is named after, given the file's name without `.sql`. This is
/// the inverse of `file_of`.
pub(super) fn name_of(file: &str) -> Result<ProcedureName, NameError> {
    ProcedureName::new(&file.replace("%5C", "\\").replace("%2F", "/").replace("%25", "%"))
}

fn read(directory: &Path, name: &str) -> Result<String, BackendError> {
    let file = file_of(name);
    let path = directory.join(&file);
    let too_large = || BackendError::mismatch(name, "its file is larger than 1 MiB");
    match std::fs::metadata(&path) {
        Ok(file) if file.len() > FILE_BYTES_MAX => return Err(too_large()),
        _ => {}
    }
    std::fs::read_to_string(&path).map_err(|error| {
        BackendError::mismatch(name, format!("its file {} cannot be read: {error}", path.display()))
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
    let writes = !prepared.readonly();
    procedure.writes |= writes;
    drop(prepared);
    let statement = SqliteStatement { sql, parameters, assigns, writes };
    procedure.steps.push(ProcedureStep::Statement(statement));
    Ok(())
}

impl SqliteProcedure {
    fn statements(&self) -> impl Iterator<Item = &SqliteStatement> {
        self.steps.iter().filter_map(|step| match step {
            ProcedureStep::Statement(statement) => Some(statement),
            ProcedureStep::Transaction(_) => None,
        })
    }

    /// Sets the parameters that the file's head declares.
    fn declare(&mut self, declared: Vec<DeclaredParameter>) -> Result<(), String> {
        let names: BTreeSet<String> = declared.iter().map(|one| one.name.clone()).collect();
        if let Some(name) = self.inputs.difference(&names).next() {
            return Err(format!("@{name} is used, but neither declared nor set before"));
        }
        self.inputs = names;
        let outputs = declared.iter().filter(|one| one.is_output).map(|one| one.name.clone());
        self.variables.extend(outputs);
        self.declared = Some(declared);
        Ok(())
    }

    /// Returns the declared parameters or, if the file has no head, the names of the parameters in
    /// order of first use.
    pub(super) fn parameters(&self) -> Result<&[DeclaredParameter], Vec<&str>> {
        if let Some(declared) = &self.declared {
            return Ok(declared);
        }
        let mut parameters: Vec<&str> = Vec::new();
        for name in self.statements().flat_map(|statement| &statement.parameters) {
            if self.inputs.contains(name) && !parameters.contains(&name.as_str()) {
                parameters.push(name);
            }
        }
        Err(parameters)
    }

    /// Checks that all arguments of a call are parameters of the procedure and fit their declared
    /// types, and that no required parameter is missing.
    pub(super) fn check_arguments(
        &self,
        name: &str,
        arguments: &[Argument],
    ) -> Result<(), BackendError> {
        let unknown = arguments.iter().find(|argument| !self.inputs.contains(&*argument.name));
        if let Some(argument) = unknown {
            return Err(BackendError::mismatch(name, self.unknown(&argument.name)));
        }
        let is_given =
            |one: &DeclaredParameter| arguments.iter().any(|given| *given.name == one.name);
        let declared = self.declared.iter().flatten();
        // SQL Server reports error 201.
        if let Some(missing) = declared.clone().find(|one| one.is_required() && !is_given(one)) {
            let text = format!("it expects @{}, which was not supplied", missing.name);
            return Err(BackendError::mismatch(name, text));
        }
        let bad: Vec<BadArgument> = declared
            .filter_map(|one| {
                let given = arguments.iter().find(|given| *given.name == one.name)?;
                let ParameterValue::Text(text) = &given.value else { return None };
                let is_long = text.encode_utf16().count() > one.declared.text_length()?;
                let reason = format!("longer than {}", one.declared);
                is_long.then(|| BadArgument { argument: one.name.clone(), cell: None, reason })
            })
            .collect();
        if bad.is_empty() { Ok(()) } else { Err(BackendErrorKind::Arguments(bad).into()) }
    }

    /// Returns the initial variables of a call: its arguments, and the defaults of the parameters
    /// for which it has no argument.
    pub(super) fn bind(&self, arguments: &[Argument]) -> Vec<(String, SqlValue)> {
        let given = arguments.iter().map(|one| (one.name.to_string(), types::bind(one)));
        let mut variables: Vec<(String, SqlValue)> = given.collect();
        for one in self.declared.iter().flatten() {
            let is_given = arguments.iter().any(|given| *given.name == one.name);
            if let Some(value) = one.default.as_ref().filter(|_| !is_given) {
                variables.push((one.name.clone(), value.clone()));
            }
        }
        variables
    }

    /// Returns the names of the parameters that are declared OUTPUT.
    pub(super) fn declared_outputs(&self) -> impl Iterator<Item = &str> {
        let declared = self.declared.iter().flatten();
        declared.filter(|one| one.is_output).map(|one| one.name.as_str())
    }

    /// Returns whether the catalogue must pass a parameter.
    fn is_required(&self, name: &str) -> bool {
        let declared = self.declared.iter().flatten().find(|one| one.name == name);
        declared.is_none_or(DeclaredParameter::is_required)
    }

    /// Checks that the catalogue passes every input without a default, and passes nothing that is
    /// not an input. Also checks that the catalogue returns only variables that a statement sets.
    pub(super) fn compare(&self, expected: &ExpectedProcedure) -> Result<(), BackendError> {
        let given: BTreeSet<&str> = expected.arguments.iter().map(|(name, _)| &**name).collect();
        let mut differences: Vec<String> = given
            .iter()
            .filter(|name| !self.inputs.contains(**name))
            .map(|name| self.unknown(name))
            .collect();
        let missing = self.inputs.iter().filter(|name| !given.contains(name.as_str()));
        for name in missing.filter(|name| self.is_required(name)) {
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
            assert_eq!(file_of(name.as_str()), format!("{file}.sql"));
            assert_eq!(name_of(file).unwrap(), name);
        }
        assert!(name_of("readme").is_err());
    }
}
