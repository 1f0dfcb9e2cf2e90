//! Writes a procedure's answer as JSON, CSV, NDJSON or raw bytes while its rows arrive.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::catalogue::names::eq_ignore_case;
use crate::catalogue::{Representation, ResultKind};
use crate::future::BoxFuture;
use crate::procedures::{Cell, DatabaseError, MemberNames, ProcedureResult, RowSink, SinkError};
use crate::roles::worker::execution::handler::JobProgress;

use super::failure_log::log_message;
use super::json;

mod rows;

/// The buffer has a spare capacity of `1 / SPARE_DIVISOR` of a chunk. Without it, the row that
/// completes a chunk would double the buffer.
const SPARE_DIVISOR: usize = 4;
/// The initial capacity of the buffer, in bytes: enough for a typical answer.
const CAPACITY: usize = 1024;
/// The first bytes of a `full` answer.
const FULL_START: &[u8] = b"{\"sets\":";

/// A sink that writes rows in the representation of the answer. It keeps only the text that has not been sent.
#[derive(Debug)]
pub struct AnswerSink {
    kind: ResultKind,
    format: RowFormat,
    bytes_max: usize,
    out: Vec<u8>,
    /// The job's progress, with the chunk channel, or `None` if the answer must not be divided.
    progress: Option<Arc<JobProgress>>,
    /// Complete chunks that have not been sent yet.
    unsent: Bytes,
    /// The total size of the chunks that were sent.
    sent_bytes: usize,
    /// Whether the receiver has closed the channel. If so, the answer cannot be completed.
    is_abandoned: bool,
    /// The text before each value of a row: `{"a":` for the first, then `,"b":`.
    keys: Vec<Vec<u8>>,
    names: MemberNames,
    sets: usize,
    /// The number of rows in the current set.
    rows: usize,
    /// Whether a raw value has been written. It can be empty.
    has_raw_value: bool,
    /// The time that the call waited for a connection.
    waited: Duration,
}

/// The format in which rows and values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowFormat {
    Json,
    Ndjson,
    Csv,
    Raw,
}

impl AnswerSink {
    /// Creates a sink for a JSON answer of the given kind, of at most `bytes_max` bytes.
    #[must_use]
    pub fn new(kind: ResultKind, bytes_max: usize) -> Self {
        let out = match kind {
            ResultKind::None => Vec::new(),
            _ => Vec::with_capacity(CAPACITY.min(bytes_max)),
        };
        Self {
            kind,
            format: RowFormat::Json,
            bytes_max,
            out,
            progress: None,
            unsent: Bytes::new(),
            sent_bytes: 0,
            is_abandoned: false,
            keys: Vec::new(),
            names: MemberNames::default(),
            sets: 0,
            rows: 0,
            has_raw_value: false,
            waited: Duration::ZERO,
        }
    }

    /// Makes the sink write a representation other than JSON.
    #[must_use]
    pub fn with_representation(self, representation: &Representation) -> Self {
        let format = match representation {
            Representation::Json => RowFormat::Json,
            Representation::Ndjson => RowFormat::Ndjson,
            Representation::Csv => RowFormat::Csv,
            Representation::Raw(_) => RowFormat::Raw,
        };
        Self { format, ..self }
    }

    /// Lets the sink send chunks while rows arrive, if the job's channel is enabled.
    #[must_use]
    pub fn with_chunks(self, progress: &Arc<JobProgress>) -> Self {
        let progress = progress.chunks.chunk_bytes().map(|_| Arc::clone(progress));
        Self { progress, ..self }
    }

    /// Returns whether nothing has been written yet.
    fn is_blank(&self) -> bool {
        self.sent_bytes == 0 && self.unsent.is_empty() && self.out.is_empty()
    }

