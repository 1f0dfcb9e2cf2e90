//! Generates the JSON Schemas of successful answers from the result and the declared columns.

use serde_json::{Map, Value as Json, json};

use super::schemas;
use crate::catalogue::endpoint::{Endpoint, ResultKind};
use crate::catalogue::names::eq_ignore_case;
use crate::catalogue::parameter::ParameterType;
use crate::catalogue::returns::{ReturnColumn, Returns, VALUE};

/// Returns the schema of the answer, or `None` if the answer has no body.
pub(super) fn schema(endpoint: &Endpoint) -> Option<Json> {
    let declared = match &endpoint.returns {
        Some(Returns::Columns(columns)) => Some(columns.as_slice()),
        _ => None,
    };
    Some(match endpoint.result {
        ResultKind::Rows => rows(declared),
        ResultKind::Row => object(declared, &endpoint.outputs),
        ResultKind::Value if endpoint.outputs.is_empty() => value(declared),
        ResultKind::Value => match declared {
            Some(columns) => object(Some(columns), &endpoint.outputs),
            None => json!({ "type": "object", "required": [VALUE] }),
        },
        ResultKind::Json => value(declared),
        ResultKind::Sets => match &endpoint.returns {
            Some(Returns::Sets(declared)) => sets(Some(declared)),
            _ => sets(None),
        },
        ResultKind::Full => full(endpoint),
        ResultKind::None => return None,
    })
}

fn rows(columns: Option<&[ReturnColumn]>) -> Json {
    json!({ "type": "array", "items": object(columns, &[]) })
}

/// Returns the schema of an answer that is a single value.
fn value(columns: Option<&[ReturnColumn]>) -> Json {
    let value = columns.into_iter().flatten().find(|column| column.name == VALUE);
    value.map_or_else(|| json!({}), column)
}

/// Returns the schema of an object with these columns and outputs. A row has all of the declared columns. Further
/// columns are allowed, so that a client still accepts the answer if the procedure returns additional columns.
fn object(columns: Option<&[ReturnColumn]>, outputs: &[String]) -> Json {
    let Some(columns) = columns else { return json!({ "type": "object" }) };
    let mut properties: Map<String, Json> =
        columns.iter().map(|one| (one.name.clone(), column(one))).collect();
    let mut required: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    for output in outputs {
        if !columns.iter().any(|column| eq_ignore_case(&column.name, output)) {
            properties.insert(output.clone(), json!({}));
            required.push(output);
        }
    }
    let mut object = json!({ "type": "object", "properties": properties });
    if let Some(object) = object.as_object_mut().filter(|_| !required.is_empty()) {
        object.insert("required".into(), required.into());
    }
    object
}

/// Returns the schema of the list of result sets. The procedure can return fewer or more sets than declared.
fn sets(declared: Option<&[Vec<ReturnColumn>]>) -> Json {
    match declared {
        None | Some([]) => json!({ "type": "array", "items": rows(None) }),
        Some(sets) => {
            let sets: Vec<Json> = sets.iter().map(|columns| rows(Some(columns))).collect();
            json!({ "type": "array", "prefixItems": sets })
        }
    }
}

fn full(endpoint: &Endpoint) -> Json {
    let (declared, outputs) = match &endpoint.returns {
        Some(Returns::Full { sets, outputs }) => (sets.as_deref(), outputs.as_slice()),
        _ => (None, &[][..]),
    };
    let outputs = if outputs.is_empty() { None } else { Some(outputs) };
    json!({
        "type": "object",
        "properties": {
            "sets": sets(declared),
            "outputs": object(outputs, &[]),
            "return": { "type": "integer", "format": "int32" } },
        "required": ["sets", "outputs", "return"] })
}

