//! One queue that this worker serves: judges each message at once, and gives freed slots away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::catalogue::{Endpoint, EndpointId, Execution, QueueName};
use crate::envelope::{Final, REPEAT_TOKEN, Reason, Reply, WORKERS_TOKEN};
use crate::message::{Message, Subject};
use crate::outcome::Word;
use crate::problem::{PROBLEM_JSON, Problem, ProblemKind};
use crate::procedures::Need;
use crate::telemetry::conditions::{self, Condition, MALFORMED};
use crate::telemetry::context::{self, Served};
use crate::telemetry::{counter, names};

use crate::roles::worker::execution::call_time::CallTime;
use crate::roles::worker::execution::executor::Dispatch;
use crate::roles::worker::execution::handler::{Job, QueueHandler};
use crate::roles::worker::intake::slots::{Offer, OfferId, Slots, Verdict, Waiter};
use crate::roles::worker::observation::load::Load;

mod backlog;

pub use backlog::{Granted, Pending, Turn};

use super::message::Read;
use crate::roles::worker::observation::queue_metrics::{Figures, calls};

/// Gateway and worker have different catalogues: of an endpoint's dry run, and of an endpoint.
const NO_DRY_RUN: Condition = Condition::new("dry runs of an endpoint that has none");
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
    slots: Mutex<Slots<Pending>>,
    /// Given when something waits for a slot that nothing waited for before.
    waits: Notify,
    load: Load,
    /// How the last call that failed ended.
    last_failure: Mutex<Option<Word>>,
    dispatch: Arc<Dispatch>,
    figures: Figures,
}

/// A request that was read, with what does its work.
#[derive(Debug)]
pub struct Work {
    /// The job.
    pub job: Box<Job>,
    /// What does it.
    pub handler: Arc<dyn QueueHandler>,
    /// How long such calls take.
    pub call_time: Arc<CallTime>,
    /// Where the answer goes.
    pub reply: Option<Subject>,
    /// What the lines that are logged for it say.
    pub served: Arc<Served>,
}

/// A message that gets no slot.
enum Unserved {
    Refused(Reason, Option<Subject>),
    Malformed(Box<Problem>, Arc<Served>, Option<Subject>),
    NoDryRun(Arc<Served>, Option<Subject>),
}

