//! One pool of connections: who waits is served in the order of coming, by whichever connection is free first.
//!
//! The line is tokio's semaphore, which is fair; so is the one ahead of it, of those whose connection turned out closed. A new
//! connection is made beside the line, not by the one who waits: it goes to whoever waits longest, a caller that is served
//! meanwhile does not leave with it, and one that gives up does not throw it away.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::connect::Client;
use super::lease::Lease;
use super::marks::Marks;
use super::shared::Shared;
use crate::lifecycle::Tasks;
use crate::procedures::{BackendError, BackendErrorKind};
use crate::telemetry::{self, Gauge, Histogram, names};

/// Connections of a pool that are being made at once: an outage does not end in a rush.
const DIALS_MAX: usize = 4;
/// A connection that nobody needed for so long is closed.
const IDLE_MAX: Duration = Duration::from_mins(10);

/// The connections under one program name.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    application: String,
    figures: Figures,
    state: Mutex<State>,
    /// A permit for each idle connection.
    idle: Semaphore,
    /// The same for who waits ahead of the line: its turn had come, and its connection was closed.
    front: Semaphore,
    /// Told to all who wait when there is no connection and none can be made.
    outage: Notify,
}

#[derive(Debug)]
struct State {
    /// The one used last at the end: it goes first, and what is not needed grows old at the other end.
    idle: Vec<Session>,
    open: usize,
    dialling: usize,
    waiting: usize,
    waiting_in_front: usize,
    connections_max: usize,
    is_closed: bool,
    answered: Option<Instant>,
}

/// An open connection.
pub(super) struct Session {
    /// The driver's client.
    pub(super) client: Box<Client>,
    /// What is known of its stream.
    pub(super) marks: Arc<Marks>,
    retires: Instant,
    returned: Instant,
}

impl Session {
    /// A connection that was just made.
    pub(super) fn new(client: Client, marks: Arc<Marks>, retires: Instant) -> Self {
        Self { client: Box::new(client), marks, retires, returned: Instant::now() }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("retires", &self.retires).finish_non_exhaustive()
    }
}

/// The figures that every call moves, looked up once.
#[derive(Debug)]
struct Figures {
    wait: Histogram,
    busy: Gauge,
    idle: Gauge,
}

impl Figures {
    fn new(database: &str, application: &str) -> Self {
        let of_database = (names::DATABASE, database.to_owned());
        let in_state = |state: &str| {
            let of_pool = (names::APPLICATION, application.to_owned());
            let labels = [of_database.clone(), of_pool, (names::STATE, state.to_owned())];
            telemetry::gauge(&names::BACKEND_CONNECTIONS, &labels)
        };
        Self {
            wait: telemetry::histogram(&names::BACKEND_WAIT, std::slice::from_ref(&of_database)),
            busy: in_state("busy"),
            idle: in_state("idle"),
        }
    }
}

impl Pool {
    /// An empty pool: the first call opens its first connection.
    pub(super) fn new(shared: Arc<Shared>, application: &str, connections_max: usize) -> Arc<Self> {
        Arc::new(Self {
            figures: Figures::new(shared.name(), application),
            shared,
            application: application.to_owned(),
            state: Mutex::new(State {
                idle: Vec::new(),
                open: 0,
                dialling: 0,
                waiting: 0,
                waiting_in_front: 0,
                connections_max,
                is_closed: false,
                answered: None,
            }),
            idle: Semaphore::new(0),
            front: Semaphore::new(0),
            outage: Notify::new(),
        })
    }

    /// A connection, waited for until the deadline, ahead of the line where this call's turn has come before. Safe to drop:
    /// the place in the line is given up.
    pub(super) async fn lease(
        self: &Arc<Self>,
        deadline: Instant,
        had_turn: bool,
    ) -> Result<Lease, BackendError> {
        let started = Instant::now();
        let found = timeout_at(deadline, self.take(had_turn)).await;
        self.figures.wait.record(started.elapsed().as_secs_f64());
        match found {
            Ok(Ok(session)) => Ok(Lease::new(session, Arc::clone(self))),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(BackendError::new(BackendErrorKind::PoolTimedOut)),
        }
    }

