//! Validates JSON values against the JSON Schema that a `json` column declares.

use std::error::Error;
use std::fmt;

use boon::{
    CompileError, Compiler, Draft, ErrorKind, SchemaIndex, Schemas, UrlLoader, ValidationError,
};
use serde_json::Value as Json;

use super::validate::decimal;

/// The address of the schema while it is compiled. Nothing is fetched from it.
const ADDRESS: &str = "https://schema.invalid/column.json";
/// The start of the addresses to which relative references are resolved.
const BASE: &str = "https://schema.invalid/";
/// The keywords whose result depends on whether other parts of a schema accept a value.
const CONDITIONAL: [&str; 3] = ["if", "unevaluatedItems", "unevaluatedProperties"];

/// The reason why a schema cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaError {
    /// The text is not a JSON Schema, or it refers to another document.
    Invalid(String),
    /// The text may be a valid JSON Schema, but values cannot be validated against it, for example because a `pattern`
    /// has a look-ahead.
    Unsupported(String),
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Invalid(reason) | Self::Unsupported(reason)) = self;
        f.write_str(reason)
    }
}

impl Error for SchemaError {}

/// A loader that loads nothing. A schema can refer only to itself and to the drafts of JSON Schema, so no files are
/// read and the network is not used.
struct NoDocuments;

impl UrlLoader for NoDocuments {
    fn load(&self, _: &str) -> Result<Json, Box<dyn Error>> {
        Err("a schema cannot refer to other documents".into())
    }
}

/// A compiled JSON Schema. As in `OpenAPI` 3.1, its draft is 2020-12 unless `$schema` names another one.
pub struct JsonSchema {
    schemas: Schemas,
    index: SchemaIndex,
    /// Whether the schema has a `multipleOf` that is not an integer. The library compares such a number as a double.
    has_fractional_multiple: bool,
    /// Whether the schema has one of the keywords in `CONDITIONAL`.
    is_conditional: bool,
}

impl fmt::Debug for JsonSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonSchema").finish_non_exhaustive()
    }
}

impl JsonSchema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// Returns the reason why `schema` is not a JSON Schema, or why values cannot be validated against it.
    pub fn new(schema: &Json) -> Result<Self, SchemaError> {
        let dialect = schema.get("$schema").and_then(Json::as_str);
        if let Some(dialect) = dialect.filter(|dialect| Draft::from_url(dialect).is_none()) {
            let reason = format!("the dialect {dialect} is not supported");
            return Err(SchemaError::Unsupported(reason));
        }
        let mut compiler = Compiler::new();
        compiler.set_default_draft(Draft::V2020_12);
        compiler.use_loader(Box::new(NoDocuments));
        compiler.add_resource(ADDRESS, schema.clone()).map_err(|error| schema_error(&error))?;
        let mut schemas = Schemas::new();
        let index =
            compiler.compile(ADDRESS, &mut schemas).map_err(|error| schema_error(&error))?;
        let is_fractional = |name: &str, value: &Json| {
            name == "multipleOf" && value.is_number() && !value.is_i64() && !value.is_u64()
        };
        Ok(Self {
            schemas,
            index,
            has_fractional_multiple: has_member(schema, &is_fractional),
            is_conditional: has_member(schema, &|name, _| CONDITIONAL.contains(&name)),
        })
    }

    /// Returns the JSON Pointer of a part of the value that contradicts the schema, and the reason. Returns `None` if
    /// there is no contradiction. The parts of the value at the JSON Pointers in `unknown` can have any value, so an
    /// error that depends on one of them is not a contradiction.
    #[must_use]
    pub fn contradiction(&self, value: &Json, unknown: &[String]) -> Option<(String, String)> {
        let error = self.schemas.validate(value, self.index).err()?;
        if self.is_conditional && (self.has_fractional_multiple || !unknown.is_empty()) {
            return None;
        }
        let first = first_cause(&error, &|error| self.is_certain(error, unknown))?;
        Some((first.instance_location.to_string(), reason(&first.kind)))
    }

    /// Returns whether an error without a cause proves a contradiction, regardless of the values of the unknown parts.
    fn is_certain(&self, error: &ValidationError<'_, '_>, unknown: &[String]) -> bool {
        let place = error.instance_location.to_string();
        if unknown.iter().any(|unknown| is_within(&place, unknown)) {
            return false;
        }
        let is_known = || !unknown.iter().any(|unknown| is_within(unknown, &place));
        match &error.kind {
            ErrorKind::MultipleOf { got, want } => {
                decimal::is_multiple(&got.to_string(), &want.to_string()) == Some(false)
            }
            ErrorKind::Enum { .. } | ErrorKind::Const { .. } | ErrorKind::UniqueItems { .. } => {
                is_known()
            }
            ErrorKind::Not
            | ErrorKind::OneOf(Some(_))
            | ErrorKind::MinContains { .. }
            | ErrorKind::MaxContains { .. } => is_known() && !self.has_fractional_multiple,
            _ => true,
        }
    }
}

