//! Queries the database for the answers of procedures, without executing them.

use std::fmt::Write as _;

use tiberius::error::Error;
use tiberius::{ColumnData, Row};

use super::signature::{Signature, SqlParameterType};
use super::signatures::SignatureCache;
use crate::catalogue::ParameterType::{self, self as P};
use crate::catalogue::ProcedureName;
use crate::procedures::mssql::error_numbers;
use crate::procedures::mssql::tds::TdsClient;
use crate::procedures::mssql::types::{CodePage, SqlType, TypeDescription};
use crate::procedures::result_description::with_member_names;
use crate::procedures::{ColumnDescription, ResultDescription};

/// The query for the columns of the first result set of a call. SQL Server analyses the procedure, but does not execute
/// it. It returns an error if the columns are known only when the procedure runs, as with dynamic SQL and temporary
/// tables.
const QUERY: &str = "EXEC sp_describe_first_result_set @tsql = @P1, @params = @P2";
/// The reason given for a procedure that does not exist or is not visible.
const MISSING: &str = "there is no such procedure, or the login cannot see it";

/// Describes the answer of a procedure. Uses its signature if it has been read. If this future is dropped, the
/// connection must be discarded.
pub(crate) async fn describe_result(
    client: &mut TdsClient,
    known: &SignatureCache,
    procedure: &ProcedureName,
) -> Result<ResultDescription, Error> {
    let signature = match known.known(procedure) {
        Some(signature) => Some(signature),
        None => known.read_all(client, std::slice::from_ref(procedure)).await?.pop().flatten(),
    };
    Ok(match signature {
        None => ResultDescription::unknown(MISSING),
        Some(signature) => ResultDescription {
            sets: first_set(client, &signature).await?,
            has_all_sets: false,
            outputs: outputs(&signature),
        },
    })
}

/// Returns the first result set, an empty list if the procedure returns none, or the reason why it is not known.
async fn first_set(
    client: &mut TdsClient,
    signature: &Signature,
) -> Result<Result<Vec<Vec<ColumnDescription>>, String>, Error> {
    let (call, parameters) = call(signature);
    let answer = match client.query(QUERY, &[&call, &parameters]).await {
        Ok(stream) => stream.into_first_result().await,
        Err(error) => Err(error),
    };
    let rows = match answer {
        Err(Error::Server(token)) if !error_numbers::is_fatal(&token) => {
            return Ok(Err(token.message().to_owned()));
        }
        answer => answer?,
    };
    let is_shown = |row: &&Row| number(row, "is_hidden") != Some(1);
    let columns: Vec<ColumnDescription> = rows.iter().filter(is_shown).map(column).collect();
    Ok(Ok(if columns.is_empty() { Vec::new() } else { vec![with_member_names(columns)] }))
}

/// Returns the call as a statement with a variable for each parameter, and the declarations of the variables.
fn call(signature: &Signature) -> (String, Option<String>) {
    let mut call = format!("EXEC {}", signature.quoted);
    let mut variables = String::new();
    for parameter in &signature.parameters {
        let (name, separator) = (&parameter.name, if variables.is_empty() { "" } else { "," });
        let output = if parameter.is_output { " OUTPUT" } else { "" };
        let kind = match &parameter.declared {
            SqlParameterType::Scalar(sql) => sql.variable_type(),
            SqlParameterType::Table { quoted, .. } => format!("{quoted} READONLY"),
        };
        let written = write!(call, "{separator} {name} = {name}{output}")
            .and_then(|()| write!(variables, "{separator} {name} {kind}{output}"));
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }
    let variables = variables.trim_start().to_owned();
    (call, (!variables.is_empty()).then_some(variables))
}

fn column(row: &Row) -> ColumnDescription {
    let declared = text(row, "system_type_name");
    // A CLR type has no system type name.
    let declared = declared.or_else(|| text(row, "user_type_name")).unwrap_or("a CLR type");
    let name = declared.split('(').next().unwrap_or_default();
    let sql = SqlType::new(TypeDescription {
        name,
        length: 0,
        precision: 0,
        scale: 0,
        code_page: CodePage::UNKNOWN,
    });
    ColumnDescription {
        name: text(row, "name").unwrap_or_default().to_owned(),
        declared: declared.to_owned(),
        kinds: kinds(&sql, false),
        is_nullable: number(row, "is_nullable").map(|is_nullable| is_nullable == 1),
    }
}

