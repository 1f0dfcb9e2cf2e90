//! Rejects ambiguous requests, so that fjord, a proxy in front of it, and a log all interpret a request in the same way.
//!
//! hyper itself rejects requests with invalid framing. These checks apply to requests that hyper accepts.

use http::header::{self, HeaderName};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Version};

use crate::catalogue::route::METHODS;
use crate::catalogue::uri::{check_encoding, decode_path};
use crate::problem::{Problem, ProblemKind};

use super::super::ConnectionConfig;
use crate::roles::gateway::edge::compression::accept_encoding::AcceptedCodings;

/// The bytes between a header's name and its value, and after the value: colon, space, CR, LF.
const HEADER_OVERHEAD_BYTES: usize = 4;

/// Performs the checks that do not depend on the endpoint.
pub(in super::super) fn check<B>(
    request: &Request<B>,
    codings: AcceptedCodings,
    config: &ConnectionConfig,
) -> Result<(), Problem> {
    check_sizes(request, config)?;
    if !is_known(request.method()) {
        // RFC 9110 §9.1: the status is 501 for a method that the server does not recognize, and 405 for a method that
        // the path does not support.
        return Err(Problem::new(ProblemKind::NotImplemented));
    }
    let host = host(request).map_err(invalid)?;
    check_target(request).map_err(invalid)?;
    check_headers(request.headers()).map_err(invalid)?;
    check_framing(request).map_err(invalid)?;
    check_expectation(request.headers())?;
    if !codings.is_satisfiable() {
        let detail = "Accept-Encoding accepts neither a supported coding nor identity";
        return Err(Problem::with_detail(ProblemKind::NotAcceptable, detail));
    }
    let is_health_check = config.health_path.as_deref() == Some(request.uri().path());
    if !is_health_check && !host.is_none_or(|host| is_served(&host, &config.hosts)) {
        return Err(Problem::new(ProblemKind::Misdirected));
    }
    Ok(())
}

/// Returns whether the router answers a method. The router answers TRACE and QUERY with 405, because no path supports
/// them.
fn is_known(method: &Method) -> bool {
    let others = ["OPTIONS", "TRACE", "QUERY"];
    METHODS.contains(method) || others.contains(&method.as_str())
}

fn invalid(detail: &'static str) -> Problem {
    Problem::with_detail(ProblemKind::InvalidRequest, detail)
}

fn check_sizes<B>(request: &Request<B>, config: &ConnectionConfig) -> Result<(), Problem> {
    let limits = &config.limits;
    let uri = request.uri();
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    // HTTP/2 sends the authority separately from the path. In HTTP/1.1, it is part of the target.
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    if path + authority > limits.uri_bytes_max {
        let detail = format!("the URI must not exceed {} bytes", limits.uri_bytes_max);
        return Err(Problem::with_detail(ProblemKind::UriTooLong, detail));
    }
    let headers = request.headers();
    let size = |(name, value): (&HeaderName, &header::HeaderValue)| {
        name.as_str().len() + value.len() + HEADER_OVERHEAD_BYTES
    };
    let bytes: usize = headers.iter().map(size).sum();
    if headers.len() > limits.headers_max || bytes > limits.header_bytes_max {
        let (count_max, bytes_max) = (limits.headers_max, limits.header_bytes_max);
        let detail =
            format!("expected at most {count_max} headers and {bytes_max} bytes of headers");
        return Err(Problem::with_detail(ProblemKind::HeadersTooLarge, detail));
    }
    Ok(())
}

/// Returns the host that a request names (RFC 9112 §3.2, RFC 9113 §8.3.1). Only an HTTP/1.0 request may omit the host.
fn host<B>(request: &Request<B>) -> Result<Option<Authority>, &'static str> {
    let mut values = request.headers().get_all(header::HOST).iter();
    let field = match (values.next(), values.next()) {
        (_, Some(_)) => return Err("expected one Host header, got several"),
        (Some(value), None) => {
            let parsed = Authority::try_from(value.as_bytes());
            Some(parsed.map_err(|_| "expected a host and an optional port in Host")?)
        }
        (None, None) => None,
    };
    let host = match (request.uri().authority(), field) {
        (Some(target), Some(field)) if *target != field => {
            return Err("the request target and the Host header name different hosts");
        }
        (Some(target), None) if request.version() != Version::HTTP_11 => target.clone(),
        (_, Some(field)) => field,
        (None, None) if request.version() < Version::HTTP_11 => return Ok(None),
        (_, None) => return Err("expected a Host header"),
    };
    if host.host().is_empty() || host.as_str().contains('@') {
        return Err("expected a host and an optional port");
    }
    Ok(Some(host))
}

/// Returns whether a host is one of `hosts`. A trailing dot, which makes a name absolute, is ignored.
fn is_served(host: &Authority, hosts: &[String]) -> bool {
    let name = host.host().strip_suffix('.').unwrap_or(host.host());
    hosts.is_empty() || hosts.iter().any(|served| served.eq_ignore_ascii_case(name))
}

fn check_target<B>(request: &Request<B>) -> Result<(), &'static str> {
    let uri = request.uri();
    if uri.scheme_str().is_some_and(|scheme| scheme != "https" && scheme != "http") {
        return Err("expected the scheme http or https");
    }
    decode_path(uri.path())?;
    uri.query().map_or(Ok(()), check_encoding)
}

fn check_headers(headers: &HeaderMap) -> Result<(), &'static str> {
    // Proxies and CGI-like servers treat `a_b` as `a-b`, so such a name could bypass filters.
    if headers.keys().any(|name| name.as_str().contains('_')) {
        return Err("header names with an underscore are not allowed");
    }
    Ok(())
}

/// Rejects unusual body framing (RFC 9112 §6.3). hyper has already rejected contradictory framing.
fn check_framing<B>(request: &Request<B>) -> Result<(), &'static str> {
    let headers = request.headers();
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter().count();
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let (coding, second) = (codings.next(), codings.next());
    if lengths > 1 || second.is_some() || (lengths > 0 && coding.is_some()) {
        return Err("expected one Content-Length or one Transfer-Encoding, got several");
    }
    if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err("expected no transfer coding other than chunked");
    }
    Ok(())
}

/// Rejects every expectation except 100-continue (RFC 9110 §10.1.1).
fn check_expectation(headers: &HeaderMap) -> Result<(), Problem> {
    let is_known =
        |value: &header::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(header::EXPECT).iter().all(is_known) {
        return Ok(());
    }
    Err(Problem::with_detail(
        ProblemKind::ExpectationFailed,
        "expected 100-continue, or no Expect header",
    ))
}

#[cfg(test)]
pub(super) mod tests;
