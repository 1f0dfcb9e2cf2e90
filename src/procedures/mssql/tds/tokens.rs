//! Finds the errors and messages in an answer.
//!
//! The driver reports only the first error, and no messages. The scanner therefore follows the
//! tokens of an answer (MS-TDS 2.2.7), and skips everything else by its length.

use super::collation::Utf8Column;
use super::value_format::{Input, ReadError, ValueFormat, ValueLength};
use crate::procedures::mssql::server_message::ServerMessage;

const RETURN_STATUS: u8 = 0x79;
const COLUMNS: u8 = 0x81;
const ERROR: u8 = 0xaa;
const INFO: u8 = 0xab;
const RETURN_VALUE: u8 = 0xac;
const ROW: u8 = 0xd1;
/// A row with a bitmap of its NULLs.
const ROW_WITH_BITMAP: u8 = 0xd2;
const DONE: std::ops::RangeInclusive<u8> = 0xfd..=0xff;
/// The number of bytes in a DONE token after its type.
const DONE_BYTES: u64 = 12;
/// The DONE token that ends a remote procedure call.
const DONE_PROC: u8 = 0xfe;
/// TABNAME, COLINFO, ORDER, LOGINACK, ENVCHANGE, SSPI: a length of two bytes follows.
const SHORT_TOKENS: [u8; 6] = [0xa4, 0xa5, 0xa9, 0xad, 0xe3, 0xed];
/// SESSIONSTATE, FEDAUTHINFO: a length of four bytes follows.
const LONG_TOKENS: [u8; 2] = [0xe4, 0xee];
/// The column count with which the server indicates that no columns are described.
const NO_COLUMNS: u16 = 0xffff;
/// The maximum size of the part of a token that is read as a whole. The largest such part is a
/// message.
const PART_BYTES_MAX: usize = 160 << 10;
/// The number of bytes that are added to an incomplete part at a time.
const STEP_BYTES: usize = 256;

/// Follows the tokens of one answer at a time.
#[derive(Debug, Default)]
pub(super) struct TokenScanner {
    /// The beginning of a part whose end has not arrived.
    incomplete: Vec<u8>,
    /// The number of bytes to skip.
    skip: u64,
    position: TokenPosition,
    /// The columns of the current result set.
    columns: Vec<ValueFormat>,
    /// The number of result sets that have begun.
    sets: usize,
    /// The columns in UTF-8 found since they were last taken.
    utf8_columns: Vec<Utf8Column>,
    /// The bitmap of the current row's NULLs, if it has one.
    nulls: Vec<u8>,
    /// The messages found since they were last taken.
    found: Vec<ScannedMessage>,
    /// The number of remote procedure calls that have ended.
    ended_calls: usize,
}

/// An error or a message in an answer.
#[derive(Debug)]
pub(super) struct ScannedMessage {
    /// Whether the message is an error, which has a severity of 11 or more.
    pub(super) is_error: bool,
    /// The number of the request's remote procedure calls that ended before the message.
    pub(super) ended_calls: usize,
    pub(super) message: ServerMessage,
}

/// The kind of data that the next bytes belong to.
#[derive(Clone, Copy, Debug, Default)]
enum TokenPosition {
    /// A token.
    #[default]
    Token,
    /// The descriptions of this many columns.
    Columns(u16),
    /// The value of the column with this index.
    Cell(usize),
    /// The value of an OUTPUT parameter.
    Output(ValueFormat),
    /// A chunk of a value, and the index of the next cell if the value is part of a row.
    Chunk(Option<usize>),
    /// Unknown, because of a token or a type that the scanner does not know.
    Unknown,
}

impl TokenScanner {
    /// Begins the next answer.
    pub(super) fn restart(&mut self) {
        self.incomplete.clear();
        (self.skip, self.position) = (0, TokenPosition::Token);
        (self.sets, self.ended_calls) = (0, 0);
    }

    /// Takes the errors and messages found.
    pub(super) fn take_found(&mut self) -> Vec<ScannedMessage> {
        std::mem::take(&mut self.found)
    }

    /// Takes the columns in UTF-8 found.
    pub(super) fn take_utf8_columns(&mut self) -> Vec<Utf8Column> {
        std::mem::take(&mut self.utf8_columns)
    }