/// Returns whether an object at any depth has a member that `is_wanted` accepts.
fn has_member(value: &Json, is_wanted: &dyn Fn(&str, &Json) -> bool) -> bool {
    match value {
        Json::Array(items) => items.iter().any(|item| has_member(item, is_wanted)),
        Json::Object(members) => members
            .iter()
            .any(|(name, value)| is_wanted(name, value) || has_member(value, is_wanted)),
        _ => false,
    }
}

/// Returns whether `pointer` refers to the same value as `outer`, or to a value inside it.
fn is_within(pointer: &str, outer: &str) -> bool {
    pointer.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Converts the library's error.
fn schema_error(error: &CompileError) -> SchemaError {
    match error {
        CompileError::ValidationError { src, .. } => {
            let line = |error: &ValidationError<'_, '_>| {
                let place = error.instance_location.to_string();
                let start = if place.is_empty() { place } else { format!("{place}: ") };
                format!("{start}{}", reason(&error.kind))
            };
            // The library does not support all regular expressions of ECMA 262. The metaschemas of the drafts restrict
            // the names of members only by `format`.
            let is_certain = |error: &ValidationError<'_, '_>| {
                !matches!(error.kind, ErrorKind::Format { .. } | ErrorKind::PropertyName { .. })
            };
            match first_cause(src, &is_certain) {
                Some(cause) => SchemaError::Invalid(line(cause)),
                None => SchemaError::Unsupported(line(innermost(src))),
            }
        }
        CompileError::LoadUrlError { url, .. } => {
            let shown = url.strip_prefix(BASE).unwrap_or(url);
            SchemaError::Invalid(format!("a schema cannot refer to other documents: {shown}"))
        }
        CompileError::InvalidRegex { regex, src, .. } => {
            SchemaError::Unsupported(format!("the pattern {regex:?}: {}", last_line(&**src)))
        }
        error => {
            let text = format!("{error:#}").replace(ADDRESS, "").replace(BASE, "");
            let line = text.lines().next().unwrap_or_default();
            SchemaError::Unsupported(line.to_owned())
        }
    }
}

/// Returns the reason for a validation error, in one line.
fn reason(kind: &ErrorKind<'_, '_>) -> String {
    match kind {
        ErrorKind::Format { got, want, err } => {
            format!("{got} is not a valid {want}: {}", last_line(&**err))
        }
        kind => kind.to_string(),
    }
}

/// Returns the last line of an error in a pattern. This line contains the reason. The lines before it show the position
/// of the error.
fn last_line(error: &dyn Error) -> String {
    let text = error.to_string();
    let last = text.lines().next_back().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

/// Returns the first error that has no cause, is accepted by `is_certain`, and suffices to reject the value.
fn first_cause<'e, 's, 'v>(
    error: &'e ValidationError<'s, 'v>,
    is_certain: &dyn Fn(&ValidationError<'s, 'v>) -> bool,
) -> Option<&'e ValidationError<'s, 'v>> {
    if error.causes.is_empty() || matches!(error.kind, ErrorKind::PropertyName { .. }) {
        return is_certain(error).then_some(error);
    }
    let mut causes = error.causes.iter().map(|cause| first_cause(cause, is_certain));
    match error.kind {
        // A single alternative that accepts the value would suffice.
        ErrorKind::AnyOf | ErrorKind::OneOf(_) | ErrorKind::Contains => {
            let causes: Option<Vec<_>> = causes.collect();
            causes?.into_iter().next()
        }
        ErrorKind::MinContains { .. } | ErrorKind::MaxContains { .. } => {
            is_certain(error).then_some(error)
        }
        _ => causes.find_map(|cause| cause),
    }
}

