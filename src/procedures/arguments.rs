//! From an endpoint's checked values to the arguments of its procedure.

use std::sync::Arc;

use super::{Argument, Need};
use crate::catalogue::{Endpoint, Parameter, ParameterType, ParameterValue};

/// The arguments of one call, from values with the index of their parameter.
#[must_use]
pub fn arguments(
    endpoint: &Endpoint,
    values: Vec<(usize, ParameterValue<'static>)>,
) -> Vec<Argument> {
    let parameters = &endpoint.parameters;
    let with = |(index, value): (usize, ParameterValue<'static>)| {
        let parameter: &Parameter = parameters.get(index)?;
        Some(Argument {
            name: Arc::clone(&parameter.argument),
            kind: parameter.kind,
            value,
            columns: columns(parameter),
            table_type: parameter.table_type.clone(),
        })
    };
    values.into_iter().filter_map(with).collect()
}

fn columns(parameter: &Parameter) -> Arc<[(Arc<str>, ParameterType)]> {
    if parameter.columns.is_empty() {
        return Arc::default();
    }
    parameter.columns.iter().map(|column| (Arc::clone(&column.argument), column.kind)).collect()
}

/// What an endpoint needs of its procedure; `None` when its handler runs none.
#[must_use]
pub fn need(endpoint: &Endpoint) -> Option<Need> {
    Some(Need {
        queue: endpoint.queue.clone(),
        procedure: endpoint.procedure.clone()?,
        arguments: endpoint
            .parameters
            .iter()
            .map(|parameter| (Arc::clone(&parameter.argument), parameter.kind))
            .collect(),
        outputs: endpoint.outputs.clone(),
    })
}
