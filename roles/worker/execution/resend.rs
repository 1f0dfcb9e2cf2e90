//! Sends answers again to gateways that lack them, at a bounded pace: after an outage many are asked for at once, and a
//! server cuts off whoever it cannot keep up with.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::envelope::{Final, Reply};
use crate::messaging;
use crate::telemetry::{counter, names};

use crate::roles::worker::execution::executor::Dispatch;
use crate::roles::worker::execution::running_jobs::JobId;
use crate::roles::worker::intake::control::QueueTable;

/// Answers that are asked for and not sent yet, at most. What is asked for beyond is dropped: the gateway asks again, or
/// takes the call for lost.
const ASKED_MAX: usize = 1024;
/// Bytes a second that one worker sends again, or late.
const BYTES_PER_SECOND: f64 = 8.0 * 1024.0 * 1024.0;
/// Answers that are announced together.
const PAGE: usize = 64;
/// Pause after each of them.
const PAGE_PAUSE: Duration = Duration::from_millis(5);

/// Keeps what is sent after an outage to a pace, all of it together.
#[derive(Debug, Default)]
pub struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// Waits until so many bytes may go. Safe to drop.
    pub async fn wait(&self, bytes: usize) {
        sleep_until(self.take(bytes, Instant::now())).await;
    }

    /// When they may go: at once, unless others went a moment ago.
    fn take(&self, bytes: usize, now: Instant) -> Instant {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = free.map_or(now, |free| free.max(now));
        #[expect(clippy::cast_precision_loss, reason = "bounded by the largest message")]
        let takes = Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND);
        *free = Some(start + takes);
        start
    }
}

/// Where answers are asked for again.
#[derive(Debug)]
pub struct Resend(mpsc::Sender<JobId>);

impl Resend {
    /// Also gives what `run` reads.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<JobId>) {
        let (sender, receiver) = mpsc::channel(ASKED_MAX);
        (Self(sender), receiver)
    }

    /// A gateway lacks the answer of this job. Never waits.
    pub fn ask(&self, job: JobId) {
        if self.0.try_send(job).is_err() {
            count("dropped");
        }
    }
}

/// Sends what is asked for, until nobody can ask any more.
pub async fn run(dispatch: Arc<Dispatch>, queues: QueueTable, mut asked: mpsc::Receiver<JobId>) {
    while let Some(job) = asked.recv().await {
        let Some(queue) = queues.load().get(job.queue).cloned() else { continue };
        for (mut reply, to) in dispatch.recent.answer(job, Instant::now()) {
            // To be asked for it the job was named: from then on only what names it counts.
            if let Reply::Part { control, .. } | Reply::Final(Final { control, .. }) = &mut reply {
                control.get_or_insert_with(|| queue.job_subject(job.number));
            }
            dispatch.pace.wait(reply.body_bytes()).await;
            match dispatch.send(reply, to).await {
                Ok(()) => count("sent"),
                Err(error) => {
                    count("unsent");
                    tracing::debug!(%error, "an answer was not sent again");
                }
            }
        }
    }
}

/// After every loss of the link tells gateways which answers they should have: those that lack one say so.
pub fn follow_link(dispatch: &Arc<Dispatch>, queues: &QueueTable) {
    let (dispatch, queues) = (Arc::clone(dispatch), Arc::clone(queues));
    let tasks = dispatch.tasks.clone();
    let mut link = dispatch.transport.link();
    let mut epoch = link.borrow().epoch;
    let _detached = tasks.spawn_background(async move {
        while let Some(next) = messaging::next_epoch(&mut link, epoch).await {
            epoch = next;
            announce(&dispatch, &queues).await;
        }
    });
}

async fn announce(dispatch: &Dispatch, queues: &QueueTable) {
    let answered = dispatch.recent.answered(Instant::now());
    for page in answered.chunks(PAGE) {
        for (job, to) in page {
            let Some(queue) = queues.load().get(job.queue).cloned() else { continue };
            let control = queue.job_subject(job.number);
            dispatch.say(Reply::Answered { control }, to.clone());
        }
        sleep(PAGE_PAUSE).await;
    }
}

fn count(result: &str) {
    counter(&names::WORKER_RESENT, &[(names::RESULT, result.to_owned())]).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_spread_and_a_pause_is_not_saved_up() {
        let (pace, start) = (Pace::default(), Instant::now());
        let second = 8 << 20;
        assert_eq!(pace.take(second, start), start, "the first goes at once");
        assert_eq!(pace.take(second, start), start + Duration::from_secs(1));
        assert_eq!(pace.take(second, start), start + Duration::from_secs(2));
        let later = start + Duration::from_mins(1);
        assert_eq!(pace.take(second, later), later);
        assert_eq!(pace.take(0, later), later + Duration::from_secs(1));
    }
}
