//! Streamed answers: how a worker produces them, and how a client receives them.

use std::time::Duration;

use bytes::Bytes;
use fjord::envelope::{AnswerHead, Final, Reply};
use fjord::message::Subject;
use fjord::outcome::Outcome;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::Instant;

use super::agenda::{WorkerEvent, WorldEvent};
use super::world::{PROGRESS, World, job_subject};

pub(super) const WINDOW: u32 = 2;
const PARTS_MAX: u32 = 6;
/// The time for which a worker waits for an acknowledgement of its parts before it gives up.
const SILENCE: Duration = Duration::from_secs(3);
const CONTENT_TYPE: &str = "application/json";
/// The end of a complete answer.
const END: &str = "end";

/// A worker's progress in producing an answer.
#[derive(Clone, Debug)]
pub(super) struct WrittenAnswer {
    parts: u32,
    sent: u32,
    acknowledged: u32,
    acknowledged_at: Option<Instant>,
}

/// The part of an answer that its client has received.
#[derive(Debug, Default)]
pub(super) struct ReceivedAnswer {
    text: Option<String>,
    chunks: u32,
    has_left: bool,
}

impl WrittenAnswer {
    /// Decides at random whether the answer is large enough to stream.
    pub(super) fn choose(rng: &mut StdRng, window: u32) -> Option<Self> {
        let parts = rng.random_range(0..=PARTS_MAX);
        (window > 0 && parts > 0).then_some(Self {
            parts,
            sent: 0,
            acknowledged: 0,
            acknowledged_at: None,
        })
    }

    /// Returns the final, which is an error if the answer is not complete.
    pub(super) fn to_final(&self, control: Subject) -> Final {
        let status = if self.sent == self.parts { 200 } else { 500 };
        let outcome = if status == 200 { Outcome::Ok } else { Outcome::Cancelled };
        let body = Bytes::from_static(END.as_bytes());
        let control = Some(control).filter(|_| self.sent > 0);
        Final { parts: self.sent, control, ..Final::whole(status, CONTENT_TYPE, body, outcome) }
    }
}

impl ReceivedAnswer {
    pub(super) fn leave(&mut self) {
        self.has_left = true;
    }

    pub(super) fn has_begun(&self) -> bool {
        self.text.is_some()
    }

    /// Returns whether the answer has not begun, or has all parts of one execution in order, followed by the end.
    pub(super) fn is_complete(&self) -> bool {
        let Some(text) = &self.text else { return true };
        let parts: Vec<&str> = text.split(';').collect();
        let Some((END, parts)) = parts.split_last().map(|(last, rest)| (*last, rest)) else {
            return false;
        };
        let same = |at: usize, part: &str| {
            let (job, number) = part.rsplit_once('.')?;
            let (first, all) = (parts.first()?.rsplit_once('.')?.0, job.rsplit_once('-')?.1);
            (job == first && number == (at + 1).to_string() && all == parts.len().to_string())
                .then_some(())
        };
        parts.iter().enumerate().all(|(at, part)| same(at, part).is_some())
    }
}

impl World {
    pub(super) fn write_part(&mut self, worker: usize, id: u64) {
        let (now, life) = (self.now, self.workers[worker].life);
        let stalled_at = self.link_stalled_at();
        let Some(job) = self.workers[worker].jobs.get_mut(&id) else { return };
        let Some(written) = &mut job.written else { return };
        if written.sent == written.parts {
            return self.job_ends(worker, id);
        }
        let since = *written.acknowledged_at.get_or_insert(now);
        if written.sent - written.acknowledged >= WINDOW {
            let counts_from = stalled_at.map(|at| at + PROGRESS).max(Some(since + SILENCE));
            if Some(now) > counts_from {
                return self.job_ends(worker, id);
            }
            return self.worker_after(worker, Duration::from_millis(100), WorkerEvent::Part(id));
        }
        written.sent += 1;
        written.acknowledged_at = Some(now);
        let number = written.sent;
        let bytes = format!("{worker}.{life}.{id}-{}.{number};", written.parts).into();
        let head =
            (number == 1).then(|| AnswerHead { status: 200, content_type: CONTENT_TYPE.into() });
        let control = Some(job_subject(worker, life, id));
        let job = job.clone();
        self.reply(&job, Reply::Part { number, bytes, head, control });
        // NATS preserves the order of a worker's messages. The pause is longer than the network's jitter, so that a
        // part can overtake another part only if a message is late.
        let pause = self.random(Duration::from_millis(3), Duration::from_millis(300));
        self.worker_after(worker, pause, WorkerEvent::Part(id));
    }

    pub(super) fn on_acknowledged(&mut self, worker: usize, id: u64, part: u32) {
        let now = self.now;
        let job = self.workers[worker].jobs.get_mut(&id);
        if let Some(written) = job.and_then(|job| job.written.as_mut()) {
            written.acknowledged = written.acknowledged.max(part);
            written.acknowledged_at = Some(now);
        }
    }

    pub(super) fn begin_answer(&mut self, client: usize) {
        let received = &mut self.clients[client].received;
        if received.has_left || received.text.replace(String::new()).is_some() {
            self.violation =
                Some(format!("request {client}: an answer began twice, or without its client"));
        }
    }

    pub(super) fn receive_chunk(&mut self, client: usize, bytes: &[u8]) {
        let received = &mut self.clients[client].received;
        received.chunks += 1;
        let part = received.chunks;
        match &mut received.text {
            Some(text) if !received.has_left => text.push_str(&String::from_utf8_lossy(bytes)),
            _ => self.violation = Some(format!("request {client}: bytes outside an answer")),
        }
        let pause = self.random(Duration::from_millis(1), Duration::from_millis(50));
        self.after(pause, WorldEvent::Consumes { client, part });
    }
}
