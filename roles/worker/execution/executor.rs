//! Runs one job: claim, handler, progress, answer.

use std::future::ready;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, poll};
use tokio::time::{Instant, interval_at, timeout};

use crate::config::WorkerConfig;
use crate::envelope::{Final, Reason, Reply};
use crate::future::BoxFuture;
use crate::lifecycle::Tasks;
use crate::message::Subject;
use crate::messaging::{self, Transport, TransportError};
use crate::outcome::Word;
use crate::problem::{Problem, ProblemKind};
use crate::telemetry::conditions::{self, UNSENT};
use crate::telemetry::{context, counter, names};

use crate::roles::worker::execution::call_time::CallTime;
use crate::roles::worker::execution::chunk_channel::Outlet;
use crate::roles::worker::execution::chunk_sender::{self, Stream};
use crate::roles::worker::execution::handler::{Job, QueueHandler};
use crate::roles::worker::execution::job_result::Ending;
use crate::roles::worker::execution::recent_replies::Recent;
use crate::roles::worker::execution::resend::{Pace, Resend};
use crate::roles::worker::execution::running_jobs::{Entry, Jobs};
use crate::roles::worker::intake::queue::{Queue, Work};
use crate::roles::worker::observation::spans::Traced;

/// Room that is left in a message for the headers of a part or final.
const HEADER_ROOM: usize = 1024;
/// Longest wait for the link, when an answer is ready and the bus is away.
const DELIVER_MAX: Duration = Duration::from_secs(30);

/// What every job of this worker needs.
#[derive(Debug)]
pub struct Dispatch {
    /// The message bus.
    pub transport: Arc<dyn Transport>,
    /// The jobs that run.
    pub jobs: Arc<Jobs>,
    /// The process's tasks.
    pub tasks: Tasks,
    /// This worker's id: a token of the subjects that it hears on.
    pub worker: String,
    /// The worker's configuration.
    pub config: WorkerConfig,
    /// The last answers, for the case that the link takes them with it.
    pub recent: Recent,
    /// Where those are asked for again.
    pub resend: Resend,
    /// The pace of what is sent after an outage.
    pub pace: Pace,
}

/// One job with all it needs on its way.
struct Run {
    dispatch: Arc<Dispatch>,
    queue: Arc<Queue>,
    entry: Entry,
    reply: Option<Subject>,
    deadline: Instant,
    call_time: Arc<CallTime>,
    /// Whether a reply has named the job's control subject: then each further one does.
    is_named: AtomicBool,
}

impl Dispatch {
    /// Starts a job that has a slot, or first asks for consent. The slot is given back when it ends, however it ends.
    pub fn start(this: &Arc<Self>, queue: &Arc<Queue>, work: Work, claims: bool) {
        let Work { mut job, handler, call_time, reply, .. } = work;
        let began = Instant::now();
        let traced = Traced::begin(&mut job, queue);
        let entry = this.jobs.enter(queue.number, reply.clone());
        let run = Run {
            dispatch: Arc::clone(this),
            queue: Arc::clone(queue),
            deadline: began + job.request.timeout,
            call_time: Arc::clone(&call_time),
            entry,
            reply,
            is_named: AtomicBool::new(false),
        };
        let queue = Arc::clone(queue);
        let endpoint = Arc::clone(&job.endpoint);
        let more = (job.request.waiting > 0).then(|| run.reply.clone()).flatten();
        // Boxed: the runtime moves a task's future again and again, until it runs and when it has ended.
        let _detached = this.tasks.spawn(context::carried(Box::pin(async move {
            let slot = if claims {
                Box::pin(run.await_slot(job.request.payload.len())).await
            } else {
                Ok(began)
            };
            let outcome = match slot {
                Ok(_) => run.go(handler, job).await,
                Err(outcome) => outcome,
            };
            if let Some(traced) = traced {
                traced.end(outcome);
            }
            let duration_ms = began.elapsed().as_secs_f64() * 1000.0;
            let (queue_name, endpoint) = (queue.name.as_str(), endpoint.id.as_str());
            tracing::debug!(queue = queue_name, endpoint, %outcome, duration_ms, "call");
            if let Ok(since) = slot {
                let took = since.elapsed();
                if outcome.is_complete() {
                    call_time.record(took);
                } else if outcome == Word::SqlTimeout {
                    call_time.record_at_least(took);
                }
                queue.finished(outcome, took, more);
            }
        })));
    }

