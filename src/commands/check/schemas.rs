//! Warns about JSON Schemas in `returns` that cannot be used to validate values.

use crate::catalogue::Catalogue;
use crate::catalogue::json_schema::JsonSchema;

/// Returns a line for each schema that is used only in the `OpenAPI` document.
pub(super) fn warnings(catalogue: &Catalogue) -> Vec<String> {
    let mut lines = Vec::new();
    for endpoint in catalogue.endpoints() {
        let columns = endpoint.returns.iter().flat_map(|returns| returns.columns());
        for (key, column) in columns {
            if let Some(Err(error)) = column.schema.as_ref().map(JsonSchema::new) {
                let id = endpoint.id.as_str();
                lines.push(format!(
                    "endpoint {id:?}: {key}.schema: answers are not compared with it: {error}"
                ));
            }
        }
    }
    lines
}
