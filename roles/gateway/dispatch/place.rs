//! Carries a session's actions out: publishes, waits, holds, and gives back one ending.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rand::RngExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::catalogue::Endpoint;
use crate::config::gateway::SessionConfig;
use crate::envelope::{AnswerHead, Control, Reply, Request, WorkerId};
use crate::lifecycle::Tasks;
use crate::message::Message;
use crate::messaging::{Link, Transport};
use crate::problem::ProblemKind;
use crate::telemetry::conditions::{self, MALFORMED};
use crate::telemetry::{context, counter, names};

use super::budget::RetryBudget;
use super::hold::Admission;
use super::hold::Ticket;
use super::mail::MAIL_MAX;
use super::mail::Mail;
use super::mail::Turn;
use super::members::Way;
use super::queues::Queue;
use super::queues::Queues;
use super::replies::Registration;
use super::replies::Replies;
use super::session::Action;
use super::session::Ending;
use super::session::Event;
use super::session::Session;
use super::session::Step;
use super::session::Why;
use super::traced::Traced;
use crate::roles::gateway::response::StreamedBody;

mod begun;
mod heard;
mod placed;
mod publish;
mod terms;
mod wanted;

pub use begun::{Begun, Rest};
use begun::{PieceEvent, Pieces};
pub use placed::Placed;
pub use wanted::Wanted;

/// Places requests with workers.
#[derive(Debug)]
pub struct Placer {
    /// The message bus.
    pub transport: Arc<dyn Transport>,
    /// The reply subscription.
    pub replies: Arc<Replies>,
    /// Subjects and holds.
    pub queues: Arc<Queues>,
    /// What resubmissions may cost.
    pub budget: RetryBudget,
    /// How requests are placed: replaced at a reload.
    pub config: ArcSwap<SessionConfig>,
    /// The process's tasks: a session outlives its client's leaving.
    pub tasks: Tasks,
}

/// What a request is answered with.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every answer is whole: a box would be one more for each"
)]
pub enum Answered {
    /// Everything there is to say.
    Whole(Placed),
    /// The beginning of a worker's answer.
    Begun(Box<Begun>),
}

/// Where a ride stops.
enum Stop {
    Begun(AnswerHead, StreamedBody),
    Ended(Ending),
}

impl Placer {
    /// Places one request and waits for its one answer, or for the beginning of one that its `window` lets begin.
    ///
    /// Dropping the future means that the client left: the session goes on by itself for as long as its
    /// terms say, and then ends. The room of the request is kept for as long.
    pub async fn place(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        request: Request,
        wanted: Wanted,
    ) -> Answered {
        let now = Instant::now();
        self.budget.deposit(now);
        let Ok(queue) = self.queues.named(&endpoint.queue) else {
            debug_assert!(false, "a checked queue name makes a subject");
            return Answered::Whole(Placed::problem(ProblemKind::Internal));
        };
        queue.figures.arrivals.increment(1);
        let needs = queue.timing.needs(&endpoint.id);
        let patience = endpoint.timeout.saturating_sub(needs.sign.min(endpoint.timeout / 2));
        let admission = queue.hold.admit(patience, self.config.load().waiting_max, now);
        if admission == Admission::Shed {
            shed("queue");
            let retry_after = Some(queue.hold.retry_after(now));
            let shed = Placed { retry_after, ..Placed::problem(ProblemKind::Overloaded) };
            return Answered::Whole(shed);
        }
        let (sender, mail) = mpsc::channel(MAIL_MAX);
        let expected = wanted.expected(&request);
        let ride = Ride {
            traced: Traced::of(&request, &endpoint.queue, &queue.subject),
            registration: self.replies.register(queue.number, sender.clone(), expected),
            session: Session::new(
                self.terms(endpoint, &queue, &request, wanted.keeps_answer()),
                now,
            ),
            link: self.transport.link(),
            placer: Arc::clone(self),
            ask_at: None,
            asked: 0,
            judge_at: now,
            by_asking: false,
            way: None,
            swallowed: None,
            signed: 0,
            ticket: None,
            began: now,
            actions: Vec::with_capacity(2),
            workers: Vec::new(),
            queue,
            request,
            sender,
            mail,
            pieces: None,
            wanted,
        };
        let mut guard = Guard(Some(ride));
        let stop = match guard.0.as_mut() {
            Some(ride) => {
                let linked = ride.link.borrow().is_up();
                ride.run(Event::Start { linked, free: admission == Admission::Free }).await
            }
            None => Stop::Ended(Ending::ClientGone),
        };
        let ending = match stop {
            Stop::Begun(head, body) => {
                let ended = body.ended().clone();
                return Answered::Begun(Box::new(Begun {
                    head,
                    body,
                    rest: Rest { guard, ended },
                }));
            }
            Stop::Ended(ending) => ending,
        };
        Answered::Whole(match guard.0.take() {
            Some(ride) => ride.finish(ending),
            None => Placed::problem(ProblemKind::Internal),
        })
    }

