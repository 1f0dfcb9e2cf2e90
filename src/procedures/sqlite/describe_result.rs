//! Describes the answers of procedures from their prepared statements.

use std::ffi::CString;
use std::path::Path;

use rusqlite::{Connection, Statement};
use tokio::time::Instant;

use super::connection::SqliteConnection;
use super::lexer::{Lexer, Token};
use super::procedure::{self, ProcedureStep, SqliteProcedure};
use super::supervisor::JobSupervisor;
use super::types::{self, ColumnHint};
use super::{Sqlite, before_sending, error_codes};
use crate::catalogue::ParameterType::{self, self as P};
use crate::catalogue::ProcedureName;
use crate::procedures::result_description::with_member_names;
use crate::procedures::{BackendError, ColumnDescription, ResultDescription};
use crate::telemetry::chain;

/// Words after which a NOT NULL column of a table can still be NULL in a result: outer joins, compound queries, and aggregate
/// functions, whose row exists even if the table is empty.
const NULLING_WORDS: [&str; 20] = [
    "LEFT",
    "RIGHT",
    "FULL",
    "UNION",
    "INTERSECT",
    "EXCEPT",
    "VALUES",
    "COUNT",
    "SUM",
    "TOTAL",
    "MIN",
    "MAX",
    "AVG",
    "GROUP_CONCAT",
    "STRING_AGG",
    "JSON_GROUP_ARRAY",
    "JSONB_GROUP_ARRAY",
    "JSON_GROUP_OBJECT",
    "JSONB_GROUP_OBJECT",
    "MEDIAN",
];
/// The text that messages show for a column without a declared type.
const UNDECLARED: &str = "no declared type";

impl Sqlite {
    /// Describes the answer of a procedure. If it cannot be described, the description contains the
    /// reason, unless the database is not available.
    pub(super) async fn describe_answer(
        &self,
        procedure: &ProcedureName,
        deadline: Instant,
    ) -> Result<ResultDescription, BackendError> {
        let connection = self.connection(deadline, &self.closing).await?;
        let (directory, procedure) = (self.directory.clone(), procedure.clone());
        let job = move |connection: &mut SqliteConnection| {
            let described = describe(&connection.handle, &directory, procedure.as_str());
            Ok(described.unwrap_or_else(|error| ResultDescription::unknown(chain(&error))))
        };
        let supervisor = JobSupervisor { deadline, cancel: &self.closing, closing: &self.closing };
        supervisor.run(connection, None, job).await.map_err(before_sending)
    }
}

fn describe(
    connection: &Connection,
    directory: &Path,
    name: &str,
) -> Result<ResultDescription, BackendError> {
    let procedure = procedure::load(connection, directory, name)?;
    let views = views(connection).map_err(|error| error_codes::while_preparing(name, error))?;
    let (mut sets, mut outputs) = (Vec::new(), Vec::new());
    for step in &procedure.steps {
        let ProcedureStep::Statement(statement) = step else { continue };
        let prepared = connection
            .prepare_cached(&statement.sql)
            .map_err(|error| error_codes::while_preparing(name, error))?;
        let columns = columns(connection, &prepared, &statement.sql, &views);
        if statement.assigns {
            outputs.extend(columns);
        } else if !columns.is_empty() {
            sets.push(with_member_names(columns));
        }
    }
    let outputs = variables(&procedure, &outputs);
    Ok(ResultDescription { sets: Ok(sets), has_all_sets: true, outputs })
}

/// Returns the names of all views in lower case. A view can contain an outer join.
fn views(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut query =
        connection.prepare("SELECT lower(name) FROM sqlite_schema WHERE type = 'view'")?;
    query.query_map([], |row| row.get(0))?.collect()
}

fn columns(
    connection: &Connection,
    statement: &Statement<'_>,
    sql: &str,
    views: &[String],
) -> Vec<ColumnDescription> {
    let keeps_constraints = keeps_constraints(sql, views);
    let columns = statement.columns().zip(statement.columns_with_metadata());
    let described = columns.map(|(column, origin)| {
        let (name, hint) = types::column(column.name(), column.decl_type());
        let is_nullable = || {
            let (table, origin_name) = (origin.table_name()?, origin.origin_name()?);
            let found = connection.column_metadata(origin.database_name(), table, origin_name);
            let (declared, _, is_not_null, is_key, _) = found.ok()?;
            // An INTEGER PRIMARY KEY is the row's id and is never NULL, unless the key has further columns.
            let is_integer = |text: CString| text.to_bytes().eq_ignore_ascii_case(b"INTEGER");
            let is_known = is_not_null || !(is_key && declared.is_some_and(is_integer));
            is_known.then_some(!is_not_null)
        };
        let is_nullable = if keeps_constraints { is_nullable() } else { None };
        let declared = column.decl_type().unwrap_or(UNDECLARED).to_owned();
        ColumnDescription { name, declared, kinds: kinds(hint, column.decl_type()), is_nullable }
    });
    described.collect()
}

/// Returns whether the NOT NULL columns of the tables are also never NULL in the result.
fn keeps_constraints(sql: &str, views: &[String]) -> bool {
    let mut lexer = Lexer::new(sql);
    let mut has_select = false;
    while let Some(token) = lexer.next_token() {
        let Token::Word(word) = token else { continue };
        if word.eq_ignore_ascii_case("SELECT") {
            // SQLite also names the origin of a scalar subquery's column, but the subquery may find no row.
            if has_select {
                return false;
            }
            has_select = true;
        }
        if NULLING_WORDS.iter().any(|one| word.eq_ignore_ascii_case(one)) {
            return false;
        }
    }
    let sql = sql.to_ascii_lowercase();
    !views.iter().any(|view| may_name(&sql, view))
}

