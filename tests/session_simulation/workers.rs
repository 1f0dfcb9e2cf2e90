//! The workers of the simulation: slots, claims and calls.

use std::collections::BTreeMap;
use std::time::Duration;

use fjord::catalogue::Execution;
use fjord::envelope::{RefusalReason, Reply};
use fjord::message::Subject;
use fjord::roles::worker::intake::latency::BACKLOG_MAX;
use fjord::roles::worker::intake::slots::{Offer, SlotDecision, SlotRequest, Slots};
use rand::RngExt;
use tokio::time::Instant;

use super::agenda::{Packet, WorkerEvent, WorldEvent};
use super::streams::WrittenAnswer;
use super::world::{PROGRESS, WORKERS, World, job_subject, reply_subject};

mod jobs;

pub(super) const LIMIT: usize = 2;
const CLAIM_TIMEOUT: Duration = Duration::from_secs(1);
const OFFER_TIMEOUT: Duration = Duration::from_millis(250);
const BYTES: usize = 100;

pub(super) struct SimulatedWorker {
    pub(super) life: u32,
    pub(super) slots: Slots<SlotWork>,
    next_job: u64,
    pub(super) jobs: BTreeMap<u64, SimulatedJob>,
    executing: usize,
    is_draining: bool,
    /// The time of the next `Wakes` event, which expires offers and waiting requests.
    wakes_at: Option<Instant>,
}

