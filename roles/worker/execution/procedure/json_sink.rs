//! The answer of a procedure, written as JSON while its rows come.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::catalogue::ResultKind;
use crate::future::BoxFuture;
use crate::procedures::{Cell, Outcome, OwnedCell, RowSink, SinkError};

use super::json::{self, Names};
use crate::roles::worker::Times;

/// The room for the row that fills a piece, as a share of the piece: without it a buffer would double for that row.
const ROOM_SHARE: usize = 4;
/// Room for an ordinary answer.
const CAPACITY: usize = 1024;
/// How `full` begins.
const SETS: &[u8] = b"{\"sets\":";

/// Takes rows and keeps nothing but the JSON that they become.
#[derive(Debug)]
pub struct Answer {
    shape: ResultKind,
    bytes_max: usize,
    out: Vec<u8>,
    /// Where pieces go before the end, when they may.
    outlet: Option<Arc<Times>>,
    /// Whole pieces on their way there.
    leaving: Bytes,
    /// Bytes that have gone there.
    gone_bytes: usize,
    /// Whether nobody takes the rest: whatever the call comes to, this answer is not whole.
    is_lost: bool,
    /// What stands before each value of a row: `{"a":` and then `,"b":`.
    keys: Vec<Vec<u8>>,
    names: Names,
    sets: usize,
    /// Rows of the current set.
    rows: usize,
    /// Time spent waiting for a connection.
    waited: Duration,
}

impl Answer {
    /// An empty answer of a shape; at most so many bytes.
    #[must_use]
    pub fn new(shape: ResultKind, bytes_max: usize) -> Self {
        let out = match shape {
            ResultKind::None => Vec::new(),
            _ => Vec::with_capacity(CAPACITY.min(bytes_max)),
        };
        let (keys, names) = (Vec::new(), Names::default());
        Self {
            shape,
            bytes_max,
            out,
            outlet: None,
            leaving: Bytes::new(),
            gone_bytes: 0,
            is_lost: false,
            keys,
            names,
            sets: 0,
            rows: 0,
            waited: Duration::ZERO,
        }
    }

    /// The same, leaving pieces at the job's outlet while it grows, when that is open.
    #[must_use]
    pub fn leaving(self, times: &Arc<Times>) -> Self {
        let outlet = times.parts.piece_bytes().map(|_| Arc::clone(times));
        Self { outlet, ..self }
    }

    /// Whether nothing was written yet.
    fn is_blank(&self) -> bool {
        self.gone_bytes == 0 && self.leaving.is_empty() && self.out.is_empty()
    }

    /// How much of its call's time was waiting for a connection.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// The whole text; `None` when there should be a row and is none.
    ///
    /// # Errors
    /// `SinkError` when the outputs make it larger than its limit, or cannot be expressed.
    pub(super) fn finish(
        mut self,
        wanted: &[String],
        outcome: &Outcome,
    ) -> Result<Option<Vec<u8>>, SinkError> {
        let has_row = self.sets > 0 && !self.out.is_empty();
        // A procedure without any result set may answer by its OUTPUT parameters alone.
        let only_outputs = self.sets == 0 && !wanted.is_empty();
        match self.shape {
            ResultKind::Rows | ResultKind::Sets => self.close_array(),
            ResultKind::Row if has_row || only_outputs => self.join_outputs(wanted, outcome)?,
            ResultKind::Value if has_row || only_outputs => {
                self.finish_value(wanted, outcome)?;
            }
            ResultKind::Row | ResultKind::Value => return Ok(None),
            ResultKind::Json if self.is_blank() => self.out.extend_from_slice(b"null"),
            ResultKind::Json | ResultKind::None => {}
            ResultKind::Full => self.finish_full(wanted, outcome)?,
        }
        self.check_size()?;
        if !self.leaving.is_empty() {
            let mut all = Vec::from(mem::take(&mut self.leaving));
            all.append(&mut self.out);
            self.out = all;
        }
        if self.gone_bytes > 0 {
            // It is remembered for a while, by its length.
            self.out.shrink_to_fit();
        }
        Ok(Some(self.out))
    }

