//! The largest message that the server takes, where a reload of the server has raised it: it does not tell its clients.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::ServerAddr;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::connect;
use super::supervisor::Shared;
use crate::lifecycle::Tasks;

/// How often a server is asked at most.
const ASK_INTERVAL: Duration = Duration::from_secs(10);

/// When it was asked last.
#[derive(Debug, Default)]
pub(super) struct Asked(Mutex<Option<Instant>>);

impl Asked {
    /// Whether it may be asked now; from here on it was.
    fn may_ask(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|last| now - last >= ASK_INTERVAL);
        if may {
            *last = Some(now);
        }
        may
    }
}

/// Asks our server what it takes by now, over a connection of its own. Where that is more than it said when we
/// connected, connects anew. Says whether a message of this size can be sent then, or `false` when that lasts: who asks
/// has a request to answer, and a server that has more to take is used when it has said so.
pub(super) async fn has_grown(shared: &Arc<Shared>, asked: &Asked, bytes: usize) -> bool {
    if !asked.may_ask(Instant::now()) {
        return false;
    }
    let (sender, found) = oneshot::channel();
    let limit = shared.config.operation_timeout;
    let asking = Arc::clone(shared);
    let _detached = Tasks::new().spawn_background(async move {
        // Nobody may wait for it any more.
        let _found = sender.send(grow(&asking, bytes).await);
    });
    matches!(timeout(limit, found).await, Ok(Ok(true)))
}

async fn grow(shared: &Shared, bytes: usize) -> bool {
    let live = shared.live.load_full();
    let known = live.client.server_info();
    let Ok(Ok(servers)) = timeout(live.operation_timeout, live.client.server_pool()).await else {
        return false;
    };
    for server in servers {
        let Some(now) = ask(shared, server.addr, &known.server_id).await else { continue };
        if now < bytes {
            return false;
        }
        tracing::info!(bytes = now, "the NATS server takes larger messages now, connecting anew");
        let mut link = shared.state.link();
        let epoch = link.borrow().epoch;
        if let Err(error) = shared.move_on(&live).await {
            tracing::warn!(error, "could not connect anew");
            return false;
        }
        let next = timeout(live.operation_timeout, crate::messaging::next_epoch(&mut link, epoch));
        return matches!(next.await, Ok(Some(_))) && bytes <= live.client.max_payload();
    }
    false
}

/// What a server takes; `None` when it is another one than ours.
async fn ask(shared: &Shared, server: ServerAddr, id: &str) -> Option<usize> {
    let options = connect::options(&shared.config, &shared.name);
    let asking = options.ignore_discovered_servers().connect(server);
    let client = timeout(shared.config.connect_timeout * 2, asking).await.ok()?.ok()?;
    let info = client.server_info();
    (info.server_id == id).then_some(info.max_payload)
}
