//! The errors and messages that the server sends with an answer.
//!
//! The driver reports only the first error in an answer. A procedure can cause several errors. For
//! example, a statement fails, the procedure continues, and then the procedure raises an error
//! itself.

use tiberius::error::TokenError;

use crate::procedures::{DatabaseError, RowSink};

/// The maximum number of different error numbers kept for a call.
const ERRORS_MAX: usize = 64;
/// The maximum number of messages kept for a call.
const MESSAGES_MAX: usize = 32;
/// The maximum length of a text in bytes. RAISERROR and THROW raise at most 2,048 characters.
const TEXT_BYTES_MAX: usize = 8 << 10;
/// The maximum size of all messages of a call, in bytes.
const MESSAGES_BYTES_MAX: usize = 16 << 10;

/// An error, or a message of severity 10 or less, such as the text of PRINT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerMessage {
    /// The error number, or 0 for PRINT.
    pub(super) number: u32,
    /// The severity.
    pub(super) class: u8,
    pub(super) state: u8,
    pub(super) text: String,
    /// The procedure that caused the message, or an empty string.
    pub(super) procedure: String,
    pub(super) line: u32,
}

impl From<TokenError> for ServerMessage {
    fn from(token: TokenError) -> Self {
        Self {
            number: token.code(),
            class: token.class(),
            state: token.state(),
            text: token.message().to_owned(),
            procedure: token.procedure().to_owned(),
            line: token.line(),
        }
    }
}

impl ServerMessage {
    /// Parses the body of an ERROR or INFO token (MS-TDS 2.2.7.10, 2.2.7.13). Returns `None` if it
    /// is truncated.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let (number, rest) = body.split_first_chunk()?;
        let ([state, class], rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (text, rest) = utf16(rest, u16::from_le_bytes(*length).into())?;
        let ([length], rest) = rest.split_first_chunk()?;
        let (_server, rest) = utf16(rest, usize::from(*length))?;
        let ([length], rest) = rest.split_first_chunk()?;
        let (procedure, rest) = utf16(rest, usize::from(*length))?;
        let (line, _) = rest.split_first_chunk()?;
        Some(Self {
            number: u32::from_le_bytes(*number),
            class: *class,
            state: *state,
            text: truncated(text),
            procedure,
            line: u32::from_le_bytes(*line),
        })
    }

    /// Describes the message for the log, without its text.
    pub(super) fn origin(&self, kind: &str) -> String {
        let Self { number, class, state, procedure, line, .. } = self;
        let of = if procedure.is_empty() { "" } else { ", procedure " };
        format!("{kind} {number}, severity {class}, state {state}{of}{procedure}, line {line}")
    }
}

/// Splits off text of `units` UTF-16 code units.
fn utf16(bytes: &[u8], units: usize) -> Option<(String, &[u8])> {
    let (text, rest) = bytes.split_at_checked(units * 2)?;
    let units = text.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit));
    let text = char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER));
    Some((text.collect(), rest))
}

fn truncated(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}

/// The errors and messages of a call so far, bounded in number and size.
#[derive(Debug, Default)]
pub(super) struct MessageLog {
    errors: Vec<LoggedError>,
    /// The number of errors so far.
    error_count: usize,
    /// The number of errors that were not kept because there were too many different numbers.
    dropped_errors: usize,
    /// Whether one of the calls that precede the procedure's call in the same message has failed.
    has_failed_before: bool,
    messages: Vec<ServerMessage>,
    message_bytes: usize,
    /// The number of messages that were not kept.
    dropped: usize,
}

/// The errors with one number.
#[derive(Debug)]
struct LoggedError {
    error: ServerMessage,
    /// The position of the last error with this number among all errors.
    last: usize,
}

impl MessageLog {
    /// Adds an error. If several errors have the same number, the last one is kept, at the position
    /// of the first. `is_before` is set for an error of a call that precedes the procedure's call.
    pub(super) fn add_error(&mut self, error: ServerMessage, is_before: bool) {
        self.has_failed_before |= is_before;
        self.error_count += 1;
        let last = self.error_count;
        let logged = LoggedError { error, last };
        let number = logged.error.number;
        if let Some(known) = self.errors.iter_mut().find(|one| one.error.number == number) {
            *known = logged;
            return;
        }
        // The error that ended the procedure is the last one.
        if self.errors.len() == ERRORS_MAX {
            self.errors.pop();
            self.dropped_errors += 1;
        }
        self.errors.push(logged);
    }

    /// Returns the number of errors that were not kept because there are more than `ERRORS_MAX`
    /// different numbers.
    pub(super) fn dropped_errors(&self) -> usize {
        self.dropped_errors
    }

