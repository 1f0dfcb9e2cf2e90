//! Runs jobs: claims the request if necessary, runs the handler, reports progress, and sends the
//! reply.

use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use futures_util::{FutureExt, poll};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, interval_at};

use crate::config::WorkerConfig;
use crate::envelope::{RefusalReason, Reply};
use crate::lifecycle::Tasks;
use crate::message::Subject;
use crate::outcome::Outcome;
use crate::problem::{Problem, ProblemKind};
use crate::roles::worker::observation::spans::JobSpan;
use crate::roles::worker::subjects::QueueSubjects;
use crate::telemetry::conditions::{self, UNSENT};
use crate::telemetry::{context, counter, names};

use super::call_time::CallTime;
use super::chunk_channel::ChunkChannel;
use super::chunk_sender::{self, ChunkSender, PartDestination};
use super::handler::{Job, QueueHandler};
use super::job_result::{JobReply, JobResult};
use super::recent_replies::RecentReplies;
use super::reply_sender::ReplySender;
use super::resend::{ResendQueue, SendThrottle};
use super::running_jobs::{JobEntry, JobId, RunningJobs};
use super::slot::{Slot, SlotQueue};

mod claim;
mod delivery;

/// Runs the jobs of all queues of this worker.
#[derive(Debug)]
pub struct Executor {
    /// Sends replies.
    pub replies: ReplySender,
    /// The jobs of this worker that have not ended.
    pub jobs: Arc<RunningJobs>,
    /// The tasks of the process.
    pub tasks: Tasks,
    /// The configuration of the worker, which a reload replaces.
    config: ArcSwap<WorkerConfig>,
    /// The most recently sent answers, kept in case they are lost together with the connection.
    pub recent: Arc<RecentReplies>,
    /// The queue of requests to resend one of the recent answers.
    pub resend: ResendQueue,
    /// Limits the rate at which answers are sent after an outage.
    pub throttle: Arc<SendThrottle>,
}

/// A request that a queue has accepted.
#[derive(Debug)]
pub struct AcceptedJob {
    /// The job.
    pub job: Box<Job>,
    /// The handler of the job.
    pub handler: Arc<dyn QueueHandler>,
    /// The reply subject of the request, or `None` if its sender expects no reply.
    pub reply: Option<Subject>,
}

/// How a job starts: with a slot, or with a claim that its gateway must grant first.
#[derive(Debug)]
pub enum JobStart {
    /// The job already has a slot.
    Slot(Slot),
    /// The job claims the request first, and requests a slot once its gateway has consented.
    Claim {
        /// The queue that provides the slot.
        queue: Arc<dyn SlotQueue>,
        /// The measured duration of calls to the endpoint.
        call_time: Arc<CallTime>,
    },
}

/// The task of one job.
struct JobTask {
    executor: Arc<Executor>,
    queue: Arc<QueueSubjects>,
    entry: JobEntry,
    reply: Option<Subject>,
    deadline: Instant,
    /// Whether a reply has named the job's control subject. All later replies must then name it.
    is_control_known: AtomicBool,
}

impl Executor {
    /// Creates an executor without jobs, and the receiver of resend requests for a `Resender`.
    #[must_use]
    pub fn new(
        replies: ReplySender,
        recent: RecentReplies,
        config: WorkerConfig,
        tasks: Tasks,
    ) -> (Self, mpsc::Receiver<JobId>) {
        let (resend, requests) = ResendQueue::new();
        let executor = Self {
            replies,
            jobs: Arc::default(),
            tasks,
            config: ArcSwap::from_pointee(config),
            recent: Arc::new(recent),
            resend,
            throttle: Arc::default(),
        };
        (executor, requests)
    }

    /// Starts the task of a job. The slot is returned when the task ends, regardless of the reason.
    pub fn start(
        this: &Arc<Self>,
        queue: &Arc<QueueSubjects>,
        accepted: AcceptedJob,
        start: JobStart,
    ) {
        let AcceptedJob { mut job, handler, reply } = accepted;
        let began = Instant::now();
        let span = JobSpan::begin(&mut job.request, queue);
        let task = JobTask {
            executor: Arc::clone(this),
            queue: Arc::clone(queue),
            entry: this.jobs.add(queue.index, reply.clone()),
            reply,
            deadline: began + job.request.timeout,
            is_control_known: AtomicBool::new(false),
        };
        let queue = Arc::clone(queue);
        let endpoint = Arc::clone(&job.endpoint);
        let waiting_gateway = (job.request.waiting > 0).then(|| task.reply.clone()).flatten();
        // The future is boxed, because the runtime moves a task's future several times.
        let _detached = this.tasks.spawn(context::inherit(Box::pin(async move {
            let slot = match start {
                JobStart::Slot(slot) => Ok(slot),
                JobStart::Claim { queue, call_time } => {
                    let bytes = job.request.payload.len();
                    Box::pin(task.claim_slot(queue, call_time, bytes)).await
                }
            };
            let (outcome, slot) = match slot {
                Ok(slot) => (task.run(handler, job).await, Some(slot)),
                Err(outcome) => (outcome, None),
            };
            if let Some(span) = span {
                span.end(outcome);
            }
            let duration_ms = began.elapsed().as_secs_f64() * 1000.0;
            let (queue, endpoint) = (queue.name.as_str(), endpoint.id.as_str());
            tracing::debug!(queue, endpoint, %outcome, duration_ms, "call");
            if let Some(slot) = slot {
                slot.release(outcome, waiting_gateway);
            }
        })));
    }

