//! The connections to one database: a pool for each queue, all under one bound.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use deadpool::managed::{self, Metrics, Object, QueueMode, RecycleError, RecycleResult};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::breaker::{Breaker, jittered};
use super::connect::{Client, Dialer};
use super::lease::Lease;
use super::wire::Marks;
use crate::config::procedures::MssqlConfig;
use crate::procedures::{BackendError, BackendErrorKind};
use crate::telemetry::{self, Gauge, Histogram, names};

/// Connections that are being made at once: an outage does not end in a rush.
const DIALS_MAX: usize = 4;
/// What a DBA sees of us in `sys.dm_exec_sessions`, before the queue's name.
const APPLICATION: &str = "fjord";

type QueuePool = managed::Pool<Dialling>;

/// The pools of one database.
#[derive(Debug)]
pub(super) struct Pools {
    shared: Arc<Shared>,
    connections_max: usize,
    queues: Mutex<HashMap<String, QueuePool>>,
}

/// The figures that every call moves, looked up once.
#[derive(Debug)]
struct Figures {
    wait: Histogram,
    busy: Gauge,
    idle: Gauge,
}

impl Figures {
    fn of(database: &str) -> Self {
        let labels = vec![(names::DATABASE, database.to_owned())];
        let in_state = |state: &str| {
            let mut labels = labels.clone();
            labels.push((names::STATE, state.to_owned()));
            telemetry::gauge(&names::BACKEND_CONNECTIONS, &labels)
        };
        Self {
            wait: telemetry::histogram(&names::BACKEND_WAIT, &labels),
            busy: in_state("busy"),
            idle: in_state("idle"),
        }
    }
}

/// What all pools of a database have in common.
#[derive(Debug)]
pub(super) struct Shared {
    name: String,
    figures: Figures,
    config: MssqlConfig,
    dialer: Dialer,
    breaker: Breaker,
    /// A permit for each open connection.
    permits: Arc<Semaphore>,
    dials: Semaphore,
    /// Queues that wait for another one to give a connection up.
    hungry: AtomicUsize,
    busy: AtomicUsize,
}

/// An open connection.
pub(super) struct Session {
    /// The driver's client.
    pub(super) client: Box<Client>,
    /// What is known of its stream.
    pub(super) marks: Arc<Marks>,
    retires: Instant,
    _permit: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("retires", &self.retires).finish_non_exhaustive()
    }
}

impl Pools {
    /// Empty pools; the first call of each queue opens its first connection.
    pub(super) fn new(config: &MssqlConfig, name: &str, dialer: Dialer) -> Self {
        let shared = Shared {
            name: name.to_owned(),
            figures: Figures::of(name),
            config: config.clone(),
            dialer,
            breaker: Breaker::default(),
            permits: Arc::new(Semaphore::new(config.connections_max)),
            dials: Semaphore::new(DIALS_MAX),
            hungry: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
        };
        Self {
            shared: Arc::new(shared),
            connections_max: config.connections_max,
            queues: Mutex::default(),
        }
    }

    /// A connection of a queue (`""`: of none), waited for until the deadline. Safe to drop.
    pub(super) async fn lease(
        &self,
        queue: &str,
        deadline: Instant,
    ) -> Result<Lease, BackendError> {
        let started = Instant::now();
        let pool = self.pool(queue)?;
        if self.shared.permits.available_permits() == 0 && pool.status().available == 0 {
            self.free_one(queue);
        }
        let found = tokio::time::timeout_at(deadline, pool.get()).await;
        self.shared.figures.wait.record(started.elapsed().as_secs_f64());
        match found {
            Ok(Ok(object)) => Ok(Lease::new(object, Arc::clone(&self.shared))),
            Ok(Err(managed::PoolError::Backend(error))) => Err(error),
            Ok(Err(error)) => Err(BackendError::caused_by(BackendErrorKind::Unavailable, error)),
            Err(_) => Err(BackendError::new(BackendErrorKind::PoolTimedOut)),
        }
    }

    /// A connection for our own questions: an idle one of any queue, so that asking takes no queue's place.
    pub(super) async fn lease_any(&self, deadline: Instant) -> Result<Lease, BackendError> {
        let idle = {
            let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            let mut idle = queues.iter().filter(|(_, pool)| pool.status().available > 0);
            idle.next().map(|(queue, _)| queue.clone())
        };
        self.lease(idle.as_deref().unwrap_or_default(), deadline).await
    }

    /// Whether the last attempt to connect succeeded while every connection is in use: then the database is there.
    pub(super) fn is_busy_but_well(&self) -> bool {
        self.shared.permits.available_permits() == 0 && self.shared.breaker.is_closed()
    }

    /// Closes idle connections at once and the others when they come back.
    pub(super) fn close(&self) {
        for pool in self.queues.lock().unwrap_or_else(PoisonError::into_inner).values() {
            pool.close();
        }
        self.shared.permits.close();
        self.shared.report();
    }

