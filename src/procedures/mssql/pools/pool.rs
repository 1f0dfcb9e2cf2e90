//! A connection pool. Waiters get the first connection that becomes free, in order of arrival.
//!
//! The wait queue is a tokio semaphore, which is fair. A second semaphore takes precedence and
//! serves waiters whose connection turned out to be closed. Background tasks open new connections.
//! A new connection goes to the oldest waiter, even if the waiter for which it was opened has left.
//!
//! The file is longer than 400 lines, because all methods use the state behind the same lock.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::connection::TdsConnection;
use super::factory::ConnectionFactory;
use crate::lifecycle::Tasks;
use crate::procedures::{BackendError, BackendErrorKind};
use crate::telemetry::{self, Gauge, Histogram, names};

/// The maximum number of concurrent dials, to avoid flooding a server with logins after an outage.
const DIALS_MAX: usize = 4;
/// The maximum time for which a connection can be idle before it is closed.
const IDLE_MAX: Duration = Duration::from_mins(10);

/// A pool of connections with the same application name.
#[derive(Debug)]
pub(super) struct Pool {
    factory: Arc<ConnectionFactory>,
    application: String,
    metrics: PoolMetrics,
    state: Mutex<State>,
    /// Has one permit for each idle connection.
    idle: Semaphore,
    /// The semaphore for the waiters at the front, whose earlier connection turned out to be
    /// closed.
    front: Semaphore,
    /// Notifies all waiters that there is no connection, and that none can be opened.
    outage: Notify,
}

/// Error: no usable connection is idle.
#[derive(Clone, Copy, Debug)]
pub(in crate::procedures::mssql) struct NoneIdle {
    /// Whether unusable connections were closed. If so, the call that found them waits ahead of others.
    pub(in crate::procedures::mssql) has_closed: bool,
}

#[derive(Debug)]
struct State {
    /// The idle connections. The most recently used one is last and is taken first, so that surplus
    /// connections stay idle and expire.
    idle: Vec<TdsConnection>,
    open: usize,
    connecting: usize,
    waiting: usize,
    waiting_in_front: usize,
    connections_max: usize,
    is_closed: bool,
    last_answer: Option<Instant>,
}

/// The metrics that every call updates, looked up once.
#[derive(Debug)]
struct PoolMetrics {
    wait: Histogram,
    busy: Gauge,
    idle: Gauge,
}

impl PoolMetrics {
    fn new(database: &str, application: &str) -> Self {
        let database = (names::DATABASE, database.to_owned());
        let in_state = |state: &str| {
            let application = (names::APPLICATION, application.to_owned());
            let labels = [database.clone(), application, (names::STATE, state.to_owned())];
            telemetry::gauge(&names::BACKEND_CONNECTIONS, &labels)
        };
        Self {
            wait: telemetry::histogram(&names::BACKEND_WAIT, std::slice::from_ref(&database)),
            busy: in_state("busy"),
            idle: in_state("idle"),
        }
    }
}

