//! Tests the filter, with requests in the form in which hyper passes them.

use std::time::Duration;

use crate::config::gateway::{Coding, CompressionConfig, HttpLimits, ProxyConfig};

use super::*;

/// Returns small limits.
pub(in super::super) fn limits() -> HttpLimits {
    let second = Duration::from_secs(1);
    HttpLimits {
        connections_max: 1,
        connections_per_client_max: 1,
        ipv6_prefix_bits: 56,
        requests_in_flight_max: 1,
        requests_in_flight_per_caller_max: 1,
        buffered_bytes_max: 1,
        buffered_bytes_per_client_max: 1,
        cached_bytes_max: 0,
        header_bytes_max: 200,
        headers_max: 5,
        uri_bytes_max: 100,
        header_timeout: second,
        idle_timeout: second,
        body_idle_timeout: second,
        body_timeout: second,
        streams_max: 1,
        resets_max: 1,
        auth_failures_per_minute_max: 600,
    }
}

fn config(hosts: &[&str]) -> ConnectionConfig {
    let limits = limits();
    let hosts = hosts.iter().map(ToString::to_string).collect();
    let compression = CompressionConfig { codings: Coding::ALL.to_vec(), bytes_min: 1 };
    let (health_path, proxies) = (Some("/healthz".to_owned()), ProxyConfig::default());
    ConnectionConfig { limits, hosts, health_path, proxies, compression }
}

/// Returns the status with which a request is rejected, or 0 if it is accepted.
fn status(request: http::request::Builder) -> u16 {
    let request = request.body(()).unwrap();
    let config = config(&["api.test"]);
    let codings = AcceptedCodings::from_headers(request.headers(), &config.compression.codings);
    check(&request, codings, &config).map_or_else(|problem| problem.kind.status().as_u16(), |()| 0)
}

fn get(target: &str) -> http::request::Builder {
    Request::get(target).header("host", "api.test")
}

#[test]
fn an_ambiguous_path_is_rejected() {
    for (path, expected) in [
        ("/", 0),
        ("/v1/horses/528003000000001?detail=full", 0),
        ("/v1/horses/", 0),
        ("/caf%C3%A9", 0),
        ("/100%25", 0),
        ("/%252e%252e/x", 0),
        ("/a.b/..c", 0),
        ("/q?x=%2F%00", 0),
        ("/caf\u{e9}", 400),
        ("/q?x=\u{e9}", 400),
        ("/%", 400),
        ("/%4", 400),
        ("/%zz", 400),
        ("/q?x=%zz", 400),
        ("/%00", 400),
        ("/a%0d%0ab", 400),
        ("/a%2fb", 400),
        ("/a%5Cb", 400),
        ("/a/../b", 400),
        ("/a/./b", 400),
        ("/a/%2e%2E/b", 400),
        ("/..", 400),
        ("//a", 400),
        ("/a//b", 400),
        ("/%c3%28", 400),
        ("*", 400),
    ] {
        assert_eq!(status(get(path)), expected, "{path}");
    }
}

#[test]
fn a_request_must_name_exactly_one_served_host() {
    let with = |hosts: &[&str]| {
        hosts.iter().fold(Request::get("/"), |request, host| request.header("host", *host))
    };
    for (hosts, expected) in [
        (&["api.test"][..], 0),
        (&["API.test"], 0),
        (&["api.test:8443"], 0),
        (&["api.test."], 0),
        (&["api.test.:8443"], 0),
        (&["api.test.."], 421),
        (&[], 400),
        (&["api.test", "api.test"], 400),
        (&["api.test", "evil.test"], 400),
        (&[""], 400),
        (&["user@api.test"], 400),
        (&["api.test/x"], 400),
        (&["api test"], 400),
        (&["evil.test"], 421),
    ] {
        assert_eq!(status(with(hosts)), expected, "{hosts:?}");
    }
    assert_eq!(status(get("http://api.test/")), 0);
    assert_eq!(status(get("http://evil.test/")), 400);
    assert_eq!(status(get("ftp://api.test/")), 400);
    assert_eq!(status(Request::get("http://api.test/")), 400, "HTTP/1.1 needs Host (RFC 9112 3.2)");
    let old = |target| Request::get(target).version(Version::HTTP_10);
    assert_eq!(status(old("/")), 0, "HTTP/1.0 has no Host");
    assert_eq!(status(old("http://api.test/")), 0);
    assert_eq!(status(old("http://evil.test/")), 421);
    assert_eq!(status(old("/").header("host", "evil.test")), 421);
    let http2 = |target| Request::get(target).version(Version::HTTP_2);
    assert_eq!(status(http2("https://api.test/")), 0);
    assert_eq!(status(http2("/").header("host", "api.test")), 0);
    assert_eq!(status(http2("/")), 400);
    assert_eq!(status(http2("https://api.test/").header("host", "evil.test")), 400);
    assert_eq!(status(http2("https://evil.test/")), 421);
}

#[test]
fn unusual_methods_headers_framing_and_expectations_are_rejected() {
    for (request, expected) in [
        (get("/").method("OPTIONS"), 0),
        (get("/").method("get"), 501),
        (get("/").method("TRACE"), 0),
        (get("/").method("QUERY"), 0),
        (get("/").method("CONNECT"), 501),
        (get("/").method("BREW"), 501),
        (get("/").header("x_forwarded_for", "1"), 400),
        (get("/").header("transfer-encoding", "Chunked"), 0),
        (get("/").header("transfer-encoding", "gzip, chunked"), 400),
        (
            get("/").header("transfer-encoding", "chunked").header("transfer-encoding", "chunked"),
            400,
        ),
        (get("/").header("transfer-encoding", "chunked").header("content-length", "1"), 400),
        (get("/").header("content-length", "1").header("content-length", "1"), 400),
        (get("/").header("expect", "100-Continue"), 0),
        (get("/").header("accept-encoding", "identity;q=0, gzip"), 0),
        (get("/").header("accept-encoding", "identity;q=0, compress"), 406),
        (get("/").header("accept-encoding", "*;q=0"), 406),
        (get("/").header("expect", "tea"), 417),
        (get("/").header("expect", "100-continue").header("expect", "tea"), 417),
    ] {
        let shown = format!("{request:?}");
        assert_eq!(status(request), expected, "{shown}");
    }
}

#[test]
fn sizes_are_bounded() {
    assert_eq!(status(get(&format!("/{}", "a".repeat(99)))), 0);
    assert_eq!(status(get(&format!("/{}", "a".repeat(100)))), 414);
    assert_eq!(status(get("/").header("a", "x".repeat(179))), 0);
    assert_eq!(status(get("/").header("a", "x".repeat(180))), 431);
    let many =
        |count: usize| (0..count).fold(get("/"), |request, n| request.header(format!("a{n}"), ""));
    assert_eq!(status(many(4)), 0);
    assert_eq!(status(many(5)), 431);
}
