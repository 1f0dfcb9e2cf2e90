//! Explains why a text is not a value of a parameter's type.

use std::borrow::Cow;

use super::{decimal, expected, scalar};
use crate::catalogue::parameter::{Parameter, ParameterSource, ParameterType};
use crate::catalogue::violations::Location;

/// Returns the detail of the violation, with the most likely reason. The text itself is never repeated.
pub(super) fn detail(
    parameter: &Parameter,
    text: &str,
    location: Location<'_>,
) -> Cow<'static, str> {
    let is_query =
        matches!(location, Location::Parameter(_)) && parameter.source == ParameterSource::Query;
    if is_query && needs_plus(parameter.kind, text) {
        let expected = expected(parameter.kind);
        return format!("{expected}; a + in a query means a space: write %2B").into();
    }
    let reason = match parameter.kind {
        ParameterType::Int32 | ParameterType::Int64 => number_fault(text).or_else(|| {
            // A text with an exponent can be a whole number, such as 5.0e1.
            let is_fraction = match text.split_once(['e', 'E']) {
                Some((_, exponent)) => exponent.starts_with('-'),
                None => text.contains('.'),
            };
            (is_fraction && decimal::is_number(text)).then_some("a fraction")
        }),
        ParameterType::Number | ParameterType::Decimal => number_fault(text),
        _ => None,
    };
    let noun = match parameter.kind {
        ParameterType::Int32 | ParameterType::Int64 => "a whole number",
        _ => "a number",
    };
    match reason {
        Some(reason) => format!("expected {noun} without {reason}").into(),
        None => expected(parameter.kind).into(),
    }
}

/// Returns the detail of the violation for an empty text that is not a value of the parameter's type.
pub(super) fn empty(parameter: &Parameter) -> String {
    let expected = expected(parameter.kind);
    let advice = match (parameter.required, &parameter.default) {
        (true, _) => "",
        (false, Some(_)) => "; leave the parameter out for its default",
        (false, None) => "; leave the parameter out for NULL",
    };
    format!("{expected}, not an empty value{advice}")
}

/// Returns whether a text becomes a valid value if its spaces are replaced with the plus signs that
/// the client meant.
fn needs_plus(kind: ParameterType, text: &str) -> bool {
    if !text.contains(' ') {
        return false;
    }
    let meant = text.replace(' ', "+");
    match kind {
        ParameterType::Datetime => scalar::datetime(&meant).is_some(),
        ParameterType::Binary => scalar::binary(&meant).is_some(),
        ParameterType::Number | ParameterType::Decimal => decimal::is_number(&meant),
        _ => false,
    }
}

/// Returns the part of a text that must be removed to make it a number.
fn number_fault(text: &str) -> Option<&'static str> {
    let is_number = decimal::is_number;
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let significant = unsigned.trim_start_matches('0');
    if text.strip_prefix('+').is_some_and(is_number) {
        return Some("a plus sign");
    }
    if text.strip_prefix(' ').is_some_and(is_number) {
        // A plus sign in a query is decoded as a space.
        return Some("a plus sign or a space");
    }
    if text.trim() != text {
        return is_number(text.trim()).then_some("spaces");
    }
    if text.contains(',') {
        return is_number(&text.replace(',', "")).then_some("a comma");
    }
    let is_padded = unsigned.len() > significant.len()
        && !is_number(text)
        && (is_number(significant) || is_number(&format!("0{significant}")));
    is_padded.then_some("leading zeros")
}