    async fn take(self: &Arc<Self>, mut had_turn: bool) -> Result<Session, BackendError> {
        loop {
            let session = match self.try_take() {
                Some(session) => session,
                None => self.wait(had_turn).await?,
            };
            had_turn = true;
            if Instant::now() >= session.retires {
                self.discard(session, "age");
            } else if !session.marks.is_quiet() {
                self.discard(session, "closed");
            } else {
                return Ok(session);
            }
        }
    }

    fn try_take(&self) -> Option<Session> {
        // While somebody waits there is no permit to be had past the line.
        self.idle.try_acquire().ok()?.forget();
        self.pop()
    }

    /// Waits in the line. Safe to drop.
    async fn wait(self: &Arc<Self>, in_front: bool) -> Result<Session, BackendError> {
        // From here on no word of an outage is missed.
        let outage = self.outage.notified();
        let _place = Place::enter(self, in_front);
        if !self.grow() {
            return Err(self.shared.outage());
        }
        let line = if in_front { &self.front } else { &self.idle };
        // One that came back before this place counted stands for nobody in front.
        if let Some(session) = self.try_take() {
            return Ok(session);
        }
        tokio::select! {
            biased;
            permit = line.acquire() => {
                permit.map_err(|_| self.shared.outage())?.forget();
                self.pop().ok_or_else(|| self.shared.outage())
            }
            () = outage => Err(self.shared.outage()),
        }
    }

    /// The idle connection that a permit stands for.
    fn pop(&self) -> Option<Session> {
        let mut state = self.lock();
        let session = state.idle.pop();
        self.report(&state);
        session
    }

    /// Lets whoever is first have a connection that was put back.
    fn free(&self, state: MutexGuard<'_, State>) {
        let line = if state.waiting_in_front > 0 { &self.front } else { &self.idle };
        line.add_permits(1);
        drop(state);
    }

    /// Starts to make connections for those who wait. `false`: there is none, and none can be made now.
    fn grow(self: &Arc<Self>) -> bool {
        loop {
            let mut state = self.lock();
            if state.is_closed {
                return false;
            }
            let has_hope = state.open + state.dialling > 0;
            // The first one proves the login: a wrong password costs one attempt, not four.
            let dials_max = if state.open == 0 { 1 } else { DIALS_MAX };
            let is_needed = state.waiting > state.dialling + state.idle.len();
            let has_room = state.open + state.dialling < state.connections_max;
            if !is_needed
                || !has_room
                || state.dialling >= dials_max
                || Handle::try_current().is_err()
            {
                return has_hope;
            }
            if self.shared.breaker.holds(Instant::now()) {
                if !has_hope {
                    self.outage.notify_waiters();
                }
                return has_hope;
            }
            state.dialling += 1;
            drop(state);
            let dial = Dial(Some(Arc::clone(self)));
            let _detached = Tasks::new().spawn_background(dial.run());
        }
    }

    /// The call ended and its answer was read to the end: the connection serves whoever waits longest.
    pub(super) fn give_back(self: &Arc<Self>, mut session: Session) {
        let now = Instant::now();
        session.returned = now;
        let mut state = self.lock();
        state.answered = Some(now);
        let reason = if state.is_closed {
            "shutdown"
        } else if now >= session.retires {
            // Here, and not when it is handed out: who waits would lose its place.
            "age"
        } else if state.open > state.connections_max {
            "shrunk"
        } else {
            state.idle.push(session);
            self.report(&state);
            return self.free(state);
        };
        drop(state);
        self.discard(session, reason);
    }

