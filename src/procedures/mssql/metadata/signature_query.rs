//! Queries the database for signatures.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tiberius::{ColumnData, Row, ToSql, error::Error};

use super::object_kind;
use super::signature::{Signature, SqlParameter, SqlParameterType};
use super::table_query::{self, TableColumn, TableQuery};
use crate::catalogue::ProcedureName;
use crate::procedures::mssql::error_numbers;
use crate::procedures::mssql::tds::TdsClient;
use crate::procedures::mssql::types::{CodePage, SqlType, TypeDescription};

/// The forms of the query. SQL Server answers both forms. Babelfish answers only the second one.
const FORMS: [QueryForm; 2] = [
    QueryForm {
        view: "sys.parameters",
        synonym: SYNONYM,
        base: BASE,
        synonyms: SYNONYMS,
        code: "b.type",
        objects: OBJECTS,
    },
    QueryForm {
        view: "sys.all_parameters",
        synonym: "CAST(NULL AS nvarchar(1035))",
        base: "o.id",
        synonyms: "",
        // Babelfish needs seconds to read its view of all objects.
        code: "CAST(NULL AS nvarchar(2))",
        objects: "",
    },
];
/// The join with the object, for its type code.
const OBJECTS: &str = "LEFT JOIN sys.all_objects AS b ON b.object_id = r.id ";
/// The join with the synonyms, and the SQL expressions for the name and the id of a synonym's base object. A base
/// object in another database has no id here, because its id would denote an unrelated object in this database.
const SYNONYMS: &str = "LEFT JOIN sys.synonyms AS y ON y.object_id = o.id ";
const SYNONYM: &str = "y.base_object_name";
const BASE: &str = "CASE WHEN y.object_id IS NULL THEN o.id \
     WHEN PARSENAME(y.base_object_name, 4) IS NULL \
     AND COALESCE(PARSENAME(y.base_object_name, 3), DB_NAME()) = DB_NAME() \
     THEN OBJECT_ID(y.base_object_name) END";
/// The SQL expression for a parameter's code page. Parameters use the database's collation.
const DATABASE_CODE_PAGE: &str = "CAST(COLLATIONPROPERTY(CAST(DATABASEPROPERTYEX(DB_NAME(), \
     'Collation') AS nvarchar(128)), 'CodePage') AS int)";
/// The number of procedures per query. With a few parameters each, the answer takes a few packets.
pub(crate) const PROCEDURES_PER_QUERY: usize = 128;
/// The number of table types per query. A request can have at most 2,100 parameters.
const TABLE_TYPES_PER_QUERY: usize = 1000;

/// The parts of the query for parameters that differ between servers.
#[derive(Clone, Copy, Debug)]
struct QueryForm {
    /// The view that lists parameters.
    view: &'static str,
    /// The expression for the name of a synonym's base object.
    synonym: &'static str,
    /// The expression for the id of the object itself, or of a synonym's base object.
    base: &'static str,
    /// The join with the synonyms.
    synonyms: &'static str,
    /// The expression for the type code of the object.
    code: &'static str,
    /// The join with the objects.
    objects: &'static str,
}

/// The object that has the name of a procedure.
#[derive(Clone, Debug)]
pub(super) enum NamedObject {
    /// A procedure.
    Procedure(Arc<Signature>),
    /// Another object, with the reason why it cannot be called.
    Other(String),
    /// No object that the login can see.
    Missing,
}

/// Builds the query for the parameters of `procedures` procedures, in order. The query returns one row without a
/// parameter name for a procedure without parameters, and one row without an id for a missing procedure.
fn parameters_query(form: QueryForm, procedures: usize) -> String {
    let QueryForm { view, synonym, base, synonyms, code, objects } = form;
    let mut ids = String::new();
    for place in 0..procedures {
        let separator = if place == 0 { "" } else { ", " };
        append(&mut ids, format_args!("{separator}({place}, OBJECT_ID(@P{}))", place + 1));
    }
    format!(
        "SELECT r.place, r.id, p.name, TYPE_NAME(p.user_type_id), TYPE_NAME(p.system_type_id), \
         p.max_length, p.precision, p.scale, p.is_output, t.is_table_type, \
         SCHEMA_NAME(t.schema_id), p.user_type_id, {DATABASE_CODE_PAGE}, \
         {code}, r.synonym FROM (SELECT o.place, {base} AS id, {synonym} AS synonym \
         FROM (VALUES {ids}) AS o (place, id) {synonyms}) AS r \
         {objects}LEFT JOIN {view} AS p ON p.object_id = r.id AND p.parameter_id > 0 \
         LEFT JOIN sys.types AS t ON t.user_type_id = p.user_type_id \
         ORDER BY r.place, p.parameter_id"
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
         CAST(COLLATIONPROPERTY(c.collation_name, 'CodePage') AS int), t.type_table_object_id, \
         CAST(CASE WHEN c.is_identity = 1 OR c.is_computed = 1 \
         OR TYPE_NAME(c.system_type_id) = N'timestamp' THEN 1 ELSE 0 END AS int), \
         CAST(CASE WHEN c.is_nullable = 0 THEN 1 ELSE 0 END AS int) \
         FROM sys.table_types AS t \
         JOIN sys.columns AS c ON c.object_id = t.type_table_object_id \
         WHERE t.user_type_id IN ({ids}) ORDER BY t.user_type_id, c.column_id"
    )
}

fn append(into: &mut String, text: fmt::Arguments<'_>) {
    let written = into.write_fmt(text);
    debug_assert!(written.is_ok(), "writing to a string does not fail");
}