/// A request that is waiting for a slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotWork {
    request: usize,
    attempt: u32,
    /// The job of the request, if its claim was granted.
    job: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct SimulatedJob {
    pub(super) request: usize,
    attempt: u32,
    stage: JobStage,
    /// The parts of a streamed answer.
    pub(super) written: Option<WrittenAnswer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JobStage {
    Claims(Instant),
    Waits,
    Runs(Instant),
}

impl SimulatedWorker {
    pub(super) fn new(life: u32) -> Self {
        let mut slots = Slots::new(LIMIT, 100, OFFER_TIMEOUT);
        // In every second life of a worker, a short call is recorded at the start. The worker therefore accepts
        // a backlog, which then waits for long calls.
        if life % 2 == 1 {
            slots.latency.record_call(Duration::from_millis(2));
        }
        let jobs = BTreeMap::new();
        let (next_job, executing, is_draining, wakes_at) = (0, 0, false, None);
        Self { life, slots, next_job, jobs, executing, is_draining, wakes_at }
    }

    /// Returns a description of the worker if it violates an invariant.
    pub(super) fn violation(&self) -> Option<String> {
        let (running, promised) = (self.slots.running(), self.slots.occupied());
        let is_violated = running != self.executing
            || running > LIMIT
            || promised > LIMIT + BACKLOG_MAX
            || (running < LIMIT && self.slots.waiting() > 0);
        is_violated.then(|| format!("executes {}: {:?}", self.executing, self.slots))
    }
}

impl World {
    pub(super) fn happen_to_worker(&mut self, worker: usize, event: WorkerEvent) {
        match event {
            WorkerEvent::Wakes => {
                self.workers[worker].wakes_at = None;
                let expired = self.workers[worker].slots.expire(self.now);
                for offer in expired.offers {
                    self.offer(worker, Some(offer));
                }
                self.refuse(worker, RefusalReason::Busy, expired.evicted);
                self.wake_worker(worker);
            }
            WorkerEvent::ClaimTimesOut(job) => self.claim_times_out(worker, job),
            WorkerEvent::Part(job) => self.write_part(worker, job),
            WorkerEvent::JobEnds(job) => self.job_ends(worker, job),
            WorkerEvent::Progress(id) => {
                if let Some(running) = self.workers[worker].jobs.get(&id).cloned() {
                    let control = Some(job_subject(worker, self.workers[worker].life, id));
                    self.reply(&running, Reply::Progress { control });
                    self.worker_after(worker, PROGRESS, WorkerEvent::Progress(id));
                }
            }
        }
    }

    pub(super) fn worker_after(&mut self, worker: usize, delay: Duration, event: WorkerEvent) {
        let life = self.workers[worker].life;
        self.after(delay, WorldEvent::OfWorker { worker, life, event });
    }

    /// Refuses all waiting requests, and restarts the worker once its calls have ended.
    pub(super) fn drain(&mut self, worker: usize) {
        let waiting = self.workers[worker].slots.drain();
        self.refuse(worker, RefusalReason::Draining, waiting);
        self.workers[worker].is_draining = true;
        self.restart_if_drained(worker);
    }

    fn restart_if_drained(&mut self, worker: usize) {
        let old = &self.workers[worker];
        if old.is_draining && old.jobs.is_empty() {
            self.workers[worker] = SimulatedWorker::new(old.life + 1);
        }
    }

    pub(super) fn deliver_to_worker(&mut self, packet: &Packet) {
        match *packet {
            Packet::Group { request, attempt } => {
                let worker = self.rng.random_range(0..WORKERS);
                let waiter = self.waiter(request, attempt);
                let decision = self.workers[worker].slots.request_slot(waiter);
                self.apply(worker, &decision, request, attempt);
            }
            Packet::Member { worker, life, request, attempt } => {
                if self.workers[worker].life == life {
                    let waiter = self.waiter(request, attempt);
                    let decision = self.workers[worker].slots.request_slot(waiter);
                    self.apply(worker, &decision, request, attempt);
                } else {
                    let reply = Reply::NoResponders;
                    self.send(Packet::Reply { request, attempt, reply });
                }
            }
            Packet::OfferedSlot { worker, life, offer, request, attempt } => {
                if self.workers[worker].life == life {
                    let waiter = self.waiter(request, attempt);
                    let decision = self.workers[worker].slots.accept(offer, waiter);
                    self.apply(worker, &decision, request, attempt);
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
            Packet::BroadcastCancel { request, attempt } => {
                for worker in 0..WORKERS {
                    let found = self.workers[worker]
                        .jobs
                        .iter()
                        .find(|(_, job)| job.request == request && job.attempt == attempt)
                        .map(|(id, _)| *id);
                    if let Some(job) = found {
                        self.cancel(worker, job);
                    } else {
                        let reply = reply_subject(request, attempt);
                        self.workers[worker].slots.cancel(&reply);
                    }
                }
            }
            Packet::QueryMember { worker } => {
                let life = self.workers[worker].life;
                self.send(Packet::MemberReply { worker, life });
            }
            Packet::Reply { .. } | Packet::MemberReply { .. } => {}
        }
    }

    fn waiter(&self, request: usize, attempt: u32) -> SlotRequest<SlotWork> {
        let is_once = self.clients[request].execution == Execution::AtMostOnce;
        SlotRequest {
            since: self.now,
            reply: Some(reply_subject(request, attempt)),
            bytes: BYTES,
            needs_consent: is_once && self.guards.worker_awaits_grant,
            work: SlotWork { request, attempt, job: None },
        }
    }

    fn apply(
        &mut self,
        worker: usize,
        decision: &SlotDecision<SlotWork>,
        request: usize,
        attempt: u32,
    ) {
        match *decision {
            SlotDecision::Refuse(reason, _) => {
                let reply = Reply::Refused { reason, control: None };
                self.send(Packet::Reply { request, attempt, reply });
            }
            SlotDecision::Run(pending) => self.start(worker, pending),
            SlotDecision::Claim(SlotWork { request, attempt, .. }) => {
                let id = self.enter(worker, request, attempt, JobStage::Claims(self.now));
                let job = self.workers[worker].jobs[&id].clone();
                let control = job_subject(worker, self.workers[worker].life, id);
                self.reply(&job, Reply::Claim { control });
                let limit = self.workers[worker].slots.latency.timeout(CLAIM_TIMEOUT);
                self.worker_after(worker, limit, WorkerEvent::ClaimTimesOut(id));
            }
            SlotDecision::Wait => self.wake_worker(worker),
        }
    }

    fn wake_worker(&mut self, worker: usize) {
        let Some(at) = self.workers[worker].slots.next_expiry() else { return };
        if self.workers[worker].wakes_at.is_none_or(|wakes_at| wakes_at > at) {
            self.workers[worker].wakes_at = Some(at);
            let delay = at.saturating_duration_since(self.now) + Duration::from_micros(1);
            self.worker_after(worker, delay, WorkerEvent::Wakes);
        }
    }

    fn refuse(
        &mut self,
        worker: usize,
        reason: RefusalReason,
        waiting: impl IntoIterator<Item = SlotRequest<SlotWork>>,
    ) {
        for SlotRequest { work: SlotWork { request, attempt, job }, .. } in waiting {
            if let Some(id) = job {
                self.give_up(worker, id, reason);
            } else {
                let reply = Reply::Refused { reason, control: None };
                self.send(Packet::Reply { request, attempt, reply });
            }
        }
    }

    fn offer(&mut self, worker: usize, offer: Option<Offer>) {
        let Some(Offer { id, to }) = offer else { return };
        let life = self.workers[worker].life;
        let direct = Subject::new(&format!("o.{worker}.{life}.{}", id.0)).unwrap();
        let (request, attempt, _) = super::world::parse(&to);
        self.send(Packet::Reply { request, attempt, reply: Reply::Offer { direct } });
        self.wake_worker(worker);
    }
}
