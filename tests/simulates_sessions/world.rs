//! A gateway's sessions, some workers and a bad network, in one thread and on a clock of its own.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::time::Duration;

use fjord::catalogue::{EndpointId, Execution, OnDisconnect};
use fjord::envelope::{Control, Reply};
use fjord::message::Subject;
use fjord::problem::ProblemKind;
use fjord::roles::gateway::dispatch::hold::{Admission, Hold, Ticket};
use fjord::roles::gateway::dispatch::mail::{Mail, Turn};
use fjord::roles::gateway::dispatch::session::{
    Action, Destination, Ending, Event, Session, Step, Terms,
};
use fjord::roles::gateway::dispatch::timing::Timing;
use fjord::roles::worker::intake::slots::OfferId;
use fjord::telemetry::Gauge;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::streams::{Reading, WINDOW};
use super::terms::{Faults, Guards, Report};
use super::things::{Due, Packet};
use super::workers::Worker;

pub(super) const WORKERS: usize = 3;
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(1);
pub(super) const PROGRESS: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);
const WAITING_MAX: usize = 10_000;
/// Faults end here; then everything has to come to rest.
const FAULTS_END: Duration = Duration::from_secs(20);
const THE_END: Duration = Duration::from_mins(2);

pub(super) struct Client {
    session: Session,
    pub(super) execution: Execution,
    pub(super) window: u32,
    pub(super) reading: Reading,
    ticket: Option<Ticket>,
    sender: mpsc::Sender<Mail>,
    mail: mpsc::Receiver<Mail>,
    pub(super) executions: usize,
    pub(super) endings: Vec<Ending>,
}

