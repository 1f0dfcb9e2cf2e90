//! Decides after a failed attempt whether to keep its connection and which error the call returns.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tiberius::error::{Error, TokenError};

use super::attempt::{AttemptContext, FailedStep};
use super::execute::ExecutionError;
use super::failure::{NotSentFailure, RetryReason, SentFailure};
use super::transaction;
use super::unsent::broken_before_sending;
use crate::procedures::mssql::metadata::Signature;
use crate::procedures::mssql::pools::Lease;
use crate::procedures::mssql::server_message::MessageLog;
use crate::procedures::mssql::tds::{NotSentProof, SentProof};
use crate::procedures::mssql::{Mssql, error_numbers};
use crate::procedures::{BackendError, BackendErrorKind, SentError, SentErrorKind};

/// The minimum age of a signature that is read again because the arguments of a call do not fit it.
const SIGNATURE_AGE_MIN: Duration = Duration::from_secs(1);

impl Mssql {
    /// Keeps or closes the connection of a call that was not sent, and returns the failure.
    pub(super) async fn end_unsent(
        &self,
        mut lease: Lease,
        context: AttemptContext<'_>,
        (failed, used): (FailedStep, &Signature),
        _proof: NotSentProof,
    ) -> NotSentFailure {
        let error = match failed {
            FailedStep::Stopped(cause) => {
                lease.cancel(cause.as_str()).await;
                return BackendError::new(cause.before_sending()).into();
            }
            FailedStep::Call(error) | FailedStep::TransactionEnd(error) => error,
        };
        match error {
            // The server refused the driver's column query. The table type may have changed.
            ExecutionError::Server(token) if !error_numbers::is_fatal(&token) => {
                let Some(current) = self.read_signature_again(&mut lease, context).await else {
                    return broken_before_sending(lease, Error::Server(token));
                };
                lease.keep_rolled_back().await;
                match current {
                    None => self.missing(context.call).into(),
                    Some(current) => NotSentFailure {
                        error: error_numbers::before_sending(token),
                        retry: (*current != *used).then_some(RetryReason::Signature),
                    },
                }
            }
            ExecutionError::Server(token) => broken_before_sending(lease, Error::Server(token)),
            ExecutionError::Driver(error) => {
                if let Some(reason) = error_numbers::unwritable_cell(&error) {
                    // The driver expects an answer to a request that it never sent.
                    lease.discard("unsendable");
                    return self.unwritable(context, used, reason);
                }
                broken_before_sending(lease, error)
            }
            // Part of an answer arrived although the call was not sent.
            ExecutionError::Unread(error) => {
                lease.discard("broken");
                BackendError::caused_by(BackendErrorKind::Unavailable, error).into()
            }
            ExecutionError::Recreated => {
                lease.discard("broken");
                BackendError::new(BackendErrorKind::Unavailable).into()
            }
        }
    }

    /// Handles a call whose arguments do not fit the procedure's signature. The signature may have changed since it was
    /// read. It is then read again, at most once per `SIGNATURE_AGE_MIN`, because callers can cause this.
    pub(super) async fn end_refused(
        &self,
        mut lease: Lease,
        context: AttemptContext<'_>,
        (error, used): (BackendError, &Signature),
    ) -> NotSentFailure {
        let procedure = context.call.procedure;
        let depends_on_signature = matches!(
            error.kind,
            BackendErrorKind::Arguments(_) | BackendErrorKind::Mismatch { .. }
        );
        if !depends_on_signature {
            lease.keep();
            return error.into();
        }
        let mut current = self.signatures.known(procedure);
        // Another call may already have read the new signature.
        let is_newer = current.as_ref().is_some_and(|current| **current != *used);
        if !is_newer && self.signatures.claim_read(procedure, SIGNATURE_AGE_MIN) {
            let Some(read) = self.read_signature_again(&mut lease, context).await else {
                lease.discard("broken");
                return error.into();
            };
            if read.is_none() {
                lease.keep();
                return self.missing(context.call).into();
            }
            current = read;
        }
        lease.keep();
        let has_changed = current.is_some_and(|current| *current != *used);
        NotSentFailure { error, retry: has_changed.then_some(RetryReason::Signature) }
    }

    /// Handles a table cell that fjord accepted but the driver cannot write. Either the table type
    /// has changed since the signature was read, or fjord's check differs from the driver's.
    fn unwritable(
        &self,
        context: AttemptContext<'_>,
        used: &Signature,
        reason: &str,
    ) -> NotSentFailure {
        let procedure = context.call.procedure;
        self.signatures.forget(procedure, used);
        let difference =
            format!("the driver cannot write a cell into a column of a table type ({reason})");
        NotSentFailure {
            error: BackendError::mismatch(procedure.as_str(), difference),
            retry: Some(RetryReason::Signature),
        }
    }

