//! Converts the validated values of a request to the arguments of a procedure.

use std::sync::Arc;

use super::Argument;
use crate::catalogue::{Endpoint, Parameter, ParameterType, ParameterValue};

/// The values of a request, by destination.
#[derive(Clone, Debug, Default)]
pub struct RequestArguments {
    /// The arguments of the procedure.
    pub procedure: Vec<Argument>,
    /// The values for the session context.
    pub session: Vec<Argument>,
}

/// Returns the arguments for `values`, each of which is paired with the index of its parameter.
#[must_use]
pub fn arguments(
    endpoint: &Endpoint,
    values: Vec<(usize, ParameterValue<'static>)>,
) -> RequestArguments {
    let mut arguments = RequestArguments::default();
    for (index, value) in values {
        let Some(parameter) = endpoint.parameters.get(index) else { continue };
        let argument = Argument {
            name: Arc::clone(&parameter.argument),
            kind: parameter.kind,
            value,
            columns: columns(parameter),
            table_type: parameter.table_type.clone(),
        };
        let destination = if parameter.session_context {
            &mut arguments.session
        } else {
            &mut arguments.procedure
        };
        destination.push(argument);
    }
    arguments
}

fn columns(parameter: &Parameter) -> Arc<[(Arc<str>, ParameterType)]> {
    if parameter.columns.is_empty() {
        return Arc::default();
    }
    parameter.columns.iter().map(|column| (Arc::clone(&column.argument), column.kind)).collect()
}
