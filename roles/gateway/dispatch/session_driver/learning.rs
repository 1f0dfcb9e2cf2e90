//! Learns from replies and missing replies. It measures how long workers take, and finds out which
//! workers reply.

use std::time::Duration;

use tokio::time::Instant;

use crate::envelope::{EnvelopeError, RefusalReason, Reply};
use crate::roles::gateway::dispatch::message::AttemptReply;
use crate::roles::gateway::dispatch::queues::members::Recipient;
use crate::roles::gateway::dispatch::session::SessionEvent;
use crate::telemetry::conditions::{self, ConditionKind};

use super::{DriverAction, DriverContext, SessionDriver};

/// The shortest round trip that is assumed when waiting for members to identify themselves.
const MEMBER_REPLY_MIN: Duration = Duration::from_millis(10);

/// Logged when the gateway begins to drop answers. All requests share one condition, because the
/// access line of each request contains its outcome.
const ANSWERS_DROPPED: ConditionKind =
    ConditionKind::new("the byte budget for answers is exhausted");

impl SessionDriver {
    /// Updates the queue's timing and members from a reply, and turns the reply into a session
    /// event.
    pub(super) fn learn(
        &mut self,
        reply: AttemptReply,
        context: &DriverContext<'_>,
    ) -> SessionEvent {
        let AttemptReply { attempt, reply, has_room, .. } = reply;
        self.record_times(attempt, &reply, context.now);
        let reply = self.record_member_reply(attempt, reply);
        if matches!(reply, Ok(Reply::Refused { .. })) {
            // The session may send the request again without having waited in the queue.
            self.session.set_estimate(self.queue.timing.estimate(&self.endpoint));
        }
        let is_closed = matches!(
            reply,
            Ok(Reply::NoResponders | Reply::Refused { reason: RefusalReason::Paused, .. })
        );
        if !is_closed {
            self.queue.wait_queue.on_member_reply();
        }
        // A session that is still waiting after a late reply needs its waiter id to leave the
        // queue.
        if !matches!(reply, Ok(Reply::NoResponders | Reply::Refused { .. }))
            && !self.session.is_waiting()
        {
            self.waiter.on_accepted(&self.queue.wait_queue, context.now);
        }
        let is_needed = match &reply {
            Ok(Reply::Part { number, .. }) => !self.session.has_part(attempt, *number),
            Ok(Reply::Final(_)) => true,
            _ => false,
        };
        if is_needed && !has_room {
            if conditions::raise(&ANSWERS_DROPPED, "") {
                tracing::warn!("dropping an answer: the byte budget is exhausted");
            }
            return SessionEvent::ReplyDropped { attempt };
        }
        SessionEvent::Reply { attempt, reply }
    }

    fn record_times(&mut self, attempt: u32, reply: &Result<Reply, EnvelopeError>, now: Instant) {
        let Some(sent_at) = self.session.attempt_sent_at(attempt) else { return };
        let (timing, endpoint) = (&self.queue.timing, &self.endpoint);
        let duration = now.saturating_duration_since(sent_at);
        let is_first = self.replied < attempt;
        match reply {
            Ok(Reply::Refused { .. }) => timing.record_round_trip(duration, now),
            Ok(Reply::Claim { .. }) => {
                timing.record_round_trip(duration, now);
                timing.record_first_reply(endpoint, duration);
            }
            Ok(Reply::Final(answer)) => {
                if let Some(phases) = &answer.phases {
                    timing.record_round_trip(duration.saturating_sub(phases.total), now);
                }
                if is_first {
                    timing.record_first_reply(endpoint, duration);
                }
                timing.record_answer(endpoint, duration);
            }
            Ok(Reply::Progress { .. } | Reply::Part { .. }) if is_first => {
                timing.record_first_reply(endpoint, duration);
            }
            _ => return,
        }
        self.replied = attempt.max(self.replied);
    }

    /// Records which members reply. `NoResponders` to a request that was sent to a single member
    /// means that the member is gone, and is handled like a refusal.
    fn record_member_reply(
        &mut self,
        attempt: u32,
        reply: Result<Reply, EnvelopeError>,
    ) -> Result<Reply, EnvelopeError> {
        let members = &self.queue.members;
        let is_latest = attempt == self.session.attempts_made();
        let recipient = self.recipient.take_if(|_| is_latest);
        if matches!(reply, Ok(Reply::NoResponders)) {
            if matches!(recipient, Some(Recipient::Group | Recipient::GroupProbe)) {
                self.queue.deliveries.count_unserved();
            }
            return match recipient {
                Some(Recipient::Member(member)) => {
                    members.remove(&member);
                    Ok(Reply::Refused { reason: RefusalReason::Draining, control: None })
                }
                _ => reply,
            };
        }
        let ends_suspicion = match recipient {
            Some(Recipient::GroupProbe) => members.record_group_reply(),
            _ => self.unanswered == Some(attempt) && members.record_late_reply(),
        };
        if ends_suspicion {
            tracing::info!(queue = %self.queue.name, "every worker replies again");
        }
        reply
    }

    /// Records that the latest attempt got no reply in time, so that later requests avoid the
    /// worker that received the attempt.
    pub(super) fn on_no_reply(
        &mut self,
        attempt: u32,
        is_resent: bool,
        now: Instant,
    ) -> Option<DriverAction> {
        let members = &self.queue.members;
        match self.recipient.take()? {
            Recipient::Group | Recipient::GroupProbe => {}
            Recipient::Member(member) => {
                members.remove(&member);
                return None;
            }
        }
        self.unanswered = Some(attempt);
        if members.record_no_reply(now) {
            tracing::warn!(
                queue = %self.queue.name,
                "a request got no reply, so a worker may be hanging; sending requests to individual workers instead of \
                 the queue group"
            );
        }
        let query = members.start_query_if_due(now);
        // Without the pause, NATS could deliver the resubmission to the same worker of the group. The pause ends before
        // the request's time to be accepted does.
        let pause = (is_resent && !members.has_responsive(now)).then(|| {
            let pause = self.queue.timing.round_trip().max(MEMBER_REPLY_MIN) * 2;
            pause.min(self.session.time_to_accept(now) / 2)
        });
        (query || pause.is_some()).then_some(DriverAction::FindMembers { query, pause })
    }
}
