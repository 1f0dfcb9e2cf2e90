//! What a failed attempt means: for its connection, for the caller, and whether it is tried again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tiberius::error::{Error, TokenError};
use tokio::time::timeout_at;

use super::Mssql;
use super::bind::mismatch;
use super::errors;
use super::lease::Lease;
use super::run::Failure;
use super::signature::Signature;
use crate::procedures::{BackendError, BackendErrorKind, Call};

/// Where an attempt failed.
#[derive(Debug)]
pub(super) enum Step {
    /// Before anything was sent: the connection is as it was.
    Clean(BackendError),
    /// While the signature was read: the call was not sent.
    Asking(Error),
    /// In the call.
    Calling(Failure),
    /// By the deadline or a cancel, wherever it was then.
    Stopped(BackendErrorKind),
}

/// A failed attempt, its connection dealt with.
#[derive(Debug)]
pub(super) struct Ended {
    /// The error, if it is the last attempt.
    pub(super) error: BackendError,
    /// Why it may be tried again.
    pub(super) again: Option<Again>,
}

/// Why a call may be tried again: in each case but `Lost` it is certain that it had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// The server rolled it back.
    Deadlock,
    /// The connection broke before it was sent.
    Unsent,
    /// The server refused it: its parameters have changed since they were read.
    Signature,
    /// The server refused it: it takes no untyped NULL.
    UntypedNull,
    /// The connection broke in the call, and a second execution does no harm.
    Lost,
}

impl Again {
    /// The metric's label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Deadlock => "deadlock",
            Self::Unsent => "unsent",
            Self::Signature => "signature",
            Self::UntypedNull => "untyped-null",
            Self::Lost => "lost",
        }
    }
}

impl From<BackendError> for Ended {
    fn from(error: BackendError) -> Self {
        Self { error, again: None }
    }
}

impl Mssql {
    /// Deals with the connection of a failed attempt and says what the failure is.
    pub(super) async fn end(
        &self,
        lease: Lease,
        call: &Call<'_>,
        step: Step,
        used: Option<Arc<Signature>>,
    ) -> Ended {
        match step {
            Step::Clean(error) => {
                lease.keep();
                error.into()
            }
            Step::Asking(Error::Server(token)) => {
                let error = errors::from_token(token);
                lease.keep_rolled_back().await;
                error.into()
            }
            Step::Asking(error) => unsent(lease, error),
            Step::Calling(Failure::Server(token)) => self.refused(lease, call, token, used).await,
            Step::Calling(Failure::Driver(error)) => broken(lease, call, error),
            Step::Calling(Failure::Ours(error)) => {
                lease.cancel("unread").await;
                error.into()
            }
            Step::Stopped(kind) => {
                let reason =
                    if kind == BackendErrorKind::TimedOut { "timeout" } else { "cancelled" };
                lease.cancel(reason).await;
                BackendError::new(kind).into()
            }
        }
    }

    /// The server answered with an error.
    async fn refused(
        &self,
        mut lease: Lease,
        call: &Call<'_>,
        token: TokenError,
        used: Option<Arc<Signature>>,
    ) -> Ended {
        if errors::is_fatal(&token) {
            lease.discard("fatal");
            return lost(call, errors::from_token(token));
        }
        if errors::doubts_signature(&token) {
            let fresh = self.read_again(&mut lease, call).await;
            let Some(fresh) = fresh else {
                lease.discard("broken");
                return errors::from_token(token).into();
            };
            lease.keep_rolled_back().await;
            return match fresh {
                None => mismatch(call.procedure, self.missing_text()).into(),
                // Only when it was ours that was refused: one that our procedure calls comes after effects.
                Some(fresh) if used.is_some_and(|used| used != fresh) && is_ours(&token, call) => {
                    Ended { error: errors::from_token(token), again: Some(Again::Signature) }
                }
                Some(_) => errors::from_token(token).into(),
            };
        }
        let again = if errors::is_deadlock(&token) {
            Some(Again::Deadlock)
        } else if errors::refuses_untyped_null(&token)
            && !self.refuses_untyped_null.swap(true, Ordering::Relaxed)
        {
            Some(Again::UntypedNull)
        } else {
            None
        };
        lease.keep_rolled_back().await;
        Ended { error: errors::from_token(token), again }
    }

    /// Reads the signature once more. The outer `None`: it could not be read.
    async fn read_again(
        &self,
        lease: &mut Lease,
        call: &Call<'_>,
    ) -> Option<Option<Arc<Signature>>> {
        let session = lease.session()?;
        let reading = self.signatures.read(&mut session.client, call.procedure);
        timeout_at(call.deadline, reading).await.ok()?.ok()
    }
}

/// The connection is of no more use; whether the call ran depends on what was sent.
fn broken(mut lease: Lease, call: &Call<'_>, error: Error) -> Ended {
    let may_have_run = lease.session().is_none_or(|session| session.marks.may_have_run());
    if may_have_run {
        lease.discard("broken");
        return lost(call, errors::after_sending(error));
    }
    if let Some(refused) = errors::before_sending(&error) {
        lease.discard("unsendable");
        return refused.into();
    }
    unsent(lease, error)
}

/// The connection ended in a call that may have run.
fn lost(call: &Call<'_>, error: BackendError) -> Ended {
    let may_repeat = call.may_repeat && error.kind == BackendErrorKind::Lost;
    Ended { error, again: may_repeat.then_some(Again::Lost) }
}

fn unsent(lease: Lease, error: Error) -> Ended {
    lease.discard("broken");
    Ended {
        error: BackendError::caused_by(BackendErrorKind::Unavailable, error),
        again: Some(Again::Unsent),
    }
}

/// Whether an error names the called procedure, or none.
fn is_ours(token: &TokenError, call: &Call<'_>) -> bool {
    let name = token.procedure();
    let name = name.rsplit('.').next().unwrap_or(name).trim_matches(['[', ']']);
    name.is_empty() || name.eq_ignore_ascii_case(call.procedure.procedure())
}
