//! Promise: a response has the content coding that the client prefers, and the same content in every coding.

use std::io::Read;

use http::Method;

use super::support::client::{Client, HttpResponse, send};
use super::support::fleet::{Fleet, FleetOptions};

async fn send_request(client: &Client, method: Method, path: &str, accept: &str) -> HttpResponse {
    send(client.request(method, path).header("accept-encoding", accept)).await
}

fn decoded(answer: &HttpResponse) -> String {
    let mut text = String::new();
    let body = &*answer.body;
    let read = match answer.header("content-encoding") {
        "gzip" => flate2::read::GzDecoder::new(body).read_to_string(&mut text),
        "br" => brotli::Decompressor::new(body, 4096).read_to_string(&mut text),
        "zstd" => {
            zstd::Decoder::new(body).expect("the decoder can be created").read_to_string(&mut text)
        }
        _ => return answer.text(),
    };
    read.expect("the body can be decompressed");
    text
}

/// Returns whether `Vary` includes `Accept-Encoding`.
fn varies(answer: &HttpResponse) -> bool {
    answer.headers.get_all("vary").iter().any(|value| value == "Accept-Encoding")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_the_same_content_in_its_preferred_coding() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    // The first response is stored compressed, the second one is compressed on a blocking thread, and the third one is
    // compressed in chunks as it arrives.
    for (path, bytes_least, streams) in [
        ("/openapi.json", 4096, false),
        ("/v1/large?rows=1800", 200_000, false),
        ("/v1/large?rows=9000", 1_000_000, true),
    ] {
        let plain = send_request(&client, Method::GET, path, "identity").await;
        let expected = plain.is(200).text();
        assert!(expected.len() >= bytes_least, "{path}: {}", expected.len());
        assert_eq!(plain.header("content-encoding"), "");
        assert!(varies(&plain), "{path}");
        for (accept, coding) in [
            ("gzip, deflate, br, zstd", "zstd"),
            ("gzip, deflate, br", "br"),
            ("gzip;q=1.0, br;q=0.5", "gzip"),
            ("identity;q=0, gzip", "gzip"),
            ("deflate", ""),
        ] {
            // The document is stored compressed with gzip.
            let is_stored = path == "/openapi.json" && !coding.is_empty();
            let coding = if is_stored { "gzip" } else { coding };
            let answer = send_request(&client, Method::GET, path, accept).await;
            assert_eq!(answer.is(200).header("content-encoding"), coding, "{path} {accept}");
            assert!(varies(&answer), "{path} {accept}");
            let length = if streams { String::new() } else { answer.body.len().to_string() };
            assert_eq!(answer.header("content-length"), length);
            assert!(coding.is_empty() || answer.body.len() * 2 < expected.len());
            assert!(decoded(&answer) == expected, "{path} {accept}: the bodies differ");
        }
        let head = send_request(&client, Method::HEAD, path, "gzip").await;
        assert_eq!((head.is(200).header("content-encoding"), head.body.len()), ("gzip", 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_and_empty_bodies_are_not_compressed() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let small = send_request(&client, Method::GET, "/v1/echo/a", "gzip").await;
    assert_eq!(small.is(200).header("content-encoding"), "");
    let empty = send_request(&client, Method::OPTIONS, "/v1/echo/a", "gzip, identity;q=0").await;
    assert_eq!(empty.is(204).header("content-encoding"), "");
    let wanted = send_request(&client, Method::GET, "/v1/echo/a", "gzip, identity;q=0").await;
    assert_eq!(wanted.is(200).header("content-encoding"), "gzip");
    let problem = send_request(&client, Method::GET, "/v2/nothing", "gzip, identity;q=0").await;
    assert_eq!(problem.is(404).header("content-type"), "application/problem+json");
    assert!(decoded(&problem).contains("urn:fjord:problem:no-route"));
    let neither = send_request(&client, Method::GET, "/v1/echo/a", "identity;q=0").await;
    neither.is_problem(406, "not-acceptable");
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_can_be_disabled() {
    let gateway_toml = "[gateway.compression]\ncodings = []\n".to_owned();
    let fleet =
        Fleet::start(FleetOptions { gateway_toml, workers: 0, ..FleetOptions::default() }).await;
    let answer =
        send_request(&fleet.client(), Method::GET, "/openapi.json", "gzip, br, zstd").await;
    assert_eq!(answer.is(200).header("content-encoding"), "");
    assert_eq!(answer.header("vary"), "Authorization, X-Api-Key");
}
