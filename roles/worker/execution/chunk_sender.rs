//! Sends a large answer in numbered chunks, and limits the number of unacknowledged chunks.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::catalogue::Representation;
use crate::config::WorkerConfig;
use crate::config::limits::PROGRESS_MISSED_MAX;
use crate::envelope::reply::JSON;
use crate::envelope::{AnswerHead, Reply};
use crate::message::Subject;
use crate::messaging::TransportError;
use crate::outcome::Outcome;
use crate::problem::{Problem, ProblemKind};

use super::chunk_channel::{ChannelClosed, ChunkChannel};
use super::handler::Job;
use super::job_result::JobResult;
use super::reply_sender::ReplySender;
use super::running_jobs::JobEntry;

/// Sends the chunks of one answer as parts.
pub(super) struct ChunkSender {
    /// The number of parts that may be unacknowledged, or 0 if the answer must not be divided.
    window: u32,
    sent: u32,
    /// The number of the last acknowledged part. The gateway repeats the acknowledgement whenever it
    /// receives a progress report. The repetition also confirms that the gateway is alive.
    acknowledged: Option<watch::Receiver<u32>>,
    /// The time between two of the worker's progress reports, each of which the gateway acknowledges.
    progress_interval: Duration,
    last_heard: Instant,
    /// The media type of the answer.
    content_type: Cow<'static, str>,
}

/// The destination of a part, and the job that it belongs to.
pub(super) struct PartDestination<'a> {
    pub(super) replies: &'a ReplySender,
    pub(super) entry: &'a JobEntry,
    pub(super) to: &'a Subject,
    pub(super) control: Subject,
}

/// Error for a gateway that has been silent for too long.
pub(super) struct GatewaySilent;

impl ChunkSender {
    /// Creates the sender of a job, and enables the job's channel if the answer may be divided.
    pub(super) fn new(
        job: &Job,
        config: &WorkerConfig,
        replies: &ReplySender,
        has_reply: bool,
        now: Instant,
    ) -> Self {
        let may_stream = has_reply && job.endpoint.may_stream();
        let window = if may_stream { job.request.window } else { 0 };
        if window > 0 {
            let chunk_bytes = config.part_bytes.min(replies.body_bytes_max());
            job.progress.chunks.enable(chunk_bytes);
        }
        let progress_interval = config.progress_interval;
        let content_type =
            job.representation().map_or(Cow::Borrowed(JSON), Representation::content_type);
        let (sent, acknowledged) = (0, None);
        Self { window, sent, acknowledged, progress_interval, last_heard: now, content_type }
    }

    /// Returns whether the answer may be divided.
    pub(super) fn is_enabled(&self) -> bool {
        self.window > 0
    }

    /// Returns whether a part has been sent.
    pub(super) fn has_begun(&self) -> bool {
        self.sent > 0
    }

    /// Returns the number of parts that have been sent.
    pub(super) fn sent(&self) -> u32 {
        self.sent
    }

    /// Returns whether the window allows another part.
    pub(super) fn has_room(&self) -> bool {
        let acknowledged = self.acknowledged.as_ref().map_or(0, |number| *number.borrow());
        self.sent.saturating_sub(acknowledged) < self.window
    }

    /// Waits for the next acknowledgement. Waits forever if no part has been sent. This method is
    /// cancel safe.
    ///
    /// # Errors
    /// `GatewaySilent` if the gateway has been silent for too long.
    pub(super) async fn next_acknowledgement(
        &mut self,
        replies: &ReplySender,
    ) -> Result<(), GatewaySilent> {
        let Some(acknowledged) = &mut self.acknowledged else {
            return std::future::pending().await;
        };
        let mut limit = self.last_heard + self.progress_interval * PROGRESS_MISSED_MAX;
        loop {
            match timeout_at(limit, acknowledged.changed()).await {
                Ok(Ok(())) => {
                    self.last_heard = Instant::now();
                    return Ok(());
                }
                Ok(Err(_)) => return Err(GatewaySilent),
                Err(_) => {
                    let round_trip = replies.round_trip();
                    match round_trip.silence_excused_until(self.progress_interval) {
                        Some(later) if later > Instant::now() => limit = later,
                        _ => return Err(GatewaySilent),
                    }
                }
            }
        }
    }

    /// Sends the next part. Numbers are never reused, so that the gateway notices a lost part.
    ///
    /// # Errors
    /// `TransportError` if the part may not have been sent. The answer can then no longer be
    /// completed.
    pub(super) async fn send(
        &mut self,
        bytes: Bytes,
        destination: PartDestination<'_>,
    ) -> Result<(), TransportError> {
        self.acknowledged.get_or_insert_with(|| destination.entry.watch_acknowledged());
        self.sent += 1;
        self.last_heard = Instant::now();
        let content_type = &self.content_type;
        let head = (self.sent == 1)
            .then(|| AnswerHead { status: 200, content_type: content_type.clone() });
        let control = Some(destination.control);
        let part = Reply::Part { number: self.sent, bytes, head, control };
        destination.replies.send(part, destination.to.clone()).await
    }
}

/// Runs a call. If chunks of its answer have been sent, also sends the remaining chunks except the
/// last one.
pub(super) async fn run_and_send_rest(
    call: impl Future<Output = JobResult>,
    chunks: &ChunkChannel,
) -> JobResult {
    let mut result = call.await;
    let (JobResult::Final(answer), Some(chunk_bytes)) = (&mut result, chunks.chunk_bytes()) else {
        return result;
    };
    while chunks.has_begun() && answer.body.len() > chunk_bytes {
        if chunks.wait_for_demand().await == Err(ChannelClosed) {
            let problem = Problem::new(ProblemKind::Cancelled);
            return JobResult::Problem { problem, outcome: Outcome::Cancelled };
        }
        chunks.send(answer.body.split_to(chunk_bytes));
    }
    result
}
