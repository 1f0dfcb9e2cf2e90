//! One attempt at a call, on one connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tiberius::error::Error;
use tokio::time::{Instant, sleep_until};

use super::bind;
use super::execute::{self, ExecutionError, RequestForm};
use super::failure::{AttemptFailure, NotSentFailure, StopCause};
use super::session_context::SessionValues;
use super::transaction;
use super::unsent::{combine, preparation_failed, unavailable};
use crate::lifecycle::Cancel;
use crate::procedures::mssql::metadata::{
    ServerCapabilities, SessionContextKind, Signature, SignatureLookup,
};
use crate::procedures::mssql::pools::{Lease, TdsConnection};
use crate::procedures::mssql::tds::{BatchRewrite, PrecedingCalls};
use crate::procedures::mssql::{Mssql, error_numbers};
use crate::procedures::{
    BackendError, BackendErrorKind, Call, ProcedureResult, RowSink, Transaction,
};

/// A call, and the conditions that may end an attempt early.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttemptContext<'a> {
    pub(super) call: &'a Call<'a>,
    pub(super) cancel: &'a Cancel,
    /// The time at which the attempt got its connection. If the call is cancelled shortly
    /// afterwards, it is stopped only after a delay.
    pub(super) started: Instant,
}

/// The step at which an attempt failed.
#[derive(Debug)]
pub(super) enum FailedStep {
    /// The call to the procedure.
    Call(ExecutionError),
    /// The end of the transaction around the call.
    TransactionEnd(ExecutionError),
    /// Either step, because the deadline passed or the call was cancelled.
    Stopped(StopCause),
}

/// A connection, with the metadata for a call.
#[derive(Debug)]
struct PreparedConnection {
    lease: Lease,
    capabilities: ServerCapabilities,
    signature: Arc<Signature>,
}

impl Mssql {
    /// Makes one attempt. With `at_front`, the attempt waits for a connection ahead of calls that
    /// have not had one yet.
    pub(super) async fn attempt(
        &self,
        call: &Call<'_>,
        rows: &mut dyn RowSink,
        cancel: &Cancel,
        at_front: bool,
    ) -> Result<ProcedureResult, AttemptFailure> {
        let started = Instant::now();
        // A call holds no connection while it waits for another call to read the signature.
        let signature = self.signatures.known(call.procedure);
        let lookup = if signature.is_some() {
            SignatureLookup::Known
        } else {
            let lookup = self.signatures.lookup(call.procedure);
            Box::pin(self.wait_unless_stopped(call, cancel, lookup)).await?
        };
        if matches!(lookup, SignatureLookup::Missing) {
            return Err(self.missing(call).into());
        }
        let (lease, signature) = match self.try_lease(call, cancel, at_front) {
            Ok(lease) => (Ok(lease), signature),
            // The signature can be read again in the meantime.
            Err(at_front) => (self.lease(call, cancel, at_front).await, None),
        };
        rows.add_connection_wait(started.elapsed());
        let context = AttemptContext { call, cancel, started: Instant::now() };
        let prepared = self.prepare(lease?, signature, context).await?;
        drop(lookup);
        self.execute(prepared, rows, context).await
    }

    /// Leases an idle connection, unless the call is cancelled. Otherwise returns whether the call waits ahead of others.
    fn try_lease(&self, call: &Call<'_>, cancel: &Cancel, at_front: bool) -> Result<Lease, bool> {
        if cancel.is_cancelled() || self.closing.is_cancelled() {
            return Err(at_front);
        }
        let lease = self.pools.try_lease(call.queue.as_str());
        lease.map_err(|none_idle| at_front || none_idle.has_closed)
    }