    /// Closes a connection that is in use, and counts it.
    pub(super) fn discard(self: &Arc<Self>, session: Session, reason: &'static str) {
        drop(session);
        let mut state = self.lock();
        state.open = state.open.saturating_sub(1);
        self.report(&state);
        drop(state);
        self.shared.discarded(reason);
        let _hope = self.grow();
    }

    /// Closes idle connections that are too old, or that nobody has needed for long, and makes those that are waited for
    /// and could not be made before.
    pub(super) fn trim(self: &Arc<Self>) {
        let now = Instant::now();
        let is_over = |one: &Session| now >= one.retires || now >= one.returned + IDLE_MAX;
        let mut closed = Vec::new();
        let mut state = self.lock();
        while let Some(at) = state.idle.iter().position(is_over) {
            let Ok(permit) = self.idle.try_acquire() else { break };
            permit.forget();
            closed.push(state.idle.remove(at));
            state.open = state.open.saturating_sub(1);
        }
        self.report(&state);
        drop(state);
        for _ in closed {
            self.shared.discarded("idle");
        }
        let _hope = self.grow();
    }

    /// Takes another bound. What is open beyond it is closed when it comes back.
    pub(super) fn set_connections_max(self: &Arc<Self>, connections_max: usize) {
        self.lock().connections_max = connections_max;
        let _hope = self.grow();
    }

    /// The program name of its connections.
    pub(super) fn application(&self) -> &str {
        &self.application
    }

    /// Whether a connection is idle.
    pub(super) fn has_idle(&self) -> bool {
        self.idle.available_permits() > 0
    }

    /// Whether every connection there may be is in use.
    pub(super) fn is_exhausted(&self) -> bool {
        let state = self.lock();
        state.idle.is_empty() && state.open >= state.connections_max
    }

    /// When a connection last came back from a call that the database had answered.
    pub(super) fn answered(&self) -> Option<Instant> {
        self.lock().answered
    }

    /// What all pools of the database have in common.
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Closes idle connections at once and the others when they come back.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let idle = std::mem::take(&mut state.idle);
        state.open = state.open.saturating_sub(idle.len());
        self.report(&state);
        drop(state);
        self.idle.close();
        self.front.close();
        self.outage.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, state: &State) {
        let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        self.figures.idle.set(number(state.idle.len()));
        self.figures.busy.set(number(state.open.saturating_sub(state.idle.len())));
    }
}

/// A place in the line, or ahead of it; given up with its value.
struct Place<'a> {
    pool: &'a Pool,
    in_front: bool,
}

impl<'a> Place<'a> {
    fn enter(pool: &'a Pool, in_front: bool) -> Self {
        let mut state = pool.lock();
        state.waiting += 1;
        state.waiting_in_front += usize::from(in_front);
        drop(state);
        Self { pool, in_front }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.waiting -= 1;
        state.waiting_in_front -= usize::from(self.in_front);
        if state.waiting_in_front == 0 {
            // What was freed for somebody in front and is not needed there is for the line. While another is in front it is
            // for that one, who may not wait for it yet.
            while let Ok(permit) = self.pool.front.try_acquire() {
                permit.forget();
                self.pool.idle.add_permits(1);
            }
        }
        drop(state);
    }
}

/// A connection that is being made. It counts until it has ended, also with the runtime.
struct Dial(Option<Arc<Pool>>);

impl Dial {
    async fn run(mut self) {
        let Some(pool) = self.0.clone() else { return };
        let made = pool.shared.connect(&pool.application).await;
        self.0 = None;
        let mut state = pool.lock();
        state.dialling -= 1;
        if let Some(session) = made.filter(|_| !state.is_closed) {
            state.open += 1;
            state.idle.push(session);
            pool.report(&state);
            pool.free(state);
        } else {
            drop(state);
        }
        // The others who wait: the next connection, or the word that there is none.
        let _hope = pool.grow();
    }
}

impl Drop for Dial {
    fn drop(&mut self) {
        if let Some(pool) = self.0.take() {
            pool.lock().dialling -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
