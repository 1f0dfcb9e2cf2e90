//! The connection pools of a database, one for each application name.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
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
use pool::{NoneIdle, Pool};

/// For this long after an answer, a database without idle connections is not pinged.
const ANSWER_FRESH: Duration = Duration::from_secs(1);

/// The pools of one database.
#[derive(Debug)]
pub(super) struct Pools {
    table: ArcSwap<PoolTable>,
    factory: Arc<ConnectionFactory>,
}

/// The pools, and the queues that use them. A reload replaces the table.
#[derive(Debug)]
struct PoolTable {
    /// The pool of all queues that are not in `by_queue`.
    main: Arc<Pool>,
    others: Vec<Arc<Pool>>,
    /// The pools in `others`, by the names of the queues that use them.
    by_queue: HashMap<String, Arc<Pool>>,
    /// Pools of earlier tables that no queue uses any more. They are kept until their connections
    /// are closed.
    unused: Vec<Arc<Pool>>,
}

impl PoolTable {
    /// Creates the table of a configuration. Pools of `old` are kept, and their limits are changed.
    fn new(config: &MssqlConfig, factory: &Arc<ConnectionFactory>, old: Option<&Self>) -> Self {
        let connections_max = config.connections_max;
        let whole = PoolConfig { connections_max, ..PoolConfig::new(APPLICATION_NAME) };
        let pool = |one: &PoolConfig| {
            let name = &one.application_name;
            match old.into_iter().flat_map(Self::all).find(|pool| pool.application() == name) {
                Some(pool) => {
                    pool.set_connections_max(one.connections_max);
                    Arc::clone(pool)
                }
                None => Pool::new(Arc::clone(factory), name, one.connections_max),
            }
        };
        let mut configured = config.pools.iter();
        let main = pool(configured.next().unwrap_or(&whole));
        let (mut others, mut by_queue) = (Vec::new(), HashMap::new());
        for one in configured {
            let pool = pool(one);
            by_queue.extend(one.queues.iter().map(|queue| (queue.to_string(), Arc::clone(&pool))));
            others.push(pool);
        }
        let mut table = Self { main, others, by_queue, unused: Vec::new() };
        let is_unused = |pool: &&Arc<Pool>| {
            !pool.is_empty() && !table.all().any(|used| Arc::ptr_eq(used, pool))
        };
        table.unused = old.into_iter().flat_map(Self::all).filter(is_unused).cloned().collect();
        for pool in &table.unused {
            // Calls that wait for a connection of this pool still get one.
            pool.set_connections_max(1);
        }
        table
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Pool>> {
        std::iter::once(&self.main).chain(&self.others).chain(&self.unused)
    }
}

impl Pools {
    /// Creates empty pools, which open connections on demand.
    pub(super) fn new(config: &MssqlConfig, name: &str, connector: TdsConnector) -> Self {
        let factory = Arc::new(ConnectionFactory::new(config, name, connector));
        let table = ArcSwap::from_pointee(PoolTable::new(config, &factory, None));
        Self { table, factory }
    }

    /// Leases an idle connection for a queue.
    pub(super) fn try_lease(&self, queue: &str) -> Result<Lease, NoneIdle> {
        let table = self.table.load();
        Lease::try_acquire(table.by_queue.get(queue).unwrap_or(&table.main))
    }

    /// Leases a connection for a queue, and waits for one until the deadline if necessary. Waiters
    /// with `at_front` are served first, and the others in order of arrival. This method is cancel
    /// safe.
    pub(super) async fn lease(
        &self,
        queue: &str,
        deadline: Instant,
        at_front: bool,
    ) -> Result<Lease, BackendError> {
        let pool = {
            let table = self.table.load();
            Arc::clone(table.by_queue.get(queue).unwrap_or(&table.main))
        };
        Lease::acquire(&pool, deadline, at_front).await
    }

    /// Leases a connection for the backend's own queries, from a pool with an idle connection if
    /// possible, so that no call has to wait.
    pub(super) async fn lease_any(&self, deadline: Instant) -> Result<Lease, BackendError> {
        let pool = {
            let table = self.table.load();
            Arc::clone(table.all().find(|pool| pool.has_idle()).unwrap_or(&table.main))
        };
        Lease::acquire(&pool, deadline, false).await
    }

    /// Returns whether no connection is idle and the database needs no ping. It needs no ping if a
    /// query was answered within `ANSWER_FRESH`, or if every pool is exhausted and the last attempt
    /// to connect succeeded.
    pub(super) fn is_busy_and_healthy(&self) -> bool {
        let is_fresh = |at: Instant| at.elapsed() < ANSWER_FRESH;
        let table = self.table.load();
        !table.all().any(|pool| pool.has_idle())
            && (table.all().any(|pool| pool.last_answer().is_some_and(is_fresh))
                || (self.can_connect() && table.all().all(|pool| pool.is_exhausted())))
    }

    /// Returns whether the last attempt to connect succeeded, or no attempt has ended yet.
    pub(super) fn can_connect(&self) -> bool {
        self.factory.breaker.is_closed()
    }

    /// Returns the cost of a new connection: the smoothed duration of a login.
    pub(super) fn connection_cost(&self) -> Duration {
        self.factory.connection_cost()
    }

    /// Changes the password, the pools, their limits, and the assignment of queues to pools. Calls
    /// that are already waiting for a connection get one from their previous pool.
    pub(super) fn reconfigure(&self, config: &MssqlConfig) {
        self.factory.set_password(&config.password);
        let table = PoolTable::new(config, &self.factory, Some(&self.table.load()));
        self.table.store(Arc::new(table));
    }

    /// Stops recording the numbers of connections.
    pub(super) fn retire(&self) {
        self.factory.is_retired.store(true, Ordering::Release);
    }

    /// Closes idle connections that are too old or have been idle for too long.
    pub(super) fn trim(&self) {
        self.table.load().all().for_each(Pool::trim);
    }

    /// Closes idle connections immediately, and other connections when they are returned.
    pub(super) fn close(&self) {
        self.table.load().all().for_each(|pool| pool.close());
    }
}
