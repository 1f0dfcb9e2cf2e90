//! Tests that stored bodies are compressed once and decompressed with limits.

use super::*;

#[test]
fn only_a_limited_number_of_bodies_is_decompressed_concurrently() {
    static ONE: Semaphore = Semaphore::const_new(1);
    let (body, none) = (stored("text"), HeaderMap::new());
    let request = StoredBodyRequest { headers: &none, codings: &Coding::ALL };
    let status = |response: &Response| response.status().as_u16();
    let first = body.response_within(&ONE, request, "text/plain");
    let second = body.response_within(&ONE, request, "text/plain");
    assert_eq!((status(&first), status(&second)), (200, 503));
    let gzip = headers(&[("accept-encoding", "gzip")]);
    let request = StoredBodyRequest { headers: &gzip, codings: &Coding::ALL };
    let compressed = body.response_within(&ONE, request, "text/plain");
    assert_eq!(status(&compressed), 200, "gzip is sent as it is stored");
    drop(first);
    // Brotli's encoder needs more memory than is left.
    for (accept, expected) in [("br", 200), ("br, identity;q=0", 503)] {
        let headers = headers(&[("accept-encoding", accept)]);
        let request = StoredBodyRequest { headers: &headers, codings: &Coding::ALL };
        let response = body.response_within(&ONE, request, "text/plain");
        assert_eq!(status(&response), expected, "{accept}");
        assert!(!response.headers().contains_key("content-encoding"), "{accept}");
    }
}

fn stored(text: &str) -> StoredBody {
    StoredBody::write(|out| out.write_all(text.as_bytes())).unwrap()
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

#[test]
fn a_body_is_sent_as_it_is_stored_or_decompressed_in_pieces() {
    let text = "0123456789".repeat(20_000);
    let stored = stored(&text);
    assert!(stored.stored_bytes() < text.len() / 50);
    let respond = |accept: &str, codings| {
        let headers = headers(&[("accept-encoding", accept)]);
        stored.response(StoredBodyRequest { headers: &headers, codings }, "text/plain")
    };
    let packed = respond("br, gzip", &Coding::ALL);
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    assert_eq!(packed.into_body().into_whole().unwrap(), stored.gzip);
    let plain = respond("deflate", &Coding::ALL);
    assert!(!plain.headers().contains_key("content-encoding"));
    assert_eq!(plain.headers()["vary"], "Accept-Encoding");
    let ResponseBody::Produced(mut body) = plain.into_body() else { panic!("not produced") };
    assert_eq!(body.remaining(), Some(200_000));
    let (mut found, mut pieces) = (Vec::new(), 0);
    while !body.is_complete() {
        found.extend(body.produce().unwrap());
        pieces += 1;
    }
    assert_eq!((found == text.as_bytes(), pieces), (true, 4));
    let disabled = respond("gzip", &[]);
    assert!(!disabled.headers().contains_key("content-encoding"));
    assert!(!disabled.headers().contains_key("vary"));
}

#[test]
fn a_client_without_gzip_gets_another_coding_that_it_accepts() {
    let text = "0123456789".repeat(20_000);
    let stored = stored(&text);
    for (accept, coding) in [("br", Coding::Brotli), ("zstd, br", Coding::Zstd)] {
        let headers = headers(&[("accept-encoding", accept)]);
        let request = StoredBodyRequest { headers: &headers, codings: &Coding::ALL };
        let response = stored.cacheable_response(request, "text/plain", "no-cache");
        assert_eq!(response.headers()["content-encoding"], coding.name());
        let tag = response.headers()["etag"].to_str().unwrap();
        assert!(tag.starts_with("W/") && tag.ends_with(&format!("-{}\"", coding.name())));
        let ResponseBody::Produced(mut body) = response.into_body() else { panic!("{accept}") };
        let mut sent = Vec::new();
        while !body.is_complete() {
            sent.extend(body.produce().unwrap());
        }
        assert!(sent.len() < text.len() / 50, "{}", sent.len());
        let mut back = String::new();
        match coding {
            Coding::Zstd => zstd::Decoder::new(&*sent).unwrap().read_to_string(&mut back),
            _ => brotli::Decompressor::new(&*sent, 4096).read_to_string(&mut back),
        }
        .unwrap();
        assert!(back == text, "{accept}");
    }
}

#[test]
fn a_client_that_has_the_body_gets_304() {
    let stored = stored("text");
    let respond = |pairs: &[(&'static str, &str)]| {
        let headers = headers(pairs);
        let request = StoredBodyRequest { headers: &headers, codings: &Coding::ALL };
        stored.cacheable_response(request, "text/plain", "no-cache")
    };
    let whole = respond(&[]);
    assert_eq!(whole.status(), StatusCode::OK);
    assert_eq!(whole.headers()["cache-control"], "no-cache");
    let tag = whole.headers()["etag"].to_str().unwrap().to_owned();
    let known = [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()];
    for known in known {
        let answer = respond(&[("if-none-match", &known)]);
        assert_eq!(answer.status(), StatusCode::NOT_MODIFIED, "{known}");
        assert_eq!(answer.headers()["etag"].to_str().unwrap(), tag);
    }
    let gzip = respond(&[("accept-encoding", "gzip"), ("if-none-match", &tag)]);
    assert_eq!(gzip.status(), StatusCode::OK, "another representation");
    assert_ne!(gzip.headers()["etag"].to_str().unwrap(), tag);
}