/// Returns the schema of a column's values.
fn column(column: &ReturnColumn) -> Json {
    let mut schema = match &column.schema {
        Some(Json::Object(schema)) => schema.clone(),
        _ => Map::new(),
    };
    let (kind, format) = schemas::kind(column.kind);
    if let Some(kind) = kind {
        let kind = if column.nullable { json!([kind, "null"]) } else { json!(kind) };
        schema.insert("type".into(), kind);
    } else if column.nullable && !schema.is_empty() {
        let declared = std::mem::take(&mut schema);
        schema.insert("anyOf".into(), json!([declared, { "type": "null" }]));
    }
    if let Some(format) = format {
        schema.insert("format".into(), format.into());
    }
    if column.kind == ParameterType::Binary {
        schema.insert("contentEncoding".into(), "base64".into());
    }
    if let Some(description) = &column.description {
        schema.insert("description".into(), description.as_str().into());
    }
    schema.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::load::fixture::catalogue;

    /// Returns the schema of the answer of an endpoint with these keys.
    fn answer(keys: &str) -> Json {
        let catalogue = catalogue(&format!(r#""a": {{"route":"GET /a", KEYS, {keys}}}"#));
        schema(&catalogue.endpoints()[0]).unwrap()
    }

    #[test]
    fn every_type_has_a_schema() {
        for (written, expected) in [
            (r#"{"type":"string"}"#, json!({ "type": "string" })),
            (
                r#"{"type":"int32","nullable":true}"#,
                json!({ "type": ["integer", "null"], "format": "int32" }),
            ),
            (r#"{"type":"int64"}"#, json!({ "type": "integer", "format": "int64" })),
            (r#"{"type":"number"}"#, json!({ "type": "number", "format": "double" })),
            (r#"{"type":"decimal"}"#, json!({ "type": "number", "format": "decimal" })),
            (r#"{"type":"boolean"}"#, json!({ "type": "boolean" })),
            (r#"{"type":"uuid"}"#, json!({ "type": "string", "format": "uuid" })),
            (
                r#"{"type":"date","nullable":true}"#,
                json!({ "type": ["string", "null"], "format": "date" }),
            ),
            (r#"{"type":"time"}"#, json!({ "type": "string", "format": "time-local" })),
            (r#"{"type":"datetime"}"#, json!({ "type": "string", "format": "date-time" })),
            (r#"{"type":"binary"}"#, json!({ "type": "string", "contentEncoding": "base64" })),
            (r#"{"type":"json","nullable":true}"#, json!({})),
            (
                r#"{"type":"json","schema":{"type":"array"},"description":"All"}"#,
                json!({ "type": "array", "description": "All" }),
            ),
            (
                r#"{"type":"json","nullable":true,"schema":{"type":"array"}}"#,
                json!({ "anyOf": [{ "type": "array" }, { "type": "null" }] }),
            ),
        ] {
            let schema = answer(&format!(r#""result":"value","returns":{{"value":{written}}}"#));
            assert_eq!(schema, expected, "{written}");
        }
    }

    #[test]
    fn an_answer_has_the_shape_of_its_result() {
        let row = json!({ "type": "object", "properties": { "a": { "type": "boolean" } }, "required": ["a"] });
        let a = r#"{"a":{"type":"boolean"}}"#;
        let any = json!({ "type": "array", "items": { "type": "object" } });
        for (keys, expected) in [
            (format!(r#""result":"rows","returns":{a}"#), json!({ "type": "array", "items": row })),
            (r#""result":"rows""#.to_owned(), any.clone()),
            (format!(r#""result":"row","returns":{a}"#), row.clone()),
            (
                format!(r#""result":"row","outputs":["n"],"returns":{a}"#),
                json!({ "type": "object", "properties": { "a": { "type": "boolean" }, "n": {} }, "required": ["a", "n"] }),
            ),
            (
                r#""result":"value","outputs":["n"],"returns":{"value":{"type":"date"},"n":{"type":"int64"}}"#.to_owned(),
                json!({ "type": "object", "required": ["value", "n"], "properties": {
                    "value": { "type": "string", "format": "date" }, "n": { "type": "integer", "format": "int64" } } }),
            ),
            (
                r#""result":"json","returns":{"value":{"type":"json","schema":{"type":"object"}}}"#.to_owned(),
                json!({ "type": "object" }),
            ),
            (
                format!(r#""result":"sets","returns":[{a}]"#),
                json!({ "type": "array", "prefixItems": [{ "type": "array", "items": row }] }),
            ),
            (
                format!(r#""result":"full","outputs":["a"],"returns":{{"outputs":{a}}}"#),
                json!({ "type": "object", "required": ["sets", "outputs", "return"], "properties": {
                    "sets": { "type": "array", "items": any }, "outputs": row,
                    "return": { "type": "integer", "format": "int32" } } }),
            ),
        ] {
            assert_eq!(answer(&keys), expected, "{keys}");
        }
    }
}
