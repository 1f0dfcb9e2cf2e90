//! A gateway's sessions, some workers and an unreliable network, in one thread and with a simulated clock.
//!
//! The sessions run in the gateway's own `SessionDriver`s, with one `GatewayQueue`; this file carries out their actions.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fjord::catalogue::{EndpointId, Execution, OnDisconnect, QueueName};
use fjord::config::gateway::SessionConfig;
use fjord::envelope::{Control, Reply};
use fjord::message::Subject;
use fjord::problem::ProblemKind;
use fjord::roles::gateway::dispatch::message::{
    AttemptReply, SESSION_MESSAGES_MAX, SessionMessage,
};
use fjord::roles::gateway::dispatch::queues::GatewayQueue;
use fjord::roles::gateway::dispatch::queues::wait_queue::QueueAdmission;
use fjord::roles::gateway::dispatch::retry_budget::RetryBudget;
use fjord::roles::gateway::dispatch::session::{SessionEnd, SessionOptions};
use fjord::roles::gateway::dispatch::session_driver::{
    DriverAction, DriverContext, DriverEvent, SessionDriver,
};
use fjord::roles::worker::intake::slots::OfferId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::agenda::{Packet, WorldEvent};
use super::scenario::{Faults, Guards, RunReport};
use super::streams::{ReceivedAnswer, WINDOW};
use super::workers::SimulatedWorker;

pub(super) const WORKERS: usize = 3;
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(1);
pub(super) const PROGRESS: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);
const WAITING_MAX: usize = 10_000;
/// The time after which no faults occur, so that all sessions and jobs have to end.
const FAULTS_END: Duration = Duration::from_secs(20);
const THE_END: Duration = Duration::from_mins(2);

/// One client with its single request.
pub(super) struct SimulatedClient {
    /// The session in the gateway, once the request was admitted.
    driver: Option<SessionDriver>,
    /// The events that have arrived since the session paused; `None` while it does not pause.
    postponed: Option<Vec<DriverEvent>>,
    pub(super) execution: Execution,
    pub(super) window: u32,
    pub(super) received: ReceivedAnswer,
    sender: mpsc::Sender<SessionMessage>,
    messages: mpsc::Receiver<SessionMessage>,
    pub(super) executions: usize,
    pub(super) ends: Vec<SessionEnd>,
}

