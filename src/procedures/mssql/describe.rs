//! The procedures of a database, for `fjord import`.

use tiberius::error::Error;

use super::connect::Client;
use super::signature::{Kind, Parameter, Signatures};
use super::types::SqlType;
use crate::catalogue::{ParameterType, ProcedureName};
use crate::config::worker::matches_pattern;
use crate::procedures::described::{Described, DescribedParameter};

/// Every procedure of the database's users.
const PROCEDURES: &str = "SELECT SCHEMA_NAME(schema_id), name FROM sys.procedures \
     WHERE is_ms_shipped = 0 ORDER BY SCHEMA_NAME(schema_id), name";

/// Describes the procedures whose `schema.name` fits the pattern. Not safe to drop: discard the connection then.
pub(super) async fn describe(
    client: &mut Client,
    signatures: &Signatures,
    pattern: &str,
) -> Result<Vec<Described>, Error> {
    let rows = client.simple_query(PROCEDURES).await?.into_first_result().await?;
    let names = rows.iter().filter_map(|row| {
        let (schema, name) = (row.try_get::<&str, _>(0).ok()??, row.try_get::<&str, _>(1).ok()??);
        Some(format!("{schema}.{name}"))
    });
    let names: Vec<String> = names.filter(|name| matches_pattern(pattern, name)).collect();
    let checked: Vec<_> = names.iter().map(|name| ProcedureName::new(name)).collect();
    let procedures: Vec<ProcedureName> = checked.iter().flatten().cloned().collect();
    let mut found = signatures.read_all(client, &procedures).await?.into_iter();
    let mut described = Vec::new();
    for (name, procedure) in names.into_iter().zip(checked) {
        let parameters = match procedure {
            Ok(_) => match found.next().flatten() {
                Some(signature) => Ok(signature.parameters.iter().map(parameter).collect()),
                None => Err("the login may not see its parameters".to_owned()),
            },
            Err(error) => Err(error.to_string()),
        };
        described.push(Described { name, parameters });
    }
    Ok(described)
}

fn parameter(parameter: &Parameter) -> DescribedParameter {
    let name = parameter.bare_name();
    let described = match &parameter.kind {
        Kind::Scalar(sql) => scalar(name, sql),
        Kind::Table { name: kind, columns, .. } => DescribedParameter {
            kind: Some(ParameterType::Table),
            columns: columns.iter().map(|(name, sql)| scalar(name, sql)).collect(),
            ..DescribedParameter::new(name, kind)
        },
    };
    DescribedParameter { is_output: parameter.is_output, ..described }
}

fn scalar(name: &str, sql: &SqlType) -> DescribedParameter {
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
        SqlType::Other(_) => return DescribedParameter::new(name, sql.to_string()),
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
    let described = DescribedParameter::new(name, sql.to_string());
    DescribedParameter { kind: Some(kind), length_max, range, ..described }
}
