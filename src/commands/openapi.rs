//! `fjord openapi`: prints the `OpenAPI` document of the catalogue.

use crate::catalogue::{Catalogue, openapi};

/// What is printed.
#[must_use]
pub fn run(catalogue: &Catalogue) -> String {
    let all: Vec<_> = catalogue.endpoints().iter().map(|endpoint| &**endpoint).collect();
    openapi::text(&all)
}
