//! Keeps recently sent answers, which can be lost together with the worker's or the gateway's link.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::envelope::Reply;
use crate::message::Subject;
use crate::roles::worker::subjects::QueueSubjects;

use super::running_jobs::JobId;

/// The maximum number of remembered replies.
const REPLIES_MAX: usize = 1024;
/// The maximum total size of the remembered replies, in bytes.
const BYTES_MAX: usize = 8 << 20;

/// The most recently sent parts and finals, with the oldest one first. Gateways request the replies that they missed.
#[derive(Debug)]
pub struct RecentReplies {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    age_max: Duration,
    replies: VecDeque<SentReply>,
    bytes: usize,
}

#[derive(Debug)]
struct SentReply {
    sent_at: Instant,
    job: JobId,
    /// The subjects of the job's queue, which the worker may have stopped serving.
    queue: Arc<QueueSubjects>,
    to: Subject,
    reply: Reply,
}

/// A job whose final has been sent.
#[derive(Clone, Debug)]
pub struct FinishedJob {
    /// The id of the job.
    pub id: JobId,
    /// The subject on which the worker receives messages about the job.
    pub control: Subject,
    /// The subject that the final was sent to.
    pub to: Subject,
}

impl RecentReplies {
    /// Creates an empty store. Replies are forgotten after `age_max`, which must be the longest time that it takes to
    /// replace a lost connection: during this time, replies may still be written to the lost connection.
    #[must_use]
    pub fn new(age_max: Duration) -> Self {
        let state = State { age_max, replies: VecDeque::new(), bytes: 0 };
        Self { state: Mutex::new(state) }
    }

    /// Changes the time for which replies are remembered, including replies that are already remembered.
    pub fn set_age_max(&self, age_max: Duration) {
        self.lock().age_max = age_max;
    }

    /// Remembers a part or the final of a job after it was passed to the transport.
    pub fn add(
        &self,
        (job, queue): (JobId, &Arc<QueueSubjects>),
        reply: Reply,
        to: Subject,
        now: Instant,
    ) {
        let mut state = self.lock();
        state.bytes += reply.body_bytes();
        let queue = Arc::clone(queue);
        state.replies.push_back(SentReply { sent_at: now, job, queue, to, reply });
        state.forget_old(now);
    }

    /// Returns the jobs whose final has been sent.
    #[must_use]
    pub fn finished_jobs(&self, now: Instant) -> Vec<FinishedJob> {
        let mut state = self.lock();
        state.forget_old(now);
        let finals = state.replies.iter().filter(|sent| matches!(sent.reply, Reply::Final(_)));
        let finished = finals.map(|sent| FinishedJob {
            id: sent.job,
            control: sent.queue.job_subject(sent.job.number),
            to: sent.to.clone(),
        });
        finished.collect()
    }

    /// Returns the jobs of a queue whose final was sent to one of `subjects` or to a subject below it.
    #[must_use]
    pub fn finished_below(&self, queue: usize, subjects: &[Subject], now: Instant) -> Vec<JobId> {
        let is_below = |to: &Subject, subject: &Subject| {
            let tail = to.as_str().strip_prefix(subject.as_str());
            tail.is_some_and(|tail| tail.is_empty() || tail.starts_with('.'))
        };
        let of_queue = self.finished_jobs(now).into_iter().filter(|job| job.id.queue == queue);
        of_queue
            .filter(|job| subjects.iter().any(|subject| is_below(&job.to, subject)))
            .map(|job| job.id)
            .collect()
    }

