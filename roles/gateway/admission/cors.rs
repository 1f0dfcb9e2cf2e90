//! What browsers want to hear before pages of other origins may call (CORS, as in the Fetch standard).

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::catalogue::Endpoint;
use crate::catalogue::cors::CorsRules;
use crate::catalogue::route::METHODS;

use super::router::Found;
use super::router::Router;

/// Lets a page read an answer: a good one, and one that says what is wrong.
pub(in crate::roles::gateway) fn allow(
    endpoint: &Endpoint,
    asked: &HeaderMap,
    answer: &mut HeaderMap,
) {
    let Some(rules) = &endpoint.cors else { return };
    // Also where no origin asks: a cache must not give that answer to one who does.
    answer.append(header::VARY, HeaderValue::from_static("Origin"));
    if allow_origin(rules, asked, answer) {
        answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, rules.expose_headers.clone());
    }
}

/// Answers the question before a request, when this is one: an OPTIONS with an origin and the method to come.
pub(in crate::roles::gateway) fn answer_preflight(
    router: &Router,
    asked: &Parts,
    answer: &mut HeaderMap,
) {
    let at = |method: &Method| match router.find(method, asked.uri.path()) {
        Found::Matched(matched) => matched.endpoint.cors.is_some().then_some(matched.endpoint),
        _ => None,
    };
    let shared: Vec<_> = METHODS.iter().filter_map(|method| Some((method, at(method)?))).collect();
    if shared.is_empty() {
        return;
    }
    let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
    answer.append(header::VARY, HeaderValue::from_static(vary));
    let (Some(origin), Some(wanted)) = (
        single(&asked.headers, header::ORIGIN),
        single(&asked.headers, header::ACCESS_CONTROL_REQUEST_METHOD),
    ) else {
        return;
    };
    let allows = |endpoint: &Endpoint| {
        endpoint.cors.as_ref().is_some_and(|rules| rules.allows(origin).is_some())
    };
    let endpoint =
        shared.iter().find(|(method, _)| method.as_str().as_bytes() == wanted.as_bytes());
    let Some(rules) = endpoint.and_then(|(_, endpoint)| endpoint.cors.as_ref()) else { return };
    if !allow_origin(rules, &asked.headers, answer) {
        return;
    }
    let methods: Vec<&str> = shared
        .iter()
        .filter(|(_, endpoint)| allows(endpoint))
        .map(|(method, _)| method.as_str())
        .collect();
    if let Ok(methods) = HeaderValue::try_from(methods.join(", ")) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, rules.allow_headers.clone());
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, rules.max_age.clone());
}

/// Says that the request's origin may; whether it may.
fn allow_origin(rules: &CorsRules, asked: &HeaderMap, answer: &mut HeaderMap) -> bool {
    let allowed = single(asked, header::ORIGIN).and_then(|origin| rules.allows(origin));
    let Some(allowed) = allowed else { return false };
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    if rules.credentials {
        let value = HeaderValue::from_static("true");
        answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, value);
    }
    true
}

/// A header that is there once.
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

    /// The headers that a preflight is answered with, a line each; `Vary` last, as one.
    fn preflight(path: &str, headers: &[(&str, &str)]) -> Vec<String> {
        let router = Router::new(&catalogue(ROUTES)).unwrap();
        let request = headers
            .iter()
            .fold(Request::options(path), |request, (name, value)| request.header(*name, *value));
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let mut answer = HeaderMap::new();
        answer_preflight(&router, &parts, &mut answer);
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            let name = name.as_str().trim_start_matches("access-control-");
            (name != "vary").then(|| format!("{name}: {}", value.to_str().unwrap()))
        };
        answer.iter().filter_map(line).collect()
    }

    fn asking<'a>(origin: &'a str, method: &'a str) -> [(&'a str, &'a str); 2] {
        [("origin", origin), ("access-control-request-method", method)]
    }

    #[test]
    fn a_preflight_tells_what_the_routes_allow() {
        assert_eq!(
            preflight("/h", &asking("https://a.example", "POST")),
            [
                "allow-origin: https://a.example",
                "allow-credentials: true",
                "allow-methods: GET, HEAD, POST",
                "allow-headers: idempotency-key, x-request-id, traceparent, tracestate, content-type, x-office, x-more",
                "max-age: 3600",
            ]
        );
        assert_eq!(
            preflight("/h", &asking("https://b.example", "GET")),
            [
                "allow-origin: https://b.example",
                "allow-methods: GET, HEAD",
                "allow-headers: idempotency-key, x-request-id, traceparent, tracestate",
                "max-age: 600",
            ]
        );
        assert_eq!(
            preflight("/try", &asking("https://c.example", "PUT"))[2],
            "allow-headers: idempotency-key, x-request-id, traceparent, tracestate, prefer"
        );
        assert_eq!(
            preflight("/open", &asking("https://c.example", "GET"))[..2],
            ["allow-origin: *", "allow-methods: GET, HEAD"]
        );
    }

    #[test]
    fn a_preflight_that_is_none_or_may_not_is_told_nothing() {
        for (path, headers) in [
            ("/h", &asking("https://c.example", "GET")[..]),
            ("/h", &asking("https://b.example", "POST")),
            ("/h", &asking("https://a.example", "DELETE")),
            ("/h", &asking("https://a.example", "PATCH")),
            ("/h", &asking("https://a.example", "get")),
            ("/h", &asking("https://A.example", "GET")),
            ("/h", &asking("null", "GET")),
            ("/h", &[("origin", "https://a.example")]),
            ("/h", &[("access-control-request-method", "GET")]),
            ("/none", &asking("https://a.example", "GET")),
            ("/other", &asking("https://a.example", "GET")),
        ] {
            assert_eq!(preflight(path, headers), Vec::<String>::new(), "{path} {headers:?}");
        }
        let twice = [&asking("https://a.example", "GET")[..], &[("origin", "https://a.example")]];
        assert_eq!(preflight("/h", &twice.concat()), Vec::<String>::new());
    }

    #[test]
    fn an_answer_is_readable_by_the_origins_that_may_call() {
        let catalogue = catalogue(ROUTES);
        let answered = |id: &str, origin: &str| {
            let endpoint = catalogue.endpoints().iter().find(|e| e.id.as_str() == id).unwrap();
            let (mut asked, mut answer) = (HeaderMap::new(), HeaderMap::new());
            asked.insert(header::ORIGIN, origin.parse().unwrap());
            allow(endpoint, &asked, &mut answer);
            let text = |name| answer.get(name).map(|value| value.to_str().unwrap().to_owned());
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
