//! A call's arguments as the parameters of a procedure.

use std::borrow::Cow;
use std::sync::Arc;

use tiberius::{ColumnData, Command, SqlTableDataRow, TableValueRow};

use super::server::NarrowText;
use super::signature::{Kind, Parameter, Signature};
use super::types::{self, CodePage, Expected, SqlType};
use crate::catalogue::names::is_identifier;
use crate::catalogue::violations::VIOLATIONS_MAX;
use crate::catalogue::{ParameterValue, ProcedureName};
use crate::procedures::{Argument, BackendError, BackendErrorKind, BadArgument, Call};

/// A parameter with its value.
#[derive(Debug)]
pub(super) struct Bound<'a> {
    /// The parameter.
    pub(super) parameter: &'a Parameter,
    /// Its value.
    pub(super) data: Data<'a>,
}

/// What is passed.
#[derive(Debug)]
pub(super) enum Data<'a> {
    /// A single value of this type.
    Scalar(&'a SqlType, ColumnData<'a>),
    /// A table of this type.
    Table(&'a str, Vec<TableRow<'a>>),
}

/// The most bytes of a cell in a `(max)` column: the driver takes the mark for `max` on the wire, 0xFFFF, for a length.
const MAX_CELL_BYTES: usize = 0xffff;

/// A row of a table-valued parameter.
#[derive(Debug)]
pub(super) struct TableRow<'a>(Vec<ColumnData<'a>>);

impl<'a> TableValueRow<'a> for TableRow<'a> {
    fn bind_fields(&self, row: &mut SqlTableDataRow<'a>) {
        for value in &self.0 {
            row.add_field(value.clone());
        }
    }

    fn get_db_type() -> &'static str {
        // Never asked: the type's name is given with the table.
        ""
    }
}

impl Bound<'_> {
    /// Whether the driver would send this as an untyped NULL.
    pub(super) fn is_untyped_null(&self) -> bool {
        matches!(&self.data, Data::Scalar(sql, value)
            if !types::has_typed_null(sql) && *value == types::null(sql))
    }

    /// Whether this is OUTPUT of a type that the driver only declares as wide as the value it sends.
    pub(super) fn is_narrow_output(&self) -> bool {
        self.parameter.is_output
            && matches!(&self.data, Data::Scalar(sql, _) if !types::has_typed_null(sql))
    }
}

/// Binds the arguments of a call, or names all that do not fit. OUTPUT parameters without an argument are passed as NULL,
/// so that they come back.
pub(super) fn bind<'a>(
    call: &Call<'a>,
    signature: &'a Signature,
    narrow_text: NarrowText,
) -> Result<Vec<Bound<'a>>, BackendError> {
    if let Some(stray) = call.arguments.iter().find(|one| signature.parameter(&one.name).is_none())
    {
        let names = signature.names();
        let name = &stray.name;
        return Err(mismatch(
            call.procedure,
            format!("the catalogue passes @{name}, in the database it has {names}"),
        ));
    }
    let mut bound = Vec::with_capacity(signature.parameters.len());
    let mut unfit = Unfit::default();
    for parameter in &signature.parameters {
        let argument = call.arguments.iter().find(|argument| {
            signature.parameter(&argument.name).is_some_and(|one| std::ptr::eq(one, parameter))
        });
        let data = match (argument, &parameter.kind) {
            (None, Kind::Scalar(sql)) if parameter.is_output => Data::Scalar(sql, types::null(sql)),
            (None, _) => continue,
            (Some(argument), Kind::Scalar(sql)) => match types::encode(&argument.value, sql) {
                Ok(value) => Data::Scalar(sql, value),
                Err(expected) => {
                    unfit.add(&argument.name, None, expected);
                    continue;
                }
            },
            (Some(argument), Kind::Table { name, columns, .. }) => {
                let rows = table(call.procedure, argument, (columns, narrow_text), &mut unfit)?;
                Data::Table(type_name(argument, name, call.procedure)?, rows)
            }
        };
        bound.push(Bound { parameter, data });
    }
    if unfit.0.is_empty() { Ok(bound) } else { Err(BackendErrorKind::Arguments(unfit.0).into()) }
}

/// The arguments that do not fit, as many as an answer tells.
#[derive(Debug, Default)]
struct Unfit(Vec<BadArgument>);

impl Unfit {
    fn add(&mut self, argument: &str, cell: Option<(usize, &str)>, expected: Expected) {
        if !self.is_full() {
            self.0.push(BadArgument {
                argument: argument.to_owned(),
                cell: cell.map(|(row, column)| (row, column.to_owned())),
                reason: expected.0,
            });
        }
    }

    fn is_full(&self) -> bool {
        self.0.len() >= VIOLATIONS_MAX
    }
}

