//! Opens the connections of all pools of a database, and counts closed connections by reason.

use std::error::Error as StdError;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::breaker::{Breaker, JITTER};
use super::connection::TdsConnection;
use crate::config::Secret;
use crate::config::procedures::MssqlConfig;
use crate::jitter::jittered;
use crate::procedures::mssql::tds::{ConnectError, StreamState, TdsClient, TdsConnector};
use crate::procedures::{BackendError, BackendErrorKind};
use crate::telemetry::{self, Histogram, names};

/// The minimum estimate of the cost of a connection.
const COST_MIN: Duration = Duration::from_millis(250);
/// The maximum number of connections that all pools together are opening at the same time.
const DIALS_MAX: usize = 4;
/// The reciprocal of the newest measurement's weight in the smoothed login time. RFC 6298 uses the
/// same weight, 1/8, for TCP's round-trip time.
const COST_WEIGHT: u32 = 8;

/// Opens the connections of all pools of a database.
#[derive(Debug)]
pub(super) struct ConnectionFactory {
    database: String,
    config: MssqlConfig,
    connector: TdsConnector,
    /// Blocks new connections while the database cannot be reached or refuses the login.
    pub(super) breaker: Breaker,
    /// Whether the numbers of connections are no longer recorded, because the database was replaced.
    pub(super) is_retired: AtomicBool,
    dials: Semaphore,
    login: Histogram,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The smoothed duration of a login, or `None` before the first login.
    login_time: Option<Duration>,
    /// The cause of the last failed attempt to connect.
    failure: Option<ConnectFailure>,
    /// Whether the last cancel request was not acknowledged in time.
    ignores_cancels: bool,
}

/// The result of a cancel request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CancelResult {
    /// The server acknowledged the request, and the connection is clean.
    Kept,
    /// The server did not acknowledge the request in time.
    Unanswered,
    /// The connection failed, or the server's next message is unpredictable.
    Broken,
}

/// The reason why no connection can be opened. The errors of all waiting calls share it.
#[derive(Clone, Debug)]
struct ConnectFailure(Arc<dyn StdError + Send + Sync>);

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for ConnectFailure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

impl ConnectionFactory {
    pub(super) fn new(config: &MssqlConfig, database: &str, connector: TdsConnector) -> Self {
        let labels = [(names::DATABASE, database.to_owned())];
        Self {
            database: database.to_owned(),
            config: config.clone(),
            connector,
            breaker: Breaker::default(),
            is_retired: AtomicBool::new(false),
            dials: Semaphore::new(DIALS_MAX),
            login: telemetry::histogram(&names::BACKEND_LOGIN, &labels),
            state: Mutex::default(),
        }
    }

    /// Uses the password of a reload from the next login on. Earlier failures do not delay this login,
    /// because the server may accept a password that it has refused.
    pub(super) fn set_password(&self, password: &Secret) {
        let is_other = self.connector.set_password(password);
        self.breaker.end_pause(Instant::now(), is_other);
    }

    /// Returns the database's name in the configuration.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// Returns the time limit for a cancellation, or for a rollback after an error.
    pub(super) fn cancel_timeout(&self) -> Duration {
        self.config.cancel_timeout
    }

    /// Returns the cost of a new connection: the smoothed duration of a login.
    pub(super) fn connection_cost(&self) -> Duration {
        self.lock().login_time.unwrap_or_default().max(COST_MIN)
    }

    /// Counts a cancel request. Logs an unacknowledged request unless the previous one was not acknowledged either.
    pub(super) fn count_cancel(&self, result: CancelResult) {
        let label = match result {
            CancelResult::Kept => "kept",
            CancelResult::Unanswered => "unanswered",
            CancelResult::Broken => "broken",
        };
        let labels = [(names::DATABASE, self.database.clone()), (names::RESULT, label.to_owned())];
        telemetry::counter(&names::BACKEND_CANCELS, &labels).increment(1);
        let is_ignored = result == CancelResult::Unanswered;
        let was_ignored = std::mem::replace(&mut self.lock().ignores_cancels, is_ignored);
        if is_ignored && !was_ignored {
            tracing::warn!(database = %self.database, cancel_timeout = ?self.cancel_timeout(),
                "the server does not acknowledge cancellations in time, so each cancelled call closes its connection");
        }
    }

    /// Counts a connection that was closed instead of being kept.
    pub(super) fn count_discarded(&self, reason: &'static str) {
        let labels = [(names::DATABASE, self.database.clone()), (names::REASON, reason.to_owned())];
        telemetry::counter(&names::BACKEND_DISCARDED, &labels).increment(1);
    }

    /// Returns the error for a call that needs a connection when none can be opened.
    pub(super) fn outage(&self) -> BackendError {
        let source = self.lock().failure.clone().map(|failure| Box::new(failure).into());
        BackendError { kind: BackendErrorKind::Unavailable, source }
    }

    /// Opens a connection if the breaker permits it. Waits while `DIALS_MAX` other connections are
    /// being opened, or while another login tries a password.
    pub(super) async fn open(&self, application: &str) -> Option<TdsConnection> {
        let _permit = self.dials.acquire().await.ok()?;
        if self.breaker.is_open(Instant::now()) {
            return None;
        }
        let secret = self.connector.login_secret().await;
        // The login that tried a password may have failed in the meantime.
        if !self.breaker.try_admit(Instant::now(), self.attempt_max()) {
            return None;
        }
        let started = Instant::now();
        match secret {
            Ok(mut secret) => {
                let dialled = self.connector.dial(application, &mut secret).await;
                // Only after this has been recorded may another login try a password.
                self.record(dialled, started)
            }
            Err(error) => self.record(Err(error), started),
        }
    }

    /// Records the result of an attempt. Logs the first failure of an outage.
    fn record(
        &self,
        dialled: Result<(TdsClient, Arc<StreamState>), ConnectError>,
        started: Instant,
    ) -> Option<TdsConnection> {
        match dialled {
            Ok((client, stream)) => {
                self.breaker.record_success();
                self.record_login(started.elapsed());
                let retires = Instant::now() + jittered(self.config.connection_age_max, JITTER);
                Some(TdsConnection::new(client, stream, retires))
            }
            Err(error) => {
                if self.breaker.record_failure(error.failure, Instant::now()) {
                    // This is logged once for each outage. Calls that fail because of it are counted
                    // elsewhere.
                    tracing::error!(database = %self.database, failure = ?error.failure,
                        error = %error.source, "cannot connect to the database");
                }
                self.lock().failure = Some(ConnectFailure(Arc::from(error.source)));
                None
            }
        }
    }

    /// Returns the maximum duration of an attempt: a login, and a second login with another
    /// password.
    fn attempt_max(&self) -> Duration {
        self.config.connect_timeout.saturating_mul(2)
    }

    fn record_login(&self, time: Duration) {
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
