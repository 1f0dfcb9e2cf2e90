//! A gateway's sessions, some workers and a bad network, in one thread and on a clock of its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::time::Duration;

use fjord::catalogue::{Execution, OnDisconnect};
use fjord::envelope::{Control, Final, Reason, Reply};
use fjord::messaging::Subject;
use fjord::outcome::Word;
use fjord::roles::gateway::hold::{Hold, Ticket};
use fjord::roles::gateway::mail::{Mail, Turn};
use fjord::roles::gateway::session::{Action, Destination, Ending, Event, Session, Step, Terms};
use fjord::roles::worker::slots::{Accepted, Offer, OfferId, Slots, Verdict, Waiter};
use fjord::telemetry::Gauge;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::streams::{Reading, WINDOW, Writing};
use super::terms::{Faults, Guards, Report};
use super::things::{Due, Packet};

const WORKERS: usize = 3;
const LIMIT: usize = 2;
const CLAIM_TIMEOUT: Duration = Duration::from_secs(1);
const OFFER_TIMEOUT: Duration = Duration::from_millis(250);
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(1);
const PROGRESS: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);
/// Faults end here; then everything has to come to rest.
const FAULTS_END: Duration = Duration::from_secs(20);
const THE_END: Duration = Duration::from_mins(2);

pub(super) struct Client {
    session: Session,
    pub(super) execution: Execution,
    window: u32,
    pub(super) reading: Reading,
    ticket: Option<Ticket>,
    sender: mpsc::Sender<Mail>,
    mail: mpsc::Receiver<Mail>,
    executions: usize,
    pub(super) endings: Vec<Ending>,
}

pub(super) struct Worker {
    pub(super) life: u32,
    slots: Slots<(usize, u32)>,
    next_job: u64,
    pub(super) jobs: BTreeMap<u64, Job>,
    executing: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) request: usize,
    attempt: u32,
    claiming: bool,
    /// The parts of an answer that streams.
    pub(super) writing: Option<Writing>,
}

