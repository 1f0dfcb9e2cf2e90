//! Smuggling cases that are parts of requests: framing headers, chunks and request lines. The tests complete each of
//! them.

use super::{ANSWERED_AND_CLOSED, BOTH_ANSWERED, REJECTED, SmugglingCase, check_all};

/// Header lines and bodies that follow a valid request line and Host.
const FRAMINGS: &[SmugglingCase] = &[
    ("Content-Length:5\r\n\r\nhello", BOTH_ANSWERED, "RFC 9112 5: no space is needed"),
    (
        "Content-Length:\t5\t\r\n\r\nhello",
        BOTH_ANSWERED,
        "RFC 9110 5.6.3: tabs are optional white space",
    ),
    ("content-LENGTH: 5\r\n\r\nhello", BOTH_ANSWERED, "RFC 9110 5.1: names are not case-sensitive"),
    ("Content-Length: 0\r\n\r\n", BOTH_ANSWERED, "an empty body"),
    ("Content-Length: 005\r\n\r\nhello", BOTH_ANSWERED, "RFC 9110 8.6: leading zeros are allowed"),
    ("Content-Length: 5, 5\r\n\r\nhello", REJECTED, "RFC 9110 8.6: a list may be refused"),
    ("Content-Length: 5,\r\n\r\nhello", REJECTED, "a list"),
    ("Content-Length: 5;\r\n\r\nhello", REJECTED, "digits only"),
    ("Content-Length: 5.0\r\n\r\nhello", REJECTED, "digits only"),
    ("Content-Length: 5e0\r\n\r\nhello", REJECTED, "digits only"),
    ("Content-Length: 1_0\r\n\r\nhello", REJECTED, "digits only"),
    ("Content-Length: \u{ff15}\r\n\r\nhello", REJECTED, "ASCII digits only"),
    ("Content-Length: \"5\"\r\n\r\nhello", REJECTED, "digits only"),
    ("Content-Length\t: 5\r\n\r\nhello", REJECTED, "RFC 9112 5.1: no white space before the colon"),
    ("Content-Length\0: 5\r\n\r\nhello", REJECTED, "RFC 9110 5.1: not a token"),
    ("Content-Length\r\n : 5\r\n\r\nhello", REJECTED, "RFC 9112 5.2: obs-fold"),
    ("Content-Length: 5\r\n 0\r\n\r\nhello", REJECTED, "RFC 9112 5.2: obs-fold"),
    ("Content_Length: 5\r\n\r\nhello", REJECTED, "an underscore: others read a dash"),
    (
        "Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
        BOTH_ANSWERED,
        "the length still applies",
    ),
    ("Transfer-Encoding:chunked\r\n\r\n0\r\n\r\n", BOTH_ANSWERED, "no space is needed"),
    (
        "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
        BOTH_ANSWERED,
        "RFC 9112 7: codings are not case-sensitive",
    ),
    (
        "X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        REJECTED,
        "RFC 9112 2.2: a bare LF as a line end is rejected",
    ),
    ("X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", REJECTED, "RFC 9112 2.2: a bare CR"),
    ("Transfer-Encoding: \r\n\r\n", REJECTED, "no coding"),
    ("Transfer-Encoding: chunk\r\n\r\n0\r\n\r\n", REJECTED, "no such coding"),
    ("Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", REJECTED, "one unambiguous coding"),
    ("Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", REJECTED, "one unambiguous coding"),
    (
        "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        REJECTED,
        "RFC 9112 7: identity is no longer a coding",
    ),
    ("Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", REJECTED, "RFC 9112 7: without parameters"),
    ("Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", REJECTED, "no such coding"),
    ("Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n", REJECTED, "RFC 9110 5.5: NUL"),
    ("Transfer-Encoding: chunked\r\n\tx\r\n\r\n0\r\n\r\n", REJECTED, "RFC 9112 5.2: obs-fold"),
    ("Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", REJECTED, "RFC 9112 5.2: obs-fold"),
    ("Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n", REJECTED, "an underscore"),
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        REJECTED,
        "RFC 9112 6.3 (4): chunked not last",
    ),
    (
        "Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nhello",
        REJECTED,
        "RFC 9112 6.3 (4): a coding that is not chunked",
    ),
];

