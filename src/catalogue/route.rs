//! The syntax of routes. Also checks that no request can match two routes of equal precedence.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;

use super::error::CatalogueError;
use super::parameter::Parameter;
use super::uri::check_segments;

/// The methods that an endpoint can have, in the order in which an `Allow` header lists them.
pub const METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
/// The syntax of a route, for error messages.
pub(super) const EXPECTED: &str = "expected a method (GET, HEAD, POST, PUT, PATCH or DELETE), one space, and a path \
     whose segments are plain text or one {parameter}, e.g. \"GET /v1/horses/{ueln}\"";
/// The paths that the gateway serves itself.
pub(super) const RESERVED: [&str; 2] = ["/openapi.json", "/docs"];
/// The maximum length of a route's path in bytes.
const PATH_BYTES_MAX: usize = 512;

/// One segment in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    /// Text that matches only itself.
    Literal(&'a str),
    /// A named parameter, which matches any text.
    Parameter(&'a str),
}

/// Returns the segments of a valid path.
pub fn segments(path: &str) -> impl Iterator<Item = Segment<'_>> {
    path.strip_prefix('/').unwrap_or_default().split('/').map(|segment| {
        match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => Segment::Parameter(name),
            None => Segment::Literal(segment),
        }
    })
}

/// Returns the index in `parameters` of each path parameter, in the order of the path.
#[must_use]
pub fn path_order(path: &str, parameters: &[Parameter]) -> Vec<usize> {
    segments(path)
        .filter_map(|segment| match segment {
            Segment::Parameter(name) => parameters.iter().position(|p| *p.name == *name),
            Segment::Literal(_) => None,
        })
        .collect()
}

/// Parses `METHOD /path/{name}`.
#[must_use]
pub fn parse(route: &str) -> Option<(Method, Arc<str>)> {
    let (method, path) = route.split_once(' ')?;
    let method = METHODS.into_iter().find(|known| known.as_str() == method)?;
    if !path.starts_with('/') || path.len() > PATH_BYTES_MAX || check_segments(path).is_err() {
        return None;
    }
    let well_formed = |segment: Segment<'_>| match segment {
        // Only the root path may end with a slash.
        Segment::Literal("") => path == "/",
        Segment::Literal(text) => {
            text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b))
        }
        Segment::Parameter(name) => {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        }
    };
    segments(path).all(well_formed).then(|| (method, path.into()))
}

/// All routes read so far, as one tree of path segments for each method.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    trees: HashMap<Method, RouteNode>,
    routes: Vec<KnownRoute>,
}

#[derive(Debug)]
struct KnownRoute {
    endpoint: String,
    file: String,
    path: Arc<str>,
}

#[derive(Debug, Default)]
struct RouteNode {
    literals: HashMap<Box<str>, RouteNode>,
    parameter: Option<Box<RouteNode>>,
    /// The index of the route whose path ends at this node.
    route: Option<usize>,
}

/// For each of two routes, whether it has literal text in a segment where the other route has a parameter.
#[derive(Clone, Copy, Default)]
struct MoreSpecific {
    new: bool,
    old: bool,
}

impl RouteTable {
    /// Adds a route.
    ///
    /// Literal text takes precedence over a parameter. Therefore, `/horses/search` and `/horses/{ueln}` can coexist,
    /// but `/a/{x}/c` and `/a/b/{y}` cannot.
    ///
    /// # Errors
    /// Returns a `CatalogueError` if an existing route could match the same request and neither route takes
    /// precedence.
    pub(super) fn add(
        &mut self,
        (file, endpoint): (&str, &str),
        method: &Method,
        path: &Arc<str>,
    ) -> Result<(), CatalogueError> {
        let segments: Vec<Segment<'_>> = segments(path).collect();
        let root = self.trees.entry(method.clone()).or_default();
        if let Some(other) = conflict(root, &segments, MoreSpecific::default())
            && let Some(other) = self.routes.get(other)
        {
            return Err(CatalogueError {
                file: file.to_owned(),
                endpoint: Some(endpoint.to_owned()),
                key: "route".to_owned(),
                expected: format!(
                    "overlaps with {method} {} of endpoint {:?} ({}): expected routes of which a request can match only one",
                    other.path, other.endpoint, other.file
                ),
                position: None,
            });
        }
        let node = segments.iter().fold(root, |node, segment| match segment {
            Segment::Literal(text) => node.literals.entry((*text).into()).or_default(),
            Segment::Parameter(_) => node.parameter.get_or_insert_default(),
        });
        node.route = Some(self.routes.len());
        self.routes.push(KnownRoute {
            endpoint: endpoint.to_owned(),
            file: file.to_owned(),
            path: Arc::clone(path),
        });
        Ok(())
    }
}

/// Returns the index of a route that could match the same request as the new route, if neither takes precedence.
fn conflict(node: &RouteNode, segments: &[Segment<'_>], more: MoreSpecific) -> Option<usize> {
    let Some((segment, rest)) = segments.split_first() else {
        // Neither route takes precedence if each of them is more specific in some segment, or if neither is more
        // specific in any segment.
        return node.route.filter(|_| more.new == more.old);
    };
    match segment {
        Segment::Literal(text) => {
            let same = node.literals.get(*text).and_then(|node| conflict(node, rest, more));
            let more = MoreSpecific { new: true, ..more };
            same.or_else(|| node.parameter.as_ref().and_then(|node| conflict(node, rest, more)))
        }
        Segment::Parameter(_) => {
            let same = node.parameter.as_ref().and_then(|node| conflict(node, rest, more));
            let more = MoreSpecific { old: true, ..more };
            same.or_else(|| node.literals.values().find_map(|node| conflict(node, rest, more)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_a_method_and_a_path_of_whole_segments() {
        for good in [
            "GET /",
            "GET /v1/horses",
            "POST /v1/horses/{ueln}/transfers",
            "HEAD /a.b~c/-_!",
            "GET /{a}",
        ] {
            assert!(parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "GET",
            "GET/",
            "get /",
            "OPTIONS /",
            "GET  /a",
            "GET a",
            "GET /a/",
            "GET /a//b",
            "GET //",
            "GET /a/..",
            "GET /./a",
            "GET /a b",
            "GET /a?b",
            "GET /{}",
            "GET /{a",
            "GET /a}",
            "GET /{a}{b}",
            "GET /x{a}",
            "GET /{*a}",
            "GET /%41",
            "GET /ü",
            "GET /{a b}",
            "GET /a\n",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn routes_overlap_when_neither_takes_precedence() {
        let check = |first: &str, second: &str, overlap: bool| {
            for (first, second) in [(first, second), (second, first)] {
                let mut routes = RouteTable::default();
                let (method, path) = parse(first).unwrap();
                routes.add(("a.json", "first"), &method, &path).unwrap();
                let (method, path) = parse(second).unwrap();
                let added = routes.add(("b.json", "second"), &method, &path);
                assert_eq!(added.is_err(), overlap, "{first} {second}");
            }
        };
        check("GET /a", "GET /a", true);
        check("GET /a/{x}", "GET /a/{y}", true);
        check("GET /a/{x}/c", "GET /a/b/{y}", true);
        check("GET /{x}/b/{z}", "GET /a/{y}/c", true);
        check("GET /a/{x}", "POST /a/{y}", false);
        check("GET /a/{x}", "GET /a/search", false);
        check("GET /{x}/{y}", "GET /a/b", false);
        check("GET /{x}/{y}", "GET /a/{y}", false);
        check("GET /a/{x}/c", "GET /a/b/d", false);
        check("GET /a", "GET /a/b", false);
        check("GET /", "GET /{x}", false);
    }
}
