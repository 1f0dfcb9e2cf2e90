//! Requests as a connection reads them: checks that need no endpoint, the client's address, the body.

mod body;
pub(super) mod filter;
pub(super) mod forwarded_for;
pub(super) mod unread_body;

pub use body::{RequestBody, read_body};
