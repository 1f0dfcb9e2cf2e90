//! HTTP/2 (RFC 9113): the limits of HTTP/1.1 apply, and attacks specific to HTTP/2 are stopped.

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, StatusCode, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::super::support::http2::frame;
use super::test_listener::{
    BODY_BYTES_MAX, HEADER_TIMEOUT, IDLE_TIMEOUT, LONG, TestListener, eventually, read_to_close,
};

mod frames;

/// The client connection preface (RFC 9113 §3.4) with an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub(super) type Http2Driver = tokio::task::JoinHandle<Result<(), h2::Error>>;

pub(super) async fn connect(listener: &TestListener) -> (SendRequest<Bytes>, Http2Driver) {
    let stream = listener.connect_tls(&["h2"]).await;
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = fjord::lifecycle::Tasks::new().spawn(connection);
    (sender.ready().await.unwrap(), connection)
}

pub(super) fn request(uri: &str) -> Request<()> {
    Request::get(uri).version(Version::HTTP_2).body(()).unwrap()
}

#[tokio::test]
async fn a_request_is_answered_with_the_fixed_headers() {
    let listener = TestListener::tls();
    let (mut sender, _connection) = connect(&listener).await;
    let (answer, mut body) = sender.send_request(request("https://localhost/"), false).unwrap();
    body.send_data(Bytes::from_static(b"hello"), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers()["content-length"], "5");
    assert!(answer.headers().contains_key("x-request-id"));
    assert!(!answer.headers().contains_key("connection"));
}

#[tokio::test]
async fn a_rejected_request_does_not_affect_other_streams() {
    let listener = TestListener::tls();
    let (mut sender, _connection) = connect(&listener).await;
    let (hanging, _) = sender.send_request(request("https://localhost/hang"), true).unwrap();
    for (uri, status) in [
        (format!("https://localhost/{}", "a".repeat(1024)), 414),
        ("https://localhost/a//b".to_owned(), 400),
        ("https://user@localhost/".to_owned(), 400),
    ] {
        let (answer, _) = sender.send_request(request(&uri), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), status, "{uri}");
    }
    let mut two_hosts = request("https://localhost/");
    two_hosts.headers_mut().insert("host", "evil.test".parse().unwrap());
    let (answer, _) = sender.send_request(two_hosts, true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 400);

    let (answer, mut body) = sender.send_request(request("https://localhost/"), false).unwrap();
    body.send_data(Bytes::from(vec![b'x'; BODY_BYTES_MAX + 1]), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 413);

    listener.probe.release();
    assert_eq!(hanging.await.unwrap().status(), 200);
}

#[tokio::test]
async fn head_has_the_length_of_get_and_no_body() {
    let listener = TestListener::tls();
    let (mut sender, _connection) = connect(&listener).await;
    listener.probe.release();
    let mut head = request("https://localhost/hang");
    *head.method_mut() = http::Method::HEAD;
    let (answer, _) = sender.send_request(head, true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.headers()["content-length"], "8");
    assert!(answer.into_body().data().await.is_none());
}

#[tokio::test]
async fn a_stream_that_is_reset_drops_its_request() {
    let listener = TestListener::tls();
    let (mut sender, _connection) = connect(&listener).await;
    let (answer, mut stream) =
        sender.send_request(request("https://localhost/hang"), true).unwrap();
    eventually("the request hangs", || listener.probe.hanging() == 1).await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(answer);
    eventually("the request is dropped", || listener.probe.hanging() == 0).await;
}

#[tokio::test]
async fn streams_past_the_limit_are_refused_before_the_client_knows_the_limit() {
    let listener = TestListener::tls();
    let mut stream = listener.connect_tls(&["h2"]).await;
    // The HPACK encoding (RFC 7541) of GET https localhost /hang, with static table entries, literal path and authority.
    let head = [b"\x82\x87\x04\x05/hang\x41\x09".as_slice(), b"localhost"].concat();
    let mut headers = PREFACE.to_vec();
    for stream in (1..40).step_by(2) {
        headers.extend(frame(1, 0x05, stream, &head));
    }
    stream.write_all(&headers).await.unwrap();
    let mut refused = 0;
    let reading = async {
        while refused < 10 {
            let mut start = [0; 9];
            stream.read_exact(&mut start).await.unwrap();
            let mut payload = vec![0; usize::from(start[1]) << 8 | usize::from(start[2])];
            stream.read_exact(&mut payload).await.unwrap();
            // REFUSED_STREAM: the request was not processed and can be retried (RFC 9113 §8.7).
            refused += usize::from(start[3] == 3 && payload == 7_u32.to_be_bytes());
        }
    };
    tokio::time::timeout(LONG, reading).await.expect("ten streams were not refused");
    eventually("ten requests hang", || listener.probe.hanging() == 10).await;
    assert_eq!(listener.paths().len(), 10, "the others never reached the service");
}

