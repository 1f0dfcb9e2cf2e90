//! Runs one session: waits for its events and carries out the actions of its driver.

use std::sync::Arc;

use rand::RngExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::catalogue::Endpoint;
use crate::envelope::{AnswerHead, Control, Reply, Request, WorkerId};
use crate::lifecycle::Cancel;
use crate::messaging::Link;
use crate::roles::gateway::client::CallerPermit;
use crate::roles::gateway::response::StreamedBody;
use crate::telemetry::conditions::{self, MALFORMED};
use crate::telemetry::context;

use super::message::{AttemptReply, SessionMessage};
use super::replies::ReplyRegistration;
use super::replies::rejections::ReplyRejection;
use super::services::DispatchServices;
use super::session::SessionEnd;
use super::session_driver::{
    ClosedSession, DriverAction, DriverContext, DriverEvent, SessionDriver,
};
use super::session_summary::SessionSummary;

mod answer_reservation;
mod attempt_spans;
mod attempt_workers;
mod body_sender;
mod publish;

pub use answer_reservation::AnswerReservation;
pub(super) use attempt_spans::AttemptSpans;
use attempt_workers::AttemptWorkers;
use body_sender::{BodyEvent, BodySender};

/// One session, with everything that it needs to continue after its client has disconnected.
pub(super) struct SessionTask {
    services: Arc<DispatchServices>,
    /// The endpoint. The request holds a reference to it, so that a reload can find out whether
    /// workers must still serve it.
    _endpoint: Arc<Endpoint>,
    /// Counts the request as one of its caller's requests in flight.
    _permit: CallerPermit,
    driver: SessionDriver,
    request: Request,
    registration: ReplyRegistration,
    messages: mpsc::Receiver<SessionMessage>,
    link: watch::Receiver<Link>,
    workers: AttemptWorkers,
    spans: Option<Box<AttemptSpans>>,
    /// The sender of the chunks of a streamed answer. `None` before the answer begins and after the
    /// client has disconnected.
    chunks: Option<BodySender>,
    reservation: AnswerReservation,
}

/// The parts of a session task that its creator provides.
pub(super) struct SessionParts {
    pub(super) services: Arc<DispatchServices>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) driver: SessionDriver,
    pub(super) request: Request,
    pub(super) registration: ReplyRegistration,
    pub(super) messages: mpsc::Receiver<SessionMessage>,
    pub(super) reservation: AnswerReservation,
    pub(super) permit: CallerPermit,
}

/// The point at which a session task returns to its caller.
pub(super) enum SessionProgress {
    /// The answer has begun. The caller must continue the task to forward the rest.
    AnswerBegun(AnswerHead, StreamedBody),
    /// The session has ended.
    Ended(SessionEnd),
}

/// A guard that continues its session in the background when it is dropped. The HTTP server drops
/// it when the client disconnects.
#[derive(Debug)]
pub(super) struct SessionGuard(Option<SessionTask>);

impl std::fmt::Debug for SessionTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionTask").field("driver", &self.driver).finish_non_exhaustive()
    }
}

impl SessionGuard {
    pub(super) fn new(task: SessionTask) -> Self {
        Self(Some(task))
    }

    /// Returns the task, unless it was taken.
    pub(super) fn task(&mut self) -> Option<&mut SessionTask> {
        self.0.as_mut()
    }

    /// Takes the task. Dropping the guard then has no effect.
    pub(super) fn take(&mut self) -> Option<SessionTask> {
        self.0.take()
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        if let Some(mut task) = self.0.take() {
            let tasks = task.services.tasks.clone();
            let _detached = tasks.spawn(context::inherit(async move {
                task.chunks = None;
                let end = task.run_to_end(DriverEvent::ClientGone).await;
                drop(task.finish(end));
            }));
        }
    }
}

