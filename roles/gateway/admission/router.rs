//! Finds the endpoint for a request by its method and path.

use std::sync::Arc;

use http::Method;

use crate::catalogue::route::{self, METHODS};
use crate::catalogue::{Catalogue, Endpoint, uri};
use crate::problem::{Problem, Violation};

/// The routes of a catalogue. The time of a lookup depends on the length of the path, not on the number of endpoints.
#[derive(Debug)]
pub struct Router {
    /// A tree for each of `METHODS`, so that a literal segment for one method does not hide a parameter for another.
    trees: [matchit::Router<RouteTarget>; METHODS.len()],
}

/// The endpoint of a route.
#[derive(Debug)]
struct RouteTarget {
    endpoint: Arc<Endpoint>,
    /// The indices of the parameters whose values the path contains, in the order of the values.
    parameters: Arc<[usize]>,
}

/// The result of a lookup.
#[derive(Debug)]
pub enum RouteLookup {
    /// An endpoint has this method and path.
    Matched(MatchedRoute),
    /// No route has this path.
    NotFound,
    /// The path exists, but not with this method.
    MethodNotAllowed {
        /// The supported methods, for the `Allow` header.
        allow: String,
    },
    /// `OPTIONS` for an existing path.
    Options {
        /// The supported methods, for the `Allow` header.
        allow: String,
    },
    /// The path is malformed.
    Malformed(Problem),
}

/// The endpoint of a request, with its path parameters.
#[derive(Clone, Debug)]
pub struct MatchedRoute {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Decoded path values, each with the index of its parameter.
    pub values: Vec<(usize, String)>,
}

impl Router {
    /// Creates the routes of a catalogue.
    ///
    /// # Errors
    /// A line for each route that conflicts with another. A loaded catalogue has no conflicts.
    pub fn new(catalogue: &Catalogue) -> Result<Self, Vec<String>> {
        let mut trees: [matchit::Router<RouteTarget>; METHODS.len()] = Default::default();
        let mut conflicts = Vec::new();
        for endpoint in catalogue.endpoints() {
            let target = RouteTarget {
                endpoint: Arc::clone(endpoint),
                parameters: route::path_order(&endpoint.path, &endpoint.parameters).into(),
            };
            let tree =
                METHODS.iter().zip(&mut trees).find(|(method, _)| **method == endpoint.method);
            let inserted = match tree {
                Some((_, tree)) => tree.insert(&*endpoint.path, target).map_err(|e| e.to_string()),
                None => Err(format!("no endpoint can have the method {}", endpoint.method)),
            };
            if let Err(error) = inserted {
                conflicts.push(format!("endpoint {:?}: {}: {error}", endpoint.id, endpoint.path));
            }
        }
        if conflicts.is_empty() { Ok(Self { trees }) } else { Err(conflicts) }
    }

    /// Looks up a method and an undecoded path, without the query.
    #[must_use]
    pub fn find(&self, method: &Method, path: &str) -> RouteLookup {
        let path = match uri::decode_path(path) {
            Ok(path) => path,
            Err(expected) => {
                let violation = Violation {
                    location: "path".to_owned(),
                    parameter: None,
                    pointer: None,
                    detail: expected.to_owned(),
                };
                return RouteLookup::Malformed(Problem::invalid(vec![violation]));
            }
        };
        if let Some(matched) = self.at(method, &path) {
            return RouteLookup::Matched(matched);
        }
        // HEAD is GET without a body (RFC 9110 §9.3.2).
        if *method == Method::HEAD
            && let Some(matched) = self.at(&Method::GET, &path)
        {
            return RouteLookup::Matched(matched);
        }
        let has_path = |tree: &matchit::Router<RouteTarget>| tree.at(&path).is_ok();
        if !self.trees.iter().any(has_path) {
            return RouteLookup::NotFound;
        }
        let allow = self.allow(has_path);
        if *method == Method::OPTIONS {
            return RouteLookup::Options { allow };
        }
        RouteLookup::MethodNotAllowed { allow }
    }

    fn at(&self, method: &Method, path: &str) -> Option<MatchedRoute> {
        let (_, tree) = METHODS.iter().zip(&self.trees).find(|(known, _)| *known == method)?;
        let matched = tree.at(path).ok()?;
        let texts = matched.params.iter().map(|(_, text)| text.to_owned());
        Some(MatchedRoute {
            endpoint: Arc::clone(&matched.value.endpoint),
            values: matched.value.parameters.iter().copied().zip(texts).collect(),
        })
    }

