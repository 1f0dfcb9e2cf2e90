//! The SQL Server backend: stored procedures over TDS.
//!
//! A call is a remote procedure call by name with typed parameters; see `statement` for the few that cannot be.
//! A connection serves one call at a time and goes back to its pool only after the answer was read to its end.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::config::procedures::{DatabaseConfig, MssqlConfig, MssqlEncryption};
use crate::future::BoxFuture;
use crate::lifecycle::Cancel;
use crate::procedures::{
    Backend, BackendError, BackendErrorKind, Call, CallError, Described, Found, Need, Outcome,
    RowSink, SentError,
};
use crate::telemetry::{self, names};
use crate::tls::Connector;

mod answer;
mod attempt;
mod bind;
mod breaker;
mod connect;
mod describe;
mod errors;
mod failure;
mod lease;
mod marks;
mod pool;
mod pools;
mod prelogin;
mod question;
mod run;
mod server;
mod shared;
mod signature;
mod socket;
mod statement;
mod transaction;
mod types;
mod verify;
mod wire;

use bind::mismatch;
use failure::{AttemptFailure, RetryReason, SentFailure};
use lease::Lease;
use pools::Pools;
use server::Server;
use signature::{Signatures, Turn};

/// The pause before a deadlock victim is tried again; it grows with each try and is varied at random.
const DEADLOCK_PAUSE: Duration = Duration::from_millis(20);
/// How many connections that broke before the call was sent are replaced within one call.
const UNSENT_RETRIES: u32 = 3;

/// Longest wait until all procedures of a database are described.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(30);

/// Opens a database as it is configured; `name` is its name there. No connection is made before the first call.
///
/// # Errors
/// `BackendError` when the TLS files cannot be used.
pub fn connect(config: &MssqlConfig, name: &str) -> Result<Arc<dyn Backend>, BackendError> {
    let tls = match &config.encryption {
        MssqlEncryption::Required(files) => Connector::new(files),
        MssqlEncryption::TrustAny => Connector::trusting_any(),
    };
    let tls = tls.map_err(|error| BackendError::caused_by(BackendErrorKind::Unavailable, error))?;
    let dialer = connect::Dialer::new(config.clone(), tls);
    Ok(Arc::new(Mssql {
        name: name.to_owned(),
        config: config.clone(),
        pools: Pools::new(config, name, dialer),
        signatures: Signatures::default(),
        server: Server::default(),
        untyped_null_refused: AtomicBool::new(false),
        closing: Cancel::new(),
    }))
}

/// One database of SQL Server.
#[derive(Debug)]
struct Mssql {
    name: String,
    config: MssqlConfig,
    pools: Pools,
    signatures: Signatures,
    server: Server,
    /// Seen in an answer. Where the server says beforehand what it is, nothing has to be refused first.
    untyped_null_refused: AtomicBool,
    closing: Cancel,
}

/// How often a call was tried again, by reason.
#[derive(Debug, Default)]
struct Tries {
    contention: u32,
    unsent: u32,
    signatures: u32,
    nulls: u32,
    lost: u32,
}

impl Backend for Mssql {
    fn system(&self) -> &'static str {
        "microsoft.sql_server"
    }

    fn call<'a>(
        &'a self,
        call: Call<'a>,
        rows: &'a mut dyn RowSink,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Result<Outcome, CallError>> {
        Box::pin(self.call_until_done(call, rows, cancel))
    }

    fn verify<'a>(&'a self, needs: &'a [Need], found: &'a mut Found<'_>) -> BoxFuture<'a, ()> {
        Box::pin(self.verify_all(needs, found))
    }

    fn describe<'a>(
        &'a self,
        pattern: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Described>, BackendError>> {
        Box::pin(self.describe_all(pattern))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(self.ping_once())
    }

    fn resize(&self, config: &DatabaseConfig) {
        if let DatabaseConfig::Mssql(config) = config {
            self.pools.resize(config);
        }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.closing.cancel();
        self.pools.close();
        Box::pin(std::future::ready(()))
    }
}

impl Mssql {
    /// Tries a call until something of it was sent, and leaves the rest to `after_sending`.
    async fn call_until_done(
        &self,
        call: Call<'_>,
        rows: &mut dyn RowSink,
        cancel: &Cancel,
    ) -> Result<Outcome, CallError> {
        let mut tries = Tries::default();
        loop {
            let had_turn = tries.unsent > 0;
            let failure = match self.try_once(&call, rows, cancel, had_turn).await {
                Ok(outcome) => return Ok(outcome),
                Err(AttemptFailure::NotSent(failure)) => failure,
                Err(AttemptFailure::Sent(failure)) => {
                    let rest = self.after_sending(&call, rows, cancel, (failure, tries));
                    // Boxed: few calls come here, and every call would carry its room.
                    return Box::pin(rest).await.map_err(CallError::Sent);
                }
            };
            if !self.may_try(failure.retry, &mut tries) {
                return Err(failure.error.into());
            }
        }
    }

