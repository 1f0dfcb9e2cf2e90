//! `fjord schema`: prints the JSON Schema of catalogue files.

use crate::catalogue::schema;

/// What is printed.
#[must_use]
pub fn run() -> String {
    schema::text()
}
