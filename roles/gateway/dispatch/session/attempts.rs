//! The attempts of a session that may still be answered, and the parts that came of each.

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::envelope::Final;
use crate::message::Subject;

/// Every attempt that was sent and not refused.
#[derive(Debug)]
pub(super) struct Attempts {
    made: u32,
    answer_bytes_max: usize,
    keeps_answer: bool,
    open: Vec<Attempt>,
}

#[derive(Debug)]
struct Attempt {
    number: u32,
    sent_at: Instant,
    control: Option<Subject>,
    parts: Vec<Bytes>,
    part_bytes: usize,
}

/// A part or a final that does not fit what came before it.
#[derive(Debug)]
pub(super) struct Broken;

impl Attempts {
    pub(super) fn new(answer_bytes_max: usize, keeps_answer: bool) -> Self {
        Self { made: 0, answer_bytes_max, keeps_answer, open: Vec::with_capacity(1) }
    }

    pub(super) fn made(&self) -> u32 {
        self.made
    }

    /// The next attempt.
    pub(super) fn open(&mut self, now: Instant) -> u32 {
        self.made += 1;
        let number = self.made;
        let (parts, part_bytes) = (Vec::new(), 0);
        self.open.push(Attempt { number, sent_at: now, control: None, parts, part_bytes });
        number
    }

    /// When it was sent, while it may be answered.
    pub(super) fn sent_at(&self, number: u32) -> Option<Instant> {
        self.open.iter().find(|attempt| attempt.number == number).map(|attempt| attempt.sent_at)
    }

    /// It certainly does not run.
    pub(super) fn close(&mut self, number: u32) {
        self.open.retain(|attempt| attempt.number != number);
    }

    pub(super) fn none_open(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn is_open(&self, number: u32) -> bool {
        self.open.iter().any(|attempt| attempt.number == number)
    }

    /// Remembers where a cancel goes.
    pub(super) fn control(&mut self, number: u32, control: Option<Subject>) {
        if let (Some(attempt), Some(control)) = (self.find(number), control) {
            attempt.control = Some(control);
        }
    }

    /// Takes all that may run.
    pub(super) fn drain_open(&mut self) -> impl Iterator<Item = (u32, Option<Subject>)> + '_ {
        self.open.drain(..).map(|attempt| (attempt.number, attempt.control))
    }

    /// Takes all that may run but one.
    pub(super) fn drain_others(&mut self, number: u32) -> Vec<(u32, Option<Subject>)> {
        let others = self.open.extract_if(.., |attempt| attempt.number != number);
        others.map(|attempt| (attempt.number, attempt.control)).collect()
    }

    /// Whether parts of it are kept already.
    pub(super) fn has_parts(&mut self, number: u32) -> bool {
        self.find(number).is_some_and(|attempt| !attempt.parts.is_empty())
    }

    /// Whether this part of it is kept.
    pub(super) fn has_part(&self, number: u32, part: u32) -> bool {
        let attempt = self.open.iter().find(|attempt| attempt.number == number);
        let part = usize::try_from(part).unwrap_or(usize::MAX);
        attempt.is_some_and(|attempt| (1..=attempt.parts.len()).contains(&part))
    }

    /// Bytes of the parts of it.
    pub(super) fn part_bytes(&self, number: u32) -> usize {
        let attempt = self.open.iter().find(|attempt| attempt.number == number);
        attempt.map_or(0, |attempt| attempt.part_bytes)
    }

    /// Keeps a part. Parts come in order: NATS keeps the order of one publisher on one subject.
    pub(super) fn part(&mut self, number: u32, part: u32, bytes: Bytes) -> Result<(), Broken> {
        let (bytes_max, keeps) = (self.answer_bytes_max, self.keeps_answer);
        let attempt = self.find(number).ok_or(Broken)?;
        let expected = attempt.parts.len() + 1;
        if usize::try_from(part).is_ok_and(|part| (1..expected).contains(&part)) {
            // A second copy: the worker sent its answer again, since one of us had lost the link.
            return Ok(());
        }
        attempt.part_bytes += bytes.len();
        if usize::try_from(part) != Ok(expected) || attempt.part_bytes > bytes_max {
            return Err(Broken);
        }
        attempt.parts.push(if keeps { bytes } else { Bytes::new() });
        Ok(())
    }

    /// Puts the answer together. One whose parts were not wanted says how many it had.
    pub(super) fn whole(&mut self, number: u32, mut answer: Final) -> Result<Final, Broken> {
        let (bytes_max, keeps) = (self.answer_bytes_max, self.keeps_answer);
        let attempt = self.find(number).ok_or(Broken)?;
        if usize::try_from(answer.parts) != Ok(attempt.parts.len()) {
            return Err(Broken);
        }
        if !attempt.parts.is_empty() {
            let bytes = attempt.part_bytes + answer.body.len();
            if bytes > bytes_max {
                return Err(Broken);
            }
            if !keeps {
                answer.body = Bytes::new();
                self.close(number);
                return Ok(answer);
            }
            let mut body = BytesMut::with_capacity(bytes);
            for part in attempt.parts.drain(..) {
                body.extend_from_slice(&part);
            }
            body.extend_from_slice(&answer.body);
            answer.body = body.freeze();
            answer.parts = 0;
        }
        self.close(number);
        Ok(answer)
    }

    fn find(&mut self, number: u32) -> Option<&mut Attempt> {
        self.open.iter_mut().find(|attempt| attempt.number == number)
    }
}
