//! The jobs of simulated workers: claims, calls and replies.

use std::time::Duration;

use fjord::catalogue::Execution;
use fjord::envelope::{Control, Final, RefusalReason, Reply};
use fjord::outcome::Outcome;
use fjord::roles::worker::intake::slots::SlotDecision;
use tokio::time::Instant;

use super::super::agenda::{Packet, WorkerEvent};
use super::super::streams::WrittenAnswer;
use super::super::world::{World, job_subject, reply_subject};
use super::{BYTES, JobStage, SimulatedJob, SlotWork};

impl World {
    pub(super) fn enter(
        &mut self,
        worker: usize,
        request: usize,
        attempt: u32,
        stage: JobStage,
    ) -> u64 {
        self.workers[worker].next_job += 1;
        let id = self.workers[worker].next_job;
        let written = WrittenAnswer::choose(&mut self.rng, self.clients[request].window);
        self.workers[worker].jobs.insert(id, SimulatedJob { request, attempt, stage, written });
        id
    }

    /// Starts the call of a request that has received a slot.
    pub(super) fn start(&mut self, worker: usize, SlotWork { request, attempt, job }: SlotWork) {
        let stage = JobStage::Runs(self.now);
        let id = job.unwrap_or_else(|| self.enter(worker, request, attempt, stage));
        if let Some(job) = self.workers[worker].jobs.get_mut(&id) {
            job.stage = stage;
        }
        self.execute(worker, id);
    }

    /// Refuses a job after its claim. The job then never starts.
    pub(super) fn give_up(&mut self, worker: usize, id: u64, reason: RefusalReason) {
        let life = self.workers[worker].life;
        let Some(job) = self.workers[worker].jobs.remove(&id) else { return };
        self.refused.insert((worker, life, id));
        let control = Some(job_subject(worker, life, id));
        self.reply(&job, Reply::Refused { reason, control });
        self.restart_if_drained(worker);
    }

    pub(super) fn control(&mut self, worker: usize, id: u64, control: Control) {
        let Some(job) = self.workers[worker].jobs.get(&id).cloned() else { return };
        match (control, job.stage) {
            (Control::Grant, JobStage::Claims(since)) => {
                self.answered(worker, since);
                let mut waiter = self.waiter(job.request, job.attempt);
                waiter.work.job = Some(id);
                let decision = self.workers[worker].slots.consent_granted(waiter);
                if let Some(job) = self.workers[worker].jobs.get_mut(&id) {
                    job.stage = JobStage::Waits;
                }
                match decision {
                    SlotDecision::Refuse(reason, _) => self.give_up(worker, id, reason),
                    SlotDecision::Run(pending) | SlotDecision::Claim(pending) => {
                        self.start(worker, pending);
                    }
                    SlotDecision::Wait => self.wake_worker(worker),
                }
            }
            (Control::Deny, JobStage::Claims(since)) => {
                self.answered(worker, since);
                self.not_granted(worker, id);
            }
            (Control::Cancel, _) => self.cancel(worker, id),
            (Control::Ack(part), _) => self.on_acknowledged(worker, id, part),
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
        self.restart_if_drained(worker);
    }

    pub(super) fn claim_times_out(&mut self, worker: usize, id: u64) {
        let Some(job) = self.workers[worker].jobs.get(&id).cloned() else { return };
        if !matches!(job.stage, JobStage::Claims(_)) {
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

    /// Handles a cancel message: the gateway no longer needs the job.
    pub(super) fn cancel(&mut self, worker: usize, id: u64) {
        let Some(job) = self.workers[worker].jobs.get(&id).cloned() else { return };
        match job.stage {
            // As in the real worker, the claim is then denied or times out.
            JobStage::Claims(_) => {}
            JobStage::Waits => {
                let reply = reply_subject(job.request, job.attempt);
                let waiter = self.workers[worker].slots.cancel(&reply);
                // The waiter may belong to another copy of the same attempt.
                if let Some(id) = waiter.and_then(|waiter| waiter.work.job) {
                    self.workers[worker].jobs.remove(&id);
                }
                self.restart_if_drained(worker);
            }
            JobStage::Runs(_) => self.job_ends(worker, id),
        }
    }

    /// Starts the procedure. This must not happen twice for an at-most-once request.
    fn execute(&mut self, worker: usize, id: u64) {
        let Some(job) = self.workers[worker].jobs.get(&id).cloned() else { return };
        let life = self.workers[worker].life;
        self.clients[job.request].executions += 1;
        self.workers[worker].executing += 1;
        if self.refused.contains(&(worker, life, id)) {
            self.violation = Some(format!("worker {worker} runs job {id}, which it refused"));
        }
        let twice = self.clients[job.request].executions > 1;
        if twice && self.clients[job.request].execution == Execution::AtMostOnce {
            self.violation = Some(format!("request {} was executed twice", job.request));
        }
        let (shortest, longest) = self.faults.calls;
        let takes = self.random(shortest, longest);
        if job.written.is_some() {
            self.worker_after(worker, takes / 4, WorkerEvent::Part(id));
        } else {
            self.worker_after(worker, takes, WorkerEvent::JobEnds(id));
        }
        self.worker_after(worker, Duration::from_millis(250), WorkerEvent::Progress(id));
    }

    pub(in super::super) fn job_ends(&mut self, worker: usize, id: u64) {
        let Some(job) = self.workers[worker].jobs.get(&id).cloned() else { return };
        let JobStage::Runs(since) = job.stage else { return };
        self.workers[worker].executing -= 1;
        let control = job_subject(worker, self.workers[worker].life, id);
        let answer = job.written.as_ref().map_or_else(
            || Final::whole(200, "application/json", "1".into(), Outcome::Ok),
            |written| written.to_final(control),
        );
        self.reply(&job, Reply::Final(answer));
        self.workers[worker].jobs.remove(&id);
        let more = Some(reply_subject(job.request, job.attempt));
        let more = more.filter(|_| !self.queue.wait_queue.is_empty());
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
        self.restart_if_drained(worker);
    }

    pub(in super::super) fn reply(&mut self, job: &SimulatedJob, reply: Reply) {
        self.send(Packet::Reply { request: job.request, attempt: job.attempt, reply });
    }
}
