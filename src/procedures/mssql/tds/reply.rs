//! Follows the server's packets. Detects the end of an answer, the acknowledgement of a cancel
//! request, reports of transactions, and messages.

use super::collation::Utf8Column;
use super::socket::{END_OF_MESSAGE, HEADER_BYTES};
use super::tokens::{ScannedMessage, TokenScanner};

/// The token that ends an answer, or acknowledges a cancel request (MS-TDS 2.2.7.6).
const DONE: u8 = 0xfd;
/// The token that ends a procedure (MS-TDS 2.2.7.8).
const DONE_PROC: u8 = 0xfe;
/// The token that ends a statement in a procedure (MS-TDS 2.2.7.7).
const DONE_IN_PROC: u8 = 0xff;
/// The status bit of a failed statement.
const DONE_ERROR: u8 = 0x02;
/// The status bit of a token with a valid row count.
const DONE_COUNT: u8 = 0x10;
/// The status bit of DONE that acknowledges a cancel request.
const DONE_ATTENTION: u8 = 0x20;
/// The length of a DONE token since TDS 7.2: token, status, command, row count.
const DONE_BYTES: usize = 13;

/// The start of a token that reports the beginning or end of a transaction, before its type (MS-TDS
/// 2.2.7.9). If a value contains the same bytes, the worst effect is that a retry is prevented or a
/// dry run fails.
const TRANSACTION: [u8; 3] = [ENVCHANGE, 11, 0];
const ENVCHANGE: u8 = 0xe3;
const BEGIN: u8 = 8;
const COMMIT: u8 = 9;
const ROLLBACK: u8 = 10;
/// The ENVCHANGE types for distributed transactions: enlisted, left, and ended elsewhere. All have
/// the same length.
const ENLISTED: u8 = 11;
const DEFECTED: u8 = 12;
const ENDED: u8 = 17;
/// The start of the token that reports a rollback: type, no new value, and the length of the old
/// value. The eight bytes of the old value follow.
const ROLLBACK_START: [u8; 6] = [ENVCHANGE, 11, 0, ROLLBACK, 0, 8];
const ROLLBACK_BYTES: usize = 14;
/// The number of bytes kept from the end of an answer: a rollback and four DONE tokens of failed
/// statements, inner procedures and the call itself.
const TAIL_BYTES: usize = ROLLBACK_BYTES + 4 * DONE_BYTES;

/// The progress of the server's current message.
#[derive(Debug, Default)]
pub(super) struct ReplyTracker {
    header: [u8; HEADER_BYTES],
    header_read: usize,
    payload_left: usize,
    is_last: bool,
    /// The last bytes of the message so far. A complete message ends with a DONE token.
    tail: Tail,
    tail_length: usize,
    /// The number of bytes of `TRANSACTION` that the last received bytes match.
    transaction_read: usize,
    /// The number of reports that a transaction began or ended.
    transactions: usize,
    /// Whether a commit was reported.
    commits: bool,
    scanner: TokenScanner,
}

/// The last bytes of a message, right-aligned in the array.
#[derive(Debug)]
struct Tail([u8; TAIL_BYTES]);

impl Default for Tail {
    fn default() -> Self {
        Self([0; TAIL_BYTES])
    }
}

/// The transaction events that an answer reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TransactionReport {
    /// No transaction began or ended.
    #[default]
    Nothing,
    /// An error ended the procedure, its transaction was rolled back, and nothing ran afterwards.
    RolledBack,
    /// Any other sequence: a transaction began or ended while the procedure ran.
    Other,
}

impl TransactionReport {
    /// Combines the reports of two successive answers.
    pub(super) fn followed_by(self, next: Self) -> Self {
        match (self, next) {
            (Self::Nothing, next) => next,
            _ => Self::Other,
        }
    }
}

/// The end of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReplyEnd {
    /// Whether the message's last token acknowledges a cancel request.
    pub(super) acknowledges: bool,
    /// Whether a transaction was committed.
    pub(super) commits: bool,
    /// The transactions that the message reported.
    pub(super) report: TransactionReport,
}

