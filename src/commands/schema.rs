//! `fjord schema`: prints the JSON Schema of catalogue files.

use crate::catalogue::schema;

/// Returns the output of the command.
#[must_use]
pub fn run() -> String {
    schema::text()
}
