//! Lets an answer that comes before its request was read to the end reach its client (RFC 9112 §9.6, RFC 9113 §8.1).
//!
//! hyper reads no further once nobody wants the body: it then closes an HTTP/1.1 connection whose answer said nothing of
//! that, under the next request that is already on its way; over HTTP/2 it resets the stream while the client sends.

use std::time::Duration;

use http::HeaderValue;
use http::header::CONNECTION;

use crate::lifecycle::{Cancel, Tasks};
use crate::roles::gateway::response::Response;

use super::body::RequestBody;
use super::paced::{LINGER, LINGER_AT_STOP, LINGER_BYTES_MAX};

/// What of a body is still read before its answer, so that the connection can be kept.
const DRAIN_BYTES_MAX: usize = 64 * 1024;
/// How long the answer waits for that.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// Over HTTP/1.1: reads what is left of the body when it is small, or else says that the connection ends with the
/// answer. Then it lingers: see `paced`. Safe to drop.
pub(super) async fn drain_or_close(mut body: RequestBody, response: &mut Response) {
    let closes = response.headers().get(CONNECTION).is_some_and(|value| value == "close");
    if !closes && !drains(&mut body).await {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

async fn drains(body: &mut RequestBody) -> bool {
    use hyper::body::Body;
    // A client that waits to be asked for its body may send it all the same, or may not: what came next would be
    // either, and nobody could tell.
    let is_small = body.size_hint().lower() <= DRAIN_BYTES_MAX as u64;
    is_small && !body.waits() && body.drain(DRAIN_BYTES_MAX, DRAIN_LIMIT).await
}

/// Over HTTP/2: lets the client send on for a while beside its answer. The reset comes when it has not ended by then.
pub(super) fn drain_beside(mut body: RequestBody, tasks: &Tasks, stop: Cancel) {
    let _detached = tasks.spawn(async move {
        tokio::select! {
            _is_over = body.drain(LINGER_BYTES_MAX, LINGER) => {}
            () = async { stop.cancelled().await; tokio::time::sleep(LINGER_AT_STOP).await } => {}
        }
    });
}
