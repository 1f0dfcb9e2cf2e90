//! Answers that stream: how a worker writes them, and what a client reads of them.

use std::time::Duration;

use bytes::Bytes;
use fjord::envelope::{AnswerHead, Final, Reply};
use fjord::message::Subject;
use fjord::outcome::Word;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::Instant;

use super::things::{Due, WorkerDue};
use super::world::{World, job_subject};

pub(super) const WINDOW: u32 = 2;
const PARTS_MAX: u32 = 6;
/// How long a worker that waits for its parts to be taken hears nothing before it gives up.
const SILENCE: Duration = Duration::from_secs(3);
const CONTENT_TYPE: &str = "application/json";
/// What a whole answer ends with.
const END: &str = "end";

/// What a worker has written of an answer.
#[derive(Clone, Debug)]
pub(super) struct Writing {
    parts: u32,
    sent: u32,
    taken: u32,
    heard: Option<Instant>,
}

/// What a client has read of its answer.
#[derive(Debug, Default)]
pub(super) struct Reading {
    text: Option<String>,
    passed: u32,
    has_left: bool,
}

impl Writing {
    /// Some answers are large, and stream where that is asked for.
    pub(super) fn maybe(rng: &mut StdRng, window: u32) -> Option<Self> {
        let parts = rng.random_range(0..=PARTS_MAX);
        (window > 0 && parts > 0).then_some(Self { parts, sent: 0, taken: 0, heard: None })
    }

    /// The final of what was written. Of an answer that is not whole it says so.
    pub(super) fn last(&self, control: Subject) -> Final {
        let status = if self.sent == self.parts { 200 } else { 500 };
        let outcome = if status == 200 { Word::Ok } else { Word::Cancelled };
        let body = Bytes::from_static(END.as_bytes());
        let control = Some(control).filter(|_| self.sent > 0);
        Final { parts: self.sent, control, ..Final::whole(status, CONTENT_TYPE, body, outcome) }
    }
}

impl Reading {
    pub(super) fn leave(&mut self) {
        self.has_left = true;
    }

    pub(super) fn has_begun(&self) -> bool {
        self.text.is_some()
    }

    /// Whether it is nothing, or every part of one execution in order, and the end.
    pub(super) fn is_whole(&self) -> bool {
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
        let Some(job) = self.workers[worker].jobs.get_mut(&id) else { return };
        let Some(writing) = &mut job.writing else { return };
        if writing.sent == writing.parts {
            return self.job_ends(worker, id);
        }
        let since = *writing.heard.get_or_insert(now);
        if writing.sent - writing.taken >= WINDOW {
            if now.duration_since(since) > SILENCE {
                return self.job_ends(worker, id);
            }
            return self.worker_after(worker, Duration::from_millis(100), WorkerDue::Part(id));
        }
        writing.sent += 1;
        writing.heard = Some(now);
        let number = writing.sent;
        let bytes = format!("{worker}.{life}.{id}-{}.{number};", writing.parts).into();
        let head =
            (number == 1).then(|| AnswerHead { status: 200, content_type: CONTENT_TYPE.into() });
        let control = Some(job_subject(worker, life, id));
        let job = job.clone();
        self.reply(&job, Reply::Part { number, bytes, head, control });
        // NATS keeps the order of what one worker says: a part is not overtaken, unless something is late.
        let pause = self.random(Duration::from_millis(3), Duration::from_millis(300));
        self.worker_after(worker, pause, WorkerDue::Part(id));
    }

    pub(super) fn hear_taken(&mut self, worker: usize, id: u64, part: u32) {
        let now = self.now;
        let job = self.workers[worker].jobs.get_mut(&id);
        if let Some(writing) = job.and_then(|job| job.writing.as_mut()) {
            writing.taken = writing.taken.max(part);
            writing.heard = Some(now);
        }
    }

    pub(super) fn begin_reading(&mut self, client: usize) {
        let reading = &mut self.clients[client].reading;
        if reading.has_left || reading.text.replace(String::new()).is_some() {
            self.broken = Some(format!("request {client}: an answer began twice, or for nobody"));
        }
    }

    pub(super) fn read_part(&mut self, client: usize, bytes: &[u8]) {
        let reading = &mut self.clients[client].reading;
        reading.passed += 1;
        let part = reading.passed;
        match &mut reading.text {
            Some(text) if !reading.has_left => text.push_str(&String::from_utf8_lossy(bytes)),
            _ => self.broken = Some(format!("request {client}: bytes of no answer")),
        }
        let pause = self.random(Duration::from_millis(1), Duration::from_millis(50));
        self.after(pause, Due::Takes { client, part });
    }
}
