//! The catalogue: every endpoint, read by both roles from the same JSON files.

mod build;
pub mod check;
pub mod cors;
pub mod endpoint;
pub mod findings;
pub mod load;
pub mod mistake;
pub mod names;
pub mod openapi;
pub mod parameter;
pub mod payload;
pub mod route;
pub mod schema;
pub mod value;
pub mod written;

pub(crate) use build::issuers_mistake;
pub use endpoint::{Endpoint, Execution, OnDisconnect, ResultKind, StatusMap};
pub use load::{Catalogue, load};
pub use mistake::Mistake;
pub use names::{EndpointId, ProcedureName, QueueName};
pub use parameter::{Parameter, ParameterType, Place};
pub use value::Value;
