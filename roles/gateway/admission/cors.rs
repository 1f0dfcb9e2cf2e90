//! Implements CORS (Fetch standard): the response headers and preflight requests that allow web
//! pages from other origins to call endpoints.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::catalogue::Endpoint;
use crate::catalogue::cors::CorsRules;
use crate::catalogue::route::METHODS;

use super::router::RouteLookup;
use super::router::Router;

/// Sets the headers that let a page read a response, including an error.
pub(in crate::roles::gateway) fn set_headers(
    rules: &CorsRules,
    request: &HeaderMap,
    response: &mut HeaderMap,
) {
    // The header is set even if the request has no `Origin`: a cache must not serve that response
    // to a request with an `Origin`.
    response.append(header::VARY, HeaderValue::from_static("Origin"));
    if allow_origin(rules, request, response) {
        response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, rules.expose_headers.clone());
    }
}

/// Sets the headers of the response to a preflight request: OPTIONS with `Origin` and `Access-Control-Request-Method`. Other
/// OPTIONS requests get at most `Vary`.
pub(in crate::roles::gateway) fn answer_preflight(
    router: &Router,
    request: &Parts,
    response: &mut HeaderMap,
) {
    let at = |method: &Method| match router.find(method, request.uri.path()) {
        RouteLookup::Matched(matched) => {
            matched.endpoint.cors.is_some().then_some(matched.endpoint)
        }
        _ => None,
    };
    let endpoints: Vec<_> =
        METHODS.iter().filter_map(|method| Some((method, at(method)?))).collect();
    if endpoints.is_empty() {
        return;
    }
    let Some((origin, wanted)) = preflight(&request.headers, response) else { return };
    let allows = |endpoint: &Endpoint| {
        endpoint.cors.as_ref().is_some_and(|rules| rules.allows(origin).is_some())
    };
    let endpoint =
        endpoints.iter().find(|(method, _)| method.as_str().as_bytes() == wanted.as_bytes());
    let Some(rules) = endpoint.and_then(|(_, endpoint)| endpoint.cors.as_ref()) else { return };
    let methods: Vec<&str> = endpoints
        .iter()
        .filter(|(_, endpoint)| allows(endpoint))
        .map(|(method, _)| method.as_str())
        .collect();
    allow_request(rules, &methods, &request.headers, response);
}

/// Sets the headers of the response to a preflight request for a path that the gateway serves itself, with GET and HEAD.
pub(in crate::roles::gateway) fn answer_own_preflight(
    rules: &CorsRules,
    request: &HeaderMap,
    response: &mut HeaderMap,
) {
    const METHODS: [&str; 2] = ["GET", "HEAD"];
    let Some((_, wanted)) = preflight(request, response) else { return };
    if METHODS.iter().any(|method| method.as_bytes() == wanted.as_bytes()) {
        allow_request(rules, &METHODS, request, response);
    }
}

/// Returns the origin and the method of a preflight request, and adds the headers on which its response depends to `Vary`.
fn preflight<'a>(
    request: &'a HeaderMap,
    response: &mut HeaderMap,
) -> Option<(&'a HeaderValue, &'a HeaderValue)> {
    let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
    response.append(header::VARY, HeaderValue::from_static(vary));
    let origin = single(request, header::ORIGIN)?;
    Some((origin, single(request, header::ACCESS_CONTROL_REQUEST_METHOD)?))
}

/// Sets the headers that allow the request that follows a preflight request, if the rules allow its origin.
fn allow_request(
    rules: &CorsRules,
    methods: &[&str],
    request: &HeaderMap,
    response: &mut HeaderMap,
) {
    if !allow_origin(rules, request, response) {
        return;
    }
    if let Ok(methods) = HeaderValue::try_from(methods.join(", ")) {
        response.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    response.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, rules.allow_headers.clone());
    response.insert(header::ACCESS_CONTROL_MAX_AGE, rules.max_age.clone());
}

/// Sets the headers that allow the origin of the request, if the rules allow that origin. Returns whether they do.
fn allow_origin(rules: &CorsRules, request: &HeaderMap, response: &mut HeaderMap) -> bool {
    let allowed = single(request, header::ORIGIN).and_then(|origin| rules.allows(origin));
    let Some(allowed) = allowed else { return false };
    response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    if rules.credentials {
        let value = HeaderValue::from_static("true");
        response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, value);
    }
    true
}

