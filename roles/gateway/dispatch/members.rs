//! Which workers of a queue answer, while one of them is suspected to hang.
//!
//! A queue group picks its members at random, and knows nothing of one that is connected and does nothing. So once an
//! attempt was unheard of, the gateway asks who is there, and sends to those that answer, one after the other, until the
//! group has proved itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::message::Subject;
use crate::telemetry::Gauge;

/// Workers of a queue that are remembered.
const MEMBERS_MAX: usize = 256;
/// How often it is asked who is there.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A member that has not answered for this long is left out.
const HEARD_WITHIN: Duration = Duration::from_secs(3);
/// After an attempt that the group swallowed, nothing is sent there for this long.
const GROUP_PAUSE: Duration = Duration::from_secs(10);
/// Then one request so often is, to see whether all answer.
const GROUP_EVERY: Duration = Duration::from_secs(1);
/// Another suspicion within this time is no news: a worker that is only slow is suspected again and again.
const NEWS_EVERY: Duration = Duration::from_mins(1);
/// So many in a row that were heard prove the group.
const GROUP_HEARD: u32 = 8;

/// Where a request goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// To the group.
    #[default]
    Group,
    /// To the group, to see whether all of it answers.
    Trial,
    /// To a member that answers.
    Member(Subject),
}

/// The members of one queue's group.
pub struct Members {
    suspected: Gauge,
    /// Whether one of them is suspected: read for every request, so without the lock.
    is_suspected: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Where each takes requests, and when it was heard last.
    heard: Vec<(Subject, Instant)>,
    next: usize,
    asked: Option<Instant>,
    /// When the group may be tried again.
    group_at: Option<Instant>,
    /// Requests to the group that were heard since the last one that was not.
    group_heard: u32,
    /// When it was last news that one is suspected.
    told: Option<Instant>,
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Members").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Members {
    /// Nobody is suspected.
    #[must_use]
    pub fn new(suspected: Gauge) -> Self {
        suspected.set(0.0);
        Self { suspected, is_suspected: AtomicBool::new(false), state: Mutex::default() }
    }

    /// Whether a member is suspected.
    #[must_use]
    pub fn is_suspected(&self) -> bool {
        self.is_suspected.load(Ordering::Relaxed)
    }

    /// The group swallowed an attempt. Whether that is news.
    pub fn suspect(&self, now: Instant) -> bool {
        let mut state = self.lock();
        state.group_at = Some(now + GROUP_PAUSE);
        state.group_heard = 0;
        self.suspected.set(1.0);
        let is_new = !self.is_suspected.swap(true, Ordering::Relaxed);
        let told = state.told;
        let is_news =
            is_new && told.is_none_or(|at| now.saturating_duration_since(at) >= NEWS_EVERY);
        if is_news {
            state.told = Some(now);
        }
        is_news
    }

    /// Whether it is time to ask who is there.
    #[must_use]
    pub fn asks(&self, now: Instant) -> bool {
        if !self.is_suspected() {
            return false;
        }
        let mut state = self.lock();
        let is_time = state.asked.is_none_or(|at| now.saturating_duration_since(at) >= ASK_EVERY);
        if is_time {
            state.asked = Some(now);
        }
        is_time
    }

    /// A member that takes requests there has answered.
    pub fn heard(&self, direct: Subject, now: Instant) {
        let mut state = self.lock();
        if let Some((_, at)) = state.heard.iter_mut().find(|(known, _)| *known == direct) {
            *at = now;
        } else if state.heard.len() < MEMBERS_MAX {
            state.heard.push((direct, now));
        }
    }

    /// Whether any has answered of late.
    #[must_use]
    pub fn are_known(&self, now: Instant) -> bool {
        let is_fresh = |at: &Instant| now.saturating_duration_since(*at) <= HEARD_WITHIN;
        self.lock().heard.iter().any(|(_, at)| is_fresh(at))
    }

    /// A member did not answer.
    pub fn silent(&self, direct: &Subject) {
        self.lock().heard.retain(|(known, _)| known != direct);
    }

    /// Where the next request goes.
    #[must_use]
    pub fn pick(&self, now: Instant) -> Way {
        if !self.is_suspected() {
            return Way::Group;
        }
        let mut state = self.lock();
        if state.group_at.is_none_or(|at| now >= at) {
            state.group_at = Some(now + GROUP_EVERY);
            return Way::Trial;
        }
        state.heard.retain(|(_, at)| now.saturating_duration_since(*at) <= HEARD_WITHIN);
        state.next = state.next.wrapping_add(1);
        let place = state.next.checked_rem(state.heard.len());
        let member = place.and_then(|place| state.heard.get(place));
        member.map_or(Way::Group, |(direct, _)| Way::Member(direct.clone()))
    }

    /// A request that tried the group was heard. Whether that ends the suspicion.
    pub fn group_heard(&self) -> bool {
        if !self.is_suspected() {
            return false;
        }
        let mut state = self.lock();
        state.group_heard += 1;
        let is_proved = state.group_heard >= GROUP_HEARD;
        if is_proved {
            self.clear(&mut state);
        }
        is_proved
    }

    /// The answer to an attempt that had been taken for swallowed: whoever was suspected answers. Whether that is news.
    pub fn late(&self) -> bool {
        let was = self.is_suspected();
        if was {
            self.clear(&mut self.lock());
        }
        was
    }

    fn clear(&self, state: &mut State) {
        *state = State { told: state.told, ..State::default() };
        self.suspected.set(0.0);
        self.is_suspected.store(false, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct(name: &str) -> Subject {
        Subject::new(&format!("w.q.{name}.q")).unwrap()
    }

    fn suspected(now: Instant) -> Members {
        let members = Members::new(Gauge::noop());
        assert!(members.suspect(now));
        members.heard(direct("a"), now);
        members.heard(direct("b"), now);
        members
    }

    #[test]
    fn requests_go_to_the_group_until_one_was_swallowed_and_then_to_those_that_answer() {
        let now = Instant::now();
        let members = Members::new(Gauge::noop());
        assert_eq!(members.pick(now), Way::Group);
        assert!(!members.asks(now));
        let members = suspected(now);
        assert!(members.asks(now) && !members.asks(now), "once a second");
        assert!(members.asks(now + ASK_EVERY));
        let picked = [members.pick(now), members.pick(now), members.pick(now)];
        assert_eq!(picked, ["b", "a", "b"].map(|name| Way::Member(direct(name))));
        members.silent(&direct("b"));
        assert_eq!(members.pick(now), Way::Member(direct("a")));
        let later = now + HEARD_WITHIN + Duration::from_millis(1);
        assert_eq!(members.pick(later), Way::Group, "nobody has answered of late");
    }

    #[test]
    fn the_group_proves_itself_with_single_requests() {
        let now = Instant::now();
        let members = suspected(now);
        for second in 0..8 {
            let at = now + GROUP_PAUSE + GROUP_EVERY * second;
            members.heard(direct("a"), at);
            assert_eq!(members.pick(at), Way::Trial, "one goes to the group");
            assert_eq!(members.pick(at), Way::Member(direct("a")), "and no other");
            assert_eq!(members.group_heard(), second == 7);
        }
        assert!(!members.is_suspected());
        let members = suspected(now);
        members.group_heard();
        assert!(!members.suspect(now + GROUP_PAUSE), "known already");
        members.heard(direct("a"), now + GROUP_PAUSE);
        let again = Way::Member(direct("a"));
        assert_eq!(members.pick(now + GROUP_PAUSE), again, "and avoided again");
        assert!(members.late(), "it answers after all");
        assert!(!members.is_suspected());
    }
}
