//! Encodes the rows of a table argument.

use std::sync::Arc;

use tiberius::ColumnData;

use super::{ArgumentErrors, TableRow};
use crate::catalogue::names::eq_ignore_case;
use crate::catalogue::{ParameterValue, ProcedureName};
use crate::procedures::mssql::metadata::{TableColumn, VarcharEncoding};
use crate::procedures::mssql::types::{self, CodePage, EncodeError, SqlType};
use crate::procedures::{Argument, BackendError};

/// The maximum size of a `(max)` cell. The driver treats the marker for `max`, 0xFFFF, as a length.
const MAX_CELL_BYTES: usize = 0xffff;
/// The maximum number of cells of a table, including NULLs. An empty object in a body takes three
/// bytes, but its row has a cell for each column of the table type. A cell takes up to 128 bytes of
/// memory without its text: its value and the driver's copy of it.
const CELLS_MAX: usize = 1_000_000;
/// The maximum number of cells, including NULLs, of a table whose rows a statement inserts. A cell
/// adds up to 40 characters to the statement, as in `CAST(@P2098 AS uniqueidentifier), `. SQL Server
/// parses the statement for each call.
const INSERTED_CELLS_MAX: usize = 20_000;

/// The type of a table, and how text is passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableShape<'a> {
    /// The columns, without those that the server generates.
    pub(super) columns: &'a [TableColumn],
    /// Whether a statement inserts the rows.
    pub(super) is_inserted: bool,
    pub(super) varchar_encoding: VarcharEncoding,
}

/// Encodes the rows of a table argument, with the columns in the order of the table type. A column
/// that is not in the catalogue is NULL.
pub(super) fn table_rows<'a>(
    procedure: &ProcedureName,
    argument: &'a Argument,
    TableShape { columns, is_inserted, varchar_encoding }: TableShape<'_>,
    errors: &mut ArgumentErrors,
) -> Result<Vec<TableRow<'a>>, BackendError> {
    let rows: &[Vec<ParameterValue<'static>>] = match &argument.value {
        ParameterValue::Table(rows) => rows,
        // SQL Server has no NULL tables, so an absent table is equivalent to an empty one.
        ParameterValue::Null => &[],
        _ => {
            errors.add(&argument.name, None, EncodeError("a table".to_owned()));
            &[]
        }
    };
    let given = &argument.columns;
    let is_column = |name: &Arc<str>| columns.iter().any(|one| eq_ignore_case(&one.name, name));
    if let Some((unknown, _)) = given.iter().find(|(name, _)| !is_column(name)) {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let (table, names) = (&argument.name, names.join(", "));
        let difference = format!(
            "the table @{table} has the column {unknown} in the catalogue, but {names} in the database"
        );
        return Err(BackendError::mismatch(procedure.as_str(), difference));
    }
    if let Some(error) = too_many_cells(rows.len(), columns.len(), is_inserted) {
        errors.add(&argument.name, None, error);
        return Ok(Vec::new());
    }
    let indices: Vec<Option<usize>> = columns
        .iter()
        .map(|column| given.iter().position(|(one, _)| eq_ignore_case(one, &column.name)))
        .collect();
    let mut absent = columns.iter().zip(&indices).filter(|(_, index)| index.is_none());
    if let Some((column, _)) = absent.find(|(column, _)| column.is_required)
        && !rows.is_empty()
    {
        let (table, name) = (&argument.name, &column.name);
        let difference = format!(
            "the table @{table} has the column {name} (NOT NULL) in the database, but not in the catalogue"
        );
        return Err(BackendError::mismatch(procedure.as_str(), difference));
    }
    let mut encoded = Vec::with_capacity(rows.len());
    for (number, row) in rows.iter().enumerate() {
        let mut cells = Vec::with_capacity(columns.len());
        for (column, index) in columns.iter().zip(&indices) {
            let value = index.and_then(|index| row.get(index)).unwrap_or(&ParameterValue::Null);
            match encode_cell(value, column, varchar_encoding) {
                Ok(cell) => cells.push(cell),
                Err(error) => errors.add(&argument.name, Some((number, &column.name)), error),
            }
        }
        encoded.push(TableRow(cells));
        if errors.is_full() {
            break;
        }
    }
    Ok(encoded)
}