    /// Follows the next bytes of the answer.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !matches!(self.position, TokenPosition::Unknown) {
            if self.skip > 0 {
                let count = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
                self.skip = self.skip.saturating_sub(count as u64);
                bytes = bytes.get(count..).unwrap_or_default();
            } else if self.incomplete.is_empty() {
                if matches!(self.position, TokenPosition::Token) {
                    bytes = self.skip_rows(bytes);
                }
                let mut input = Input::new(bytes);
                match self.read_part(&mut input) {
                    Ok(()) => {
                        let at = bytes.len() - input.remaining();
                        bytes = bytes.get(at..).unwrap_or_default();
                    }
                    Err(ReadError::Incomplete) => {
                        self.incomplete.extend_from_slice(bytes);
                        return;
                    }
                    Err(ReadError::Unknown) => self.position = TokenPosition::Unknown,
                }
            } else {
                bytes = self.complete_part(bytes);
            }
        }
    }

    /// Skips the rows that have completely arrived. Most of a large answer consists of such rows. Stops at any other
    /// token, and at a row with a value that arrives in chunks.
    fn skip_rows<'a>(&self, mut bytes: &'a [u8]) -> &'a [u8] {
        while let Some(rest) = self.skip_row(bytes) {
            bytes = rest;
        }
        bytes
    }

    /// Skips a row. Returns `None` if the bytes do not begin with a complete row.
    fn skip_row<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (token, mut rest) = bytes.split_first()?;
        match *token {
            ROW => {
                for format in &self.columns {
                    rest = format.skip_value(rest)?;
                }
            }
            ROW_WITH_BITMAP => {
                let (nulls, cells) = rest.split_at_checked(self.columns.len().div_ceil(8))?;
                rest = cells;
                for (index, format) in self.columns.iter().enumerate() {
                    if !is_null(nulls, index) {
                        rest = format.skip_value(rest)?;
                    }
                }
            }
            _ => return None,
        }
        Some(rest)
    }

    /// Completes the incomplete part with as few bytes as possible. Returns the bytes after it.
    fn complete_part<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let mut part = std::mem::take(&mut self.incomplete);
        let before = part.len();
        let (step, rest) = bytes.split_at(bytes.len().min(STEP_BYTES));
        part.extend_from_slice(step);
        let mut input = Input::new(&part);
        match self.read_part(&mut input) {
            Ok(()) => {
                let used = (part.len() - input.remaining()).saturating_sub(before);
                bytes.get(used..).unwrap_or_default()
            }
            Err(ReadError::Incomplete) if part.len() <= PART_BYTES_MAX => {
                self.incomplete = part;
                rest
            }
            Err(_) => {
                self.position = TokenPosition::Unknown;
                rest
            }
        }
    }

    /// Reads one part: a token without its values, the description of a column, or a length. On
    /// failure, nothing is changed.
    fn read_part(&mut self, input: &mut Input<'_>) -> Result<(), ReadError> {
        match self.position {
            TokenPosition::Token => self.read_token(input)?,
            TokenPosition::Columns(left) => {
                // The user type and the flags.
                input.take(6)?;
                let (format, collation) = ValueFormat::read(input)?;
                input.skip_short_text()?;
                if let Some(collation) = collation.filter(|one| one.is_utf8()) {
                    let place = (self.sets.saturating_sub(1), self.columns.len());
                    self.utf8_columns.push(Utf8Column::new(place, collation));
                }
                self.columns.push(format);
                self.position = match left {
                    0 | 1 => TokenPosition::Token,
                    left => TokenPosition::Columns(left - 1),
                };
            }
            TokenPosition::Cell(index) => {
                let format = self.columns.get(index).copied().ok_or(ReadError::Unknown)?;
                let length = format.length(input)?;
                self.read_value(length, Some(index + 1));
            }
            TokenPosition::Output(format) => {
                let length = format.length(input)?;
                self.read_value(length, None);
            }
            TokenPosition::Chunk(next) => match input.u32()? {
                0 => self.go_to(next),
                bytes => self.skip = bytes.into(),
            },
            TokenPosition::Unknown => return Err(ReadError::Unknown),
        }
        Ok(())
    }

    fn read_token(&mut self, input: &mut Input<'_>) -> Result<(), ReadError> {
        match input.u8()? {
            ROW => {
                self.nulls.clear();
                self.go_to(Some(0));
            }
            ROW_WITH_BITMAP => {
                let bitmap = input.take(self.columns.len().div_ceil(8))?;
                self.nulls.clear();
                self.nulls.extend_from_slice(bitmap);
                self.go_to(Some(0));
            }
            token if DONE.contains(&token) => {
                self.ended_calls += usize::from(token == DONE_PROC);
                self.skip = DONE_BYTES;
            }
            COLUMNS => {
                let count = input.u16()?;
                self.sets += 1;
                if count != NO_COLUMNS {
                    self.columns.clear();
                    if count > 0 {
                        self.position = TokenPosition::Columns(count);
                    }
                }
            }
            RETURN_STATUS => self.skip = 4,
            RETURN_VALUE => {
                input.take(2)?;
                input.skip_short_text()?;
                // The status, the user type and the flags.
                input.take(7)?;
                self.position = TokenPosition::Output(ValueFormat::read(input)?.0);
            }
            token @ (ERROR | INFO) => {
                let length = usize::from(input.u16()?);
                let message = ServerMessage::parse(input.take(length)?);
                let message = message.ok_or(ReadError::Unknown)?;
                let (is_error, ended_calls) = (token == ERROR, self.ended_calls);
                self.found.push(ScannedMessage { is_error, ended_calls, message });
            }
            token if SHORT_TOKENS.contains(&token) => self.skip = input.u16()?.into(),
            token if LONG_TOKENS.contains(&token) => self.skip = input.u32()?.into(),
            _ => return Err(ReadError::Unknown),
        }
        Ok(())
    }

    fn read_value(&mut self, length: ValueLength, next: Option<usize>) {
        match length {
            ValueLength::Bytes(bytes) => {
                self.skip = bytes;
                self.go_to(next);
            }
            ValueLength::Chunks => self.position = TokenPosition::Chunk(next),
        }
    }

    /// Goes to the next cell that is not NULL, or to the next token.
    fn go_to(&mut self, cell: Option<usize>) {
        self.position = TokenPosition::Token;
        let Some(mut index) = cell else { return };
        while is_null(&self.nulls, index) {
            index += 1;
        }
        if index < self.columns.len() {
            self.position = TokenPosition::Cell(index);
        }
    }
}

/// Returns whether the bitmap of a row's NULLs contains this column.
fn is_null(nulls: &[u8], column: usize) -> bool {
    nulls.get(column / 8).is_some_and(|byte| byte >> (column % 8) & 1 == 1)
}

#[cfg(test)]
mod tests;