impl SessionTask {
    pub(super) fn new(parts: SessionParts) -> Self {
        let SessionParts {
            services,
            endpoint,
            driver,
            request,
            registration,
            messages,
            reservation,
            permit,
        } = parts;
        let queue = driver.queue();
        Self {
            spans: AttemptSpans::from_request(&request, &queue.name, &queue.subject),
            link: services.transport.link(),
            services,
            _endpoint: endpoint,
            _permit: permit,
            driver,
            request,
            registration,
            messages,
            workers: AttemptWorkers::default(),
            chunks: None,
            reservation,
        }
    }

    pub(super) fn attempts_made(&self) -> u32 {
        self.driver.session().attempts_made()
    }

    pub(super) fn services(&self) -> &Arc<DispatchServices> {
        &self.services
    }

    /// Starts the session and runs it until it ends or its answer begins. If the returned future is
    /// dropped, the guard runs the session to its end.
    pub(super) async fn start(&mut self, may_send_to_group: bool) -> SessionProgress {
        self.run(DriverEvent::Start { may_send_to_group }).await
    }

    /// Runs the session to its end, after its answer has begun.
    pub(super) async fn continue_to_end(&mut self) -> SessionEnd {
        let event = self.next_event().await;
        self.run_to_end(event).await
    }

    /// Handles an event and runs the session to its end. Discards a streamed answer.
    pub(super) async fn run_to_end(&mut self, event: DriverEvent) -> SessionEnd {
        let mut event = event;
        loop {
            match self.run(event).await {
                SessionProgress::Ended(end) => return end,
                SessionProgress::AnswerBegun(..) => event = self.next_event().await,
            }
        }
    }

    async fn run(&mut self, event: DriverEvent) -> SessionProgress {
        let mut event = event;
        loop {
            self.handle(event);
            if let Some(progress) = self.carry_out_actions().await {
                return progress;
            }
            event = self.next_event().await;
        }
    }

    fn handle(&mut self, event: DriverEvent) {
        self.with_driver(|driver, context| driver.handle(event, context));
    }