/// One run.
pub(super) struct World {
    pub(super) rng: StdRng,
    faults: Faults,
    guards: Guards,
    start: Instant,
    pub(super) now: Instant,
    order: u64,
    agenda: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    due: HashMap<usize, Due>,
    pub(super) clients: Vec<Client>,
    pub(super) workers: Vec<Worker>,
    hold: Hold,
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
            broken: None,
        };
        for number in 0..faults.crowd {
            world.invite(number);
        }
        for worker in 0..WORKERS {
            if world.rng.random_bool((faults.crash * 10.0).min(1.0)) {
                let at = world.random(Duration::ZERO, FAULTS_END);
                world.at(at, Due::Crash(worker));
            }
        }
        world
    }

    fn invite(&mut self, number: usize) {
        let execution =
            if self.rng.random_bool(0.5) { Execution::AtMostOnce } else { Execution::AtLeastOnce };
        let window = if self.rng.random_bool(0.7) { WINDOW } else { 0 };
        let terms = Terms {
            execution,
            on_disconnect: OnDisconnect::Finish,
            timeout: TIMEOUT,
            session: TIMEOUT * 3,
            attempts: 3,
            accept_timeout: ACCEPT_TIMEOUT,
            silence: PROGRESS * 3,
            answer_bytes_max: 1 << 20,
            keeps_answer: true,
            window,
        };
        let (sender, mail) = mpsc::channel(1024);
        let begin = self.random(Duration::ZERO, Duration::from_secs(2));
        self.clients.push(Client {
            session: Session::new(terms, self.start + begin),
            execution,
            window,
            reading: Reading::default(),
            ticket: None,
            sender,
            mail,
            executions: 0,
            endings: Vec::new(),
        });
        self.at(begin, Due::Begin(number));
        if self.rng.random_bool(self.faults.client_leaves) {
            let leave = begin + self.random(Duration::ZERO, Duration::from_secs(3));
            self.at(leave, Due::ClientLeaves(number));
        }
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
            broken: self.broken,
        }
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
        if self.broken.is_none() && self.clients.iter().any(|client| !client.session.is_done()) {
            self.broken = Some("a session never ended".to_owned());
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Begin(client) => {
                self.event(client, Event::Start { linked: true, free: true });
            }
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
            Due::Part { worker, life, job } if self.workers[worker].life == life => {
                self.write_part(worker, job);
            }
            Due::Deliver(packet) => self.deliver(packet),
            Due::WakeWorker { worker, life } if self.workers[worker].life == life => {
                let lapsed = self.workers[worker].slots.lapse(self.now);
                for offer in lapsed.offers {
                    self.offer(worker, Some(offer));
                }
                for Waiter { work: (request, attempt), .. } in lapsed.turned_away {
                    self.judge(worker, Verdict::Refuse(Reason::Busy), request, attempt);
                }
            }
            Due::ClaimTimesOut { worker, life, job } if self.workers[worker].life == life => {
                self.claim_times_out(worker, job);
            }
            Due::JobEnds { worker, life, job } if self.workers[worker].life == life => {
                self.job_ends(worker, job);
            }
            Due::Progress { worker, life, job } if self.workers[worker].life == life => {
                if let Some(running) = self.workers[worker].jobs.get(&job).cloned() {
                    let control = Some(job_subject(worker, life, job));
                    self.reply(&running, Reply::Progress { control });
                    self.after(PROGRESS, Due::Progress { worker, life, job });
                }
            }
            Due::Crash(worker) => {
                let life = self.workers[worker].life + 1;
                self.workers[worker] = Worker::new(life);
            }
            Due::WakeWorker { .. }
            | Due::ClaimTimesOut { .. }
            | Due::JobEnds { .. }
            | Due::Part { .. }
            | Due::Progress { .. } => {}
        }
    }

    fn event(&mut self, number: usize, event: Event) {
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
        if !self.clients[number].session.is_done() {
            let wake = self.clients[number].session.wake_at().max(self.now);
            self.at(wake.duration_since(self.start), Due::WakeSession(number));
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
                client.ticket = Some(self.hold.enter(client.ticket, why, client.sender.clone()));
            }
            Action::Unhold => {
                if let Some(ticket) = self.clients[number].ticket {
                    self.hold.leave(ticket);
                }
            }
            Action::Resubmitted(_) => {}
            Action::Begin(_) => self.begin_reading(number),
            Action::Pass(bytes) => self.read_part(number, &bytes),
            Action::End(ending) => self.clients[number].endings.push(ending),
        }
    }

    fn read_mail(&mut self) {
        for number in 0..self.clients.len() {
            while let Ok(mail) = self.clients[number].mail.try_recv() {
                match mail {
                    Mail::Turn(Turn::Head) => {
                        let pause =
                            self.random(Duration::from_millis(10), Duration::from_millis(500));
                        self.after(pause, Due::AskAgain(number));
                    }
                    Mail::Turn(Turn::Ask) => self.event(number, Event::Ask),
                    Mail::Turn(Turn::Offered(direct)) => self.event(number, Event::Offered(direct)),
                    Mail::Reply { attempt, reply, .. } => {
                        self.event(number, Event::Heard { attempt, reply });
                    }
                    Mail::Taken(part) => self.event(number, Event::Taken(part)),
                }
            }
        }
    }

    fn deliver(&mut self, packet: Packet) {
        match packet {
            Packet::Group { request, attempt } => {
                let worker = self.rng.random_range(0..WORKERS);
                let reply = reply_subject(request, attempt);
                let verdict = self.workers[worker].slots.arrive(Some(&reply));
                self.judge(worker, verdict, request, attempt);
            }
            Packet::Direct { worker, life, offer, request, attempt } => {
                if self.workers[worker].life == life {
                    let reply = Some(reply_subject(request, attempt));
                    let waiter = Waiter { since: self.now, reply, work: (request, attempt) };
                    match self.workers[worker].slots.accept(offer, waiter) {
                        Accepted::Take(_) => self.take(worker, request, attempt),
                        Accepted::Waits => {
                            self.after(OFFER_TIMEOUT, Due::WakeWorker { worker, life });
                        }
                        Accepted::Refuse(reason, _) => {
                            self.judge(worker, Verdict::Refuse(reason), request, attempt);
                        }
                    }
                }
            }
            Packet::Decline { worker, life, offer } => {
                if self.workers[worker].life == life {
                    let next = self.workers[worker].slots.decline(offer, self.now);
                    self.offer(worker, next);
                }
            }
            Packet::Control { worker, life, job, control } => {
                if self.workers[worker].life == life {
                    self.control(worker, job, control);
                }
            }
            Packet::CancelEverywhere { request, attempt } => {
                for worker in 0..WORKERS {
                    self.workers[worker].slots.cancel(&reply_subject(request, attempt));
                    let found = self.workers[worker]
                        .jobs
                        .iter()
                        .find(|(_, job)| job.request == request && job.attempt == attempt)
                        .map(|(id, _)| *id);
                    if let Some(job) = found {
                        self.job_ends(worker, job);
                    }
                }
            }
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
        }
    }

    fn judge(&mut self, worker: usize, verdict: Verdict, request: usize, attempt: u32) {
        match verdict {
            Verdict::Refuse(reason) => {
                let job = Job { request, attempt, claiming: false, writing: None };
                self.reply(&job, Reply::Refused { reason, control: None });
            }
            Verdict::Take => self.take(worker, request, attempt),
        }
    }

    fn take(&mut self, worker: usize, request: usize, attempt: u32) {
        let asks = self.clients[request].execution == Execution::AtMostOnce
            && self.guards.worker_awaits_grant;
        let life = self.workers[worker].life;
        self.workers[worker].next_job += 1;
        let id = self.workers[worker].next_job;
        let writing = Writing::maybe(&mut self.rng, self.clients[request].window);
        let job = Job { request, attempt, claiming: asks, writing };
        self.workers[worker].jobs.insert(id, job.clone());
        if asks {
            self.reply(&job, Reply::Claim { control: job_subject(worker, life, id) });
            self.after(CLAIM_TIMEOUT, Due::ClaimTimesOut { worker, life, job: id });
        } else {
            self.execute(worker, id);
        }
    }

    fn control(&mut self, worker: usize, id: u64, control: Control) {
        let Some(job) = self.workers[worker].jobs.get_mut(&id) else { return };
        match control {
            Control::Grant if job.claiming => {
                job.claiming = false;
                self.execute(worker, id);
            }
            Control::Deny if job.claiming => self.job_gone(worker, id),
            Control::Cancel => self.job_ends(worker, id),
            Control::Taken(part) => self.hear_taken(worker, id, part),
            Control::Grant | Control::Deny | Control::Decline | Control::Repeat => {}
        }
    }

    fn claim_times_out(&mut self, worker: usize, id: u64) {
        let Some(job) = self.workers[worker].jobs.get(&id).cloned() else { return };
        if !job.claiming {
            return;
        }
        let control = Some(job_subject(worker, self.workers[worker].life, id));
        self.reply(&job, Reply::Refused { reason: Reason::Unavailable, control });
        if self.guards.claim_times_out_for_good {
            self.job_gone(worker, id);
        }
    }

    /// The procedure starts: this is what must not happen twice.
    fn execute(&mut self, worker: usize, id: u64) {
        let Some(job) = self.workers[worker].jobs.get(&id).cloned() else { return };
        self.clients[job.request].executions += 1;
        self.workers[worker].executing += 1;
        if self.workers[worker].executing > LIMIT {
            self.broken = Some(format!("worker {worker} runs more than its limit"));
        }
        let twice = self.clients[job.request].executions > 1;
        if twice && self.clients[job.request].execution == Execution::AtMostOnce {
            self.broken = Some(format!("request {} was executed twice", job.request));
        }
        let life = self.workers[worker].life;
        let takes = self.random(Duration::from_millis(1), Duration::from_millis(1500));
        if job.writing.is_some() {
            self.after(takes / 4, Due::Part { worker, life, job: id });
        } else {
            self.after(takes, Due::JobEnds { worker, life, job: id });
        }
        self.after(Duration::from_millis(250), Due::Progress { worker, life, job: id });
    }

    pub(super) fn job_ends(&mut self, worker: usize, id: u64) {
        let Some(job) = self.workers[worker].jobs.get(&id).cloned() else { return };
        if !job.claiming {
            self.workers[worker].executing -= 1;
            let control = job_subject(worker, self.workers[worker].life, id);
            let answer = job.writing.as_ref().map_or_else(
                || Final::whole(200, "application/json", "1".into(), Word::Ok),
                |writing| writing.last(control),
            );
            self.reply(&job, Reply::Final(answer));
        }
        self.job_gone(worker, id);
    }

    fn job_gone(&mut self, worker: usize, id: u64) {
        let job = self.workers[worker].jobs.remove(&id);
        let more = job.map(|job| reply_subject(job.request, job.attempt));
        let more = more.filter(|_| self.hold.waiting() > 0);
        self.workers[worker].offer_ahead();
        let next = self.workers[worker].slots.finish(self.now, more);
        if let Some(Waiter { work: (request, attempt), .. }) = next.starts {
            self.take(worker, request, attempt);
        }
        self.offer(worker, next.offer);
        let ahead = self.workers[worker].slots.offer_ahead(self.now);
        self.offer(worker, ahead);
    }

    fn offer(&mut self, worker: usize, offer: Option<Offer>) {
        let Some(Offer { id, to }) = offer else { return };
        let life = self.workers[worker].life;
        let direct = Subject::new(&format!("o.{worker}.{life}.{}", id.0)).unwrap();
        let (request, attempt, _) = parse(&to);
        self.send(Packet::Reply { request, attempt, reply: Reply::Offer { direct } });
        self.after(OFFER_TIMEOUT, Due::WakeWorker { worker, life });
    }

    pub(super) fn reply(&mut self, job: &Job, reply: Reply) {
        self.send(Packet::Reply { request: job.request, attempt: job.attempt, reply });
    }

    fn send(&mut self, packet: Packet) {
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
        let delay = self.random(Duration::from_micros(100), max);
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

impl Worker {
    fn new(life: u32) -> Self {
        let slots = Slots::new(LIMIT, 100, OFFER_TIMEOUT);
        let mut worker = Self { life, slots, next_job: 0, jobs: BTreeMap::new(), executing: 0 };
        worker.offer_ahead();
        worker
    }

    /// Every other life offers ahead. Workers do where calls are short; these are long, so that what waits is sent
    /// again or let go meanwhile.
    fn offer_ahead(&mut self) {
        self.slots.set_ahead(usize::try_from(self.life % 2).unwrap());
    }
}

fn reply_subject(request: usize, attempt: u32) -> Subject {
    Subject::new(&format!("r.{request}.{attempt}.0")).unwrap()
}

pub(super) fn job_subject(worker: usize, life: u32, job: u64) -> Subject {
    Subject::new(&format!("j.{worker}.{life}.{job}")).unwrap()
}

fn parse(subject: &Subject) -> (usize, u32, u64) {
    let mut tokens = subject.as_str().split('.').skip(1);
    let mut next = || tokens.next().unwrap().parse::<u64>().unwrap();
    (usize::try_from(next()).unwrap(), u32::try_from(next()).unwrap(), next())
}
