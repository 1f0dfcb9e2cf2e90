//! Validates `returns`: the declared columns of the answer.

use serde_json::Value as Json;
use serde_json::value::RawValue;

use crate::catalogue::definition::json::{ObjectOnly, OrderedMembers};
use crate::catalogue::definition::keys;
use crate::catalogue::definition::returns::ReturnColumnDefinition;
use crate::catalogue::endpoint::ResultKind;
use crate::catalogue::error::EndpointErrors;
use crate::catalogue::json_schema::{JsonSchema, SchemaError};
use crate::catalogue::names::eq_ignore_case;
use crate::catalogue::parameter::ParameterType;
use crate::catalogue::returns::{ReturnColumn, Returns, SETS_MAX, VALUE};

/// The maximum number of columns in a result set: SQL Server's limit for a SELECT.
const COLUMNS_MAX: usize = 4096;

/// Validates `returns`. Its shape depends on the result.
pub(super) fn returns(
    written: Option<&RawValue>,
    (result, outputs): (ResultKind, &[String]),
    errors: &mut EndpointErrors<'_>,
) -> Option<Returns> {
    let raw = written?;
    let key = "returns";
    match result {
        ResultKind::None => {
            errors.add(key, "expected none with the result `none`, whose answer has no body");
            None
        }
        ResultKind::Rows | ResultKind::Row => {
            let mut columns = columns(raw, key, errors)?;
            name_as_outputs(&mut columns, outputs);
            Some(Returns::Columns(columns))
        }
        ResultKind::Value | ResultKind::Json => {
            let mut columns = columns(raw, key, errors)?;
            check_value(&columns, (result, outputs), errors);
            name_as_outputs(&mut columns, outputs);
            Some(Returns::Columns(columns))
        }
        ResultKind::Sets => Some(Returns::Sets(sets(raw, key, errors)?)),
        ResultKind::Full => full(raw, outputs, errors),
    }
}

/// Changes the names of declared outputs to their spelling in `outputs`. The members of the answer have that spelling.
fn name_as_outputs(columns: &mut [ReturnColumn], outputs: &[String]) {
    for output in outputs {
        if columns.iter().any(|column| column.name == *output) {
            continue;
        }
        if let Some(column) = columns.iter_mut().find(|one| eq_ignore_case(&one.name, output)) {
            column.name.clone_from(output);
        }
    }
}

/// Checks that the columns include the value, and that all other columns are outputs.
fn check_value(
    columns: &[ReturnColumn],
    (result, outputs): (ResultKind, &[String]),
    errors: &mut EndpointErrors<'_>,
) {
    let is_output = |name: &str| outputs.iter().any(|output| eq_ignore_case(output, name));
    if !columns.iter().any(|column| column.name == VALUE) {
        errors.add_missing("returns.value", "expected the type of the value");
    }
    for column in columns.iter().filter(|column| column.name != VALUE) {
        let name = &column.name;
        if result == ResultKind::Json || !is_output(name) {
            let expected = "expected only the member \"value\" and, with the result `value`, the names in `outputs`";
            errors.add(format!("returns.{name}"), expected);
        }
    }
    if let Some(value) = columns.iter().find(|column| column.name == VALUE)
        && result == ResultKind::Json
        && value.kind != ParameterType::Json
    {
        errors.add("returns.value.type", "expected json with the result `json`");
    }
}

fn full(raw: &RawValue, declared: &[String], errors: &mut EndpointErrors<'_>) -> Option<Returns> {
    let mut returns = (None, Vec::new());
    for (name, raw) in members(raw, "returns", errors)?.0 {
        let key = format!("returns.{name}");
        match name.as_str() {
            "sets" => returns.0 = sets(&raw, &key, errors),
            "outputs" => returns.1 = columns(&raw, &key, errors).unwrap_or_default(),
            _ => errors.add(key, "expected `sets` and `outputs` with the result `full`"),
        }
    }
    let (sets, mut outputs) = returns;
    // If `outputs` is empty, the answer contains all OUTPUT parameters.
    let is_declared = |column: &ReturnColumn| {
        declared.is_empty() || declared.iter().any(|one| eq_ignore_case(one, &column.name))
    };
    for column in outputs.iter().filter(|column| !is_declared(column)) {
        let key = format!("returns.outputs.{}", column.name);
        errors.add(key, "the endpoint's `outputs` do not contain this name");
    }
    name_as_outputs(&mut outputs, declared);
    Some(Returns::Full { sets, outputs })
}