    /// Asks the workers of a queue who they are.
    pub(in crate::roles::gateway) fn members_question(&self, queue: &Queue) -> Message {
        let mut message = Control::Members.message(queue.cancel.clone());
        message.reply = Some(self.replies.members_subject(queue.number));
        message
    }

    /// Takes how the next requests are placed. Those that are under way keep their terms.
    pub fn reload(&self, config: SessionConfig) {
        self.budget.set(config.retry_percent, config.retry_floor);
        self.config.store(Arc::new(config));
    }
}

/// A session with everything it needs to go on, also without its client.
struct Ride {
    placer: Arc<Placer>,
    queue: Arc<Queue>,
    registration: Registration,
    request: Request,
    session: Session,
    mail: mpsc::Receiver<Mail>,
    sender: mpsc::Sender<Mail>,
    link: watch::Receiver<Link>,
    ticket: Option<Ticket>,
    /// When the head asks the group again.
    ask_at: Option<Instant>,
    /// Before this nothing is concluded from a worker's silence.
    judge_at: Instant,
    asked: u32,
    /// Whether its last message was its own asking, and not the answer to an offer.
    by_asking: bool,
    /// Where the last attempt went, when that was no offered slot and nothing is known of it.
    way: Option<Way>,
    /// The last attempt to the group that was taken for swallowed.
    swallowed: Option<u32>,
    /// The last attempt that gave a sign.
    signed: u32,
    began: Instant,
    actions: Vec<Action>,
    /// Which worker has which attempt, as far as they have said so.
    workers: Vec<(u32, WorkerId)>,
    traced: Option<Box<Traced>>,
    /// Where an answer that has begun goes; none before, and once its client has left.
    pieces: Option<Pieces>,
    wanted: Wanted,
}

/// Notices that the client left: then the HTTP server drops the future that holds this.
#[derive(Debug)]
struct Guard(Option<Ride>);

impl std::fmt::Debug for Ride {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ride").field("session", &self.session).finish_non_exhaustive()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut ride) = self.0.take() {
            let tasks = ride.placer.tasks.clone();
            let _detached = tasks.spawn(context::inherit(async move {
                ride.pieces = None;
                let ending = ride.run_to_its_end(Event::ClientGone).await;
                drop(ride.finish(ending));
            }));
        }
    }
}

impl Ride {
    /// Runs on until the session ends.
    async fn run_on(&mut self) -> Ending {
        let next = self.next_event().await;
        self.run_to_its_end(next).await
    }

    async fn run_to_its_end(&mut self, first: Event) -> Ending {
        let mut event = first;
        loop {
            match self.run(event).await {
                Stop::Ended(ending) => return ending,
                Stop::Begun(..) => event = self.next_event().await,
            }
        }
    }

    /// Runs the session until it ends or its answer begins. Safe to drop and to call again with another event.
    async fn run(&mut self, first: Event) -> Stop {
        let mut event = first;
        loop {
            self.step(event);
            if let Some(stop) = self.act().await {
                return stop;
            }
            event = self.next_event().await;
        }
    }

    fn step(&mut self, event: Event) {
        let now = Instant::now();
        let budget = &self.placer.budget;
        self.session.step(
            event,
            &mut Step {
                now,
                may_resubmit: &mut || budget.withdraw(now),
                actions: &mut self.actions,
            },
        );
    }