/// The state of one run.
pub(super) struct World {
    pub(super) rng: StdRng,
    pub(super) faults: Faults,
    pub(super) guards: Guards,
    pub(super) start: Instant,
    pub(super) now: Instant,
    config: SessionConfig,
    retry_budget: RetryBudget,
    order: u64,
    agenda: BinaryHeap<Reverse<(Instant, u64)>>,
    events: HashMap<u64, WorldEvent>,
    pub(super) clients: Vec<SimulatedClient>,
    pub(super) workers: Vec<SimulatedWorker>,
    pub(super) queue: Arc<GatewayQueue>,
    endpoint: EndpointId,
    /// The clients whose request was admitted and has no answer yet.
    active: BTreeSet<usize>,
    /// The jobs that have reported that they will never start.
    pub(super) refused: HashSet<(usize, u32, u64)>,
    /// The time at which each complete answer was received.
    answered_at: Vec<Instant>,
    pub(super) violation: Option<String>,
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults, guards: Guards) -> Self {
        let start = Instant::now();
        let (name, prefix) = (QueueName::new("sim").unwrap(), Subject::new("fjord").unwrap());
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            faults,
            guards,
            start,
            now: start,
            config: config(),
            // Large enough for every resubmission.
            retry_budget: RetryBudget::new(100, 1_000_000, start),
            order: 0,
            agenda: BinaryHeap::new(),
            events: HashMap::new(),
            clients: Vec::new(),
            workers: (0..WORKERS)
                .map(|_| SimulatedWorker::new(u32::from(seed % 2 == 1 && faults.lose > 0.0)))
                .collect(),
            queue: Arc::new(GatewayQueue::new(0, &name, &prefix).unwrap()),
            endpoint: EndpointId::new("sim").unwrap(),
            active: BTreeSet::new(),
            refused: HashSet::new(),
            answered_at: Vec::new(),
            violation: None,
        };
        for number in 0..faults.crowd {
            let begin = world.random(Duration::ZERO, Duration::from_secs(2));
            let is_once = world.rng.random_bool(0.5);
            world.add_client(number, begin, is_once);
        }
        if let Some(load) = faults.load {
            for number in 0..load.requests() {
                world.add_client(number, load.begin(number), load.at_most_once);
            }
        }
        for worker in 0..WORKERS {
            if world.rng.random_bool((faults.crash * 10.0).min(1.0)) {
                let at = world.random(Duration::ZERO, FAULTS_END);
                world.at(at, WorldEvent::Crash(worker));
            }
            if world.rng.random_bool(faults.drain) {
                let at = world.random(Duration::ZERO, FAULTS_END);
                world.at(at, WorldEvent::Drain(worker));
            }
        }
        world
    }

    fn add_client(&mut self, number: usize, begin: Duration, is_once: bool) {
        let execution = if is_once { Execution::AtMostOnce } else { Execution::AtLeastOnce };
        let streams = self.faults.load.is_none() && self.rng.random_bool(0.7);
        let (sender, messages) = mpsc::channel(SESSION_MESSAGES_MAX);
        self.clients.push(SimulatedClient {
            driver: None,
            postponed: None,
            execution,
            window: if streams { WINDOW } else { 0 },
            received: ReceivedAnswer::default(),
            sender,
            messages,
            executions: 0,
            ends: Vec::new(),
        });
        self.at(begin, WorldEvent::Begin(number));
        if self.rng.random_bool(self.faults.client_leaves) {
            let leave = begin + self.random(Duration::ZERO, Duration::from_secs(3));
            self.at(leave, WorldEvent::ClientLeaves(number));
        }
    }

    fn options(&self, execution: Execution, window: u32) -> SessionOptions {
        SessionOptions {
            execution,
            on_disconnect: OnDisconnect::Finish,
            timeout: TIMEOUT,
            session: if self.faults.load.is_some() { TIMEOUT } else { TIMEOUT * 3 },
            attempts: 3,
            accept_timeout: self.queue.timing.accept_timeout(ACCEPT_TIMEOUT),
            silence: PROGRESS * 3 + self.queue.timing.round_trip(),
            answer_bytes_max: 1 << 20,
            keeps_answer: true,
            window,
        }
    }

    /// Reads a client's request in the gateway, and admits or rejects it.
    fn begin(&mut self, number: usize) {
        let (execution, window) = (self.clients[number].execution, self.clients[number].window);
        let admission = self.queue.admit(&self.endpoint, TIMEOUT, WAITING_MAX, self.now);
        if admission == QueueAdmission::Reject {
            let end = SessionEnd::Problem(ProblemKind::Overloaded);
            return self.clients[number].ends.push(end);
        }
        let (queue, endpoint) = (Arc::clone(&self.queue), self.endpoint.clone());
        let options = self.options(execution, window);
        let signals = self.clients[number].sender.clone();
        let driver = SessionDriver::new(queue, endpoint, options, signals, self.now);
        self.clients[number].driver = Some(driver);
        self.active.insert(number);
        let may_try_group = admission == QueueAdmission::TryGroup;
        self.session_event(number, DriverEvent::Start { may_try_group });
    }

    /// Runs the simulation to its end and checks every promise.
    pub(super) fn run(mut self) -> RunReport {
        while let Some(Reverse((at, key))) = self.agenda.pop() {
            if at > self.start + THE_END || self.violation.is_some() {
                break;
            }
            self.now = at;
            if let Some(event) = self.events.remove(&key) {
                self.happen(event);
                self.read_messages();
                self.check_step();
            }
        }
        self.check_end();
        let count = |test: &dyn Fn(&SimulatedClient) -> bool| {
            self.clients.iter().filter(|client| test(client)).count()
        };
        let is_answered =
            |client: &SimulatedClient| matches!(client.ends.first(), Some(SessionEnd::Answer(_)));
        RunReport {
            requests: self.clients.len(),
            answered_200: count(&is_answered),
            streamed: count(&|client| client.received.has_begun() && is_answered(client)),
            cut_off: count(&|client| matches!(client.ends.first(), Some(SessionEnd::CutOff(_)))),
            outcome_unknown: count(&|client| has_status(client, 504)),
            executions: self.clients.iter().map(|client| client.executions).sum(),
            answered_late: self.faults.load.map_or(0, |load| {
                let from = self.start + load.warm_up;
                let to = self.start + load.lasts;
                self.answered_at.iter().filter(|at| **at >= from && **at < to).count()
            }),
            violation: self.violation,
        }
    }

    /// Checks the invariants that must hold after each event.
    fn check_step(&mut self) {
        let violation = self.workers.iter().find_map(SimulatedWorker::violation);
        if self.queue.wait_queue.len() > WAITING_MAX {
            self.violation = Some("more requests wait than may".to_owned());
        }
        self.violation = self.violation.take().or(violation);
    }

    fn check_end(&mut self) {
        for (number, client) in self.clients.iter().enumerate() {
            // A duplicate of an at-least-once message may run after the original was refused. NATS itself makes no duplicates.
            let is_certain =
                client.execution == Execution::AtMostOnce || self.faults.duplicate == 0.0;
            let is_answered = matches!(client.ends.first(), Some(SessionEnd::Answer(_)));
            let violation = if client.ends.len() != 1 {
                "the number of answers is not one"
            } else if has_status(client, 503) && is_certain && client.executions > 0 {
                "the answer says not executed, but it was"
            } else if is_answered && client.executions == 0 {
                "the answer is 200, but it was never executed"
            } else if is_answered && !client.received.is_complete() {
                "an incomplete answer looked complete"
            } else {
                continue;
            };
            if self.violation.is_none() {
                let (execution, ends) = (client.execution, &client.ends);
                let executions = client.executions;
                self.violation = Some(format!(
                    "{violation}: request {number} ({execution:?}): {ends:?}, executed {executions}"
                ));
            }
        }
        if self.violation.is_none() && !self.active.is_empty() {
            self.violation = Some(format!("sessions never ended: {:?}", self.active));
        }
        let left = self.workers.iter().position(|worker| worker.slots.committed() > 0);
        if let (None, Some(worker)) = (&self.violation, left) {
            self.violation = Some(format!("worker {worker} reserves a slot for no request"));
        }
    }

    fn happen(&mut self, event: WorldEvent) {
        match event {
            WorldEvent::Begin(client) => self.begin(client),
            WorldEvent::WakeSession(client) => {
                self.session_event(client, DriverEvent::Timer { link_stalled_at: None });
            }
            WorldEvent::EndPause(client) => self.end_pause(client),
            WorldEvent::ClientLeaves(client) => {
                self.clients[client].received.leave();
                self.session_event(client, DriverEvent::ClientGone);
            }
            WorldEvent::Consumes { client, part } => {
                self.session_event(client, DriverEvent::ChunksConsumed(part));
            }
            WorldEvent::Deliver(packet) => self.deliver(packet),
            WorldEvent::Crash(worker) => {
                let life = self.workers[worker].life + 1;
                self.workers[worker] = SimulatedWorker::new(life);
            }
            WorldEvent::Drain(worker) => self.drain(worker),
            WorldEvent::OfWorker { worker, life, event } => {
                if self.workers[worker].life == life {
                    self.happen_to_worker(worker, event);
                }
            }
        }
    }

    fn session_event(&mut self, number: usize, event: DriverEvent) {
        if let Some(postponed) = &mut self.clients[number].postponed {
            return postponed.push(event);
        }
        if !self.guards.gateway_grants_once
            && let DriverEvent::Reply(AttemptReply { reply: Ok(Reply::Claim { control }), .. }) =
                &event
        {
            self.tell(&control.clone(), Control::Grant);
        }
        self.with_driver(number, |driver, context| driver.handle(event, context));
        self.carry_out_actions(number);
    }

    fn with_driver<T>(
        &mut self,
        number: usize,
        call: impl FnOnce(&mut SessionDriver, &mut DriverContext<'_>) -> T,
    ) -> Option<T> {
        let Self { clients, rng, now, config, retry_budget, .. } = self;
        let mut context = DriverContext {
            now: *now,
            config,
            retry_budget,
            is_linked: true,
            has_answer_memory: &|| true,
            random: &mut || rng.random(),
        };
        clients[number].driver.as_mut().map(|driver| call(driver, &mut context))
    }

    /// Carries out the actions of a session, until it needs another event or pauses.
    fn carry_out_actions(&mut self, number: usize) {
        while let Some(Some(action)) = self.with_driver(number, SessionDriver::next_action) {
            match action {
                DriverAction::Publish { attempt, to, .. } => self.publish(number, attempt, &to),
                DriverAction::Tell { to, control } => self.tell(&to, control),
                DriverAction::CancelEverywhere { attempt } => {
                    self.send(Packet::CancelEverywhere { request: number, attempt });
                }
                DriverAction::FindMembers { query, pause } => {
                    if query {
                        (0..WORKERS).for_each(|worker| self.send(Packet::QueryMember { worker }));
                    }
                    if let Some(pause) = pause {
                        self.clients[number].postponed = Some(Vec::new());
                        return self.after(pause, WorldEvent::EndPause(number));
                    }
                }
                DriverAction::BeginAnswer(_) => self.begin_answer(number),
                DriverAction::SendChunk(bytes) => self.receive_chunk(number, &bytes),
                DriverAction::End(end) => self.end(number, end),
            }
        }
        let Some(driver) = &self.clients[number].driver else { return };
        if !driver.session().has_ended() {
            let wake_at = driver.wake_at().max(self.now);
            self.at(wake_at.duration_since(self.start), WorldEvent::WakeSession(number));
        }
    }

    fn end_pause(&mut self, number: usize) {
        let postponed = self.clients[number].postponed.take();
        self.carry_out_actions(number);
        for event in postponed.into_iter().flatten() {
            self.session_event(number, event);
        }
    }

    fn end(&mut self, number: usize, end: SessionEnd) {
        if matches!(end, SessionEnd::Answer(_)) {
            self.answered_at.push(self.now);
        }
        self.active.remove(&number);
        let client = &mut self.clients[number];
        let closed =
            client.driver.as_mut().map(|driver| driver.close(&end, &mut client.messages, self.now));
        client.ends.push(end);
        for (to, control) in closed.into_iter().flat_map(|closed| closed.messages) {
            self.tell(&to, control);
        }
    }

    fn publish(&mut self, request: usize, attempt: u32, to: &Subject) {
        if *to == self.queue.subject {
            return self.send(Packet::Group { request, attempt });
        }
        let (worker, life, offer) = parse(to);
        let packet = if to.as_str().starts_with("m.") {
            Packet::Member { worker, life, request, attempt }
        } else {
            Packet::OfferedSlot { worker, life, offer: OfferId(offer), request, attempt }
        };
        self.send(packet);
    }

    fn tell(&mut self, to: &Subject, control: Control) {
        let (worker, life, number) = parse(to);
        self.send(match control {
            Control::Decline => Packet::Decline { worker, life, offer: OfferId(number) },
            control => Packet::Control { worker, life, job: number, control },
        });
    }

    fn read_messages(&mut self) {
        let has_messages = |number: &usize| !self.clients[*number].messages.is_empty();
        let active: Vec<usize> = self.active.iter().copied().filter(has_messages).collect();
        for number in active {
            while self.clients[number].postponed.is_none()
                && let Ok(message) = self.clients[number].messages.try_recv()
            {
                let event = match message {
                    SessionMessage::Signal(signal) => DriverEvent::Signal(signal),
                    SessionMessage::Reply(reply) => DriverEvent::Reply(reply),
                };
                self.session_event(number, event);
            }
        }
    }

    fn deliver(&mut self, packet: Packet) {
        if let Packet::Reply { reply, .. } = &packet
            && let Some(control) = reply.control()
        {
            let (worker, life, _) = parse(control);
            self.record_member(worker, life);
        }
        match packet {
            Packet::Reply { reply: Reply::Offer { direct }, .. } => {
                if let Err(slot) = self.queue.wait_queue.offer(direct, self.now) {
                    self.tell(&slot, Control::Decline);
                }
            }
            Packet::Reply { request, attempt, reply } => {
                let reply =
                    AttemptReply { attempt, worker: None, reply: Ok(reply), has_room: true };
                self.session_event(request, DriverEvent::Reply(reply));
            }
            Packet::MemberReply { worker, life } => self.record_member(worker, life),
            packet => self.deliver_to_worker(&packet),
        }
    }

    /// Records which member replies, as the reply router does.
    fn record_member(&self, worker: usize, life: u32) {
        if self.queue.members.is_suspected() {
            self.queue.members.record_reply(member_subject(worker, life), self.now);
        }
    }

    pub(super) fn send(&mut self, packet: Packet) {
        let is_faulty = self.now < self.start + FAULTS_END;
        if is_faulty && self.rng.random_bool(self.faults.lose) {
            return;
        }
        if is_faulty && self.rng.random_bool(self.faults.duplicate) {
            self.carry(packet.clone());
        }
        self.carry(packet);
    }

    fn carry(&mut self, packet: Packet) {
        let is_faulty = self.now < self.start + FAULTS_END;
        let is_late = is_faulty && self.rng.random_bool(self.faults.late);
        let max = if is_late { Duration::from_secs(3) } else { Duration::from_millis(2) };
        let delay = self.faults.latency + self.random(Duration::from_micros(100), max);
        self.after(delay, WorldEvent::Deliver(packet));
    }

    pub(super) fn random(&mut self, from: Duration, to: Duration) -> Duration {
        self.rng.random_range(from..=to)
    }

    pub(super) fn after(&mut self, delay: Duration, event: WorldEvent) {
        let since_start = self.now.duration_since(self.start) + delay;
        self.at(since_start, event);
    }

    fn at(&mut self, since_start: Duration, event: WorldEvent) {
        self.order += 1;
        self.agenda.push(Reverse((self.start + since_start, self.order)));
        self.events.insert(self.order, event);
    }
}