/// One run.
pub(super) struct World {
    pub(super) rng: StdRng,
    pub(super) faults: Faults,
    pub(super) guards: Guards,
    pub(super) start: Instant,
    pub(super) now: Instant,
    order: u64,
    agenda: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    due: HashMap<usize, Due>,
    pub(super) clients: Vec<Client>,
    pub(super) workers: Vec<Worker>,
    pub(super) hold: Hold,
    timing: Timing,
    endpoint: EndpointId,
    /// Clients that have begun and have no answer.
    active: BTreeSet<usize>,
    /// Jobs that said they never start.
    pub(super) refused: HashSet<(usize, u32, u64)>,
    /// When each answer came.
    answered_at: Vec<Instant>,
    pub(super) broken: Option<String>,
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults, guards: Guards) -> Self {
        let start = Instant::now();
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            faults,
            guards,
            start,
            now: start,
            order: 0,
            agenda: BinaryHeap::new(),
            due: HashMap::new(),
            clients: Vec::new(),
            workers: (0..WORKERS)
                .map(|_| Worker::new(u32::from(seed % 2 == 1 && faults.lose > 0.0)))
                .collect(),
            hold: Hold::new(Gauge::noop()),
            timing: Timing::default(),
            endpoint: EndpointId::new("sim").unwrap(),
            active: BTreeSet::new(),
            refused: HashSet::new(),
            answered_at: Vec::new(),
            broken: None,
        };
        for number in 0..faults.crowd {
            let begin = world.random(Duration::ZERO, Duration::from_secs(2));
            let is_once = world.rng.random_bool(0.5);
            world.invite(number, begin, is_once);
        }
        if let Some(load) = faults.load {
            for number in 0..load.requests() {
                world.invite(number, load.begin(number), load.at_most_once);
            }
        }
        for worker in 0..WORKERS {
            if world.rng.random_bool((faults.crash * 10.0).min(1.0)) {
                let at = world.random(Duration::ZERO, FAULTS_END);
                world.at(at, Due::Crash(worker));
            }
            if world.rng.random_bool(faults.drain) {
                let at = world.random(Duration::ZERO, FAULTS_END);
                world.at(at, Due::Drain(worker));
            }
        }
        world
    }

    fn invite(&mut self, number: usize, begin: Duration, is_once: bool) {
        let execution = if is_once { Execution::AtMostOnce } else { Execution::AtLeastOnce };
        let streams = self.faults.load.is_none() && self.rng.random_bool(0.7);
        let window = if streams { WINDOW } else { 0 };
        let (sender, mail) = mpsc::channel(1024);
        let session = Session::new(self.terms(execution, window), self.start + begin);
        let (reading, ticket, executions, endings) = (Reading::default(), None, 0, Vec::new());
        self.clients.push(Client {
            session,
            execution,
            window,
            reading,
            ticket,
            sender,
            mail,
            executions,
            endings,
        });
        self.at(begin, Due::Begin(number));
        if self.rng.random_bool(self.faults.client_leaves) {
            let leave = begin + self.random(Duration::ZERO, Duration::from_secs(3));
            self.at(leave, Due::ClientLeaves(number));
        }
    }

    fn terms(&self, execution: Execution, window: u32) -> Terms {
        Terms {
            execution,
            on_disconnect: OnDisconnect::Finish,
            timeout: TIMEOUT,
            session: if self.faults.load.is_some() { TIMEOUT } else { TIMEOUT * 3 },
            attempts: 3,
            accept_timeout: self.timing.accept_timeout(ACCEPT_TIMEOUT),
            silence: PROGRESS * 3 + self.timing.round_trip(),
            answer_bytes_max: 1 << 20,
            keeps_answer: true,
            window,
        }
    }

    /// A client's request is read: it is placed, waits, or is shed at once.
    fn begin(&mut self, number: usize) {
        let (execution, window) = (self.clients[number].execution, self.clients[number].window);
        self.clients[number].session = Session::new(self.terms(execution, window), self.now);
        self.active.insert(number);
        let budget = TIMEOUT.saturating_sub(self.timing.needs(&self.endpoint).sign);
        let free = match self.hold.admit(budget, WAITING_MAX, self.now) {
            Admission::Shed => {
                self.active.remove(&number);
                return self.clients[number].endings.push(Ending::Problem(ProblemKind::Overloaded));
            }
            Admission::Free => true,
            Admission::Wait => false,
        };
        self.event(number, Event::Start { linked: true, free });
    }

    /// Runs to the end and checks every promise.
    pub(super) fn run(mut self) -> Report {
        while let Some(Reverse((at, _, key))) = self.agenda.pop() {
            if at > self.start + THE_END || self.broken.is_some() {
                break;
            }
            self.now = at;
            if let Some(due) = self.due.remove(&key) {
                self.happen(due);
                self.read_mail();
                self.check_step();
            }
        }
        self.check_end();
        let count =
            |test: &dyn Fn(&Client) -> bool| self.clients.iter().filter(|c| test(c)).count();
        Report {
            requests: self.clients.len(),
            answered_200: count(&|c| matches!(c.endings.first(), Some(Ending::Final(_)))),
            streamed: count(&|c| {
                c.reading.has_begun() && matches!(c.endings.first(), Some(Ending::Final(_)))
            }),
            cut_off: count(&|c| matches!(c.endings.first(), Some(Ending::Cut(_)))),
            outcome_unknown: count(
                &|c| matches!(c.endings.first(), Some(Ending::Problem(kind)) if kind.status() == 504),
            ),
            executions: self.clients.iter().map(|c| c.executions).sum(),
            answered_late: self.faults.load.map_or(0, |load| {
                let from = self.start + load.warm_up;
                let to = self.start + load.lasts;
                self.answered_at.iter().filter(|at| **at >= from && **at < to).count()
            }),
            broken: self.broken,
        }
    }

    /// What must be so at any time.
    fn check_step(&mut self) {
        let wrong = self.workers.iter().find_map(Worker::wrong);
        if self.hold.waiting() > WAITING_MAX {
            self.broken = Some("more wait than may".to_owned());
        }
        self.broken = self.broken.take().or(wrong);
    }

    fn check_end(&mut self) {
        for (number, client) in self.clients.iter().enumerate() {
            let said = format!("request {number} ({:?}): {:?}", client.execution, client.endings);
            let not_executed = matches!(
                client.endings.first(), Some(Ending::Problem(kind)) if kind.status() == 503
            );
            // A duplicate of a refused at-least-once message may run: NATS makes none.
            let certain = client.execution == Execution::AtMostOnce || self.faults.duplicate == 0.0;
            let answered = matches!(client.endings.first(), Some(Ending::Final(_)));
            let broken = if client.endings.len() != 1 {
                Some("not exactly one answer")
            } else if not_executed && certain && client.executions > 0 {
                Some("said not executed, and was")
            } else if answered && client.executions == 0 {
                Some("said 200, and was never executed")
            } else if answered && !client.reading.is_whole() {
                Some("a short answer looked whole")
            } else {
                None
            };
            if let (Some(what), None) = (broken, &self.broken) {
                self.broken = Some(format!("{what}: {said}, executed {}", client.executions));
            }
        }
        if self.broken.is_none() && !self.active.is_empty() {
            self.broken = Some(format!("sessions never ended: {:?}", self.active));
        }
        let left = self.workers.iter().position(|worker| worker.slots.committed() > 0);
        if let (None, Some(worker)) = (&self.broken, left) {
            self.broken = Some(format!("worker {worker} keeps a place for nobody"));
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Begin(client) => self.begin(client),
            Due::WakeSession(client) => self.event(client, Event::Tick),
            Due::AskAgain(client) => {
                let head = self.clients[client].ticket.is_some_and(|t| self.hold.is_head(t));
                if head && self.clients[client].session.is_held() {
                    self.event(client, Event::Ask);
                }
            }
            Due::ClientLeaves(client) => {
                self.clients[client].reading.leave();
                self.event(client, Event::ClientGone);
            }
            Due::Takes { client, part } => self.event(client, Event::Taken(part)),
            Due::Deliver(packet) => self.deliver(packet),
            Due::Crash(worker) => {
                let life = self.workers[worker].life + 1;
                self.workers[worker] = Worker::new(life);
            }
            Due::Drain(worker) => self.drain(worker),
            Due::OfWorker { worker, life, due } => {
                if self.workers[worker].life == life {
                    self.happen_to_worker(worker, due);
                }
            }
        }
    }

    fn event(&mut self, number: usize, event: Event) {
        self.learn(number, &event);
        let mut actions = Vec::new();
        let careless = !self.guards.gateway_grants_once;
        if let (true, Event::Heard { reply: Ok(Reply::Claim { control }), .. }) = (careless, &event)
        {
            actions.push(Action::Tell { to: control.clone(), control: Control::Grant });
        }
        let mut step = Step { now: self.now, may_resubmit: &mut || true, actions: &mut actions };
        self.clients[number].session.step(event, &mut step);
        for action in actions {
            self.act(number, action);
        }
        if self.clients[number].session.is_done() {
            self.active.remove(&number);
        } else {
            let wake = self.clients[number].session.wake_at().max(self.now);
            self.at(wake.duration_since(self.start), Due::WakeSession(number));
        }
    }

    /// What a gateway learns from a reply about the times of its workers.
    fn learn(&mut self, number: usize, event: &Event) {
        let Event::Heard { attempt, reply: Ok(reply) } = event else { return };
        let session = &self.clients[number].session;
        let Some(sent_at) = session.attempt_sent_at(*attempt) else { return };
        let took = self.now.saturating_duration_since(sent_at);
        match reply {
            Reply::Refused { .. } => self.timing.record_round_trip(took, self.now),
            Reply::Claim { .. } => {
                self.timing.record_round_trip(took, self.now);
                self.timing.record_sign(&self.endpoint, took);
            }
            Reply::Final(_) => {
                self.timing.record_sign(&self.endpoint, took);
                self.timing.record_answer(&self.endpoint, took);
            }
            _ => {}
        }
    }

    fn act(&mut self, number: usize, action: Action) {
        match action {
            Action::Publish { attempt, to: Destination::Group, .. } => {
                self.send(Packet::Group { request: number, attempt });
            }
            Action::Publish { attempt, to: Destination::Direct(to), .. } => {
                let (worker, life, offer) = parse(&to);
                let offer = OfferId(offer);
                self.send(Packet::Direct { worker, life, offer, request: number, attempt });
            }
            Action::Tell { to, control: Control::Decline } => {
                let (worker, life, offer) = parse(&to);
                self.send(Packet::Decline { worker, life, offer: OfferId(offer) });
            }
            Action::Tell { to, control } => {
                let (worker, life, job) = parse(&to);
                self.send(Packet::Control { worker, life, job, control });
            }
            Action::CancelEverywhere { attempt } => {
                self.send(Packet::CancelEverywhere { request: number, attempt });
            }
            Action::Hold(why) => {
                let client = &mut self.clients[number];
                client.session.set_needs(self.timing.needs(&self.endpoint));
                let sender = client.sender.clone();
                client.ticket = self.hold.enter(client.ticket, why, sender, WAITING_MAX);
                if client.ticket.is_none() {
                    self.event(number, Event::Full);
                }
            }
            Action::Unhold => {
                if let Some(ticket) = self.clients[number].ticket {
                    self.hold.leave(ticket);
                }
            }
            Action::Resubmitted(_) | Action::Unheard(_) => {}
            Action::Begin(_) => self.begin_reading(number),
            Action::Pass(bytes) => self.read_part(number, &bytes),
            Action::End(ending) => {
                if matches!(ending, Ending::Final(_)) {
                    self.answered_at.push(self.now);
                }
                self.clients[number].endings.push(ending);
            }
        }
    }

    fn read_mail(&mut self) {
        let has_mail = |number: &usize| !self.clients[*number].mail.is_empty();
        let active: Vec<usize> = self.active.iter().copied().filter(has_mail).collect();
        for number in active {
            while let Ok(mail) = self.clients[number].mail.try_recv() {
                match mail {
                    Mail::Turn(Turn::Head) => {
                        let pause =
                            self.random(Duration::from_millis(10), Duration::from_millis(500));
                        let pause = pause.max(self.timing.round_trip());
                        self.after(pause, Due::AskAgain(number));
                    }
                    Mail::Turn(Turn::Ask) => self.event(number, Event::Ask),
                    Mail::Turn(Turn::Full) => self.event(number, Event::Full),
                    Mail::Turn(Turn::Offered(direct)) => self.event(number, Event::Offered(direct)),
                    Mail::Reply { attempt, reply, .. } => {
                        self.event(number, Event::Heard { attempt, reply });
                    }
                }
            }
        }
    }

    fn deliver(&mut self, packet: Packet) {
        match packet {
            Packet::Reply { reply: Reply::Offer { direct }, .. } => {
                if let Err(direct) = self.hold.offer(direct, self.now) {
                    let (worker, life, offer) = parse(&direct);
                    self.send(Packet::Decline { worker, life, offer: OfferId(offer) });
                }
            }
            Packet::Reply { request, attempt, reply } => {
                if !matches!(reply, Reply::NoResponders) {
                    self.hold.has_members();
                }
                self.event(request, Event::Heard { attempt, reply: Ok(reply) });
            }
            packet => self.deliver_to_worker(&packet),
        }
    }

    pub(super) fn send(&mut self, packet: Packet) {
        let faulty = self.now < self.start + FAULTS_END;
        if faulty && self.rng.random_bool(self.faults.lose) {
            return;
        }
        if faulty && self.rng.random_bool(self.faults.duplicate) {
            self.carry(packet.clone());
        }
        self.carry(packet);
    }

    fn carry(&mut self, packet: Packet) {
        let faulty = self.now < self.start + FAULTS_END;
        let late = faulty && self.rng.random_bool(self.faults.late);
        let max = if late { Duration::from_secs(3) } else { Duration::from_millis(2) };
        let delay = self.faults.latency + self.random(Duration::from_micros(100), max);
        self.after(delay, Due::Deliver(packet));
    }

    pub(super) fn random(&mut self, from: Duration, to: Duration) -> Duration {
        self.rng.random_range(from..=to)
    }

    pub(super) fn after(&mut self, delay: Duration, due: Due) {
        let since_start = self.now.duration_since(self.start) + delay;
        self.at(since_start, due);
    }

    fn at(&mut self, since_start: Duration, due: Due) {
        self.order += 1;
        let key = usize::try_from(self.order).unwrap();
        self.agenda.push(Reverse((self.start + since_start, self.order, key)));
        self.due.insert(key, due);
    }
}

pub(super) fn reply_subject(request: usize, attempt: u32) -> Subject {
    Subject::new(&format!("r.{request}.{attempt}.0")).unwrap()
}

pub(super) fn job_subject(worker: usize, life: u32, job: u64) -> Subject {
    Subject::new(&format!("j.{worker}.{life}.{job}")).unwrap()
}

pub(super) fn parse(subject: &Subject) -> (usize, u32, u64) {
    let mut tokens = subject.as_str().split('.').skip(1);
    let mut next = || tokens.next().unwrap().parse::<u64>().unwrap();
    (usize::try_from(next()).unwrap(), u32::try_from(next()).unwrap(), next())
}
