//! Hyper's configuration: the sizes, timeouts and HTTP/2 flow control for a connection.

use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;

use crate::config::gateway::HttpLimits;
use crate::lifecycle::Tasks;

/// The time by which hyper's own timeout exceeds ours.
const TIMEOUT_SLACK: Duration = Duration::from_secs(1);
/// HTTP/2 flow control: the number of bytes that a client may send on one stream before we read them.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// HTTP/2 flow control: the number of bytes that a client may send on all streams of a connection before we read them.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// The number of bytes that are buffered for one HTTP/2 stream whose client reads slowly.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// The maximum size of an HTTP/2 frame that we accept. It is the smallest limit that RFC 9113 §6.5.2 allows, and the default.
const FRAME_BYTES: u32 = 16 * 1024;
/// The number of streams that we reset because of a client's errors before we end the connection.
const LOCAL_RESETS_MAX: usize = 128;
/// The ratio of hyper's limits to ours. hyper accepts requests that are slightly too large, so that `filter` can reject them
/// with an error that names the exceeded limit.
const HEAD_SLACK: usize = 2;
/// The maximum number of headers that hyper parses on the stack. For a higher limit, it allocates 4 KiB twice for each request.
const HEADERS_ON_STACK: usize = 100;
/// The minimum buffer size that hyper allows.
const BUFFER_BYTES_MIN: usize = 8 * 1024;

pub(super) fn http1(limits: &HttpLimits) -> http1::Builder {
    let head_bytes = HEAD_SLACK * (limits.header_bytes_max + limits.uri_bytes_max);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // This is only a fallback: `ConnectionActivity` decides when a request is overdue.
        .header_read_timeout(limits.header_timeout.max(limits.idle_timeout) + TIMEOUT_SLACK)
        // Makes hyper close the connection when the client disconnects while its request runs. `ResponseGate` prevents this for
        // clients that have only closed their sending side.
        .half_close(false)
        .max_headers(
            (HEAD_SLACK * limits.headers_max).min(HEADERS_ON_STACK).max(limits.headers_max + 1),
        )
        .max_header_size(head_bytes)
        .max_buf_size(head_bytes.max(BUFFER_BYTES_MIN));
    builder
}

pub(super) fn http2(limits: &HttpLimits, tasks: Tasks) -> http2::Builder<StreamExecutor> {
    let head_bytes = HEAD_SLACK * (limits.header_bytes_max + limits.uri_bytes_max);
    let mut builder = http2::Builder::new(StreamExecutor(tasks));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(limits.resets_max)
        // No keep-alive PING: it would wait behind data that a slow reader has not read yet. TCP keepalive is used instead.
        .max_local_error_reset_streams(LOCAL_RESETS_MAX);
    builder
}

/// Spawns the streams of an HTTP/2 connection as tasks. A drain waits for these tasks.
#[derive(Clone, Debug)]
pub(super) struct StreamExecutor(Tasks);

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        drop(self.0.spawn(stream));
    }
}
