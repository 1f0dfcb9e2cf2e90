//! Writes the rows and values of an answer in its representation.

use crate::procedures::{Cell, SinkError};

use super::{AnswerSink, RowFormat};
use crate::procedures::MemberNames;
use crate::roles::worker::execution::procedure::csv;
use crate::roles::worker::execution::procedure::json;

impl AnswerSink {
    pub(super) fn begin_rows(&mut self, columns: &[String]) -> Result<(), SinkError> {
        if self.format != RowFormat::Csv {
            return self.name_columns(columns);
        }
        self.names = MemberNames::default();
        let names: Vec<String> =
            columns.iter().map(|column| self.names.next_name(column)).collect();
        csv::write_header(&mut self.out, &names);
        Ok(())
    }

    pub(super) fn name_columns(&mut self, columns: &[String]) -> Result<(), SinkError> {
        self.names = MemberNames::default();
        self.keys.clear();
        for (index, column) in columns.iter().enumerate() {
            let mut key = vec![if index == 0 { b'{' } else { b',' }];
            json::write_text(&mut key, &self.names.next_name(column))?;
            key.push(b':');
            self.keys.push(key);
        }
        Ok(())
    }

    /// Writes a row as an object without its closing brace.
    pub(super) fn write_members(&mut self, cells: &[Cell<'_>]) -> Result<(), SinkError> {
        if self.keys.is_empty() || self.keys.len() != cells.len() {
            return Err(SinkError::Shape);
        }
        for (key, cell) in self.keys.iter().zip(cells) {
            self.out.extend_from_slice(key);
            json::write(&mut self.out, *cell)?;
        }
        Ok(())
    }

    pub(super) fn write_element(&mut self, cells: &[Cell<'_>]) -> Result<(), SinkError> {
        self.out.push(if self.rows == 0 { b'[' } else { b',' });
        self.write_members(cells)?;
        self.out.push(b'}');
        Ok(())
    }

    /// Writes a row of a `rows` answer.
    pub(super) fn write_row(&mut self, cells: &[Cell<'_>]) -> Result<(), SinkError> {
        match self.format {
            RowFormat::Csv => csv::write_row(&mut self.out, cells),
            RowFormat::Ndjson => {
                let start = self.out.len();
                self.write_members(cells)?;
                // A line break inside an object can only come from nested JSON, where it is equivalent to a blank.
                for byte in self.out.iter_mut().skip(start).filter(|b| matches!(b, b'\n' | b'\r')) {
                    *byte = b' ';
                }
                self.out.extend_from_slice(b"}\n");
                Ok(())
            }
            RowFormat::Json | RowFormat::Raw => self.write_element(cells),
        }
    }

    pub(super) fn write_value(&mut self, cell: Cell<'_>) -> Result<(), SinkError> {
        if self.format != RowFormat::Raw {
            return json::write(&mut self.out, cell);
        }
        self.has_raw_value = cell != Cell::Null;
        match cell {
            Cell::Null => {}
            Cell::Binary(bytes) => self.out.extend_from_slice(bytes),
            Cell::Text(text) => self.out.extend_from_slice(text.as_bytes()),
            other => json::write(&mut self.out, other)?,
        }
        Ok(())
    }

    /// Writes a part of a JSON text. SQL Server splits a long JSON text into several rows.
    pub(super) fn write_json_part(&mut self, cells: &[Cell<'_>]) -> Result<(), SinkError> {
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
