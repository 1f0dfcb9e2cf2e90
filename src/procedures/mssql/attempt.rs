//! One attempt of a call on one connection. A failure is of one type when nothing of the call was sent, and of another
//! once something was: the stream below the driver knows which.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tiberius::error::{Error, TokenError};
use tokio::time::{Instant, sleep_until};

use super::Mssql;
use super::bind::{self, mismatch};
use super::errors;
use super::failure::{AttemptFailure, NotSentFailure, RetryReason, SentFailure, Stop};
use super::lease::Lease;
use super::marks::{Marks, NothingSent, SomethingSent};
use super::question::Questions;
use super::run::{self, Failure};
use super::server::Facts;
use super::signature::Signature;
use super::transaction;
use crate::lifecycle::Cancel;
use crate::procedures::{
    BackendError, BackendErrorKind, Call, Outcome, RowSink, SentError, SentErrorKind, Transaction,
};

/// The cancel token and the start of the attempt: a short call is not cancelled.
pub(super) type Leaving<'a> = (&'a Cancel, Instant);

/// A step of the call itself that failed.
#[derive(Debug)]
enum Step {
    /// The procedure's call.
    Calling(Failure),
    /// The end of the transaction around it.
    Ending(Failure),
    /// The deadline or a cancel came first.
    Stopped(Stop),
}

/// A connection, with what has to be known before a call is made on it.
#[derive(Debug)]
pub(super) struct Prepared {
    lease: Lease,
    facts: Facts,
    signature: Arc<Signature>,
}

impl Mssql {
    /// Asks on a connection what is not known yet.
    pub(super) async fn prepare(
        &self,
        lease: Lease,
        call: &Call<'_>,
        leaving: Leaving<'_>,
    ) -> Result<Prepared, NotSentFailure> {
        let (lease, facts) = self.asked(lease, call, leaving).await?;
        let (lease, signature) = self.described(lease, call, leaving).await?;
        Ok(Prepared { lease, facts, signature })
    }

    /// One try on one connection, which goes back clean or is gone afterwards.
    pub(super) async fn attempt(
        &self,
        Prepared { mut lease, facts, signature }: Prepared,
        call: &Call<'_>,
        rows: &mut dyn RowSink,
        leaving: Leaving<'_>,
    ) -> Result<Outcome, AttemptFailure> {
        let (cancel, _) = leaving;
        let Some(session) = lease.session() else {
            return Err(BackendError::new(BackendErrorKind::Unavailable).into());
        };
        let marks = Arc::clone(&session.marks);
        let refuses_null =
            facts.refuses_untyped_null || self.untyped_null_refused.load(Ordering::Relaxed);
        let form = bind::bind(call, &signature, facts.narrow_text).and_then(|bound| {
            let questions = Questions::for_call(&bound, facts.narrow_text)?;
            Ok((questions, run::form(call.procedure, bound, refuses_null)?))
        });
        let (questions, form) = match form {
            Ok(form) => form,
            Err(error) => {
                lease.keep();
                return Err(error.into());
            }
        };
        if cancel.is_cancelled() {
            lease.keep();
            return Err(BackendError::new(BackendErrorKind::Cancelled).into());
        }
        let mut lease = self.begun(lease, call, facts, leaving).await?;
        if cancel.is_cancelled() {
            lease.keep_rolled_back().await;
            return Err(BackendError::new(BackendErrorKind::Cancelled).into());
        }
        let Some(session) = lease.session() else {
            return Err(BackendError::new(BackendErrorKind::Unavailable).into());
        };
        marks.call_starts(questions);
        let client = &mut session.client;
        let calling = async {
            let called = run::run(client, form, &signature, rows).await;
            let outcome = called.map_err(Step::Calling)?;
            transaction::end(client, call.transaction).await.map_err(Step::Ending)?;
            if call.transaction == Transaction::RolledBack && marks.has_committed() {
                // What was rolled back was not the whole call.
                return Err(Step::Ending(errors::transaction_ended().into()));
            }
            Ok(outcome)
        };
        let called = tokio::select! {
            biased;
            () = cancelled_unsent(cancel, &marks) => Err(Stop::Cancelled),
            called = self.within(call, leaving, calling) => called,
        };
        let step = match called {
            Ok(Ok(outcome)) => {
                lease.keep();
                return Ok(outcome);
            }
            Ok(Err(step)) => step,
            Err(stop) => Step::Stopped(stop),
        };
        Err(match marks.sent() {
            Err(nothing) => {
                let failure =
                    self.end_unsent(lease, (call, leaving), (step, &signature), nothing).await;
                AttemptFailure::NotSent(failure)
            }
            Ok(something) => {
                let failure =
                    self.end_sent(lease, (call, leaving), (step, &signature), something).await;
                AttemptFailure::Sent(failure)
            }
        })
    }

