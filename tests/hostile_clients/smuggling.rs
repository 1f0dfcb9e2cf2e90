//! Request smuggling: requests for which two parsers might find different ends or targets. Each of
//! them is followed by a second request, which must be answered only if the end of the first one is
//! unambiguous.

use futures_util::future::join_all;

use super::test_listener::{RawResponse, TestListener};

mod fragments;

/// The request that follows each case on its connection.
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// A request or a fragment of one, the expected statuses of all responses, and the reason.
type SmugglingCase = (&'static str, &'static [u16], &'static str);

/// The statuses if both the case and the next request are answered.
const BOTH_ANSWERED: &[u16] = &[200, 200];
/// The statuses if the case is rejected and the connection closed.
const REJECTED: &[u16] = &[400];
/// The statuses if the case is answered and the connection closed.
const ANSWERED_AND_CLOSED: &[u16] = &[200];

const LENGTHS: &[SmugglingCase] = &[
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
        BOTH_ANSWERED,
        "a valid request",
    ),
    ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", BOTH_ANSWERED, "a valid request without a body"),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        REJECTED,
        "RFC 9112 6.3 (5): lengths that differ",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        BOTH_ANSWERED,
        "RFC 9112 6.3 (5): equal lengths may be merged",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5, 6\r\n\r\nhello",
        REJECTED,
        "a list of different lengths",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n\r\nhello",
        REJECTED,
        "RFC 9110 8.6: digits only",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\nhello",
        REJECTED,
        "digits only",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0x5\r\n\r\nhello",
        REJECTED,
        "digits only",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5 5\r\n\r\nhello",
        REJECTED,
        "digits only",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: \r\n\r\nhello",
        REJECTED,
        "at least one digit",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18446744073709551617\r\n\r\nhello",
        REJECTED,
        "RFC 9110 8.6: no overflow",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length : 5\r\n\r\nhello",
        REJECTED,
        "RFC 9112 5.1: no space before the colon",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n",
        &[413],
        "above the endpoint's limit; the next bytes are its body",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 000000000000000000000005\r\n\r\nhello",
        REJECTED,
        "too many digits",
    ),
];

const CODINGS: &[SmugglingCase] = &[
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        BOTH_ANSWERED,
        "valid",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ANSWERED_AND_CLOSED,
        "RFC 9112 6.3 (3): the coding counts, and the connection closes",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ANSWERED_AND_CLOSED,
        "the same in reverse order",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        REJECTED,
        "RFC 9112 7: chunked twice",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        REJECTED,
        "chunked twice",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        REJECTED,
        "an unsupported coding",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        REJECTED,
        "RFC 9112 6.3 (4): chunked not last",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: identity\r\n\r\n",
        REJECTED,
        "an unknown coding",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        REJECTED,
        "an unknown coding",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        REJECTED,
        "a control character",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        REJECTED,
        "no space before the colon",
    ),
    (
        "POST / HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        REJECTED,
        "RFC 9112 6.1: not in HTTP/1.0",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
        BOTH_ANSWERED,
        "RFC 9112 7.1.1: an unknown extension is ignored",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n",
        REJECTED,
        "a bare LF in an extension",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
        REJECTED,
        "chunks end with CRLF",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        REJECTED,
        "hexadecimal digits only",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        REJECTED,
        "hexadecimal digits only",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n",
        REJECTED,
        "RFC 9112 7.1: no overflow",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX0\r\n\r\n",
        REJECTED,
        "no CRLF after a chunk",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 50\r\nHost: evil.test\r\n\r\n",
        BOTH_ANSWERED,
        "RFC 9110 6.5.1: trailers do not affect framing",
    ),
];

