//! A connection in use, which is either returned clean to its pool or closed.

use std::sync::Arc;

use tiberius::error::Error;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::connection::TdsConnection;
use super::factory::CancelResult;
use super::pool::{NoneIdle, Pool};
use crate::procedures::BackendError;

/// Rolls back a transaction that a failed call may have left open. It runs outside any procedure,
/// so the SET applies to the connection.
const ROLLBACK: &str = "SET IMPLICIT_TRANSACTIONS OFF; IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION";

/// A connection in use. Dropping the lease closes the connection, for example when a future is
/// cancelled.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Option<TdsConnection>,
    pool: Arc<Pool>,
}

impl Lease {
    /// Takes a connection from a pool, like `Pool::acquire`. This function is cancel safe.
    pub(super) async fn acquire(
        pool: &Arc<Pool>,
        deadline: Instant,
        at_front: bool,
    ) -> Result<Self, BackendError> {
        let connection = pool.acquire(deadline, at_front).await?;
        Ok(Self::new(connection, pool))
    }

    /// Takes an idle connection from a pool, like `Pool::try_acquire_usable`.
    pub(super) fn try_acquire(pool: &Arc<Pool>) -> Result<Self, NoneIdle> {
        pool.try_acquire_usable().map(|connection| Self::new(connection, pool))
    }

    fn new(connection: TdsConnection, pool: &Arc<Pool>) -> Self {
        connection.stream.start_lease();
        Self { connection: Some(connection), pool: Arc::clone(pool) }
    }

    /// Returns the connection, or `None` if it was closed.
    pub(crate) fn connection(&mut self) -> Option<&mut TdsConnection> {
        self.connection.as_mut()
    }

    /// Returns the connection to its pool. The answer must have been read to the end.
    pub(crate) fn keep(mut self) {
        let Some(connection) = self.connection.take() else { return };
        if connection.stream.is_settled() {
            // The reset is a flag in the first packet of the next request.
            connection.stream.reset_next();
            self.pool.give_back(connection);
        } else {
            self.pool.discard(connection, "unread");
        }
    }

    /// Rolls back after a failed call, and keeps the connection. Without the rollback, a
    /// transaction could hold locks until the next call. Returns whether the server confirmed that
    /// no transaction is open.
    pub(crate) async fn keep_rolled_back(mut self) -> bool {
        let is_rolled_back = matches!(self.roll_back().await, Ok(Ok(())));
        if is_rolled_back {
            self.keep();
        } else {
            self.discard("rollback");
        }
        is_rolled_back
    }

    /// Cancels the call on the server. The connection is kept if the server acknowledges the cancel
    /// request and rolls back in time.
    ///
    /// The driver's own cancellation cannot be used. It resumes parsing where the call stopped,
    /// possibly within a token, and mistakes a complete answer for the next call's answer.
    /// `TdsStream` follows packets instead. It sends the rollback after exactly one
    /// acknowledgement. The answer to the rollback confirms that the call's answer was read to the
    /// end.
    pub(crate) async fn cancel(mut self, reason: &'static str) {
        let Some(connection) = self.connection() else { return };
        if connection.stream.is_cut_off() {
            // Writing anything now would send the call, or a part of it as if that part were
            // complete.
            self.pool.factory().count_cancel(CancelResult::Broken);
            return self.discard(reason);
        }
        if connection.stream.is_unused() {
            return self.keep();
        }
        connection.stream.request_cancel();
        let rolled_back = self.roll_back().await;
        let is_settled = self.connection().is_some_and(|connection| connection.stream.is_settled());
        let result = match rolled_back {
            Ok(Ok(())) if is_settled => CancelResult::Kept,
            Ok(Ok(()) | Err(_)) => CancelResult::Broken,
            Err(_) => CancelResult::Unanswered,
        };
        self.pool.factory().count_cancel(result);
        if result == CancelResult::Kept { self.keep() } else { self.discard(reason) }
    }

    /// Reads the rest of the call's answer and rolls back, within `cancel_timeout`.
    async fn roll_back(&mut self) -> Result<Result<(), Error>, Elapsed> {
        let limit = self.pool.factory().cancel_timeout();
        let Some(connection) = self.connection() else { return Ok(Ok(())) };
        let rollback = async {
            let stream = connection.client.simple_query(ROLLBACK).await?;
            stream.into_results().await.map(drop)
        };
        tokio::time::timeout(limit, Box::pin(rollback)).await
    }

    /// Closes the connection, and counts it by reason.
    pub(crate) fn discard(mut self, reason: &'static str) {
        self.close(reason);
    }

    fn close(&mut self, reason: &'static str) {
        if let Some(connection) = self.connection.take() {
            self.pool.discard(connection, reason);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.close("dropped");
    }
}