    /// Returns the current configuration.
    #[must_use]
    pub fn config(&self) -> Guard<Arc<WorkerConfig>> {
        self.config.load()
    }

    /// Replaces the configuration. Jobs that have started keep their timers.
    pub fn set_config(&self, config: WorkerConfig) {
        self.config.store(Arc::new(config));
    }

    /// Creates the timer for progress reports.
    fn progress_interval(&self) -> Interval {
        let config = self.config();
        interval_at(Instant::now() + config.progress_first, config.progress_interval)
    }
}

impl JobTask {
    /// Runs a job that has a slot, and sends its reply.
    async fn run(self, handler: Arc<dyn QueueHandler>, job: Box<Job>) -> Outcome {
        let request_id = job.request.request_id.clone();
        let (began, progress) = (Instant::now(), Arc::clone(&job.progress));
        let replies = &self.executor.replies;
        let mut sender = {
            let config = self.executor.config();
            ChunkSender::new(&job, &config, replies, self.reply.is_some(), began)
        };
        let result = self.handle(handler, job, &mut sender).await;
        let outcome = result.outcome();
        match result.into_reply(&request_id, sender.sent()) {
            JobReply::Refused(reason) => self.refuse(reason),
            JobReply::NoReply => {}
            JobReply::Final(mut answer) => {
                answer.phases = Some(progress.phases(began.elapsed()));
                answer.is_rolled_back = progress.is_rolled_back();
                answer.control =
                    self.is_control_known.load(Ordering::Relaxed).then(|| self.control());
                self.send_answer(answer).await;
            }
        }
        outcome
    }

    /// Runs the handler. If it panics, only this request fails.
    async fn handle(
        &self,
        handler: Arc<dyn QueueHandler>,
        job: Box<Job>,
        sender: &mut ChunkSender,
    ) -> JobResult {
        let (endpoint, progress) = (Arc::clone(&job.endpoint), Arc::clone(&job.progress));
        let chunks = &progress.chunks;
        let call = handler.handle(*job, self.deadline, &self.entry.cancel);
        let call = AssertUnwindSafe(chunk_sender::run_and_send_rest(call, chunks));
        let mut call = pin!(call.catch_unwind());
        if sender.has_room() {
            chunks.demand();
        }
        // A handler that returns immediately needs no timer and no `select!`.
        let result = match poll!(&mut call) {
            Poll::Ready(result) => result,
            Poll::Pending => Box::pin(self.wait_for_call(call, sender, chunks)).await,
        };
        if let Some(chunk) = chunks.try_receive() {
            Box::pin(self.send_chunk(sender, chunk, chunks)).await;
        }
        result.unwrap_or_else(|_| {
            counter(&names::PANICS, &[(names::COMPONENT, "handler".to_owned())]).increment(1);
            tracing::error!(endpoint = %endpoint.id, "a handler panicked");
            let problem = Problem::new(ProblemKind::Internal);
            JobResult::Problem { problem, outcome: Outcome::Panic }
        })
    }

    /// Waits for a call to end, and meanwhile reports progress and sends chunks of the answer.
    async fn wait_for_call<C>(
        &self,
        mut call: Pin<&mut C>,
        sender: &mut ChunkSender,
        chunks: &ChunkChannel,
    ) -> C::Output
    where
        C: Future,
    {
        let mut progress = self.executor.progress_interval();
        let cancel = &self.entry.cancel;
        loop {
            if sender.has_room() {
                chunks.demand();
            }
            tokio::select! {
                biased;
                result = &mut call => return result,
                chunk = chunks.receive(), if sender.is_enabled() => {
                    Box::pin(self.send_chunk(sender, chunk, chunks)).await;
                }
                acknowledged = sender.next_acknowledgement(&self.executor.replies),
                    if sender.has_begun() && !cancel.is_cancelled() => if acknowledged.is_err() {
                    cancel.cancel();
                },
                () = cancel.cancelled(), if sender.has_begun() && !chunks.is_closed() => {
                    chunks.close();
                }
                _ = progress.tick() => self.report_progress(),
            }
        }
    }

    /// Sends a chunk as a part. On failure, cancels the call, because its answer can no longer be
    /// completed.
    async fn send_chunk(&self, sender: &mut ChunkSender, chunk: Bytes, chunks: &ChunkChannel) {
        let Some(to) = &self.reply else { return };
        let (replies, entry, control) = (&self.executor.replies, &self.entry, self.control());
        let destination = PartDestination { replies, entry, to, control };
        if let Err(error) = sender.send(chunk, destination).await {
            if conditions::raise(&UNSENT, "answers") {
                tracing::warn!(%error, queue = %self.queue.name, "an answer was cut off after its first parts were sent");
            }
            chunks.close();
            self.entry.cancel.cancel();
        }
    }

    /// Reports to the gateway that the job is alive.
    fn report_progress(&self) {
        if let Some(reply) = self.reply.clone() {
            let control = Some(self.control());
            self.executor.replies.try_send(Reply::Progress { control }, reply);
        }
    }

    fn refuse(&self, reason: RefusalReason) {
        if let Some(reply) = self.reply.clone() {
            let control = Some(self.control());
            self.executor.replies.try_send(Reply::Refused { reason, control }, reply);
        }
    }

    /// Returns the job's control subject. It is built on demand, because most jobs never name it.
    fn control(&self) -> Subject {
        self.is_control_known.store(true, Ordering::Relaxed);
        self.queue.job_subject(self.entry.id.number)
    }
}
