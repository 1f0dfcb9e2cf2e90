//! The handlers that a catalogue can name: one line each.

use std::sync::Arc;

use crate::procedures::databases::Database;

use super::{echo, procedure};
use crate::roles::worker::QueueHandler;

type Make = fn(&Tools) -> Result<Arc<dyn QueueHandler>, HandlerError>;

/// Name in the catalogue to constructor.
const HANDLERS: &[(&str, Make)] = &[("procedure", procedure::make), ("echo", echo::make)];

/// What a worker has for the handlers of a queue.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The database that the queue's configuration chooses, when there is one.
    pub database: Option<Database>,
    /// Largest answer in bytes.
    pub answer_bytes_max: usize,
}

/// Why a queue has no handler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandlerError {
    /// No handler has this name.
    #[error("no handler is called '{name}', expected one of: {known}")]
    Unknown {
        /// The name in the catalogue.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// The handler runs procedures and the queue has no database.
    #[error("the handler 'procedure' needs a database, none is configured for the queue")]
    NeedsDatabase,
}

/// Makes the handler that an endpoint names.
///
/// # Errors
/// `HandlerError` when there is none of this name or something that it needs is missing.
pub fn make(name: &str, tools: &Tools) -> Result<Arc<dyn QueueHandler>, HandlerError> {
    let known = HANDLERS.iter().find(|(known, _)| *known == name);
    known.map_or_else(
        || {
            let known = names().collect::<Vec<_>>().join(", ");
            Err(HandlerError::Unknown { name: name.to_owned(), known })
        },
        |(_, make)| make(tools),
    )
}

/// The names of all handlers.
pub fn names() -> impl Iterator<Item = &'static str> {
    HANDLERS.iter().map(|(name, _)| *name)
}