    /// Waits for the database until the deadline, a cancel or the backend's end.
    async fn within<F: Future>(
        &self,
        call: &Call<'_>,
        (cancel, started): Leaving<'_>,
        work: F,
    ) -> Result<F::Output, Stop> {
        // Check the deadline and the cancel first: an endless result would starve them.
        tokio::select! {
            biased;
            () = self.is_worth_a_cancel(cancel, started) => Err(Stop::Cancelled),
            () = self.closing.cancelled() => Err(Stop::Cancelled),
            () = sleep_until(call.deadline) => Err(Stop::TimedOut),
            done = work => Ok(done),
        }
    }

    /// What the server is, asked where it is not known.
    async fn asked(
        &self,
        mut lease: Lease,
        call: &Call<'_>,
        leaving: Leaving<'_>,
    ) -> Result<(Lease, Facts), NotSentFailure> {
        if let Some(facts) = self.server.known() {
            return Ok((lease, facts));
        }
        let Some(session) = lease.session() else {
            return Err(BackendError::new(BackendErrorKind::Unavailable).into());
        };
        match self.within(call, leaving, self.server.ask(&mut session.client)).await {
            Ok(Ok(facts)) => Ok((lease, facts)),
            asked => Err(unanswered(lease, asked.map(|answer| answer.map(drop))).await),
        }
    }

    /// The procedure's signature, read where it is not known.
    async fn described(
        &self,
        mut lease: Lease,
        call: &Call<'_>,
        leaving: Leaving<'_>,
    ) -> Result<(Lease, Arc<Signature>), NotSentFailure> {
        if let Some(signature) = self.signatures.known(call.procedure) {
            return Ok((lease, signature));
        }
        let Some(session) = lease.session() else {
            return Err(BackendError::new(BackendErrorKind::Unavailable).into());
        };
        let reading = self.signatures.read(&mut session.client, call.procedure);
        match self.within(call, leaving, reading).await {
            Ok(Ok(Some(signature))) => Ok((lease, signature)),
            Ok(Ok(None)) => {
                lease.keep();
                Err(mismatch(call.procedure, self.missing_text()).into())
            }
            asked => Err(unanswered(lease, asked.map(|answer| answer.map(drop))).await),
        }
    }

    /// Begins the transaction around the call, where there is one.
    async fn begun(
        &self,
        mut lease: Lease,
        call: &Call<'_>,
        facts: Facts,
        leaving: Leaving<'_>,
    ) -> Result<Lease, NotSentFailure> {
        if call.transaction == Transaction::None {
            return Ok(lease);
        }
        let Some(session) = lease.session() else {
            return Err(BackendError::new(BackendErrorKind::Unavailable).into());
        };
        let beginning =
            transaction::begin(&mut session.client, call.transaction, facts.tells_of_commits);
        match self.within(call, leaving, beginning).await {
            Ok(Ok(())) => Ok(lease),
            asked => Err(unanswered(lease, asked).await),
        }
    }

