//! One queue that this worker serves: judges each message at once, and gives freed slots away.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::catalogue::{Endpoint, EndpointId, QueueName};
use crate::envelope::{Final, REPEAT_TOKEN, Reason, Reply, WORKERS_TOKEN};
use crate::messaging::{Message, Subject};
use crate::outcome::Word;
use crate::problem::{PROBLEM_JSON, Problem, ProblemKind};
use crate::procedures::Need;
use crate::telemetry::conditions::{self, Condition, MALFORMED};
use crate::telemetry::context::{self, Served};
use crate::telemetry::{counter, names};

use super::dispatch::Dispatch;
use super::handler::{Job, QueueHandler};
use super::load::Load;
use super::slots::{Accepted, Next, Offer, OfferId, Slots, Verdict, Waiter};

mod figures;
mod read;

use figures::{Figures, calls};
use read::Read;

/// Calls that take less than this on average are worth offers ahead.
const AHEAD_CALL_MAX: Duration = Duration::from_millis(50);
/// One slot in so many is offered ahead, at least one.
const AHEAD_SHARE: usize = 4;

/// Gateway and worker have different catalogues.
const UNKNOWN_ENDPOINT: Condition = Condition::new("requests of an endpoint that is not served");

/// A queue with its slots and what runs in them.
#[derive(Debug)]
pub struct Queue {
    /// Its name: also the queue group's.
    pub name: QueueName,
    /// The subject that the group listens to.
    pub subject: Subject,
    /// Where cancels arrive whose sender does not know which worker has the call.
    pub cancel: Subject,
    /// Where gateways ask for answers again.
    pub repeat: Subject,
    /// This worker's own subject for the queue: above those of its jobs and offers.
    pub own: Subject,
    jobs: Subject,
    offers: Subject,
    /// Its number within this worker.
    pub number: usize,
    endpoints: BTreeMap<EndpointId, Service>,
    slots: Mutex<Slots<Work>>,
    load: Load,
    /// How long a call takes, in microseconds, as a moving mean.
    call_micros: AtomicU64,
    /// How the last call that failed ended.
    last_failure: Mutex<Option<Word>>,
    dispatch: Arc<Dispatch>,
    figures: Figures,
}

/// A request that was read, with what does its work.
#[derive(Debug)]
pub struct Work {
    job: Box<Job>,
    handler: Arc<dyn QueueHandler>,
    reply: Option<Subject>,
    /// What the lines that are logged for it say.
    served: Arc<Served>,
}

/// A message that gets no slot.
enum Unserved {
    Refused(Reason, Option<Subject>),
    Malformed(Box<Problem>, Arc<Served>, Option<Subject>),
}

/// An endpoint and what does its work.
#[derive(Clone, Debug)]
pub struct Service {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// What does its work.
    pub handler: Arc<dyn QueueHandler>,
}

/// What names a queue on the bus.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its name.
    pub name: QueueName,
    /// Its number within this worker.
    pub number: usize,
    /// The first tokens of every subject.
    pub prefix: Subject,
}

impl Queue {
    /// A queue with free slots.
    ///
    /// # Errors
    /// `SubjectError` when prefix and name make no subject: impossible for checked names.
    pub fn new(
        place: Place,
        services: Vec<Service>,
        slots: Slots<Work>,
        dispatch: Arc<Dispatch>,
    ) -> Result<Self, crate::messaging::SubjectError> {
        let Place { name, number, prefix } = place;
        let figures = Figures::of(&name);
        let own = prefix.join(format_args!("{WORKERS_TOKEN}.{name}.{}", dispatch.worker))?;
        Ok(Self {
            subject: prefix.join(format_args!("q.{name}"))?,
            cancel: prefix.join(format_args!("cancel.{name}"))?,
            repeat: prefix.join(format_args!("{REPEAT_TOKEN}.{name}"))?,
            jobs: own.join("j")?,
            offers: own.join("o")?,
            own,
            number,
            endpoints: services.into_iter().map(|s| (s.endpoint.id.clone(), s)).collect(),
            load: Load::of(&name, &slots, Instant::now()),
            slots: Mutex::new(slots),
            call_micros: AtomicU64::new(u64::MAX),
            last_failure: Mutex::default(),
            dispatch,
            figures,
            name,
        })
    }

