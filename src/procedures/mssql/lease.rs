//! A connection in use: it goes back clean or not at all.

use std::sync::Arc;

use super::pool::{Pool, Session};

/// Undoes what a failed call may have left open. Runs outside every procedure, so it holds for the session.
const ROLLBACK: &str = "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION";

/// A connection in use. Dropped without a word, as a cancelled future drops it, it is closed.
#[derive(Debug)]
pub(super) struct Lease {
    session: Option<Session>,
    pool: Arc<Pool>,
}

impl Lease {
    pub(super) fn new(session: Session, pool: Arc<Pool>) -> Self {
        Self { session: Some(session), pool }
    }

    /// The connection; `None` once it is gone.
    pub(super) fn session(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    /// The call ended and its answer was read to the end: the connection may serve the next one.
    pub(super) fn keep(mut self) {
        let Some(session) = self.session.take() else { return };
        // The server resets the session when the next request comes, in the same packet.
        session.marks.reset_next();
        self.pool.give_back(session);
    }

    /// Keeps the connection after an error of the call: an open transaction must not hold its locks until the next one.
    pub(super) async fn keep_rolled_back(mut self) {
        let limit = self.pool.shared().cancel_timeout();
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
        let limit = self.pool.shared().cancel_timeout();
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
        if let Some(session) = self.session.take() {
            self.pool.discard(session, reason);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.close("dropped");
    }
}