    /// Deals with the connection of an attempt of which nothing was sent.
    async fn end_unsent(
        &self,
        mut lease: Lease,
        (call, leaving): (&Call<'_>, Leaving<'_>),
        (failed, used): (Step, &Signature),
        _nothing: NothingSent,
    ) -> NotSentFailure {
        match failed {
            Step::Stopped(stop) => {
                lease.cancel(stop.reason()).await;
                BackendError::new(stop.before_sending()).into()
            }
            // The driver's own question about a table's columns was refused: the type may have changed.
            Step::Calling(Failure::Server(token)) | Step::Ending(Failure::Server(token))
                if !errors::is_fatal(&token) =>
            {
                let Some(fresh) = self.read_again(&mut lease, (call, leaving)).await else {
                    return unsent(lease, Error::Server(token));
                };
                lease.keep_rolled_back().await;
                match fresh {
                    None => mismatch(call.procedure, self.missing_text()).into(),
                    Some(fresh) => NotSentFailure {
                        error: errors::of_question(token),
                        retry: (*fresh != *used).then_some(RetryReason::Signature),
                    },
                }
            }
            Step::Calling(Failure::Server(token)) | Step::Ending(Failure::Server(token)) => {
                unsent(lease, Error::Server(token))
            }
            Step::Calling(Failure::Driver(error)) | Step::Ending(Failure::Driver(error)) => {
                if let Some(reason) = errors::refused_cell(&error) {
                    // The driver waits for the answer to what it never sent.
                    lease.discard("unsendable");
                    return self.unwritable(call, used, reason);
                }
                unsent(lease, error)
            }
            // An answer to what was not sent.
            Step::Calling(Failure::Ours(error)) | Step::Ending(Failure::Ours(error)) => {
                lease.discard("broken");
                BackendError::caused_by(BackendErrorKind::Unavailable, error).into()
            }
        }
    }

    /// The driver cannot write a cell that was found to fit: the table type is not what it was when the signature was read,
    /// or fjord is wrong about the driver.
    fn unwritable(&self, call: &Call<'_>, used: &Signature, reason: &str) -> NotSentFailure {
        self.signatures.forget(call.procedure, used);
        let difference =
            format!("the driver cannot write a cell into a column of a table type ({reason})");
        NotSentFailure {
            error: mismatch(call.procedure, difference),
            retry: Some(RetryReason::Signature),
        }
    }

    /// Deals with the connection of an attempt that was sent.
    async fn end_sent(
        &self,
        lease: Lease,
        (call, leaving): (&Call<'_>, Leaving<'_>),
        (failed, used): (Step, &Signature),
        _something: SomethingSent,
    ) -> SentFailure {
        match failed {
            Step::Stopped(stop) => {
                lease.cancel(stop.reason()).await;
                SentError::new(stop.after_sending()).into()
            }
            Step::Calling(Failure::Server(token)) => {
                self.refused(lease, (call, leaving), token, used).await
            }
            Step::Ending(Failure::Server(token)) => {
                // It is unknown whether a failed COMMIT or ROLLBACK took effect.
                let failure = self.refused(lease, (call, leaving), token, used).await;
                let error = SentError { is_rolled_back: false, ..failure.error };
                SentFailure { error, retry: failure.retry.filter(|_| call.may_repeat) }
            }
            Step::Calling(Failure::Driver(error)) | Step::Ending(Failure::Driver(error)) => {
                lease.discard("broken");
                lost(call, errors::after_sending(error))
            }
            Step::Calling(Failure::Ours(error)) | Step::Ending(Failure::Ours(error)) => {
                lease.cancel("unread").await;
                error.into()
            }
        }
    }

