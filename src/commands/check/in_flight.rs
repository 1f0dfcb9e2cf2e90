//! Warns about `max_in_flight` values of endpoints that have no effect.

use crate::catalogue::Catalogue;

/// Returns a warning for each endpoint whose limit is higher than the gateway's limit.
pub(super) fn warnings(catalogue: &Catalogue, per_caller_max: usize) -> Vec<String> {
    let above = catalogue.endpoints().iter().filter_map(|endpoint| {
        let found = endpoint.in_flight_per_caller_max.filter(|found| *found > per_caller_max)?;
        let id = endpoint.id.as_str();
        Some(format!(
            "endpoint {id:?}: max_in_flight: {found} has no effect, because it is more than \
             gateway.http.requests_in_flight_per_caller_max ({per_caller_max})"
        ))
    });
    above.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::load::fixture::catalogue;

    #[test]
    fn only_a_limit_above_that_of_the_gateway_has_no_effect() {
        let endpoint =
            |id: &str, limit: &str| format!(r#""{id}": {{ "route": "GET /{id}", {limit} KEYS }}"#);
        let [none, equal, above] = [
            endpoint("none", ""),
            endpoint("equal", r#""max_in_flight": 10,"#),
            endpoint("above", r#""max_in_flight": 11,"#),
        ];
        let catalogue = catalogue(&format!("{none}, {equal}, {above}"));
        let warnings = warnings(&catalogue, 10);
        let expected = "endpoint \"above\": max_in_flight: 11 has no effect, because it is more than \
                        gateway.http.requests_in_flight_per_caller_max (10)";
        assert_eq!(warnings, [expected]);
    }
}
