//! Validates the constraints of a parameter, its allowed values and its default.

use std::cmp::Ordering;

use serde_json::value::RawValue;

use crate::catalogue::definition::ParameterDefinition;
use crate::catalogue::error::EndpointErrors;
use crate::catalogue::parameter::{Constraints, NumberBound, Parameter, ParameterType};
use crate::catalogue::pattern::Pattern;
use crate::catalogue::validate::{self, decimal};
use crate::catalogue::value::ParameterValue;
use crate::catalogue::violations::{Location, Violations};

/// Validates all constraints except the allowed values.
pub(super) fn constraints(
    definition: &ParameterDefinition,
    kind: ParameterType,
    key: &str,
    errors: &mut EndpointErrors<'_>,
) -> Constraints {
    check_types(definition, kind, key, errors);
    let pattern = definition.pattern.as_deref().and_then(|text| pattern(text, key, errors));
    let minimum = bound("minimum", definition.minimum.as_deref(), (kind, key), errors);
    let maximum = bound("maximum", definition.maximum.as_deref(), (kind, key), errors);
    if let (Some(minimum), Some(maximum)) = (&minimum, &maximum)
        && decimal::compare(&minimum.0, &maximum.0) == Some(Ordering::Greater)
    {
        errors.add(format!("{key}.minimum"), "expected at most `maximum`");
    }
    if let (Some(min), Some(max)) = (definition.min_length, definition.max_length)
        && min > max
    {
        errors.add(format!("{key}.minLength"), "expected at most `maxLength`");
    }
    Constraints {
        allowed: None,
        pattern,
        minimum,
        maximum,
        length_min: definition.min_length,
        length_max: definition.max_length,
        items_max: definition.max_items,
    }
}

/// Checks that each constraint is applicable to the parameter's type.
fn check_types(
    definition: &ParameterDefinition,
    kind: ParameterType,
    key: &str,
    errors: &mut EndpointErrors<'_>,
) {
    use ParameterType as T;
    let is_number = matches!(kind, T::Int32 | T::Int64 | T::Number | T::Decimal);
    let numbers = "int32, int64, number and decimal";
    let has_length = matches!(kind, T::String | T::Binary);
    let has_items = matches!(kind, T::Table | T::Json);
    let constraints: [(&str, bool, bool, &str); 6] = [
        ("pattern", definition.pattern.is_some(), kind == T::String, "string"),
        ("minimum", definition.minimum.is_some(), is_number, numbers),
        ("maximum", definition.maximum.is_some(), is_number, numbers),
        ("minLength", definition.min_length.is_some(), has_length, "string and binary"),
        (
            "maxLength",
            definition.max_length.is_some(),
            has_length || kind == T::Json,
            "string, binary and json",
        ),
        ("maxItems", definition.max_items.is_some(), has_items, "table and json"),
    ];
    for (constraint, is_given, applies, types) in constraints {
        if is_given && !applies {
            let expected = format!("expected only with the types {types}");
            errors.add(format!("{key}.{constraint}"), expected);
        }
    }
}

fn pattern(text: &str, key: &str, errors: &mut EndpointErrors<'_>) -> Option<Pattern> {
    let report = |error| {
        errors.add(format!("{key}.pattern"), format!("expected a regular expression: {error}"));
    };
    Pattern::new(text).map_err(report).ok()
}

fn bound(
    constraint: &str,
    raw: Option<&RawValue>,
    (kind, key): (ParameterType, &str),
    errors: &mut EndpointErrors<'_>,
) -> Option<NumberBound> {
    let text = raw?.get();
    let is_whole = text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let is_valid = match kind {
        ParameterType::Int32 => is_whole && text.parse::<i32>().is_ok(),
        ParameterType::Int64 => is_whole && text.parse::<i64>().is_ok(),
        _ => decimal::is_number(text),
    };
    if !is_valid {
        errors.add(format!("{key}.{constraint}"), validate::expected(kind));
        return None;
    }
    Some(NumberBound(text.into()))
}

/// Validates `enum` and adds it to the parameter's constraints.
pub(super) fn add_allowed(
    parameter: &mut Parameter,
    allowed: Option<Vec<Box<RawValue>>>,
    key: &str,
    errors: &mut EndpointErrors<'_>,
) {
    use ParameterType as T;
    let Some(allowed) = allowed else { return };
    let key = format!("{key}.enum");
    if matches!(parameter.kind, T::Boolean | T::Binary | T::Json | T::Table) {
        errors.add(key, "expected none with the types boolean, binary, json and table");
        return;
    }
    if allowed.is_empty() {
        errors.add(key, "expected at least one value");
        return;
    }
    let mut values: Vec<ParameterValue<'static>> = Vec::with_capacity(allowed.len());
    for raw in allowed {
        match read_value(parameter, &raw) {
            Ok(ParameterValue::Null) => errors.add(&key, "null is not allowed"),
            Ok(value) if values.contains(&value) => {
                errors.add(&key, format!("{raw} is given more than once"));
            }
            Ok(value) => values.push(value),
            Err(expected) => errors.add(&key, format!("{raw}: {expected}")),
        }
    }
    parameter.constraints.allowed = Some(values);
}

/// Validates `default` against the type and the constraints, and adds it to the parameter.
pub(super) fn add_default(
    parameter: &mut Parameter,
    default: Option<Box<RawValue>>,
    key: &str,
    errors: &mut EndpointErrors<'_>,
) {
    let Some(raw) = default else { return };
    let key = format!("{key}.default");
    if parameter.kind == ParameterType::Table {
        errors.add(key, "a table cannot have a default");
        return;
    }
    match read_value(parameter, &raw) {
        Ok(value) => parameter.default = Some(value),
        Err(expected) => errors.add(key, format!("{raw}: {expected}")),
    }
}

/// Validates a value from the catalogue by the rules that apply to a value from a request.
fn read_value(parameter: &Parameter, raw: &RawValue) -> Result<ParameterValue<'static>, String> {
    let mut violations = Violations::default();
    let location = Location::Parameter(parameter);
    let value = validate::from_json(parameter, raw, location, &mut violations);
    match (value, violations.into_vec().into_iter().next()) {
        (Some(value), None) => Ok(value.into_owned()),
        (_, violation) => Err(violation.map_or_else(String::new, |violation| violation.detail)),
    }
}
