//! The arguments of `fjord queue weight`.

use std::collections::BTreeMap;

use crate::catalogue::endpoint_queues::WEIGHT_MAX;
use crate::catalogue::{EndpointId, QueueName};
use crate::cli::QueueWeightArguments;
use crate::fleet::control::ControlCommand;

/// Returns the command that the arguments describe.
///
/// # Errors
/// Returns a message about the first invalid argument.
pub(super) fn command(arguments: &QueueWeightArguments) -> Result<ControlCommand, String> {
    let endpoint = &arguments.endpoint;
    let endpoint =
        EndpointId::new(endpoint).map_err(|error| format!("endpoint {endpoint}: {error}"))?;
    let mut weights = BTreeMap::new();
    for argument in &arguments.weights {
        let (queue, weight) = parse(argument)?;
        if weights.insert(queue.to_string(), weight).is_some() {
            return Err(format!("{queue}: given more than once"));
        }
    }
    Ok(ControlCommand::WeighQueues { endpoint: endpoint.to_string(), weights })
}

fn parse(argument: &str) -> Result<(QueueName, u32), String> {
    let parsed = argument.split_once('=').and_then(|(queue, weight)| {
        let weight = weight.parse().ok().filter(|weight| *weight <= WEIGHT_MAX)?;
        Some((QueueName::new(queue).ok()?, weight))
    });
    parsed.ok_or_else(|| {
        format!("{argument}: expected QUEUE=WEIGHT, with a whole number from 0 to {WEIGHT_MAX}")
    })
}
