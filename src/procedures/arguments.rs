//! Converts the validated values of a request to the arguments of a procedure.

use std::sync::Arc;

use super::Argument;
use crate::catalogue::{Endpoint, Parameter, ParameterType, ParameterValue};

/// Returns the arguments for values that are paired with the indices of their parameters.
#[must_use]
pub fn arguments(
    endpoint: &Endpoint,
    values: Vec<(usize, ParameterValue<'static>)>,
) -> Vec<Argument> {
    let argument = |(index, value): (usize, ParameterValue<'static>)| {
        let parameter: &Parameter = endpoint.parameters.get(index)?;
        Some(Argument {
            name: Arc::clone(&parameter.argument),
            kind: parameter.kind,
            value,
            columns: columns(parameter),
            table_type: parameter.table_type.clone(),
        })
    };
    values.into_iter().filter_map(argument).collect()
}

fn columns(parameter: &Parameter) -> Arc<[(Arc<str>, ParameterType)]> {
    if parameter.columns.is_empty() {
        return Arc::default();
    }
    parameter.columns.iter().map(|column| (Arc::clone(&column.argument), column.kind)).collect()
}
