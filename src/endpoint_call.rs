//! The call that `fjord call` makes through the gateway's dispatcher without running a gateway.

use std::sync::Arc;
use std::time::Duration;

use crate::catalogue::{Endpoint, QueueName};
use crate::config::Config;
use crate::envelope::{Final, Request};
use crate::future::BoxFuture;
use crate::messaging::{Transport, TransportError};
use crate::problem::Problem;

/// A checked request for one endpoint, with all the data needed to dispatch it.
#[derive(Debug)]
pub struct EndpointCall {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// The request in the form in which it is sent to a worker.
    pub request: Request,
    /// The configuration that the dispatcher uses.
    pub config: Config,
    /// The connection to the message bus.
    pub transport: Arc<dyn Transport>,
}

/// The result of an [`EndpointCall`].
#[derive(Debug)]
pub struct EndpointCallResult {
    /// A worker's answer, or the problem that a client would have received.
    pub answer: Result<Final, Problem>,
    /// The queue to which the request was sent.
    pub queue: QueueName,
    /// The number of attempts.
    pub attempts: u32,
    /// The time from the first attempt to the answer.
    pub duration: Duration,
    /// The duration of each phase in milliseconds.
    pub phases: Vec<(&'static str, f64)>,
}

/// A function that executes an [`EndpointCall`]. `main` passes the gateway's function to the
/// command, because shared code must not refer to a role.
pub type CallFunction =
    fn(EndpointCall) -> BoxFuture<'static, Result<EndpointCallResult, TransportError>>;