impl ReplyTracker {
    /// Follows bytes up to the end of the current message. Returns the number of bytes that belong
    /// to the message, and its end if that was reached.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> (usize, Option<ReplyEnd>) {
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
                self.push(part);
                self.payload_left -= part.len();
                rest = after;
            }
            if self.header_read == 0 && self.payload_left == 0 && self.is_last {
                return (bytes.len() - rest.len(), Some(self.end()));
            }
        }
        (bytes.len() - rest.len(), None)
    }

    /// Takes the errors and messages found in the bytes followed so far.
    pub(super) fn take_messages(&mut self) -> Vec<ScannedMessage> {
        self.scanner.take_found()
    }

    /// Takes the columns in UTF-8 found in the bytes followed so far.
    pub(super) fn take_utf8_columns(&mut self) -> Vec<Utf8Column> {
        self.scanner.take_utf8_columns()
    }

    fn push(&mut self, part: &[u8]) {
        self.scanner.follow(part);
        self.find_transactions(part);
        let part = part.get(part.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default();
        self.tail.0.rotate_left(part.len());
        if let Some((_, end)) = self.tail.0.split_at_mut_checked(TAIL_BYTES - part.len()) {
            end.copy_from_slice(part);
        }
        self.tail_length = (self.tail_length + part.len()).min(TAIL_BYTES);
    }

    fn find_transactions(&mut self, mut part: &[u8]) {
        loop {
            if self.transaction_read == 0 {
                let start = memchr::memchr(ENVCHANGE, part).unwrap_or(part.len());
                part = part.get(start..).unwrap_or_default();
            }
            let Some((byte, rest)) = part.split_first() else { return };
            if self.transaction_read == TRANSACTION.len() && reports_transaction(*byte) {
                self.transactions = self.transactions.saturating_add(1);
                self.commits |= *byte == COMMIT;
            }
            let continues = TRANSACTION.get(self.transaction_read) == Some(byte);
            let begins = usize::from(*byte == ENVCHANGE);
            self.transaction_read = if continues { self.transaction_read + 1 } else { begins };
            part = rest;
        }
    }

    fn end(&mut self) -> ReplyEnd {
        let (acknowledges, report) = {
            let start = TAIL_BYTES - self.tail_length;
            let tail = self.tail.0.get(start..).unwrap_or_default();
            let report = match self.transactions {
                0 => TransactionReport::Nothing,
                1 if ends_rolled_back(tail) => TransactionReport::RolledBack,
                _ => TransactionReport::Other,
            };
            (acknowledges(tail), report)
        };
        self.is_last = false;
        self.scanner.restart();
        (self.tail_length, self.transaction_read, self.transactions) = (0, 0, 0);
        ReplyEnd { acknowledges, commits: std::mem::take(&mut self.commits), report }
    }
}

/// Returns whether this ENVCHANGE type reports the beginning or end of a transaction.
fn reports_transaction(kind: u8) -> bool {
    matches!(kind, BEGIN | COMMIT | ROLLBACK | ENLISTED | DEFECTED | ENDED)
}

/// Returns whether an answer that ends with these bytes acknowledges a cancel request.
fn acknowledges(tail: &[u8]) -> bool {
    let token = tail.last_chunk::<DONE_BYTES>();
    token.is_some_and(|[token, status, ..]| *token == DONE && status & DONE_ATTENTION != 0)
}