/// Returns the value of a header that occurs exactly once.
fn single(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::catalogue::load::fixture::catalogue;

    const ROUTES: &str = r#"
        "list": {"route":"GET /h", KEYS, "cors": {"origins": ["https://a.example", "https://b.example"]}},
        "create": {"route":"POST /h", KEYS, "parameters": {"n": {"in":"body","type":"string"}, "X-Office": {"in":"header","type":"string","as":"office"}},
                   "cors": {"origins": ["https://a.example"], "credentials": true, "headers": ["X-More"], "max_age": "1h"}},
        "delete": {"route":"DELETE /h", KEYS},
        "open": {"route":"GET /open", KEYS, "cors": {"origins": ["*"], "exposed_headers": ["X-Cache"]}},
        "none": {"route":"GET /none", KEYS, "cors": {"origins": []}},
        "try": {"route":"PUT /try", KEYS, "transaction": true, "dry_run": true, "cors": {"origins": ["*"]}}"#;

    /// Returns the headers of the response to a preflight, except `Vary`.
    fn preflight(path: &str, headers: &[(&str, &str)]) -> Vec<String> {
        let router = Router::new(&catalogue(ROUTES)).unwrap();
        let request = headers
            .iter()
            .fold(Request::options(path), |request, (name, value)| request.header(*name, *value));
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let mut response = HeaderMap::new();
        answer_preflight(&router, &parts, &mut response);
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            let name = name.as_str().trim_start_matches("access-control-");
            (name != "vary").then(|| format!("{name}: {}", value.to_str().unwrap()))
        };
        response.iter().filter_map(line).collect()
    }

    fn preflight_headers<'a>(origin: &'a str, method: &'a str) -> [(&'a str, &'a str); 2] {
        [("origin", origin), ("access-control-request-method", method)]
    }

    #[test]
    fn a_preflight_is_answered_as_the_routes_allow() {
        assert_eq!(
            preflight("/h", &preflight_headers("https://a.example", "POST")),
            [
                "allow-origin: https://a.example",
                "allow-credentials: true",
                "allow-methods: GET, HEAD, POST",
                "allow-headers: idempotency-key, x-request-id, traceparent, tracestate, content-type, x-office, prefer, x-more",
                "max-age: 3600",
            ]
        );
        assert_eq!(
            preflight("/h", &preflight_headers("https://b.example", "GET")),
            [
                "allow-origin: https://b.example",
                "allow-methods: GET, HEAD",
                "allow-headers: idempotency-key, x-request-id, traceparent, tracestate",
                "max-age: 600",
            ]
        );
        assert_eq!(
            preflight("/try", &preflight_headers("https://c.example", "PUT"))[2],
            "allow-headers: idempotency-key, x-request-id, traceparent, tracestate, prefer"
        );
        assert_eq!(
            preflight("/open", &preflight_headers("https://c.example", "GET"))[..2],
            ["allow-origin: *", "allow-methods: GET, HEAD"]
        );
    }

    #[test]
    fn a_preflight_that_is_not_allowed_gets_no_headers() {
        for (path, headers) in [
            ("/h", &preflight_headers("https://c.example", "GET")[..]),
            ("/h", &preflight_headers("https://b.example", "POST")),
            ("/h", &preflight_headers("https://a.example", "DELETE")),
            ("/h", &preflight_headers("https://a.example", "PATCH")),
            ("/h", &preflight_headers("https://a.example", "get")),
            ("/h", &preflight_headers("https://A.example", "GET")),
            ("/h", &preflight_headers("null", "GET")),
            ("/h", &[("origin", "https://a.example")]),
            ("/h", &[("access-control-request-method", "GET")]),
            ("/none", &preflight_headers("https://a.example", "GET")),
            ("/other", &preflight_headers("https://a.example", "GET")),
        ] {
            assert_eq!(preflight(path, headers), Vec::<String>::new(), "{path} {headers:?}");
        }
        let twice = [
            &preflight_headers("https://a.example", "GET")[..],
            &[("origin", "https://a.example")],
        ];
        assert_eq!(preflight("/h", &twice.concat()), Vec::<String>::new());
    }

    #[test]
    fn a_response_is_readable_by_the_allowed_origins() {
        let catalogue = catalogue(ROUTES);
        let answered = |id: &str, origin: &str| {
            let endpoint = catalogue.endpoints().iter().find(|e| e.id.as_str() == id).unwrap();
            let (mut request, mut response) = (HeaderMap::new(), HeaderMap::new());
            request.insert(header::ORIGIN, origin.parse().unwrap());
            if let Some(rules) = &endpoint.cors {
                set_headers(rules, &request, &mut response);
            }
            let text = |name| response.get(name).map(|value| value.to_str().unwrap().to_owned());
            (
                text(header::ACCESS_CONTROL_ALLOW_ORIGIN),
                text(header::ACCESS_CONTROL_EXPOSE_HEADERS),
                text(header::VARY),
            )
        };
        let (origin, exposed, vary) = answered("open", "https://c.example");
        assert_eq!((origin.as_deref(), vary.as_deref()), (Some("*"), Some("Origin")));
        assert!(exposed.unwrap().ends_with(", www-authenticate, x-cache"));
        let exposed = answered("try", "https://c.example").1.unwrap();
        assert!(exposed.ends_with(", preference-applied"), "{exposed}");
        assert_eq!(answered("list", "https://c.example"), (None, None, Some("Origin".into())));
        assert_eq!(answered("delete", "https://a.example"), (None, None, None));
    }
}
