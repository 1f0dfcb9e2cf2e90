//! The workers of a queue that are known to reply. They are tracked while any worker of the queue
//! is suspected of hanging.
//!
//! NATS picks a member of a queue group at random, even one that is connected but hangs. When an
//! attempt gets no reply, the gateway therefore asks all members to identify themselves and sends
//! requests in turn to the members that reply, until probe requests show that the whole group
//! replies.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::message::Subject;
use crate::telemetry::Gauge;

/// The maximum number of workers that are tracked per queue.
const MEMBERS_MAX: usize = 256;
/// The interval at which members are asked to identify themselves.
const QUERY_INTERVAL: Duration = Duration::from_secs(1);
/// A member that has not replied for this long gets no requests.
const ALIVE_WITHIN: Duration = Duration::from_secs(3);
/// For this long after an unanswered attempt, the group gets requests only if no member replies.
const GROUP_PAUSE: Duration = Duration::from_secs(10);
/// After `GROUP_PAUSE`, one request per interval tests whether all members of the group reply.
const GROUP_PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The minimum interval between two log lines about suspicions. It is needed because a slow worker
/// is suspected repeatedly.
const LOG_INTERVAL: Duration = Duration::from_mins(1);
/// The number of consecutive replies to probes after which the whole group is assumed to reply.
const GROUP_REPLIES_MIN: u32 = 8;

/// The recipient of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Recipient {
    /// The group.
    #[default]
    Group,
    /// The group, to test whether all of its members reply.
    GroupProbe,
    /// One member that is known to reply, by its subject.
    Member(Subject),
}

/// The members of one queue's group.
pub struct Members {
    suspected_metric: Gauge,
    /// Whether a member is suspected of hanging. Atomic, because it is read for every request.
    is_suspected: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    alive: Vec<QueueMember>,
    next: usize,
    queried_at: Option<Instant>,
    /// The time from which probe requests may be sent to the group.
    group_probe_at: Option<Instant>,
    /// The number of replies to probes since the last attempt to the group that got no reply.
    group_replies: u32,
    logged_at: Option<Instant>,
}

#[derive(Debug)]
struct QueueMember {
    /// The subject on which the member receives requests.
    subject: Subject,
    replied_at: Instant,
}

