//! The JSON Schema of catalogue files, which editors use for completion and validation.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use serde_json::Value as Json;

use super::definition::EndpointDefinition;
use super::definition::json::OrderedMembers;

/// Returns the indented schema (JSON Schema 2020-12).
#[must_use]
pub fn text() -> String {
    let generator = SchemaSettings::draft2020_12().with_transform(NullRemover).into_generator();
    let mut schema = generator.into_root_schema_for::<OrderedMembers<EndpointDefinition>>();
    schema.insert("title".to_owned(), "fjord catalogue".into());
    let about = "Endpoints of fjord by id. Unknown keys are errors.";
    schema.insert("description".to_owned(), about.into());
    let of_editors = "The URL or the path of this schema, for editors.";
    let properties =
        serde_json::json!({ "$schema": { "type": "string", "description": of_editors } });
    schema.insert("properties".to_owned(), properties);
    // Deserialization accepts an endpoint without a route, so that its other errors are reported too. The schema does
    // not accept it.
    if let Some(endpoint) = schema.pointer_mut("/$defs/Endpoint").and_then(Json::as_object_mut) {
        endpoint.insert("required".to_owned(), serde_json::json!(["route"]));
    }
    let queue = schema.pointer_mut("/$defs/QueueSettings").and_then(Json::as_object_mut);
    if let Some(queue) = queue {
        queue.insert("required".to_owned(), serde_json::json!(["weight"]));
    }
    format!("{:#}\n", schema.as_value())
}

/// Removes `null` as a type and as a default. `schemars` adds them for `Option`, but catalogues omit the key instead.
#[derive(Clone, Debug)]
struct NullRemover;

impl Transform for NullRemover {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        if schema.get("default").is_some_and(Json::is_null) {
            schema.remove("default");
        }
        if let Some(Json::Array(kinds)) = schema.get_mut("type") {
            kinds.retain(|kind| kind != "null");
            if let [one] = kinds.as_slice() {
                let one = one.clone();
                schema.insert("type".to_owned(), one);
            }
        }
        let null = serde_json::json!({ "type": "null" });
        if let Some(Json::Array(choices)) = schema.get_mut("anyOf") {
            choices.retain(|choice| *choice != null);
            if let [Json::Object(one)] = choices.as_slice() {
                let one = one.clone();
                schema.remove("anyOf");
                one.into_iter().for_each(|(key, value)| {
                    schema.insert(key, value);
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_published_schema_is_the_printed_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/catalogue.schema.json");
        let published = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            published == super::text(),
            "config/catalogue.schema.json differs from the output of `fjord schema`: write that to the file"
        );
    }

    #[test]
    fn the_schema_describes_definitions() {
        let schema: serde_json::Value = serde_json::from_str(&super::text()).unwrap();
        let endpoint = &schema["$defs"]["Endpoint"];
        assert_eq!(endpoint["additionalProperties"], false);
        assert_eq!(endpoint["required"], serde_json::json!(["route"]));
        assert_eq!(endpoint["properties"]["summary"]["type"], "string");
        assert_eq!(endpoint["properties"]["auth"]["$ref"], "#/$defs/Auth");
        assert!(!super::text().contains("\"null\""), "no key is written as null");
        assert!(endpoint["properties"]["route"]["description"].is_string());
        assert_eq!(schema["$defs"]["Parameter"]["additionalProperties"], false);
    }
}
