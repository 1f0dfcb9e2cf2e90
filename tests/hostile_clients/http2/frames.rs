//! Frames that violate RFC 9113, with the errors that the RFC requires, and floods of valid frames.

use futures_util::future::join_all;
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::test_listener::{LONG, TestListener, eventually};
use super::{PREFACE, connect, frame, goaway, request};
use crate::support::http2::count;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

/// The HPACK encoding (RFC 7541) of GET https localhost /, with static table entries and a literal authority.
const HEAD: &[u8] = b"\x82\x87\x84\x41\x09localhost";
/// The flags `END_STREAM` and `END_HEADERS`.
const ENDED: u8 = 0x05;

/// A rule, bytes after the preface that violate the rule, and the connection errors that the rule permits.
type InvalidFrameCase = (&'static str, Vec<u8>, &'static [u32]);

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn cases() -> Vec<InvalidFrameCase> {
    let protocol: &[u32] = &[PROTOCOL_ERROR];
    let size: &[u32] = &[FRAME_SIZE_ERROR];
    let whole = frame(HEADERS, ENDED, 1, HEAD);
    let after = |more: &[u8]| [&whole, more].concat();
    vec![
        ("6.1: DATA without a stream", frame(DATA, 0, 0, b"x"), protocol),
        ("6.1: DATA on an idle stream", frame(DATA, 0, 1, b"x"), protocol),
        ("6.1: more padding than frame", frame(DATA, 0x08, 1, b"\x05ab"), protocol),
        ("6.2: HEADERS without a stream", frame(HEADERS, ENDED, 0, HEAD), protocol),
        ("5.1.1: HEADERS on an even stream", frame(HEADERS, ENDED, 2, HEAD), protocol),
        (
            "5.1.1: a stream id below the last one",
            [frame(HEADERS, ENDED, 5, HEAD), frame(HEADERS, ENDED, 3, HEAD)].concat(),
            &[PROTOCOL_ERROR, STREAM_CLOSED],
        ),
        ("6.3: PRIORITY without a stream", frame(PRIORITY, 0, 0, &[0; 5]), protocol),
        ("6.4: RST_STREAM without a stream", frame(RST_STREAM, 0, 0, &[0; 4]), protocol),
        ("6.4: RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), protocol),
        ("6.4: RST_STREAM of three bytes", after(&frame(RST_STREAM, 0, 1, &[0; 3])), size),
        ("6.5: SETTINGS on a stream", frame(SETTINGS, 0, 1, b""), protocol),
        ("6.5: SETTINGS of five bytes", frame(SETTINGS, 0, 0, &[0; 5]), size),
        ("6.5: an acknowledgement with a payload", frame(SETTINGS, 1, 0, &[0; 6]), size),
        ("6.5.2: ENABLE_PUSH of 2", setting(2, 2), protocol),
        ("6.5.2: a window above 2^31-1", setting(4, 1 << 31), &[FLOW_CONTROL_ERROR]),
        ("6.5.2: frames of 100 bytes", setting(5, 100), protocol),
        ("6.5.2: frames of 16 MiB", setting(5, 1 << 24), protocol),
        ("6.6: PUSH_PROMISE from a client", frame(PUSH_PROMISE, 4, 1, &[0; 4]), protocol),
        ("6.7: PING on a stream", frame(PING, 0, 1, &[0; 8]), protocol),
        ("6.7: PING of seven bytes", frame(PING, 0, 0, &[0; 7]), size),
        ("6.9: an increment of 0", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), protocol),
        ("6.9: an increment of three bytes", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), size),
        (
            "6.9.1: a window above 2^31-1",
            frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()),
            &[FLOW_CONTROL_ERROR],
        ),
        ("6.10: CONTINUATION without HEADERS", frame(CONTINUATION, 4, 1, HEAD), protocol),
        (
            "6.10: PING between HEADERS and CONTINUATION",
            [frame(HEADERS, 1, 1, b"\x82"), frame(PING, 0, 0, &[0; 8])].concat(),
            protocol,
        ),
        (
            "6.10: CONTINUATION of another stream",
            [frame(HEADERS, 1, 1, b"\x82"), frame(CONTINUATION, 4, 3, b"\x87")].concat(),
            protocol,
        ),
        ("4.2: a frame above the limit", frame(PING, 0, 0, &[0; 16_385]), size),
        ("RFC 7541 6.1: index 0", frame(HEADERS, ENDED, 1, b"\x80"), &[COMPRESSION_ERROR]),
        (
            "RFC 7541 2.3.3: an index beyond the tables",
            frame(HEADERS, ENDED, 1, b"\xff\xff\xff\xff\x0f"),
            &[COMPRESSION_ERROR],
        ),
        (
            "RFC 7541 4.2: a dynamic table larger than SETTINGS_HEADER_TABLE_SIZE",
            frame(HEADERS, ENDED, 1, b"\x3f\xe1\xff\x03\x82"),
            &[COMPRESSION_ERROR],
        ),
        (
            "RFC 7541 5.2: Huffman code with EOS",
            frame(HEADERS, ENDED, 1, b"\x82\x87\x84\x41\x84\xff\xff\xff\xff"),
            &[COMPRESSION_ERROR],
        ),
    ]
}