/// Returns whether only DONE tokens of failed statements and procedures follow a rollback at the
/// end of an answer. A procedure that rolls back and continues sends further tokens, such as its
/// RETURN status, rows, or the error that ends it.
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

    /// Returns for each message whether it acknowledges a cancel request, and checks that the
    /// result does not depend on how the bytes are split.
    fn ends(bytes: &[u8]) -> Vec<bool> {
        let mut found = Vec::new();
        for size in [1, 2, 7, 8, 9, 13, 4096] {
            let mut reply = ReplyTracker::default();
            let mut ends = Vec::new();
            for chunk in bytes.chunks(size) {
                let mut rest = chunk;
                while !rest.is_empty() {
                    let (count, end) = reply.follow(rest);
                    assert!(count > 0 && (end.is_some() || count == rest.len()));
                    rest = &rest[count..];
                    ends.extend(end.map(|end| end.acknowledges));
                }
            }
            assert!(found.is_empty() || found == ends, "{size}: {ends:?}");
            found = ends;
        }
        found
    }

    #[test]
    fn an_answer_ends_with_its_last_packet() {
        let rows = [packet(false, &[0xd1; 500]), packet(true, &done(DONE, 0))].concat();
        assert_eq!(ends(&rows), [false]);
        assert_eq!(ends(&rows[..rows.len() - 1]), [false; 0]);
        assert_eq!(ends(&packet(false, &done(DONE, DONE_ATTENTION))), [false; 0]);
        assert_eq!(ends(&[packet(false, &[1; 20]), packet(true, &[])].concat()), [false]);
    }

    #[test]
    fn a_roll_back_is_confirmed_only_if_nothing_follows_it() {
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
        let cases: [(&[&Vec<u8>], TransactionReport); 16] = [
            (&[&enlisted, &error, &end], TransactionReport::Other),
            (&[&defected, &error, &end], TransactionReport::Other),
            (&[&error, &ended, &end], TransactionReport::Other),
            (&[&ended, &error, &rollback, &end], TransactionReport::Other),
            (&[&error, &end], TransactionReport::Nothing),
            (&[&error, &rollback, &end], TransactionReport::RolledBack),
            (&[&counted, &error, &rollback, &failed, &failed, &end], TransactionReport::RolledBack),
            (&[&rollback, &error, &end], TransactionReport::Other),
            (&[&error, &rollback, &status, &end], TransactionReport::Other),
            (&[&error, &rollback, &counted, &end], TransactionReport::Other),
            (&[&error, &commit, &end], TransactionReport::Other),
            (&[&error, &begin, &rollback, &end], TransactionReport::Other),
            (&[&commit, &begin, &error, &rollback, &end], TransactionReport::Other),
            (&[&rollback, &begin, &error, &rollback, &end], TransactionReport::Other),
            (&[&error, &rollback, &rollback, &end], TransactionReport::Other),
            (
                &[&error, &rollback, &failed, &failed, &failed, &failed, &end],
                TransactionReport::Other,
            ),
        ];
        for (tokens, expected) in cases {
            let payload: Vec<u8> = tokens.iter().copied().flatten().copied().collect();
            for cut in 0..payload.len() {
                let (first, rest) = payload.split_at(cut);
                let message = [packet(false, first), packet(true, rest)].concat();
                let mut reply = ReplyTracker::default();
                let (_, reply_end) = reply.follow(&message);
                assert_eq!(reply_end.unwrap().report, expected, "{tokens:?}");
                // No state is carried over to the next answer.
                let (_, reply_end) = reply.follow(&packet(true, &end));
                assert_eq!(reply_end.unwrap().report, TransactionReport::Nothing);
            }
        }
    }

    #[test]
    fn only_the_last_token_acknowledges_a_cancel() {
        assert_eq!(ends(&packet(true, &done(DONE, DONE_ATTENTION))), [true]);
        let late = [packet(true, &done(0xfe, 0)), packet(true, &done(DONE, DONE_ATTENTION))];
        assert_eq!(ends(&late.concat()), [false, true]);
        // The same bytes occur in a row of the first message. In the second message, the token is
        // split between two packets.
        let row = [done(DONE, DONE_ATTENTION), done(DONE, 1)].concat();
        assert_eq!(ends(&packet(true, &row)), [false]);
        let token = done(DONE, DONE_ATTENTION | 2);
        assert_eq!(ends(&[packet(false, &token[..5]), packet(true, &token[5..])].concat()), [true]);
        assert_eq!(ends(&packet(true, &done(DONE, DONE_ATTENTION)[1..])), [false]);
    }
}