/// Reads the signatures of at most `PROCEDURES_PER_QUERY` procedures. Sends one query for them, and another one for the
/// table types among their parameters. Sets `lacks_parameters_view` if the server does not answer the first form of the
/// query. If this future is dropped, the connection must be discarded.
pub(super) async fn read(
    client: &mut TdsClient,
    procedures: &[ProcedureName],
    lacks_parameters_view: &AtomicBool,
) -> Result<Vec<NamedObject>, Error> {
    let rows = parameter_rows(client, procedures, lacks_parameters_view).await?;
    let tables = read_table_types(client, &rows).await?;
    Ok(objects(procedures, &rows, &tables))
}

async fn parameter_rows(
    client: &mut TdsClient,
    procedures: &[ProcedureName],
    lacks_parameters_view: &AtomicBool,
) -> Result<Vec<Row>, Error> {
    let names: Vec<String> = procedures.iter().map(ProcedureName::quoted).collect();
    let [query, fallback] = FORMS.map(|form| parameters_query(form, procedures.len()));
    if lacks_parameters_view.load(Ordering::Relaxed) {
        return rows(client, &fallback, &names).await;
    }
    let number = match rows(client, &query, &names).await {
        Err(Error::Server(refusal)) if error_numbers::is_unknown_object(&refusal) => refusal.code(),
        // The other form does not follow synonyms, so another error must not lead to it.
        result => return result,
    };
    let found = rows(client, &fallback, &names).await?;
    lacks_parameters_view.store(true, Ordering::Relaxed);
    let [view, fallback] = FORMS.map(|form| form.view);
    tracing::info!(number, "the server has no {view}: {fallback} is queried instead");
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
    columns: Vec<TableColumn>,
    /// Whether the server generates further columns.
    is_inserted: bool,
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
            if number(&column, 9) == Some(1) {
                table.is_inserted = true;
            } else {
                let (sql, is_required) = (scalar(&column, 2, 7), number(&column, 10) == Some(1));
                table.columns.push(TableColumn { name, sql, is_required });
            }
        }
    }
    Ok(tables)
}

/// Builds the objects that have the names of these procedures, from their rows.
fn objects(procedures: &[ProcedureName], rows: &[Row], tables: &TableTypes) -> Vec<NamedObject> {
    let mut objects: Vec<Option<Result<Signature, String>>> = vec![None; procedures.len()];
    for row in rows {
        let index = number(row, 0).and_then(|index| usize::try_from(index).ok());
        let Some((index, procedure)) = index.and_then(|one| Some((one, procedures.get(one)?)))
        else {
            continue;
        };
        let Some(object) = objects.get_mut(index) else { continue };
        if let Some(reason) = object_kind::reason(procedure, text(row, 13), text(row, 14)) {
            *object = Some(Err(reason));
        }
        if number(row, 1).is_none() {
            continue;
        }
        let signature = object.get_or_insert_with(|| Ok(Signature::new(procedure))).as_mut();
        if let (Ok(signature), Some(name)) = (signature, text(row, 2)) {
            let is_output = number(row, 8) == Some(1);
            let declared = declared_type(row, tables);
            signature.parameters.push(SqlParameter { name: name.to_owned(), declared, is_output });
        }
    }
    let object = |object: Option<Result<Signature, String>>| match object {
        Some(Ok(signature)) => NamedObject::Procedure(Arc::new(signature)),
        Some(Err(reason)) => NamedObject::Other(reason),
        None => NamedObject::Missing,
    };
    objects.into_iter().map(object).collect()
}

fn declared_type(row: &Row, tables: &TableTypes) -> SqlParameterType {
    if number(row, 9) != Some(1) {
        return SqlParameterType::Scalar(scalar(row, 3, 12));
    }
    let table = number(row, 11).and_then(|id| tables.get(&id));
    let (schema, bare) = (text(row, 10).unwrap_or("dbo"), text(row, 3).unwrap_or_default());
    let columns = table.map(|table| table.columns.clone()).unwrap_or_default();
    let is_inserted = table.is_some_and(|table| table.is_inserted);
    let Ok(name) = ProcedureName::from_parts(schema, bare) else {
        let name = format!("{schema:?}.{bare:?}");
        let (quoted, driver_name, query) = (name.clone(), None, None);
        return SqlParameterType::Table {
            name,
            quoted,
            driver_name,
            columns,
            is_inserted,
            is_current: String::new(),
            query,
        };
    };
    let driver_name = table_query::driver_name(&name);
    let query =
        table.filter(|_| !is_inserted).zip(driver_name.as_deref()).map(|(table, driver_name)| {
            TableQuery::new((&name, driver_name), table.object_id, &table.columns)
        });
    let is_current = table.map(|table| table_query::is_current(&name, table.object_id));
    let is_current = is_current.unwrap_or_default();
    let (name, quoted) = (name.as_str().to_owned(), name.quoted());
    SqlParameterType::Table { name, quoted, driver_name, columns, is_inserted, is_current, query }
}

/// Builds a type from its name, base type, length, precision and scale, which are in consecutive columns starting at
/// `from`, and from its code page in another column.
fn scalar(row: &Row, from: usize, code_page: usize) -> SqlType {
    let own = text(row, from).unwrap_or_default();
    // An alias type has its own name and the properties of its base type. A CLR type has no base type.
    let base = text(row, from + 1).filter(|base| !base.is_empty()).unwrap_or(own);
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