    /// The rest of a call that was sent. Whatever comes, its error is one of a call that was sent.
    async fn after_sending(
        &self,
        call: &Call<'_>,
        rows: &mut dyn RowSink,
        cancel: &Cancel,
        (mut failure, mut tries): (SentFailure, Tries),
    ) -> Result<Outcome, SentError> {
        loop {
            let retry = failure.retry.filter(|_| rows.restart());
            if !self.may_try(retry, &mut tries) {
                return Err(failure.error);
            }
            if retry.is_some_and(RetryReason::is_contention) {
                let pause = breaker::jittered(DEADLOCK_PAUSE.saturating_mul(tries.contention));
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => return Err(failure.error),
                    () = sleep_until(call.deadline) => return Err(failure.error),
                    () = tokio::time::sleep(pause) => {}
                }
            }
            failure = match self.try_once(call, rows, cancel, false).await {
                Ok(outcome) => return Ok(outcome),
                Err(AttemptFailure::Sent(mut next)) => {
                    // Nothing stays only if nothing of any attempt does.
                    next.error.is_rolled_back &= failure.error.is_rolled_back;
                    next
                }
                Err(AttemptFailure::NotSent(next)) => failure.followed_by(next),
            };
        }
    }

    /// Waits until nobody waits for the call any more and it has run for as long as a connection costs: to stop it
    /// may cost one. A shorter call runs to its end, and its answer is dropped.
    async fn is_worth_a_cancel(&self, cancel: &Cancel, started: Instant) {
        cancel.cancelled().await;
        sleep_until(started + self.pools.connection_cost()).await;
    }

    /// One attempt on a connection of the pool, ahead of those who wait for one where its turn has come before.
    async fn try_once(
        &self,
        call: &Call<'_>,
        rows: &mut dyn RowSink,
        cancel: &Cancel,
        had_turn: bool,
    ) -> Result<Outcome, AttemptFailure> {
        let asked = Instant::now();
        // Whoever waits for another to read the signature does so without a connection.
        let turn = if self.signatures.is_known(call.procedure) {
            Turn::Known
        } else {
            self.while_wanted(call, cancel, self.signatures.turn(call.procedure)).await?
        };
        if matches!(turn, Turn::Missing) {
            return Err(mismatch(call.procedure, self.missing_text()).into());
        }
        let queue = call.queue.as_str();
        let lease = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(BackendErrorKind::Cancelled.into()),
            () = self.closing.cancelled() => Err(BackendErrorKind::Cancelled.into()),
            lease = self.pools.lease(queue, call.deadline, had_turn) => lease,
        };
        rows.waited(asked.elapsed());
        let leaving = (cancel, Instant::now());
        let prepared = self.prepare(lease?, call, leaving).await?;
        drop(turn);
        self.attempt(prepared, call, rows, leaving).await
    }

    /// Waits for something that has to be there before a call is sent, as long as the call is wanted.
    async fn while_wanted<F: Future>(
        &self,
        call: &Call<'_>,
        cancel: &Cancel,
        work: F,
    ) -> Result<F::Output, BackendError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(BackendErrorKind::Cancelled.into()),
            () = self.closing.cancelled() => Err(BackendErrorKind::Cancelled.into()),
            done = work => Ok(done),
            () = sleep_until(call.deadline) => Err(BackendErrorKind::TimedOut.into()),
        }
    }

    /// Whether there is a reason to try again, and it was not used up.
    fn may_try(&self, reason: Option<RetryReason>, tries: &mut Tries) -> bool {
        let Some(reason) = reason else { return false };
        let (count, most) = match reason {
            RetryReason::Deadlock | RetryReason::Snapshot => {
                (&mut tries.contention, self.config.deadlock_retries)
            }
            RetryReason::Unsent => (&mut tries.unsent, UNSENT_RETRIES),
            RetryReason::Signature => (&mut tries.signatures, 1),
            RetryReason::UntypedNull => (&mut tries.nulls, 1),
            RetryReason::Lost => (&mut tries.lost, 1),
        };
        *count += 1;
        if *count > most {
            return false;
        }
        let labels =
            [(names::DATABASE, self.name.clone()), (names::REASON, reason.as_str().to_owned())];
        telemetry::counter(&names::BACKEND_RETRIES, &labels).increment(1);
        true
    }

    fn missing_text(&self) -> String {
        let MssqlConfig { database, user, .. } = &self.config;
        format!("the database {database} has no such procedure that the login {user} may see")
    }

    async fn describe_all(&self, pattern: &str) -> Result<Vec<Described>, BackendError> {
        let deadline = Instant::now() + DESCRIBE_TIMEOUT;
        let mut lease = self.pools.lease_any(deadline).await?;
        let session = lease.session().ok_or_else(unavailable)?;
        let reading = describe::describe(&mut session.client, &self.signatures, pattern);
        let answer = timeout_at(deadline, reading).await;
        settle(lease, answer)
    }

    async fn ping_once(&self) -> Result<(), BackendError> {
        self.pools.trim();
        if self.pools.is_busy_but_well() {
            return Ok(());
        }
        let deadline = Instant::now() + self.config.connect_timeout;
        let mut lease = match self.pools.lease_any(deadline).await {
            // Calls were first in the line, and nothing says that the database is away.
            Err(error) if error.kind == BackendErrorKind::PoolTimedOut && self.pools.has_hope() => {
                return Ok(());
            }
            lease => lease?,
        };
        let session = lease.session().ok_or_else(unavailable)?;
        let question =
            async { session.client.simple_query("SELECT 1").await?.into_results().await };
        let answer = timeout_at(deadline, question).await;
        settle(lease, answer).map(drop)
    }
}

/// Keeps the connection of a question of our own that was answered; else it is of no more use.
fn settle<T>(
    lease: Lease,
    answer: Result<Result<T, tiberius::error::Error>, Elapsed>,
) -> Result<T, BackendError> {
    match answer {
        Ok(Ok(answer)) => {
            lease.keep();
            Ok(answer)
        }
        Ok(Err(error)) => {
            lease.discard("broken");
            Err(BackendError::caused_by(BackendErrorKind::Unavailable, error))
        }
        Err(elapsed) => {
            lease.discard("timeout");
            Err(BackendError::caused_by(BackendErrorKind::Unavailable, elapsed))
        }
    }
}

fn unavailable() -> BackendError {
    BackendError::new(BackendErrorKind::Unavailable)
}