fn config() -> SessionConfig {
    SessionConfig {
        accept_timeout: ACCEPT_TIMEOUT,
        progress_interval: PROGRESS,
        probe_delay_min: Duration::from_millis(50),
        probe_delay_max: Duration::from_millis(500),
        waiting_max: WAITING_MAX,
        retry_percent: 100,
        retry_floor: 1_000_000,
        window_parts: WINDOW,
        answer_bytes_max: 1 << 20,
    }
}

fn has_status(client: &SimulatedClient, status: u16) -> bool {
    let end = client.ends.first();
    matches!(end, Some(SessionEnd::Problem(kind)) if kind.status().as_u16() == status)
}

pub(super) fn reply_subject(request: usize, attempt: u32) -> Subject {
    Subject::new(&format!("r.{request}.{attempt}.0")).unwrap()
}

pub(super) fn job_subject(worker: usize, life: u32, job: u64) -> Subject {
    Subject::new(&format!("j.{worker}.{life}.{job}")).unwrap()
}

fn member_subject(worker: usize, life: u32) -> Subject {
    Subject::new(&format!("m.{worker}.{life}.0")).unwrap()
}

pub(super) fn parse(subject: &Subject) -> (usize, u32, u64) {
    let mut tokens = subject.as_str().split('.').skip(1);
    let mut next = || tokens.next().unwrap().parse::<u64>().unwrap();
    (usize::try_from(next()).unwrap(), u32::try_from(next()).unwrap(), next())
}