    /// Where a grant or a cancel for one of its jobs goes.
    #[must_use]
    pub fn job_subject(&self, number: u64) -> Subject {
        self.jobs.numbered([number])
    }

    /// The endpoints that it serves.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.endpoints.values()
    }

    /// What its endpoints need of the database.
    pub fn needs(&self) -> impl Iterator<Item = Need> + '_ {
        self.services().filter_map(|service| Need::of(&service.endpoint))
    }

    /// A new limit, from a reload.
    pub fn set_limit(&self, limit: usize) {
        self.slots().set_limit(limit);
        self.note_load();
    }

    /// A message of the group: taken or refused before anything is awaited but the refusal itself.
    pub async fn arrived(self: &Arc<Self>, message: Message) {
        let read = Read::of(message);
        let served = Arc::clone(&read.served);
        let judged = context::within(&served, || {
            let work = self.fit(read)?;
            let verdict = self.slots().arrive(work.reply.as_ref());
            self.judged(verdict, work)
        });
        // Boxed: nearly every message is taken, and then nothing is awaited.
        if let Err(unserved) = judged {
            Box::pin(context::serving(served, self.turn_down(unserved))).await;
        }
    }

    /// A message to a slot that this queue offered.
    pub async fn accepted(self: &Arc<Self>, id: OfferId, message: Message) {
        let read = Read::of(message);
        context::serving(Arc::clone(&read.served), self.judge_accepted(id, read)).await;
    }

    async fn judge_accepted(self: &Arc<Self>, id: OfferId, read: Read) {
        let work = match self.fit(read) {
            Ok(work) => work,
            Err(unserved) => {
                self.turn_down(unserved).await;
                return self.declined(id).await;
            }
        };
        let waiter = Waiter { since: Instant::now(), reply: work.reply.clone(), work };
        let accepted = self.slots().accept(id, waiter);
        let is_late = matches!(accepted, Accepted::Refuse(..));
        self.count_offer(if is_late { "late" } else { "accepted" });
        let judged = match accepted {
            Accepted::Take(work) => self.judged(Verdict::Take, work),
            Accepted::Refuse(reason, work) => self.judged(Verdict::Refuse(reason), work),
            Accepted::Waits => {
                self.note_load();
                Ok(())
            }
        };
        if let Err(unserved) = judged {
            self.turn_down(unserved).await;
        }
    }

    /// An offered slot is not needed: the next one gets it.
    pub async fn declined(self: &Arc<Self>, id: OfferId) {
        self.count_offer("declined");
        let offer = self.slots().decline(id, Instant::now());
        if let Some(offer) = offer {
            self.offer(offer).await;
        }
    }

    /// Gives lapsed offers to the next, and says when to look again.
    pub async fn lapse(self: &Arc<Self>) -> Option<Instant> {
        let lapsed = self.slots().lapse(Instant::now());
        for _ in 0..lapsed.count {
            self.count_offer("lapsed");
        }
        for offer in lapsed.offers {
            self.offer(offer).await;
        }
        if let Some(oldest) = lapsed.turned_away.first() {
            // The calls that it waited for are at least as long, and count when they end: too late to learn it.
            self.call_micros.store(micros(oldest.since.elapsed()), Ordering::Relaxed);
        }
        self.turn_away(Reason::Busy, lapsed.turned_away).await;
        self.slots().next_lapse()
    }

    /// Nobody waits any more for the answer to a request that may wait here for a slot.
    pub fn cancelled(&self, reply: &Subject) {
        let waiter = self.slots().cancel(reply);
        if let Some(Waiter { work, .. }) = waiter {
            tracing::debug!(queue = %self.name, request_id = &*work.served.request_id, "cancelled before it began");
            self.note_load();
        }
    }

    /// A job has ended: its slot goes to whoever was refused first, or else back to `more`: the request's sender, when
    /// others waited there.
    pub async fn finished(self: &Arc<Self>, outcome: Word, took: Duration, more: Option<Subject>) {
        self.figures.duration.record(took.as_secs_f64());
        if outcome == Word::Ok {
            self.figures.calls_ok.increment(1);
        } else {
            calls(&self.figures.queue, outcome).increment(1);
        }
        if outcome.is_failure() {
            *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        }
        self.note_call(took);
        self.give_back(more).await;
        self.note_load();
    }

    /// Offers slots ahead while calls are short: then the way of an offer is long beside them.
    fn note_call(&self, took: Duration) {
        let took = micros(took);
        let before = self.call_micros.load(Ordering::Relaxed);
        let mean = if before == u64::MAX { took } else { before - before / 16 + took / 16 };
        self.call_micros.store(mean, Ordering::Relaxed);
        let mut slots = self.slots();
        let is_short = Duration::from_micros(mean) < AHEAD_CALL_MAX;
        let ahead = if is_short { slots.limit().div_ceil(AHEAD_SHARE) } else { 0 };
        slots.set_ahead(ahead);
    }

    /// Refuses everything from now on, what waits for a slot as well: this worker is about to stop.
    pub async fn drain(&self) {
        let waiting = self.slots().drain();
        self.turn_away(Reason::Draining, waiting).await;
    }

    /// The backend of its procedures is there.
    pub fn available(&self) {
        self.slots().available();
    }

    /// The backend of its procedures is away: refuses everything, what waits for a slot as well.
    pub async fn unavailable(&self) {
        let waiting = self.slots().unavailable();
        self.turn_away(Reason::Unavailable, waiting).await;
    }

    async fn turn_away(&self, reason: Reason, waiting: impl IntoIterator<Item = Waiter<Work>>) {
        for waiter in waiting {
            self.refuse(reason, waiter.reply).await;
        }
    }

    /// The slots, for a look or a change that takes no time.
    pub fn slots(&self) -> MutexGuard<'_, Slots<Work>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judged(self: &Arc<Self>, verdict: Verdict, work: Work) -> Result<(), Unserved> {
        self.note_load();
        match verdict {
            Verdict::Refuse(reason) => Err(Unserved::Refused(reason, work.reply)),
            Verdict::Take => {
                self.start(work);
                Ok(())
            }
        }
    }

    fn start(self: &Arc<Self>, work: Work) {
        Dispatch::start(&self.dispatch, self, work.handler, work.job, work.reply);
    }

    /// Whether a message can be worked on. Trusts nothing: it may come from anywhere.
    fn fit(&self, Read { request, reply, served }: Read) -> Result<Work, Unserved> {
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                if conditions::begins(&MALFORMED, self.name.as_str()) {
                    tracing::warn!(queue = %self.name, %error, "a message does not keep to the protocol");
                }
                let kind = ProblemKind::InvalidRequest;
                let problem = Problem::with_detail(kind, error.to_string());
                return Err(Unserved::Malformed(Box::new(problem), served, reply));
            }
        };
        let Some(service) = self.endpoints.get(&request.endpoint) else {
            if conditions::begins(&UNKNOWN_ENDPOINT, self.name.as_str()) {
                tracing::error!(
                    queue = %self.name, endpoint = %request.endpoint,
                    "a gateway sends an endpoint that this worker's catalogue does not have on this queue"
                );
            }
            let detail = "gateway and worker have different catalogues";
            let problem = Problem::with_detail(ProblemKind::Internal, detail);
            return Err(Unserved::Malformed(Box::new(problem), served, reply));
        };
        if request.timeout.is_zero() {
            return Err(Unserved::Refused(Reason::Expired, reply));
        }
        let endpoint = Arc::clone(&service.endpoint);
        let job = Box::new(Job { endpoint, request, times: Arc::default() });
        Ok(Work { job, handler: Arc::clone(&service.handler), reply, served })
    }

    /// Answers a message that is not worked on.
    async fn turn_down(&self, unserved: Unserved) {
        match unserved {
            Unserved::Refused(reason, reply) => self.refuse(reason, reply).await,
            Unserved::Malformed(problem, served, reply) => {
                counter(&names::WORKER_MALFORMED, &[]).increment(1);
                self.answer_problem(&problem, &served.request_id, reply).await;
            }
        }
    }

    /// A slot is free: for a request that waits here, else for whoever was refused first.
    async fn give_back(self: &Arc<Self>, more: Option<Subject>) {
        let (next, ahead) = self.free(more);
        // Boxed: most calls end with nobody who waits, and every job would carry its room.
        if next.starts.is_some() || next.offer.is_some() || ahead.is_some() {
            Box::pin(self.pass_on(next, ahead)).await;
        }
    }

    fn free(&self, more: Option<Subject>) -> (Next<Work>, Option<Offer>) {
        let (mut slots, now) = (self.slots(), Instant::now());
        (slots.finish(now, more), slots.offer_ahead(now))
    }

    async fn pass_on(self: &Arc<Self>, mut next: Next<Work>, mut ahead: Option<Offer>) {
        loop {
            for offer in [next.offer, ahead].into_iter().flatten() {
                self.offer(offer).await;
            }
            let Some(Waiter { since, mut work, .. }) = next.starts else { return };
            let budget = &mut work.job.request.timeout;
            *budget = budget.saturating_sub(since.elapsed());
            if !budget.is_zero() {
                let served = Arc::clone(&work.served);
                return context::within(&served, || self.start(work));
            }
            self.refuse(Reason::Expired, work.reply).await;
            (next, ahead) = self.free(None);
        }
    }

    async fn refuse(&self, reason: Reason, reply: Option<Subject>) {
        let labels = [
            (names::QUEUE, self.figures.queue.clone()),
            (names::REASON, reason.as_str().to_owned()),
        ];
        counter(&names::WORKER_REFUSALS, &labels).increment(1);
        if let Some(reply) = reply {
            let control = Some(self.own.clone());
            self.dispatch.say(Reply::Refused { reason, control }, reply).await;
        }
    }

    async fn answer_problem(&self, problem: &Problem, request_id: &str, reply: Option<Subject>) {
        let Some(reply) = reply else { return };
        let status = problem.kind.status().as_u16();
        let body = problem.to_json(request_id).into();
        let answer = Final::whole(status, PROBLEM_JSON, body, Word::BadMessage);
        self.dispatch.say(Reply::Final(answer), reply).await;
    }

    async fn offer(&self, Offer { id, to }: Offer) {
        self.count_offer("made");
        let direct = self.offers.numbered([id.0]);
        self.dispatch.say(Reply::Offer { direct }, to).await;
    }

    fn count_offer(&self, word: &str) {
        let labels = [(names::QUEUE, self.figures.queue.clone()), (names::RESULT, word.to_owned())];
        counter(&names::WORKER_OFFERS, &labels).increment(1);
    }

    /// How the last call that failed ended.
    pub fn last_failure(&self) -> Option<Word> {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time that calls held slots, and the time that all slots were taken, until now.
    pub fn slot_times(&self) -> (Duration, Duration) {
        self.note_load();
        self.load.totals()
    }

    /// Keeps the load's figures: what runs, and how much of the slots is used.
    pub fn note_load(&self) {
        let slots = self.slots();
        self.load.note(&slots, Instant::now());
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
