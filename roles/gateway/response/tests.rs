//! What is written, header by header.

use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;

use super::*;
use crate::lifecycle::Cancel;
use crate::outcome::Word;
use crate::roles::gateway::client::ClientNetwork;
use crate::roles::gateway::client::byte_budget::ByteBudget;

fn shape(method: Method) -> Shape {
    let request_id = RequestId::fresh();
    Shape { request_id, method, version: Version::HTTP_11, is_tls: true }
}

async fn body(response: Response) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn a_problem_is_a_problem_document_with_whole_seconds() {
    let id = RequestId::fresh();
    let busy = Problem::new(ProblemKind::Busy).retry_after(Duration::from_millis(1_001));
    let response = problem(&busy, &id);
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
    let document: serde_json::Value = serde_json::from_slice(&body(response).await).unwrap();
    assert_eq!(document["request_id"], id.as_str());
}

#[test]
fn a_problem_that_ends_the_connection_says_so_where_it_may() {
    let shape = shape(Method::GET);
    let id = shape.request_id.clone();
    let closing = || problem(&Problem::new(ProblemKind::UriTooLong), &id);
    assert_eq!(finish(closing(), &shape).headers()[header::CONNECTION], "close");
    let shape = Shape { version: Version::HTTP_2, ..shape };
    assert!(!finish(closing(), &shape).headers().contains_key(header::CONNECTION));
}

#[test]
fn a_401_asks_for_credentials_and_a_405_names_the_methods() {
    let id = RequestId::fresh();
    let unauthenticated = problem(&Problem::new(ProblemKind::Unauthenticated), &id);
    assert_eq!(unauthenticated.headers()[header::WWW_AUTHENTICATE], "Bearer");
    let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
    let told = with_challenge(unauthenticated, challenge.clone());
    assert_eq!(told.headers()[header::WWW_AUTHENTICATE], challenge);
    let refused = problem(&Problem::new(ProblemKind::MethodNotAllowed), &id);
    let refused = with_allow(refused, &[Method::GET, Method::HEAD]);
    assert_eq!(refused.headers()[header::ALLOW], "GET, HEAD");
}

#[tokio::test]
async fn head_keeps_the_length_and_drops_the_body() {
    let rows = Final::whole(200, "application/json", Bytes::from_static(b"[1,2]"), Word::Ok);
    let response = finish(answer(rows).unwrap(), &shape(Method::HEAD));
    assert_eq!(response.headers()[header::CONTENT_LENGTH], "5");
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    assert!(body(response).await.is_empty());
}

#[tokio::test]
async fn a_204_has_neither_body_nor_length() {
    let none = Final::whole(204, "application/json", Bytes::from_static(b"x"), Word::Ok);
    let response = finish(answer(none).unwrap(), &shape(Method::DELETE));
    assert!(!response.headers().contains_key(header::CONTENT_LENGTH));
    assert!(!response.headers().contains_key(header::CONTENT_TYPE));
    assert!(body(response).await.is_empty());
}

#[test]
fn an_answer_that_cannot_be_written_is_a_bad_answer() {
    for (status, media_type) in [(99, "text/plain"), (101, "text/plain"), (200, "a\r\nb: c")] {
        let bad = Final::whole(status, media_type, Bytes::from_static(b"x"), Word::Ok);
        assert_eq!(answer(bad).unwrap_err().kind, ProblemKind::BadAnswer, "{status} {media_type}");
    }
}

#[test]
fn every_response_has_the_fixed_headers_and_no_banner() {
    let shape = shape(Method::GET);
    let rows = || answer(Final::whole(200, "application/json", Bytes::new(), Word::Ok)).unwrap();
    let response = finish(rows(), &shape);
    let headers = response.headers();
    assert_eq!(headers[X_REQUEST_ID], shape.request_id.as_str());
    assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(headers[header::STRICT_TRANSPORT_SECURITY], "max-age=31536000");
    assert!(!headers.contains_key(header::SERVER));

    let mut cached = rows();
    cached.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
    let response = finish(cached, &Shape { is_tls: false, ..shape });
    assert_eq!(response.headers()[header::CACHE_CONTROL], "max-age=60");
    assert!(!response.headers().contains_key(header::STRICT_TRANSPORT_SECURITY));
}

#[test]
fn an_id_is_taken_from_the_client_only_when_it_is_harmless() {
    let of = |values: &[&[u8]]| {
        let mut request = Request::new(());
        for value in values {
            let value = HeaderValue::from_bytes(value).unwrap();
            request.headers_mut().append(X_REQUEST_ID, value);
        }
        RequestId::from_headers(request.headers())
    };
    assert_eq!(of(&[b"abc-DEF.1~+/="]).as_str(), "abc-DEF.1~+/=");
    let long = [b'a'; 129];
    for bad in
        [&[b"".as_slice()][..], &[b"a b"], &[b"a\"b"], &[b"\xff"], &[&long], &[b"a", b"a"], &[]]
    {
        assert_eq!(of(bad).as_str().len(), 36, "{bad:?} was taken");
    }
}

/// Makes nothing smaller.
#[derive(Debug)]
struct Same;

impl Coder for Same {
    fn piece(&mut self, bytes: &[u8]) -> std::io::Result<Bytes> {
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn end(self: Box<Self>) -> std::io::Result<Bytes> {
        Ok(Bytes::from(vec![b'x'; 20_000]))
    }
}

#[tokio::test]
async fn what_a_coder_makes_counts_until_it_is_taken() {
    let budget = ByteBudget::unbounded();
    let room = budget.nothing(ClientNetwork::new([192, 0, 2, 1].into(), 56));
    let (sender, pieces) = tokio::sync::mpsc::channel(2);
    let came = room.another().holding(vec![b'x'; 100_000].into());
    sender.try_send(Piece::Bytes(came)).unwrap();
    sender.try_send(Piece::Whole).unwrap();
    let body = Streamed::new(pieces, tokio::sync::watch::Sender::new(0), Cancel::new(), Some(room))
        .coded(Box::new(Same));
    let mut body = AnswerBody::Streamed(body);
    for length in [100_000, 20_000] {
        let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(
            (piece.len(), budget.held()),
            (length, length),
            "and what it was made of is gone"
        );
        drop(piece);
        assert_eq!(budget.held(), 0);
    }
    assert!(body.frame().await.is_none());
}
