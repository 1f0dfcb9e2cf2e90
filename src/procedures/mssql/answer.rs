//! Follows the packets of what the server says, so that it is known where an answer ends, whether it acknowledges a
//! cancel, and what it reports of transactions.

use super::socket::{END_OF_MESSAGE, HEADER_BYTES};

/// The token that ends an answer, or acknowledges a cancel (MS-TDS 2.2.7.6).
const DONE: u8 = 0xfd;
/// The tokens that end a procedure, and a statement of one (MS-TDS 2.2.7.8, 2.2.7.7).
const DONE_PROC: u8 = 0xfe;
const DONE_IN_PROC: u8 = 0xff;
/// The bits of their status that say that the statement failed, and that it counted rows.
const DONE_ERROR: u8 = 0x02;
const DONE_COUNT: u8 = 0x10;
/// The bit of its status that acknowledges a cancel.
const DONE_ATTENTION: u8 = 0x20;
/// Its length since TDS 7.2: token, status, command, count of rows.
const DONE_BYTES: usize = 13;

/// The start of a token that reports a transaction's begin or end (MS-TDS 2.2.7.9): ENVCHANGE, its length, and then the
/// type. A value that looks like it costs a retry, or a dry run, and no more.
const TRANSACTION: [u8; 3] = [ENVCHANGE, 11, 0];
const ENVCHANGE: u8 = 0xe3;
const BEGIN: u8 = 8;
const COMMIT: u8 = 9;
const ROLLBACK: u8 = 10;
/// Of a distributed transaction: enlisted in it, left it, and ended by somebody else. All have the same length.
const ENLISTED: u8 = 11;
const DEFECTED: u8 = 12;
const ENDED: u8 = 17;
/// The whole of a roll-back's token: type, no new value, and the eight bytes of the old one.
const ROLLBACK_START: [u8; 6] = [ENVCHANGE, 11, 0, ROLLBACK, 0, 8];
const ROLLBACK_BYTES: usize = 14;
/// What is remembered of an answer's end: a roll-back, and the ends of the failed statements, inner procedures and of the
/// call itself.
const TAIL_BYTES: usize = ROLLBACK_BYTES + 4 * DONE_BYTES;

/// Where the server's current message stands.
#[derive(Debug, Default)]
pub(super) struct Answer {
    header: [u8; HEADER_BYTES],
    header_read: usize,
    payload_left: usize,
    is_last: bool,
    /// The last bytes of the message so far: a whole one ends with a DONE token.
    tail: Tail,
    tail_length: usize,
    /// How much of `TRANSACTION` the last bytes are.
    transaction_read: usize,
    /// How many begins and ends of transactions were reported, and whether a commit was among them.
    transactions: usize,
    commits: bool,
}

/// The last bytes of a message, at its end.
#[derive(Debug)]
struct Tail([u8; TAIL_BYTES]);

impl Default for Tail {
    fn default() -> Self {
        Self([0; TAIL_BYTES])
    }
}

/// What an answer reports of the transaction in which it was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reported {
    /// None began or ended.
    #[default]
    Nothing,
    /// An error ended the procedure, and with it the transaction: it was rolled back, and nothing ran after that.
    RolledBack,
    /// Whatever else: one began or ended while the procedure ran.
    Other,
}

impl Reported {
    /// What two answers report, one after the other.
    pub(super) fn and(self, next: Self) -> Self {
        match (self, next) {
            (Self::Nothing, next) => next,
            _ => Self::Other,
        }
    }
}

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// Its last token acknowledges a cancel.
    pub(super) acknowledges: bool,
    /// A transaction was committed.
    pub(super) commits: bool,
    /// What it reports of transactions.
    pub(super) reported: Reported,
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
            if self.transaction_read == TRANSACTION.len() && reports_transaction(*byte) {
                self.transactions = self.transactions.saturating_add(1);
                self.commits |= *byte == COMMIT;
            }
            let goes_on = TRANSACTION.get(self.transaction_read) == Some(byte);
            let begins = usize::from(*byte == ENVCHANGE);
            self.transaction_read = if goes_on { self.transaction_read + 1 } else { begins };
        }
        let part = part.get(part.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default();
        self.tail.0.rotate_left(part.len());
        let start = TAIL_BYTES - part.len();
        self.tail.0.iter_mut().skip(start).zip(part).for_each(|(into, byte)| *into = *byte);
        self.tail_length = (self.tail_length + part.len()).min(TAIL_BYTES);
    }

    fn end(&mut self) -> Ended {
        let (acknowledges, reported) = {
            let start = TAIL_BYTES - self.tail_length;
            let tail = self.tail.0.get(start..).unwrap_or_default();
            let reported = match self.transactions {
                0 => Reported::Nothing,
                1 if ends_rolled_back(tail) => Reported::RolledBack,
                _ => Reported::Other,
            };
            (acknowledges(tail), reported)
        };
        self.is_last = false;
        (self.tail_length, self.transaction_read, self.transactions) = (0, 0, 0);
        Ended { acknowledges, commits: std::mem::take(&mut self.commits), reported }
    }
}