fn sets(
    raw: &RawValue,
    key: &str,
    errors: &mut EndpointErrors<'_>,
) -> Option<Vec<Vec<ReturnColumn>>> {
    let sets: Result<Vec<Box<RawValue>>, _> = serde_json::from_str(raw.get());
    let Some(sets) = sets.ok().filter(|sets| sets.len() <= SETS_MAX) else {
        let expected =
            format!("expected an array with the columns of each result set, at most {SETS_MAX}");
        errors.add(key, expected);
        return None;
    };
    let read = |(index, raw): (usize, Box<RawValue>)| {
        columns(&raw, &format!("{key}[{index}]"), errors).unwrap_or_default()
    };
    Some(sets.into_iter().enumerate().map(read).collect())
}

fn columns(
    raw: &RawValue,
    key: &str,
    errors: &mut EndpointErrors<'_>,
) -> Option<Vec<ReturnColumn>> {
    let members = members(raw, key, errors)?;
    if members.0.len() > COLUMNS_MAX {
        errors.add(key, format!("expected at most {COLUMNS_MAX} columns"));
        return None;
    }
    let mut columns = Vec::with_capacity(members.0.len());
    for (name, raw) in members.0 {
        columns.extend(column(name, &raw, key, errors));
    }
    Some(columns)
}

fn column(
    name: String,
    raw: &RawValue,
    key: &str,
    errors: &mut EndpointErrors<'_>,
) -> Option<ReturnColumn> {
    let key = format!("{key}.{name}");
    let valid = keys::valid_keys::<ReturnColumnDefinition>(raw, &format!("{key}."), errors)?;
    let read = serde_json::from_str::<ObjectOnly<ReturnColumnDefinition>>(&valid);
    let ObjectOnly(definition) = read.map_err(|error| errors.add(&key, error.to_string())).ok()?;
    if name.is_empty() {
        errors.add(&key, "expected the name of the member in the answer, e.g. \"column_1\"");
    }
    if definition.kind == Some(ParameterType::Table) {
        errors.add(format!("{key}.type"), "expected any type except table");
    }
    if let Some(schema) = &definition.schema
        && (!schema.is_object() || definition.kind.is_some_and(|kind| kind != ParameterType::Json))
    {
        errors.add(format!("{key}.schema"), "expected an object, and only with the type `json`");
    } else if let Some(Err(SchemaError::Invalid(error))) =
        definition.schema.as_ref().map(JsonSchema::new)
    {
        // A schema that cannot be used to validate values still becomes part of the documentation, and `fjord check`
        // warns about it.
        errors.add(format!("{key}.schema"), format!("expected a JSON Schema: {error}"));
    }
    let kind = definition.kind.or_else(|| {
        errors.add_missing(format!("{key}.type"), "expected a type, e.g. \"string\"");
        None
    })?;
    Some(ReturnColumn {
        name,
        kind,
        nullable: definition.nullable,
        description: definition.description,
        schema: definition.schema.filter(Json::is_object),
    })
}

