//! Follows the packets of what the server says, so that it is known where an answer ends and whether it acknowledges a
//! cancel.

use super::socket::{END_OF_MESSAGE, HEADER_BYTES};

/// The token that ends an answer, or acknowledges a cancel (MS-TDS 2.2.7.6).
const DONE: u8 = 0xfd;
/// The bit of its status that acknowledges a cancel.
const DONE_ATTENTION: u8 = 0x20;
/// Its length since TDS 7.2: token, status, command, count of rows.
const DONE_BYTES: usize = 13;

/// The start of the token that tells of a commit (MS-TDS 2.2.7.9): ENVCHANGE, its length, the type, no new value, the
/// eight bytes of the old one. A value that looks like it costs a retry, or a dry run, and no more.
const COMMIT: [u8; 6] = [ENVCHANGE, 11, 0, 9, 0, 8];
const ENVCHANGE: u8 = 0xe3;

/// Where the server's current message stands.
#[derive(Debug, Default)]
pub(super) struct Answer {
    header: [u8; HEADER_BYTES],
    header_read: usize,
    payload_left: usize,
    is_last: bool,
    /// The last bytes of the message so far: a whole one ends with a DONE token.
    tail: [u8; DONE_BYTES],
    tail_length: usize,
    /// How much of `COMMIT` the last bytes are.
    commit_read: usize,
    commits: bool,
}

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// Its last token acknowledges a cancel.
    pub(super) acknowledges: bool,
    /// A transaction was committed.
    pub(super) commits: bool,
}

impl Answer {
    /// Follows bytes up to the end of the current message: how many they were, and the end if it was among them.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> (usize, Option<Ended>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.payload_left == 0 {
                let Some(into) = self.header.get_mut(self.header_read..) else { break };
                let count = into.len().min(rest.len());
                let (part, after) = rest.split_at(count);
                into.iter_mut().zip(part).for_each(|(into, byte)| *into = *byte);
                self.header_read += count;
                rest = after;
                if self.header_read == HEADER_BYTES {
                    self.header_read = 0;
                    let [_, status, high, low, ..] = self.header;
                    let length = usize::from(u16::from_be_bytes([high, low]));
                    self.payload_left = length.saturating_sub(HEADER_BYTES);
                    self.is_last = status & END_OF_MESSAGE != 0;
                }
            } else {
                let (part, after) = rest.split_at(self.payload_left.min(rest.len()));
                self.remember(part);
                self.payload_left -= part.len();
                rest = after;
            }
            if self.header_read == 0 && self.payload_left == 0 && self.is_last {
                return (bytes.len() - rest.len(), Some(self.end()));
            }
        }
        (bytes.len() - rest.len(), None)
    }

    fn remember(&mut self, part: &[u8]) {
        for byte in part {
            let goes_on = COMMIT.get(self.commit_read) == Some(byte);
            let begins = usize::from(*byte == ENVCHANGE);
            self.commit_read = if goes_on { self.commit_read + 1 } else { begins };
            self.commits |= self.commit_read == COMMIT.len();
        }
        let part = part.get(part.len().saturating_sub(DONE_BYTES)..).unwrap_or_default();
        self.tail.rotate_left(part.len().min(DONE_BYTES));
        let start = DONE_BYTES - part.len();
        self.tail.iter_mut().skip(start).zip(part).for_each(|(into, byte)| *into = *byte);
        self.tail_length = (self.tail_length + part.len()).min(DONE_BYTES);
    }

    fn end(&mut self) -> Ended {
        let [token, status, ..] = self.tail;
        let acknowledges =
            self.tail_length == DONE_BYTES && token == DONE && status & DONE_ATTENTION != 0;
        self.is_last = false;
        (self.tail_length, self.commit_read) = (0, 0);
        Ended { acknowledges, commits: std::mem::take(&mut self.commits) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(is_last: bool, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len() + HEADER_BYTES).unwrap().to_be_bytes();
        let mut packet = vec![4, u8::from(is_last), length[0], length[1], 0, 51, 1, 0];
        packet.extend_from_slice(payload);
        packet
    }

    fn done(token: u8, status: u8) -> Vec<u8> {
        [&[token, status, 0][..], &[0; 10]].concat()
    }

    /// Each message's end, with what is left over of the bytes, however they are cut.
    fn ends(bytes: &[u8]) -> Vec<bool> {
        let mut found = Vec::new();
        for size in [1, 2, 7, 8, 9, 13, 4096] {
            let mut answer = Answer::default();
            let mut ends = Vec::new();
            for chunk in bytes.chunks(size) {
                let mut rest = chunk;
                while !rest.is_empty() {
                    let (count, ended) = answer.follow(rest);
                    assert!(count > 0 && (ended.is_some() || count == rest.len()));
                    rest = &rest[count..];
                    ends.extend(ended.map(|ended| ended.acknowledges));
                }
            }
            assert!(found.is_empty() || found == ends, "{size}: {ends:?}");
            found = ends;
        }
        found
    }

    #[test]
    fn an_answer_ends_with_its_last_packet_and_not_before() {
        let rows = [packet(false, &[0xd1; 500]), packet(true, &done(DONE, 0))].concat();
        assert_eq!(ends(&rows), [false]);
        assert_eq!(ends(&rows[..rows.len() - 1]), [false; 0]);
        assert_eq!(ends(&packet(false, &done(DONE, DONE_ATTENTION))), [false; 0]);
        assert_eq!(ends(&[packet(false, &[1; 20]), packet(true, &[])].concat()), [false]);
    }

    #[test]
    fn a_cancel_is_acknowledged_by_the_last_token_alone() {
        assert_eq!(ends(&packet(true, &done(DONE, DONE_ATTENTION))), [true]);
        let late = [packet(true, &done(0xfe, 0)), packet(true, &done(DONE, DONE_ATTENTION))];
        assert_eq!(ends(&late.concat()), [false, true]);
        // A row whose bytes look like it, and a token that is cut by a packet's end.
        let row = [done(DONE, DONE_ATTENTION), done(DONE, 1)].concat();
        assert_eq!(ends(&packet(true, &row)), [false]);
        let token = done(DONE, DONE_ATTENTION | 2);
        assert_eq!(ends(&[packet(false, &token[..5]), packet(true, &token[5..])].concat()), [true]);
        assert_eq!(ends(&packet(true, &done(DONE, DONE_ATTENTION)[1..])), [false]);
    }
}
