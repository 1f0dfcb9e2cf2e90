//! The attempts of a session that may still be answered, and the parts of their answers.

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::envelope::Final;
use crate::message::Subject;

/// The attempts of a session: their number, and the open attempts, which may still be answered.
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

/// An attempt that may be running, with the subject for cancelling it.
#[derive(Debug)]
pub(super) struct OpenAttempt {
    pub(super) number: u32,
    /// The job's control subject, or `None` while the worker that received the attempt is unknown.
    pub(super) control: Option<Subject>,
}

/// A complete answer.
#[derive(Debug)]
pub(super) struct AssembledAnswer {
    pub(super) answer: Final,
    /// The size of the body if it was assembled from parts, and 0 otherwise.
    pub(super) bytes: usize,
}

/// Error for a part or final that does not match the previous parts, or an oversized answer.
#[derive(Debug)]
pub(super) struct InvalidParts;

impl Attempts {
    pub(super) fn new(answer_bytes_max: usize, keeps_answer: bool) -> Self {
        Self { made: 0, answer_bytes_max, keeps_answer, open: Vec::with_capacity(1) }
    }

    pub(super) fn made(&self) -> u32 {
        self.made
    }

    /// Adds the next attempt and returns its number.
    pub(super) fn open(&mut self, now: Instant) -> u32 {
        self.made += 1;
        let number = self.made;
        let (parts, part_bytes) = (Vec::new(), 0);
        self.open.push(Attempt { number, sent_at: now, control: None, parts, part_bytes });
        number
    }

    pub(super) fn sent_at(&self, number: u32) -> Option<Instant> {
        self.get(number).map(|attempt| attempt.sent_at)
    }

    /// Removes an attempt that is certainly not running.
    pub(super) fn close(&mut self, number: u32) {
        self.open.retain(|attempt| attempt.number != number);
    }

    pub(super) fn none_open(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn is_open(&self, number: u32) -> bool {
        self.get(number).is_some()
    }

    /// Sets the subject for cancelling this attempt.
    pub(super) fn set_control(&mut self, number: u32, control: Option<Subject>) {
        if let (Some(attempt), Some(control)) = (self.get_mut(number), control) {
            attempt.control = Some(control);
        }
    }

    /// Removes and returns all open attempts.
    pub(super) fn drain_open(&mut self) -> impl Iterator<Item = OpenAttempt> + '_ {
        self.open.drain(..).map(Attempt::into_open)
    }

    /// Removes and returns all open attempts except one.
    pub(super) fn drain_others(&mut self, number: u32) -> impl Iterator<Item = OpenAttempt> + '_ {
        let others = self.open.extract_if(.., move |attempt| attempt.number != number);
        others.map(Attempt::into_open)
    }

    /// Returns whether any part of this attempt's answer was received.
    pub(super) fn has_parts(&self, number: u32) -> bool {
        self.get(number).is_some_and(|attempt| !attempt.parts.is_empty())
    }

    /// Returns whether this part of this attempt's answer was received.
    pub(super) fn has_part(&self, number: u32, part: u32) -> bool {
        let part = usize::try_from(part).unwrap_or(usize::MAX);
        self.get(number).is_some_and(|attempt| (1..=attempt.parts.len()).contains(&part))
    }

    /// Adds a part. Parts arrive in order: NATS preserves the order of messages from one publisher
    /// on one subject.
    pub(super) fn add_part(
        &mut self,
        number: u32,
        part: u32,
        bytes: Bytes,
    ) -> Result<(), InvalidParts> {
        let (bytes_max, keeps_answer) = (self.answer_bytes_max, self.keeps_answer);
        let attempt = self.get_mut(number).ok_or(InvalidParts)?;
        let expected = attempt.parts.len() + 1;
        if usize::try_from(part).is_ok_and(|part| (1..expected).contains(&part)) {
            // A duplicate: the worker sent its answer again because the link had been lost.
            return Ok(());
        }
        attempt.part_bytes += bytes.len();
        if usize::try_from(part) != Ok(expected) || attempt.part_bytes > bytes_max {
            return Err(InvalidParts);
        }
        attempt.parts.push(if keeps_answer { bytes } else { Bytes::new() });
        Ok(())
    }

    /// Joins the parts and the final. If the parts were not kept, the answer contains the number of
    /// parts but no body.
    pub(super) fn assemble(
        &mut self,
        number: u32,
        mut answer: Final,
    ) -> Result<AssembledAnswer, InvalidParts> {
        let (bytes_max, keeps_answer) = (self.answer_bytes_max, self.keeps_answer);
        let attempt = self.get_mut(number).ok_or(InvalidParts)?;
        if usize::try_from(answer.parts) != Ok(attempt.parts.len()) {
            return Err(InvalidParts);
        }
        let mut assembled_bytes = 0;
        if !attempt.parts.is_empty() {
            let bytes = attempt.part_bytes + answer.body.len();
            if bytes > bytes_max {
                return Err(InvalidParts);
            }
            if keeps_answer {
                let mut body = BytesMut::with_capacity(bytes);
                for part in attempt.parts.drain(..) {
                    body.extend_from_slice(&part);
                }
                body.extend_from_slice(&answer.body);
                answer.body = body.freeze();
                answer.parts = 0;
                assembled_bytes = bytes;
            } else {
                answer.body = Bytes::new();
            }
        }
        self.close(number);
        Ok(AssembledAnswer { answer, bytes: assembled_bytes })
    }

    fn get(&self, number: u32) -> Option<&Attempt> {
        self.open.iter().find(|attempt| attempt.number == number)
    }

    fn get_mut(&mut self, number: u32) -> Option<&mut Attempt> {
        self.open.iter_mut().find(|attempt| attempt.number == number)
    }
}

impl Attempt {
    fn into_open(self) -> OpenAttempt {
        OpenAttempt { number: self.number, control: self.control }
    }
}
