//! `fjord openapi`: prints the `OpenAPI` document of the catalogue.

use crate::catalogue::Catalogue;
use crate::catalogue::openapi::{self, ApiInfo};

/// Returns the output of the command.
#[must_use]
pub fn run(catalogue: &Catalogue, info: &ApiInfo) -> String {
    let all: Vec<_> = catalogue.endpoints().iter().map(|endpoint| &**endpoint).collect();
    openapi::text(&all, info)
}