/// Bodies of requests with `Transfer-Encoding: chunked`.
const CHUNKS: &[SmugglingCase] = &[
    ("05\r\nhello\r\n0\r\n\r\n", BOTH_ANSWERED, "RFC 9112 7.1: leading zeros"),
    ("5\r\nhello\r\n000\r\n\r\n", BOTH_ANSWERED, "RFC 9112 7.1: several zeros are the last chunk"),
    ("A\r\n0123456789\r\n0\r\n\r\n", BOTH_ANSWERED, "upper case"),
    ("5;\r\nhello\r\n0\r\n\r\n", BOTH_ANSWERED, "an empty extension is ignored"),
    (
        "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n",
        BOTH_ANSWERED,
        "RFC 9112 7.1.1: a quoted extension is ignored",
    ),
    ("5\r\nhello\r\n0\r\nX: y\r\n\r\n", BOTH_ANSWERED, "RFC 9112 7.1.2: trailers are dropped"),
    (" 5\r\nhello\r\n0\r\n\r\n", REJECTED, "RFC 9112 7.1: no space before the size"),
    ("5 \r\nhello\r\n0\r\n\r\n", REJECTED, "RFC 9112 7.1: no space after the size"),
    ("5\t\r\nhello\r\n0\r\n\r\n", REJECTED, "no tab after the size"),
    ("5 ;a=b\r\nhello\r\n0\r\n\r\n", REJECTED, "no space before an extension"),
    ("5\r\nhello\r\n0 \r\n\r\n", REJECTED, "no space after the last size"),
    ("5\r\nhello\r\n0\r\nX: y\nZ: z\r\n\r\n", REJECTED, "LF alone in the trailers"),
    ("5\r\nhello\r\n0\r\n\n", REJECTED, "LF alone after the last chunk"),
    ("5\r\nhello\r\n0\r\nX: y\r\n\n", REJECTED, "LF alone after the trailers"),
    ("+5\r\nhello\r\n0\r\n\r\n", REJECTED, "hexadecimal digits only"),
    ("5_0\r\nhello\r\n0\r\n\r\n", REJECTED, "hexadecimal digits only"),
    ("5,0\r\nhello\r\n0\r\n\r\n", REJECTED, "hexadecimal digits only"),
    ("g\r\nhello\r\n0\r\n\r\n", REJECTED, "hexadecimal digits only"),
    ("\r\nhello\r\n0\r\n\r\n", REJECTED, "at least one digit"),
    ("\u{ff15}\r\nhello\r\n0\r\n\r\n", REJECTED, "ASCII digits only"),
    ("5\0\r\nhello\r\n0\r\n\r\n", REJECTED, "NUL"),
    ("5\rhello\r\n0\r\n\r\n", REJECTED, "a bare CR"),
    ("5\r\nhello\n0\r\n\r\n", REJECTED, "LF alone after the data"),
    ("5\r\nhello0\r\n\r\n", REJECTED, "no line end after the data"),
    ("4\r\nhello\r\n0\r\n\r\n", REJECTED, "more data than the size"),
    ("5;a\rb\r\nhello\r\n0\r\n\r\n", REJECTED, "a bare CR in an extension"),
    ("0x0\r\n\r\n", REJECTED, "hexadecimal digits only"),
    ("-0\r\n\r\n", REJECTED, "hexadecimal digits only"),
    (
        "100000000000000000000000000000005\r\nhello\r\n0\r\n\r\n",
        REJECTED,
        "RFC 9112 7.1: no overflow",
    ),
    ("7ffffffffffffffe\r\nhello", &[408], "a chunk that is never sent"),
];

