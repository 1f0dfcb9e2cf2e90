//! More of them, in short: what follows `POST / HTTP/1.1` and a good Host, and request lines with what follows them.

use super::{BAD, FINE, LAST, check_all};

/// A part of a request, the statuses of all answers, and why.
type Part = (&'static str, &'static [u16], &'static str);

/// Behind a good request line and Host.
const FRAMINGS: &[Part] = &[
    ("Content-Length:5\r\n\r\nhello", FINE, "RFC 9112 5: no space is needed"),
    ("Content-Length:\t5\t\r\n\r\nhello", FINE, "RFC 9110 5.6.3: tabs are optional white space"),
    ("content-LENGTH: 5\r\n\r\nhello", FINE, "RFC 9110 5.1: case does not count"),
    ("Content-Length: 0\r\n\r\n", FINE, "an empty body"),
    ("Content-Length: 005\r\n\r\nhello", FINE, "RFC 9110 8.6: digits are digits"),
    ("Content-Length: 5, 5\r\n\r\nhello", BAD, "RFC 9110 8.6: a list may be refused"),
    ("Content-Length: 5,\r\n\r\nhello", BAD, "a list"),
    ("Content-Length: 5;\r\n\r\nhello", BAD, "digits only"),
    ("Content-Length: 5.0\r\n\r\nhello", BAD, "digits only"),
    ("Content-Length: 5e0\r\n\r\nhello", BAD, "digits only"),
    ("Content-Length: 1_0\r\n\r\nhello", BAD, "digits only"),
    ("Content-Length: \u{ff15}\r\n\r\nhello", BAD, "ASCII digits only"),
    ("Content-Length: \"5\"\r\n\r\nhello", BAD, "digits only"),
    ("Content-Length\t: 5\r\n\r\nhello", BAD, "RFC 9112 5.1: no white space before the colon"),
    ("Content-Length\0: 5\r\n\r\nhello", BAD, "RFC 9110 5.1: not a token"),
    ("Content-Length\r\n : 5\r\n\r\nhello", BAD, "RFC 9112 5.2: obs-fold"),
    ("Content-Length: 5\r\n 0\r\n\r\nhello", BAD, "RFC 9112 5.2: obs-fold"),
    ("Content_Length: 5\r\n\r\nhello", BAD, "an underscore: others read a dash"),
    (
        "Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
        FINE,
        "it frames all the same",
    ),
    ("Transfer-Encoding:chunked\r\n\r\n0\r\n\r\n", FINE, "no space is needed"),
    ("Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", FINE, "RFC 9112 7: case does not count"),
    (
        "X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        BAD,
        "RFC 9112 2.2: LF may end a line; not here",
    ),
    ("X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD, "RFC 9112 2.2: a bare CR"),
    ("Transfer-Encoding: \r\n\r\n", BAD, "no coding"),
    ("Transfer-Encoding: chunk\r\n\r\n0\r\n\r\n", BAD, "no such coding"),
    ("Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", BAD, "one coding, without doubt"),
    ("Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", BAD, "one coding, without doubt"),
    ("Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", BAD, "RFC 9112 7: identity is gone"),
    ("Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", BAD, "RFC 9112 7: without parameters"),
    ("Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", BAD, "no such coding"),
    ("Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n", BAD, "RFC 9110 5.5: NUL"),
    ("Transfer-Encoding: chunked\r\n\tx\r\n\r\n0\r\n\r\n", BAD, "RFC 9112 5.2: obs-fold"),
    ("Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", BAD, "RFC 9112 5.2: obs-fold"),
    ("Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n", BAD, "an underscore"),
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        BAD,
        "RFC 9112 6.3 (4): chunked not last",
    ),
    (
        "Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nhello",
        BAD,
        "RFC 9112 6.3 (4): a coding that is not chunked",
    ),
];

/// Behind `Transfer-Encoding: chunked`.
const CHUNKS: &[Part] = &[
    ("05\r\nhello\r\n0\r\n\r\n", FINE, "RFC 9112 7.1: leading zeros"),
    ("5\r\nhello\r\n000\r\n\r\n", FINE, "RFC 9112 7.1: several zeros are the last chunk"),
    ("A\r\n0123456789\r\n0\r\n\r\n", FINE, "upper case"),
    ("5;\r\nhello\r\n0\r\n\r\n", FINE, "an empty extension is ignored"),
    ("5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n", FINE, "RFC 9112 7.1.1: a quoted extension is ignored"),
    ("5\r\nhello\r\n0\r\nX: y\r\n\r\n", FINE, "RFC 9112 7.1.2: trailers are dropped"),
    (" 5\r\nhello\r\n0\r\n\r\n", BAD, "RFC 9112 7.1: no space before the size"),
    ("5 \r\nhello\r\n0\r\n\r\n", BAD, "RFC 9112 7.1: nor behind it"),
    ("5\t\r\nhello\r\n0\r\n\r\n", BAD, "nor a tab"),
    ("5 ;a=b\r\nhello\r\n0\r\n\r\n", BAD, "nor before an extension"),
    ("5\r\nhello\r\n0 \r\n\r\n", BAD, "nor behind the last one"),
    ("5\r\nhello\r\n0\r\nX: y\nZ: z\r\n\r\n", BAD, "LF alone in the trailers"),
    ("5\r\nhello\r\n0\r\n\n", BAD, "LF alone behind the last chunk"),
    ("5\r\nhello\r\n0\r\nX: y\r\n\n", BAD, "LF alone behind the trailers"),
    ("+5\r\nhello\r\n0\r\n\r\n", BAD, "hexadecimal digits only"),
    ("5_0\r\nhello\r\n0\r\n\r\n", BAD, "hexadecimal digits only"),
    ("5,0\r\nhello\r\n0\r\n\r\n", BAD, "hexadecimal digits only"),
    ("g\r\nhello\r\n0\r\n\r\n", BAD, "hexadecimal digits only"),
    ("\r\nhello\r\n0\r\n\r\n", BAD, "at least one digit"),
    ("\u{ff15}\r\nhello\r\n0\r\n\r\n", BAD, "ASCII digits only"),
    ("5\0\r\nhello\r\n0\r\n\r\n", BAD, "NUL"),
    ("5\rhello\r\n0\r\n\r\n", BAD, "a bare CR"),
    ("5\r\nhello\n0\r\n\r\n", BAD, "LF alone behind the data"),
    ("5\r\nhello0\r\n\r\n", BAD, "nothing behind the data"),
    ("4\r\nhello\r\n0\r\n\r\n", BAD, "more data than was said"),
    ("5;a\rb\r\nhello\r\n0\r\n\r\n", BAD, "a bare CR in an extension"),
    ("0x0\r\n\r\n", BAD, "hexadecimal digits only"),
    ("-0\r\n\r\n", BAD, "hexadecimal digits only"),
    ("100000000000000000000000000000005\r\nhello\r\n0\r\n\r\n", BAD, "RFC 9112 7.1: no overflow"),
    ("7ffffffffffffffe\r\nhello", &[408], "a chunk that never comes"),
];

/// From the request line on.
const LINES: &[Part] = &[
    ("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", LAST, "RFC 9112 9.3: 1.0 closes"),
    (
        "GET / HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n",
        FINE,
        "RFC 9112 9.3: unless it asks",
    ),
    (
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: x, CLOSE\r\n\r\n",
        LAST,
        "RFC 9112 9.6: close",
    ),
    ("GET / HTTP/1.1\r\nHost:\tlocalhost \r\n\r\n", FINE, "optional white space"),
    ("GET / HTTP/1.1\r\nHost: LOCALHOST:80\r\n\r\n", FINE, "a host and a port"),
    ("GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n", FINE, "an IPv6 address"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nA: \u{e9}\r\n\r\n", FINE, "RFC 9110 5.5: obs-text"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\n\r\n", FINE, "RFC 9110 10.1.4"),
    (
        "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
        FINE,
        "RFC 9110 9.3.1: a body of GET is read",
    ),
    (
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        FINE,
        "RFC 9110 7.8: an upgrade may be ignored",
    ),
    ("GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "RFC 9112 3: one space"),
    ("GET\t/ HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "RFC 9112 3: a space"),
    (" GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "RFC 9112 2.2: a space before it"),
    ("GET / HTTP/1.1 \r\nHost: localhost\r\n\r\n", BAD, "a space behind it"),
    ("GET / http/1.1\r\nHost: localhost\r\n\r\n", BAD, "RFC 9112 2.3: case counts"),
    ("GET / HTTP/1.10\r\nHost: localhost\r\n\r\n", BAD, "one digit"),
    ("GET / HTTP/01.1\r\nHost: localhost\r\n\r\n", BAD, "one digit"),
    ("GET / HTTP/3.0\r\nHost: localhost\r\n\r\n", BAD, "no such version here"),
    ("GET /HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "no target"),
    ("GET HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "no target"),
    ("GET a HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "RFC 9112 3.2: no form of a target"),
    ("GET /a\\b HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "a backslash: others read a slash"),
    ("GET //evil.test/ HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "an empty segment"),
    ("GET /a/./b HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "a dot segment"),
    ("GET /a%0d%0ab HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "encoded CR LF"),
    ("GET /?a b HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "a space in the query"),
    ("GET /\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "a control character"),
    ("GET http://user@localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "RFC 9110 4.2.4"),
    ("GET ftp://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "no such scheme"),
    ("TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", &[501], "RFC 9110 9.3.8: not implemented"),
    ("GE T / HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "RFC 9112 3: two targets"),
    ("G(T / HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD, "RFC 9110 9.1: not a token"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nhost: localhost\r\n\r\n", BAD, "two Hosts"),
    ("GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", BAD, "a space before the colon"),
    ("GET / HTTP/1.1\r\nHost: \r\n\r\n", BAD, "no host"),
    ("GET / HTTP/1.1\r\nHost: localhost/x\r\n\r\n", BAD, "not a host"),
    ("GET / HTTP/1.1\r\nHost: user@localhost\r\n\r\n", BAD, "not a host"),
    ("GET / HTTP/1.1\r\nHost: localhost#x\r\n\r\n", BAD, "not a host"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nA B: c\r\n\r\n", BAD, "RFC 9110 5.1: not a token"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nA: b\x01\r\n\r\n", BAD, "RFC 9110 5.5: a control"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nA: b\x7f\r\n\r\n", BAD, "RFC 9110 5.5: DEL"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nA\r\n\r\n", BAD, "no colon"),
];

#[tokio::test]
async fn a_framing_is_beyond_doubt_or_refused() {
    check_all(FRAMINGS, |part| format!("POST / HTTP/1.1\r\nHost: localhost\r\n{part}")).await;
}

#[tokio::test]
async fn a_chunk_is_beyond_doubt_or_refused() {
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    check_all(CHUNKS, |part| format!("{head}{part}")).await;
}

#[tokio::test]
async fn a_line_is_beyond_doubt_or_refused() {
    check_all(LINES, ToOwned::to_owned).await;
}
