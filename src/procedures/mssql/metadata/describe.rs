//! Describes the procedures in a database for `fjord import`.

use tiberius::error::Error;

use super::signature::{SqlParameter, SqlParameterType};
use super::signatures::SignatureCache;
use crate::catalogue::{ParameterType, ProcedureName};
use crate::config::worker::matches_pattern;
use crate::procedures::description::{ParameterDescription, ProcedureDescription};
use crate::procedures::mssql::tds::TdsClient;
use crate::procedures::mssql::types::SqlType;

/// A query for all procedures that are not part of SQL Server.
const PROCEDURES: &str = "SELECT SCHEMA_NAME(schema_id), name FROM sys.procedures \
     WHERE is_ms_shipped = 0 ORDER BY SCHEMA_NAME(schema_id), name";

/// Describes the procedures whose `schema.name` matches `pattern`. If this future is dropped, the
/// connection must be discarded.
pub(crate) async fn describe(
    client: &mut TdsClient,
    known: &SignatureCache,
    pattern: &str,
) -> Result<Vec<ProcedureDescription>, Error> {
    let rows = client.simple_query(PROCEDURES).await?.into_first_result().await?;
    let names = rows.iter().filter_map(|row| {
        let (schema, name) = (row.try_get::<&str, _>(0).ok()??, row.try_get::<&str, _>(1).ok()??);
        Some((schema.to_owned(), name.to_owned()))
    });
    let is_match =
        |(schema, name): &(String, String)| matches_pattern(pattern, &format!("{schema}.{name}"));
    let names: Vec<(String, String)> = names.filter(is_match).collect();
    let checked: Vec<_> =
        names.iter().map(|(schema, name)| ProcedureName::from_parts(schema, name)).collect();
    let procedures: Vec<ProcedureName> = checked.iter().flatten().cloned().collect();
    let mut signatures = known.read_all(client, &procedures).await?.into_iter();
    let mut descriptions = Vec::new();
    for ((schema, name), procedure) in names.iter().zip(checked) {
        let parameters = match procedure {
            Ok(_) => match signatures.next().flatten() {
                Some(signature) => Ok(signature.parameters.iter().map(parameter).collect()),
                None => Err("the login has no permission to see its parameters; grant it VIEW DEFINITION on the procedure".to_owned()),
            },
            Err(error) => Err(format!(
                "the catalogue cannot express its name: {error}; write a procedure with a valid name that calls this one"
            )),
        };
        descriptions.push(ProcedureDescription::new((schema, name), parameters));
    }
    Ok(descriptions)
}

fn parameter(parameter: &SqlParameter) -> ParameterDescription {
    let name = parameter.bare_name();
    let described = match &parameter.declared {
        SqlParameterType::Scalar(sql) => scalar(name, sql),
        SqlParameterType::Table { name: kind, driver_name: None, is_inserted: false, .. } => {
            ParameterDescription::new(name, format!("{kind}: the driver cannot pass its name"))
        }
        SqlParameterType::Table { name: kind, columns, .. } => ParameterDescription {
            kind: Some(ParameterType::Table),
            columns: columns.iter().map(|column| scalar(&column.name, &column.sql)).collect(),
            ..ParameterDescription::new(name, kind)
        },
    };
    ParameterDescription { is_output: parameter.is_output, ..described }
}

fn scalar(name: &str, sql: &SqlType) -> ParameterDescription {
    use ParameterType as P;
    let kind = match sql {
        SqlType::Bit => P::Boolean,
        SqlType::TinyInt | SqlType::SmallInt | SqlType::Int => P::Int32,
        SqlType::BigInt => P::Int64,
        SqlType::Decimal { .. } | SqlType::Money | SqlType::SmallMoney => P::Decimal,
        SqlType::Real | SqlType::Float => P::Number,
        SqlType::Text { .. } | SqlType::Xml | SqlType::Variant => P::String,
        SqlType::Binary { .. } => P::Binary,
        SqlType::Date => P::Date,
        SqlType::Time(_) => P::Time,
        SqlType::DateTime
        | SqlType::SmallDateTime
        | SqlType::DateTime2(_)
        | SqlType::DateTimeOffset(_) => P::Datetime,
        SqlType::Guid => P::Uuid,
        SqlType::Json | SqlType::Vector(_) => P::Json,
        SqlType::Other(_) => return ParameterDescription::new(name, sql.to_string()),
    };
    let range = match sql {
        SqlType::TinyInt => Some((i64::from(u8::MIN), i64::from(u8::MAX))),
        SqlType::SmallInt => Some((i64::from(i16::MIN), i64::from(i16::MAX))),
        _ => None,
    };
    let length_max = match sql {
        SqlType::Text { length, .. } | SqlType::Binary { length, .. } => *length,
        _ => None,
    };
    let described = ParameterDescription::new(name, sql.to_string());
    ParameterDescription { kind: Some(kind), length_max, range, ..described }
}