    /// Says something to a caller. Never waits, so that whoever reads a subscription may say something: what cannot be said
    /// at once is dropped and counted, and the caller's own timers do the rest.
    pub fn say(&self, reply: Reply, to: Subject) {
        let message = reply.into_message(to).map_err(|e| TransportError::Refused(Box::new(e)));
        if let Err(error) = message.and_then(|message| self.transport.try_publish(message)) {
            counter(&names::WORKER_UNSENT, &[]).increment(1);
            tracing::debug!(%error, "could not answer a gateway");
        }
    }

    /// What a part or final has room for in a message.
    pub(super) fn room(&self) -> usize {
        self.transport.payload_bytes_max().saturating_sub(HEADER_ROOM).max(1)
    }

    /// Sends a reply. It may be sent before the future is polled, and is only known to be once that is ready.
    pub(super) fn send(
        &self,
        reply: Reply,
        to: Subject,
    ) -> BoxFuture<'_, Result<(), TransportError>> {
        match reply.into_message(to) {
            Ok(message) => self.transport.publish(message),
            Err(error) => Box::pin(ready(Err(TransportError::Refused(Box::new(error))))),
        }
    }
}

mod consent;

impl Run {
    async fn go(self, handler: Arc<dyn QueueHandler>, job: Box<Job>) -> Word {
        let request_id = job.request.request_id.clone();
        let (began, times) = (Instant::now(), Arc::clone(&job.times));
        let mut stream = Stream::of(&job, &self.dispatch, self.reply.is_some(), began);
        let ending = self.work(handler, job, &mut stream).await;
        let outcome = ending.outcome();
        match ending {
            Ending::NotExecuted { problem, .. } if !stream.has_begun() => {
                let is_expired = problem.kind == ProblemKind::Expired;
                self.refuse(if is_expired { Reason::Expired } else { Reason::Unavailable });
            }
            Ending::Unanswered { .. } if !stream.has_begun() => {}
            // What has begun is not refused: it ends, by a final that is not its own.
            ending => {
                let mut answer = ending.into_final(&request_id);
                answer.phases = Some(times.phases(began.elapsed()));
                answer.is_rolled_back = times.is_rolled_back();
                if stream.has_begun() {
                    answer.parts = stream.sent();
                    if answer.status >= 500 {
                        // The status was already sent: this final only reports the failure, so its body is dropped.
                        // Workers never send 503.
                        answer.status = if answer.status == 503 { 500 } else { answer.status };
                        (answer.body, answer.content_type) = (Bytes::new(), "".into());
                    }
                }
                answer.control = self.is_named.load(Ordering::Relaxed).then(|| self.control());
                self.answer(answer).await;
            }
        }
        outcome
    }

    /// Runs the handler. A panic is caught: it costs one request.
    async fn work(
        &self,
        handler: Arc<dyn QueueHandler>,
        job: Box<Job>,
        stream: &mut Stream,
    ) -> Ending {
        let (endpoint, times) = (Arc::clone(&job.endpoint), Arc::clone(&job.times));
        let call = handler.handle(*job, self.deadline, &self.entry.cancel);
        let call = AssertUnwindSafe(chunk_sender::to_its_end(call, &times.parts));
        let mut call = pin!(call.catch_unwind());
        if stream.has_room() {
            times.parts.want();
        }
        // What a quick handler ends at once needs no timer, and nobody who listens.
        let ending = match poll!(&mut call) {
            Poll::Ready(ending) => ending,
            Poll::Pending => Box::pin(self.attend(call, stream, &times.parts)).await,
        };
        if let Some(piece) = times.parts.take() {
            Box::pin(self.send_part(stream, piece, &times.parts)).await;
        }
        ending.unwrap_or_else(|_| {
            counter(&names::PANICS, &[(names::PLACE, "handler".to_owned())]).increment(1);
            tracing::error!(endpoint = %endpoint.id, "a handler panicked");
            let problem = Problem::new(ProblemKind::Internal);
            Ending::Problem { problem, outcome: Word::Panic }
        })
    }

