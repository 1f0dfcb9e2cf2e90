//! Resends answers that gateways did not receive. The rate is limited, because gateways request
//! many answers in one burst after an outage, and a NATS server disconnects clients that read too
//! slowly.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::envelope::{Final, Reply};
use crate::lifecycle::Tasks;
use crate::messaging;
use crate::telemetry::{counter, names};

use super::recent_replies::RecentReplies;
use super::reply_sender::ReplySender;
use super::running_jobs::JobId;

/// The maximum number of queued requests to resend an answer. Further requests are dropped. The gateway
/// then repeats them, or treats the call as lost.
const REQUESTS_MAX: usize = 1024;
/// The rate at which a worker resends answers, and sends answers that an outage has delayed.
const BYTES_PER_SECOND: f64 = 8.0 * 1024.0 * 1024.0;
/// The number of answers that are announced between two pauses.
const PAGE: usize = 64;
/// The pause after each page.
const PAGE_PAUSE: Duration = Duration::from_millis(5);

/// A limit on the rate at which answers are sent after an outage.
#[derive(Debug, Default)]
pub struct SendThrottle(Mutex<Option<Instant>>);

impl SendThrottle {
    /// Waits until a reply of `bytes` bytes may be sent. This method is cancel safe.
    pub async fn wait(&self, bytes: usize) {
        sleep_until(self.reserve(bytes, Instant::now())).await;
    }

    /// Reserves time for the bytes. Returns the time at which they may be sent.
    fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = free.map_or(now, |free| free.max(now));
        #[expect(clippy::cast_precision_loss, reason = "bounded by the largest message")]
        let duration = Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND);
        *free = Some(start + duration);
        start
    }
}

/// A queue of gateways' requests to resend an answer.
#[derive(Debug)]
pub struct ResendQueue(mpsc::Sender<JobId>);

impl ResendQueue {
    /// Creates the queue and its receiver, from which `Resender::run` reads.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<JobId>) {
        let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
        (Self(sender), receiver)
    }

    /// Queues a request to resend the answer of a job. Drops it if the queue is full.
    pub fn request(&self, job: JobId) {
        if self.0.try_send(job).is_err() {
            count("dropped");
        }
    }
}

/// Resends answers to gateways.
#[derive(Clone, Debug)]
pub struct Resender {
    /// The sender of replies to the gateways.
    pub replies: ReplySender,
    /// The recently sent answers.
    pub recent: Arc<RecentReplies>,
    /// The limit on the rate.
    pub throttle: Arc<SendThrottle>,
}

impl Resender {
    /// Starts two tasks. One resends answers, and the other announces them after the connection was
    /// lost.
    pub fn start(&self, requests: mpsc::Receiver<JobId>, tasks: &Tasks) {
        let _detached = tasks.spawn_background(self.clone().run(requests));
        self.follow_link(tasks);
    }

    /// Resends requested answers. Ends when the queue is closed.
    async fn run(self, mut requests: mpsc::Receiver<JobId>) {
        while let Some(job) = requests.recv().await {
            for (mut reply, queue, to) in self.recent.of_job(job, Instant::now()) {
                // Once the gateway knows this subject, it accepts only replies that name it.
                if let Reply::Part { control, .. } | Reply::Final(Final { control, .. }) =
                    &mut reply
                {
                    control.get_or_insert_with(|| queue.job_subject(job.number));
                }
                self.throttle.wait(reply.body_bytes()).await;
                match self.replies.send(reply, to).await {
                    Ok(()) => count("sent"),
                    Err(error) => {
                        count("unsent");
                        tracing::debug!(%error, "could not resend an answer");
                    }
                }
            }
        }
    }

    /// Starts the task that announces the recent answers after every loss of the connection, so
    /// that gateways can request those that were lost.
    fn follow_link(&self, tasks: &Tasks) {
        let resender = self.clone();
        let mut link = self.replies.link();
        let mut epoch = link.borrow().epoch;
        let _detached = tasks.spawn_background(async move {
            while let Some(next) = messaging::next_epoch(&mut link, epoch).await {
                epoch = next;
                resender.announce().await;
            }
        });
    }

    async fn announce(&self) {
        let finished = self.recent.finished_jobs(Instant::now());
        for page in finished.chunks(PAGE) {
            for job in page {
                let control = job.control.clone();
                self.replies.try_send(Reply::Answered { control }, job.to.clone());
            }
            sleep(PAGE_PAUSE).await;
        }
    }
}

fn count(result: &str) {
    counter(&names::WORKER_RESENT, &[(names::RESULT, result.to_owned())]).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_spread_over_time_and_idle_time_does_not_accumulate() {
        let (throttle, start) = (SendThrottle::default(), Instant::now());
        let second = 8 << 20;
        assert_eq!(throttle.reserve(second, start), start, "the first is sent immediately");
        assert_eq!(throttle.reserve(second, start), start + Duration::from_secs(1));
        assert_eq!(throttle.reserve(second, start), start + Duration::from_secs(2));
        let later = start + Duration::from_mins(1);
        assert_eq!(throttle.reserve(second, later), later);
        assert_eq!(throttle.reserve(0, later), later + Duration::from_secs(1));
    }
}