impl QueueMember {
    fn is_alive(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.replied_at) <= ALIVE_WITHIN
    }
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Members").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Members {
    /// Creates a group without suspected members.
    #[must_use]
    pub fn new(suspected_metric: Gauge) -> Self {
        suspected_metric.set(0.0);
        Self { suspected_metric, is_suspected: AtomicBool::new(false), state: Mutex::default() }
    }

    /// Returns whether a member is suspected of hanging.
    #[must_use]
    pub fn is_suspected(&self) -> bool {
        self.is_suspected.load(Ordering::Relaxed)
    }

    /// Records that an attempt to the group got no reply. Returns whether to log the suspicion.
    pub fn record_no_reply(&self, now: Instant) -> bool {
        let mut state = self.lock();
        state.group_probe_at = Some(now + GROUP_PAUSE);
        state.group_replies = 0;
        self.suspected_metric.set(1.0);
        let is_new = !self.is_suspected.swap(true, Ordering::Relaxed);
        let is_log_due =
            state.logged_at.is_none_or(|at| now.saturating_duration_since(at) >= LOG_INTERVAL);
        if is_new && is_log_due {
            state.logged_at = Some(now);
        }
        is_new && is_log_due
    }

    /// Returns whether to ask the members to identify themselves now. Returns true at most once per interval.
    #[must_use]
    pub fn start_query_if_due(&self, now: Instant) -> bool {
        if !self.is_suspected() {
            return false;
        }
        let mut state = self.lock();
        let is_due =
            state.queried_at.is_none_or(|at| now.saturating_duration_since(at) >= QUERY_INTERVAL);
        if is_due {
            state.queried_at = Some(now);
        }
        is_due
    }

    /// Records a reply from the member with this subject.
    pub fn record_reply(&self, subject: Subject, now: Instant) {
        let mut state = self.lock();
        if let Some(member) = state.alive.iter_mut().find(|member| member.subject == subject) {
            member.replied_at = now;
        } else if state.alive.len() < MEMBERS_MAX {
            state.alive.push(QueueMember { subject, replied_at: now });
        }
    }

    /// Returns whether any member has replied recently.
    #[must_use]
    pub fn has_responsive(&self, now: Instant) -> bool {
        self.lock().alive.iter().any(|member| member.is_alive(now))
    }

    /// Removes a member that did not reply.
    pub fn remove(&self, subject: &Subject) {
        self.lock().alive.retain(|member| member.subject != *subject);
    }

    /// Chooses the recipient of the next request.
    #[must_use]
    pub fn choose_recipient(&self, now: Instant) -> Recipient {
        if !self.is_suspected() {
            return Recipient::Group;
        }
        let mut state = self.lock();
        if state.group_probe_at.is_none_or(|at| now >= at) {
            state.group_probe_at = Some(now + GROUP_PROBE_INTERVAL);
            return Recipient::GroupProbe;
        }
        state.alive.retain(|member| member.is_alive(now));
        state.next = state.next.wrapping_add(1);
        let index = state.next.checked_rem(state.alive.len());
        let member = index.and_then(|index| state.alive.get(index));
        member.map_or(Recipient::Group, |member| Recipient::Member(member.subject.clone()))
    }

    /// Records a reply to a probe of the group. Returns whether it ends the suspicion.
    pub fn record_group_reply(&self) -> bool {
        if !self.is_suspected() {
            return false;
        }
        let mut state = self.lock();
        state.group_replies += 1;
        let has_recovered = state.group_replies >= GROUP_REPLIES_MIN;
        if has_recovered {
            self.clear(&mut state);
        }
        has_recovered
    }

    /// Handles a late reply that refutes the suspicion. Returns whether a member was suspected.
    pub fn record_late_reply(&self) -> bool {
        let was_suspected = self.is_suspected();
        if was_suspected {
            self.clear(&mut self.lock());
        }
        was_suspected
    }

    fn clear(&self, state: &mut State) {
        *state = State { logged_at: state.logged_at, ..State::default() };
        self.suspected_metric.set(0.0);
        self.is_suspected.store(false, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(name: &str) -> Subject {
        Subject::new(&format!("w.q.{name}.q")).unwrap()
    }

    fn suspected(now: Instant) -> Members {
        let members = Members::new(Gauge::noop());
        assert!(members.record_no_reply(now));
        members.record_reply(subject("a"), now);
        members.record_reply(subject("b"), now);
        members
    }

    #[test]
    fn requests_go_to_the_group_until_one_gets_no_reply_and_then_to_members_that_reply() {
        let now = Instant::now();
        let members = Members::new(Gauge::noop());
        assert_eq!(members.choose_recipient(now), Recipient::Group);
        assert!(!members.start_query_if_due(now));
        let members = suspected(now);
        assert!(
            members.start_query_if_due(now) && !members.start_query_if_due(now),
            "once a second"
        );
        assert!(members.start_query_if_due(now + QUERY_INTERVAL));
        let chosen = [(); 3].map(|()| members.choose_recipient(now));
        assert_eq!(chosen, ["b", "a", "b"].map(|name| Recipient::Member(subject(name))));
        members.remove(&subject("b"));
        assert_eq!(members.choose_recipient(now), Recipient::Member(subject("a")));
        let later = now + ALIVE_WITHIN + Duration::from_millis(1);
        assert_eq!(members.choose_recipient(later), Recipient::Group, "no recent reply");
    }

    #[test]
    fn single_requests_test_the_group_until_the_suspicion_ends() {
        let now = Instant::now();
        let members = suspected(now);
        for second in 0..8 {
            let at = now + GROUP_PAUSE + GROUP_PROBE_INTERVAL * second;
            members.record_reply(subject("a"), at);
            assert_eq!(
                members.choose_recipient(at),
                Recipient::GroupProbe,
                "one request is sent as a probe"
            );
            let next = members.choose_recipient(at);
            assert_eq!(next, Recipient::Member(subject("a")), "and no other request is");
            assert_eq!(members.record_group_reply(), second == 7);
        }
        assert!(!members.is_suspected());
        let members = suspected(now);
        members.record_group_reply();
        assert!(!members.record_no_reply(now + GROUP_PAUSE), "already known");
        members.record_reply(subject("a"), now + GROUP_PAUSE);
        let next = members.choose_recipient(now + GROUP_PAUSE);
        assert_eq!(next, Recipient::Member(subject("a")), "the group is avoided again");
        assert!(members.record_late_reply(), "it replies after all");
        assert!(!members.is_suspected());
    }
}