    fn allow(&self, has: impl Fn(&matchit::Router<RouteTarget>) -> bool) -> String {
        let mut methods: Vec<&str> = Vec::with_capacity(METHODS.len() + 1);
        for (method, tree) in METHODS.iter().zip(&self.trees) {
            let implied = *method == Method::HEAD && methods.contains(&"GET");
            if implied || has(tree) {
                methods.push(method.as_str());
            }
        }
        methods.push("OPTIONS");
        methods.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::catalogue::load::fixture::catalogue;

    const ROUTES: &str = r#"
        "list": {"route":"GET /v1/horses", KEYS},
        "create": {"route":"POST /v1/horses", KEYS},
        "search": {"route":"GET /v1/horses/search", KEYS},
        "get": {"route":"GET /v1/horses/{ueln}", KEYS, "parameters":{"ueln":{"in":"path","type":"string"}}},
        "delete": {"route":"DELETE /v1/horses/{id}", KEYS, "parameters":{"id":{"in":"path","type":"string"}}},
        "two": {"route":"PUT /v1/{b}/of/{a}", KEYS, "parameters":{"a":{"in":"path","type":"string"},"b":{"in":"path","type":"string"}}},
        "root": {"route":"GET /", KEYS}"#;

    fn router() -> Router {
        Router::new(&catalogue(ROUTES)).unwrap()
    }

    /// Returns the result of a lookup as a string.
    fn outcome(request: &str) -> String {
        let (method, path) = request.split_once(' ').unwrap();
        match router().find(&method.parse().unwrap(), path) {
            RouteLookup::Matched(MatchedRoute { endpoint, values }) => {
                let texts: Vec<String> =
                    values.into_iter().map(|(n, text)| format!("{n}={text}")).collect();
                format!("{} {}", endpoint.id, texts.join(" ")).trim_end().to_owned()
            }
            RouteLookup::NotFound => "none".to_owned(),
            RouteLookup::MethodNotAllowed { allow } => format!("405 {allow}"),
            RouteLookup::Options { allow } => format!("options {allow}"),
            RouteLookup::Malformed(problem) => {
                assert_eq!(problem.kind.status(), 400);
                "malformed".to_owned()
            }
        }
    }

    #[test]
    fn a_request_finds_its_endpoint() {
        let check =
            |request: &str, expected: &str| assert_eq!(outcome(request), expected, "{request}");
        check("GET /", "root");
        check("GET /v1/horses", "list");
        check("HEAD /v1/horses", "list");
        check("GET /v1/horses/search", "search");
        check("GET /v1/h%6Frses/%73earch", "search");
        check("GET /v1/horses/528003", "get 0=528003");
        check("GET /v1/horses/a%20b%C3%BC", "get 0=a bü");
        check("GET /v1/horses/a%2520", "get 0=a%20");
        check("GET /v1/horses/a+b", "get 0=a+b");
        check("DELETE /v1/horses/search", "delete 0=search");
        check("PUT /v1/x/of/y", "two 1=x 0=y");
        check("GET /v1/horses/", "none");
        check("GET /v1", "none");
        check("GET /v1/horses/a/b", "none");
        check("GET /V1/horses", "none");
    }

    #[test]
    fn the_methods_of_a_path_are_listed() {
        let check =
            |request: &str, expected: &str| assert_eq!(outcome(request), expected, "{request}");
        check("PUT /v1/horses", "405 GET, HEAD, POST, OPTIONS");
        check("POST /v1/horses/search", "405 GET, HEAD, DELETE, OPTIONS");
        check("TRACE /", "405 GET, HEAD, OPTIONS");
        check("HEAD /v1/x/of/y", "405 PUT, OPTIONS");
        check("OPTIONS /v1/horses", "options GET, HEAD, POST, OPTIONS");
        check("OPTIONS /v1/x/of/y", "options PUT, OPTIONS");
        check("OPTIONS /nothing", "none");
    }

    #[test]
    fn an_ambiguous_path_is_rejected() {
        for path in [
            "",
            "*",
            "v1/horses",
            "//v1/horses",
            "/v1//horses",
            "/v1/horses//",
            "/v1/./horses",
            "/v1/../horses",
            "/v1/%2e%2E/horses",
            "/v1/horses/..",
            "/v1/horses/a%2Fb",
            "/v1/horses/a%2fb",
            "/v1/horses/a%5Cb",
            "/v1/horses/a\\b",
            "/v1/horses/a%00",
            "/v1/horses/%",
            "/v1/horses/%4",
            "/v1/horses/%zz",
            "/v1/horses/%+1",
            "/v1/horses/%ff",
            "/v1/horses/%C3",
            "/v1/horses/%C0%AF",
            "/v1/horses/%ED%A0%80",
            "/v1/horses/ü",
        ] {
            assert_eq!(outcome(&format!("GET {path}")), "malformed", "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_path_is_parsed_without_a_panic(path in "/[ -~ü%0-9a-f/.]{0,40}") {
            drop(outcome(&format!("GET {path}")));
        }

        #[test]
        fn an_encoded_value_is_restored(value in "[^/\\\\\\p{Cc}]{1,20}") {
            proptest::prop_assume!(value != "." && value != ".." && value != "search");
            let mut encoded = String::new();
            for byte in value.bytes() {
                write!(encoded, "%{byte:02X}").unwrap();
            }
            let expected = format!("get 0={value}");
            let found = outcome(&format!("GET /v1/horses/{encoded}"));
            proptest::prop_assert_eq!(found, expected.trim_end());
        }
    }
}