/// Sends bytes after the preface. Returns all bytes that the server sends until it closes the connection.
async fn responses(listener: &TestListener, bytes: &[u8]) -> Vec<u8> {
    let mut stream = listener.connect_tls(&["h2"]).await;
    // The server may close the connection before all bytes are sent.
    drop(stream.write_all(&[PREFACE, bytes].concat()).await);
    let mut responses = Vec::new();
    drop(
        tokio::time::timeout(LONG, stream.read_to_end(&mut responses))
            .await
            .expect("the connection is closed"),
    );
    responses
}

#[tokio::test]
async fn an_invalid_frame_closes_the_connection_with_its_error() {
    let listener = TestListener::tls();
    let checks = cases().into_iter().map(async |(rule, bytes, allowed)| {
        let code = goaway(&responses(&listener, &bytes).await);
        // h2 reports some errors as PROTOCOL_ERROR (RFC 9113 §7), but always closes the connection.
        let is_right = code.is_some_and(|code| code == PROTOCOL_ERROR || allowed.contains(&code));
        (!is_right).then(|| format!("{rule}: {code:?} instead of {allowed:?}"))
    });
    let wrong: Vec<String> = join_all(checks).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let reached = listener.paths();
    assert!(
        reached.iter().all(|path| path == "/"),
        "only valid requests reached the service: {reached:?}"
    );
}

