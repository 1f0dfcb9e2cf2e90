//! Answers requests in this process, with the gateway's and the worker's code but without the dispatch between them.

use std::sync::Arc;

use bytes::Bytes;

use crate::catalogue::{Catalogue, Endpoint, ExampleCaller};
use crate::config::Config;
use crate::future::BoxFuture;
use crate::local_api::LocalApi;
use crate::start_check::StartError;

use super::gateway::client::caller::Caller;
use super::gateway::pipeline::LocalGateway;
use super::worker::local::LocalWorker;

/// A gateway and a worker without NATS.
#[derive(Debug)]
struct LocalRoles {
    gateway: LocalGateway,
    worker: LocalWorker,
}

/// Opens the databases of a worker's configuration. Connects to none of them yet.
///
/// # Errors
/// All errors in the configuration and the catalogue.
pub fn open(
    config: &Config,
    catalogue: &Arc<Catalogue>,
) -> Result<Arc<dyn LocalApi>, Vec<StartError>> {
    let worker = LocalWorker::open(config, catalogue)?;
    let gateway = LocalGateway::new(catalogue).map_err(|conflicts| {
        let conflict = |expected| StartError::at_key("catalogue.directory", expected);
        conflicts.into_iter().map(conflict).collect::<Vec<_>>()
    })?;
    Ok(Arc::new(LocalRoles { gateway, worker }))
}

impl LocalApi for LocalRoles {
    fn serves(&self, endpoint: &Endpoint) -> bool {
        self.worker.serves(endpoint)
    }

    fn ping(&self) -> BoxFuture<'_, Vec<String>> {
        Box::pin(self.worker.ping())
    }

    fn respond(
        &self,
        request: http::Request<Bytes>,
        caller: ExampleCaller,
    ) -> BoxFuture<'_, http::Response<Bytes>> {
        let ExampleCaller { principal, claims } = caller;
        let caller = Caller { principal, claims, ..Caller::default() };
        Box::pin(async move {
            let execute = |endpoint, request| self.worker.execute(endpoint, request);
            self.gateway.respond(request, caller, execute).await
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.worker.close())
    }
}
