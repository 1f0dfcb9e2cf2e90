//! The handlers that a catalogue can name.

use std::sync::Arc;

use super::handler::{HandlerContext, HandlerError, QueueHandler};
use super::{echo, procedure};

type Constructor = fn(&HandlerContext) -> Result<Arc<dyn QueueHandler>, HandlerError>;

/// All handlers, each with its name in the catalogue and its constructor.
const HANDLERS: &[(&str, Constructor)] = &[("procedure", procedure::new), ("echo", echo::new)];

/// Creates the handler that an endpoint names.
///
/// # Errors
/// `HandlerError` if no handler has the name, or if the handler needs a database that is missing.
pub fn create(name: &str, context: &HandlerContext) -> Result<Arc<dyn QueueHandler>, HandlerError> {
    let known = HANDLERS.iter().find(|(known, _)| *known == name);
    known.map_or_else(
        || {
            let known = names().collect::<Vec<_>>().join(", ");
            Err(HandlerError::Unknown { name: name.to_owned(), known })
        },
        |(_, new)| new(context),
    )
}

/// Returns the names of all handlers.
pub fn names() -> impl Iterator<Item = &'static str> {
    HANDLERS.iter().map(|(name, _)| *name)
}
