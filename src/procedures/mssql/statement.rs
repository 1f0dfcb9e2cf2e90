//! A call as a statement, for what a remote procedure call cannot say.
//!
//! The driver sends a NULL of most types without its type, and declares an OUTPUT parameter only as wide as the value
//! that it sends: a `nvarchar(max)` would come back cut, a `decimal` overflow. A statement declares variables of the
//! procedure's own types instead. It is made of the procedure's and its parameters' names and of type names, all read
//! from the database and checked; every value is a parameter of the statement.

use std::fmt::Write as _;

use tiberius::{ColumnData, Query};

use super::bind::{Bound, Data, mismatch};
use super::types;
use crate::catalogue::ProcedureName;
use crate::procedures::BackendError;

/// The name of the column that carries the RETURN status: it marks the set that is ours.
pub(super) const RETURN_COLUMN: &str = "fjord return";

/// A statement that calls a procedure, and the parameters that its last set returns after the RETURN status.
#[derive(Debug)]
pub(super) struct Statement<'a> {
    /// The statement with its values.
    pub(super) query: Query<'a>,
    /// The OUTPUT parameters, in the order of the last set's columns.
    pub(super) outputs: Vec<String>,
}

/// Whether a statement can pass these: not with tables.
pub(super) fn can_pass(bound: &[Bound<'_>]) -> bool {
    bound.iter().all(|one| matches!(one.data, Data::Scalar(..)))
}

/// Makes the statement of a call.
pub(super) fn statement<'a>(
    procedure: &ProcedureName,
    bound: Vec<Bound<'a>>,
) -> Result<Statement<'a>, BackendError> {
    let mut variables = String::from("DECLARE @fjord_return int");
    let mut arguments = String::new();
    let mut results = format!("SELECT @fjord_return AS [{RETURN_COLUMN}]");
    let mut values: Vec<ColumnData<'a>> = Vec::new();
    let mut outputs = Vec::new();
    for Bound { parameter, data } in bound {
        let Data::Scalar(sql, value) = data else { continue };
        let name = &parameter.name;
        if !is_plain(name) {
            let difference = format!("a parameter's name needs quoting in the database: {name}");
            return Err(mismatch(procedure, difference));
        }
        let passed = if value == types::null(sql) {
            "NULL".to_owned()
        } else {
            values.push(value);
            format!("@P{}", values.len())
        };
        let separator = if arguments.is_empty() { "" } else { "," };
        let written = if parameter.is_output {
            let variable = format!("@fjord_{}", outputs.len());
            outputs.push(parameter.bare_name().to_owned());
            // The driver reads not every code page.
            let result = sql
                .as_nvarchar()
                .map_or_else(|| variable.clone(), |wide| format!("CAST({variable} AS {wide})"));
            write!(variables, ", {variable} {sql} = {passed}")
                .and_then(|()| write!(results, ", {result}"))
                .and_then(|()| write!(arguments, "{separator} {name} = {variable} OUTPUT"))
        } else {
            write!(arguments, "{separator} {name} = {passed}")
        };
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }
    let (schema, name) = (procedure.schema(), procedure.procedure());
    let text =
        format!("{variables}; EXEC @fjord_return = [{schema}].[{name}]{arguments}; {results};");
    let mut query = Query::new(text);
    for value in values {
        query.bind(value);
    }
    Ok(Statement { query, outputs })
}

/// Whether a parameter's name can stand in a statement as it is.
fn is_plain(name: &str) -> bool {
    name.strip_prefix('@').is_some_and(|bare| {
        !bare.is_empty()
            && bare.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '#' | '@'))
    })
}
