//! Answers that were sent a moment before a link was lost, ours or the gateway's, and may have been lost with it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::envelope::Reply;
use crate::message::Subject;

use crate::roles::worker::execution::running_jobs::JobId;

/// How long before the loss was noticed an answer may have gone into the dying connection: the server's
/// pings find a dead link within two intervals.
const WINDOW: Duration = Duration::from_secs(10);
/// Messages that are remembered at most.
const MESSAGES_MAX: usize = 1024;
/// Bytes of them at most.
const BYTES_MAX: usize = 8 << 20;

/// The last answers, oldest first. A gateway that lacks one asks for it.
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
    job: JobId,
    to: Subject,
    reply: Reply,
}

impl Recent {
    /// Remembers a part or the final of a job's answer that was handed to the transport.
    pub fn sent(&self, job: JobId, reply: Reply, to: Subject, now: Instant) {
        let mut state = self.lock();
        state.bytes += reply.body_bytes();
        state.sent.push_back(Sent { at: now, job, to, reply });
        state.forget(now);
    }

    /// The jobs that were answered, and where to.
    #[must_use]
    pub fn answered(&self, now: Instant) -> Vec<(JobId, Subject)> {
        let mut state = self.lock();
        state.forget(now);
        let finals = state.sent.iter().filter(|sent| matches!(sent.reply, Reply::Final(_)));
        finals.map(|sent| (sent.job, sent.to.clone())).collect()
    }

    /// The jobs of a queue that were answered to these subjects or below.
    #[must_use]
    pub fn below(&self, queue: usize, names: &[Subject], now: Instant) -> Vec<JobId> {
        let is_below = |to: &Subject, name: &Subject| {
            let tail = to.as_str().strip_prefix(name.as_str());
            tail.is_some_and(|tail| tail.is_empty() || tail.starts_with('.'))
        };
        let of_queue = self.answered(now).into_iter().filter(|(job, _)| job.queue == queue);
        of_queue
            .filter(|(_, to)| names.iter().any(|name| is_below(to, name)))
            .map(|(job, _)| job)
            .collect()
    }

    /// A job's answer, in the order it was sent.
    #[must_use]
    pub fn answer(&self, job: JobId, now: Instant) -> Vec<(Reply, Subject)> {
        let mut state = self.lock();
        state.forget(now);
        let of_job = state.sent.iter().filter(|sent| sent.job == job);
        of_job.map(|sent| (sent.reply.clone(), sent.to.clone())).collect()
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
    use crate::envelope::Final;
    use crate::outcome::Word;

    const QUEUE: usize = 3;

    fn answer(bytes: usize) -> Reply {
        Reply::Final(Final::whole(200, "text/plain", vec![0; bytes].into(), Word::Ok))
    }

    fn job(number: u64) -> JobId {
        JobId { queue: QUEUE, number }
    }

    fn numbers(jobs: &[JobId]) -> Vec<u64> {
        jobs.iter().map(|job| job.number).collect()
    }

    #[test]
    fn only_what_is_recent_and_within_bounds_is_remembered() {
        let (start, to) = (Instant::now(), Subject::new("inbox.1").unwrap());
        let recent = Recent::default();
        for (number, at) in [(1, start), (2, start + WINDOW), (3, start + WINDOW + WINDOW)] {
            recent.sent(job(number), answer(1), to.clone(), at);
        }
        let now = start + WINDOW + WINDOW;
        let jobs: Vec<_> = recent.answered(now).into_iter().map(|(job, _)| job).collect();
        assert_eq!(numbers(&jobs), [2, 3]);
        let recent = Recent::default();
        for number in 0..20 {
            recent.sent(job(number), answer(1 << 20), to.clone(), start);
        }
        assert_eq!(recent.answered(start).len(), 8);
    }

    #[test]
    fn an_answer_is_found_by_the_request_and_comes_with_its_parts() {
        let (now, to) = (Instant::now(), Subject::new("inbox.r.1.17.1.99").unwrap());
        let recent = Recent::default();
        let part = Reply::Part { number: 1, bytes: "a".into(), head: None, control: None };
        recent.sent(job(7), part, to.clone(), now);
        recent.sent(job(7), answer(1), to, now);
        recent.sent(job(8), answer(1), Subject::new("inbox.r.1.171.1.99").unwrap(), now);
        let below =
            |queue, name: &str| numbers(&recent.below(queue, &[Subject::new(name).unwrap()], now));
        assert_eq!(below(QUEUE, "inbox.r.1.17"), [7]);
        assert_eq!(below(QUEUE, "inbox.r"), [7, 8]);
        assert!(below(QUEUE, "inbox.r.1.1").is_empty());
        assert!(below(QUEUE + 1, "inbox.r").is_empty(), "another queue's");
        assert_eq!(recent.answer(job(7), now).len(), 2);
    }
}
