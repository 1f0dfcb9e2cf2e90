//! The workers' side: slots, claims and calls.

use std::collections::BTreeMap;
use std::time::Duration;

use fjord::catalogue::Execution;
use fjord::envelope::{Control, Final, RefusalReason, Reply};
use fjord::message::Subject;
use fjord::outcome::Word;
use fjord::roles::worker::intake::latency::BACKLOG_MAX;
use fjord::roles::worker::intake::slots::{Offer, SlotDecision, SlotRequest, Slots};
use rand::RngExt;
use tokio::time::Instant;

use super::streams::Writing;
use super::things::{Due, Packet, WorkerDue};
use super::world::{PROGRESS, WORKERS, World, job_subject, reply_subject};

pub(super) const LIMIT: usize = 2;
const CLAIM_TIMEOUT: Duration = Duration::from_secs(1);
const OFFER_TIMEOUT: Duration = Duration::from_millis(250);
const BYTES: usize = 100;

pub(super) struct Worker {
    pub(super) life: u32,
    pub(super) slots: Slots<Pending>,
    next_job: u64,
    pub(super) jobs: BTreeMap<u64, Job>,
    executing: usize,
    is_draining: bool,
    /// When it looks for what lapsed.
    wakes_at: Option<Instant>,
}

/// What waits for a slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    request: usize,
    attempt: u32,
    /// The job that was granted.
    job: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) request: usize,
    attempt: u32,
    stage: Stage,
    /// The parts of an answer that streams.
    pub(super) writing: Option<Writing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Claims(Instant),
    Waits,
    Runs(Instant),
}

impl Worker {
    pub(super) fn new(life: u32) -> Self {
        let mut slots = Slots::new(LIMIT, 100, OFFER_TIMEOUT);
        // Every other life has calls that seem short at first, so that a backlog waits for long ones.
        if life % 2 == 1 {
            slots.latency.record_call(Duration::from_millis(2));
        }
        let jobs = BTreeMap::new();
        let (next_job, executing, is_draining, wakes_at) = (0, 0, false, None);
        Self { life, slots, next_job, jobs, executing, is_draining, wakes_at }
    }

    /// What is wrong with it at this moment.
    pub(super) fn wrong(&self) -> Option<String> {
        let (running, promised) = (self.slots.running(), self.slots.committed());
        let wrong = running != self.executing
            || running > LIMIT
            || promised > LIMIT + BACKLOG_MAX
            || (running < LIMIT && self.slots.waiting() > 0);
        wrong.then(|| format!("executes {}: {:?}", self.executing, self.slots))
    }
}

impl World {
    pub(super) fn happen_to_worker(&mut self, worker: usize, due: WorkerDue) {
        match due {
            WorkerDue::Wakes => {
                self.workers[worker].wakes_at = None;
                let lapsed = self.workers[worker].slots.expire(self.now);
                for offer in lapsed.offers {
                    self.offer(worker, Some(offer));
                }
                self.turn_away(worker, RefusalReason::Busy, lapsed.evicted);
                self.wake_worker(worker);
            }
            WorkerDue::ClaimTimesOut(job) => self.claim_times_out(worker, job),
            WorkerDue::Part(job) => self.write_part(worker, job),
            WorkerDue::JobEnds(job) => self.job_ends(worker, job),
            WorkerDue::Progress(id) => {
                if let Some(running) = self.workers[worker].jobs.get(&id).cloned() {
                    let control = Some(job_subject(worker, self.workers[worker].life, id));
                    self.reply(&running, Reply::Progress { control });
                    self.worker_after(worker, PROGRESS, WorkerDue::Progress(id));
                }
            }
        }
    }

    pub(super) fn worker_after(&mut self, worker: usize, delay: Duration, due: WorkerDue) {
        let life = self.workers[worker].life;
        self.after(delay, Due::OfWorker { worker, life, due });
    }

    /// It refuses everything, and begins again once its calls have ended.
    pub(super) fn drain(&mut self, worker: usize) {
        let waiting = self.workers[worker].slots.drain();
        self.turn_away(worker, RefusalReason::Draining, waiting);
        self.workers[worker].is_draining = true;
        self.begin_again(worker);
    }

    fn begin_again(&mut self, worker: usize) {
        let old = &self.workers[worker];
        if old.is_draining && old.jobs.is_empty() {
            self.workers[worker] = Worker::new(old.life + 1);
        }
    }

