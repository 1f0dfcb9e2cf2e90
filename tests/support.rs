//! What the tests and the demo share.

pub(crate) mod tokens;
