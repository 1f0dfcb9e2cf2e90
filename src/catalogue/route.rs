//! Routes: their syntax, and whether two of them could match the same request.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;

use super::error::CatalogueError;
use super::parameter::Parameter;

/// What a route looks like, for messages.
pub const EXPECTED: &str = "expected a method (GET, HEAD, POST, PUT, PATCH or DELETE), one space, and a path \
     whose segments are plain text or one {parameter}, e.g. \"GET /v1/horses/{ueln}\"";
/// Paths that the gateway answers itself.
pub const RESERVED: [&str; 2] = ["/openapi.json", "/docs"];
/// Longest path of a route in bytes.
const PATH_BYTES_MAX: usize = 512;

/// One segment of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    /// Stands for itself.
    Literal(&'a str),
    /// Stands for any text: a parameter's name.
    Parameter(&'a str),
}

/// The segments of a checked path.
pub fn segments(path: &str) -> impl Iterator<Item = Segment<'_>> {
    path.strip_prefix('/').unwrap_or_default().split('/').map(|segment| {
        match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => Segment::Parameter(name),
            None => Segment::Literal(segment),
        }
    })
}

/// The index of each path parameter, in the order of the path.
#[must_use]
pub fn path_order(path: &str, parameters: &[Parameter]) -> Vec<usize> {
    segments(path)
        .filter_map(|segment| match segment {
            Segment::Parameter(name) => parameters.iter().position(|p| *p.name == *name),
            Segment::Literal(_) => None,
        })
        .collect()
}

/// Takes `METHOD /path/{name}` apart.
#[must_use]
pub fn parse(route: &str) -> Option<(Method, Arc<str>)> {
    let (method, path) = route.split_once(' ')?;
    let method = match method {
        "GET" => Method::GET,
        "HEAD" => Method::HEAD,
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "PATCH" => Method::PATCH,
        "DELETE" => Method::DELETE,
        _ => return None,
    };
    if !path.starts_with('/') || path.len() > PATH_BYTES_MAX {
        return None;
    }
    let well_formed = |segment: Segment<'_>| match segment {
        // Only the root has an empty segment, and dot segments never reach a route (RFC 3986 §5.2.4).
        Segment::Literal("") => path == "/",
        Segment::Literal("." | "..") => false,
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

/// The routes so far, as a tree of segments for each method.
#[derive(Debug, Default)]
pub(super) struct Routes {
    methods: HashMap<Method, Node>,
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    endpoint: String,
    file: String,
    path: Arc<str>,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, Node>,
    parameter: Option<Box<Node>>,
    end: Option<usize>,
}

/// Which of two routes is the more specific one somewhere.
#[derive(Clone, Copy, Default)]
struct Precision {
    new: bool,
    old: bool,
}

impl Routes {
    /// Adds a route; an error when another could match the same request and neither is more specific.
    ///
    /// `/horses/search` beside `/horses/{ueln}` is fine: plain text wins. `/a/{x}/c` beside `/a/b/{y}` is not.
    pub(super) fn add(
        &mut self,
        (file, endpoint): (&str, &str),
        method: &Method,
        path: &Arc<str>,
    ) -> Result<(), CatalogueError> {
        let parts: Vec<Segment<'_>> = segments(path).collect();
        let root = self.methods.entry(method.clone()).or_default();
        if let Some(other) = conflict(root, &parts, Precision::default())
            && let Some(other) = self.known.get(other)
        {
            return Err(CatalogueError {
                file: file.to_owned(),
                endpoint: Some(endpoint.to_owned()),
                key: "route".to_owned(),
                expected: format!(
                    "overlaps with {method} {} of endpoint {:?} ({}): expected routes that no request fits both of",
                    other.path, other.endpoint, other.file
                ),
            });
        }
        let node = parts.iter().fold(root, |node, part| match part {
            Segment::Literal(text) => node.literals.entry((*text).into()).or_default(),
            Segment::Parameter(_) => node.parameter.get_or_insert_default(),
        });
        node.end = Some(self.known.len());
        self.known.push(Known {
            endpoint: endpoint.to_owned(),
            file: file.to_owned(),
            path: Arc::clone(path),
        });
        Ok(())
    }
}

fn conflict(node: &Node, parts: &[Segment<'_>], precision: Precision) -> Option<usize> {
    let Some((part, rest)) = parts.split_first() else {
        // More specific in one place and less in another, or the same everywhere: nothing decides.
        return node.end.filter(|_| precision.new == precision.old);
    };
    let below = |node: &Node, precision| conflict(node, rest, precision);
    match part {
        Segment::Literal(text) => {
            let more = Precision { new: true, ..precision };
            let same = node.literals.get(*text).and_then(|node| below(node, precision));
            same.or_else(|| node.parameter.as_ref().and_then(|node| below(node, more)))
        }
        Segment::Parameter(_) => {
            let less = Precision { old: true, ..precision };
            let same = node.parameter.as_ref().and_then(|node| below(node, precision));
            same.or_else(|| node.literals.values().find_map(|node| below(node, less)))
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
    fn routes_overlap_when_nothing_decides_between_them() {
        let check = |first: &str, second: &str, overlap: bool| {
            for (first, second) in [(first, second), (second, first)] {
                let mut routes = Routes::default();
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
