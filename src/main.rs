//! fjord.
fn main() {}
