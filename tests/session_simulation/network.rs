//! The simulated network. It loses, duplicates, delays and reorders messages, and stalls.

use std::time::Duration;

use fjord::envelope::{Control, Reply};
use fjord::roles::gateway::dispatch::message::AttemptReply;
use fjord::roles::gateway::dispatch::session_driver::DriverEvent;
use rand::RngExt;
use tokio::time::Instant;

use super::agenda::{Packet, WorldEvent};
use super::world::{FAULTS_END, World, member_subject, parse};

/// The duration of a stall after which the gateway's probe of the link detects it.
const STALL_DETECTION: Duration = Duration::from_millis(1_500);

/// A period in which no message arrives. Messages arrive after its end instead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stall {
    pub(super) begin: Instant,
    pub(super) end: Instant,
}

impl World {
    /// Returns the latest time at which the gateway's probe shows that the link is stalled.
    pub(super) fn link_stalled_at(&self) -> Option<Instant> {
        let stall = self.stall.filter(|stall| self.now >= stall.begin + STALL_DETECTION)?;
        Some(self.now.min(stall.end))
    }

    pub(super) fn deliver(&mut self, packet: Packet) {
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
        let mut delay = self.faults.latency + self.random(Duration::from_micros(100), max);
        let arrival = self.now + delay;
        if let Some(stall) =
            self.stall.filter(|stall| arrival >= stall.begin && arrival < stall.end)
        {
            delay += stall.end - arrival;
        }
        self.after(delay, WorldEvent::Deliver(packet));
    }
}
