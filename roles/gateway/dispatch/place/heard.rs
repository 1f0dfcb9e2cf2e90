//! What replies tell beside their meaning: whose they are, how long workers take, and which of them answer.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::envelope::{EnvelopeError, RefusalReason, Reply, WorkerId};
use crate::roles::gateway::dispatch::members::Way;
use crate::roles::gateway::dispatch::rejections::Rejection;
use crate::roles::gateway::dispatch::session::Event;
use crate::telemetry::conditions::{self, Condition};

use super::Ride;

/// The least that workers are given to say who they are.
const ANSWER_MIN: Duration = Duration::from_millis(10);

/// One condition for all requests: each dropped answer is in its access line.
const NO_ROOM: Condition = Condition::new("answers find no room");

fn no_room(attempt: u32) -> Event {
    if conditions::begins(&NO_ROOM, "") {
        tracing::warn!("an answer is dropped: no room for more bytes of answers and requests");
    }
    Event::NoRoom { attempt }
}

impl Ride {
    /// Whether a reply comes from the worker that has the attempt: the first that names itself. From then on only what
    /// names that one counts; a refusal ends it.
    pub(super) fn is_of_its_worker(
        &mut self,
        attempt: u32,
        worker: Option<WorkerId>,
        reply: &Result<Reply, EnvelopeError>,
    ) -> bool {
        let bound = self.workers.iter().position(|(bound, _)| *bound == attempt);
        let refused = matches!(reply, Ok(Reply::Refused { .. }));
        match (bound, worker) {
            (None, Some(worker)) if !refused => self.workers.push((attempt, worker)),
            (None, _) => {}
            (Some(place), Some(worker))
                if self.workers.get(place).is_some_and(|(_, bound)| *bound == worker) =>
            {
                if refused {
                    self.workers.swap_remove(place);
                }
            }
            // Of a cancel that reached nobody, say: a worker has it.
            (Some(_), _) if matches!(reply, Ok(Reply::NoResponders)) => return false,
            (Some(_), worker) => {
                let named = reply.as_ref().ok().and_then(Reply::control);
                let named = named.or(worker.as_ref().map(WorkerId::control));
                let rejections = self.registration.rejections();
                rejections.note(Rejection::Worker, Some(self.queue.name.as_str()), named);
                return false;
            }
        }
        true
    }

    /// A reply for the session, when there was room for it, or when it lacks nothing.
    pub(super) fn heard(
        &mut self,
        attempt: u32,
        reply: Result<Reply, EnvelopeError>,
        has_room: bool,
    ) -> Event {
        match &reply {
            Ok(Reply::Part { number, .. })
                if !has_room && !self.session.has_part(attempt, *number) =>
            {
                return no_room(attempt);
            }
            Ok(Reply::Final(_)) if !has_room => return no_room(attempt),
            Ok(Reply::Final(answer)) if self.pieces.is_none() && answer.parts > 0 => {
                self.wanted.put_together(self.session.part_bytes(attempt), &answer.body);
            }
            _ => {}
        }
        Event::Heard { attempt, reply }
    }

    /// Learns from a reply how long workers take.
    pub(super) fn time(&mut self, attempt: u32, reply: &Result<Reply, EnvelopeError>) {
        let Some(sent_at) = self.session.attempt_sent_at(attempt) else { return };
        let (now, timing, endpoint) = (Instant::now(), &self.queue.timing, &self.request.endpoint);
        let took = now.saturating_duration_since(sent_at);
        let is_first = self.signed < attempt;
        match reply {
            Ok(Reply::Refused { .. }) => timing.record_round_trip(took, now),
            Ok(Reply::Claim { .. }) => {
                timing.record_round_trip(took, now);
                timing.record_sign(endpoint, took);
            }
            Ok(Reply::Final(answer)) => {
                if let Some(phases) = &answer.phases {
                    timing.record_round_trip(took.saturating_sub(phases.total), now);
                }
                if is_first {
                    timing.record_sign(endpoint, took);
                }
                timing.record_answer(endpoint, took);
            }
            Ok(Reply::Progress { .. } | Reply::Part { .. }) if is_first => {
                timing.record_sign(endpoint, took);
            }
            _ => return,
        }
        self.signed = attempt.max(self.signed);
    }

    /// Nothing was heard of an attempt, the last one that was published: whoever got it is avoided.
    pub(super) async fn unheard(&mut self, attempt: u32) {
        let now = Instant::now();
        match self.way.take() {
            Some(Way::Group | Way::Trial) => {}
            Some(Way::Member(member)) => return self.queue.members.silent(&member),
            None => return,
        }
        self.swallowed = Some(attempt);
        if self.queue.members.suspect(now) {
            tracing::warn!(
                queue = %self.queue.name,
                "a worker seems to hang: nothing was heard of a request; others are asked past the group"
            );
        }
        if self.queue.members.asks(now) {
            self.tell(self.placer.members_question(&self.queue)).await;
        }
        if !self.queue.members.are_known(now) {
            // Whoever answers does so now: the group would swallow every other request that is sent again.
            sleep(self.queue.timing.round_trip().max(ANSWER_MIN) * 2).await;
        }
    }

    /// Learns from a reply which members answer. One that is not there any more has certainly not executed it.
    pub(super) fn note_member(
        &mut self,
        attempt: u32,
        reply: Result<Reply, EnvelopeError>,
    ) -> Result<Reply, EnvelopeError> {
        let members = &self.queue.members;
        let is_last = attempt == self.session.attempts_made();
        if matches!(reply, Ok(Reply::NoResponders)) {
            return match self.way.take_if(|_| is_last) {
                Some(Way::Member(member)) => {
                    members.silent(&member);
                    Ok(Reply::Refused { reason: RefusalReason::Draining, control: None })
                }
                _ => reply,
            };
        }
        let proves = match self.way.take_if(|_| is_last) {
            Some(Way::Trial) => members.group_heard(),
            _ => self.swallowed == Some(attempt) && members.late(),
        };
        if proves {
            tracing::info!(queue = %self.queue.name, "every worker answers again");
        }
        reply
    }
}