    /// Returns the time that the call waited for a connection.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Completes the text and returns its unsent part, or `None` if a required row is missing.
    ///
    /// # Errors
    /// `SinkError` if the text is too large or cannot be completed.
    pub(super) fn finish(
        mut self,
        outputs: &[String],
        outcome: &ProcedureResult,
    ) -> Result<Option<Vec<u8>>, SinkError> {
        let has_row = self.sets > 0 && !self.out.is_empty();
        // A procedure without any result set may answer with its OUTPUT parameters alone.
        let only_outputs = self.sets == 0 && !outputs.is_empty();
        match self.kind {
            ResultKind::Rows if self.format != RowFormat::Json => {}
            ResultKind::Rows | ResultKind::Sets => self.close_array(),
            ResultKind::Row if has_row || only_outputs => self.join_outputs(outputs, outcome)?,
            ResultKind::Value if self.format == RowFormat::Raw => {
                // NULL has no content that could be sent.
                if !self.has_raw_value {
                    return Ok(None);
                }
            }
            ResultKind::Value if has_row || only_outputs => {
                self.finish_value(outputs, outcome)?;
            }
            ResultKind::Row | ResultKind::Value => return Ok(None),
            ResultKind::Json if self.is_blank() => self.out.extend_from_slice(b"null"),
            ResultKind::Json | ResultKind::None => {}
            ResultKind::Full => self.finish_full(outputs, outcome)?,
        }
        self.check_size()?;
        if !self.unsent.is_empty() {
            let mut all = Vec::from(mem::take(&mut self.unsent));
            all.append(&mut self.out);
            self.out = all;
        }
        if self.sent_bytes > 0 {
            // The final is kept for a while, but the memory limit counts only its length, not its capacity.
            self.out.shrink_to_fit();
        }
        Ok(Some(self.out))
    }

    fn close_array(&mut self) {
        let is_set_open = self.kind != ResultKind::Rows && self.sets > 0;
        if is_set_open {
            self.close_set();
        }
        // If there was no result set, the opening `[` has not been written yet. The buffer is empty or
        // contains only the start of a `full` answer.
        if self.is_blank() || (self.kind == ResultKind::Full && self.sets == 0) {
            self.out.push(b'[');
        }
        self.out.push(b']');
    }

    fn close_set(&mut self) {
        if self.rows == 0 {
            self.out.push(b'[');
        }
        self.out.push(b']');
    }

    /// Adds the outputs to the open object as further members, and closes it.
    fn join_outputs(
        &mut self,
        outputs: &[String],
        outcome: &ProcedureResult,
    ) -> Result<(), SinkError> {
        for name in outputs {
            let named = |(known, _): &&(String, _)| eq_ignore_case(known, name);
            let cell = outcome.outputs.iter().find(named);
            let cell = cell.map_or(Cell::Null, |(_, cell)| cell.as_cell());
            let key = self.names.next_name(name);
            self.write_member(&key, cell)?;
        }
        if self.out.is_empty() {
            self.out.push(b'{');
        }
        self.out.push(b'}');
        Ok(())
    }

    fn write_member(&mut self, key: &str, cell: Cell<'_>) -> Result<(), SinkError> {
        self.out.push(if self.out.is_empty() { b'{' } else { b',' });
        json::write_text(&mut self.out, key)?;
        self.out.push(b':');
        json::write(&mut self.out, cell)
    }

    /// Completes a `value` answer: the value itself, or an object with the value and the outputs.
    fn finish_value(
        &mut self,
        outputs: &[String],
        outcome: &ProcedureResult,
    ) -> Result<(), SinkError> {
        if outputs.is_empty() {
            return Ok(());
        }
        if self.out.is_empty() {
            self.out.extend_from_slice(b"null");
        }
        self.names = MemberNames::default();
        let mut start = vec![b'{'];
        json::write_text(&mut start, &self.names.next_name("value"))?;
        start.push(b':');
        // Shifts the value within its buffer instead of copying it, because it may be large.
        self.out.splice(..0, start);
        self.join_outputs(outputs, outcome)
    }