/// Whole requests.
const LINES: &[SmugglingCase] = &[
    ("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", ANSWERED_AND_CLOSED, "RFC 9112 9.3: 1.0 closes"),
    (
        "GET / HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n",
        BOTH_ANSWERED,
        "RFC 9112 9.3: kept open when keep-alive is sent",
    ),
    (
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: x, CLOSE\r\n\r\n",
        ANSWERED_AND_CLOSED,
        "RFC 9112 9.6: close",
    ),
    ("GET / HTTP/1.1\r\nHost:\tlocalhost \r\n\r\n", BOTH_ANSWERED, "optional white space"),
    ("GET / HTTP/1.1\r\nHost: LOCALHOST:80\r\n\r\n", BOTH_ANSWERED, "a host and a port"),
    ("GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n", BOTH_ANSWERED, "an IPv6 address"),
    (
        "GET / HTTP/1.1\r\nHost: localhost\r\nA: \u{e9}\r\n\r\n",
        BOTH_ANSWERED,
        "RFC 9110 5.5: obs-text",
    ),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\n\r\n", BOTH_ANSWERED, "RFC 9110 10.1.4"),
    (
        "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
        BOTH_ANSWERED,
        "RFC 9110 9.3.1: a body of GET is read",
    ),
    (
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        BOTH_ANSWERED,
        "RFC 9110 7.8: upgrades are ignored",
    ),
    ("GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "RFC 9112 3: one space"),
    ("GET\t/ HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "RFC 9112 3: a space"),
    (
        " GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        REJECTED,
        "RFC 9112 2.2: a space before the request line",
    ),
    ("GET / HTTP/1.1 \r\nHost: localhost\r\n\r\n", REJECTED, "a space after the request line"),
    (
        "GET / http/1.1\r\nHost: localhost\r\n\r\n",
        REJECTED,
        "RFC 9112 2.3: the version is case-sensitive",
    ),
    ("GET / HTTP/1.10\r\nHost: localhost\r\n\r\n", REJECTED, "one digit"),
    ("GET / HTTP/01.1\r\nHost: localhost\r\n\r\n", REJECTED, "one digit"),
    ("GET / HTTP/3.0\r\nHost: localhost\r\n\r\n", REJECTED, "an unsupported version"),
    ("GET /HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "no target"),
    ("GET HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "no target"),
    ("GET a HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "RFC 9112 3.2: not a request target"),
    (
        "GET /a\\b HTTP/1.1\r\nHost: localhost\r\n\r\n",
        REJECTED,
        "a backslash, which other servers read as a slash",
    ),
    ("GET //evil.test/ HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "an empty segment"),
    ("GET /a/./b HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "a dot segment"),
    ("GET /a%0d%0ab HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "encoded CR LF"),
    ("GET /?a b HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "a space in the query"),
    ("GET /\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "a control character"),
    ("GET http://user@localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "RFC 9110 4.2.4"),
    ("GET ftp://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "an unknown scheme"),
    ("BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", &[501], "RFC 9110 9.1: an unknown method"),
    ("GE T / HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "RFC 9112 3: two targets"),
    ("G(T / HTTP/1.1\r\nHost: localhost\r\n\r\n", REJECTED, "RFC 9110 9.1: not a token"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nhost: localhost\r\n\r\n", REJECTED, "two Hosts"),
    ("GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", REJECTED, "a space before the colon"),
    ("GET / HTTP/1.1\r\nHost: \r\n\r\n", REJECTED, "no host"),
    ("GET / HTTP/1.1\r\nHost: localhost/x\r\n\r\n", REJECTED, "not a host"),
    ("GET / HTTP/1.1\r\nHost: user@localhost\r\n\r\n", REJECTED, "not a host"),
    ("GET / HTTP/1.1\r\nHost: localhost#x\r\n\r\n", REJECTED, "not a host"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nA B: c\r\n\r\n", REJECTED, "RFC 9110 5.1: not a token"),
    (
        "GET / HTTP/1.1\r\nHost: localhost\r\nA: b\x01\r\n\r\n",
        REJECTED,
        "RFC 9110 5.5: a control character",
    ),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nA: b\x7f\r\n\r\n", REJECTED, "RFC 9110 5.5: DEL"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nA\r\n\r\n", REJECTED, "no colon"),
];

#[tokio::test]
async fn an_ambiguous_framing_is_rejected() {
    check_all(FRAMINGS, |part| format!("POST / HTTP/1.1\r\nHost: localhost\r\n{part}")).await;
}

#[tokio::test]
async fn an_ambiguous_chunk_is_rejected() {
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    check_all(CHUNKS, |part| format!("{head}{part}")).await;
}

#[tokio::test]
async fn an_ambiguous_request_line_is_rejected() {
    check_all(LINES, ToOwned::to_owned).await;
}
