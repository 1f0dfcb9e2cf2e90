//! Binds the arguments of a call to the parameters of a procedure.

use std::borrow::Cow;
use std::sync::Arc;

use tiberius::{ColumnData, Command, SqlTableDataRow, TableValueRow};

use crate::catalogue::violations::VIOLATIONS_MAX;
use crate::procedures::mssql::metadata::{
    Signature, SqlParameter, SqlParameterType, TableColumn, TableQuery, VarcharEncoding,
    unsupported_table_type,
};
use crate::procedures::mssql::tds::BatchRewrite;
use crate::procedures::mssql::types::{self, EncodeError, SqlType};
use crate::procedures::{Argument, BackendError, BackendErrorKind, BadArgument, Call};

mod table_rows;

use table_rows::{TableShape, table_rows};

/// A parameter with its value.
#[derive(Debug)]
pub(super) struct BoundParameter<'a> {
    pub(super) parameter: &'a SqlParameter,
    pub(super) data: BoundValue<'a>,
}

/// The value of a parameter.
#[derive(Debug)]
pub(super) enum BoundValue<'a> {
    /// A single value of the given type.
    Scalar(&'a SqlType, ColumnData<'a>),
    /// A table.
    Table {
        /// The name of the type for SQL.
        quoted: &'a str,
        /// The name of the type for the driver.
        driver_name: &'a str,
        rows: Vec<TableRow<'a>>,
    },
    /// A table whose rows are inserted by a statement.
    InsertedTable {
        /// The name of the type for SQL.
        quoted: &'a str,
        /// The SQL condition that holds if the type has not been recreated since its columns were
        /// read.
        is_current: &'a str,
        /// The columns to insert.
        columns: &'a [TableColumn],
        rows: Vec<TableRow<'a>>,
    },
}

/// The maximum number of values that a statement can have. SQL Server permits 2,100 parameters in a
/// request, two of which are the statement and the declarations of the other parameters.
const STATEMENT_VALUES_MAX: usize = 2100 - 2;

/// A row of a table-valued parameter.
#[derive(Debug)]
pub(super) struct TableRow<'a>(pub(super) Vec<ColumnData<'a>>);

impl<'a> TableValueRow<'a> for TableRow<'a> {
    fn bind_fields(&self, row: &mut SqlTableDataRow<'a>) {
        for value in &self.0 {
            row.add_field(value.clone());
        }
    }

    fn get_db_type() -> &'static str {
        // The driver does not use this name, because the type's name is passed with the table.
        ""
    }
}

impl BoundParameter<'_> {
    /// Returns whether the driver would send this parameter as an untyped NULL.
    pub(super) fn is_untyped_null(&self) -> bool {
        matches!(&self.data, BoundValue::Scalar(sql, value)
            if !types::has_typed_null(sql) && *value == types::null(sql))
    }

    /// Returns the number of parameters that a statement needs for this value. NULLs need none,
    /// because the statement contains them as text.
    fn statement_values(&self) -> usize {
        match &self.data {
            BoundValue::Scalar(sql, value) => usize::from(*value != types::null(sql)),
            BoundValue::Table { .. } => 1,
            BoundValue::InsertedTable { columns, rows, .. } => {
                let in_row = |TableRow(cells): &TableRow<'_>| {
                    let cells = columns.iter().zip(cells);
                    cells.filter(|(column, cell)| **cell != types::null(&column.sql)).count()
                };
                rows.iter().map(in_row).sum()
            }
        }
    }

    /// Returns whether only a statement can pass this parameter. This applies to an OUTPUT
    /// parameter that the driver declares only as wide as its value, and to a table whose rows are
    /// inserted.
    pub(super) fn needs_statement(&self) -> bool {
        match &self.data {
            BoundValue::Scalar(sql, _) => self.parameter.is_output && !types::has_typed_null(sql),
            BoundValue::Table { .. } => false,
            BoundValue::InsertedTable { .. } => true,
        }
    }
}

/// Binds the arguments of a call. OUTPUT parameters without an argument are passed as NULL, because
/// otherwise the server would not return them.
///
/// # Errors
/// Returns `Mismatch`, or `Arguments` with all values that cannot be converted, up to
/// `VIOLATIONS_MAX`.
pub(super) fn bind<'a>(
    call: &Call<'a>,
    signature: &'a Signature,
    varchar_encoding: VarcharEncoding,
) -> Result<Vec<BoundParameter<'a>>, BackendError> {
    let mut arguments = call.arguments.iter();
    if let Some(unknown) = arguments.find(|one| signature.parameter(&one.name).is_none()) {
        let (name, names) = (&unknown.name, signature.names());
        let difference = format!("the catalogue passes @{name}, but the procedure has {names}");
        return Err(BackendError::mismatch(call.procedure.as_str(), difference));
    }
    let mut bound = Vec::with_capacity(signature.parameters.len());
    let mut errors = ArgumentErrors::default();
    for parameter in &signature.parameters {
        let argument = call.arguments.iter().find(|argument| {
            signature.parameter(&argument.name).is_some_and(|one| std::ptr::eq(one, parameter))
        });
        let data = match (argument, &parameter.declared) {
            (None, SqlParameterType::Scalar(sql)) if parameter.is_output => {
                BoundValue::Scalar(sql, types::null(sql))
            }
            (None, _) => continue,
            (Some(argument), SqlParameterType::Scalar(sql)) => {
                match types::encode(&argument.value, sql) {
                    Ok(value) => BoundValue::Scalar(sql, value),
                    Err(error) => {
                        errors.add(&argument.name, None, error);
                        continue;
                    }
                }
            }
            (Some(argument), table @ SqlParameterType::Table { columns, is_inserted, .. }) => {
                let shape = TableShape { columns, is_inserted: *is_inserted, varchar_encoding };
                let rows = table_rows(call.procedure, argument, shape, &mut errors)?;
                bound_table(call, argument, table, rows)?
            }
        };
        bound.push(BoundParameter { parameter, data });
    }
    check_inserted(&bound, &mut errors);
    if errors.0.is_empty() { Ok(bound) } else { Err(BackendErrorKind::Arguments(errors.0).into()) }
}