    fn finish_full(
        &mut self,
        outputs: &[String],
        outcome: &ProcedureResult,
    ) -> Result<(), SinkError> {
        if self.is_blank() {
            self.out.extend_from_slice(FULL_START);
        }
        self.close_array();
        let out = &mut self.out;
        out.extend_from_slice(b",\"outputs\":{");
        // The members have the names in the catalogue, which may differ in case from the
        // procedure's.
        let selected = outcome.outputs.iter().filter_map(|(name, cell)| {
            let wanted = outputs.iter().find(|wanted| eq_ignore_case(wanted, name));
            (outputs.is_empty() || wanted.is_some()).then(|| (wanted.unwrap_or(name), cell))
        });
        for (index, (name, cell)) in selected.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            json::write_text(out, name)?;
            out.push(b':');
            json::write(out, cell.as_cell())?;
        }
        out.extend_from_slice(b"},\"return\":");
        json::write_integer(out, outcome.return_status)?;
        out.push(b'}');
        Ok(())
    }

    fn check_size(&self) -> Result<(), SinkError> {
        if self.is_abandoned {
            return Err(SinkError::Closed);
        }
        if self.sent_bytes + self.unsent.len() + self.out.len() > self.bytes_max {
            Err(SinkError::TooLarge)
        } else {
            Ok(())
        }
    }

    /// Sends each complete chunk when it is demanded. This method is cancel safe: unsent chunks are kept.
    async fn send_chunks(&mut self) -> Result<(), SinkError> {
        let Some(progress) = self.progress.clone() else { return Ok(()) };
        let Some(chunk_bytes) = progress.chunks.chunk_bytes() else { return Ok(()) };
        let complete = self.out.len() / chunk_bytes * chunk_bytes;
        if self.unsent.is_empty() && complete > 0 {
            // The buffer is split only once, because a single value may be many chunks long.
            let mut rest = Vec::with_capacity(chunk_bytes + chunk_bytes / SPARE_DIVISOR);
            rest.extend_from_slice(self.out.get(complete..).unwrap_or_default());
            self.out.truncate(complete);
            self.unsent = mem::replace(&mut self.out, rest).into();
        }
        while !self.unsent.is_empty() {
            if progress.chunks.wait_for_demand().await.is_err() {
                self.is_abandoned = true;
                return Err(SinkError::Closed);
            }
            let chunk = self.unsent.split_to(chunk_bytes.min(self.unsent.len()));
            self.sent_bytes += chunk.len();
            progress.chunks.send(chunk);
        }
        Ok(())
    }
}

impl RowSink for AnswerSink {
    fn add_message(&mut self, message: &DatabaseError) {
        log_message(message);
    }

    fn add_connection_wait(&mut self, wait: Duration) {
        self.waited += wait;
    }

    fn begin_set(&mut self, columns: &[String]) -> Result<(), SinkError> {
        match self.kind {
            ResultKind::Rows if self.sets == 0 => self.begin_rows(columns)?,
            ResultKind::Row if self.sets == 0 => self.name_columns(columns)?,
            ResultKind::Sets | ResultKind::Full => {
                if self.sets > 0 {
                    self.close_set();
                } else if self.kind == ResultKind::Full {
                    self.out.extend_from_slice(FULL_START);
                }
                self.out.push(if self.sets == 0 { b'[' } else { b',' });
                self.name_columns(columns)?;
            }
            _ => {}
        }
        self.sets += 1;
        self.rows = 0;
        Ok(())
    }

    fn row(&mut self, cells: &[Cell<'_>]) -> Result<(), SinkError> {
        let is_first_set = self.sets == 1;
        match self.kind {
            ResultKind::Rows if is_first_set => self.write_row(cells)?,
            ResultKind::Row if is_first_set && self.rows == 0 => self.write_members(cells)?,
            ResultKind::Value if is_first_set && self.rows == 0 => {
                let cell = cells.first().ok_or(SinkError::Shape)?;
                self.write_value(*cell)?;
            }
            ResultKind::Json if is_first_set => self.write_json_part(cells)?,
            ResultKind::Sets | ResultKind::Full => self.write_element(cells)?,
            // The row is not part of the answer.
            _ => {}
        }
        self.rows += 1;
        self.check_size()
    }

    fn restart(&mut self) -> bool {
        if self.sent_bytes > 0 {
            return false;
        }
        let progress = self.progress.take();
        // The waits of earlier attempts count towards the same call.
        let (waited, format) = (self.waited, self.format);
        *self = Self { format, progress, waited, ..Self::new(self.kind, self.bytes_max) };
        true
    }

    fn is_full(&self) -> bool {
        let chunk_bytes = self.progress.as_ref().and_then(|one| one.chunks.chunk_bytes());
        // Two chunks are collected first, so that the client can read one while the other is sent.
        let chunks = if self.sent_bytes == 0 { 2 } else { 1 };
        !self.unsent.is_empty() || chunk_bytes.is_some_and(|bytes| self.out.len() / bytes >= chunks)
    }

    fn drain(&mut self) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(self.send_chunks())
    }
}

#[cfg(test)]
mod tests;
