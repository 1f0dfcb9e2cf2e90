//! A procedure as its file has it, and what it needs and gives.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::Connection;

use crate::procedures::{Argument, BackendError, Need};

use super::{errors, script, types};

/// Largest file of a procedure, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The variable that becomes the RETURN status and ends the procedure.
pub(super) const RETURN: &str = "return";

/// A procedure.
#[derive(Debug)]
pub(super) struct Procedure {
    pub(super) statements: Vec<Statement>,
    /// Whether any statement writes: then it starts with the write lock.
    pub(super) writes: bool,
    /// Parameters that must come from outside.
    takes: BTreeSet<String>,
    /// Variables that its statements set.
    sets: BTreeSet<String>,
}

/// One statement.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) sql: String,
    /// Its parameters in the order of their numbers, without `@`.
    pub(super) parameters: Vec<String>,
    /// Whether its columns are variables, not a result set.
    pub(super) assigns: bool,
}

/// The name of a variable, when a column is one: `@id` sets `id`.
pub(super) fn variable(column: &str) -> Option<&str> {
    column.strip_prefix('@').filter(|name| !name.is_empty())
}

/// Reads and prepares a procedure. Blocks.
pub(super) fn load(
    connection: &Connection,
    directory: &Path,
    name: &str,
) -> Result<Procedure, BackendError> {
    let text = read(directory, name)?;
    let texts = script::statements(&text).map_err(|error| errors::mismatch(name, error))?;
    let mut procedure = Procedure {
        statements: Vec::with_capacity(texts.len()),
        writes: false,
        takes: BTreeSet::new(),
        sets: BTreeSet::new(),
    };
    for sql in texts {
        inspect(&mut procedure, connection, name, sql)?;
    }
    Ok(procedure)
}

fn read(directory: &Path, name: &str) -> Result<String, BackendError> {
    let path = directory.join(format!("{name}.sql"));
    let too_large = || errors::mismatch(name, "its file is larger than 1 MiB");
    match std::fs::metadata(&path) {
        Ok(file) if file.len() > FILE_BYTES_MAX => return Err(too_large()),
        _ => {}
    }
    std::fs::read_to_string(&path).map_err(|error| {
        errors::mismatch(
            name,
            format!("the catalogue names it, its file {name}.sql cannot be read: {error}"),
        )
    })
}

fn inspect(
    procedure: &mut Procedure,
    connection: &Connection,
    name: &str,
    sql: String,
) -> Result<(), BackendError> {
    let prepared =
        connection.prepare_cached(&sql).map_err(|error| errors::of_preparing(name, error))?;
    let mut parameters = Vec::with_capacity(prepared.parameter_count());
    for index in 1..=prepared.parameter_count() {
        let plain = prepared
            .parameter_name(index)
            .and_then(|text| text.strip_prefix(['@', ':', '$']))
            .ok_or_else(|| errors::mismatch(name, "a parameter has no name"))?;
        if !procedure.sets.contains(plain) {
            procedure.takes.insert(plain.to_owned());
        }
        parameters.push(plain.to_owned());
    }
    let columns: Vec<String> =
        prepared.columns().map(|c| types::column(c.name(), None).0).collect();
    let variables: Vec<&str> = columns.iter().filter_map(|column| variable(column)).collect();
    if !variables.is_empty() && variables.len() < columns.len() {
        return Err(errors::mismatch(name, "a statement has both columns and @variables"));
    }
    let assigns = !variables.is_empty();
    procedure.sets.extend(variables.into_iter().map(ToOwned::to_owned));
    procedure.writes = procedure.writes || !prepared.readonly();
    drop(prepared);
    procedure.statements.push(Statement { sql, parameters, assigns });
    Ok(())
}

impl Procedure {
    /// The parameters that must come from outside, in the order of their first use.
    pub(super) fn takes(&self) -> Vec<&str> {
        let mut takes: Vec<&str> = Vec::new();
        for name in self.statements.iter().flat_map(|statement| &statement.parameters) {
            if self.takes.contains(name) && !takes.contains(&name.as_str()) {
                takes.push(name);
            }
        }
        takes
    }

    /// Checks that the arguments of a call are known to it.
    pub(super) fn accept(&self, name: &str, arguments: &[Argument]) -> Result<(), BackendError> {
        match arguments.iter().find(|argument| !self.takes.contains(&*argument.name)) {
            Some(argument) => Err(errors::mismatch(name, self.unknown(&argument.name))),
            None => Ok(()),
        }
    }

    /// Checks that an endpoint and the procedure fit, both ways.
    pub(super) fn fits(&self, need: &Need) -> Result<(), BackendError> {
        let given: BTreeSet<&str> = need.arguments.iter().map(|(name, _)| &**name).collect();
        let mut differences: Vec<String> = given
            .iter()
            .filter(|name| !self.takes.contains(**name))
            .map(|name| self.unknown(name))
            .collect();
        for name in self.takes.iter().filter(|name| !given.contains(name.as_str())) {
            differences
                .push(format!("the procedure needs @{name}, the catalogue gives {}", list(&given)));
        }
        for output in need.outputs.iter().filter(|output| !self.sets.contains(output.as_str())) {
            let sets = list(&self.sets.iter().map(String::as_str).collect());
            differences
                .push(format!("the catalogue needs output @{output}, the procedure sets {sets}"));
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(errors::mismatch(need.procedure.as_str(), differences.join("; ")))
    }

    fn unknown(&self, name: &str) -> String {
        let takes = list(&self.takes.iter().map(String::as_str).collect());
        format!("the catalogue gives @{name}, the procedure takes {takes}")
    }
}

fn list(names: &BTreeSet<&str>) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("@{name}")).collect::<Vec<_>>().join(", ")
}
