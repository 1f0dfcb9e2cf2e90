//! Promise: whatever a client sends, or does not send, the gateway answers it or ends it in time, and the
//! next client is served. What it answers is what HTTP demands (RFC 9110, 9112, 9113).

mod bytes;
mod bytes_of_answers;
mod drain;
mod early;
mod edge;
mod http2;
mod leaving;
mod limits;
mod memory;
mod proxies;
mod slow;
mod slow_readers;
mod smuggling;
mod stalled;
