//! Queries the database for signatures.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tiberius::{ColumnData, Row, ToSql, error::Error};

use super::signature::{Signature, SqlParameter, SqlParameterType};
use super::table_query::TableQuery;
use crate::catalogue::ProcedureName;
use crate::procedures::mssql::error_numbers;
use crate::procedures::mssql::tds::TdsClient;
use crate::procedures::mssql::types::{CodePage, SqlType, TypeDescription};

/// The views that list parameters. SQL Server has both, Babelfish only the second.
const VIEWS: [&str; 2] = ["sys.parameters", "sys.all_parameters"];
/// The SQL expression for a parameter's code page. Parameters use the database's collation.
const DATABASE_CODE_PAGE: &str = "CAST(COLLATIONPROPERTY(CAST(DATABASEPROPERTYEX(DB_NAME(), \
     'Collation') AS nvarchar(128)), 'CodePage') AS int)";
/// The number of procedures per query. With a few parameters each, the answer takes a few packets.
pub(crate) const PROCEDURES_PER_QUERY: usize = 128;
/// The number of table types per query. A request can have at most 2,100 parameters.
const TABLE_TYPES_PER_QUERY: usize = 1000;

/// Builds the query for the parameters of `procedures` procedures, in order. A procedure without
/// parameters has one row without a parameter name; a missing one has a row without an id.
fn parameters_query(view: &str, procedures: usize) -> String {
    let mut ids = String::new();
    for place in 0..procedures {
        let separator = if place == 0 { "" } else { ", " };
        append(&mut ids, format_args!("{separator}({place}, OBJECT_ID(@P{}))", place + 1));
    }
    format!(
        "SELECT o.place, o.id, p.name, TYPE_NAME(p.user_type_id), TYPE_NAME(p.system_type_id), \
         p.max_length, p.precision, p.scale, p.is_output, t.is_table_type, \
         SCHEMA_NAME(t.schema_id), p.user_type_id, {DATABASE_CODE_PAGE} FROM (VALUES {ids}) AS o (place, id) \
         LEFT JOIN {view} AS p ON p.object_id = o.id AND p.parameter_id > 0 \
         LEFT JOIN sys.types AS t ON t.user_type_id = p.user_type_id \
         ORDER BY o.place, p.parameter_id"
    )
}

/// Builds the query for the columns of `types` table types, in order.
fn columns_query(types: usize) -> String {
    let mut ids = String::new();
    for number in 1..=types {
        let separator = if number == 1 { "" } else { ", " };
        append(&mut ids, format_args!("{separator}@P{number}"));
    }
    format!(
        "SELECT t.user_type_id, c.name, TYPE_NAME(c.user_type_id), TYPE_NAME(c.system_type_id), \
         c.max_length, c.precision, c.scale, \
         CAST(COLLATIONPROPERTY(c.collation_name, 'CodePage') AS int), t.type_table_object_id \
         FROM sys.table_types AS t \
         JOIN sys.columns AS c ON c.object_id = t.type_table_object_id \
         WHERE t.user_type_id IN ({ids}) ORDER BY t.user_type_id, c.column_id"
    )
}

fn append(into: &mut String, text: fmt::Arguments<'_>) {
    let written = into.write_fmt(text);
    debug_assert!(written.is_ok(), "writing to a string does not fail");
}

/// Reads the signatures of at most `PROCEDURES_PER_QUERY` procedures, with one query, plus one for
/// the table types among their parameters. Returns `None` for a procedure that does not exist. Sets
/// `lacks_parameters_view` if the server lacks the first view. If this future is dropped, the
/// connection must be discarded.
pub(super) async fn read(
    client: &mut TdsClient,
    procedures: &[ProcedureName],
    lacks_parameters_view: &AtomicBool,
) -> Result<Vec<Option<Arc<Signature>>>, Error> {
    let rows = parameter_rows(client, procedures, lacks_parameters_view).await?;
    let tables = read_table_types(client, &rows).await?;
    Ok(signatures(procedures.len(), &rows, &tables))
}

async fn parameter_rows(
    client: &mut TdsClient,
    procedures: &[ProcedureName],
    lacks_parameters_view: &AtomicBool,
) -> Result<Vec<Row>, Error> {
    let name = |one: &ProcedureName| format!("[{}].[{}]", one.schema(), one.procedure());
    let names: Vec<String> = procedures.iter().map(name).collect();
    let [view, fallback] = VIEWS.map(|view| parameters_query(view, procedures.len()));
    if lacks_parameters_view.load(Ordering::Relaxed) {
        return rows(client, &fallback, &names).await;
    }
    let refusal = match rows(client, &view, &names).await {
        Err(Error::Server(refusal)) => refusal,
        result => return result,
    };
    let found = rows(client, &fallback, &names).await?;
    let number = refusal.code();
    if error_numbers::is_unknown_object(&refusal) {
        lacks_parameters_view.store(true, Ordering::Relaxed);
        let [view, fallback] = VIEWS;
        tracing::info!(number, "the server has no {view}: {fallback} is queried instead");
    } else {
        tracing::debug!(number, "a query for parameters failed, another one was answered");
    }
    Ok(found)
}

