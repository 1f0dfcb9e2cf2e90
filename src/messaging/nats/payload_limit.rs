//! Detects that a server's payload limit has been raised. A server that reloads its configuration
//! does not announce the new limit to connected clients.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::ServerAddr;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::connect;
use super::shared::NatsShared;
use crate::lifecycle::Tasks;

/// The minimum interval between two queries.
const QUERY_INTERVAL: Duration = Duration::from_secs(10);

/// Limits how often the payload limit is queried.
#[derive(Debug, Default)]
pub(super) struct QueryThrottle(Mutex<Option<Instant>>);

impl QueryThrottle {
    /// Returns whether a query is allowed now. If so, records it.
    fn try_start(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_allowed = last.is_none_or(|last| now - last >= QUERY_INTERVAL);
        if is_allowed {
            *last = Some(now);
        }
        is_allowed
    }
}

/// Queries the server's current limit over a separate connection. Reconnects if the limit allows
/// `bytes`. Returns whether a message of this size can be sent now. After `operation_timeout`,
/// returns `false` while the query continues in the background.
pub(super) async fn has_grown(
    shared: &Arc<NatsShared>,
    throttle: &QueryThrottle,
    bytes: usize,
) -> bool {
    if !throttle.try_start(Instant::now()) {
        return false;
    }
    let (sender, result) = oneshot::channel();
    let limit = shared.config.load().operation_timeout;
    let querying = Arc::clone(shared);
    let _detached = Tasks::new().spawn_background(async move {
        // The caller may have stopped waiting.
        let _dropped = sender.send(reconnect_if_grown(&querying, bytes).await);
    });
    matches!(timeout(limit, result).await, Ok(Ok(true)))
}

async fn reconnect_if_grown(shared: &NatsShared, bytes: usize) -> bool {
    let client = shared.client.load_full();
    let known = client.inner.server_info();
    let Ok(Ok(servers)) = timeout(client.operation_timeout, client.inner.server_pool()).await
    else {
        return false;
    };
    for server in servers {
        let Some(limit) = query(shared, server.addr, &known.server_id).await else { continue };
        if limit < bytes {
            return false;
        }
        tracing::info!(bytes = limit, "the NATS server accepts larger messages now, reconnecting");
        let mut link = shared.state.link();
        let epoch = link.borrow().epoch;
        if let Err(error) = shared.reconnect(&client).await {
            tracing::warn!(error, "cannot reconnect to NATS");
            return false;
        }
        let next =
            timeout(client.operation_timeout, crate::messaging::next_epoch(&mut link, epoch));
        return matches!(next.await, Ok(Some(_))) && bytes <= client.inner.max_payload();
    }
    false
}

/// Returns the limit of a server, or `None` if it cannot be reached or its id is not `id`.
async fn query(shared: &NatsShared, server: ServerAddr, id: &str) -> Option<usize> {
    let options = connect::options(&shared.config.load(), &shared.name);
    let connecting = options.ignore_discovered_servers().connect(server);
    let client = timeout(shared.config.load().connect_timeout * 2, connecting).await.ok()?.ok()?;
    let info = client.server_info();
    (info.server_id == id).then_some(info.max_payload)
}
