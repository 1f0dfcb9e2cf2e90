//! The catalogue: the definitions of all endpoints, which both roles read from the same JSON files.

pub mod auth;
mod build;
pub mod cache;
pub mod cors;
pub mod defaults;
pub mod definition;
pub mod endpoint;
pub mod error;
pub mod load;
pub mod names;
pub mod openapi;
pub mod parameter;
pub mod pattern;
pub mod payload;
pub mod representation;
pub mod response_header;
pub mod returns;
pub mod route;
pub mod schema;
pub mod uri;
pub mod validate;
pub mod value;
pub mod violations;

pub use auth::{Auth, AuthMethod};
pub use cache::CacheRules;
pub use defaults::EndpointDefaults;
pub use endpoint::{Endpoint, Execution, OnDisconnect, ResultKind, StatusMap};
pub use error::{CatalogueError, TextPosition};
pub use load::{Catalogue, load};
pub use names::{EndpointId, ProcedureName, QueueName};
pub use parameter::{Parameter, ParameterSource, ParameterType};
pub use representation::Representation;
pub use response_header::ResponseHeader;
pub use returns::{ReturnColumn, Returns};
pub use value::{ParameterValue, ReceivedValue};