    /// Returns the replies of a job in the order in which they were sent. Each is returned with the subjects of its
    /// queue and the subject that it was sent to.
    #[must_use]
    pub fn of_job(&self, job: JobId, now: Instant) -> Vec<(Reply, Arc<QueueSubjects>, Subject)> {
        let mut state = self.lock();
        state.forget_old(now);
        let of_job = state.replies.iter().filter(|sent| sent.job == job);
        let replies =
            of_job.map(|sent| (sent.reply.clone(), Arc::clone(&sent.queue), sent.to.clone()));
        replies.collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget_old(&mut self, now: Instant) {
        while let Some(oldest) = self.replies.front() {
            let is_full = self.replies.len() > REPLIES_MAX || self.bytes > BYTES_MAX;
            if !is_full && now.saturating_duration_since(oldest.sent_at) <= self.age_max {
                break;
            }
            if let Some(forgotten) = self.replies.pop_front() {
                self.bytes = self.bytes.saturating_sub(forgotten.reply.body_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::QueueName;
    use crate::envelope::Final;
    use crate::outcome::Outcome;

    const QUEUE: usize = 3;
    const AGE_MAX: Duration = Duration::from_secs(10);

    fn answer(bytes: usize) -> Reply {
        Reply::Final(Final::whole(200, "text/plain", vec![0; bytes].into(), Outcome::Ok))
    }

    fn job(number: u64) -> JobId {
        JobId { queue: QUEUE, number }
    }

    fn add(recent: &RecentReplies, number: u64, reply: Reply, to: Subject, now: Instant) {
        let (prefix, name) = (Subject::new("f").unwrap(), QueueName::new("q").unwrap());
        let queue = QueueSubjects::new(&prefix, name, QUEUE, "w").unwrap();
        recent.add((job(number), &Arc::new(queue)), reply, to, now);
    }

    fn numbers(jobs: &[JobId]) -> Vec<u64> {
        jobs.iter().map(|job| job.number).collect()
    }

    #[test]
    fn replies_are_remembered_within_their_age_and_size() {
        let (start, to) = (Instant::now(), Subject::new("inbox.1").unwrap());
        let recent = RecentReplies::new(AGE_MAX);
        for (number, at) in [(1, start), (2, start + AGE_MAX), (3, start + AGE_MAX + AGE_MAX)] {
            add(&recent, number, answer(1), to.clone(), at);
        }
        let now = start + AGE_MAX + AGE_MAX;
        let jobs: Vec<_> = recent.finished_jobs(now).into_iter().map(|job| job.id).collect();
        assert_eq!(numbers(&jobs), [2, 3]);
        let recent = RecentReplies::new(AGE_MAX);
        for number in 0..20 {
            add(&recent, number, answer(1 << 20), to.clone(), start);
        }
        assert_eq!(recent.finished_jobs(start).len(), 8);
    }

    #[test]
    fn a_reload_changes_how_long_replies_are_remembered() {
        let (start, to) = (Instant::now(), Subject::new("inbox.1").unwrap());
        let recent = RecentReplies::new(AGE_MAX);
        add(&recent, 1, answer(1), to, start);
        recent.set_age_max(AGE_MAX * 3);
        assert_eq!(recent.finished_jobs(start + AGE_MAX * 2).len(), 1);
        recent.set_age_max(AGE_MAX);
        assert_eq!(recent.finished_jobs(start + AGE_MAX * 2).len(), 0);
    }

    #[test]
    fn a_job_is_found_by_its_reply_subject_and_its_answer_includes_the_parts() {
        let (now, to) = (Instant::now(), Subject::new("inbox.r.1.17.1.99").unwrap());
        let recent = RecentReplies::new(AGE_MAX);
        let part = Reply::Part { number: 1, bytes: "a".into(), head: None, control: None };
        add(&recent, 7, part, to.clone(), now);
        add(&recent, 7, answer(1), to, now);
        add(&recent, 8, answer(1), Subject::new("inbox.r.1.171.1.99").unwrap(), now);
        let below = |queue, subject: &str| {
            numbers(&recent.finished_below(queue, &[Subject::new(subject).unwrap()], now))
        };
        assert_eq!(below(QUEUE, "inbox.r.1.17"), [7]);
        assert_eq!(below(QUEUE, "inbox.r"), [7, 8]);
        assert!(below(QUEUE, "inbox.r.1.1").is_empty());
        assert!(below(QUEUE + 1, "inbox.r").is_empty(), "these jobs belong to another queue");
        assert_eq!(recent.of_job(job(7), now).len(), 2);
    }
}