    /// Waits for the end of a call, reports progress and sends parts of its answer meanwhile.
    async fn attend<C>(
        &self,
        mut call: Pin<&mut C>,
        stream: &mut Stream,
        parts: &Outlet,
    ) -> C::Output
    where
        C: Future,
    {
        let config = &self.dispatch.config;
        let first = Instant::now() + config.progress_first;
        let mut progress = interval_at(first, config.progress_interval);
        let cancel = &self.entry.cancel;
        loop {
            if stream.has_room() {
                parts.want();
            }
            tokio::select! {
                biased;
                ending = &mut call => return ending,
                piece = parts.next(), if stream.is_open() => {
                    Box::pin(self.send_part(stream, piece, parts)).await;
                }
                heard = stream.hear(), if stream.has_begun() && !cancel.is_cancelled() => if heard.is_err() {
                    cancel.cancel();
                },
                () = cancel.cancelled(), if stream.has_begun() && !parts.is_closed() => {
                    parts.close();
                }
                _ = progress.tick() => self.progress(),
            }
        }
    }

    /// Sends a part. When it cannot be sent the answer is given up: it could not become whole.
    async fn send_part(&self, stream: &mut Stream, piece: Bytes, parts: &Outlet) {
        let Some(reply) = &self.reply else { return };
        let control = self.control();
        let way = (&*self.dispatch, &self.entry, reply, &control);
        if let Err(error) = stream.send(piece, way).await {
            if conditions::begins(&UNSENT, "answers") {
                tracing::warn!(%error, queue = %self.queue.name, "an answer was given up halfway");
            }
            parts.close();
            self.entry.cancel.cancel();
        }
    }

    /// Says that it is taken care of.
    fn progress(&self) {
        if let Some(reply) = self.reply.clone() {
            let control = Some(self.control());
            self.dispatch.say(Reply::Progress { control }, reply);
        }
    }

    fn refuse(&self, reason: Reason) {
        if let Some(reply) = self.reply.clone() {
            let control = Some(self.control());
            self.dispatch.say(Reply::Refused { reason, control }, reply);
        }
    }

    /// Sends the answer, in parts when it is larger than a message. While the bus is away it waits for
    /// it: the gateway's subscription comes back with its own connection.
    async fn answer(&self, mut answer: Final) {
        let Some(reply) = &self.reply else { return };
        let room = self.dispatch.room();
        let mut parts = answer.parts;
        while answer.body.len() > room {
            parts += 1;
            let bytes: Bytes = answer.body.split_to(room);
            let (head, control) = (None, answer.control.clone());
            let part = Reply::Part { number: parts, bytes, head, control };
            if !self.deliver(part, reply).await {
                return;
            }
        }
        answer.parts = parts;
        self.deliver(Reply::Final(answer), reply).await;
    }

    /// Where a grant or a cancel for this job goes, for a reply to name. Most jobs end before anybody asks.
    fn control(&self) -> Subject {
        self.is_named.store(true, Ordering::Relaxed);
        self.queue.job_subject(self.entry.id.number)
    }

    /// No `async fn`: that would hold the reply twice, as its argument and as its own.
    fn deliver(&self, reply: Reply, to: &Subject) -> impl Future<Output = bool> {
        let sending = self.dispatch.send(reply.clone(), to.clone());
        async move {
            let delivered = match sending.await {
                // Boxed: it is for the rare case, and every job would carry its room.
                Err(TransportError::Disconnected) => Box::pin(self.deliver_later(&reply, to)).await,
                sent => sent,
            };
            match delivered {
                Ok(()) => {
                    let recent = &self.dispatch.recent;
                    recent.sent(self.entry.id, reply, to.clone(), Instant::now());
                    true
                }
                Err(error) => {
                    if conditions::begins(&UNSENT, "answers") {
                        tracing::error!(%error, queue = %self.queue.name, "an answer was not sent");
                    }
                    false
                }
            }
        }
    }

    /// Waits for the bus to come back. An answer that cannot wait any longer is dropped.
    async fn deliver_later(&self, reply: &Reply, to: &Subject) -> Result<(), TransportError> {
        let mut link = self.dispatch.transport.link();
        let delivery = async {
            loop {
                if messaging::up(&mut link).await.is_none() {
                    return Err(TransportError::Disconnected);
                }
                // Whatever ended meanwhile waits for the same moment.
                self.dispatch.pace.wait(reply.body_bytes()).await;
                // The event comes a moment before the state that `publish` looks at.
                tokio::task::yield_now().await;
                match self.dispatch.send(reply.clone(), to.clone()).await {
                    Err(TransportError::Disconnected) => {}
                    sent => return sent,
                }
            }
        };
        timeout(DELIVER_MAX, delivery).await.unwrap_or(Err(TransportError::Disconnected))
    }
}