impl Pool {
    /// Creates an empty pool.
    pub(super) fn new(
        factory: Arc<ConnectionFactory>,
        application: &str,
        connections_max: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            metrics: PoolMetrics::new(factory.database(), application),
            factory,
            application: application.to_owned(),
            state: Mutex::new(State {
                idle: Vec::new(),
                open: 0,
                connecting: 0,
                waiting: 0,
                waiting_in_front: 0,
                connections_max,
                is_closed: false,
                last_answer: None,
            }),
            idle: Semaphore::new(0),
            front: Semaphore::new(0),
            outage: Notify::new(),
        })
    }

    /// Takes a connection, and waits for one until the deadline if necessary. With `at_front`, the
    /// call waits ahead of others because its earlier connection was closed. This method is cancel
    /// safe.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        deadline: Instant,
        at_front: bool,
    ) -> Result<TdsConnection, BackendError> {
        let started = Instant::now();
        let acquired = timeout_at(deadline, self.acquire_usable(at_front)).await;
        self.metrics.wait.record(started.elapsed().as_secs_f64());
        acquired.unwrap_or_else(|_| Err(BackendError::new(BackendErrorKind::PoolTimedOut)))
    }

    async fn acquire_usable(
        self: &Arc<Self>,
        mut at_front: bool,
    ) -> Result<TdsConnection, BackendError> {
        loop {
            let connection = match self.try_acquire() {
                Some(connection) => connection,
                None => self.wait(at_front).await?,
            };
            at_front = true;
            if let Some(connection) = self.close_unless_usable(connection) {
                return Ok(connection);
            }
        }
    }

    /// Takes the most recently used idle connection, without waiting. Closes those that are not usable.
    pub(super) fn try_acquire_usable(self: &Arc<Self>) -> Result<TdsConnection, NoneIdle> {
        let mut has_closed = false;
        while let Some(connection) = self.try_acquire() {
            if let Some(connection) = self.close_unless_usable(connection) {
                self.metrics.wait.record(0.0);
                return Ok(connection);
            }
            has_closed = true;
        }
        Err(NoneIdle { has_closed })
    }

    /// Returns a connection, or closes it if it is too old or the server has closed it.
    fn close_unless_usable(self: &Arc<Self>, connection: TdsConnection) -> Option<TdsConnection> {
        if Instant::now() >= connection.retires {
            self.discard(connection, "age");
        } else if !connection.stream.is_quiet() {
            self.discard(connection, "closed");
        } else {
            return Some(connection);
        }
        None
    }

    fn try_acquire(&self) -> Option<TdsConnection> {
        // While there are waiters, the fair semaphore gives no permit to other callers.
        self.idle.try_acquire().ok()?.forget();
        self.pop_idle()
    }

    /// Waits for a connection. This method is cancel safe.
    async fn wait(self: &Arc<Self>, at_front: bool) -> Result<TdsConnection, BackendError> {
        // The notification is registered first, so that no outage is missed.
        let outage = self.outage.notified();
        let _guard = WaiterGuard::new(self, at_front);
        if !self.grow() {
            return Err(self.factory.outage());
        }
        let permits = if at_front { &self.front } else { &self.idle };
        // If a connection was returned before this waiter was counted, its permit went to `idle`.
        if let Some(connection) = self.try_acquire() {
            return Ok(connection);
        }
        tokio::select! {
            biased;
            permit = permits.acquire() => {
                permit.map_err(|_| self.factory.outage())?.forget();
                self.pop_idle().ok_or_else(|| self.factory.outage())
            }
            () = outage => Err(self.factory.outage()),
        }
    }

    /// Takes the idle connection for a permit.
    fn pop_idle(&self) -> Option<TdsConnection> {
        let mut state = self.lock();
        let connection = state.idle.pop();
        self.record(&state);
        connection
    }

    /// Gives the first waiter an idle connection that was just added.
    fn notify_waiter(&self, state: MutexGuard<'_, State>) {
        let permits = if state.waiting_in_front > 0 { &self.front } else { &self.idle };
        permits.add_permits(1);
        drop(state);
    }

    /// Starts opening connections for waiters. Returns `false` if there is no connection and none
    /// can be opened now.
    fn grow(self: &Arc<Self>) -> bool {
        loop {
            let mut state = self.lock();
            if state.is_closed {
                return false;
            }
            let can_serve = state.open + state.connecting > 0;
            // The first connection tests the login, so that a wrong password costs one attempt and
            // not four.
            let dials_max = if state.open == 0 { 1 } else { DIALS_MAX };
            let is_needed = state.waiting > state.connecting + state.idle.len();
            let has_room = state.open + state.connecting < state.connections_max;
            if !is_needed
                || !has_room
                || state.connecting >= dials_max
                || Handle::try_current().is_err()
            {
                return can_serve;
            }
            if self.factory.breaker.is_open(Instant::now()) {
                if !can_serve {
                    self.outage.notify_waiters();
                }
                return can_serve;
            }
            state.connecting += 1;
            drop(state);
            let dial = ConnectTask(Some(Arc::clone(self)));
            let _detached = Tasks::new().spawn_background(dial.run());
        }
    }

    /// Takes back a clean connection, and passes it to the first waiter unless it must be closed.
    pub(super) fn give_back(self: &Arc<Self>, mut connection: TdsConnection) {
        let now = Instant::now();
        connection.returned = now;
        // A connection that was returned unused does not show that the server still answers.
        let has_answered = !connection.stream.is_unused();
        let mut state = self.lock();
        if has_answered {
            state.last_answer = Some(now);
        }
        let reason = if state.is_closed {
            "shutdown"
        } else if now >= connection.retires {
            // The age is checked here too. Otherwise, a waiter that gets an expired connection
            // would have to wait again.
            "age"
        } else if state.open > state.connections_max {
            "shrunk"
        } else {
            state.idle.push(connection);
            self.record(&state);
            return self.notify_waiter(state);
        };
        drop(state);
        self.discard(connection, reason);
    }

    /// Closes a connection that is in use, and counts it by reason.
    pub(super) fn discard(self: &Arc<Self>, connection: TdsConnection, reason: &'static str) {
        drop(connection);
        let mut state = self.lock();
        state.open = state.open.saturating_sub(1);
        self.record(&state);
        drop(state);
        self.factory.count_discarded(reason);
        let _can_serve = self.grow();
    }

    /// Closes idle connections that are too old or have been idle for too long, and opens
    /// connections for waiters if none could be opened earlier.
    pub(super) fn trim(self: &Arc<Self>) {
        let now = Instant::now();
        let is_expired = |one: &TdsConnection| now >= one.retires || now >= one.returned + IDLE_MAX;
        let mut closed = Vec::new();
        let mut state = self.lock();
        while let Some(at) = state.idle.iter().position(is_expired) {
            let Ok(permit) = self.idle.try_acquire() else { break };
            permit.forget();
            closed.push(state.idle.remove(at));
            state.open = state.open.saturating_sub(1);
        }
        self.record(&state);
        drop(state);
        for connection in closed {
            let is_old = now >= connection.retires;
            self.factory.count_discarded(if is_old { "age" } else { "idle" });
        }
        let _can_serve = self.grow();
    }

    /// Changes the limit on connections. Excess connections are closed when they are returned.
    pub(super) fn set_connections_max(self: &Arc<Self>, connections_max: usize) {
        self.lock().connections_max = connections_max;
        let _can_serve = self.grow();
    }

    pub(super) fn application(&self) -> &str {
        &self.application
    }

    /// Returns whether there are neither connections nor calls that wait for one.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.open + state.connecting + state.waiting == 0
    }

    pub(super) fn has_idle(&self) -> bool {
        self.idle.available_permits() > 0
    }

    /// Returns whether all connections that the limit permits are in use.
    pub(super) fn is_exhausted(&self) -> bool {
        let state = self.lock();
        state.idle.is_empty() && state.open >= state.connections_max
    }

    /// Returns the time at which a connection was last returned after the server had answered.
    pub(super) fn last_answer(&self) -> Option<Instant> {
        self.lock().last_answer
    }

    /// Returns the connection factory, which all pools of the database share.
    pub(super) fn factory(&self) -> &ConnectionFactory {
        &self.factory
    }

    /// Closes idle connections immediately, and other connections when they are returned.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let idle = std::mem::take(&mut state.idle);
        state.open = state.open.saturating_sub(idle.len());
        self.record(&state);
        drop(state);
        self.idle.close();
        self.front.close();
        self.outage.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, state: &State) {
        if self.factory.is_retired.load(Ordering::Acquire) {
            return;
        }
        let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        self.metrics.idle.set(number(state.idle.len()));
        self.metrics.busy.set(number(state.open.saturating_sub(state.idle.len())));
    }
}

