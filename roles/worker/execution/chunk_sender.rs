//! The parts of an answer that streams: numbered, and never more of them on their way than the gateway's window.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::config::limits::PROGRESS_MISSED_MAX;
use crate::envelope::reply::JSON;
use crate::envelope::{Head, Reply};
use crate::message::Subject;
use crate::messaging::TransportError;
use crate::outcome::Word;
use crate::problem::{Problem, ProblemKind};

use crate::roles::worker::Ending;
use crate::roles::worker::execution::chunk_channel::{Gone, Outlet};
use crate::roles::worker::execution::executor::Dispatch;
use crate::roles::worker::execution::handler::Job;
use crate::roles::worker::execution::running_jobs::Entry;

/// One answer on its way.
pub(super) struct Stream {
    /// Parts that may be on their way; 0: the answer does not stream.
    window: u32,
    sent: u32,
    /// The last part that was taken. A gateway says so again with each progress that it hears: its word is also the
    /// sign that it is there.
    taken: Option<watch::Receiver<u32>>,
    /// How long it may be silent while we wait for it.
    silence: Duration,
    heard: Instant,
}

impl Stream {
    /// Opens the job's outlet when its answer may stream, to somebody who takes it so.
    pub(super) fn of(job: &Job, dispatch: &Dispatch, has_reply: bool, now: Instant) -> Self {
        let may = has_reply && job.endpoint.may_stream();
        let window = if may { job.request.window } else { 0 };
        if window > 0 {
            let part_bytes = dispatch.config.part_bytes.min(dispatch.room());
            job.times.parts.open(part_bytes);
        }
        let silence = dispatch.config.progress_interval * PROGRESS_MISSED_MAX;
        Self { window, sent: 0, taken: None, silence, heard: now }
    }

    /// Whether there may ever be a part.
    pub(super) fn is_open(&self) -> bool {
        self.window > 0
    }

    /// Whether the answer has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.sent > 0
    }

    /// How many parts were sent.
    pub(super) fn sent(&self) -> u32 {
        self.sent
    }

    /// Whether another part may go now.
    pub(super) fn has_room(&self) -> bool {
        let taken = self.taken.as_ref().map_or(0, |taken| *taken.borrow());
        self.sent.saturating_sub(taken) < self.window
    }

    /// Waits until the gateway says what it has taken. Safe to drop.
    ///
    /// # Errors
    /// `Gone` when it has been silent for too long.
    pub(super) async fn hear(&mut self) -> Result<(), Gone> {
        let Some(taken) = &mut self.taken else { return std::future::pending().await };
        match timeout_at(self.heard + self.silence, taken.changed()).await {
            Ok(Ok(())) => {
                self.heard = Instant::now();
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    /// Sends the next part. Its number is spent before it goes: when it is lost, the gateway misses it.
    ///
    /// # Errors
    /// `TransportError`: it may not have been sent, so that the answer cannot become whole any more.
    pub(super) async fn send(
        &mut self,
        bytes: Bytes,
        way: (&Dispatch, &Entry, &Subject, &Subject),
    ) -> Result<(), TransportError> {
        let (dispatch, entry, to, control) = way;
        self.taken.get_or_insert_with(|| entry.watch_taken());
        self.sent += 1;
        self.heard = Instant::now();
        let head = (self.sent == 1).then(|| Head { status: 200, content_type: JSON.into() });
        let control = Some(control.clone());
        let part = Reply::Part { number: self.sent, bytes, head, control };
        dispatch.send(part, to.clone()).await
    }
}

/// Runs a call, and lets out what is left of an answer that has begun, up to its last piece.
pub(super) async fn to_its_end(call: impl Future<Output = Ending>, parts: &Outlet) -> Ending {
    let mut ending = call.await;
    let (Ending::Final(answer), Some(piece_bytes)) = (&mut ending, parts.piece_bytes()) else {
        return ending;
    };
    while parts.has_begun() && answer.body.len() > piece_bytes {
        if parts.ready().await.is_err() {
            let problem = Problem::new(ProblemKind::Cancelled);
            return Ending::Problem { problem, outcome: Word::Cancelled };
        }
        parts.put(answer.body.split_to(piece_bytes));
    }
    ending
}