    pub(super) fn deliver_to_worker(&mut self, packet: &Packet) {
        match *packet {
            Packet::Group { request, attempt } => {
                let worker = self.rng.random_range(0..WORKERS);
                let waiter = self.waiter(request, attempt);
                let verdict = self.workers[worker].slots.arrive(waiter);
                self.judge(worker, &verdict, request, attempt);
            }
            Packet::Direct { worker, life, offer, request, attempt } => {
                if self.workers[worker].life == life {
                    let waiter = self.waiter(request, attempt);
                    let verdict = self.workers[worker].slots.accept(offer, waiter);
                    self.judge(worker, &verdict, request, attempt);
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
            Packet::Reply { .. } => {}
        }
    }

    fn waiter(&self, request: usize, attempt: u32) -> SlotRequest<Pending> {
        let is_once = self.clients[request].execution == Execution::AtMostOnce;
        SlotRequest {
            since: self.now,
            reply: Some(reply_subject(request, attempt)),
            bytes: BYTES,
            needs_consent: is_once && self.guards.worker_awaits_grant,
            work: Pending { request, attempt, job: None },
        }
    }

    fn judge(
        &mut self,
        worker: usize,
        verdict: &SlotDecision<Pending>,
        request: usize,
        attempt: u32,
    ) {
        match *verdict {
            SlotDecision::Refuse(reason, _) => {
                let reply = Reply::Refused { reason, control: None };
                self.send(Packet::Reply { request, attempt, reply });
            }
            SlotDecision::Run(pending) => self.start(worker, pending),
            SlotDecision::Claim(Pending { request, attempt, .. }) => {
                let id = self.enter(worker, request, attempt, Stage::Claims(self.now));
                let job = self.workers[worker].jobs[&id].clone();
                let control = job_subject(worker, self.workers[worker].life, id);
                self.reply(&job, Reply::Claim { control });
                let limit = self.workers[worker].slots.latency.timeout(CLAIM_TIMEOUT);
                self.worker_after(worker, limit, WorkerDue::ClaimTimesOut(id));
            }
            SlotDecision::Wait => self.wake_worker(worker),
        }
    }

    fn wake_worker(&mut self, worker: usize) {
        let Some(at) = self.workers[worker].slots.next_expiry() else { return };
        if self.workers[worker].wakes_at.is_none_or(|wakes_at| wakes_at > at) {
            self.workers[worker].wakes_at = Some(at);
            let delay = at.saturating_duration_since(self.now) + Duration::from_micros(1);
            self.worker_after(worker, delay, WorkerDue::Wakes);
        }
    }

    fn enter(&mut self, worker: usize, request: usize, attempt: u32, stage: Stage) -> u64 {
        self.workers[worker].next_job += 1;
        let id = self.workers[worker].next_job;
        let writing = Writing::maybe(&mut self.rng, self.clients[request].window);
        self.workers[worker].jobs.insert(id, Job { request, attempt, stage, writing });
        id
    }

    /// What waited, or has just come, has a slot.
    fn start(&mut self, worker: usize, Pending { request, attempt, job }: Pending) {
        let stage = Stage::Runs(self.now);
        let id = job.unwrap_or_else(|| self.enter(worker, request, attempt, stage));
        if let Some(job) = self.workers[worker].jobs.get_mut(&id) {
            job.stage = stage;
        }
        self.execute(worker, id);
    }

    fn turn_away(
        &mut self,
        worker: usize,
        reason: RefusalReason,
        waiting: impl IntoIterator<Item = SlotRequest<Pending>>,
    ) {
        for SlotRequest { work: Pending { request, attempt, job }, .. } in waiting {
            if let Some(id) = job {
                self.give_up(worker, id, reason);
            } else {
                let reply = Reply::Refused { reason, control: None };
                self.send(Packet::Reply { request, attempt, reply });
            }
        }
    }

    /// A job that asked for consent says that it never starts.
    fn give_up(&mut self, worker: usize, id: u64, reason: RefusalReason) {
        let life = self.workers[worker].life;
        let Some(job) = self.workers[worker].jobs.remove(&id) else { return };
        self.refused.insert((worker, life, id));
        let control = Some(job_subject(worker, life, id));
        self.reply(&job, Reply::Refused { reason, control });
        self.begin_again(worker);
    }

    fn control(&mut self, worker: usize, id: u64, control: Control) {
        let Some(job) = self.workers[worker].jobs.get(&id).cloned() else { return };
        match (control, job.stage) {
            (Control::Grant, Stage::Claims(since)) => {
                self.answered(worker, since);
                let mut waiter = self.waiter(job.request, job.attempt);
                waiter.work.job = Some(id);
                let verdict = self.workers[worker].slots.consent_granted(waiter);
                if let Some(job) = self.workers[worker].jobs.get_mut(&id) {
                    job.stage = Stage::Waits;
                }
                match verdict {
                    SlotDecision::Refuse(reason, _) => self.give_up(worker, id, reason),
                    SlotDecision::Run(pending) | SlotDecision::Claim(pending) => {
                        self.start(worker, pending);
                    }
                    SlotDecision::Wait => self.wake_worker(worker),
                }
            }
            (Control::Deny, Stage::Claims(since)) => {
                self.answered(worker, since);
                self.not_granted(worker, id);
            }
            (Control::Cancel, _) => self.cancel(worker, id),
            (Control::Ack(part), _) => self.hear_taken(worker, id, part),
            _ => {}
        }
    }

    fn answered(&mut self, worker: usize, since: Instant) {
        let took = self.now.saturating_duration_since(since);
        self.workers[worker].slots.latency.record_round_trip(took);
    }

    fn not_granted(&mut self, worker: usize, id: u64) {
        self.workers[worker].jobs.remove(&id);
        let next = self.workers[worker].slots.consent_denied(BYTES, self.now);
        self.offer(worker, next);
        self.begin_again(worker);
    }

    fn claim_times_out(&mut self, worker: usize, id: u64) {
        let Some(job) = self.workers[worker].jobs.get(&id).cloned() else { return };
        if !matches!(job.stage, Stage::Claims(_)) {
            return;
        }
        let life = self.workers[worker].life;
        let control = Some(job_subject(worker, life, id));
        self.reply(&job, Reply::Refused { reason: RefusalReason::Unavailable, control });
        if self.guards.claim_times_out_for_good {
            self.refused.insert((worker, life, id));
            self.not_granted(worker, id);
        }
    }

    /// Nobody waits for it any more.
    fn cancel(&mut self, worker: usize, id: u64) {
        let Some(job) = self.workers[worker].jobs.get(&id).cloned() else { return };
        match job.stage {
            // As the worker does: its claim is denied, or runs into its own time.
            Stage::Claims(_) => {}
            Stage::Waits => {
                let reply = reply_subject(job.request, job.attempt);
                let waiter = self.workers[worker].slots.cancel(&reply);
                // Another copy of the same attempt may have been found.
                if let Some(id) = waiter.and_then(|waiter| waiter.work.job) {
                    self.workers[worker].jobs.remove(&id);
                }
                self.begin_again(worker);
            }
            Stage::Runs(_) => self.job_ends(worker, id),
        }
    }

    /// The procedure starts: this is what must not happen twice.
    fn execute(&mut self, worker: usize, id: u64) {
        let Some(job) = self.workers[worker].jobs.get(&id).cloned() else { return };
        let life = self.workers[worker].life;
        self.clients[job.request].executions += 1;
        self.workers[worker].executing += 1;
        if self.refused.contains(&(worker, life, id)) {
            self.broken = Some(format!("worker {worker} runs job {id}, which it refused"));
        }
        let twice = self.clients[job.request].executions > 1;
        if twice && self.clients[job.request].execution == Execution::AtMostOnce {
            self.broken = Some(format!("request {} was executed twice", job.request));
        }
        let (shortest, longest) = self.faults.calls;
        let takes = self.random(shortest, longest);
        if job.writing.is_some() {
            self.worker_after(worker, takes / 4, WorkerDue::Part(id));
        } else {
            self.worker_after(worker, takes, WorkerDue::JobEnds(id));
        }
        self.worker_after(worker, Duration::from_millis(250), WorkerDue::Progress(id));
    }

    pub(super) fn job_ends(&mut self, worker: usize, id: u64) {
        let Some(job) = self.workers[worker].jobs.get(&id).cloned() else { return };
        let Stage::Runs(since) = job.stage else { return };
        self.workers[worker].executing -= 1;
        let control = job_subject(worker, self.workers[worker].life, id);
        let answer = job.writing.as_ref().map_or_else(
            || Final::whole(200, "application/json", "1".into(), Word::Ok),
            |writing| writing.last(control),
        );
        self.reply(&job, Reply::Final(answer));
        self.workers[worker].jobs.remove(&id);
        let more = Some(reply_subject(job.request, job.attempt));
        let more = more.filter(|_| self.hold.waiting() > 0);
        let took = self.now.saturating_duration_since(since);
        let slots = &mut self.workers[worker].slots;
        slots.latency.record_call(took);
        let next = slots.finish(self.now, more);
        let ahead = slots.offer(self.now);
        if let Some(waiter) = next.start {
            self.start(worker, waiter.work);
        }
        self.offer(worker, next.offer);
        self.offer(worker, ahead);
        self.begin_again(worker);
    }

    fn offer(&mut self, worker: usize, offer: Option<Offer>) {
        let Some(Offer { id, to }) = offer else { return };
        let life = self.workers[worker].life;
        let direct = Subject::new(&format!("o.{worker}.{life}.{}", id.0)).unwrap();
        let (request, attempt, _) = super::world::parse(&to);
        self.send(Packet::Reply { request, attempt, reply: Reply::Offer { direct } });
        self.wake_worker(worker);
    }

    pub(super) fn reply(&mut self, job: &Job, reply: Reply) {
        self.send(Packet::Reply { request: job.request, attempt: job.attempt, reply });
    }
}