#[tokio::test]
async fn a_connection_without_requests_is_closed() {
    let listener = TestListener::tls();
    for opening in [&b""[..], PREFACE, &[PREFACE, &frame(1, 0, 1, b"\x82")].concat()] {
        let mut stream = listener.connect_tls(&["h2"]).await;
        let start = Instant::now();
        stream.write_all(opening).await.unwrap();
        read_to_close(&mut stream).await;
        assert!(start.elapsed() < HEADER_TIMEOUT * 10, "{:?}", start.elapsed());
    }
    eventually("all connections are closed", || listener.running.connections() == 0).await;
}

#[tokio::test]
async fn a_client_that_never_opens_its_window_is_disconnected() {
    let listener = TestListener::tls();
    let stream = listener.connect_tls(&["h2"]).await;
    let handshake = h2::client::Builder::new().initial_window_size(0).handshake::<_, Bytes>(stream);
    let (sender, connection) = handshake.await.unwrap();
    let _connection = fjord::lifecycle::Tasks::new().spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let (answer, _) = sender.send_request(request("https://localhost/large"), true).unwrap();
    let _held = answer.await.unwrap();
    eventually("the connection is closed", || listener.running.connections() == 0).await;
}

/// Sends `first`, and then sends `frame` every 30 ms until the connection is closed. Returns the elapsed time.
async fn dribble(listener: &TestListener, first: &[u8], frame: &[u8]) -> std::time::Duration {
    let mut stream = listener.connect_tls(&["h2"]).await;
    stream.write_all(&[PREFACE, first].concat()).await.unwrap();
    let start = Instant::now();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let reading = async {
        let mut buffer = [0; 4096];
        while let Ok(1..) = reader.read(&mut buffer).await {}
    };
    let writing = async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(30));
        while writer.write_all(frame).await.is_ok() {
            ticks.tick().await;
        }
    };
    let over = async {
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    };
    tokio::time::timeout(LONG, over).await.expect("the connection is not closed");
    start.elapsed()
}

#[tokio::test]
async fn pings_and_tiny_window_updates_do_not_keep_a_connection_open() {
    let listener = TestListener::tls();
    let ping = frame(6, 0, 0, &[7; 8]);
    assert!(dribble(&listener, b"", &ping).await < HEADER_TIMEOUT * 10, "no request was sent");
    // The HPACK encoding of GET https localhost /large, for a stream whose window is 0.
    let head = [b"\x82\x87\x04\x06/large\x41\x09".as_slice(), b"localhost"].concat();
    let window = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let headers = [window, frame(1, 0x05, 1, &head)].concat();
    let wider = frame(8, 0, 1, &1_u32.to_be_bytes());
    for frame in [ping, wider] {
        assert!(dribble(&listener, &headers, &frame).await < IDLE_TIMEOUT * 5);
    }
    assert_eq!(listener.paths(), ["/large", "/large"]);
    eventually("all connections are closed", || listener.running.connections() == 0).await;
}

#[tokio::test]
async fn a_flood_of_resets_closes_only_its_own_connection() {
    let listener = TestListener::tls();
    let mut stream = listener.connect_tls(&["h2"]).await;
    stream.write_all(PREFACE).await.unwrap();
    // The HPACK encoding (RFC 7541) of GET https localhost /, with static table entries and a literal authority.
    let head = [b"\x82\x87\x84\x41\x09".as_slice(), b"localhost"].concat();
    let mut flood = Vec::new();
    for stream in (1..20_001).step_by(2) {
        flood.extend(frame(1, 0x05, stream, &head));
        flood.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
    }
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut received = Vec::new();
    let reading = reader.read_to_end(&mut received);
    let flooding = async { drop(writer.write_all(&flood).await) };
    let both = async { tokio::join!(reading, flooding) };
    let ended = tokio::time::timeout(LONG, both).await;
    assert!(ended.is_ok(), "the whole flood was accepted");
    assert_eq!(goaway(&received), Some(11), "ENHANCE_YOUR_CALM");
    let (mut sender, _connection) = connect(&listener).await;
    let (answer, _) = sender.send_request(request("https://localhost/"), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_flood_of_continuations_closes_the_connection() {
    let listener = TestListener::tls();
    for piece in [&b""[..], &[b'a'; 1024]] {
        let mut stream = listener.connect_tls(&["h2"]).await;
        stream.write_all(PREFACE).await.unwrap();
        stream.write_all(&frame(1, 0, 1, b"\x82\x87\x84")).await.unwrap();
        let flood = frame(9, 0, 1, piece).repeat(10_000);
        drop(stream.write_all(&flood).await);
        read_to_close(&mut stream).await;
    }
    assert!(listener.paths().is_empty());
}

/// Returns the error code of the server's GOAWAY frame (RFC 9113 §6.8), if there is one.
fn goaway(mut bytes: &[u8]) -> Option<u32> {
    while bytes.len() >= 9 {
        let length =
            usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        let payload = &bytes[9..(9 + length).min(bytes.len())];
        if bytes[3] == 7 && payload.len() >= 8 {
            return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        bytes = &bytes[(9 + length).min(bytes.len())..];
    }
    None
}