fn outputs(signature: &Signature) -> Vec<ColumnDescription> {
    let outputs = signature.parameters.iter().filter(|parameter| parameter.is_output);
    let described = outputs.filter_map(|parameter| match &parameter.declared {
        SqlParameterType::Scalar(sql) => Some(ColumnDescription {
            name: parameter.bare_name().to_owned(),
            declared: sql.to_string(),
            kinds: kinds(sql, true),
            is_nullable: None,
        }),
        SqlParameterType::Table { .. } => None,
    });
    described.collect()
}

/// Returns the catalogue types to which every value of a SQL type belongs in an answer. The narrowest type comes first.
fn kinds(sql: &SqlType, is_output: bool) -> &'static [ParameterType] {
    match sql {
        SqlType::Bit => &[P::Boolean],
        SqlType::TinyInt | SqlType::SmallInt | SqlType::Int => {
            &[P::Int32, P::Int64, P::Decimal, P::Number]
        }
        SqlType::BigInt => &[P::Int64, P::Decimal, P::Number],
        SqlType::Decimal { .. } | SqlType::Money | SqlType::SmallMoney => &[P::Decimal, P::Number],
        SqlType::Real | SqlType::Float => &[P::Number],
        SqlType::Binary { .. } => &[P::Binary, P::String],
        SqlType::Date => &[P::Date, P::String],
        SqlType::Time(_) => &[P::Time, P::String],
        SqlType::DateTime
        | SqlType::SmallDateTime
        | SqlType::DateTime2(_)
        | SqlType::DateTimeOffset(_) => &[P::Datetime, P::String],
        SqlType::Guid => &[P::Uuid, P::String],
        // The driver does not distinguish a column of these types from text.
        SqlType::Json | SqlType::Vector(_) if is_output => &[P::Json],
        SqlType::Text { .. } | SqlType::Xml | SqlType::Json | SqlType::Vector(_) => &[P::String],
        SqlType::Variant | SqlType::Other(_) => &[],
    }
}

fn value<'a>(row: &'a Row, name: &str) -> Option<&'a ColumnData<'static>> {
    row.cells().find(|(column, _)| column.name() == name).map(|(_, value)| value)
}

fn text<'a>(row: &'a Row, name: &str) -> Option<&'a str> {
    match value(row, name)? {
        ColumnData::String(Some(text)) => Some(text),
        _ => None,
    }
}

fn number(row: &Row, name: &str) -> Option<i64> {
    match value(row, name)? {
        ColumnData::Bit(bit) => bit.map(i64::from),
        ColumnData::U8(number) => number.map(i64::from),
        ColumnData::I32(number) => number.map(i64::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::signature::SqlParameter;
    use super::*;

    #[test]
    fn a_call_passes_a_variable_for_each_parameter() {
        let parameter = |name: &str, declared, is_output| SqlParameter {
            name: name.to_owned(),
            declared,
            is_output,
        };
        let table = SqlParameterType::Table {
            name: "dbo.list".to_owned(),
            quoted: "[dbo].[list]".to_owned(),
            driver_name: None,
            columns: Vec::new(),
            is_inserted: false,
            is_current: String::new(),
            query: None,
        };
        let scalar = SqlParameterType::Scalar;
        let name = ProcedureName::new("dbo.[Sales by Year]").unwrap();
        let parameters = vec![
            parameter("@a", scalar(SqlType::Int), false),
            parameter("@rows", table, false),
            parameter("@out", scalar(SqlType::Json), true),
        ];
        assert_eq!(
            call(&Signature { parameters, ..Signature::new(&name) }),
            (
                "EXEC [dbo].[Sales by Year] @a = @a, @rows = @rows, @out = @out OUTPUT".to_owned(),
                Some("@a int, @rows [dbo].[list] READONLY, @out json OUTPUT".to_owned())
            )
        );
        assert_eq!(call(&Signature::new(&name)), ("EXEC [dbo].[Sales by Year]".to_owned(), None));
    }
}