#[tokio::test]
async fn a_malformed_request_does_not_reach_the_service() {
    let listener = TestListener::tls();
    let literal = |name: &str, value: &str| {
        let length = |text: &str| u8::try_from(text.len()).unwrap();
        [&[0, length(name)][..], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
    };
    let heads = [
        ("8.3.1: no :path", b"\x82\x87\x41\x09localhost".to_vec()),
        ("8.3.1: no :method", b"\x87\x84\x41\x09localhost".to_vec()),
        ("8.3.1: no :scheme", b"\x82\x84\x41\x09localhost".to_vec()),
        ("8.3.1: :method twice", [b"\x82\x82", HEAD].concat()),
        ("8.3: an unknown pseudo-header", [HEAD, &literal(":evil", "x")].concat()),
        ("8.3: :status in a request", [HEAD, b"\x88"].concat()),
        ("8.3: a pseudo-header after a header", [&literal("a", "b"), HEAD].concat()),
        ("8.2.1: a name in upper case", [HEAD, &literal("Evil", "x")].concat()),
        ("8.2.1: a space in a name", [HEAD, &literal("e vil", "x")].concat()),
        ("8.2.1: CR LF in a value", [HEAD, &literal("a", "b\r\nc: d")].concat()),
        ("8.2.1: NUL in a value", [HEAD, &literal("a", "b\0c")].concat()),
        ("8.2.2: Connection", [HEAD, &literal("connection", "close")].concat()),
        ("8.2.2: Transfer-Encoding", [HEAD, &literal("transfer-encoding", "chunked")].concat()),
        ("8.2.2: TE other than trailers", [HEAD, &literal("te", "gzip")].concat()),
        ("8.1.1: a wrong content length", [HEAD, &literal("content-length", "5")].concat()),
    ];
    join_all(heads.into_iter().map(async |(rule, head)| {
        responses(&listener, &frame(HEADERS, ENDED, 1, &head)).await;
        assert!(listener.paths().is_empty(), "{rule}: {:?}", listener.paths());
    }))
    .await;
}

#[tokio::test]
async fn a_flood_of_small_frames_does_not_affect_other_clients() {
    let listener = TestListener::tls();
    let open = frame(HEADERS, 0x04, 1, HEAD);
    // A header of 4000 bytes enters the dynamic table, and 1000 one-byte references to it follow.
    let large = [&b"\x40\x01a\x7f\xa1\x1e"[..], &[b'x'; 4000]].concat();
    let bomb = [HEAD, &large, &[0xbe; 1000]].concat();
    for (what, flood) in [
        ("PING", frame(PING, 0, 0, &[0; 8]).repeat(10_000)),
        ("SETTINGS", frame(SETTINGS, 0, 0, b"").repeat(10_000)),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 0]).repeat(10_000)),
        ("empty DATA", [open.clone(), frame(DATA, 0, 1, b"").repeat(10_000)].concat()),
        ("unknown frames", frame(0xfa, 0, 0, b"x").repeat(10_000)),
        ("HPACK bombs", (0..100).flat_map(|n| frame(HEADERS, ENDED, 2 * n + 1, &bomb)).collect()),
    ] {
        // The responses are not read.
        let mut stream = listener.connect_tls(&["h2"]).await;
        let flooding = async {
            let flood = [PREFACE, &flood].concat();
            drop(
                tokio::time::timeout(LONG, stream.write_all(&flood)).await.expect("the flood ends"),
            );
        };
        let (mut sender, _connection) = connect(&listener).await;
        let requesting = async {
            for _ in 0..10 {
                let requests = sender.send_request(request("https://localhost/"), true);
                assert_eq!(requests.unwrap().0.await.unwrap().status(), StatusCode::OK, "{what}");
            }
        };
        tokio::join!(flooding, requesting);
        drop((stream, sender));
        eventually("both connections are closed", || listener.running.connections() == 0).await;
    }
}

#[tokio::test]
async fn a_client_that_ignores_goaway_is_disconnected() {
    let listener = TestListener::tls();
    let mut stream = listener.connect_tls(&["h2"]).await;
    stream.write_all(PREFACE).await.unwrap();
    let running = listener.running.clone();
    // The client sends one request after another, ignores GOAWAY and acknowledges no PING.
    let requesting = async {
        let (mut received, mut buffer, mut served_after) = (Vec::new(), [0; 4096], 0);
        for requests in 1.. {
            let has_goaway = count(&received, GOAWAY) > 0;
            let number = u32::try_from(2 * requests - 1).unwrap();
            if stream.write_all(&frame(HEADERS, ENDED, number, HEAD)).await.is_err() {
                return served_after;
            }
            while count(&received, HEADERS) < requests {
                match stream.read(&mut buffer).await {
                    Ok(bytes @ 1..) => received.extend_from_slice(&buffer[..bytes]),
                    _ => return served_after,
                }
            }
            served_after += usize::from(has_goaway);
        }
        usize::MAX
    };
    let (is_clean, served_after) = tokio::join!(running.drain(LONG), requesting);
    assert!(is_clean, "served for {LONG:?}, {served_after} requests after GOAWAY");
    assert!(served_after <= 20, "twice `streams_max`: {served_after}");
}
