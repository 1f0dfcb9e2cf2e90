//! Promise: regardless of what a client sends or does not send, the gateway responds or closes the connection in time,
//! and serves the next client. Its responses are those that HTTP requires (RFC 9110, 9112, 9113).

mod answer_budget;
mod byte_budget;
mod disconnects;
mod drain;
mod early_responses;
mod http2;
mod limits;
mod memory;
mod plain_text;
mod proxies;
mod slow_clients;
mod slow_readers;
mod smuggling;
mod stalled_clients;
mod test_listener;
