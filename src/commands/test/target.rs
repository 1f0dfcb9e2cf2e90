//! The target of the examples: a gateway or the procedures themselves.

use std::sync::Arc;

use bytes::Bytes;
use http::header::ACCEPT;

use super::TestError;
use super::database_copies::DatabaseCopies;
use super::evaluation::HttpAnswer;
use super::gateway_client::GatewayClient;
use super::result::TargetError;
use crate::catalogue::{Catalogue, Endpoint, Example, ExampleRequest};
use crate::config::Config;
use crate::local_api::{LocalApi, OpenFunction};

/// The target of all examples.
#[derive(Debug)]
pub(super) enum ExampleTarget {
    /// A gateway.
    Gateway(GatewayClient),
    /// The databases in the worker's configuration.
    Procedures { api: Arc<dyn LocalApi> },
}

impl ExampleTarget {
    /// Opens the configured databases, or copies of them.
    ///
    /// # Errors
    /// Returns all reasons why the databases cannot be used.
    pub(super) async fn open_procedures(
        copies: Option<&DatabaseCopies>,
        mut config: Config,
        catalogue: &Arc<Catalogue>,
        open: OpenFunction,
    ) -> Result<Self, TestError> {
        if let Some(copies) = copies {
            copies.create(&mut config).await.map_err(|it| TestError::Failed(vec![it]))?;
        }
        let lines = |errors: Vec<crate::start_check::StartError>| {
            TestError::Usage(errors.iter().map(ToString::to_string).collect())
        };
        // Opening the databases includes reading files, which can block forever. The caller stops
        // waiting when a signal arrives.
        let catalogue = Arc::clone(catalogue);
        let opened = tokio::task::spawn_blocking(move || open(&config, &catalogue)).await;
        let opened = opened.map_err(|error| TestError::Failed(vec![error.to_string()]))?;
        let api = opened.map_err(lines)?;
        let errors = api.ping().await;
        if !errors.is_empty() {
            api.close().await;
            return Err(TestError::Failed(errors));
        }
        Ok(Self::Procedures { api })
    }

    /// Returns the reason why an endpoint's examples cannot be run, if there is one.
    pub(super) fn reason_to_skip(&self, endpoint: &Endpoint) -> Option<String> {
        match self {
            Self::Procedures { api } if !api.serves(endpoint) => Some(format!(
                "worker.queues contains no queue of the endpoint ({}), so no database is known",
                endpoint.queues.names()
            )),
            _ => None,
        }
    }

    /// Sends an example and waits for the answer. The caller must set a time limit.
    pub(super) async fn send(
        &self,
        endpoint: &Endpoint,
        example: &Example,
    ) -> Result<HttpAnswer, TargetError> {
        let mut request = ExampleRequest::new(endpoint, example);
        request.headers.entry(ACCEPT).or_insert(http::HeaderValue::from_static("*/*"));
        match self {
            Self::Gateway(client) => client.send(endpoint, request).await,
            Self::Procedures { api } => {
                let request = local_request(request).map_err(TargetError::Failed)?;
                let response = api.respond(request, example.caller.clone()).await;
                let (parts, body) = response.into_parts();
                let (status, headers) = (parts.status.as_u16(), parts.headers);
                Ok(HttpAnswer { status, headers, body })
            }
        }
    }

    /// Closes all connections.
    pub(super) async fn close(&self) {
        if let Self::Procedures { api } = self {
            api.close().await;
        }
    }
}

fn local_request(request: ExampleRequest) -> Result<http::Request<Bytes>, String> {
    let ExampleRequest { method, target, headers, body } = request;
    let built = http::Request::builder()
        .method(method)
        .uri(target)
        .body(Bytes::from(body.unwrap_or_default()));
    let mut request = built.map_err(|error| format!("the request cannot be built: {error}"))?;
    *request.headers_mut() = headers;
    Ok(request)
}
