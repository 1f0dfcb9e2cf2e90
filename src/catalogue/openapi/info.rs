//! The general part of the `OpenAPI` document. It is set in the configuration.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::catalogue::endpoint::Endpoint;

/// The title if the configuration sets none.
pub const TITLE_DEFAULT: &str = "API";
/// The version of the API if the configuration sets none.
pub const VERSION_DEFAULT: &str = "1";

/// The title, version and servers of an API, and the descriptions of its tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiInfo {
    /// The title of the API.
    pub title: String,
    /// The version of the API, which differs from fjord's version.
    pub version: String,
    /// A description of the API in Markdown.
    pub description: Option<String>,
    /// The URLs at which clients reach the API. If empty, clients use the server that serves the
    /// document.
    pub servers: Vec<String>,
    /// The descriptions of tags, by tag.
    pub tags: BTreeMap<String, String>,
}

impl Default for ApiInfo {
    fn default() -> Self {
        Self {
            title: TITLE_DEFAULT.to_owned(),
            version: VERSION_DEFAULT.to_owned(),
            description: None,
            servers: Vec::new(),
            tags: BTreeMap::new(),
        }
    }
}

impl ApiInfo {
    /// Adds `info`, `servers` and `tags` to a document. Only the tags of these endpoints are listed.
    pub(super) fn add_to(&self, document: &mut Map<String, Json>, endpoints: &[&Endpoint]) {
        let mut info = json!({ "title": self.title, "version": self.version });
        if let (Some(description), Some(info)) = (&self.description, info.as_object_mut()) {
            info.insert("description".into(), description.as_str().into());
        }
        document.insert("info".into(), info);
        if !self.servers.is_empty() {
            let servers = self.servers.iter().map(|url| json!({ "url": url }));
            document.insert("servers".into(), servers.collect());
        }
        let mut tags: Vec<&str> = Vec::new();
        for tag in endpoints.iter().flat_map(|endpoint| &endpoint.tags) {
            if !tags.contains(&tag.as_str()) {
                tags.push(tag);
            }
        }
        if tags.is_empty() {
            return;
        }
        let tag = |name: &str| match self.tags.get(name) {
            Some(description) => json!({ "name": name, "description": description }),
            None => json!({ "name": name }),
        };
        document.insert("tags".into(), tags.into_iter().map(tag).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::load::fixture::catalogue;

    #[test]
    fn the_tags_of_the_endpoints_are_listed_with_their_descriptions() {
        let catalogue = catalogue(r#""a": {"route":"GET /a", KEYS, "tags":["x","y"]}"#);
        let endpoints: Vec<&Endpoint> = catalogue.endpoints().iter().map(|one| &**one).collect();
        let tags =
            [("y", "Why"), ("z", "Unused")].map(|(tag, text)| (tag.to_owned(), text.to_owned()));
        let servers = vec!["https://api.example".to_owned()];
        let info = ApiInfo { tags: tags.into(), servers, ..ApiInfo::default() };
        let mut document = Map::new();
        info.add_to(&mut document, &endpoints);
        let expected = json!({
            "info": { "title": "API", "version": "1" },
            "servers": [{ "url": "https://api.example" }],
            "tags": [{ "name": "x" }, { "name": "y", "description": "Why" }] });
        assert_eq!(Json::from(document), expected);
    }
}
