//! An open connection, idle or in use.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use crate::procedures::mssql::tds::{StreamState, TdsClient};

/// An open connection.
pub(crate) struct TdsConnection {
    pub(crate) client: Box<TdsClient>,
    /// The state of the client's stream.
    pub(crate) stream: Arc<StreamState>,
    /// The keys that calls have set in a session context that the reset does not clear.
    pub(crate) session_keys: Vec<Arc<str>>,
    /// The time at which the connection reaches its maximum age.
    pub(super) retires: Instant,
    /// The time at which the connection last became idle.
    pub(super) returned: Instant,
}

impl TdsConnection {
    /// Wraps a connection that was just opened.
    pub(super) fn new(client: TdsClient, stream: Arc<StreamState>, retires: Instant) -> Self {
        Self {
            client: Box::new(client),
            stream,
            session_keys: Vec::new(),
            retires,
            returned: Instant::now(),
        }
    }
}

impl fmt::Debug for TdsConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TdsConnection").field("retires", &self.retires).finish_non_exhaustive()
    }
}
