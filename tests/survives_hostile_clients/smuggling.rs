//! Requests whose end, or whose target, two readers might see in different places. Each is sent raw, with a
//! second request behind it that must be answered only where the first one's end is beyond doubt.

use futures_util::future::join_all;

use super::edge::{Answer, Edge};

mod corpus;

/// What follows each case on the same connection.
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Bytes, the statuses of all answers, and why.
type Case = (&'static str, &'static [u16], &'static str);

/// Answered, and so is the next request.
const FINE: &[u16] = &[200, 200];
/// Refused, and the connection is over.
const BAD: &[u16] = &[400];
/// Answered, and the connection is over.
const LAST: &[u16] = &[200];

const LENGTHS: &[Case] = &[
    ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", FINE, "a good one"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", FINE, "a good one without a body"),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        BAD,
        "RFC 9112 6.3 (5): lengths that differ",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        FINE,
        "RFC 9112 6.3 (5): may be taken as one",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5, 6\r\n\r\nhello",
        BAD,
        "a list that differs",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n\r\nhello",
        BAD,
        "RFC 9110 8.6: digits only",
    ),
    ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\nhello", BAD, "digits only"),
    ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0x5\r\n\r\nhello", BAD, "digits only"),
    ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5 5\r\n\r\nhello", BAD, "digits only"),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: \r\n\r\nhello",
        BAD,
        "at least one digit",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18446744073709551617\r\n\r\nhello",
        BAD,
        "RFC 9110 8.6: no overflow",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length : 5\r\n\r\nhello",
        BAD,
        "RFC 9112 5.1: no space before the colon",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n",
        &[413],
        "more than the endpoint takes, and small: what follows is its body",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 000000000000000000000005\r\n\r\nhello",
        BAD,
        "more digits than a length has",
    ),
];

const CODINGS: &[Case] = &[
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        FINE,
        "a good one",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        LAST,
        "RFC 9112 6.3 (3): the coding counts, and the connection closes",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        LAST,
        "the same the other way round",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        BAD,
        "RFC 9112 7: chunked twice",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        BAD,
        "chunked twice",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        BAD,
        "a coding that we do not have",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        BAD,
        "RFC 9112 6.3 (4): chunked not last",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: identity\r\n\r\n",
        BAD,
        "no such coding",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        BAD,
        "no such coding",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        BAD,
        "a control character",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        BAD,
        "no space before the colon",
    ),
    (
        "POST / HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        BAD,
        "RFC 9112 6.1: not in HTTP/1.0",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
        FINE,
        "RFC 9112 7.1.1: an unknown extension is ignored",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n",
        BAD,
        "a bare LF in an extension",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
        BAD,
        "chunks end with CRLF",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        BAD,
        "hexadecimal digits only",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        BAD,
        "hexadecimal digits only",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n",
        BAD,
        "RFC 9112 7.1: no overflow",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX0\r\n\r\n",
        BAD,
        "no CRLF behind a chunk",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 50\r\nHost: evil.test\r\n\r\n",
        FINE,
        "RFC 9110 6.5.1: trailers frame nothing",
    ),
];

