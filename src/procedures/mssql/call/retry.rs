//! Retries failed calls, for example after a deadlock, a lost connection or an outdated signature.
//!
//! A call that was not sent can safely be retried. A call that was sent is retried only if a second
//! execution is harmless (`Call::may_repeat`), or if all work of the first one was rolled back.

use tokio::time::{Instant, sleep_until};

use super::failure::{AttemptFailure, RetryReason, SentFailure};
use crate::jitter::jittered;
use crate::lifecycle::Cancel;
use crate::procedures::mssql::Mssql;
use crate::procedures::mssql::pools::JITTER;
use crate::procedures::{Call, CallError, ProcedureResult, RowSink, SentError};
use crate::telemetry::{self, names};

/// The maximum number of retries of a call after its connection broke before the call was sent.
const UNSENT_RETRIES: u32 = 3;

/// The number of retries of a call, by reason.
#[derive(Debug, Default)]
struct RetryCounts {
    contention: u32,
    unsent: u32,
    signature: u32,
    untyped_null: u32,
    lost: u32,
}

impl Mssql {
    /// Calls a procedure, with retries.
    pub(crate) async fn call_with_retries(
        &self,
        call: Call<'_>,
        rows: &mut dyn RowSink,
        cancel: &Cancel,
    ) -> Result<ProcedureResult, CallError> {
        let mut counts = RetryCounts::default();
        loop {
            // A call whose connection broke has already waited its turn.
            let at_front = counts.unsent > 0;
            let failure = match self.attempt(&call, rows, cancel, at_front).await {
                Ok(result) => return Ok(result),
                Err(AttemptFailure::NotSent(failure)) => failure,
                Err(AttemptFailure::Sent(failure)) => {
                    let rest = self.retry_sent_call(&call, rows, cancel, (failure, counts));
                    // This future is boxed, because it is rarely needed and would enlarge the
                    // future of every call.
                    return Box::pin(rest).await.map_err(CallError::Sent);
                }
            };
            if !self.may_retry(failure.retry, &mut counts) {
                return Err(failure.error.into());
            }
        }
    }

    /// Continues a call after an attempt was sent and failed. From here on, the call's error is
    /// always a `SentError`.
    async fn retry_sent_call(
        &self,
        call: &Call<'_>,
        rows: &mut dyn RowSink,
        cancel: &Cancel,
        (mut failure, mut counts): (SentFailure, RetryCounts),
    ) -> Result<ProcedureResult, SentError> {
        loop {
            let is_harmless = call.may_repeat || failure.error.is_rolled_back;
            let retry = failure.retry.filter(|_| is_harmless && rows.restart());
            if !self.may_retry(retry, &mut counts) {
                return Err(failure.error);
            }
            if let Some(pause) = retry.and_then(RetryReason::pause) {
                // The pause grows with each retry and is varied at random.
                let end =
                    Instant::now() + jittered(pause.saturating_mul(counts.contention), JITTER);
                if end >= call.deadline {
                    return Err(failure.error);
                }
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => return Err(failure.error),
                    () = sleep_until(end) => {}
                }
            }
            failure = match self.attempt(call, rows, cancel, false).await {
                Ok(result) => return Ok(result),
                Err(AttemptFailure::Sent(mut next)) => {
                    // The call counts as rolled back only if every attempt was rolled back.
                    next.error.is_rolled_back &= failure.error.is_rolled_back;
                    next
                }
                Err(AttemptFailure::NotSent(next)) => failure.followed_by(next),
            };
        }
    }

    /// Returns whether there is a reason to retry and the limit for that reason has not been
    /// reached. If so, counts the retry.
    fn may_retry(&self, reason: Option<RetryReason>, counts: &mut RetryCounts) -> bool {
        let Some(reason) = reason else { return false };
        let (count, limit) = match reason {
            RetryReason::Deadlock
            | RetryReason::Snapshot
            | RetryReason::Resources
            | RetryReason::Throttled => (&mut counts.contention, self.config.deadlock_retries),
            RetryReason::LostBeforeSending => (&mut counts.unsent, UNSENT_RETRIES),
            RetryReason::Signature => (&mut counts.signature, 1),
            RetryReason::UntypedNull => (&mut counts.untyped_null, 1),
            RetryReason::LostAfterSending => (&mut counts.lost, 1),
        };
        *count += 1;
        if *count > limit {
            return false;
        }
        let labels =
            [(names::DATABASE, self.name.clone()), (names::REASON, reason.as_str().to_owned())];
        telemetry::counter(&names::BACKEND_RETRIES, &labels).increment(1);
        true
    }
}
