//! Calls a procedure with an EXEC statement if a remote procedure call cannot pass its arguments.
//!
//! In a remote procedure call, the driver sends most NULLs without a type, and declares an OUTPUT
//! parameter only as wide as its input value: an `nvarchar(max)` would be truncated, a `decimal`
//! would overflow. A statement declares variables of the procedure's own types instead. Its text
//! contains only the procedure's name, and parameter and type names that were read from the
//! database and checked; every value is a parameter.

use std::fmt::Write as _;

use tiberius::{ColumnData, Query};

use super::bind::{BoundParameter, BoundValue};
use crate::catalogue::ProcedureName;
use crate::procedures::BackendError;
use crate::procedures::mssql::types;

/// The column with the RETURN status. Its name identifies the result set that the statement adds.
pub(super) const RETURN_COLUMN: &str = "fjord return";

/// A statement that calls a procedure.
#[derive(Debug)]
pub(super) struct Statement<'a> {
    /// The statement with the values of its parameters.
    pub(super) query: Query<'a>,
    /// The OUTPUT parameters, in the order of their columns after the RETURN status.
    pub(super) outputs: Vec<String>,
}

/// Returns whether a statement can pass these arguments. Tables cannot be passed.
pub(super) fn can_pass(bound: &[BoundParameter<'_>]) -> bool {
    bound.iter().all(|one| matches!(one.data, BoundValue::Scalar(..)))
}

/// Builds the statement for a call.
pub(super) fn statement<'a>(
    procedure: &ProcedureName,
    bound: Vec<BoundParameter<'a>>,
) -> Result<Statement<'a>, BackendError> {
    let mut variables = String::from("DECLARE @fjord_return int");
    let mut arguments = String::new();
    let mut results = format!("SELECT @fjord_return AS [{RETURN_COLUMN}]");
    let mut values: Vec<ColumnData<'a>> = Vec::new();
    let mut outputs = Vec::new();
    for BoundParameter { parameter, data } in bound {
        let BoundValue::Scalar(sql, value) = data else { continue };
        let name = &parameter.name;
        if !is_plain(name) {
            let difference = format!("the parameter name {name} needs quoting");
            return Err(BackendError::mismatch(procedure.as_str(), difference));
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
            // The driver cannot read text in every code page.
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

/// Returns whether a parameter's name can be part of a statement without quoting.
fn is_plain(name: &str) -> bool {
    name.strip_prefix('@').is_some_and(|bare| {
        !bare.is_empty()
            && bare.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '#' | '@'))
    })
}
