//! The catalogue: every endpoint, read by both roles from the same JSON files.

mod build;
pub mod check;
pub mod cors;
pub mod endpoint;
pub mod error;
pub mod findings;
pub mod load;
pub mod names;
pub mod openapi;
pub mod parameter;
pub mod payload;
pub mod route;
pub mod schema;
pub mod value;
pub mod written;

pub(crate) use build::issuers_error;
pub use endpoint::{Endpoint, Execution, OnDisconnect, ResultKind, StatusMap};
pub use error::CatalogueError;
pub use load::{Catalogue, load};
pub use names::{EndpointId, ProcedureName, QueueName};
pub use parameter::{Parameter, ParameterType, Place};
pub use value::Value;