/// Checks that one statement can pass all values of a call, if it must insert the rows of a table.
fn check_inserted(bound: &[BoundParameter<'_>], errors: &mut ArgumentErrors) {
    let is_inserted =
        |one: &&BoundParameter<'_>| matches!(one.data, BoundValue::InsertedTable { .. });
    let mut inserted = bound.iter().filter(is_inserted).peekable();
    if inserted.peek().is_none() {
        return;
    }
    let count: usize = bound.iter().map(BoundParameter::statement_values).sum();
    if count <= STATEMENT_VALUES_MAX {
        return;
    }
    for BoundParameter { parameter, .. } in inserted {
        let reason = format!(
            "the call has {count} values that are not null, and at most {STATEMENT_VALUES_MAX} \
             can be passed with this table, whose type has columns that the server generates"
        );
        errors.add(parameter.bare_name(), None, EncodeError(reason));
    }
}

/// Chooses how a table is passed.
fn bound_table<'a>(
    call: &Call<'_>,
    argument: &Argument,
    table: &'a SqlParameterType,
    rows: Vec<TableRow<'a>>,
) -> Result<BoundValue<'a>, BackendError> {
    match table {
        SqlParameterType::Table { quoted, columns, is_inserted: true, is_current, .. } => {
            Ok(BoundValue::InsertedTable { quoted, is_current, columns, rows })
        }
        SqlParameterType::Table { quoted, driver_name: Some(driver_name), .. } => {
            Ok(BoundValue::Table { quoted, driver_name, rows })
        }
        SqlParameterType::Table { name, driver_name: None, .. } => {
            let difference = unsupported_table_type(&argument.name, name);
            Err(BackendError::mismatch(call.procedure.as_str(), difference))
        }
        SqlParameterType::Scalar(sql) => Ok(BoundValue::Scalar(sql, types::null(sql))),
    }
}

/// Returns the rewrites of the driver's column queries for a call with tables. Fails if a table has
/// `varchar` columns and the kind of server is not known.
pub(super) fn rewrites(
    bound: &[BoundParameter<'_>],
    varchar_encoding: VarcharEncoding,
) -> Result<Vec<Arc<BatchRewrite>>, BackendError> {
    let queries = bound.iter().filter_map(|one| match &one.parameter.declared {
        SqlParameterType::Table { query, .. } => query.as_ref(),
        SqlParameterType::Scalar(_) => None,
    });
    let rewrite = |query: &TableQuery| match (&query.wide, varchar_encoding) {
        (Some(_), VarcharEncoding::Unknown) => {
            let reason =
                "the kind of server is not known, and the call has a table with varchar columns";
            Err(BackendError::caused_by(BackendErrorKind::Unavailable, reason))
        }
        (Some(wide), VarcharEncoding::AsNvarchar) => Ok(Arc::clone(wide)),
        _ => Ok(Arc::clone(&query.plain)),
    };
    queries.map(rewrite).collect()
}

/// The arguments that cannot be converted, up to the number that an answer lists.
#[derive(Debug, Default)]
struct ArgumentErrors(Vec<BadArgument>);

impl ArgumentErrors {
    fn add(&mut self, argument: &str, cell: Option<(usize, &str)>, error: EncodeError) {
        if !self.is_full() {
            self.0.push(BadArgument {
                argument: argument.to_owned(),
                cell: cell.map(|(row, column)| (row, column.to_owned())),
                reason: error.0,
            });
        }
    }

    fn is_full(&self) -> bool {
        self.0.len() >= VIOLATIONS_MAX
    }
}

/// Builds the remote procedure call.
pub(super) fn command<'a>(signature: &'a Signature, bound: Vec<BoundParameter<'a>>) -> Command<'a> {
    let mut command = Command::new(signature.quoted.as_str());
    for BoundParameter { parameter, data } in bound {
        let name = Cow::Borrowed(parameter.name.as_str());
        match data {
            BoundValue::Scalar(_, value) if parameter.is_output => {
                command.bind_out_param(name, types::as_parameter(value));
            }
            BoundValue::Scalar(_, value) => command.bind_param(name, types::as_parameter(value)),
            BoundValue::Table { driver_name, rows, .. } => {
                command.bind_table_with_dbtype(name, driver_name, rows);
            }
            BoundValue::InsertedTable { .. } => {
                debug_assert!(false, "a call that inserts rows is sent as a statement");
            }
        }
    }
    command
}
