//! The API for `fjord test`, without NATS and without a gateway process. It applies a gateway's rules, and uses a
//! worker's handlers and databases.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

use crate::catalogue::{Catalogue, Endpoint, ExampleCaller};
use crate::config::Config;
use crate::future::BoxFuture;
use crate::start_check::StartError;

/// Answers requests as a gateway and a worker would. However, callers are not authenticated, and no rate or memory
/// limit applies.
pub trait LocalApi: Debug + Send + Sync {
    /// Returns whether a queue in the worker's configuration serves an endpoint.
    fn serves(&self, endpoint: &Endpoint) -> bool;

    /// Connects to every database and creates embedded ones. Returns the errors of the databases that do not respond.
    fn ping(&self) -> BoxFuture<'_, Vec<String>>;

    /// Answers a request.
    fn respond(
        &self,
        request: http::Request<Bytes>,
        caller: ExampleCaller,
    ) -> BoxFuture<'_, http::Response<Bytes>>;

    /// Closes all connections.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A function that opens the API. `main` passes the roles' function to `fjord test`, because shared code must not refer
/// to a role.
pub type OpenFunction = fn(&Config, &Arc<Catalogue>) -> Result<Arc<dyn LocalApi>, Vec<StartError>>;