    /// Leases a connection, and waits for one until the deadline if necessary.
    async fn lease(
        &self,
        call: &Call<'_>,
        cancel: &Cancel,
        at_front: bool,
    ) -> Result<Lease, BackendError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(BackendErrorKind::Cancelled.into()),
            () = self.closing.cancelled() => Err(BackendErrorKind::Cancelled.into()),
            lease = self.pools.lease(call.queue.as_str(), call.deadline, at_front) => lease,
        }
    }

    /// Waits for `work`, which must finish before the call is sent. Stops waiting at the deadline,
    /// or when the call is cancelled.
    async fn wait_unless_stopped<F: Future>(
        &self,
        call: &Call<'_>,
        cancel: &Cancel,
        work: F,
    ) -> Result<F::Output, BackendError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(BackendErrorKind::Cancelled.into()),
            () = self.closing.cancelled() => Err(BackendErrorKind::Cancelled.into()),
            output = work => Ok(output),
            () = sleep_until(call.deadline) => Err(BackendErrorKind::TimedOut.into()),
        }
    }

    /// Reads the capabilities of the server and the procedure's signature, unless they are known.
    async fn prepare(
        &self,
        lease: Lease,
        signature: Option<Arc<Signature>>,
        context: AttemptContext<'_>,
    ) -> Result<PreparedConnection, NotSentFailure> {
        let (lease, capabilities) = self.detect_capabilities(lease, context).await?;
        let (lease, signature) = match signature {
            Some(signature) => (lease, signature),
            None => self.read_signature(lease, context).await?,
        };
        Ok(PreparedConnection { lease, capabilities, signature })
    }

    /// Makes the call on a connection, and leaves the connection either clean or closed.
    async fn execute(
        &self,
        PreparedConnection { mut lease, capabilities, signature }: PreparedConnection,
        rows: &mut dyn RowSink,
        context: AttemptContext<'_>,
    ) -> Result<ProcedureResult, AttemptFailure> {
        let AttemptContext { call, cancel, .. } = context;
        let Some(connection) = lease.connection() else { return Err(unavailable().into()) };
        let stream = Arc::clone(&connection.stream);
        let joins = self.session_permission.permits_joining(call);
        let request = self.request(call, &signature, capabilities);
        let values = self.session_values(call, capabilities.session_context, joins, connection);
        let ((rewrites, form), (values, preceding)) = match combine(request, values) {
            Ok(prepared) => prepared,
            Err(error) => {
                let refused = Box::pin(self.end_refused(lease, context, (error, &signature)));
                return Err(refused.await.into());
            }
        };
        values.record(connection);
        if cancel.is_cancelled() {
            lease.keep();
            return Err(BackendError::new(BackendErrorKind::Cancelled).into());
        }
        if !joins && !values.is_empty() {
            lease = self.set_session_context(lease, &values, context).await?;
        }
        let mut lease = self.begin_transaction(lease, capabilities, context).await?;
        if cancel.is_cancelled() {
            lease.keep_rolled_back().await;
            return Err(BackendError::new(BackendErrorKind::Cancelled).into());
        }
        let Some(connection) = lease.connection() else { return Err(unavailable().into()) };
        stream.start_call(rewrites, preceding);
        // The future is boxed, because it would be moved several times.
        let execution = Box::pin(execute_and_end_transaction(
            connection,
            call.transaction,
            (form, &signature),
            rows,
        ));
        let stopped = async {
            cancel.cancelled().await;
            // Stopping a call costs nothing before it is sent.
            if stream.sent().is_ok() {
                self.wait_until_worth_stopping(context).await;
            }
        };
        let executed = self.run_until(stopped, context, execution).await;
        let mut log = stream.take_messages();
        log.report_messages(rows);
        let step = match executed {
            Ok(Ok(result)) => {
                lease.keep();
                return Ok(result);
            }
            Ok(Err(step)) => step,
            Err(cause) => FailedStep::Stopped(cause),
        };
        if matches!(step, FailedStep::Call(ExecutionError::Recreated)) {
            return Err(Box::pin(self.end_recreated(lease, context, &signature)).await.into());
        }
        Err(match stream.sent() {
            Err(proof) => AttemptFailure::NotSent(
                Box::pin(self.end_unsent(lease, context, (step, &signature), proof)).await,
            ),
            Ok(proof) => {
                let failed = (step, &*signature);
                let ended = self.end_sent(lease, context, failed, (log, proof));
                AttemptFailure::Sent(Box::pin(ended).await)
            }
        })
    }

    /// Builds a call's request, and the rewrites of the batches that the driver sends before the
    /// call.
    fn request<'a>(
        &self,
        call: &Call<'a>,
        signature: &'a Signature,
        capabilities: ServerCapabilities,
    ) -> Result<(Vec<Arc<BatchRewrite>>, RequestForm<'a>), BackendError> {
        let refuses_null =
            capabilities.refuses_untyped_null || self.untyped_null_refused.load(Ordering::Relaxed);
        let bound = bind::bind(call, signature, capabilities.varchar_encoding)?;
        let rewrites = bind::rewrites(&bound, capabilities.varchar_encoding)?;
        Ok((rewrites, execute::form((call.procedure, signature), bound, refuses_null)?))
    }

    /// Returns the values that a call sets in the session context, and their encoding if they are
    /// sent in the call's message.
    fn session_values<'a>(
        &self,
        call: &Call<'a>,
        kind: SessionContextKind,
        joins: bool,
        connection: &TdsConnection,
    ) -> Result<(SessionValues<'a>, PrecedingCalls), BackendError> {
        let values = SessionValues::new(call, &self.config.session_context, kind, connection)?;
        let preceding = if joins { values.preceding()? } else { PrecedingCalls::default() };
        Ok((values, preceding))
    }

    /// Waits for `work` until the deadline passes, the call is cancelled, or the backend is closed.
    pub(super) async fn until_stopped<F: Future>(
        &self,
        context: AttemptContext<'_>,
        work: F,
    ) -> Result<F::Output, StopCause> {
        let stopped = async {
            context.cancel.cancelled().await;
            self.wait_until_worth_stopping(context).await;
        };
        self.run_until(stopped, context, work).await
    }

    /// Waits for `work` until `stopped` completes, the deadline passes, or the backend is closed.
    async fn run_until<F: Future>(
        &self,
        stopped: impl Future<Output = ()>,
        context: AttemptContext<'_>,
        work: F,
    ) -> Result<F::Output, StopCause> {
        // The cancel and the deadline are polled first, because an endless result would starve
        // them.
        tokio::select! {
            biased;
            () = stopped => Err(StopCause::Cancelled),
            () = self.closing.cancelled() => Err(StopCause::Cancelled),
            () = sleep_until(context.call.deadline) => Err(StopCause::TimedOut),
            output = work => Ok(output),
        }
    }

    /// Waits until a cancelled call has run for at least as long as opening a connection takes. A
    /// shorter call runs to completion, because stopping a call can cost its connection.
    async fn wait_until_worth_stopping(&self, context: AttemptContext<'_>) {
        sleep_until(context.started + self.pools.connection_cost()).await;
    }

    /// Returns the server's capabilities, detecting them if they are not known.
    async fn detect_capabilities(
        &self,
        mut lease: Lease,
        context: AttemptContext<'_>,
    ) -> Result<(Lease, ServerCapabilities), NotSentFailure> {
        if let Some(capabilities) = self.server.known() {
            return Ok((lease, capabilities));
        }
        let Some(connection) = lease.connection() else { return Err(unavailable().into()) };
        let detection = Box::pin(self.server.detect(&mut connection.client));
        match self.until_stopped(context, detection).await {
            Ok(Ok(capabilities)) => Ok((lease, capabilities)),
            failed => Err(preparation_failed(lease, failed.map(|answer| answer.map(drop))).await),
        }
    }

    /// Returns the procedure's signature, reading it if it is not known.
    async fn read_signature(
        &self,
        mut lease: Lease,
        context: AttemptContext<'_>,
    ) -> Result<(Lease, Arc<Signature>), NotSentFailure> {
        let procedure = context.call.procedure;
        if let Some(signature) = self.signatures.known(procedure) {
            return Ok((lease, signature));
        }
        let Some(connection) = lease.connection() else { return Err(unavailable().into()) };
        let read = Box::pin(self.signatures.read(&mut connection.client, procedure));
        match self.until_stopped(context, read).await {
            Ok(Ok(Some(signature))) => Ok((lease, signature)),
            Ok(Ok(None)) => {
                lease.keep();
                Err(self.missing(context.call).into())
            }
            failed => Err(preparation_failed(lease, failed.map(|answer| answer.map(drop))).await),
        }
    }

    /// Sets the values of a call in the session context, in a separate message. The call is not
    /// sent if the server refuses one of them.
    async fn set_session_context(
        &self,
        mut lease: Lease,
        values: &SessionValues<'_>,
        context: AttemptContext<'_>,
    ) -> Result<Lease, NotSentFailure> {
        let Some(connection) = lease.connection() else { return Err(unavailable().into()) };
        let set = Box::pin(values.set(&mut connection.client));
        match self.until_stopped(context, set).await {
            Ok(Ok(())) => {
                self.session_permission.record_accepted();
                Ok(lease)
            }
            Ok(Err(Error::Server(token))) if !error_numbers::is_fatal(&token) => {
                self.session_permission.record_refused();
                // The key may already have been set on this connection.
                lease.discard("session-context");
                Err(error_numbers::before_sending(token).into())
            }
            failed => Err(preparation_failed(lease, failed).await),
        }
    }

    /// Begins a transaction if the call runs in one.
    async fn begin_transaction(
        &self,
        mut lease: Lease,
        capabilities: ServerCapabilities,
        context: AttemptContext<'_>,
    ) -> Result<Lease, NotSentFailure> {
        let transaction = context.call.transaction;
        if transaction == Transaction::None {
            return Ok(lease);
        }
        let Some(connection) = lease.connection() else { return Err(unavailable().into()) };
        let begin =
            transaction::begin(&mut connection.client, transaction, capabilities.reports_commits);
        match self.until_stopped(context, Box::pin(begin)).await {
            Ok(Ok(())) => Ok(lease),
            failed => Err(preparation_failed(lease, failed).await),
        }
    }

    /// Returns the error for a procedure that does not exist.
    pub(super) fn missing(&self, call: &Call<'_>) -> BackendError {
        BackendError::mismatch(call.procedure.as_str(), self.missing_text(call.procedure))
    }
}

/// Executes a call, and ends its transaction.
async fn execute_and_end_transaction(
    TdsConnection { client, stream, .. }: &mut TdsConnection,
    transaction: Transaction,
    (form, signature): (RequestForm<'_>, &Signature),
    rows: &mut dyn RowSink,
) -> Result<ProcedureResult, FailedStep> {
    let result = execute::execute((client, stream), form, signature, rows).await;
    let result = result.map_err(FailedStep::Call)?;
    let end = transaction::end(client, transaction).await;
    end.map_err(FailedStep::TransactionEnd)?;
    if transaction == Transaction::RolledBack && stream.has_committed() {
        // The rollback did not undo the whole call.
        return Err(FailedStep::TransactionEnd(error_numbers::transaction_ended().into()));
    }
    Ok(result)
}
