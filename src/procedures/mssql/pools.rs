//! The pools of a database: one that its queues share, and one for each program name that queues have asked for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connect::Dialer;
use super::lease::Lease;
use super::pool::Pool;
use super::shared::Shared;
use crate::config::procedures::{APPLICATION_NAME, MssqlConfig, PoolConfig};
use crate::procedures::BackendError;

/// A database that has answered this lately needs no question.
const ANSWER_FRESH: Duration = Duration::from_secs(1);

/// The pools of one database.
#[derive(Debug)]
pub(super) struct Pools {
    /// For every queue that has no other.
    main: Arc<Pool>,
    others: Vec<Arc<Pool>>,
    /// The queues of the others.
    by_queue: HashMap<String, Arc<Pool>>,
    shared: Arc<Shared>,
}

impl Pools {
    /// Empty pools; the first call of each opens its first connection.
    pub(super) fn new(config: &MssqlConfig, name: &str, dialer: Dialer) -> Self {
        let shared = Arc::new(Shared::new(config, name, dialer));
        let connections_max = config.connections_max;
        let whole = PoolConfig { connections_max, ..PoolConfig::new(APPLICATION_NAME) };
        let mut configured = config.pools.iter();
        let pool = |one: &PoolConfig| {
            Pool::new(Arc::clone(&shared), &one.application_name, one.connections_max)
        };
        let main = pool(configured.next().unwrap_or(&whole));
        let mut by_queue = HashMap::new();
        let others = configured
            .map(|one| {
                let made = pool(one);
                let queues = one.queues.iter().map(|queue| (queue.to_string(), Arc::clone(&made)));
                by_queue.extend(queues);
                made
            })
            .collect();
        Self { main, others, by_queue, shared }
    }

    /// A connection for a queue, waited for until the deadline, first come first served. Safe to drop.
    pub(super) async fn lease(
        &self,
        queue: &str,
        deadline: Instant,
        had_turn: bool,
    ) -> Result<Lease, BackendError> {
        self.by_queue.get(queue).unwrap_or(&self.main).lease(deadline, had_turn).await
    }

    /// A connection for our own questions: an idle one where there is one, so that asking takes nobody's place.
    pub(super) async fn lease_any(&self, deadline: Instant) -> Result<Lease, BackendError> {
        self.all().find(|pool| pool.has_idle()).unwrap_or(&self.main).lease(deadline, false).await
    }

    /// Whether no connection is idle because calls use them all and are answered: then the database is there.
    pub(super) fn is_busy_but_well(&self) -> bool {
        let is_fresh = |at: Instant| at.elapsed() < ANSWER_FRESH;
        !self.all().any(|pool| pool.has_idle())
            && (self.all().any(|pool| pool.answered().is_some_and(is_fresh))
                || (self.has_hope() && self.all().all(|pool| pool.is_exhausted())))
    }

    /// Whether the last attempt to connect succeeded, or none has ended.
    pub(super) fn has_hope(&self) -> bool {
        self.shared.breaker.is_closed()
    }

    /// What a connection costs: the smoothed time of a login.
    pub(super) fn connection_cost(&self) -> Duration {
        self.shared.connection_cost()
    }

    /// Takes other bounds, pool by pool. A pool that is new, or has other queues, needs a restart.
    pub(super) fn resize(&self, config: &MssqlConfig) {
        for one in &config.pools {
            if let Some(pool) = self.all().find(|pool| pool.application() == one.application_name) {
                pool.set_connections_max(one.connections_max);
            }
        }
    }

    /// Closes what is too old, or was not needed for long.
    pub(super) fn trim(&self) {
        self.all().for_each(Pool::trim);
    }

    /// Closes idle connections at once and the others when they come back.
    pub(super) fn close(&self) {
        self.all().for_each(|pool| pool.close());
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Pool>> {
        std::iter::once(&self.main).chain(&self.others)
    }
}
