//! Suggests the intended name for a misspelt one.

/// The minimum similarity of a suggested name.
const SIMILARITY_MIN: f64 = 0.8;

/// Returns the most similar candidate if it is similar enough to be suggested.
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let rated = candidates
        .into_iter()
        .map(|candidate| (candidate, strsim::jaro_winkler(&candidate.to_lowercase(), &name)));
    let similar = rated.filter(|(_, similarity)| *similarity >= SIMILARITY_MIN);
    similar.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(candidate, _)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_similar_name_is_suggested_whatever_its_case() {
        let known = ["timeout", "type", "maxLength", "minLength", "route"];
        for (name, expected) in [
            ("timout", Some("timeout")),
            ("tyep", Some("type")),
            ("maxlength", Some("maxLength")),
            ("max_length", Some("maxLength")),
            ("rotue", Some("route")),
            ("xyz", None),
            ("", None),
        ] {
            assert_eq!(closest(name, known), expected, "{name}");
        }
    }
}