/// The remote procedure call of bound parameters.
pub(super) fn command<'a>(procedure: &ProcedureName, bound: Vec<Bound<'a>>) -> Command<'a> {
    let mut command = Command::new(format!("[{}].[{}]", procedure.schema(), procedure.procedure()));
    for Bound { parameter, data } in bound {
        let name = Cow::Borrowed(parameter.name.as_str());
        match data {
            Data::Scalar(_, value) if parameter.is_output => command.bind_out_param(name, value),
            Data::Scalar(_, value) => command.bind_param(name, value),
            Data::Table(kind, rows) => command.bind_table_with_dbtype(name, kind, rows),
        }
    }
    command
}

/// The rows of a table argument in the order of the type's columns; a column that the catalogue does not name is NULL.
fn table<'a>(
    procedure: &ProcedureName,
    argument: &'a Argument,
    (columns, narrow_text): (&[(String, SqlType)], NarrowText),
    unfit: &mut Unfit,
) -> Result<Vec<TableRow<'a>>, BackendError> {
    let rows: &[Vec<ParameterValue<'static>>] = match &argument.value {
        ParameterValue::Table(rows) => rows,
        // SQL Server knows no NULL table: an absent and an empty one are the same.
        ParameterValue::Null => &[],
        _ => {
            unfit.add(&argument.name, None, Expected("a table".to_owned()));
            &[]
        }
    };
    let given = &argument.columns;
    let is_column = |name: &Arc<str>| columns.iter().any(|(one, _)| one.eq_ignore_ascii_case(name));
    if let Some((stray, _)) = given.iter().find(|(name, _)| !is_column(name)) {
        let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let (table, names) = (&argument.name, names.join(", "));
        return Err(mismatch(
            procedure,
            format!(
                "the catalogue's table @{table} has the column {stray}, the database's has {names}"
            ),
        ));
    }
    let places: Vec<Option<usize>> = columns
        .iter()
        .map(|(name, _)| given.iter().position(|(one, _)| one.eq_ignore_ascii_case(name)))
        .collect();
    let mut encoded = Vec::with_capacity(rows.len());
    for (number, row) in rows.iter().enumerate() {
        let mut cells = Vec::with_capacity(columns.len());
        for ((column, sql), place) in columns.iter().zip(&places) {
            let value = place.and_then(|place| row.get(place));
            match value.map(|value| cell(value, sql, narrow_text)) {
                None => cells.push(types::null(sql)),
                Some(Ok(cell)) => cells.push(cell),
                Some(Err(expected)) => unfit.add(&argument.name, Some((number, column)), expected),
            }
        }
        encoded.push(TableRow(cells));
        if unfit.is_full() {
            break;
        }
    }
    Ok(encoded)
}

/// Encodes a cell as the column's type, or says what the driver could not write as it is.
fn cell<'a>(
    value: &'a ParameterValue<'static>,
    sql: &SqlType,
    narrow_text: NarrowText,
) -> Result<ColumnData<'a>, Expected> {
    let cell = types::encode(value, sql)?;
    let (bytes, unit) = match (&cell, sql) {
        (ColumnData::String(Some(text)), SqlType::Text { code_page, length, .. }) => {
            let is_by_driver =
                narrow_text == NarrowText::ByDriver && *code_page != CodePage::UTF_16;
            if is_by_driver && !code_page.is_written_by_driver() && !text.is_ascii() {
                let page = code_page.number();
                return Err(Expected(format!(
                    "in a table, text of code page {page} must be ASCII on this server"
                )));
            }
            // Neither has more bytes than two for each of UTF-8's.
            if length.is_some() || text.len() <= MAX_CELL_BYTES / 2 {
                return Ok(cell);
            }
            if is_by_driver {
                (code_page.length(text).unwrap_or(usize::MAX), "bytes")
            } else {
                (
                    CodePage::UTF_16.length(text).map_or(usize::MAX, |pairs| pairs * 2),
                    "bytes of UTF-16",
                )
            }
        }
        (ColumnData::Binary(Some(bytes)), SqlType::Binary { length: None, .. }) => {
            (bytes.len(), "bytes")
        }
        _ => return Ok(cell),
    };
    if bytes > MAX_CELL_BYTES {
        return Err(Expected(format!(
            "{bytes} {unit}: a cell of a table has {MAX_CELL_BYTES} at most"
        )));
    }
    Ok(cell)
}

/// The table type's name: the database's own. It stands in a statement of the driver, so it must be plain.
fn type_name<'a>(
    argument: &Argument,
    name: &'a str,
    procedure: &ProcedureName,
) -> Result<&'a str, BackendError> {
    let is_plain = name
        .split_once('.')
        .is_some_and(|(schema, name)| is_identifier(schema) && is_identifier(name));
    if is_plain {
        return Ok(name);
    }
    let parameter = &argument.name;
    Err(mismatch(
        procedure,
        format!("the table type of @{parameter} has a name that needs quoting in the database"),
    ))
}

/// The error of a catalogue and a database that disagree.
pub(super) fn mismatch(procedure: &ProcedureName, difference: String) -> BackendError {
    BackendError::new(BackendErrorKind::Mismatch {
        procedure: procedure.as_str().to_owned(),
        difference,
    })
}
