//! A connection in use: it goes back clean or not at all.

use std::sync::Arc;

use deadpool::managed::Object;

use super::pool::{Pooled, Session, Shared};

/// Undoes what a failed call may have left open. Runs outside every procedure, so it holds for the session.
const ROLLBACK: &str = "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION";

/// A connection in use. Dropped without a word, as a cancelled future drops it, it is closed.
#[derive(Debug)]
pub(super) struct Lease {
    pooled: Option<Pooled>,
    shared: Arc<Shared>,
}

impl Lease {
    pub(super) fn new(pooled: Pooled, shared: Arc<Shared>) -> Self {
        shared.taken();
        Self { pooled: Some(pooled), shared }
    }

    /// The connection; `None` once it is gone.
    pub(super) fn session(&mut self) -> Option<&mut Session> {
        self.pooled.as_deref_mut()
    }

    /// The call ended and its answer was read to the end: the connection may serve the next one.
    pub(super) fn keep(mut self) {
        let Some(pooled) = self.pooled.take() else { return };
        // The server resets the session when the next request comes, in the same packet.
        pooled.marks.reset_next();
        if self.shared.gives_way() {
            drop(Object::take(pooled));
            self.shared.discarded("rebalanced");
        }
    }

    /// Keeps the connection after an error of the call: an open transaction must not hold its locks until the next one.
    pub(super) async fn keep_rolled_back(mut self) {
        let limit = self.shared.cancel_timeout();
        let Some(session) = self.session() else { return };
        let rollback = async {
            let stream = session.client.simple_query(ROLLBACK).await?;
            stream.into_results().await
        };
        match tokio::time::timeout(limit, rollback).await {
            Ok(Ok(_)) => self.keep(),
            Ok(Err(_)) | Err(_) => self.discard("rollback"),
        }
    }

    /// Tells the server to stop working on the call, and closes the connection whatever it says.
    pub(super) async fn cancel(mut self, reason: &'static str) {
        let limit = self.shared.cancel_timeout();
        if let Some(session) = self.session() {
            match tokio::time::timeout(limit, session.client.cancel_query()).await {
                Ok(Ok(())) => tracing::debug!("the server acknowledged a cancel"),
                Ok(Err(error)) => tracing::debug!(%error, "a cancel was not acknowledged"),
                Err(_) => tracing::debug!("a cancel was not acknowledged in time"),
            }
        }
        // Always: an acknowledgement that comes late would answer the next call (MS-TDS 2.2.1.7).
        self.discard(reason);
    }

    /// Closes the connection.
    pub(super) fn discard(mut self, reason: &'static str) {
        self.close(reason);
    }

    fn close(&mut self, reason: &'static str) {
        if let Some(pooled) = self.pooled.take() {
            drop(Object::take(pooled));
            self.shared.discarded(reason);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.close("dropped");
        self.shared.returned();
    }
}