const HEADS: &[Case] = &[
    (
        "\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        FINE,
        "RFC 9112 2.2: an empty line before is ignored",
    ),
    ("GET / HTTP/1.1\nHost: localhost\n\n", BAD, "RFC 9112 2.2: LF may end a line; not here"),
    ("\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "LF alone before a request"),
    ("GET / HTTP/1.1\r\nHost: localhost\nA: b\r\n\r\n", BAD, "LF alone behind a header"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\n\n", BAD, "LF alone at the end of a head"),
    ("GET /a#b HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "RFC 9112 3.2: no fragment"),
    ("GET /# HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "no fragment"),
    ("GET /?a=#b HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "no fragment"),
    ("GET http://localhost#/ HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "no fragment"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nA: b\rc\r\n\r\n", BAD, "RFC 9112 2.2: a bare CR"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nA: b\0c\r\n\r\n", BAD, "RFC 9110 5.5: NUL"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n", BAD, "RFC 9112 5.2: obs-fold"),
    (
        "GET / HTTP/1.1\r\n A: b\r\nHost: localhost\r\n\r\n",
        BAD,
        "RFC 9112 2.2: space before the first header",
    ),
    ("GET / HTTP/1.1\r\nHost: localhost\r\n: b\r\n\r\n", BAD, "a header without a name"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nA(b): c\r\n\r\n", BAD, "RFC 9110 5.1: not a token"),
    (
        "GET / HTTP/1.1\r\nHost: localhost\r\nContent_Length: 5\r\n\r\n",
        BAD,
        "an underscore: others read a dash",
    ),
    ("GET / HTTP/1.1\r\n\r\n", BAD, "RFC 9112 3.2: no Host"),
    (
        "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        BAD,
        "RFC 9112 3.2: two Hosts",
    ),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.test\r\n\r\n", BAD, "two Hosts"),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BAD, "RFC 9112 3.2: not a host"),
    ("GET / HTTP/1.1\r\nHost: localhost, evil.test\r\n\r\n", BAD, "not a host"),
    (
        "GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        FINE,
        "RFC 9112 3.2.2: absolute-form",
    ),
    (
        "GET http://evil.test/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        BAD,
        "absolute-form for another host",
    ),
    ("GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "RFC 9112 3.2: a space in the target"),
    ("GET /%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "an encoded NUL"),
    ("GET /a/..%2fb HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "an encoded slash"),
    ("GET /\u{e9} HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "RFC 3986 2: not ASCII"),
    (
        "get / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[501],
        "RFC 9110 9.1: methods are case-sensitive",
    ),
    ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "no endpoint is the server itself"),
    ("CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n", &[501], "no tunnels"),
    ("GET /\r\n\r\n", BAD, "HTTP/0.9"),
    ("GET / HTTP/1.2\r\nHost: localhost\r\n\r\n", BAD, "no such version"),
    ("GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", BAD, "not in this form"),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[], "HTTP/2 that was not agreed on: closed"),
    (
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        FINE,
        "RFC 9110 7.8: an upgrade may be ignored",
    ),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nExpect: tea\r\n\r\n", &[417], "RFC 9110 10.1.1"),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        &[100, 200, 200],
        "RFC 9110 10.1.1: a 100 may also come where the body is there",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n",
        &[413],
        "RFC 9110 10.1.1: no 100 before a refusal",
    ),
];

async fn check(edge: &Edge, bytes: String, (_, expected, why): Case) -> Option<String> {
    let sent = [&*bytes, NEXT].concat();
    let answers = edge.tell(sent.as_bytes()).await;
    let statuses = Answer::statuses(&answers);
    // Whoever refuses, HTTP's parser or we: it is told as everything else is.
    for answer in answers.iter().filter(|answer| answer.status >= 400) {
        answer.assert_problem(answer.status);
        answer.assert_fixed_headers();
        assert!(answer.has("connection: close"), "{answer:?}");
    }
    (statuses != expected)
        .then(|| format!("{why}: {statuses:?} instead of {expected:?}: {bytes:?}"))
}

/// Sends every case, as `whole` makes it of what stands in the table.
async fn check_all(cases: &[Case], whole: impl Fn(&str) -> String) {
    let edge = Edge::plain();
    let wrong = join_all(cases.iter().map(|case| check(&edge, whole(case.0), *case))).await;
    let wrong: Vec<_> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let followed = cases.iter().filter(|(_, expected, _)| expected.ends_with(&[200, 200])).count();
    let seen = edge.paths().iter().filter(|path| *path == "/next").count();
    assert_eq!(seen, followed, "only what follows a good request reaches the service");
}

#[tokio::test]
async fn a_length_is_beyond_doubt_or_the_connection_ends() {
    check_all(LENGTHS, ToOwned::to_owned).await;
}

#[tokio::test]
async fn a_transfer_coding_is_beyond_doubt_or_the_connection_ends() {
    check_all(CODINGS, ToOwned::to_owned).await;
}

#[tokio::test]
async fn a_head_means_one_thing_or_is_refused() {
    check_all(HEADS, ToOwned::to_owned).await;
}

#[tokio::test]
async fn chunk_extensions_are_bounded() {
    let extension = "x".repeat(64 * 1024);
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let sent = format!("{head}5;{extension}\r\nhello\r\n0\r\n\r\n");
    let answers = Edge::plain().tell(sent.as_bytes()).await;
    assert_eq!(Answer::statuses(&answers), [400]);
}
