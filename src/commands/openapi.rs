//! `fjord openapi`: prints the `OpenAPI` document of the catalogue.

use crate::catalogue::{Catalogue, openapi};

/// What is printed.
#[must_use]
pub fn run(catalogue: &Catalogue) -> String {
    openapi::text(catalogue)
}