async fn rows<T: ToSql>(
    client: &mut TdsClient,
    sql: &str,
    values: &[T],
) -> Result<Vec<Row>, Error> {
    let values: Vec<&dyn ToSql> = values.iter().map(|one| one as &dyn ToSql).collect();
    client.query(sql, &values).await?.into_first_result().await
}

/// A table type.
#[derive(Clone, Debug, Default)]
struct TableType {
    object_id: i64,
    columns: Vec<(String, SqlType)>,
}

/// Table types by their type id.
type TableTypes = BTreeMap<i64, TableType>;

/// Reads the columns of all table types among the parameters.
async fn read_table_types(client: &mut TdsClient, parameters: &[Row]) -> Result<TableTypes, Error> {
    let mut tables = TableTypes::new();
    let tabular = parameters.iter().filter(|row| number(row, 9) == Some(1));
    let ids: BTreeSet<i32> =
        tabular.filter_map(|row| i32::try_from(number(row, 11)?).ok()).collect();
    let ids: Vec<i32> = ids.into_iter().collect();
    for chunk in ids.chunks(TABLE_TYPES_PER_QUERY) {
        for column in rows(client, &columns_query(chunk.len()), chunk).await? {
            let Some(id) = number(&column, 0) else { continue };
            let name = text(&column, 1).unwrap_or_default().to_owned();
            let table = tables.entry(id).or_default();
            table.object_id = number(&column, 8).unwrap_or_default();
            table.columns.push((name, scalar(&column, 2, 7)));
        }
    }
    Ok(tables)
}

/// Builds the signatures of `count` procedures from their rows.
fn signatures(count: usize, rows: &[Row], tables: &TableTypes) -> Vec<Option<Arc<Signature>>> {
    let mut signatures: Vec<Option<Signature>> = vec![None; count];
    for row in rows {
        let index = number(row, 0).and_then(|index| usize::try_from(index).ok());
        let Some(slot) = index.and_then(|index| signatures.get_mut(index)) else { continue };
        if number(row, 1).is_none() {
            continue;
        }
        let signature = slot.get_or_insert_with(|| Signature { parameters: Vec::new() });
        if let Some(name) = text(row, 2) {
            let is_output = number(row, 8) == Some(1);
            let declared = declared_type(row, tables);
            signature.parameters.push(SqlParameter { name: name.to_owned(), declared, is_output });
        }
    }
    signatures.into_iter().map(|signature| signature.map(Arc::new)).collect()
}

fn declared_type(row: &Row, tables: &TableTypes) -> SqlParameterType {
    if number(row, 9) != Some(1) {
        return SqlParameterType::Scalar(scalar(row, 3, 12));
    }
    let table = number(row, 11).and_then(|id| tables.get(&id));
    let (schema, name) = (text(row, 10).unwrap_or("dbo"), text(row, 3).unwrap_or_default());
    let name = format!("{schema}.{name}");
    let query = table.map(|table| TableQuery::new(&name, table.object_id, &table.columns));
    let columns = table.map(|table| table.columns.clone()).unwrap_or_default();
    SqlParameterType::Table { name, columns, query }
}

/// Builds a type from its name, base type, length, precision and scale, in consecutive columns
/// starting at `from`, and its code page in another column.
fn scalar(row: &Row, from: usize, code_page: usize) -> SqlType {
    let own = text(row, from).unwrap_or_default();
    // An alias type has its own name and the properties of its base type.
    let base = text(row, from + 1).unwrap_or_default();
    let small = |at| number(row, at).and_then(|n| u8::try_from(n).ok()).unwrap_or_default();
    let length = number(row, from + 2).and_then(|n| i16::try_from(n).ok()).unwrap_or_default();
    SqlType::new(TypeDescription {
        name: if SqlType::is_known(own) { own } else { base },
        length,
        precision: small(from + 3),
        scale: small(from + 4),
        code_page: CodePage::new(number(row, code_page)),
    })
}

fn value(row: &Row, at: usize) -> Option<&ColumnData<'static>> {
    row.cells().nth(at).map(|(_, value)| value)
}

fn text(row: &Row, at: usize) -> Option<&str> {
    match value(row, at)? {
        ColumnData::String(Some(text)) => Some(text),
        _ => None,
    }
}

fn number(row: &Row, at: usize) -> Option<i64> {
    match value(row, at)? {
        ColumnData::Bit(bit) => bit.map(i64::from),
        ColumnData::U8(number) => number.map(i64::from),
        ColumnData::I16(number) => number.map(i64::from),
        ColumnData::I32(number) => number.map(i64::from),
        ColumnData::I64(number) => *number,
        _ => None,
    }
}