/// Returns the error for a table that has too many cells.
fn too_many_cells(rows: usize, columns: usize, is_inserted: bool) -> Option<EncodeError> {
    let most = if is_inserted { INSERTED_CELLS_MAX } else { CELLS_MAX };
    (rows.saturating_mul(columns) > most).then(|| {
        let rows_max = most / columns.max(1);
        EncodeError(format!(
            "the table has {rows} rows of {columns} columns; at most {most} cells can be passed, \
             which is {rows_max} rows"
        ))
    })
}

/// Encodes a cell as the column's type. Fails if the column needs a value and there is none, or if
/// the driver would change the value or cannot write it.
fn encode_cell<'a>(
    value: &'a ParameterValue<'_>,
    TableColumn { sql, is_required, .. }: &TableColumn,
    varchar_encoding: VarcharEncoding,
) -> Result<ColumnData<'a>, EncodeError> {
    if *is_required && *value == ParameterValue::Null {
        return Err(EncodeError("a value other than null is required".to_owned()));
    }
    let cell = types::encode(value, sql)?;
    let (bytes, unit) = match (&cell, sql) {
        (ColumnData::String(Some(text)), SqlType::Text { code_page, length, .. }) => {
            let by_driver =
                varchar_encoding == VarcharEncoding::ByDriver && *code_page != CodePage::UTF_16;
            if by_driver && !code_page.is_written_by_driver() && !text.is_ascii() {
                let page = code_page.number();
                return Err(EncodeError(format!(
                    "text of code page {page} in a table must be ASCII on this server"
                )));
            }
            // Neither encoding takes more than two bytes per byte of UTF-8.
            if length.is_some() || text.len() <= MAX_CELL_BYTES / 2 {
                return Ok(cell);
            }
            if by_driver {
                (code_page.length(text).unwrap_or(usize::MAX), "bytes")
            } else {
                (
                    CodePage::UTF_16.length(text).map_or(usize::MAX, |pairs| pairs * 2),
                    "bytes of UTF-16",
                )
            }
        }
        // The driver ends an empty `xml` too early, and cannot write text instead of an `xml` value
        // in a table.
        (ColumnData::String(Some(_)), SqlType::Xml) => {
            return Err(EncodeError("an empty xml cannot be passed in a table".to_owned()));
        }
        (ColumnData::String(Some(text)), SqlType::Json | SqlType::Vector(_)) => {
            let pairs = CodePage::UTF_16.length(text).unwrap_or(usize::MAX);
            (pairs.saturating_mul(2), "bytes of UTF-16")
        }
        (ColumnData::Binary(Some(bytes)), SqlType::Binary { length: None, .. }) => {
            (bytes.len(), "bytes")
        }
        _ => return Ok(cell),
    };
    if bytes > MAX_CELL_BYTES {
        return Err(EncodeError(format!(
            "{bytes} {unit}: a cell of a table can have at most {MAX_CELL_BYTES}"
        )));
    }
    Ok(cell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cells_of_a_table_are_limited_whatever_their_values() {
        for (rows, columns, is_inserted, fits) in [
            (2000, 10, true, true),
            (2001, 10, true, false),
            (100_000, 10, false, true),
            (100_001, 10, false, false),
            (1_000_000, 1, false, true),
            (1_000_001, 0, false, true),
            (usize::MAX, 2, false, false),
        ] {
            let error = too_many_cells(rows, columns, is_inserted);
            assert_eq!(error.is_none(), fits, "{rows} {columns} {is_inserted}");
        }
        let error = too_many_cells(350_000, 10, true).unwrap();
        assert_eq!(
            error.0,
            "the table has 350000 rows of 10 columns; at most 20000 cells can be passed, which is \
             2000 rows"
        );
    }

    /// `CELLS_MAX` is based on this size.
    #[test]
    fn a_cell_and_the_drivers_copy_take_at_most_128_bytes() {
        let bytes = 2 * size_of::<ColumnData<'_>>();
        assert!(bytes <= 128, "{bytes}");
    }
}