    fn close_array(&mut self) {
        let is_set_open = self.shape != ResultKind::Rows && self.sets > 0;
        if is_set_open {
            self.close_set();
        }
        // Of `full`, only what comes before its sets was written.
        if self.is_blank() || (self.shape == ResultKind::Full && self.sets == 0) {
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

    /// The open object with the outputs as further members, closed.
    fn join_outputs(&mut self, wanted: &[String], outcome: &Outcome) -> Result<(), SinkError> {
        for name in wanted {
            let cell = outcome.outputs.iter().find(|(known, _)| known == name);
            let cell = cell.map_or(Cell::Null, |(_, cell)| cell.as_cell());
            let key = self.names.next(name);
            self.member(&key, cell)?;
        }
        if self.out.is_empty() {
            self.out.push(b'{');
        }
        self.out.push(b'}');
        Ok(())
    }

    fn member(&mut self, key: &str, cell: Cell<'_>) -> Result<(), SinkError> {
        self.out.push(if self.out.is_empty() { b'{' } else { b',' });
        json::write_text(&mut self.out, key)?;
        self.out.push(b':');
        json::write(&mut self.out, cell)
    }

    /// The value alone, or beside its outputs.
    fn finish_value(&mut self, wanted: &[String], outcome: &Outcome) -> Result<(), SinkError> {
        if wanted.is_empty() {
            return Ok(());
        }
        if self.out.is_empty() {
            self.out.extend_from_slice(b"null");
        }
        self.names = Names::default();
        let mut start = vec![b'{'];
        json::write_text(&mut start, &self.names.next("value"))?;
        start.push(b':');
        self.put_first(&start);
        self.join_outputs(wanted, outcome)
    }

    fn finish_full(&mut self, wanted: &[String], outcome: &Outcome) -> Result<(), SinkError> {
        if self.is_blank() {
            self.out.extend_from_slice(SETS);
        }
        self.close_array();
        let out = &mut self.out;
        out.extend_from_slice(b",\"outputs\":{");
        let is_wanted =
            |entry: &&(String, OwnedCell)| wanted.is_empty() || wanted.contains(&entry.0);
        for (at, (name, cell)) in outcome.outputs.iter().filter(is_wanted).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            json::write_text(out, name)?;
            out.push(b':');
            json::write(out, cell.as_cell())?;
        }
        out.extend_from_slice(b"},\"return\":");
        json::display(out, outcome.return_status)?;
        out.push(b'}');
        Ok(())
    }

    /// Puts text before what is there, which is moved and not copied to a second place: it may be large.
    fn put_first(&mut self, text: &[u8]) {
        self.out.splice(..0, text.iter().copied());
    }

    fn check_size(&self) -> Result<(), SinkError> {
        if self.is_lost {
            return Err(SinkError::Gone);
        }
        if self.gone_bytes + self.leaving.len() + self.out.len() > self.bytes_max {
            Err(SinkError::TooLarge)
        } else {
            Ok(())
        }
    }

    /// Leaves whole pieces at the outlet, each when it is wanted. Safe to drop: what has not gone is still here.
    async fn leave_pieces(&mut self) -> Result<(), SinkError> {
        let Some(outlet) = self.outlet.clone() else { return Ok(()) };
        let Some(piece_bytes) = outlet.parts.piece_bytes() else { return Ok(()) };
        let pieces = self.out.len() / piece_bytes;
        if self.leaving.is_empty() && pieces > 0 {
            // Once for all of them: a single value may be many pieces.
            let whole = pieces * piece_bytes;
            let mut rest = Vec::with_capacity(piece_bytes + piece_bytes / ROOM_SHARE);
            rest.extend_from_slice(self.out.get(whole..).unwrap_or_default());
            self.out.truncate(whole);
            self.leaving = mem::replace(&mut self.out, rest).into();
        }
        while !self.leaving.is_empty() {
            if outlet.parts.ready().await.is_err() {
                self.is_lost = true;
                return Err(SinkError::Gone);
            }
            let piece = self.leaving.split_to(piece_bytes.min(self.leaving.len()));
            self.gone_bytes += piece.len();
            outlet.parts.put(piece);
        }
        Ok(())
    }

    fn name_columns(&mut self, columns: &[String]) -> Result<(), SinkError> {
        self.names = Names::default();
        self.keys.clear();
        for (index, column) in columns.iter().enumerate() {
            let mut key = vec![if index == 0 { b'{' } else { b',' }];
            json::write_text(&mut key, &self.names.next(column))?;
            key.push(b':');
            self.keys.push(key);
        }
        Ok(())
    }

    /// A row as an object, without its closing brace.
    fn write_members(&mut self, cells: &[Cell<'_>]) -> Result<(), SinkError> {
        if self.keys.is_empty() || self.keys.len() != cells.len() {
            return Err(SinkError::Shape);
        }
        for (key, cell) in self.keys.iter().zip(cells) {
            self.out.extend_from_slice(key);
            json::write(&mut self.out, *cell)?;
        }
        Ok(())
    }

    fn write_element(&mut self, cells: &[Cell<'_>]) -> Result<(), SinkError> {
        self.out.push(if self.rows == 0 { b'[' } else { b',' });
        self.write_members(cells)?;
        self.out.push(b'}');
        Ok(())
    }

    /// A piece of the JSON text: SQL Server cuts a long one over several rows.
    fn write_json_piece(&mut self, cells: &[Cell<'_>]) -> Result<(), SinkError> {
        match cells.first() {
            None | Some(Cell::Binary(_)) => Err(SinkError::Shape),
            Some(Cell::Null) => Ok(()),
            Some(Cell::Text(text)) => {
                self.out.extend_from_slice(text.as_bytes());
                Ok(())
            }
            Some(cell) => json::write(&mut self.out, *cell),
        }
    }
}

impl RowSink for Answer {
    fn waited(&mut self, for_a_connection: Duration) {
        self.waited += for_a_connection;
    }

    fn begin_set(&mut self, columns: &[String]) -> Result<(), SinkError> {
        match self.shape {
            ResultKind::Rows | ResultKind::Row if self.sets == 0 => self.name_columns(columns)?,
            ResultKind::Sets | ResultKind::Full => {
                if self.sets > 0 {
                    self.close_set();
                } else if self.shape == ResultKind::Full {
                    self.out.extend_from_slice(SETS);
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
        match self.shape {
            ResultKind::Rows if is_first_set => self.write_element(cells)?,
            ResultKind::Row if is_first_set && self.rows == 0 => self.write_members(cells)?,
            ResultKind::Value if is_first_set && self.rows == 0 => {
                let cell = cells.first().ok_or(SinkError::Shape)?;
                json::write(&mut self.out, *cell)?;
            }
            ResultKind::Json if is_first_set => self.write_json_piece(cells)?,
            ResultKind::Sets | ResultKind::Full => self.write_element(cells)?,
            // What does not belong to the answer is not kept.
            _ => {}
        }
        self.rows += 1;
        self.check_size()
    }

    fn restart(&mut self) -> bool {
        if self.gone_bytes > 0 {
            return false;
        }
        let outlet = self.outlet.take();
        // The time of the tries before is part of the call's.
        *self = Self { waited: self.waited, outlet, ..Self::new(self.shape, self.bytes_max) };
        true
    }

    fn is_full(&self) -> bool {
        let piece_bytes = self.outlet.as_ref().and_then(|outlet| outlet.parts.piece_bytes());
        // It begins with two: one is on its way while the client takes the other.
        let pieces = if self.gone_bytes == 0 { 2 } else { 1 };
        !self.leaving.is_empty()
            || piece_bytes.is_some_and(|bytes| self.out.len() / bytes >= pieces)
    }

    fn drain(&mut self) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(self.leave_pieces())
    }
}
