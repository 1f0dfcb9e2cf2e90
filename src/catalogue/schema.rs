//! The JSON Schema of a catalogue file, so that editors complete and check it.

use schemars::generate::SchemaSettings;

use super::written::{Members, WrittenEndpoint};

/// The schema (JSON Schema 2020-12), indented.
#[must_use]
pub fn text() -> String {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Members<WrittenEndpoint>>();
    schema.insert("title".to_owned(), "fjord catalogue".into());
    let about = "Endpoints of fjord by their id. Unknown keys are errors.";
    schema.insert("description".to_owned(), about.into());
    // An editor's own key, which names this schema, would be an endpoint otherwise.
    format!("{:#}\n", schema.as_value())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_published_schema_is_the_one_that_is_printed() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/catalogue.schema.json");
        let published = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            published == super::text(),
            "config/catalogue.schema.json is not what `fjord schema` prints: write it anew"
        );
    }

    #[test]
    fn the_schema_describes_what_is_written() {
        let schema: serde_json::Value = serde_json::from_str(&super::text()).unwrap();
        let endpoint = &schema["$defs"]["Endpoint"];
        assert_eq!(endpoint["additionalProperties"], false);
        assert!(endpoint["properties"]["route"].is_object());
        assert!(endpoint["properties"]["route"]["description"].is_string());
        assert_eq!(schema["$defs"]["Parameter"]["additionalProperties"], false);
    }
}
