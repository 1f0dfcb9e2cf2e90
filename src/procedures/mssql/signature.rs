//! What a procedure's parameters are, read from the database.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tiberius::{ColumnData, Row, ToSql, error::Error};
use tokio::sync::OwnedMutexGuard;

use super::connect::Client;
use super::question::Questions;
use super::types::{CodePage, Described, SqlType};
use crate::catalogue::{ParameterType, ProcedureName};
use crate::procedures::Need;

/// Where parameters are found. The second is where Babelfish keeps them; SQL Server has both.
const VIEWS: [&str; 2] = ["sys.parameters", "sys.all_parameters"];
/// A parameter has no collation of its own: it is that of the database.
const DATABASE_CODE_PAGE: &str = "CAST(COLLATIONPROPERTY(CAST(DATABASEPROPERTYEX(DB_NAME(), \
     'Collation') AS nvarchar(128)), 'CodePage') AS int)";
/// Procedures of one query: with some parameters each the answer fills a few packets.
pub(super) const PROCEDURES_PER_QUERY: usize = 128;
/// Table types of one query: a request may have 2,100 parameters.
const TABLE_TYPES_PER_QUERY: usize = 1000;

/// The parameters of so many procedures, in order. A procedure without any is one row of NULLs, one that is not there
/// has no id.
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

/// The columns of so many table types, in order.
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

fn append(into: &mut String, more: fmt::Arguments<'_>) {
    let written = into.write_fmt(more);
    debug_assert!(written.is_ok(), "writing to a string does not fail");
}

/// A procedure's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    /// In the order of their declaration.
    pub(super) parameters: Vec<Parameter>,
}

/// A parameter as the database declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    /// Its name with `@`.
    pub(super) name: String,
    /// Its type.
    pub(super) kind: Kind,
    /// Whether it is declared OUTPUT.
    pub(super) is_output: bool,
}

/// A parameter's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A single value.
    Scalar(SqlType),
    /// A table.
    Table {
        /// `schema.type`.
        name: String,
        /// Its columns, in order.
        columns: Vec<(String, SqlType)>,
        /// Replacements for the driver's column query; `None` for a type without columns.
        questions: Option<Questions>,
    },
}

impl Parameter {
    /// Its name as the catalogue writes it.
    pub(super) fn bare_name(&self) -> &str {
        self.name.strip_prefix('@').unwrap_or(&self.name)
    }
}

impl Signature {
    /// The parameter of an argument's name. SQL Server's names know no case, unless the database's collation does.
    pub(super) fn parameter(&self, name: &str) -> Option<&Parameter> {
        let mut all = self.parameters.iter();
        all.clone()
            .find(|parameter| parameter.bare_name() == name)
            .or_else(|| all.find(|parameter| parameter.bare_name().eq_ignore_ascii_case(name)))
    }

    /// The names, for a message.
    pub(super) fn names(&self) -> String {
        let names: Vec<&str> = self.parameters.iter().map(|one| one.name.as_str()).collect();
        if names.is_empty() { "no parameters".to_owned() } else { names.join(", ") }
    }

    /// The first text of a code page that is not known: its name and the page.
    fn unknown_code_page(&self) -> Option<(&str, CodePage)> {
        let of = |name, sql: &SqlType| match sql {
            SqlType::Text { code_page, .. } if !code_page.is_known() => Some((name, *code_page)),
            _ => None,
        };
        self.parameters.iter().find_map(|parameter| match &parameter.kind {
            Kind::Scalar(sql) => of(parameter.name.as_str(), sql),
            Kind::Table { columns, .. } => columns.iter().find_map(|(name, sql)| of(name, sql)),
        })
    }

    /// Where an endpoint's needs and the procedure do not fit: both sides, named. `None` when they do.
    pub(super) fn difference(&self, need: &Need) -> Option<String> {
        let mut found = String::new();
        for (name, kind) in &need.arguments {
            let there = self.parameter(name);
            if there.is_some_and(|parameter| takes(&parameter.kind, *kind)) {
                continue;
            }
            let declared = match there.map(|parameter| &parameter.kind) {
                None => format!("it has {}", self.names()),
                Some(Kind::Scalar(sql)) => format!("it is {sql}"),
                Some(Kind::Table { name, .. }) => format!("it is the table type {name}"),
            };
            note(
                &mut found,
                &format!(
                    "the catalogue passes @{name} as {}, in the database {declared}",
                    kind.as_str()
                ),
            );
        }
        for name in &need.outputs {
            match self.parameter(name) {
                Some(parameter) if parameter.is_output => {}
                Some(_) => note(
                    &mut found,
                    &format!("the catalogue returns @{name}, in the database it is not OUTPUT"),
                ),
                None => note(
                    &mut found,
                    &format!(
                        "the catalogue returns @{name}, in the database it has {}",
                        self.names()
                    ),
                ),
            }
        }
        (!found.is_empty()).then_some(found)
    }
}

fn note(into: &mut String, text: &str) {
    let separator = if into.is_empty() { "" } else { "; " };
    append(into, format_args!("{separator}{text}"));
}