    /// Carries out what the session wants, in order.
    async fn act(&mut self) -> Option<Stop> {
        let mut begun = None;
        let mut next = 0;
        // Carrying an action out may add further ones.
        while let Some(action) = self.actions.get_mut(next) {
            let action = std::mem::replace(action, Action::Unhold);
            next += 1;
            match action {
                Action::Publish { attempt, to, budget } => self.publish(attempt, to, budget).await,
                Action::Tell { to, control } => self.tell(control.message(to)).await,
                Action::CancelEverywhere { attempt } => {
                    let mut message = Control::Cancel.message(self.queue.cancel.clone());
                    message.reply = Some(self.registration.reply_subject(attempt));
                    self.tell(message).await;
                }
                Action::Hold(why) => self.hold(why),
                Action::Unhold => self.unhold(),
                Action::Unheard(attempt) => self.unheard(attempt).await,
                Action::Resubmitted(reason) => {
                    let label = [(names::REASON, reason.to_owned())];
                    counter(&names::GATEWAY_RESUBMISSIONS, &label).increment(1);
                }
                Action::Begin(head) => begun = Some(self.begin(head)),
                Action::Pass(bytes) => {
                    if let Some(pieces) = &mut self.pieces {
                        pieces.pass(bytes);
                    }
                }
                Action::End(ending) => {
                    self.actions.clear();
                    return Some(Stop::Ended(self.end(ending)));
                }
            }
        }
        self.actions.clear();
        begun
    }

    async fn next_event(&mut self) -> Event {
        loop {
            let wake_at = self.session.wake_at().max(self.judge_at);
            let ask_at = self.ask_at.unwrap_or(wake_at);
            let awaits_link = self.session.awaits_link() && self.ask_at.is_some();
            tokio::select! {
                biased;
                mail = self.mail.recv() => match mail {
                    Some(mail) => if let Some(event) = self.read(mail) { return event },
                    None => return Event::Tick,
                },
                event = client_event(self.pieces.as_mut()) => match event {
                    PieceEvent::Consumed(pieces) => return Event::Taken(pieces),
                    PieceEvent::ClientGone => {
                        self.pieces = None;
                        return Event::ClientGone;
                    }
                },
                () = sleep_until(wake_at.min(ask_at)) => {
                    if ask_at < wake_at {
                        if let Some(event) = self.ask() { return event }
                    } else if !self.is_stalled() {
                        return Event::Tick;
                    }
                }
                // A transport that is gone never comes back: then the deadline ends the wait.
                Ok(()) = self.link.changed(), if awaits_link => {
                    if self.link.borrow().is_up() { self.ask_at = Some(Instant::now()); }
                }
            }
        }
    }

    /// Whether NATS itself stands still, so that silence says nothing about a worker. Then what it sends has until the next
    /// progress is due to arrive.
    fn is_stalled(&mut self) -> bool {
        let Some(end) = self.session.silence_may_last_until() else { return false };
        let is_stalled = self.placer.transport.round_trip().is_stalled();
        if is_stalled {
            self.judge_at = end.min(Instant::now() + self.placer.config.load().progress_interval);
        }
        is_stalled
    }

    fn read(&mut self, mail: Mail) -> Option<Event> {
        match mail {
            Mail::Reply { attempt, worker, reply, has_room } => {
                if !self.is_of_its_worker(attempt, worker, &reply) {
                    return None;
                }
                if let Err(error) = &reply
                    && conditions::begins(&MALFORMED, "replies")
                {
                    tracing::warn!(%error, "a reply does not keep to the protocol");
                }
                if let Some(traced) = &mut self.traced {
                    traced.heard(attempt, &reply);
                }
                self.time(attempt, &reply);
                let reply = self.note_member(attempt, reply);
                if !matches!(reply, Ok(Reply::NoResponders)) {
                    self.queue.hold.has_members();
                }
                if !matches!(reply, Ok(Reply::NoResponders | Reply::Refused { .. })) {
                    self.taken();
                }
                Some(self.heard(attempt, reply, has_room))
            }
            Mail::Turn(Turn::Offered(direct)) => {
                self.by_asking = false;
                Some(Event::Offered(direct))
            }
            Mail::Turn(Turn::Ask) => self.is_linked().then_some(Event::Ask),
            Mail::Turn(Turn::Full) => {
                shed("queue");
                Some(Event::Full)
            }
            Mail::Turn(Turn::Head) => {
                self.ask_at = Some(Instant::now() + self.pause());
                None
            }
        }
    }