    /// Keeps or closes the connection of a call that was sent, and returns the failure.
    pub(super) async fn end_sent(
        &self,
        lease: Lease,
        context: AttemptContext<'_>,
        (failed, used): (FailedStep, &Signature),
        (log, _proof): (MessageLog, SentProof),
    ) -> SentFailure {
        let (error, is_call) = match failed {
            FailedStep::Stopped(cause) => {
                lease.cancel(cause.as_str()).await;
                return SentError::new(cause.after_sending()).into();
            }
            FailedStep::Call(error) => (error, true),
            FailedStep::TransactionEnd(error) => (error, false),
        };
        match error {
            ExecutionError::Server(token) => {
                // Unless the server refused the COMMIT because of a conflict, it is unknown whether a
                // failed COMMIT or ROLLBACK took effect.
                let is_certain = is_call || error_numbers::refuses_commit(&token);
                let mut failure = self.refused(lease, context, (token, log), used).await;
                failure.error.is_rolled_back &= is_certain;
                failure
            }
            ExecutionError::Driver(error) => {
                lease.discard("broken");
                lost(error_numbers::after_sending(error))
            }
            ExecutionError::Unread(error) => {
                lease.cancel("unread").await;
                error.into()
            }
            // `end_recreated` handles this.
            ExecutionError::Recreated => {
                lease.discard("broken");
                SentError::new(SentErrorKind::Lost).into()
            }
        }
    }

    /// Handles a statement that stopped before the call because a table type was recreated. The
    /// call was not executed, as the server's answer shows.
    pub(super) async fn end_recreated(
        &self,
        mut lease: Lease,
        context: AttemptContext<'_>,
        used: &Signature,
    ) -> NotSentFailure {
        let Some(current) = self.read_signature_again(&mut lease, context).await else {
            lease.discard("broken");
            return BackendError::new(BackendErrorKind::Unavailable).into();
        };
        lease.keep_rolled_back().await;
        let Some(current) = current else { return self.missing(context.call).into() };
        let difference = "a table type was dropped and created again";
        NotSentFailure {
            error: BackendError::mismatch(context.call.procedure.as_str(), difference),
            retry: (*current != *used).then_some(RetryReason::Signature),
        }
    }

    /// Handles an error that the server returned. The error number does not prove that nothing was
    /// committed, because the error can come from an inner procedure, or from a statement that
    /// follows committed ones.
    async fn refused(
        &self,
        mut lease: Lease,
        context: AttemptContext<'_>,
        (token, log): (TokenError, MessageLog),
        used: &Signature,
    ) -> SentFailure {
        if log.has_failed_before() {
            // The procedure may have run without one of the values in the session context. From now
            // on, the values are sent before the call.
            self.session_permission.record_refused();
            lease.discard("session-context");
            return error_numbers::sent_error(&token.into(), &log).into();
        }
        let error = error_numbers::deciding_error(token.into(), &log);
        let failed = error_numbers::sent_error(&error, &log);
        if error_numbers::closes_connection(&error) {
            lease.discard("fatal");
            let retry = RetryReason::contention(&error);
            return if retry.is_some() {
                SentFailure { error: failed, retry }
            } else {
                lost(failed)
            };
        }
        let call = context.call;
        let mut missing = None;
        let reports = self.server.known().is_some_and(|capabilities| capabilities.reports_commits);
        // The transaction report must be read before any other request is sent on the connection.
        let report =
            lease.connection().filter(|_| reports).map(|one| one.stream.transaction_report());
        let retry = if let Some(reason) = RetryReason::contention(&error) {
            Some(reason)
        } else if error_numbers::refuses_untyped_null(&error) {
            let is_known = self.untyped_null_refused.swap(true, Ordering::Relaxed);
            (!is_known).then_some(RetryReason::UntypedNull)
        } else if error_numbers::doubts_signature(&error)
            || (used.inserts_rows() && error_numbers::lacks_column(&error))
        {
            // Reading the signature again also updates it for later calls.
            let Some(current) = self.read_signature_again(&mut lease, context).await else {
                lease.discard("broken");
                return failed.into();
            };
            if current.is_none() {
                missing = Some(self.missing_text(call.procedure));
            }
            current.is_some_and(|current| *current != *used).then_some(RetryReason::Signature)
        } else {
            None
        };
        let Some(connection) = lease.connection() else { return failed.into() };
        let undoing = transaction::undo(connection, call.transaction, report);
        let Ok(undoes_all) = self.until_stopped(context, undoing).await else {
            lease.discard("rollback");
            return failed.into();
        };
        let is_rolled_back =
            lease.keep_rolled_back().await && undoes_all && !error_numbers::ends_transaction(&log);
        let mut error = SentError { is_rolled_back, ..failed };
        if let Some(difference) = missing {
            let procedure = call.procedure.as_str().to_owned();
            error.kind = SentErrorKind::Mismatch { procedure, difference };
        }
        SentFailure { error, retry }
    }

    /// Reads the signature again. The outer `None` means that the signature could not be read. The
    /// inner `None` means that the procedure does not exist.
    async fn read_signature_again(
        &self,
        lease: &mut Lease,
        context: AttemptContext<'_>,
    ) -> Option<Option<Arc<Signature>>> {
        let connection = lease.connection()?;
        let read = self.signatures.read(&mut connection.client, context.call.procedure);
        self.until_stopped(context, read).await.ok()?.ok()
    }
}

/// Returns the failure of a call that was sent. If its connection broke, a retry can succeed.
fn lost(error: SentError) -> SentFailure {
    let is_lost = error.kind == SentErrorKind::Lost;
    SentFailure { error, retry: is_lost.then_some(RetryReason::LostAfterSending) }
}
