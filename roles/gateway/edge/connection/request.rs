//! Request handling that does not depend on the endpoint: checks, the client's address, and the body.

mod body;
pub(super) mod filter;
pub(super) mod forwarded_for;
pub(super) mod unread_body;

pub use body::{RequestBody, read_body};
