//! Tests the headers and bodies of responses.

use std::time::Duration;

use futures_util::FutureExt;
use http::Request;
use http_body_util::BodyExt;

use super::*;
use crate::lifecycle::Cancel;
use crate::outcome::Outcome;
use crate::roles::gateway::client::ClientNetwork;
use crate::roles::gateway::client::byte_budget::ByteBudget;

fn context(method: Method) -> ResponseContext {
    let request_id = RequestId::generate();
    ResponseContext { request_id, method, version: Version::HTTP_11, is_tls: true }
}

async fn body(response: Response) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn a_problem_becomes_a_problem_document_with_retry_after_in_whole_seconds() {
    let id = RequestId::generate();
    let busy = Problem::new(ProblemKind::Busy).retry_after(Duration::from_millis(1_001));
    let response = problem(&busy, &id);
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
    let document: serde_json::Value = serde_json::from_slice(&body(response).await).unwrap();
    assert_eq!(document["request_id"], id.as_str());
}

#[test]
fn a_problem_that_closes_the_connection_says_so_over_http_1() {
    let context = context(Method::GET);
    let id = context.request_id.clone();
    let closing = || problem(&Problem::new(ProblemKind::UriTooLong), &id);
    assert_eq!(finish(closing(), &context).headers()[header::CONNECTION], "close");
    let context = ResponseContext { version: Version::HTTP_2, ..context };
    assert!(!finish(closing(), &context).headers().contains_key(header::CONNECTION));
}

#[test]
fn a_401_has_a_challenge_and_a_405_lists_the_methods() {
    let id = RequestId::generate();
    let unauthenticated = problem(&Problem::new(ProblemKind::Unauthenticated), &id);
    assert_eq!(unauthenticated.headers()[header::WWW_AUTHENTICATE], "Bearer");
    let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
    let challenged = with_challenge(unauthenticated, challenge.clone());
    assert_eq!(challenged.headers()[header::WWW_AUTHENTICATE], challenge);
    let refused = problem(&Problem::new(ProblemKind::MethodNotAllowed), &id);
    let refused = with_allow(refused, [Method::GET, Method::HEAD].iter());
    assert_eq!(refused.headers()[header::ALLOW], "GET, HEAD");
}

#[tokio::test]
async fn head_keeps_the_length_and_drops_the_body() {
    let rows = Final::whole(200, "application/json", Bytes::from_static(b"[1,2]"), Outcome::Ok);
    let response = finish(from_final(rows).unwrap(), &context(Method::HEAD));
    assert_eq!(response.headers()[header::CONTENT_LENGTH], "5");
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    assert!(body(response).await.is_empty());
}

#[tokio::test]
async fn a_204_has_neither_body_nor_length() {
    let none = Final::whole(204, "application/json", Bytes::from_static(b"x"), Outcome::Ok);
    let response = finish(from_final(none).unwrap(), &context(Method::DELETE));
    assert!(!response.headers().contains_key(header::CONTENT_LENGTH));
    assert!(!response.headers().contains_key(header::CONTENT_TYPE));
    assert!(body(response).await.is_empty());
}

#[test]
fn an_invalid_answer_is_a_bad_answer() {
    for (status, media_type) in [(99, "text/plain"), (101, "text/plain"), (200, "a\r\nb: c")] {
        let bad = Final::whole(status, media_type, Bytes::from_static(b"x"), Outcome::Ok);
        assert_eq!(
            from_final(bad).unwrap_err().kind,
            ProblemKind::BadAnswer,
            "{status} {media_type}"
        );
    }
}

#[test]
fn every_response_has_the_fixed_headers_and_no_banner() {
    let context = context(Method::GET);
    let rows =
        || from_final(Final::whole(200, "application/json", Bytes::new(), Outcome::Ok)).unwrap();
    let response = finish(rows(), &context);
    let headers = response.headers();
    assert_eq!(headers[X_REQUEST_ID], context.request_id.as_str());
    assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(headers[header::STRICT_TRANSPORT_SECURITY], "max-age=31536000");
    assert!(!headers.contains_key(header::SERVER));

    let mut cached = rows();
    cached.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
    let response = finish(cached, &ResponseContext { is_tls: false, ..context });
    assert_eq!(response.headers()[header::CACHE_CONTROL], "max-age=60");
    assert!(!response.headers().contains_key(header::STRICT_TRANSPORT_SECURITY));
}

#[test]
fn a_request_id_from_the_client_is_used_only_if_it_is_valid() {
    let from_headers = |values: &[&[u8]]| {
        let mut request = Request::new(());
        for value in values {
            let value = HeaderValue::from_bytes(value).unwrap();
            request.headers_mut().append(X_REQUEST_ID, value);
        }
        RequestId::from_headers(request.headers())
    };
    assert_eq!(from_headers(&[b"abc-DEF.1~+/="]).as_str(), "abc-DEF.1~+/=");
    let long = [b'a'; 129];
    for bad in
        [&[b"".as_slice()][..], &[b"a b"], &[b"a\"b"], &[b"\xff"], &[&long], &[b"a", b"a"], &[]]
    {
        assert_eq!(from_headers(bad).as_str().len(), 36, "{bad:?} was accepted");
    }
}

/// An encoder that returns each chunk unchanged.
#[derive(Debug)]
struct IdentityEncoder;

impl BodyEncoder for IdentityEncoder {
    fn encode(&mut self, bytes: &[u8]) -> std::io::Result<Bytes> {
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn finish(self: Box<Self>) -> std::io::Result<Bytes> {
        Ok(Bytes::from(vec![b'x'; 20_000]))
    }
}

#[tokio::test]
async fn other_tasks_run_while_a_large_chunk_is_encoded() {
    let (sender, chunks) = tokio::sync::mpsc::channel(2);
    sender.try_send(StreamChunk::Bytes(vec![b'x'; 300_000].into())).unwrap();
    let consumed = tokio::sync::watch::Sender::new(0);
    let seen = consumed.subscribe();
    let body =
        StreamedBody::new(chunks, consumed, Cancel::new(), None).encoded(Box::new(IdentityEncoder));
    let mut body = ResponseBody::Streamed(body);
    for (length, chunks) in [(131_072, 0), (131_072, 0), (37_856, 1)] {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((frame.len(), *seen.borrow()), (length, chunks));
        assert!(body.frame().now_or_never().is_none(), "it yields");
    }
}

#[tokio::test]
async fn an_encoded_chunk_is_counted_until_it_is_sent() {
    let budget = ByteBudget::unbounded();
    let room = budget.empty_reservation(ClientNetwork::new([192, 0, 2, 1].into(), 56));
    let (sender, chunks) = tokio::sync::mpsc::channel(2);
    let received = room.empty_for_same_client().attach(vec![b'x'; 100_000].into());
    sender.try_send(StreamChunk::Bytes(received)).unwrap();
    sender.try_send(StreamChunk::End).unwrap();
    let consumed = tokio::sync::watch::Sender::new(0);
    let body = StreamedBody::new(chunks, consumed, Cancel::new(), Some(room))
        .encoded(Box::new(IdentityEncoder));
    let mut body = ResponseBody::Streamed(body);
    for length in [100_000, 20_000] {
        let chunk = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(
            (chunk.len(), budget.held()),
            (length, length),
            "the chunk from which it was copied is freed"
        );
        drop(chunk);
        assert_eq!(budget.held(), 0);
    }
    assert!(body.frame().await.is_none());
}
