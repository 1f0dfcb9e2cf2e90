//! What all pools of a database have in common: one login, and one word on whether it can be had.

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::breaker::{Breaker, jittered};
use super::connect::Dialer;
use super::pool::Session;
use crate::config::procedures::MssqlConfig;
use crate::procedures::{BackendError, BackendErrorKind};
use crate::telemetry::{self, Histogram, names};

/// No connection is taken to cost less than this.
const COST_MIN: Duration = Duration::from_millis(250);
/// Connections that are being made at once, over all pools.
const DIALS_MAX: usize = 4;
/// The weight of the newest measurement in the smoothed time of a login, as in TCP's round trip (RFC 6298).
const COST_WEIGHT: u32 = 8;

/// What all pools of a database have in common.
#[derive(Debug)]
pub(super) struct Shared {
    name: String,
    config: MssqlConfig,
    dialer: Dialer,
    /// Whether dialling has hope.
    pub(super) breaker: Breaker,
    dials: Semaphore,
    login: Histogram,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Smoothed; `None` before the first login.
    login_time: Option<Duration>,
    /// Why the last attempt to connect failed.
    failure: Option<Failure>,
    /// The last cancel was not acknowledged in time.
    is_deaf: bool,
}

/// What became of a cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancelled {
    /// The server acknowledged it, and the connection is clean.
    Kept,
    /// The server did not acknowledge it in time.
    Unanswered,
    /// The connection failed, or it is not certain what is still to come on it.
    Broken,
}

/// Why there is no connection, told to each call that wanted one.
#[derive(Clone, Debug)]
struct Failure(Arc<dyn StdError + Send + Sync>);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

impl Shared {
    /// Connects as the configuration says; `name` is the database's name there.
    pub(super) fn new(config: &MssqlConfig, name: &str, dialer: Dialer) -> Self {
        let labels = [(names::DATABASE, name.to_owned())];
        Self {
            name: name.to_owned(),
            config: config.clone(),
            dialer,
            breaker: Breaker::default(),
            dials: Semaphore::new(DIALS_MAX),
            login: telemetry::histogram(&names::BACKEND_LOGIN, &labels),
            state: Mutex::default(),
        }
    }

    /// The database's name in the configuration.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The longest wait for a cancel, and for a clean-up.
    pub(super) fn cancel_timeout(&self) -> Duration {
        self.config.cancel_timeout
    }

    /// What a connection costs: the smoothed time of a login.
    pub(super) fn connection_cost(&self) -> Duration {
        self.lock().login_time.unwrap_or_default().max(COST_MIN)
    }

    /// Counts a cancel. A server that does not hear them is logged once, until one is acknowledged again.
    pub(super) fn cancelled(&self, ended: Cancelled) {
        let result = match ended {
            Cancelled::Kept => "kept",
            Cancelled::Unanswered => "unanswered",
            Cancelled::Broken => "broken",
        };
        let labels = [(names::DATABASE, self.name.clone()), (names::RESULT, result.to_owned())];
        telemetry::counter(&names::BACKEND_CANCELS, &labels).increment(1);
        let is_deaf = ended == Cancelled::Unanswered;
        let was_deaf = std::mem::replace(&mut self.lock().is_deaf, is_deaf);
        if is_deaf && !was_deaf {
            tracing::warn!(database = %self.name, cancel_timeout = ?self.cancel_timeout(),
                "the server does not acknowledge cancels in time: each one costs a connection");
        }
    }

    /// The error of a call that gets no connection because none can be made: nothing was sent.
    pub(super) fn outage(&self) -> BackendError {
        let source = self.lock().failure.clone().map(|failure| Box::new(failure).into());
        BackendError { kind: BackendErrorKind::Unavailable, source }
    }

    /// Counts a connection that was closed instead of kept.
    pub(super) fn discarded(&self, reason: &'static str) {
        let labels = [(names::DATABASE, self.name.clone()), (names::REASON, reason.to_owned())];
        telemetry::counter(&names::BACKEND_DISCARDED, &labels).increment(1);
    }

    /// Makes a connection, when its turn comes and there is hope. What failed is logged here, once an outage.
    pub(super) async fn connect(&self, application: &str) -> Option<Session> {
        let _turn = self.dials.acquire().await.ok()?;
        if !self.breaker.admits(Instant::now(), self.config.connect_timeout) {
            return None;
        }
        let started = Instant::now();
        let dialled = self.dialer.dial(application).await;
        match dialled {
            Ok((client, marks)) => {
                self.breaker.succeeded();
                self.took(started.elapsed());
                let retires = Instant::now() + jittered(self.config.connection_age_max);
                Some(Session::new(client, marks, retires))
            }
            Err(error) => {
                if self.breaker.failed(error.failure, Instant::now()) {
                    // Once an outage: the calls that fail for it are counted, not logged again.
                    tracing::error!(database = %self.name, failure = ?error.failure,
                        error = %error.source, "cannot connect to the database");
                }
                self.lock().failure = Some(Failure(Arc::from(error.source)));
                None
            }
        }
    }

    fn took(&self, time: Duration) {
        self.login.record(time.as_secs_f64());
        let mut state = self.lock();
        let smoothed = state.login_time.unwrap_or(time);
        let rest = smoothed.saturating_mul(COST_WEIGHT - 1);
        state.login_time = Some(rest.saturating_add(time) / COST_WEIGHT);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