/// Returns whether a statement can refer to a view. The statement and the name of the view are in lower case. In the
/// statement, the name can be quoted in any way, with doubled quotes inside it, and can follow a schema name.
fn may_name(sql: &str, view: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
    let occurs = |name: &str| {
        sql.match_indices(name).any(|(at, found)| {
            let (before, after) = (sql.get(..at), sql.get(at + found.len()..));
            let before = before.and_then(|text| text.chars().next_back());
            let after = after.and_then(|text| text.chars().next());
            !before.is_some_and(is_part) && !after.is_some_and(is_part)
        })
    };
    let doubled = |quote: char| view.replace(quote, &format!("{quote}{quote}"));
    occurs(view) || ['"', '\'', '`', ']'].into_iter().any(|quote| occurs(&doubled(quote)))
}

/// Returns the catalogue types to which every value of a column belongs. The narrowest type comes first.
fn kinds(hint: ColumnHint, declared: Option<&str>) -> &'static [ParameterType] {
    match hint {
        ColumnHint::Decimal(_) => return &[P::Decimal, P::Number],
        ColumnHint::Boolean => return &[P::Boolean],
        ColumnHint::Stored => {}
    }
    let is_word = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    let word: String = declared.unwrap_or_default().chars().take_while(is_word).collect();
    kinds_of_type(&word.to_ascii_lowercase())
}

/// Returns the catalogue types to which every value of a declared type belongs. The type's name is in lower case.
fn kinds_of_type(name: &str) -> &'static [ParameterType] {
    match name {
        "bit" => &[P::Boolean],
        "tinyint" | "smallint" | "int" => &[P::Int32, P::Int64, P::Decimal, P::Number],
        "integer" | "bigint" => &[P::Int64, P::Int32, P::Decimal, P::Number],
        "decimal" | "numeric" | "money" | "smallmoney" => &[P::Decimal, P::Number],
        "real" | "float" | "double" => &[P::Number, P::Decimal],
        "char" | "varchar" | "nchar" | "nvarchar" | "text" | "ntext" | "xml" => {
            &[P::String, P::Uuid, P::Date, P::Time, P::Datetime]
        }
        "date" => &[P::Date, P::String],
        "time" => &[P::Time, P::String],
        "datetime" | "smalldatetime" | "datetime2" | "datetimeoffset" => &[P::Datetime, P::String],
        "uniqueidentifier" => &[P::Uuid, P::String],
        "blob" | "binary" | "varbinary" => &[P::Binary, P::String],
        _ => &[],
    }
}

/// Returns the variables that a procedure sets, without duplicates. The declared type of a variable takes precedence
/// over the type of the last column that sets it.
fn variables(procedure: &SqliteProcedure, columns: &[ColumnDescription]) -> Vec<ColumnDescription> {
    let declared = procedure.parameters().unwrap_or_default();
    let mut variables: Vec<ColumnDescription> = Vec::new();
    for column in columns {
        let Some(name) = procedure::variable(&column.name) else { continue };
        if name == procedure::RETURN {
            continue;
        }
        let own = declared.iter().find(|one| one.name == name);
        let described = match own {
            Some(one) => ColumnDescription {
                name: name.to_owned(),
                declared: one.declared.to_string(),
                kinds: kinds_of_type(&one.declared.name),
                is_nullable: None,
            },
            None => {
                ColumnDescription { name: name.to_owned(), is_nullable: None, ..column.clone() }
            }
        };
        variables.retain(|known| known.name != name);
        variables.push(described);
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_not_null_column_can_be_null_after_an_outer_join_or_in_an_empty_aggregate() {
        let views = ["summary", "a view", "\"v\"", "r[1]"].map(ToOwned::to_owned);
        for (sql, keeps) in [
            ("SELECT a FROM t JOIN u ON u.a = t.a", true),
            ("SELECT a FROM t left join u ON u.a = t.a", false),
            ("SELECT a FROM t UNION SELECT NULL", false),
            ("SELECT a, count(*) FROM t", false),
            ("SELECT a, json_group_array(b) FROM t", false),
            ("SELECT (SELECT a FROM t WHERE b = 1) FROM u", false),
            ("SELECT a FROM Summary", false),
            ("SELECT a FROM \"SUMMARY\"", false),
            ("SELECT a FROM main.summary", false),
            ("SELECT a FROM main.\"summary\" AS s", false),
            ("SELECT a FROM [A View]", false),
            ("SELECT a FROM \"A View\"", false),
            ("SELECT a FROM `A View`", false),
            ("SELECT a FROM 'A View'", false),
            ("SELECT a FROM \"\"\"v\"\"\"", false),
            ("SELECT a FROM [r[1]]]", false),
            ("SELECT summary_id FROM t", true),
            ("SELECT a FROM t WHERE b = 'left' -- full", true),
        ] {
            assert_eq!(keeps_constraints(sql, &views), keeps, "{sql}");
        }
    }

    #[test]
    fn declared_types_and_hints_are_types_of_the_catalogue() {
        for (declared, hint, first) in [
            (Some("INTEGER"), ColumnHint::Stored, Some(P::Int64)),
            (Some("NVARCHAR (100)"), ColumnHint::Stored, Some(P::String)),
            (Some("DATE"), ColumnHint::Stored, Some(P::Date)),
            (Some("BLOB"), ColumnHint::Stored, Some(P::Binary)),
            (None, ColumnHint::Decimal(Some(2)), Some(P::Decimal)),
            (None, ColumnHint::Stored, None),
        ] {
            assert_eq!(kinds(hint, declared).first().copied(), first, "{declared:?}");
        }
    }
}