/// Counts a waiter until the guard is dropped.
struct WaiterGuard<'a> {
    pool: &'a Pool,
    at_front: bool,
}

impl<'a> WaiterGuard<'a> {
    fn new(pool: &'a Pool, at_front: bool) -> Self {
        let mut state = pool.lock();
        state.waiting += 1;
        state.waiting_in_front += usize::from(at_front);
        drop(state);
        Self { pool, at_front }
    }
}

impl Drop for WaiterGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.waiting -= 1;
        state.waiting_in_front -= usize::from(self.at_front);
        if state.waiting_in_front == 0 {
            // Permits that no waiter at the front needs go to the other waiters. While any waiter
            // is counted at the front, permits stay there, because that waiter may not have started
            // to wait yet.
            while let Ok(permit) = self.pool.front.try_acquire() {
                permit.forget();
                self.pool.idle.add_permits(1);
            }
        }
        drop(state);
    }
}

/// A task that opens one connection, counted in `connecting` until it ends or the runtime drops it.
struct ConnectTask(Option<Arc<Pool>>);

impl ConnectTask {
    async fn run(mut self) {
        let Some(pool) = self.0.clone() else { return };
        let opened = pool.factory.open(&pool.application).await;
        self.0 = None;
        let mut state = pool.lock();
        state.connecting -= 1;
        if let Some(connection) = opened.filter(|_| !state.is_closed) {
            state.open += 1;
            state.idle.push(connection);
            pool.record(&state);
            pool.notify_waiter(state);
        } else {
            drop(state);
        }
        // Opens the next connection for the remaining waiters, or notifies them of the outage.
        let _can_serve = pool.grow();
    }
}

impl Drop for ConnectTask {
    fn drop(&mut self) {
        if let Some(pool) = self.0.take() {
            pool.lock().connecting -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