    /// The server answered with an error. Its number says nothing about what ran before: an inner procedure may have
    /// raised it, or a statement after others that were committed.
    async fn refused(
        &self,
        mut lease: Lease,
        (call, leaving): (&Call<'_>, Leaving<'_>),
        token: TokenError,
        used: &Signature,
    ) -> SentFailure {
        if errors::is_fatal(&token) {
            lease.discard("fatal");
            return lost(call, errors::from_token(token));
        }
        let mut missing = None;
        let reports = self.server.known().is_some_and(|facts| facts.tells_of_commits);
        // Before anything else is asked on the connection.
        let reported = lease.session().filter(|_| reports).map(|one| one.marks.reported());
        let reason = if errors::is_deadlock(&token) {
            Some(RetryReason::Deadlock)
        } else if errors::is_snapshot_conflict(&token) {
            Some(RetryReason::Snapshot)
        } else if errors::refuses_untyped_null(&token) {
            let is_known = self.untyped_null_refused.swap(true, Ordering::Relaxed);
            (!is_known).then_some(RetryReason::UntypedNull)
        } else if errors::doubts_signature(&token) {
            // Whoever calls next finds what is declared now.
            let Some(fresh) = self.read_again(&mut lease, (call, leaving)).await else {
                lease.discard("broken");
                return errors::from_token(token).into();
            };
            if fresh.is_none() {
                missing = Some(self.missing_text());
            }
            fresh.is_some_and(|fresh| *fresh != *used).then_some(RetryReason::Signature)
        } else {
            None
        };
        let Some(session) = lease.session() else { return errors::from_token(token).into() };
        let undoing = transaction::undoes_all(session, call.transaction, reported);
        let Ok(undoes_all) = self.within(call, leaving, undoing).await else {
            lease.discard("rollback");
            return errors::from_token(token).into();
        };
        let is_rolled_back =
            lease.keep_rolled_back().await && undoes_all && !errors::ends_transaction(&token);
        let mut error = SentError { is_rolled_back, ..errors::from_token(token) };
        if let Some(difference) = missing {
            let procedure = call.procedure.as_str().to_owned();
            error.kind = SentErrorKind::Mismatch { procedure, difference };
        }
        SentFailure { retry: reason.filter(|_| call.may_repeat || is_rolled_back), error }
    }

    /// Reads the signature once more. The outer `None`: it could not be read.
    async fn read_again(
        &self,
        lease: &mut Lease,
        (call, leaving): (&Call<'_>, Leaving<'_>),
    ) -> Option<Option<Arc<Signature>>> {
        let session = lease.session()?;
        let reading = self.signatures.read(&mut session.client, call.procedure);
        self.within(call, leaving, reading).await.ok()?.ok()
    }
}

/// Waits for a cancel that comes before a byte of the call has left: such a call never starts. Another cancel is left to
/// `within`.
async fn cancelled_unsent(cancel: &Cancel, marks: &Marks) {
    cancel.cancelled().await;
    if marks.sent().is_ok() {
        std::future::pending::<()>().await;
    }
}

/// The failure of a question of our own before the call.
async fn unanswered(lease: Lease, asked: Result<Result<(), Error>, Stop>) -> NotSentFailure {
    match asked {
        Ok(Err(Error::Server(token))) if !errors::is_fatal(&token) => {
            lease.keep_rolled_back().await;
            errors::of_question(token).into()
        }
        Ok(Err(error)) => unsent(lease, error),
        Ok(Ok(())) => {
            lease.keep();
            BackendError::new(BackendErrorKind::Unavailable).into()
        }
        Err(stop) => {
            lease.cancel(stop.reason()).await;
            BackendError::new(stop.before_sending()).into()
        }
    }
}

/// The connection broke, and nothing of the call was sent.
fn unsent(lease: Lease, error: Error) -> NotSentFailure {
    lease.discard("broken");
    NotSentFailure {
        error: BackendError::caused_by(BackendErrorKind::Unavailable, error),
        retry: Some(RetryReason::Unsent),
    }
}

/// The connection ended in a call that was sent.
fn lost(call: &Call<'_>, error: SentError) -> SentFailure {
    let may_repeat = call.may_repeat && error.kind == SentErrorKind::Lost;
    SentFailure { error, retry: may_repeat.then_some(RetryReason::Lost) }
}