/// Reads the members of an object in their original order.
fn members(
    raw: &RawValue,
    key: &str,
    errors: &mut EndpointErrors<'_>,
) -> Option<OrderedMembers<Box<RawValue>>> {
    let read = serde_json::from_str(raw.get());
    read.map_err(|error| {
        let found = keys::message(&error);
        errors.add(key, format!("expected an object of columns by name: {found}"));
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use crate::catalogue::load::fixture::defaults;
    use crate::catalogue::load::parse;

    /// Returns the errors of an endpoint with these keys, without the names of the file and the endpoint.
    fn errors(keys: &str) -> Vec<String> {
        let text =
            format!(r#"{{"e":{{"route":"GET /e","procedure":"a.b","auth":"public",{keys}}}}}"#);
        let errors = parse(&[("a.json", &text)], &defaults()).err().unwrap_or_default();
        let error =
            |one: crate::catalogue::CatalogueError| format!("{}: {}", one.key, one.expected);
        errors.into_iter().map(error).collect()
    }

    #[test]
    fn every_error_is_reported_with_its_key() {
        let found = errors(
            r#""returns":{"a":{},"b":{"type":"int"},"c":{"type":"table"},"d":{"type":"string","nulable":true},
               "e":{"type":"string","schema":{}},"f":{"type":"json","schema":[]},"":{"type":"date"},"g":7,
               "h":{"type":"json","schema":{"type":"list"}},"i":{"type":"json","schema":{"$ref":"other.json"}}}"#,
        );
        for part in [
            "returns.a.type: missing: expected a type",
            "returns.b.type: \"int\": ",
            "returns.c.type: expected any type except table",
            "returns.d.nulable: is not a key: did you mean nullable?",
            "returns.e.schema: expected an object, and only with the type `json`",
            "returns.f.schema: expected an object",
            "returns.h.schema: expected a JSON Schema: /type: ",
            "returns.i.schema: expected a JSON Schema: a schema cannot refer to other documents: other.json",
            "returns.: expected the name of the member",
            "returns.g: invalid type",
        ] {
            let fitting = found.iter().filter(|error| error.starts_with(part));
            assert_eq!(fitting.count(), 1, "{part} in {found:#?}");
        }
        assert_eq!(found.len(), 10, "{found:#?}");
    }

    #[test]
    fn the_shape_is_that_of_the_result() {
        for (keys, part) in [
            (r#""result":"none","returns":{}"#, "expected none with the result `none`"),
            (r#""result":"row","returns":[]"#, "returns: expected an object of columns by name"),
            (
                r#""result":"row","returns":{"a":{"type":"date"},"a":{"type":"date"}}"#,
                "given more than once",
            ),
            (r#""result":"value","returns":{}"#, "returns.value: missing"),
            (
                r#""result":"value","returns":{"value":{"type":"date"},"n":{"type":"date"}}"#,
                "returns.n: expected only",
            ),
            (
                r#""result":"json","returns":{"value":{"type":"string"}}"#,
                "returns.value.type: expected json",
            ),
            (r#""result":"sets","returns":{}"#, "returns: expected an array"),
            (
                r#""result":"sets","returns":[{"a":{"type":"table"}}]"#,
                "returns[0].a.type: expected any type",
            ),
            (
                r#""result":"full","returns":{"rows":[]}"#,
                "returns.rows: expected `sets` and `outputs`",
            ),
            (
                r#""result":"full","outputs":["n"],"returns":{"outputs":{"m":{"type":"date"}}}"#,
                "returns.outputs.m: the endpoint's `outputs` do not contain",
            ),
        ] {
            let found = errors(keys);
            assert_eq!(found.len(), 1, "{keys}: {found:#?}");
            assert!(found[0].contains(part), "{keys}: {found:#?}");
        }
        for keys in [
            r#""result":"row","outputs":["n"],"returns":{"a":{"type":"string","nullable":true,"description":"One"},"n":{"type":"int64"}}"#,
            r#""result":"value","outputs":["n"],"returns":{"value":{"type":"date"},"N":{"type":"int64"}}"#,
            r#""result":"json","returns":{"value":{"type":"json","schema":{"type":"array"}}}"#,
            r#""result":"json","returns":{"value":{"type":"json","schema":{"pattern":"^(?!a)"}}}"#,
            r#""result":"json","returns":{"value":{"type":"json","schema":{"$schema":"https://spec.openapis.org/oas/3.1/dialect/base"}}}"#,
            r#""result":"sets","returns":[{"a":{"type":"string"}},{}]"#,
            r#""result":"full","returns":{"sets":[],"outputs":{"n":{"type":"uuid"}}}"#,
        ] {
            assert_eq!(errors(keys), Vec::<String>::new(), "{keys}");
        }
    }
}
