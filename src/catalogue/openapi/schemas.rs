//! Generates the JSON Schemas of the values that the gateway accepts.

use serde_json::{Map, Value as Json, json};

use super::text_patterns::text_pattern;
use crate::catalogue::parameter::{NumberBound, Parameter, ParameterSource, ParameterType};
use crate::catalogue::payload;
use crate::catalogue::validate::decimal::DECIMAL_DIGITS_MAX;

/// Returns the type and the format of a catalogue type. `json` has no type, because it allows any value.
pub(super) fn kind(kind: ParameterType) -> (Option<&'static str>, Option<&'static str>) {
    match kind {
        ParameterType::Int32 => (Some("integer"), Some("int32")),
        ParameterType::Int64 => (Some("integer"), Some("int64")),
        ParameterType::Number => (Some("number"), Some("double")),
        ParameterType::Decimal => (Some("number"), Some("decimal")),
        ParameterType::Boolean => (Some("boolean"), None),
        ParameterType::Uuid => (Some("string"), Some("uuid")),
        ParameterType::Date => (Some("string"), Some("date")),
        ParameterType::Time => (Some("string"), Some("time-local")),
        ParameterType::Datetime => (Some("string"), Some("date-time")),
        ParameterType::String | ParameterType::Binary => (Some("string"), None),
        ParameterType::Json => (None, None),
        ParameterType::Table => (Some("array"), None),
    }
}

/// Returns the JSON Schema of an object with these members.
pub(super) fn object(members: &[&Parameter]) -> Json {
    let properties: Map<String, Json> = members
        .iter()
        .map(|parameter| (parameter.name.to_string(), value(parameter, !parameter.required)))
        .collect();
    let required: Vec<&str> =
        members.iter().filter(|p| p.required).map(|parameter| &*parameter.name).collect();
    let mut object = json!({
        "type": "object", "properties": properties, "additionalProperties": false });
    if let Some(object) = object.as_object_mut().filter(|_| !required.is_empty()) {
        object.insert("required".into(), required.into());
    }
    object
}

/// Returns the JSON Schema of a parameter's values.
pub(super) fn value(parameter: &Parameter, nullable: bool) -> Json {
    let mut schema = Map::new();
    let constraints = &parameter.constraints;
    let mut set = |key: &str, value: Option<Json>| {
        if let Some(value) = value {
            schema.insert(key.to_owned(), value);
        }
    };
    let (kind, format) = kind(parameter.kind);
    set("type", value_type(parameter, kind, nullable));
    set("format", format.map(Json::from));
    set("contentEncoding", (parameter.kind == ParameterType::Binary).then(|| "base64".into()));
    set("default", parameter.default.as_ref().and_then(payload::to_json));
    set(
        "enum",
        constraints.allowed.as_ref().map(|allowed| {
            let mut values: Vec<Json> = allowed.iter().filter_map(payload::to_json).collect();
            values.extend(nullable.then_some(Json::Null));
            values.into()
        }),
    );
    let text = text_pattern(parameter);
    set("pattern", text.pattern.map(Json::from));
    let (minimum, maximum) = range(parameter.kind);
    let bound = |bound: Option<&NumberBound>, limit: Option<i64>| {
        let bound = bound.and_then(|bound| serde_json::from_str(&bound.0).ok());
        bound.or_else(|| limit.filter(|_| constraints.allowed.is_none()).map(Json::from))
    };
    set("minimum", bound(constraints.minimum.as_ref(), minimum));
    set("maximum", bound(constraints.maximum.as_ref(), maximum));
    if parameter.kind == ParameterType::String {
        // A path segment is never empty.
        let is_segment = parameter.source == ParameterSource::Path;
        let least = constraints.length_min.unwrap_or_default().max(usize::from(is_segment));
        set("minLength", (least > 0).then(|| least.into()));
        set("maxLength", constraints.length_max.map(Json::from));
    }
    if parameter.kind == ParameterType::Binary {
        // The length of the base64 text, which has four characters for every three bytes.
        let encoded = |bytes: usize| Json::from(bytes.div_ceil(3).saturating_mul(4));
        set("minLength", constraints.length_min.map(encoded));
        set("maxLength", constraints.length_max.map(encoded));
    }
    set("maxItems", constraints.items_max.map(Json::from));
    if parameter.kind == ParameterType::Table {
        let columns: Vec<&Parameter> = parameter.columns.iter().collect();
        set("items", Some(object(&columns)));
    }
    set("description", description(parameter, text.note).map(Json::from));
    schema.into()
}

/// Returns the types of the accepted values.
fn value_type(parameter: &Parameter, kind: Option<&str>, nullable: bool) -> Option<Json> {
    let is_in_json = matches!(parameter.source, ParameterSource::Body | ParameterSource::Column);
    match kind {
        Some(kind) if nullable => Some(json!([kind, "null"])),
        Some(kind) => Some(json!(kind)),
        None if is_in_json && !nullable => {
            Some(json!(["object", "array", "string", "number", "boolean"]))
        }
        None => None,
    }
}

/// Returns the bounds of an integer type. The schema states them, because validators need not check `format`.
fn range(kind: ParameterType) -> (Option<i64>, Option<i64>) {
    match kind {
        ParameterType::Int32 => (Some(i32::MIN.into()), Some(i32::MAX.into())),
        ParameterType::Int64 => (Some(i64::MIN), Some(i64::MAX)),
        _ => (None, None),
    }
}

/// Returns the description, with the rules that the schema cannot express.
fn description(parameter: &Parameter, note: Option<String>) -> Option<String> {
    let constraints = &parameter.constraints;
    let limit = match parameter.kind {
        ParameterType::Decimal => Some(format!("At most {DECIMAL_DIGITS_MAX} digits.")),
        ParameterType::Json => constraints
            .length_max
            .map(|length| format!("The text of the JSON has at most {length} characters.")),
        _ => None,
    };
    let parts = [parameter.description.clone(), note, limit].into_iter().flatten();
    let sentences: Vec<String> = parts.map(as_sentence).collect();
    match sentences.as_slice() {
        [] => None,
        // A description to which nothing was added is left unchanged.
        [_] if parameter.description.is_some() => parameter.description.clone(),
        _ => Some(sentences.join(" ")),
    }
}

fn as_sentence(text: String) -> String {
    if text.ends_with(['.', '!', '?']) { text } else { text + "." }
}
