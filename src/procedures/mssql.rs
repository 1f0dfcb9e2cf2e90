//! The SQL Server backend: stored procedures over TDS.
//!
//! A call is a remote procedure call by name with typed parameters; see `statement` for the few that cannot be.
//! A connection serves one call at a time and goes back to its pool only after the answer was read to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::config::procedures::{DatabaseConfig, MssqlConfig, MssqlEncryption};
use crate::future::BoxFuture;
use crate::lifecycle::Cancel;
use crate::procedures::{
    Backend, BackendError, BackendErrorKind, Call, Described, Found, Need, Outcome, RowSink,
};
use crate::telemetry::{self, names};
use crate::tls::Connector;

mod answer;
mod bind;
mod breaker;
mod connect;
mod describe;
mod ended;
mod errors;
mod lease;
mod marks;
mod pool;
mod pools;
mod prelogin;
mod run;
mod shared;
mod signature;
mod socket;
mod statement;
mod types;
mod verify;
mod wire;

use bind::mismatch;
use ended::{Again, Ended, Step};
use lease::Lease;
use pools::Pools;
use signature::{Signature, Signatures};

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
        refuses_untyped_null: AtomicBool::new(false),
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
    refuses_untyped_null: AtomicBool,
    closing: Cancel,
}

/// How often a call was tried again, by reason.
#[derive(Debug, Default)]
struct Tries {
    deadlocks: u32,
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
    ) -> BoxFuture<'a, Result<Outcome, BackendError>> {
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
    async fn call_until_done(
        &self,
        call: Call<'_>,
        rows: &mut dyn RowSink,
        cancel: &Cancel,
    ) -> Result<Outcome, BackendError> {
        let mut tries = Tries::default();
        // Once an attempt may have run, none after it can make that undone: the call does not count as not executed.
        let mut lost = None;
        loop {
            let asked = Instant::now();
            let lease = tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(cancelled()),
                () = self.closing.cancelled() => return Err(cancelled()),
                lease = self.pools.lease(call.queue.as_str(), call.deadline) => lease,
            };
            rows.waited(asked.elapsed());
            let lease = match lease {
                Ok(lease) => lease,
                Err(error) => return Err(lost.unwrap_or(error)),
            };
            let Ended { error, again } = match self.attempt(lease, &call, rows, cancel).await {
                Ok(outcome) => return Ok(outcome),
                Err(ended) => ended,
            };
            let is_unsent = error.kind == BackendErrorKind::Unavailable;
            let again = again.filter(|again| self.may_try(*again, &mut tries));
            let Some(again) = again.filter(|_| rows.restart()) else {
                return Err(lost.filter(|_| is_unsent).unwrap_or(error));
            };
            telemetry::counter(
                &names::BACKEND_RETRIES,
                &[(names::DATABASE, self.name.clone()), (names::REASON, again.as_str().to_owned())],
            )
            .increment(1);
            if again == Again::Deadlock {
                let pause = breaker::jittered(DEADLOCK_PAUSE.saturating_mul(tries.deadlocks));
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => return Err(cancelled()),
                    () = sleep_until(call.deadline) => return Err(error),
                    () = tokio::time::sleep(pause) => {}
                }
            }
            if again == Again::Lost {
                lost = Some(error);
            }
        }
    }

    fn may_try(&self, again: Again, tries: &mut Tries) -> bool {
        let (count, most) = match again {
            Again::Deadlock => (&mut tries.deadlocks, self.config.deadlock_retries),
            Again::Unsent => (&mut tries.unsent, UNSENT_RETRIES),
            Again::Signature => (&mut tries.signatures, 1),
            Again::UntypedNull => (&mut tries.nulls, 1),
            Again::Lost => (&mut tries.lost, 1),
        };
        *count += 1;
        *count <= most
    }

    /// One try on one connection, which goes back clean or is gone afterwards.
    async fn attempt(
        &self,
        mut lease: Lease,
        call: &Call<'_>,
        rows: &mut dyn RowSink,
        cancel: &Cancel,
    ) -> Result<Outcome, Ended> {
        let mut used = None;
        let started = Instant::now();
        let run = async {
            let signature = self.signature(&mut lease, call).await?;
            used = Some(Arc::clone(&signature));
            if cancel.is_cancelled() {
                return Err(Step::Clean(cancelled()));
            }
            self.run(&mut lease, call, rows, &signature).await
        };
        // The clock and the cancel first: an answer without end would not let them have a turn.
        let step = tokio::select! {
            biased;
            () = self.is_worth_a_cancel(cancel, started) => Err(Step::Stopped(BackendErrorKind::Cancelled)),
            () = self.closing.cancelled() => Err(Step::Stopped(BackendErrorKind::Cancelled)),
            () = sleep_until(call.deadline) => Err(Step::Stopped(BackendErrorKind::TimedOut)),
            step = run => step,
        };
        match step {
            Ok(outcome) => {
                lease.keep();
                Ok(outcome)
            }
            Err(step) => Err(self.end(lease, call, step, used).await),
        }
    }

    /// Waits until nobody waits for the call any more and it has run for as long as a connection costs: to stop it
    /// may cost one. A shorter call runs to its end, and its answer is dropped.
    async fn is_worth_a_cancel(&self, cancel: &Cancel, started: Instant) {
        cancel.cancelled().await;
        sleep_until(started + self.pools.connection_cost()).await;
    }

    /// The signature of a call's procedure, read where it is not known.
    async fn signature(&self, lease: &mut Lease, call: &Call<'_>) -> Result<Arc<Signature>, Step> {
        if let Some(signature) = self.signatures.known(call.procedure) {
            return Ok(signature);
        }
        let session = lease.session().ok_or_else(gone)?;
        let read = self.signatures.read(&mut session.client, call.procedure).await;
        read.map_err(Step::Asking)?.ok_or_else(|| Step::Clean(self.missing(call)))
    }

    /// Sends the call and reads its answer.
    async fn run(
        &self,
        lease: &mut Lease,
        call: &Call<'_>,
        rows: &mut dyn RowSink,
        signature: &Signature,
    ) -> Result<Outcome, Step> {
        let session = lease.session().ok_or_else(gone)?;
        let bound = bind::bind(call, signature).map_err(Step::Clean)?;
        let refuses = self.refuses_untyped_null.load(Ordering::Relaxed);
        let form = run::form(call.procedure, bound, refuses).map_err(Step::Clean)?;
        session.marks.call_starts();
        run::run(&mut session.client, form, signature, rows).await.map_err(Step::Calling)
    }

    fn missing(&self, call: &Call<'_>) -> BackendError {
        mismatch(call.procedure, self.missing_text())
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

fn cancelled() -> BackendError {
    BackendError::new(BackendErrorKind::Cancelled)
}

fn unavailable() -> BackendError {
    BackendError::new(BackendErrorKind::Unavailable)
}

fn gone() -> Step {
    Step::Clean(unavailable())
}
