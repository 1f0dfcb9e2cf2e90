//! Lets the answers of one moment leave together: over HTTP/2 they share a connection, and then a TLS record and a
//! system call as well.

use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::task::yield_now;

use super::activity::Activity;

/// Runs a connection behind everybody who is ready, while requests run on it: each answer wakes it, and our runtime
/// runs it directly after whoever woke it, so that it would find one answer to write. A connection whose requests come
/// one at a time does not step back. As safe to drop as the future is.
pub(super) async fn together<F: Future>(
    activity: &Activity,
    mut connection: Pin<&mut F>,
) -> F::Output {
    let mut has_stepped_back = false;
    std::future::poll_fn(|context| {
        has_stepped_back = !has_stepped_back && activity.is_running();
        // Behind those, too, who become ready by what has arrived meanwhile.
        if has_stepped_back && pin!(yield_now()).poll(context).is_pending() {
            return Poll::Pending;
        }
        connection.as_mut().poll(context)
    })
    .await
}
