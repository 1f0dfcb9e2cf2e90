//! A connection in use: it goes back clean or not at all.

use std::sync::Arc;

use tiberius::error::Error;
use tokio::time::error::Elapsed;

use super::pool::{Pool, Session};
use super::shared::Cancelled;

/// Undoes what a failed call may have left open. Runs outside every procedure, so it holds for the session.
const ROLLBACK: &str = "SET IMPLICIT_TRANSACTIONS OFF; IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION";

/// A connection in use. Silently dropped, as a cancelled future drops it, it is closed.
#[derive(Debug)]
pub(super) struct Lease {
    session: Option<Session>,
    pool: Arc<Pool>,
}

impl Lease {
    pub(super) fn new(session: Session, pool: Arc<Pool>) -> Self {
        session.marks.lease_starts();
        Self { session: Some(session), pool }
    }

    /// The connection; `None` once it is gone.
    pub(super) fn session(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    /// The call ended and its answer was read to the end: the connection may serve the next one.
    pub(super) fn keep(mut self) {
        let Some(session) = self.session.take() else { return };
        if session.marks.is_settled() {
            // The server resets the session when the next request comes, in the same packet.
            session.marks.reset_next();
            self.pool.give_back(session);
        } else {
            self.pool.discard(session, "unread");
        }
    }

    /// Keeps the connection after an error of the call: an open transaction must not hold its locks until the next one.
    /// Says whether the server acknowledged that nothing is open any more.
    pub(super) async fn keep_rolled_back(mut self) -> bool {
        let is_rolled_back = matches!(self.roll_back().await, Ok(Ok(())));
        if is_rolled_back {
            self.keep();
        } else {
            self.discard("rollback");
        }
        is_rolled_back
    }

    /// Tells the server to stop working on the call. The connection is kept when the server has acknowledged that in
    /// time, and rolled back what was open.
    ///
    /// The driver's own cancel is of no use here: it goes on reading tokens where the call was left, in the middle of
    /// one perhaps, and takes an answer that was whole already for the next one's. Ours is packets, followed by `Wire`:
    /// the roll-back is sent after exactly one acknowledgement, and an answer to it proves that nothing is left.
    pub(super) async fn cancel(mut self, reason: &'static str) {
        let Some(session) = self.session() else { return };
        if session.marks.is_cut_off() {
            // Whatever is written next would send the call, or a part of it as if it were whole.
            self.pool.shared().cancelled(Cancelled::Broken);
            return self.discard(reason);
        }
        if session.marks.is_unused() {
            return self.keep();
        }
        session.marks.stop_request();
        let rolled_back = self.roll_back().await;
        let is_settled = self.session().is_some_and(|session| session.marks.is_settled());
        let ended = match rolled_back {
            Ok(Ok(())) if is_settled => Cancelled::Kept,
            Ok(Ok(()) | Err(_)) => Cancelled::Broken,
            Err(_) => Cancelled::Unanswered,
        };
        self.pool.shared().cancelled(ended);
        if ended == Cancelled::Kept { self.keep() } else { self.discard(reason) }
    }

    /// Undoes what is open, after whatever is still to come of the call. Bounded.
    async fn roll_back(&mut self) -> Result<Result<(), Error>, Elapsed> {
        let limit = self.pool.shared().cancel_timeout();
        let Some(session) = self.session() else { return Ok(Ok(())) };
        let rollback = async {
            let stream = session.client.simple_query(ROLLBACK).await?;
            stream.into_results().await.map(drop)
        };
        tokio::time::timeout(limit, rollback).await
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
