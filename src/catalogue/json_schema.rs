//! Checks JSON values with the JSON Schema that a `json` column declares.

use std::error::Error;
use std::fmt;

use boon::{CompileError, Compiler, Draft, SchemaIndex, Schemas, UrlLoader, ValidationError};
use serde_json::Value as Json;

/// The address of the schema while it is compiled. Nothing is fetched from it.
const ADDRESS: &str = "https://schema.invalid/column.json";

/// The reason why a schema cannot be used.
#[derive(Debug)]
pub struct SchemaError(String);

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for SchemaError {}

/// A schema can refer only to itself and to the drafts of JSON Schema, so that it uses neither
/// files nor the network.
struct NoDocuments;

impl UrlLoader for NoDocuments {
    fn load(&self, _: &str) -> Result<Json, Box<dyn Error>> {
        Err("a schema cannot refer to other documents".into())
    }
}

/// A compiled JSON Schema of draft 2020-12, as in `OpenAPI` 3.1.
pub struct JsonSchema {
    schemas: Schemas,
    index: SchemaIndex,
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
    /// Why it is not a JSON Schema.
    pub fn new(schema: &Json) -> Result<Self, SchemaError> {
        let mut compiler = Compiler::new();
        compiler.set_default_draft(Draft::V2020_12);
        compiler.use_loader(Box::new(NoDocuments));
        let failed = |error: CompileError| SchemaError(reason(&error));
        compiler.add_resource(ADDRESS, schema.clone()).map_err(failed)?;
        let mut schemas = Schemas::new();
        let index = compiler.compile(ADDRESS, &mut schemas).map_err(failed)?;
        Ok(Self { schemas, index })
    }

    /// Returns where a value contradicts the schema, as a JSON Pointer into the value, and how; `None` if it does not.
    #[must_use]
    pub fn contradiction(&self, value: &Json) -> Option<(String, String)> {
        let error = self.schemas.validate(value, self.index).err()?;
        let first = innermost(&error);
        Some((first.instance_location.to_string(), first.kind.to_string()))
    }
}

/// Returns an error's reason on one line.
fn reason(error: &CompileError) -> String {
    if let CompileError::ValidationError { src, .. } = error {
        let first = innermost(src);
        return format!("{}: {}", first.instance_location, first.kind);
    }
    error.to_string()
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
        JsonSchema::new(schema).unwrap().contradiction(value)
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
    fn a_schema_that_cannot_be_used_has_a_reason() {
        for (schema, part) in [
            (json!({ "type": "list" }), "type"),
            (json!({ "$ref": "https://example.com/other.json" }), "other.json"),
            (json!({ "$ref": "file:///etc/hostname" }), "hostname"),
        ] {
            let error = JsonSchema::new(&schema).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains('\n'), "{error}");
        }
        let own =
            json!({ "$ref": "#/$defs/n", "$defs": { "n": { "type": "null" } }, "example": 1 });
        assert_eq!(contradiction(&own, &Json::Null), None);
    }
}
