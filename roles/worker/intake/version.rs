//! A version of a queue: its endpoints, as defined by one configuration of the worker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::catalogue::{Endpoint, EndpointId};
use crate::procedures::ExpectedProcedure;
use crate::procedures::databases::Verification;
use crate::roles::worker::execution::call_time::CallTime;
use crate::roles::worker::execution::handler::QueueHandler;

/// The endpoints of a queue, by id.
pub type ServedEndpoints = BTreeMap<EndpointId, ServedEndpoint>;

/// An endpoint of the queue and its handler.
#[derive(Clone, Debug)]
pub struct ServedEndpoint {
    /// The endpoint, restricted to this queue.
    pub endpoint: Arc<Endpoint>,
    /// The handler of the endpoint.
    pub handler: Arc<dyn QueueHandler>,
    /// The measured duration of calls to the endpoint. All versions of an endpoint share it.
    pub(super) call_time: Arc<CallTime>,
}

impl ServedEndpoint {
    /// Creates an endpoint whose calls have not been timed yet.
    #[must_use]
    pub fn new(endpoint: Arc<Endpoint>, handler: Arc<dyn QueueHandler>) -> Self {
        Self { endpoint, handler, call_time: Arc::default() }
    }
}

/// A version of a queue. A worker serves the newest version that its database has verified.
#[derive(Clone, Debug)]
pub struct QueueVersion {
    /// The number of the configuration, counted from 1.
    pub number: u64,
    /// The endpoints.
    pub endpoints: Arc<ServedEndpoints>,
    /// Whether the database has the queue's procedures, or `None` if the queue needs no procedures.
    pub verification: Option<watch::Receiver<Verification>>,
    /// The time to wait for the server to confirm that the worker has left the queue group.
    pub leave_timeout: Duration,
}

impl QueueVersion {
    /// Returns the reason why the version cannot be served, or `None` if the database has its procedures.
    #[must_use]
    pub fn problem(&self) -> Option<Arc<str>> {
        match &*self.verification.as_ref()?.borrow() {
            Verification::Passed => None,
            Verification::Failed(why) => Some(Arc::clone(why)),
        }
    }

    /// Waits until the result of the verification changes. Never returns if it cannot change. This method
    /// is cancel safe.
    pub async fn verification_changed(&self, seen: Option<&Arc<str>>) {
        let Some(mut verification) = self.verification.clone() else {
            return std::future::pending().await;
        };
        let is_other = |now: &Verification| match now {
            Verification::Passed => seen.is_some(),
            Verification::Failed(why) => seen != Some(why),
        };
        // An error means that the database was replaced, so the result is final.
        if verification.wait_for(is_other).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The version of a queue that is served, and the reason why no newer version is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionState {
    /// The number of the newest version.
    pub newest: u64,
    /// The number of the version that was served last, or 0 if none has been served.
    pub served: u64,
    /// The reason why the newest version is not served yet.
    pub problem: Option<String>,
}

/// Collects the endpoints of a queue.
#[must_use]
pub fn by_id(endpoints: Vec<ServedEndpoint>) -> ServedEndpoints {
    endpoints.into_iter().map(|one| (one.endpoint.id.clone(), one)).collect()
}

/// Returns the procedures that endpoints expect in the database.
#[must_use]
pub fn expected_procedures(endpoints: &ServedEndpoints) -> Vec<ExpectedProcedure> {
    let expected =
        endpoints.values().flat_map(|served| ExpectedProcedure::from_endpoint(&served.endpoint));
    expected.collect()
}

/// Prepares endpoints to replace others: endpoints that exist in both sets keep their measured call times.
/// With `keeps_removed`, endpoints that exist only in the replaced set are kept.
#[must_use]
pub fn replacing(
    old: &ServedEndpoints,
    mut new: ServedEndpoints,
    keeps_removed: bool,
) -> ServedEndpoints {
    for (id, served) in old {
        match new.get_mut(id) {
            Some(newer) => newer.call_time = Arc::clone(&served.call_time),
            None if keeps_removed => drop(new.insert(id.clone(), served.clone())),
            None => {}
        }
    }
    new
}