/// Whether values of a catalogue's type can be values of the declared type at all.
fn takes(kind: &Kind, given: ParameterType) -> bool {
    use ParameterType as P;
    use SqlType as S;
    let sql = match kind {
        Kind::Table { .. } => return given == P::Table,
        Kind::Scalar(sql) => sql,
    };
    match sql {
        S::Other(_) => false,
        S::Variant => given != P::Table,
        S::Text { .. } => !matches!(given, P::Table | P::Binary),
        S::Binary { .. } => given == P::Binary,
        S::Bit => matches!(given, P::Boolean | P::Int32 | P::Int64 | P::String),
        S::TinyInt
        | S::SmallInt
        | S::Int
        | S::BigInt
        | S::Decimal { .. }
        | S::Money
        | S::SmallMoney
        | S::Real
        | S::Float => {
            matches!(given, P::Int32 | P::Int64 | P::Number | P::Decimal | P::Boolean | P::String)
        }
        S::Date => matches!(given, P::Date | P::String),
        S::Time(_) => matches!(given, P::Time | P::String),
        S::DateTime | S::SmallDateTime | S::DateTime2(_) | S::DateTimeOffset(_) => {
            matches!(given, P::Datetime | P::Date | P::String)
        }
        S::Guid => matches!(given, P::Uuid | P::String),
        S::Xml => matches!(given, P::String | P::Json),
    }
}

/// A signature that is being read: one call has the lock, and the others wait for it.
#[derive(Clone, Debug, Default)]
struct Reading {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// It was read, and there is no such procedure.
    is_missing: Arc<AtomicBool>,
}

/// What a call that needs a signature has waited for.
#[derive(Debug)]
pub(super) enum Turn {
    /// The signature is known.
    Known,
    /// Another call has found that there is no such procedure.
    Missing,
    /// This call is to read it, and holds this while it does.
    Reader(#[expect(dead_code, reason = "held for its drop")] OwnedMutexGuard<()>),
}

/// The signatures read so far. As many as the catalogue has procedures.
#[derive(Debug, Default)]
pub(super) struct Signatures {
    known: Mutex<HashMap<ProcedureName, Arc<Signature>>>,
    /// Of those that are not known: who reads them.
    readings: Mutex<HashMap<ProcedureName, Reading>>,
    lacks_parameters_view: AtomicBool,
    /// It was said that there is text in a code page that is not known.
    is_unknown_logged: AtomicBool,
}

impl Signatures {
    /// The signature as it was last read.
    pub(super) fn known(&self, procedure: &ProcedureName) -> Option<Arc<Signature>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(procedure).cloned()
    }

    /// Whether it was read.
    pub(super) fn is_known(&self, procedure: &ProcedureName) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains_key(procedure)
    }

    /// Forgets a signature, unless another was read since.
    pub(super) fn forget(&self, procedure: &ProcedureName, used: &Signature) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(procedure).is_some_and(|one| **one == *used) {
            known.remove(procedure);
        }
    }

    /// Waits for the turn to read an unknown signature: of many calls one reads it, and then the others know it, or that there
    /// is no such procedure. Safe to drop.
    pub(super) async fn turn(&self, procedure: &ProcedureName) -> Turn {
        let reading = {
            let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
            readings.entry(procedure.clone()).or_default().clone()
        };
        let guard = reading.lock.lock_owned().await;
        if self.is_known(procedure) {
            Turn::Known
        } else if reading.is_missing.load(Ordering::Acquire) {
            Turn::Missing
        } else {
            Turn::Reader(guard)
        }
    }

    /// Reads the signature of one procedure from the database. `None` when there is no such procedure.
    /// Not safe to drop: discard the connection then.
    pub(super) async fn read(
        &self,
        client: &mut Client,
        procedure: &ProcedureName,
    ) -> Result<Option<Arc<Signature>>, Error> {
        let mut found = self.read_all(client, std::slice::from_ref(procedure)).await?;
        Ok(found.pop().flatten())
    }

    /// Reads the signatures of procedures, in one query for `PROCEDURES_PER_QUERY` of them and one more for the table
    /// types that they take. `None` for one that is not there. Not safe to drop: discard the connection then.
    pub(super) async fn read_all(
        &self,
        client: &mut Client,
        procedures: &[ProcedureName],
    ) -> Result<Vec<Option<Arc<Signature>>>, Error> {
        let mut all = Vec::with_capacity(procedures.len());
        for some in procedures.chunks(PROCEDURES_PER_QUERY) {
            let rows = self.parameter_rows(client, some).await?;
            let tables = read_tables(client, &rows).await?;
            let found = signatures(some.len(), &rows, &tables);
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            for (procedure, found) in some.iter().zip(&found) {
                match found {
                    Some(signature) => known.insert(procedure.clone(), Arc::clone(signature)),
                    None => known.remove(procedure),
                };
            }
            drop(known);
            let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
            for (procedure, found) in some.iter().zip(&found) {
                // Whoever comes from now on reads anew.
                if let Some(reading) = readings.remove(procedure) {
                    reading.is_missing.store(found.is_none(), Ordering::Release);
                }
            }
            drop(readings);
            for (procedure, found) in some.iter().zip(&found) {
                self.note_code_page(procedure, found.as_deref());
            }
            all.extend(found);
        }
        Ok(all)
    }

    /// Says once that there is text of which only ASCII is passed.
    fn note_code_page(&self, procedure: &ProcedureName, found: Option<&Signature>) {
        let Some((name, page)) = found.and_then(Signature::unknown_code_page) else { return };
        if !self.is_unknown_logged.swap(true, Ordering::Relaxed) {
            let (procedure, code_page) = (procedure.as_str(), page.number());
            tracing::warn!(
                procedure,
                name,
                code_page,
                "the code page of text in the database is not known: only ASCII is passed there"
            );
        }
    }

    async fn parameter_rows(
        &self,
        client: &mut Client,
        procedures: &[ProcedureName],
    ) -> Result<Vec<Row>, Error> {
        let name = |one: &ProcedureName| format!("[{}].[{}]", one.schema(), one.procedure());
        let names: Vec<String> = procedures.iter().map(name).collect();
        let [view, fallback] = VIEWS.map(|view| parameters_query(view, procedures.len()));
        if !self.lacks_parameters_view.load(Ordering::Relaxed) {
            match rows(client, &view, &names).await {
                Err(Error::Server(_)) => {}
                result => return result,
            }
        }
        let found = rows(client, &fallback, &names).await?;
        self.lacks_parameters_view.store(true, Ordering::Relaxed);
        Ok(found)
    }
}