    /// Returns whether one of the calls that precede the procedure's call in the same message has
    /// failed.
    pub(super) fn has_failed_before(&self) -> bool {
        self.has_failed_before
    }

    /// Adds a message of severity 10 or less.
    pub(super) fn add_message(&mut self, message: ServerMessage) {
        let bytes = self.message_bytes + message.text.len() + message.procedure.len();
        if self.messages.len() == MESSAGES_MAX || bytes > MESSAGES_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        self.message_bytes = bytes;
        self.messages.push(message);
    }

    /// Returns one error for each number, in the order in which each number first occurred.
    pub(super) fn errors(&self) -> impl Iterator<Item = &ServerMessage> {
        self.errors.iter().map(|logged| &logged.error)
    }

    /// Returns one error for each number, in the order in which each number last occurred.
    pub(super) fn errors_by_last(&self) -> Vec<&ServerMessage> {
        let mut errors: Vec<&LoggedError> = self.errors.iter().collect();
        errors.sort_by_key(|logged| logged.last);
        errors.into_iter().map(|logged| &logged.error).collect()
    }

    /// Takes the messages, and the number of messages that were not kept.
    fn take_messages(&mut self) -> (Vec<ServerMessage>, usize) {
        self.message_bytes = 0;
        (std::mem::take(&mut self.messages), std::mem::take(&mut self.dropped))
    }

    /// Passes the messages that the procedure has sent so far to the sink, for the worker's log.
    pub(super) fn report_messages(&mut self, rows: &mut dyn RowSink) {
        let (messages, dropped) = self.take_messages();
        for message in messages {
            rows.add_message(&DatabaseError::new(message.origin("message"), message.text));
        }
        if dropped > 0 {
            rows.add_message(&DatabaseError::new(format!("{dropped} further messages"), ""));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u32, text: &str) -> ServerMessage {
        let (text, procedure) = (text.to_owned(), "p".to_owned());
        ServerMessage { number, class: 10, state: 1, text, procedure, line: 3 }
    }

    #[test]
    fn messages_are_bounded_in_number_and_size() {
        let mut log = MessageLog::default();
        for number in 0..40 {
            log.add_message(message(number, "x"));
        }
        let (kept, dropped) = log.take_messages();
        assert_eq!((kept.len(), dropped), (MESSAGES_MAX, 40 - MESSAGES_MAX));
        for number in 0..4 {
            log.add_message(message(number, &"x".repeat(7000)));
        }
        let (kept, dropped) = log.take_messages();
        assert_eq!((kept.len(), dropped), (2, 2));
    }

    #[test]
    fn errors_of_one_number_are_kept_once_and_the_last_error_is_always_kept() {
        let mut log = MessageLog::default();
        for (number, text) in [(547, "a"), (2627, "b"), (547, "c")] {
            log.add_error(message(number, text), false);
        }
        let texts = |errors: Vec<&ServerMessage>| -> Vec<String> {
            errors.iter().map(|error| error.text.clone()).collect()
        };
        assert_eq!(texts(log.errors().collect()), ["c", "b"]);
        assert_eq!(texts(log.errors_by_last()), ["b", "c"]);
        for number in 0..1000 {
            log.add_error(message(60_000 + number, "d"), false);
        }
        assert_eq!(log.errors().count(), ERRORS_MAX);
        assert_eq!(log.errors().last().map(|error| error.number), Some(60_999));
        // There were 1,002 different numbers. The error with the last number is among those kept.
        assert_eq!(log.dropped_errors(), 1002 - ERRORS_MAX);
        assert!(!log.has_failed_before());
        log.add_error(message(229, "e"), true);
        assert!(log.has_failed_before());
    }

    #[test]
    fn a_truncated_token_is_not_parsed_and_a_long_text_is_cut_at_a_character() {
        let mut body = vec![0x86, 0xc3, 0, 0, 1, 16];
        let text = "ä".repeat(5000);
        body.extend_from_slice(&5000_u16.to_le_bytes());
        body.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
        body.extend_from_slice(&[0, 1, b'p', 0, 9, 0, 0, 0]);
        let parsed = ServerMessage::parse(&body).unwrap();
        assert_eq!((parsed.number, parsed.class, parsed.state, parsed.line), (50054, 16, 1, 9));
        assert_eq!((parsed.text.len(), parsed.procedure.as_str()), (TEXT_BYTES_MAX, "p"));
        assert_eq!(
            parsed.origin("error"),
            "error 50054, severity 16, state 1, procedure p, line 9"
        );
        for length in 0..body.len() {
            assert_eq!(ServerMessage::parse(&body[..length]), None, "{length}");
        }
    }
}