    fn pool(&self, queue: &str) -> Result<QueuePool, BackendError> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = queues.get(queue) {
            return Ok(pool.clone());
        }
        let application = match queue {
            "" => APPLICATION.to_owned(),
            queue => format!("{APPLICATION}:{queue}"),
        };
        let dialling = Dialling { shared: Arc::clone(&self.shared), application };
        let pool = QueuePool::builder(dialling)
            .max_size(self.connections_max)
            // The warmest first: what is not needed grows old at the other end.
            .queue_mode(QueueMode::Lifo)
            .build()
            .map_err(|error| BackendError::caused_by(BackendErrorKind::Unavailable, error))?;
        queues.insert(queue.to_owned(), pool.clone());
        Ok(pool)
    }

    /// Closes one idle connection of another queue, so that this one can open its own.
    fn free_one(&self, queue: &str) {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        for (other, pool) in queues.iter() {
            if other != queue {
                let mut is_freed = false;
                let freed = pool.retain(|_, _| std::mem::replace(&mut is_freed, true));
                if !freed.removed.is_empty() {
                    self.shared.discarded("rebalanced");
                    return;
                }
            }
        }
    }
}

impl Shared {
    /// Counts a connection that was closed instead of kept.
    pub(super) fn discarded(&self, reason: &'static str) {
        let mut labels = self.labels().to_vec();
        labels.push((names::REASON, reason.to_owned()));
        telemetry::counter(&names::BACKEND_DISCARDED, &labels).increment(1);
        self.report();
    }

    /// A connection goes into use.
    pub(super) fn taken(&self) {
        self.busy.fetch_add(1, Ordering::AcqRel);
        self.report();
    }

    /// A connection comes out of use.
    pub(super) fn returned(&self) {
        self.busy.fetch_sub(1, Ordering::AcqRel);
        self.report();
    }

    /// Whether a connection that comes back is to be closed, because another queue waits for its place.
    pub(super) fn gives_way(&self) -> bool {
        self.hungry
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |hungry| hungry.checked_sub(1))
            .is_ok()
    }

    /// The longest wait for a cancel, and for a clean-up.
    pub(super) fn cancel_timeout(&self) -> std::time::Duration {
        self.config.cancel_timeout
    }

    fn labels(&self) -> [telemetry::LabelValue; 1] {
        [(names::DATABASE, self.name.clone())]
    }

    fn report(&self) {
        let open = self.config.connections_max.saturating_sub(self.permits.available_permits());
        let busy = self.busy.load(Ordering::Acquire);
        let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        self.figures.busy.set(number(busy));
        self.figures.idle.set(number(open.saturating_sub(busy)));
    }

    /// A place under the bound; waits for another queue to give one up.
    async fn permit(&self) -> Result<OwnedSemaphorePermit, BackendError> {
        let closed = |error| BackendError::caused_by(BackendErrorKind::Unavailable, error);
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        self.hungry.fetch_add(1, Ordering::AcqRel);
        let mut hunger = Hunger { shared: self, is_fed: false };
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(closed)?;
        hunger.is_fed = true;
        Ok(permit)
    }

    async fn open(&self, application: &str) -> Result<Session, BackendError> {
        let refused = || BackendError::new(BackendErrorKind::Unavailable);
        let permit = self.permit().await?;
        let turn = self.dials.acquire().await.map_err(|_| refused())?;
        if !self.breaker.admits(Instant::now(), self.config.connect_timeout) {
            return Err(refused());
        }
        let dialled = self.dialer.dial(application).await;
        drop(turn);
        match dialled {
            Ok((client, marks)) => {
                self.breaker.succeeded();
                let retires = Instant::now() + jittered(self.config.connection_age_max);
                let client = Box::new(client);
                Ok(Session { client, marks, retires, _permit: permit })
            }
            Err(error) => {
                if self.breaker.failed(error.failure, Instant::now()) {
                    // Once an outage: the calls that fail for it are counted, not logged again.
                    tracing::error!(database = %self.name, failure = ?error.failure,
                        error = %error.source, "cannot connect to the database");
                }
                Err(BackendError::caused_by(BackendErrorKind::Unavailable, error.source))
            }
        }
    }
}

/// A queue's wait for a place.
struct Hunger<'a> {
    shared: &'a Shared,
    is_fed: bool,
}

impl Drop for Hunger<'_> {
    fn drop(&mut self) {
        // Whoever gave way has counted the wait down. One that is given up counts itself.
        if !self.is_fed {
            self.shared.gives_way();
        }
    }
}

/// Makes the connections of one queue.
#[derive(Debug)]
pub(super) struct Dialling {
    shared: Arc<Shared>,
    application: String,
}

impl managed::Manager for Dialling {
    type Type = Session;
    type Error = BackendError;

    async fn create(&self) -> Result<Session, BackendError> {
        self.shared.open(&self.application).await
    }

    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<BackendError> {
        let reason = if Instant::now() >= session.retires {
            "age"
        } else if !session.marks.is_quiet() {
            "closed"
        } else {
            return Ok(());
        };
        self.shared.discarded(reason);
        Err(RecycleError::message(reason))
    }
}

/// A pooled connection in use.
pub(super) type Pooled = Object<Dialling>;
