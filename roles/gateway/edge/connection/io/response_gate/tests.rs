//! Tests the response gate.

use tokio::io::AsyncWriteExt;

use super::*;

const RESPONSE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n";
/// A body that looks like one of hyper's own responses.
const BODY: &str = "HTTP/1.1 400 Bad Request\r\n\r\nxx";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const HYPER_ERROR: &str =
    "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n";

struct Fixture {
    responses: ResponseTracker,
    activity: Arc<ConnectionActivity>,
    gate: ResponseGate<Vec<u8>>,
}

impl Fixture {
    fn new() -> Self {
        let (responses, activity) =
            (ResponseTracker::default(), Arc::new(ConnectionActivity::new()));
        let gate = ResponseGate::new(Vec::new(), responses.clone(), Arc::clone(&activity));
        Self { responses, activity, gate }
    }

    async fn write(&mut self, text: &str) {
        self.gate.write_all(text.as_bytes()).await.unwrap();
    }

    async fn flush(&mut self) {
        self.gate.flush().await.unwrap();
    }

    fn written(&self) -> &str {
        std::str::from_utf8(&self.gate.io).unwrap()
    }
}

#[tokio::test]
async fn only_a_response_without_a_request_is_held_back() {
    let mut fixture = Fixture::new();
    for _ in 0..2 {
        let request = fixture.activity.begin_request(true);
        fixture.write(CONTINUE).await;
        let response = fixture.responses.begin();
        drop(request);
        fixture.write(RESPONSE).await;
        fixture.flush().await;
        assert!(fixture.gate.is_within_response(), "its body has not been sent yet");
        let (start, rest) = BODY.split_at(9);
        fixture.write(start).await;
        drop(response);
        fixture.write(rest).await;
        assert!(fixture.gate.is_within_response(), "not flushed");
        fixture.flush().await;
        assert!(!fixture.gate.is_within_response());
    }
    assert_eq!(fixture.gate.held_status(), None);
    fixture.write(HYPER_ERROR).await;
    assert_eq!(fixture.gate.held_status(), Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    assert_eq!(fixture.written(), [CONTINUE, RESPONSE, BODY].concat().repeat(2));
}

#[tokio::test]
async fn a_first_request_that_cannot_be_parsed_is_held_back() {
    let mut fixture = Fixture::new();
    fixture.flush().await;
    fixture.write(HYPER_ERROR).await;
    assert_eq!(fixture.gate.held_status(), Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    assert_eq!(fixture.written(), "");
}

#[tokio::test]
async fn a_response_that_was_cut_off_stays_unwritten() {
    let mut fixture = Fixture::new();
    let response = fixture.responses.begin();
    fixture.write(RESPONSE).await;
    fixture.flush().await;
    drop(response);
    assert!(fixture.gate.is_within_response());
}
