//! Handles a request body that the service left unread, so that the client still receives the response (RFC 9112 §9.6,
//! RFC 9113 §8.1).
//!
//! hyper stops reading once the body is dropped. It would close an HTTP/1.1 connection, although the response did not
//! announce the close and the next request may be in transit. It would also reset an HTTP/2 stream on which the client
//! is still sending.

use std::time::Duration;

use http::HeaderValue;
use http::header::CONNECTION;
use hyper::body::Body;

use crate::lifecycle::{Cancel, Tasks};
use crate::roles::gateway::response::Response;

use super::super::io::{LINGER, LINGER_AT_STOP, LINGER_BYTES_MAX};
use super::body::RequestBody;

/// The maximum number of unread bytes that are drained before the response, so that the connection can be kept open.
const DRAIN_BYTES_MAX: usize = 64 * 1024;
/// The maximum time that the response waits for the rest of the body.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// Reads the rest of an HTTP/1.1 body if it is small. Otherwise, announces that the connection will close after the
/// response, and `StallTimeout` then lingers. This function is cancel safe.
pub(in super::super) async fn drain_or_close(mut body: RequestBody, response: &mut Response) {
    let closes = response.headers().get(CONNECTION).is_some_and(|value| value == "close");
    if !closes && !drain_small(&mut body).await {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

async fn drain_small(body: &mut RequestBody) -> bool {
    // A client that expects `100 Continue` might omit its body, so the next bytes would be ambiguous.
    let is_small = body.size_hint().lower() <= DRAIN_BYTES_MAX as u64;
    is_small && !body.expects_continue() && body.drain(DRAIN_BYTES_MAX, DRAIN_LIMIT).await
}

/// Lets an HTTP/2 client continue to send for a limited time after its response. If the client does not finish in that time,
/// its stream is reset.
pub(in super::super) fn drain_in_background(mut body: RequestBody, tasks: &Tasks, stop: Cancel) {
    let _detached = tasks.spawn(async move {
        tokio::select! {
            _is_complete = body.drain(LINGER_BYTES_MAX, LINGER) => {}
            () = async { stop.cancelled().await; tokio::time::sleep(LINGER_AT_STOP).await } => {}
        }
    });
}