    /// A worker has it: the queue moved on by one. One that is still held (an earlier attempt was heard
    /// of late) keeps its ticket: it has to leave the hold with it.
    fn taken(&mut self) {
        if !self.session.is_held() && self.ticket.take().is_some() && self.by_asking {
            self.queue.hold.was_taken(Instant::now());
        }
    }

    /// The pause of the head is over: it asks the group, if it still is the head.
    fn ask(&mut self) -> Option<Event> {
        self.ask_at = None;
        let head = self.ticket.is_some_and(|ticket| self.queue.hold.is_head(ticket));
        if !head {
            return None;
        }
        if self.is_linked() {
            self.asked += 1;
            self.by_asking = true;
            return Some(Event::Ask);
        }
        self.ask_at = Some(Instant::now() + self.placer.config.load().probe_delay_max);
        None
    }

    /// Exponential with jitter, so that many gateways do not ask in step; at least the time that an answer takes.
    fn pause(&self) -> Duration {
        let config = self.placer.config.load();
        let ceiling = config.probe_delay_min.saturating_mul(1 << self.asked.min(16));
        let round_trip = self.queue.timing.round_trip();
        ceiling
            .min(config.probe_delay_max)
            .max(round_trip)
            .mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    fn is_linked(&self) -> bool {
        self.link.borrow().is_up()
    }

    fn hold(&mut self, why: Why) {
        self.ask_at = None;
        self.session.set_needs(self.queue.timing.needs(&self.request.endpoint));
        let waiting_max = self.placer.config.load().waiting_max;
        let sender = self.sender.clone();
        self.ticket = self.queue.hold.enter(self.ticket, why, sender, waiting_max);
        if self.ticket.is_none() {
            shed("queue");
            self.step(Event::Full);
        }
    }

    fn unhold(&mut self) {
        self.ask_at = None;
        if let Some(ticket) = self.ticket {
            self.queue.hold.leave(ticket);
        }
    }

    /// Ends the ride: what still came for it is passed on or answered.
    fn finish(mut self, ending: Ending) -> Placed {
        self.unhold();
        self.mail.close();
        let now = Instant::now();
        let mut tell = Vec::new();
        while let Ok(mail) = self.mail.try_recv() {
            match mail {
                Mail::Turn(Turn::Offered(direct)) => {
                    if let Err(direct) = self.queue.hold.offer(direct, now) {
                        tell.push(Control::Decline.message(direct));
                    }
                }
                Mail::Reply { reply: Ok(Reply::Claim { control }), .. } => {
                    tell.push(Control::Deny.message(control));
                }
                Mail::Reply { .. } => counter(&names::GATEWAY_LATE_REPLIES, &[]).increment(1),
                Mail::Turn(Turn::Head | Turn::Ask | Turn::Full) => {}
            }
        }
        if !tell.is_empty() {
            let transport = Arc::clone(&self.placer.transport);
            let _detached = self.placer.tasks.spawn(context::inherit(async move {
                for message in tell {
                    if let Err(error) = transport.publish(message).await {
                        tracing::debug!(%error, "could not tell a worker");
                    }
                }
            }));
        }
        if let Ending::Problem(kind) = &ending
            && kind.status() == 504
        {
            // It took longer than this; how much nobody knows.
            let took = now.saturating_duration_since(self.session.sent_at());
            self.queue.timing.record_answer(&self.request.endpoint, took);
        }
        let in_vain = matches!(ending, Ending::Problem(kind) if kind.status() == 503);
        let retry_after = in_vain.then(|| self.queue.hold.retry_after(now));
        let taken = if in_vain { now } else { self.session.sent_at() };
        let waited = taken.saturating_duration_since(self.began);
        self.queue.figures.wait.record(waited.as_secs_f64());
        Placed {
            retry_after,
            waited,
            answered: now.saturating_duration_since(taken),
            attempts: self.session.attempts_made(),
            ending,
            room: Some(self.wanted.into_room()),
        }
    }
}

/// A request found no place.
fn shed(reason: &str) {
    counter(&names::GATEWAY_SHED, &[(names::REASON, reason.to_owned())]).increment(1);
}

/// Waits for the client of an answer that has begun.
async fn client_event(pieces: Option<&mut Pieces>) -> PieceEvent {
    match pieces {
        Some(pieces) => pieces.next_event().await,
        None => std::future::pending().await,
    }
}
