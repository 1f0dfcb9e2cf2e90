//! Validates an endpoint's `produces`.

use crate::catalogue::definition::response::ProducesDefinition;
use crate::catalogue::endpoint::ResultKind;
use crate::catalogue::error::EndpointErrors;
use crate::catalogue::representation::{Representation, is_media_type};

/// The media types that a `value` must not have. fjord's own errors use the first one, and multipart content needs
/// several parts.
const RESERVED: [&str; 2] = ["application/problem+json", "multipart/"];

/// Returns the representations of an answer. The default is JSON.
pub(super) fn representations(
    definition: Option<ProducesDefinition>,
    result: ResultKind,
    outputs: &[String],
    errors: &mut EndpointErrors<'_>,
) -> Vec<Representation> {
    let Some(definition) = definition else { return vec![Representation::Json] };
    let mut produces: Vec<Representation> = Vec::new();
    let written = definition.into_vec();
    if written.is_empty() {
        errors.add("produces", "expected at least one media type, e.g. \"application/json\"");
    }
    for text in written {
        match representation(&text, result) {
            Err(expected) => errors.add("produces", format!("{text:?}: {expected}")),
            Ok(one) if produces.iter().any(|known| known.media_type() == one.media_type()) => {
                errors.add("produces", format!("{text:?} is given more than once"));
            }
            Ok(one) => produces.push(one),
        }
    }
    let raw = produces.iter().filter(|one| matches!(one, Representation::Raw(_))).count();
    if raw > 1 {
        let expected = "expected at most one media type besides application/json, because the procedure returns the bytes of a single media type";
        errors.add("produces", expected);
    }
    if raw > 0 && !outputs.is_empty() {
        let expected = "expected none, because a value that is sent unchanged cannot contain outputs: use `headers`";
        errors.add("outputs", expected);
    }
    produces
}

fn representation(text: &str, result: ResultKind) -> Result<Representation, &'static str> {
    let lower = text.to_ascii_lowercase();
    match result {
        _ if lower == Representation::Json.media_type() => Ok(Representation::Json),
        ResultKind::Rows => Representation::of_rows(&lower).ok_or(
            "expected application/json, text/csv or application/x-ndjson with the result `rows`",
        ),
        ResultKind::Value if !is_media_type(&lower) => {
            Err("expected a media type without wildcards, e.g. \"image/png\"")
        }
        ResultKind::Value if RESERVED.iter().any(|start| lower.starts_with(start)) => {
            Err("expected another media type, because a value cannot have this one")
        }
        ResultKind::Value => Ok(Representation::Raw(lower.into())),
        _ => Err(
            "expected only application/json, because other media types need the result `rows` (one line for \
                  each row) or `value` (sent unchanged)",
        ),
    }
}
