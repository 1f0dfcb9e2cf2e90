//! A gateway's sessions, several workers and an unreliable network, all in one thread and with a simulated clock.
//!
//! The sessions run in the gateway's own `SessionDriver`s, with one `GatewayQueue`.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fjord::catalogue::{EndpointId, Execution, QueueName};
use fjord::config::gateway::SessionConfig;
use fjord::message::Subject;
use fjord::roles::gateway::dispatch::message::{SESSION_MESSAGES_MAX, SessionMessage};
use fjord::roles::gateway::dispatch::queues::GatewayQueue;
use fjord::roles::gateway::dispatch::retry_budget::RetryBudget;
use fjord::roles::gateway::dispatch::session::SessionEnd;
use fjord::roles::gateway::dispatch::session_driver::{DriverEvent, SessionDriver};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::agenda::WorldEvent;
use super::gateway::{WAITING_MAX, config};
use super::network::Stall;
use super::scenario::{Faults, Guards, RunReport};
use super::streams::{ReceivedAnswer, WINDOW};
use super::workers::SimulatedWorker;

pub(super) const WORKERS: usize = 3;
pub(super) const PROGRESS: Duration = Duration::from_secs(1);
/// The time after which no more faults occur. All sessions and jobs must then end.
pub(super) const FAULTS_END: Duration = Duration::from_secs(20);
const THE_END: Duration = Duration::from_mins(2);

/// One client with its single request.
pub(super) struct SimulatedClient {
    /// The session in the gateway, once the request has been admitted.
    pub(super) driver: Option<SessionDriver>,
    /// The events that have arrived since the session paused, or `None` if it is not paused.
    pub(super) postponed: Option<Vec<DriverEvent>>,
    pub(super) execution: Execution,
    pub(super) window: u32,
    pub(super) received: ReceivedAnswer,
    pub(super) sender: mpsc::Sender<SessionMessage>,
    pub(super) messages: mpsc::Receiver<SessionMessage>,
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
    pub(super) config: SessionConfig,
    pub(super) retry_budget: RetryBudget,
    order: u64,
    agenda: BinaryHeap<Reverse<(Instant, u64)>>,
    events: HashMap<u64, WorldEvent>,
    pub(super) clients: Vec<SimulatedClient>,
    pub(super) workers: Vec<SimulatedWorker>,
    pub(super) queue: Arc<GatewayQueue>,
    pub(super) endpoint: EndpointId,
    /// The clients whose request has been admitted and not yet answered.
    pub(super) active: BTreeSet<usize>,
    /// The jobs that have reported that they will never start.
    pub(super) refused: HashSet<(usize, u32, u64)>,
    /// The time at which each complete answer was received.
    pub(super) answered_at: Vec<Instant>,
    /// The stall of the network, if the faults include one.
    pub(super) stall: Option<Stall>,
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
            // The budget is large enough for every resubmission.
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
            stall: None,
            violation: None,
        };
        if !faults.stall.is_zero() {
            let begin = start + world.random(Duration::ZERO, Duration::from_secs(4));
            world.stall = Some(Stall { begin, end: begin + faults.stall });
        }
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
            answered_after_warm_up: self.faults.load.map_or(0, |load| {
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
            self.violation = Some("more requests wait than the limit allows".to_owned());
        }
        self.violation = self.violation.take().or(violation);
    }

    fn check_end(&mut self) {
        for (number, client) in self.clients.iter().enumerate() {
            // A duplicate of an at-least-once message can run after the original was refused. NATS itself never duplicates.
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
        let left = self.workers.iter().position(|worker| worker.slots.occupied() > 0);
        if let (None, Some(worker)) = (&self.violation, left) {
            self.violation = Some(format!("worker {worker} reserves a slot for no request"));
        }
    }

    fn happen(&mut self, event: WorldEvent) {
        match event {
            WorldEvent::Begin(client) => self.begin(client),
            WorldEvent::WakeSession(client) => {
                let silence_excused_until = self.link_stalled_at().map(|at| at + PROGRESS);
                self.session_event(client, DriverEvent::Timer { silence_excused_until });
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

    pub(super) fn random(&mut self, from: Duration, to: Duration) -> Duration {
        self.rng.random_range(from..=to)
    }

    pub(super) fn after(&mut self, delay: Duration, event: WorldEvent) {
        let since_start = self.now.duration_since(self.start) + delay;
        self.at(since_start, event);
    }

    pub(super) fn at(&mut self, since_start: Duration, event: WorldEvent) {
        self.order += 1;
        self.agenda.push(Reverse((self.start + since_start, self.order)));
        self.events.insert(self.order, event);
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

pub(super) fn member_subject(worker: usize, life: u32) -> Subject {
    Subject::new(&format!("m.{worker}.{life}.0")).unwrap()
}

pub(super) fn parse(subject: &Subject) -> (usize, u32, u64) {
    let mut tokens = subject.as_str().split('.').skip(1);
    let mut next = || tokens.next().unwrap().parse::<u64>().unwrap();
    (usize::try_from(next()).unwrap(), u32::try_from(next()).unwrap(), next())
}