/// An endpoint and what does its work.
#[derive(Clone, Debug)]
pub struct Service {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// What does its work.
    pub handler: Arc<dyn QueueHandler>,
    call_time: Arc<CallTime>,
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
        slots: Slots<Pending>,
        dispatch: Arc<Dispatch>,
    ) -> Result<Self, crate::message::SubjectError> {
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
            waits: Notify::new(),
            last_failure: Mutex::default(),
            dispatch,
            figures,
            name,
        })
    }

    /// Where a grant or a cancel for one of its jobs goes.
    #[must_use]
    pub fn job_subject(&self, number: u64) -> Subject {
        self.jobs.join_numbers([number])
    }

    /// The endpoints that it serves.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.endpoints.values()
    }

    /// What its endpoints need of the database.
    pub fn needs(&self) -> impl Iterator<Item = Need> + '_ {
        self.services().filter_map(|service| Need::of(&service.endpoint))
    }

    /// A message of the group: taken or refused at once.
    pub fn arrived(self: &Arc<Self>, message: Message) {
        let read = Read::of(message);
        let served = Arc::clone(&read.served);
        context::within(&served, || {
            let judged = self.fit(read).and_then(|work| {
                let verdict = self.slots().arrive(work.waiter(Instant::now()));
                self.judged(verdict)
            });
            if let Err(unserved) = judged {
                self.turn_down(unserved);
            }
        });
    }

    /// A message to a slot that this queue offered.
    pub fn accepted(self: &Arc<Self>, id: OfferId, message: Message) {
        let read = Read::of(message);
        let served = Arc::clone(&read.served);
        context::within(&served, || self.judge_accepted(id, read));
    }

    fn judge_accepted(self: &Arc<Self>, id: OfferId, read: Read) {
        let work = match self.fit(read) {
            Ok(work) => work,
            Err(unserved) => {
                self.turn_down(unserved);
                return self.declined(id);
            }
        };
        let verdict = self.slots().accept(id, work.waiter(Instant::now()));
        let is_late = matches!(verdict, Verdict::Refuse(..));
        self.count_offer(if is_late { "late" } else { "accepted" });
        if matches!(verdict, Verdict::Waits) {
            self.waits.notify_one();
        }
        if let Err(unserved) = self.judged(verdict) {
            self.turn_down(unserved);
        }
    }

    /// An offered slot is not needed: the next one gets it.
    pub fn declined(self: &Arc<Self>, id: OfferId) {
        self.count_offer("declined");
        let offer = self.slots().decline(id, Instant::now());
        if let Some(offer) = offer {
            self.offer(offer);
        }
    }

    /// A job has ended: its slot goes to whoever was refused first, or else back to `more`: the request's sender, when
    /// others waited there.
    pub fn finished(self: &Arc<Self>, outcome: Word, took: Duration, more: Option<Subject>) {
        self.figures.duration.record(took.as_secs_f64());
        if outcome == Word::Ok {
            self.figures.calls_ok.increment(1);
        } else {
            calls(&self.figures.queue, outcome).increment(1);
        }
        if outcome.is_failure() {
            *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        }
        self.give_back(took, more);
        self.note_load();
    }

    /// The slots, for a look or a change that takes no time.
    pub fn slots(&self) -> MutexGuard<'_, Slots<Pending>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judged(self: &Arc<Self>, verdict: Verdict<Pending>) -> Result<(), Unserved> {
        self.note_load();
        match verdict {
            Verdict::Refuse(reason, Pending::Request(work)) => {
                return Err(Unserved::Refused(reason, work.reply));
            }
            Verdict::Take(Pending::Request(work)) => {
                Dispatch::start(&self.dispatch, self, work, false);
            }
            Verdict::Claim(Pending::Request(work)) => {
                Dispatch::start(&self.dispatch, self, work, true);
            }
            Verdict::Waits => {}
            Verdict::Refuse(_, Pending::Granted { .. })
            | Verdict::Take(Pending::Granted { .. })
            | Verdict::Claim(Pending::Granted { .. }) => {
                debug_assert!(false, "no message is a grant");
            }
        }
        Ok(())
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
        if request.dry_run && !service.endpoint.dry_run {
            if conditions::begins(&NO_DRY_RUN, self.name.as_str()) {
                tracing::error!(
                    queue = %self.name, endpoint = %request.endpoint,
                    "a gateway sends a dry run, and this worker's catalogue has none of the endpoint"
                );
            }
            return Err(Unserved::NoDryRun(served, reply));
        }
        if request.timeout.is_zero() {
            return Err(Unserved::Refused(Reason::Expired, reply));
        }
        let endpoint = Arc::clone(&service.endpoint);
        let job = Box::new(Job { endpoint, request, times: Arc::default() });
        let (handler, call_time) = (Arc::clone(&service.handler), Arc::clone(&service.call_time));
        Ok(Work { job, handler, call_time, reply, served })
    }

    /// Answers a message that is not worked on.
    fn turn_down(&self, unserved: Unserved) {
        match unserved {
            Unserved::Refused(reason, reply) => self.refuse(reason, reply),
            Unserved::Malformed(problem, served, reply) => {
                counter(&names::WORKER_MALFORMED, &[]).increment(1);
                self.answer_problem(&problem, false, (&served.request_id, reply));
            }
            Unserved::NoDryRun(served, reply) => {
                // As a gateway with this catalogue would answer. Nothing of it stays: it was never sent.
                let detail = "this worker's catalogue has no dry run of the endpoint";
                let problem = Problem::with_detail(ProblemKind::InvalidRequest, detail);
                self.answer_problem(&problem, true, (&served.request_id, reply));
            }
        }
    }

    /// A message was refused.
    pub fn count_refusal(&self, reason: Reason) {
        let labels = [
            (names::QUEUE, self.figures.queue.clone()),
            (names::REASON, reason.as_str().to_owned()),
        ];
        counter(&names::WORKER_REFUSALS, &labels).increment(1);
    }

    fn refuse(&self, reason: Reason, reply: Option<Subject>) {
        self.count_refusal(reason);
        if let Some(reply) = reply {
            let control = Some(self.own.clone());
            self.dispatch.say(Reply::Refused { reason, control }, reply);
        }
    }

    fn answer_problem(
        &self,
        problem: &Problem,
        is_rolled_back: bool,
        (request_id, reply): (&str, Option<Subject>),
    ) {
        let Some(reply) = reply else { return };
        let status = problem.kind.status().as_u16();
        let body = problem.to_json(request_id).into();
        let answer = Final::whole(status, PROBLEM_JSON, body, Word::BadMessage);
        let answer = Final { is_rolled_back, ..answer };
        self.dispatch.say(Reply::Final(answer), reply);
    }

    fn offer(&self, Offer { id, to }: Offer) {
        self.count_offer("made");
        let direct = self.offers.join_numbers([id.0]);
        self.dispatch.say(Reply::Offer { direct }, to);
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

impl Service {
    /// An endpoint whose calls have not been timed yet.
    #[must_use]
    pub fn new(endpoint: Arc<Endpoint>, handler: Arc<dyn QueueHandler>) -> Self {
        Self { endpoint, handler, call_time: Arc::default() }
    }
}

impl Work {
    /// As it stands before the slots.
    fn waiter(self, since: Instant) -> Waiter<Pending> {
        Waiter {
            since,
            reply: self.reply.clone(),
            bytes: self.job.request.payload.len(),
            claims: self.job.request.execution == Execution::AtMostOnce,
            work: Pending::Request(self),
        }
    }
}