async fn rows<T: ToSql>(client: &mut Client, sql: &str, given: &[T]) -> Result<Vec<Row>, Error> {
    let given: Vec<&dyn ToSql> = given.iter().map(|one| one as &dyn ToSql).collect();
    client.query(sql, &given).await?.into_first_result().await
}

/// A table type: the id of its object, and its columns.
#[derive(Clone, Debug, Default)]
struct Table {
    object_id: i64,
    columns: Vec<(String, SqlType)>,
}

/// Table types by their id.
type Tables = BTreeMap<i64, Table>;

/// Reads the columns of every table type that the parameters have.
async fn read_tables(client: &mut Client, parameters: &[Row]) -> Result<Tables, Error> {
    let mut tables = Tables::new();
    let tabular = parameters.iter().filter(|row| number(row, 9) == Some(1));
    let ids: BTreeSet<i32> =
        tabular.filter_map(|row| i32::try_from(number(row, 11)?).ok()).collect();
    let ids: Vec<i32> = ids.into_iter().collect();
    for some in ids.chunks(TABLE_TYPES_PER_QUERY) {
        for column in rows(client, &columns_query(some.len()), some).await? {
            let Some(id) = number(&column, 0) else { continue };
            let name = text(&column, 1).unwrap_or_default().to_owned();
            let table = tables.entry(id).or_default();
            table.object_id = number(&column, 8).unwrap_or_default();
            table.columns.push((name, scalar(&column, 2, 7)));
        }
    }
    Ok(tables)
}

/// The signatures of so many procedures from their rows.
fn signatures(count: usize, rows: &[Row], tables: &Tables) -> Vec<Option<Arc<Signature>>> {
    let mut found: Vec<Option<Signature>> = vec![None; count];
    for row in rows {
        let place = number(row, 0).and_then(|place| usize::try_from(place).ok());
        let Some(slot) = place.and_then(|place| found.get_mut(place)) else { continue };
        if number(row, 1).is_none() {
            continue;
        }
        let signature = slot.get_or_insert_with(|| Signature { parameters: Vec::new() });
        if let Some(name) = text(row, 2) {
            let is_output = number(row, 8) == Some(1);
            let kind = kind(row, tables);
            signature.parameters.push(Parameter { name: name.to_owned(), kind, is_output });
        }
    }
    found.into_iter().map(|signature| signature.map(Arc::new)).collect()
}

fn kind(row: &Row, tables: &Tables) -> Kind {
    if number(row, 9) != Some(1) {
        return Kind::Scalar(scalar(row, 3, 12));
    }
    let table = number(row, 11).and_then(|id| tables.get(&id));
    let (schema, name) = (text(row, 10).unwrap_or("dbo"), text(row, 3).unwrap_or_default());
    let name = format!("{schema}.{name}");
    let questions = table.map(|table| Questions::for_table(&name, table.object_id, &table.columns));
    let columns = table.map(|table| table.columns.clone()).unwrap_or_default();
    Kind::Table { name, columns, questions }
}

/// The type whose name, base type, length, precision and scale stand from a column on, and its code page in another.
fn scalar(row: &Row, from: usize, code_page: usize) -> SqlType {
    let own = text(row, from).unwrap_or_default();
    // An alias type has a name of its own and the base type's properties.
    let base = text(row, from + 1).unwrap_or_default();
    let small = |at| number(row, at).and_then(|n| u8::try_from(n).ok()).unwrap_or_default();
    let length = number(row, from + 2).and_then(|n| i16::try_from(n).ok()).unwrap_or_default();
    SqlType::of(Described {
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