/// Whether a report of this type is one of a transaction's begin or end.
fn reports_transaction(kind: u8) -> bool {
    matches!(kind, BEGIN | COMMIT | ROLLBACK | ENLISTED | DEFECTED | ENDED)
}

/// Whether these last bytes of an answer acknowledge a cancel.
fn acknowledges(tail: &[u8]) -> bool {
    let token = tail.last_chunk::<DONE_BYTES>();
    token.is_some_and(|[token, status, ..]| *token == DONE && status & DONE_ATTENTION != 0)
}

/// Whether these are a roll-back, and then nothing but ends of what failed. A procedure that rolls back by itself and
/// goes on says more: its RETURN status, rows, or the error that ends it.
fn ends_rolled_back(tail: &[u8]) -> bool {
    let mut rest = tail;
    let mut is_final = true;
    while let Some((before, [token, status, ..])) = rest.split_last_chunk::<DONE_BYTES>() {
        let is_end = if is_final {
            matches!(*token, DONE | DONE_PROC)
        } else {
            matches!(*token, DONE | DONE_PROC | DONE_IN_PROC)
                && status & DONE_ERROR != 0
                && status & DONE_COUNT == 0
        };
        if !is_end {
            return false;
        }
        if before.last_chunk::<ROLLBACK_BYTES>().is_some_and(|b| b.starts_with(&ROLLBACK_START)) {
            return true;
        }
        (rest, is_final) = (before, false);
    }
    false
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
    fn a_roll_back_is_whole_only_as_the_last_that_happened() {
        let token = |kind: u8, new: bool| {
            let values =
                if new { [8, 1, 1, 1, 1, 1, 1, 1, 1, 0] } else { [0, 8, 1, 1, 1, 1, 1, 1, 1, 1] };
            [&[ENVCHANGE, 11, 0, kind][..], &values].concat()
        };
        let (begin, commit, rollback) =
            (token(BEGIN, true), token(COMMIT, false), token(ROLLBACK, false));
        let error = [&[0xaa, 9, 0, 0xb5, 4, 0, 0][..], &[1; 5]].concat();
        let end = done(DONE_PROC, DONE_ERROR);
        let failed = done(DONE_IN_PROC, DONE_ERROR);
        let counted = done(DONE_IN_PROC, DONE_COUNT);
        let status = vec![0x79, 0, 0, 0, 0];
        let (enlisted, defected, ended) =
            (token(ENLISTED, false), token(DEFECTED, true), token(ENDED, false));
        let cases: [(&[&Vec<u8>], Reported); 16] = [
            (&[&enlisted, &error, &end], Reported::Other),
            (&[&defected, &error, &end], Reported::Other),
            (&[&error, &ended, &end], Reported::Other),
            (&[&ended, &error, &rollback, &end], Reported::Other),
            (&[&error, &end], Reported::Nothing),
            (&[&error, &rollback, &end], Reported::RolledBack),
            (&[&counted, &error, &rollback, &failed, &failed, &end], Reported::RolledBack),
            (&[&rollback, &error, &end], Reported::Other),
            (&[&error, &rollback, &status, &end], Reported::Other),
            (&[&error, &rollback, &counted, &end], Reported::Other),
            (&[&error, &commit, &end], Reported::Other),
            (&[&error, &begin, &rollback, &end], Reported::Other),
            (&[&commit, &begin, &error, &rollback, &end], Reported::Other),
            (&[&rollback, &begin, &error, &rollback, &end], Reported::Other),
            (&[&error, &rollback, &rollback, &end], Reported::Other),
            (&[&error, &rollback, &failed, &failed, &failed, &failed, &end], Reported::Other),
        ];
        for (tokens, expected) in cases {
            let payload: Vec<u8> = tokens.iter().copied().flatten().copied().collect();
            for cut in 0..payload.len() {
                let (first, rest) = payload.split_at(cut);
                let message = [packet(false, first), packet(true, rest)].concat();
                let mut answer = Answer::default();
                let (_, ended) = answer.follow(&message);
                assert_eq!(ended.unwrap().reported, expected, "{tokens:?}");
                // Nothing of it is left for the next answer.
                let (_, ended) = answer.follow(&packet(true, &end));
                assert_eq!(ended.unwrap().reported, Reported::Nothing);
            }
        }
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
