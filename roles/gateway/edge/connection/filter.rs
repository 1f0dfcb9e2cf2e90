//! Lets only requests through that mean one thing to everybody: to us, to a proxy before us, to a log.
//!
//! hyper refuses what breaks the framing. This is for what it lets pass.

use http::header::{self, HeaderName};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Version};

use crate::catalogue::route::METHODS;
use crate::catalogue::uri::{check_encoding, decode_path};
use crate::problem::{Problem, ProblemKind};

use super::Rules;
use super::encoding::Accepted;

/// The bytes between a header's name and its value and after it: colon, space, CR, LF.
const HEADER_OVERHEAD_BYTES: usize = 4;

/// Checks everything about a request that needs no endpoint.
pub(super) fn check<B>(
    request: &Request<B>,
    accepted: Accepted,
    rules: &Rules,
) -> Result<(), Problem> {
    check_sizes(request, rules)?;
    if !METHODS.contains(request.method()) && *request.method() != Method::OPTIONS {
        // RFC 9110 §9.1: what the server does not know at all is 501; 405 is for what a path lacks.
        return Err(Problem::new(ProblemKind::NotImplemented));
    }
    let host = host(request).map_err(invalid)?;
    check_target(request).map_err(invalid)?;
    check_headers(request.headers()).map_err(invalid)?;
    check_framing(request).map_err(invalid)?;
    check_expectation(request.headers())?;
    if !accepted.is_possible() {
        let detail = "Accept-Encoding leaves out every coding that there is, and none at all";
        return Err(Problem::with_detail(ProblemKind::NotAcceptable, detail));
    }
    let is_health_check = rules.health_path.as_deref() == Some(request.uri().path());
    if !is_health_check && !is_served(&host, &rules.hosts) {
        return Err(Problem::new(ProblemKind::Misdirected));
    }
    Ok(())
}

fn invalid(detail: &'static str) -> Problem {
    Problem::with_detail(ProblemKind::InvalidRequest, detail)
}

fn check_sizes<B>(request: &Request<B>, rules: &Rules) -> Result<(), Problem> {
    let limits = &rules.limits;
    let uri = request.uri();
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    // HTTP/2 carries the authority beside the path; in HTTP/1.1 it is part of the target.
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    if path + authority > limits.uri_bytes_max {
        let detail = format!("the URI may have {} bytes at most", limits.uri_bytes_max);
        return Err(Problem::with_detail(ProblemKind::UriTooLong, detail));
    }
    let headers = request.headers();
    let size = |(name, value): (&HeaderName, &header::HeaderValue)| {
        name.as_str().len() + value.len() + HEADER_OVERHEAD_BYTES
    };
    let bytes: usize = headers.iter().map(size).sum();
    if headers.len() > limits.headers_max || bytes > limits.header_bytes_max {
        let (count_max, bytes_max) = (limits.headers_max, limits.header_bytes_max);
        let detail = format!("{count_max} headers of {bytes_max} bytes in all are allowed at most");
        return Err(Problem::with_detail(ProblemKind::HeadersTooLarge, detail));
    }
    Ok(())
}

/// The one host that a request is for (RFC 9112 §3.2, RFC 9113 §8.3.1).
fn host<B>(request: &Request<B>) -> Result<Authority, &'static str> {
    let mut values = request.headers().get_all(header::HOST).iter();
    let field = match (values.next(), values.next()) {
        (_, Some(_)) => return Err("expected one Host header, found several"),
        (Some(value), None) => {
            let parsed = Authority::try_from(value.as_bytes());
            Some(parsed.map_err(|_| "expected a host and an optional port in Host")?)
        }
        (None, None) => None,
    };
    let host = match (request.uri().authority(), field) {
        (Some(target), Some(field)) if *target != field => {
            return Err("the request's target and its Host header name different hosts");
        }
        (Some(target), None) if request.version() == Version::HTTP_2 => target.clone(),
        (_, Some(field)) => field,
        (_, None) => return Err("expected a Host header"),
    };
    if host.host().is_empty() || host.as_str().contains('@') {
        return Err("expected a host and an optional port, nothing else");
    }
    Ok(host)
}

fn is_served(host: &Authority, hosts: &[String]) -> bool {
    hosts.is_empty() || hosts.iter().any(|served| served.eq_ignore_ascii_case(host.host()))
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
    // Proxies and CGI-like servers take `a_b` for `a-b`: a way past filters.
    if headers.keys().any(|name| name.as_str().contains('_')) {
        return Err("header names with an underscore are not allowed");
    }
    Ok(())
}

/// RFC 9112 §6.3. What conflicts was refused by hyper; what is only strange is refused here.
fn check_framing<B>(request: &Request<B>) -> Result<(), &'static str> {
    let headers = request.headers();
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter().count();
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let (coding, second) = (codings.next(), codings.next());
    if lengths > 1 || second.is_some() || (lengths > 0 && coding.is_some()) {
        return Err("the length of the body is given twice");
    }
    if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err("expected no transfer coding but chunked");
    }
    Ok(())
}

/// RFC 9110 §10.1.1: 100-continue is the only expectation there is.
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
mod tests;
