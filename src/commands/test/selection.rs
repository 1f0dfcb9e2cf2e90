//! Selects the examples that match the filters in the arguments.

use std::sync::Arc;

use crate::catalogue::{Catalogue, Endpoint};
use crate::config::worker::matches_pattern;

/// Returns the endpoint and index of each selected example, in catalogue order. A filter is an endpoint id or
/// `endpoint/example`, and can contain `*`.
///
/// # Errors
/// Returns a message if a filter matches no example, or if the catalogue has no examples.
pub(super) fn select(
    catalogue: &Catalogue,
    filters: &[String],
) -> Result<Vec<(Arc<Endpoint>, usize)>, String> {
    let all = catalogue.endpoints().iter().flat_map(|endpoint| {
        endpoint.examples.iter().enumerate().map(move |(index, example)| {
            (endpoint, index, format!("{}/{}", endpoint.id, example.name))
        })
    });
    let all: Vec<(&Arc<Endpoint>, usize, String)> = all.collect();
    if all.is_empty() {
        return Err("no endpoint has `examples`: see docs/CATALOGUE.md".to_owned());
    }
    let is_selected = |filter: &str, endpoint: &Endpoint, name: &str| {
        matches_pattern(filter, endpoint.id.as_str()) || matches_pattern(filter, name)
    };
    for filter in filters {
        if !all.iter().any(|(endpoint, _, name)| is_selected(filter, endpoint, name)) {
            return Err(format!(
                "{filter:?} selects no example: expected the id of an endpoint with `examples`, or endpoint/example; `*` \
                 stands for any characters"
            ));
        }
    }
    let selected = all.into_iter().filter(|(endpoint, _, name)| {
        filters.is_empty() || filters.iter().any(|filter| is_selected(filter, endpoint, name))
    });
    Ok(selected.map(|(endpoint, index, _)| (Arc::clone(endpoint), index)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::load::fixture::catalogue;

    #[test]
    fn filters_select_endpoints_and_single_examples() {
        let catalogue = catalogue(
            r#""horse-get": {"route":"GET /a", KEYS, "examples":{"one":{},"two parts":{}}},
               "horse-put": {"route":"GET /b", KEYS, "examples":{"one":{}}},
               "owner-get": {"route":"GET /c", KEYS}"#,
        );
        let selected = |filters: &[&str]| -> Result<Vec<String>, String> {
            let filters: Vec<String> = filters.iter().map(ToString::to_string).collect();
            let name = |(endpoint, index): (Arc<Endpoint>, usize)| {
                format!("{}/{}", endpoint.id, endpoint.examples[index].name)
            };
            Ok(select(&catalogue, &filters)?.into_iter().map(name).collect())
        };
        let all = ["horse-get/one", "horse-get/two parts", "horse-put/one"];
        assert_eq!(selected(&[]).unwrap(), all);
        assert_eq!(selected(&["*"]).unwrap(), all);
        assert_eq!(selected(&["horse-put", "horse-get/two*"]).unwrap(), all[1..]);
        assert_eq!(selected(&["*/one"]).unwrap(), [all[0], all[2]]);
        for missing in ["owner-get", "horse", "horse-get/three"] {
            let error = selected(&["horse-get", missing]).unwrap_err();
            assert!(error.starts_with(&format!("{missing:?} selects no example")), "{error}");
        }
        let none = select(&Catalogue::default(), &[]).unwrap_err();
        assert!(none.contains("no endpoint has `examples`"), "{none}");
    }
}