    fn with_driver<T>(
        &mut self,
        call: impl FnOnce(&mut SessionDriver, &mut DriverContext<'_>) -> T,
    ) -> T {
        let reservation = &self.reservation;
        let mut context = DriverContext {
            now: Instant::now(),
            config: &self.services.config.load(),
            retry_budget: &self.services.retry_budget,
            is_linked: self.link.borrow().is_up(),
            has_answer_memory: &|| reservation.has_room(),
            random: &mut || rand::rng().random(),
        };
        call(&mut self.driver, &mut context)
    }

    /// Carries out the driver's actions until it needs the next event or the answer begins.
    async fn carry_out_actions(&mut self) -> Option<SessionProgress> {
        let mut begun = None;
        while let Some(action) = self.with_driver(SessionDriver::next_action) {
            match action {
                DriverAction::Publish { attempt, to, budget } => {
                    self.publish(attempt, to, budget).await;
                }
                DriverAction::SendControl { to, control } => {
                    self.services.publish_control(control.message(to)).await;
                }
                DriverAction::BroadcastCancel { attempt } => {
                    let mut message =
                        Control::Cancel.message(self.driver.queue().broadcast.clone());
                    message.reply = Some(self.registration.reply_subject(attempt));
                    self.services.publish_control(message).await;
                }
                DriverAction::FindMembers { query, pause } => {
                    if query {
                        self.services.query_members(self.driver.queue()).await;
                    }
                    if let Some(pause) = pause {
                        sleep(pause).await;
                    }
                }
                DriverAction::BeginAnswer(head) => {
                    let reservation = self.reservation.empty_for_same_client();
                    let window = self.request.window;
                    let (chunks, body) = BodySender::new(window, Cancel::new(), reservation);
                    self.chunks = Some(chunks);
                    begun = Some(SessionProgress::AnswerBegun(head, body));
                }
                DriverAction::SendChunk(bytes) => {
                    if let Some(chunks) = &mut self.chunks {
                        chunks.send(bytes);
                    }
                }
                DriverAction::End(end) => return Some(SessionProgress::Ended(self.end(end))),
            }
        }
        begun
    }

    /// Waits for the next event. This method is cancel safe.
    async fn next_event(&mut self) -> DriverEvent {
        loop {
            let awaits_link = self.driver.awaits_link();
            tokio::select! {
                biased;
                message = self.messages.recv() => match message {
                    Some(SessionMessage::Reply(reply)) => if self.accepts(&reply) {
                        return DriverEvent::Reply(reply);
                    },
                    Some(SessionMessage::Signal(signal)) => return DriverEvent::Signal(signal),
                    None => return self.timer_event(),
                },
                event = next_body_event(self.chunks.as_mut()) => match event {
                    BodyEvent::Consumed(chunks) => return DriverEvent::ChunksConsumed(chunks),
                    BodyEvent::Dropped => {
                        self.chunks = None;
                        return DriverEvent::ClientGone;
                    }
                },
                () = sleep_until(self.driver.wake_at()) => return self.timer_event(),
                // After the transport has closed, `changed` fails, and the session ends at its
                // deadlines.
                Ok(()) = self.link.changed(), if awaits_link => {
                    if self.link.borrow().is_up() {
                        return DriverEvent::LinkUp;
                    }
                }
            }
        }
    }

    fn timer_event(&self) -> DriverEvent {
        let progress_interval = self.services.config.load().progress_interval;
        let round_trip = self.services.transport.round_trip();
        DriverEvent::Timer {
            silence_excused_until: round_trip.silence_excused_until(progress_interval),
        }
    }

    /// Returns whether a reply comes from the attempt's worker. If not, counts it as rejected.
    fn accepts(&mut self, reply: &AttemptReply) -> bool {
        let AttemptReply { attempt, worker, reply, .. } = reply;
        if self.workers.check(*attempt, worker.as_ref(), reply).is_err() {
            // This `NoResponders` answers a control message, such as a cancel message, not the
            // attempt.
            if !matches!(reply, Ok(Reply::NoResponders)) {
                let named = reply.as_ref().ok().and_then(Reply::control);
                let named = named.or(worker.as_ref().map(WorkerId::control));
                let queue = self.driver.queue().name.as_str();
                self.registration.rejections().record(ReplyRejection::Worker, Some(queue), named);
            }
            return false;
        }
        if let Err(error) = reply
            && conditions::raise(&MALFORMED, "replies")
        {
            tracing::warn!(%error, "a reply violates the protocol");
        }
        if let Some(spans) = &mut self.spans {
            spans.on_reply(*attempt, reply);
        }
        true
    }

    /// Ends the body of a streamed answer, and charges an answer that was assembled from parts.
    fn end(&mut self, mut end: SessionEnd) -> SessionEnd {
        let chunks = self.chunks.take();
        if let SessionEnd::Answer(answer) = &mut end {
            let assembled_bytes = self.driver.session().assembled_bytes();
            if assembled_bytes > 0 {
                self.reservation.charge_assembled(answer, assembled_bytes);
            }
            if let Some(chunks) = chunks {
                chunks.finish();
            }
        }
        end
    }

    /// Closes the session and returns its result.
    pub(super) fn finish(mut self, end: SessionEnd) -> SessionSummary {
        let closed = self.driver.close(&end, &mut self.messages, Instant::now());
        let ClosedSession { retry_after, queue_wait, exchange_time, messages } = closed;
        if !messages.is_empty() {
            let services = Arc::clone(&self.services);
            let _detached = self.services.tasks.spawn(context::inherit(async move {
                for (to, control) in messages {
                    services.publish_control(control.message(to)).await;
                }
            }));
        }
        let attempts = self.attempts_made();
        let reservation = Some(self.reservation.into_reservation());
        SessionSummary { end, retry_after, queue_wait, exchange_time, attempts, reservation }
    }
}

/// Waits for an event from the client of a streamed answer. Waits forever if `chunks` is `None`.
async fn next_body_event(chunks: Option<&mut BodySender>) -> BodyEvent {
    match chunks {
        Some(chunks) => chunks.next_event().await,
        None => std::future::pending().await,
    }
}
