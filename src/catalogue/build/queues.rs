//! Validates the queues of an endpoint: `queue`, or `queues` with weights.

use std::collections::HashSet;

use serde_json::value::RawValue;

use super::PROCEDURE_HANDLER;
use crate::catalogue::definition::EndpointDefinition;
use crate::catalogue::definition::json::RawMembers;
use crate::catalogue::definition::keys::{message, valid_simple_keys};
use crate::catalogue::definition::queues::{QueueDefinition, QueueSettings, Weight};
use crate::catalogue::endpoint_queues::{EndpointQueue, EndpointQueues, QUEUES_MAX, WEIGHT_MAX};
use crate::catalogue::error::EndpointErrors;
use crate::catalogue::names::{EndpointId, ProcedureName, QueueName};

/// The keys of a definition that describe the queues.
pub(super) struct QueueKeys {
    queue: Option<String>,
    queues: Option<Box<RawValue>>,
    procedure: Option<String>,
}

impl QueueKeys {
    /// Takes the keys out of a definition.
    pub(super) fn take(definition: &mut EndpointDefinition) -> Self {
        Self {
            queue: definition.queue.take(),
            queues: definition.queues.take(),
            procedure: definition.procedure.take(),
        }
    }

    /// Returns the queues of an endpoint. By default, the endpoint has a single queue whose name is
    /// its id.
    pub(super) fn validate(
        self,
        handler: &str,
        id: Option<&EndpointId>,
        errors: &mut EndpointErrors<'_>,
    ) -> Option<EndpointQueues> {
        let written = self.procedure.as_deref();
        let procedure = written.and_then(|name| procedure("procedure", name, errors));
        let queues = match &self.queues {
            None => {
                let name = single(self.queue.as_deref(), id, errors);
                name.map(|name| vec![EndpointQueue { name, procedure, weight: 1 }])
            }
            Some(raw) => {
                if self.queue.is_some() {
                    errors.add("queues", "expected either `queue` or `queues`, not both");
                }
                several(raw, procedure.as_ref(), errors)
            }
        };
        let lacks_procedure = match &queues {
            Some(queues) => queues.iter().any(|queue| queue.procedure.is_none()),
            // Queues that could not be read may have their own procedures.
            None => self.queues.is_none(),
        };
        let is_explained = ["handler", "queues"].iter().any(|key| errors.is_absence_explained(key));
        if handler == PROCEDURE_HANDLER && written.is_none() && lacks_procedure && !is_explained {
            let expected = "the handler `procedure` needs it, e.g. \"dbo.horse_get\"";
            errors.add_missing("procedure", expected);
        }
        EndpointQueues::new(queues?)
    }
}

fn procedure(key: &str, name: &str, errors: &mut EndpointErrors<'_>) -> Option<ProcedureName> {
    ProcedureName::new(name).map_err(|error| errors.add(key, error.to_string())).ok()
}

fn single(
    written: Option<&str>,
    id: Option<&EndpointId>,
    errors: &mut EndpointErrors<'_>,
) -> Option<QueueName> {
    let queue = written.map(QueueName::new).transpose();
    let queue = queue.map_err(|error| errors.add("queue", error.to_string())).ok().flatten();
    queue.or_else(|| QueueName::new(id?.as_str()).ok())
}

/// Reads `queues`, and collects the errors of all of its members.
fn several(
    raw: &RawValue,
    default: Option<&ProcedureName>,
    errors: &mut EndpointErrors<'_>,
) -> Option<Vec<EndpointQueue>> {
    let Ok(members) = serde_json::from_str::<RawMembers<'_>>(raw.get()) else {
        let expected = "expected an object with a weight for each queue, e.g. {\"horse-get\": 95, \"horse-get-v2\": 5}";
        errors.add("queues", expected);
        return None;
    };
    if !(1..=QUEUES_MAX).contains(&members.0.len()) {
        errors.add("queues", format!("expected 1 to {QUEUES_MAX} queues"));
        return None;
    }
    let before = errors.list.len();
    let mut names = HashSet::new();
    let mut queues = Vec::with_capacity(members.0.len());
    for (name, raw) in members.0 {
        let key = format!("queues.{name}");
        if !names.insert(name.clone()) {
            errors.add(&key, "given more than once");
        }
        let valid = QueueName::new(&name).map_err(|error| errors.add(&key, error.to_string()));
        let Some((weight, own)) = member(&key, raw, errors) else { continue };
        let procedure = own.or_else(|| default.cloned());
        queues.extend(valid.map(|name| EndpointQueue { name, procedure, weight }));
    }
    if errors.list.len() > before {
        return None;
    }
    if queues.iter().all(|queue| queue.weight == 0) {
        errors.add("queues", "expected at least one weight above 0");
        return None;
    }
    Some(queues)
}

/// Reads the weight of a queue and, if the queue has its own procedure, that procedure.
fn member(
    key: &str,
    raw: &RawValue,
    errors: &mut EndpointErrors<'_>,
) -> Option<(u32, Option<ProcedureName>)> {
    let (weight, name) = match definition(key, raw, errors)? {
        QueueDefinition::Weight(weight) => (weight, None),
        QueueDefinition::Settings(QueueSettings { weight, procedure }) => {
            if weight.is_none() {
                errors.add_missing(format!("{key}.weight"), "the queue needs a weight");
            }
            (weight?, procedure)
        }
    };
    if weight.0 > WEIGHT_MAX {
        errors.add(key, format!("expected a weight from 0 to {WEIGHT_MAX}, got {}", weight.0));
    }
    match name {
        None => Some((weight.0, None)),
        Some(name) => {
            procedure(&format!("{key}.procedure"), &name, errors).map(|name| (weight.0, Some(name)))
        }
    }
}

fn definition(
    key: &str,
    raw: &RawValue,
    errors: &mut EndpointErrors<'_>,
) -> Option<QueueDefinition> {
    if raw.get().starts_with('{') {
        let valid = valid_simple_keys::<QueueSettings>(raw, &format!("{key}."), errors)?;
        let settings = serde_json::from_str(&valid);
        return settings
            .map_err(|error| errors.add(key, message(&error)))
            .map(QueueDefinition::Settings)
            .ok();
    }
    serde_json::from_str::<Weight>(raw.get())
        .map_err(|error| errors.add(key, message(&error)))
        .map(QueueDefinition::Weight)
        .ok()
}

#[cfg(test)]
mod tests;
