//! The connection pools of a database, one for each application name.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::tds::TdsConnector;
use crate::config::procedures::{APPLICATION_NAME, MssqlConfig, PoolConfig};
use crate::procedures::BackendError;

mod breaker;
mod connection;
mod factory;
mod lease;
mod pool;

pub(in crate::procedures::mssql) use breaker::JITTER;
pub(super) use connection::TdsConnection;
use factory::ConnectionFactory;
pub(super) use lease::Lease;
use pool::Pool;

/// The time after an answer during which a database without idle connections is not pinged.
const ANSWER_FRESH: Duration = Duration::from_secs(1);

/// The pools of one database.
#[derive(Debug)]
pub(super) struct Pools {
    /// The pool of all queues that are not in `by_queue`.
    main: Arc<Pool>,
    others: Vec<Arc<Pool>>,
    /// The pools in `others`, by the names of the queues that use them.
    by_queue: HashMap<String, Arc<Pool>>,
    factory: Arc<ConnectionFactory>,
}

impl Pools {
    /// Creates empty pools, which open connections on demand.
    pub(super) fn new(config: &MssqlConfig, name: &str, connector: TdsConnector) -> Self {
        let factory = Arc::new(ConnectionFactory::new(config, name, connector));
        let connections_max = config.connections_max;
        let whole = PoolConfig { connections_max, ..PoolConfig::new(APPLICATION_NAME) };
        let mut configured = config.pools.iter();
        let new_pool = |one: &PoolConfig| {
            Pool::new(Arc::clone(&factory), &one.application_name, one.connections_max)
        };
        let main = new_pool(configured.next().unwrap_or(&whole));
        let mut by_queue = HashMap::new();
        let others = configured
            .map(|one| {
                let pool = new_pool(one);
                let queues = one.queues.iter().map(|queue| (queue.to_string(), Arc::clone(&pool)));
                by_queue.extend(queues);
                pool
            })
            .collect();
        Self { main, others, by_queue, factory }
    }

    /// Leases a connection for a queue, waiting for one until the deadline. Waiters with `at_front`
    /// are served first, others in order of arrival. Safe to drop.
    pub(super) async fn lease(
        &self,
        queue: &str,
        deadline: Instant,
        at_front: bool,
    ) -> Result<Lease, BackendError> {
        Lease::acquire(self.by_queue.get(queue).unwrap_or(&self.main), deadline, at_front).await
    }

    /// Leases a connection for the backend's own queries, from a pool with an idle connection if
    /// possible, so that no call waits for it.
    pub(super) async fn lease_any(&self, deadline: Instant) -> Result<Lease, BackendError> {
        let pool = self.all().find(|pool| pool.has_idle()).unwrap_or(&self.main);
        Lease::acquire(pool, deadline, false).await
    }

    /// Returns whether no connection is idle and the database needs no ping: a query was answered
    /// within `ANSWER_FRESH`, or every pool is exhausted and the last attempt to connect succeeded.
    pub(super) fn is_busy_and_healthy(&self) -> bool {
        let is_fresh = |at: Instant| at.elapsed() < ANSWER_FRESH;
        !self.all().any(|pool| pool.has_idle())
            && (self.all().any(|pool| pool.last_answer().is_some_and(is_fresh))
                || (self.can_connect() && self.all().all(|pool| pool.is_exhausted())))
    }

    /// Returns whether the last attempt to connect succeeded, or no attempt has ended yet.
    pub(super) fn can_connect(&self) -> bool {
        self.factory.breaker.is_closed()
    }

    /// Returns the cost of a new connection: the smoothed duration of a login.
    pub(super) fn connection_cost(&self) -> Duration {
        self.factory.connection_cost()
    }

    /// Changes the password, and the limits of the pools. New pools and changed assignments of
    /// queues take effect only after a restart.
    pub(super) fn reconfigure(&self, config: &MssqlConfig) {
        self.factory.set_password(&config.password);
        for one in &config.pools {
            if let Some(pool) = self.all().find(|pool| pool.application() == one.application_name) {
                pool.set_connections_max(one.connections_max);
            }
        }
    }

    /// Closes idle connections that are too old or have been idle for too long.
    pub(super) fn trim(&self) {
        self.all().for_each(Pool::trim);
    }

    /// Closes idle connections immediately, and other connections when they are returned.
    pub(super) fn close(&self) {
        self.all().for_each(|pool| pool.close());
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Pool>> {
        std::iter::once(&self.main).chain(&self.others)
    }
}
