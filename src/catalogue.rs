//! The catalogue: every endpoint, read by both roles from the same JSON files.

pub mod endpoint;
pub mod names;
pub mod parameter;
pub mod value;

pub use endpoint::{Endpoint, Execution, OnDisconnect, ResultKind, StatusMap};
pub use names::{EndpointId, ProcedureName, QueueName};
pub use parameter::{Parameter, ParameterType, Place};
pub use value::Value;