const HEADS: &[SmugglingCase] = &[
    (
        "\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        BOTH_ANSWERED,
        "RFC 9112 2.2: an empty line before the request is ignored",
    ),
    (
        "GET / HTTP/1.1\nHost: localhost\n\n",
        REJECTED,
        "RFC 9112 2.2: a recipient may accept LF as a line end; fjord does not",
    ),
    ("\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "LF alone before a request"),
    ("GET / HTTP/1.1\r\nHost: localhost\nA: b\r\n\r\n", REJECTED, "LF alone after a header"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\n\n", REJECTED, "LF alone at the end of a head"),
    ("GET /a#b HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "RFC 9112 3.2: no fragment"),
    ("GET /# HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "no fragment"),
    ("GET /?a=#b HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "no fragment"),
    ("GET http://localhost#/ HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "no fragment"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nA: b\rc\r\n\r\n", REJECTED, "RFC 9112 2.2: a bare CR"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nA: b\0c\r\n\r\n", REJECTED, "RFC 9110 5.5: NUL"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n", REJECTED, "RFC 9112 5.2: obs-fold"),
    (
        "GET / HTTP/1.1\r\n A: b\r\nHost: localhost\r\n\r\n",
        REJECTED,
        "RFC 9112 2.2: space before the first header",
    ),
    ("GET / HTTP/1.1\r\nHost: localhost\r\n: b\r\n\r\n", REJECTED, "a header without a name"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nA(b): c\r\n\r\n", REJECTED, "RFC 9110 5.1: not a token"),
    (
        "GET / HTTP/1.1\r\nHost: localhost\r\nContent_Length: 5\r\n\r\n",
        REJECTED,
        "an underscore, which other servers read as a dash",
    ),
    ("GET / HTTP/1.1\r\n\r\n", REJECTED, "RFC 9112 3.2: no Host"),
    (
        "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        REJECTED,
        "RFC 9112 3.2: two Hosts",
    ),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.test\r\n\r\n", REJECTED, "two Hosts"),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", REJECTED, "RFC 9112 3.2: not a host"),
    ("GET / HTTP/1.1\r\nHost: localhost, evil.test\r\n\r\n", REJECTED, "not a host"),
    (
        "GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        BOTH_ANSWERED,
        "RFC 9112 3.2.2: absolute-form",
    ),
    (
        "GET http://evil.test/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        REJECTED,
        "absolute-form for another host",
    ),
    (
        "GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n",
        REJECTED,
        "RFC 9112 3.2: a space in the target",
    ),
    ("GET /%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "an encoded NUL"),
    ("GET /a/..%2fb HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "an encoded slash"),
    ("GET /\u{e9} HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "RFC 3986 2: not ASCII"),
    (
        "get / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[501],
        "RFC 9110 9.1: methods are case-sensitive",
    ),
    (
        "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        REJECTED,
        "the server itself is not an endpoint",
    ),
    ("CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n", &[501], "no tunnels"),
    ("GET /\r\n\r\n", REJECTED, "HTTP/0.9"),
    ("GET / HTTP/1.2\r\nHost: localhost\r\n\r\n", REJECTED, "no such version"),
    ("GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", REJECTED, "HTTP/2 has a different form"),
    (
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        BOTH_ANSWERED,
        "RFC 9110 7.8: an upgrade may be ignored",
    ),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nExpect: tea\r\n\r\n", &[417], "RFC 9110 10.1.1"),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        &[100, 200, 200],
        "RFC 9110 10.1.1: a 100 may be sent even if the body has arrived",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n",
        &[413],
        "RFC 9110 10.1.1: no 100 before a refusal",
    ),
];

async fn check(
    listener: &TestListener,
    bytes: String,
    (_, expected, why): SmugglingCase,
) -> Option<String> {
    let sent = [&*bytes, NEXT].concat();
    let answers = listener.exchange(sent.as_bytes()).await;
    let statuses = RawResponse::statuses(&answers);
    // The response is a problem document, even if the HTTP parser rejects the request.
    for answer in answers.iter().filter(|answer| answer.status >= 400) {
        answer.assert_problem(answer.status);
        answer.assert_fixed_headers();
        assert!(answer.has("connection: close"), "{answer:?}");
    }
    (statuses != expected)
        .then(|| format!("{why}: {statuses:?} instead of {expected:?}: {bytes:?}"))
}

/// Sends every case, completed by `request`, and checks its responses.
async fn check_all(cases: &[SmugglingCase], request: impl Fn(&str) -> String) {
    let listener = TestListener::plain();
    let wrong = join_all(cases.iter().map(|case| check(&listener, request(case.0), *case))).await;
    let wrong: Vec<_> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let followed = cases.iter().filter(|(_, expected, _)| expected.ends_with(&[200, 200])).count();
    let seen = listener.paths().iter().filter(|path| *path == "/next").count();
    assert_eq!(seen, followed, "a request reaches the service only after a valid one");
}

#[tokio::test]
async fn an_ambiguous_length_closes_the_connection() {
    check_all(LENGTHS, ToOwned::to_owned).await;
}

#[tokio::test]
async fn an_ambiguous_transfer_coding_closes_the_connection() {
    check_all(CODINGS, ToOwned::to_owned).await;
}

#[tokio::test]
async fn an_ambiguous_head_is_rejected() {
    check_all(HEADS, ToOwned::to_owned).await;
}

#[tokio::test]
async fn chunk_extensions_are_limited() {
    let extension = "x".repeat(64 * 1024);
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let sent = format!("{head}5;{extension}\r\nhello\r\n0\r\n\r\n");
    let answers = TestListener::plain().exchange(sent.as_bytes()).await;
    assert_eq!(RawResponse::statuses(&answers), [400]);
}
