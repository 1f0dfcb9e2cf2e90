//! Answers that were sent a moment before a link was lost, ours or the gateway's, and may have been lost with it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::envelope::Reply;
use crate::messaging::Subject;

/// How long before the loss was noticed an answer may have gone into the dying connection: the server's
/// pings find a dead link within two intervals.
const WINDOW: Duration = Duration::from_secs(10);
/// Answers that are remembered at most.
const MESSAGES_MAX: usize = 1024;
/// Bytes of them at most.
const BYTES_MAX: usize = 8 << 20;

/// The last answers, oldest first. Sent again after a reconnect, and to a gateway that asks after its own: one that
/// has an answer already ignores it.
#[derive(Debug, Default)]
pub struct Recent(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    sent: VecDeque<Sent>,
    bytes: usize,
}

#[derive(Debug)]
struct Sent {
    at: Instant,
    queue: usize,
    to: Subject,
    reply: Reply,
}

impl Recent {
    /// Remembers an answer of a queue that was handed to the transport.
    pub fn sent(&self, queue: usize, reply: Reply, to: Subject, now: Instant) {
        let mut state = self.lock();
        state.bytes += reply.body_bytes();
        state.sent.push_back(Sent { at: now, queue, to, reply });
        state.forget(now);
    }

    /// What may have been lost, in the order it was sent.
    #[must_use]
    pub fn all(&self, now: Instant) -> Vec<(Reply, Subject)> {
        self.those(now, |_| true)
    }

    /// What of one queue's went to these subjects or below.
    #[must_use]
    pub fn below(&self, queue: usize, names: &[Subject], now: Instant) -> Vec<(Reply, Subject)> {
        self.those(now, |sent| {
            let is_below = |name: &Subject| {
                let tail = sent.to.as_str().strip_prefix(name.as_str());
                tail.is_some_and(|tail| tail.is_empty() || tail.starts_with('.'))
            };
            sent.queue == queue && names.iter().any(is_below)
        })
    }

    fn those(&self, now: Instant, wanted: impl Fn(&Sent) -> bool) -> Vec<(Reply, Subject)> {
        let mut state = self.lock();
        state.forget(now);
        let sent = state.sent.iter().filter(|sent| wanted(sent));
        sent.map(|sent| (sent.reply.clone(), sent.to.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, now: Instant) {
        while let Some(oldest) = self.sent.front() {
            let is_full = self.sent.len() > MESSAGES_MAX || self.bytes > BYTES_MAX;
            if !is_full && now.saturating_duration_since(oldest.at) <= WINDOW {
                break;
            }
            if let Some(forgotten) = self.sent.pop_front() {
                self.bytes = self.bytes.saturating_sub(forgotten.reply.body_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(bytes: usize) -> Reply {
        Reply::Part { number: 1, bytes: vec![0; bytes].into(), head: None, control: None }
    }

    #[test]
    fn only_what_is_recent_and_within_bounds_is_sent_again() {
        let (start, to) = (Instant::now(), Subject::new("inbox.1").unwrap());
        let recent = Recent::default();
        recent.sent(0, part(1), to.clone(), start);
        recent.sent(0, part(2), to.clone(), start + WINDOW);
        recent.sent(0, part(3), to.clone(), start + WINDOW + WINDOW);
        let again = recent.all(start + WINDOW + WINDOW);
        assert_eq!(again.iter().map(|(reply, _)| reply.body_bytes()).collect::<Vec<_>>(), [2, 3]);
        let below = |queue, name| {
            let names = [Subject::new(name).unwrap()];
            recent.below(queue, &names, start + WINDOW + WINDOW).len()
        };
        assert_eq!((below(0, "inbox"), below(0, "inbox.1"), below(0, "in")), (2, 2, 0));
        assert_eq!(below(1, "inbox"), 0, "another queue's");
        let recent = Recent::default();
        for _ in 0..20 {
            recent.sent(0, part(1 << 20), to.clone(), start);
        }
        assert_eq!(recent.all(start).len(), 8);
    }
}