/// Returns the first error that has no cause.
fn innermost<'e, 's, 'v>(error: &'e ValidationError<'s, 'v>) -> &'e ValidationError<'s, 'v> {
    let mut error = error;
    while let Some(cause) = error.causes.first() {
        error = cause;
    }
    error
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn contradiction(schema: &Json, value: &Json) -> Option<(String, String)> {
        JsonSchema::new(schema).unwrap().contradiction(value, &[])
    }

    #[test]
    fn a_contradiction_has_its_place_and_its_reason() {
        let schema = json!({ "type": "array", "items": {
            "type": "object", "required": ["n"], "properties": { "n": { "type": "integer" } } } });
        assert_eq!(contradiction(&schema, &json!([{ "n": 1 }, { "n": 2, "m": "x" }])), None);
        let (place, reason) = contradiction(&schema, &json!([{ "n": 1 }, { "n": "2" }])).unwrap();
        assert_eq!(place, "/1/n");
        assert!(reason.contains("integer"), "{reason}");
        assert_eq!(contradiction(&schema, &json!({})).unwrap().0, "");
    }

    #[test]
    fn a_schema_that_is_invalid_has_a_reason() {
        let other = "a schema cannot refer to other documents: ";
        for (schema, expected) in [
            (json!({ "type": "list" }), "/type: "),
            (json!({ "type": "list", "pattern": "(?=a)" }), "/type: "),
            (json!({ "$ref": "https://example.com/other.json" }), other),
            (json!({ "$ref": "file:///etc/hostname" }), other),
            (json!({ "$ref": "other.json#/a" }), other),
        ] {
            let Err(SchemaError::Invalid(error)) = JsonSchema::new(&schema) else {
                panic!("{schema} is used");
            };
            assert!(error.starts_with(expected) && !error.contains('\n'), "{error}");
            assert!(!error.contains("schema.invalid"), "{error}");
        }
        let own =
            json!({ "$ref": "#/$defs/n", "$defs": { "n": { "type": "null" } }, "example": 1 });
        assert_eq!(contradiction(&own, &Json::Null), None);
    }

    #[test]
    fn a_valid_schema_that_cannot_be_compared_is_not_an_error() {
        for (schema, part) in [
            (json!({ "properties": { "a": { "pattern": "^(?!b)a" } } }), "look-around"),
            (json!({ "pattern": "(a)\\1" }), "backreferences are not supported"),
            (
                json!({ "patternProperties": { "^(?=a)": true } }),
                "\"^(?=a)\" is not a valid regex: look-around",
            ),
            (
                json!({ "$schema": "https://spec.openapis.org/oas/3.1/dialect/base" }),
                "the dialect https://spec.openapis.org/oas/3.1/dialect/base is not supported",
            ),
            (json!({ "$ref": "#/$defs/missing" }), "/$defs/missing"),
            (json!({ "$ref": "#missing" }), "#missing"),
        ] {
            let Err(SchemaError::Unsupported(error)) = JsonSchema::new(&schema) else {
                panic!("{schema}");
            };
            assert!(error.contains(part) && !error.contains('\n'), "{error}");
            assert!(!error.contains("schema.invalid"), "{error}");
        }
    }

    #[test]
    fn multiples_are_compared_exactly() {
        let cents = json!({ "multipleOf": 0.01 });
        for value in [json!(19.99), json!(0.07), json!(4.35), json!(-1.1), json!(1e20), json!(0)] {
            assert_eq!(contradiction(&cents, &value), None, "{value}");
        }
        assert!(contradiction(&cents, &json!(19.995)).is_some());
        let thirds = json!({ "multipleOf": 3 });
        assert_eq!(contradiction(&thirds, &json!(9_007_199_254_740_993_u64)), None);
        let alternatives = json!({ "anyOf": [{ "type": "null" }, cents] });
        assert_eq!(contradiction(&alternatives, &json!(19.99)), None);
        assert!(contradiction(&alternatives, &json!(19.995)).is_some());
        let one = json!({ "oneOf": [{ "maximum": 10 }, cents] });
        assert_eq!(contradiction(&one, &json!(19.99)), None);
        for schema in [json!({ "not": cents }), json!({ "if": cents, "else": false })] {
            assert_eq!(contradiction(&schema, &json!(19.99)), None, "{schema}");
        }
    }

    #[test]
    fn unknown_parts_contradict_nothing_and_the_others_are_compared() {
        let schema = json!({
            "type": "object", "required": ["a"], "additionalProperties": false,
            "properties": {
                "a": { "type": "integer" }, "b": { "items": { "type": "integer" } },
                "c": { "enum": [{ "d": 1 }] }, "e": { "anyOf": [{ "type": "null" }, { "required": ["f"] }] } },
        });
        let schema = JsonSchema::new(&schema).unwrap();
        let found = |value: &Json, unknown: &[&str]| {
            let unknown: Vec<String> = unknown.iter().map(|one| (*one).to_owned()).collect();
            schema.contradiction(value, &unknown).map(|(place, _)| place)
        };
        assert_eq!(found(&json!({ "a": "x" }), &["/a"]), None);
        assert_eq!(found(&json!({ "a": "x" }), &["/b"]), Some("/a".to_owned()));
        let two = json!({ "a": "x", "b": [1, "2"] });
        assert_eq!(found(&two, &["/a"]), Some("/b/1".to_owned()));
        assert_eq!(found(&two, &["/a", "/b/1"]), None);
        assert_eq!(found(&json!({ "a": 1, "c": { "d": 2 } }), &["/c/d"]), None);
        assert_eq!(found(&json!({ "a": 1, "c": { "d": 2 } }), &["/cc/d"]), Some("/c".to_owned()));
        assert_eq!(found(&json!({ "b": [] }), &["/b"]), Some(String::new()));
        assert_eq!(found(&json!({ "a": 1, "e": {} }), &["/a"]), Some("/e".to_owned()));
    }
}
