//! Checks the parameters of one endpoint, and the columns of its tables.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::{HeaderName, Method};
use regex::Regex;
use serde_json::value::RawValue;

use crate::catalogue::check::{self, decimal};
use crate::catalogue::error::EndpointErrors;
use crate::catalogue::findings::{Findings, Spot};
use crate::catalogue::names::{ProcedureName, is_identifier};
use crate::catalogue::parameter::{Bound, Constraints, Parameter, ParameterType, Place};
use crate::catalogue::route::{self, Segment};
use crate::catalogue::value::Value;
use crate::catalogue::written::{Members, Object, WrittenParameter, WrittenPlace, WrittenType};

/// Most parameters of an endpoint: SQL Server's limit for a procedure.
const PARAMETERS_MAX: usize = 2100;
/// Longest name of a parameter in bytes.
const NAME_BYTES_MAX: usize = 128;
/// What `in: context` can name.
const CONTEXT: [&str; 4] = ["request_id", "idempotency_key", "principal", "client_ip"];
/// Headers that are about the message or its sender, and not for procedures.
const HEADERS_TAKEN: [&str; 20] = [
    "accept",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Checks all parameters, and that path and parameters name each other.
pub(super) fn parameters(
    written: Members<Object<WrittenParameter>>,
    route: Option<&(Method, Arc<str>)>,
    errors: &mut EndpointErrors<'_>,
) -> Vec<Parameter> {
    if written.0.len() > PARAMETERS_MAX {
        errors.add("parameters", format!("expected at most {PARAMETERS_MAX}"));
        return Vec::new();
    }
    let mut checked = Vec::with_capacity(written.0.len());
    for (name, Object(parameter)) in written.0 {
        let key = format!("parameters.{name}");
        let place = place(&parameter, &key, errors);
        if place == Place::Body && route.is_some_and(|(method, _)| !takes_body(method)) {
            errors.add(format!("{key}.in"), "expected no body parameter with GET, HEAD or DELETE");
        }
        checked.push(one((&key, name), place, parameter, errors));
    }
    if let Some((_, path)) = route {
        both_sides(path, &checked, errors);
    }
    headers_once(&checked, errors);
    arguments_once("parameters", &checked, errors);
    checked
}

fn takes_body(method: &Method) -> bool {
    *method == Method::POST || *method == Method::PUT || *method == Method::PATCH
}

/// Path and parameters must name each other.
fn both_sides(path: &str, checked: &[Parameter], errors: &mut EndpointErrors<'_>) {
    let mut named = HashSet::new();
    for segment in route::segments(path) {
        let Segment::Parameter(name) = segment else { continue };
        if !named.insert(name) {
            errors.add("route", format!("{{{name}}} is there more than once"));
        }
        if !checked.iter().any(|p| p.place == Place::Path && *p.name == *name) {
            let what = format!("{{{name}}} is not among the parameters");
            errors.add(
                "route",
                format!("{what}: expected a parameter {name:?} with `\"in\": \"path\"`"),
            );
        }
    }
    for parameter in checked.iter().filter(|p| p.place == Place::Path) {
        if !named.contains(&*parameter.name) {
            let expected = format!("the route has no {{{}}}", parameter.name);
            errors.add(format!("parameters.{}.in", parameter.name), expected);
        }
    }
}

fn headers_once(checked: &[Parameter], errors: &mut EndpointErrors<'_>) {
    let mut seen = HashSet::new();
    for parameter in checked.iter().filter(|p| p.place == Place::Header) {
        if !seen.insert(parameter.name.to_ascii_lowercase()) {
            let key = format!("parameters.{}", parameter.name);
            errors.add(key, "another parameter is the same header: case does not count");
        }
    }
}

/// Two parameters must not become the same argument. SQL Server's names have no case in most collations.
fn arguments_once(key: &str, checked: &[Parameter], errors: &mut EndpointErrors<'_>) {
    let mut seen: HashMap<String, &str> = HashMap::new();
    for parameter in checked {
        if let Some(other) = seen.insert(parameter.argument.to_ascii_lowercase(), &parameter.name) {
            let expected = format!("the same argument as {other:?}: expected another name");
            errors.add(format!("{key}.{}.as", parameter.name), expected);
        }
    }
}

fn place(written: &WrittenParameter, key: &str, errors: &mut EndpointErrors<'_>) -> Place {
    match written.place {
        Some(WrittenPlace::Path) => Place::Path,
        Some(WrittenPlace::Query) => Place::Query,
        Some(WrittenPlace::Header) => Place::Header,
        Some(WrittenPlace::Body) => Place::Body,
        Some(WrittenPlace::Claim) => Place::Claim,
        Some(WrittenPlace::Context) => Place::Context,
        None => {
            let expected = "expected path, query, header, body, claim or context";
            errors.add_missing(format!("{key}.in"), expected);
            Place::Query
        }
    }
}

fn kind(written: Option<WrittenType>, place: Place) -> Option<ParameterType> {
    Some(match written {
        None if place == Place::Context => ParameterType::String,
        None => return None,
        Some(WrittenType::String) => ParameterType::String,
        Some(WrittenType::Int32) => ParameterType::Int32,
        Some(WrittenType::Int64) => ParameterType::Int64,
        Some(WrittenType::Number) => ParameterType::Number,
        Some(WrittenType::Decimal) => ParameterType::Decimal,
        Some(WrittenType::Boolean) => ParameterType::Boolean,
        Some(WrittenType::Uuid) => ParameterType::Uuid,
        Some(WrittenType::Date) => ParameterType::Date,
        Some(WrittenType::Time) => ParameterType::Time,
        Some(WrittenType::Datetime) => ParameterType::Datetime,
        Some(WrittenType::Binary) => ParameterType::Binary,
        Some(WrittenType::Json) => ParameterType::Json,
        Some(WrittenType::Table) => ParameterType::Table,
    })
}

/// Checks one parameter or column.
fn one(
    (key, name): (&str, String),
    place: Place,
    mut written: WrittenParameter,
    errors: &mut EndpointErrors<'_>,
) -> Parameter {
    let kind = kind(written.kind, place).unwrap_or_else(|| {
        errors.add_missing(format!("{key}.type"), "expected a type, e.g. \"string\"");
        ParameterType::String
    });
    check_name(&name, key, place, errors);
    check_place(kind, key, place, errors);
    let argument = written.argument.as_deref().unwrap_or(&name);
    let argument = argument.strip_prefix('@').unwrap_or(argument);
    if !is_identifier(argument) {
        let expected =
            "expected the procedure's parameter: a letter or '_', then letters, digits or '_'";
        errors.add(format!("{key}.as"), expected);
    }
    if place == Place::Path && written.required == Some(false) {
        errors.add(format!("{key}.required"), "a path parameter is always required");
    }
    let required = written.required.unwrap_or(place == Place::Path);
    if required && written.default.is_some() {
        errors.add(format!("{key}.default"), "expected none, because the parameter is required");
    }
    let columns = columns(written.columns.take(), kind, key, errors);
    let table_type = table_type(written.table_type.as_deref(), kind, key, errors);
    let constraints = constraints(&written, kind, key, errors);
    let mut parameter = Parameter {
        argument: argument.into(),
        name: name.into(),
        place,
        kind,
        required,
        default: None,
        constraints,
        description: written.description,
        columns,
        table_type,
    };
    own_values(&mut parameter, (written.allowed, written.default), key, errors);
    parameter
}

fn check_name(name: &str, key: &str, place: Place, errors: &mut EndpointErrors<'_>) {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
        errors.add(key, "expected a name of 1 to 128 bytes without control characters");
    }
    if place == Place::Header {
        let lower = name.to_ascii_lowercase();
        let ours = lower.starts_with("fjord-") || lower.starts_with("nats-");
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            errors.add(key, "expected the name of a header");
        } else if ours || HEADERS_TAKEN.contains(&&*lower) {
            errors.add(key, "this header is not for parameters: expected another");
        }
    }
    if place == Place::Context && !CONTEXT.contains(&name) {
        errors.add(key, format!("expected one of {} with `in: context`", CONTEXT.join(", ")));
    }
}

fn check_place(kind: ParameterType, key: &str, place: Place, errors: &mut EndpointErrors<'_>) {
    if kind == ParameterType::Table && place != Place::Body {
        errors.add(format!("{key}.type"), "a table can only stand in the body");
    }
    if place == Place::Context && kind != ParameterType::String {
        errors.add(format!("{key}.type"), "expected string with `in: context`");
    }
}

fn columns(
    written: Option<Members<Object<WrittenParameter>>>,
    kind: ParameterType,
    key: &str,
    errors: &mut EndpointErrors<'_>,
) -> Vec<Parameter> {
    let key = format!("{key}.columns");
    let written = match (kind, written) {
        (ParameterType::Table, Some(columns)) if !columns.0.is_empty() => columns,
        (ParameterType::Table, _) => {
            errors.add_missing(key, "expected the columns of the table, by name");
            return Vec::new();
        }
        (_, None) => return Vec::new(),
        (_, Some(_)) => {
            errors.add(key, "expected only with the type `table`");
            return Vec::new();
        }
    };
    let mut checked = Vec::with_capacity(written.0.len());
    for (name, Object(column)) in written.0 {
        let key = format!("{key}.{name}");
        if column.place.is_some() {
            errors.add(format!("{key}.in"), "expected none: a column stands in its table");
        }
        checked.push(one((&key, name), Place::Column, column, errors));
    }
    arguments_once(&key, &checked, errors);
    checked
}

fn table_type(
    written: Option<&str>,
    kind: ParameterType,
    key: &str,
    errors: &mut EndpointErrors<'_>,
) -> Option<Arc<str>> {
    let name = written?;
    if kind != ParameterType::Table {
        errors.add(format!("{key}.tableType"), "expected only with the type `table`");
    }
    if ProcedureName::new(name).is_err() {
        errors.add(format!("{key}.tableType"), "expected schema.type, e.g. \"dbo.horse_list\"");
    }
    Some(name.into())
}

/// Checks that each constraint fits the type, and takes those that can be used as they are.
fn constraints(
    written: &WrittenParameter,
    kind: ParameterType,
    key: &str,
    errors: &mut EndpointErrors<'_>,
) -> Constraints {
    use ParameterType as T;
    let number = matches!(kind, T::Int32 | T::Int64 | T::Number | T::Decimal);
    let fits: [(&str, bool, bool, &str); 6] = [
        ("pattern", written.pattern.is_some(), kind == T::String, "string"),
        ("minimum", written.minimum.is_some(), number, "int32, int64, number and decimal"),
        ("maximum", written.maximum.is_some(), number, "int32, int64, number and decimal"),
        (
            "minLength",
            written.min_length.is_some(),
            matches!(kind, T::String | T::Binary),
            "string and binary",
        ),
        (
            "maxLength",
            written.max_length.is_some(),
            matches!(kind, T::String | T::Binary | T::Json),
            "string, binary and json",
        ),
        (
            "maxItems",
            written.max_items.is_some(),
            matches!(kind, T::Table | T::Json),
            "table and json",
        ),
    ];
    for (constraint, given, fits, types) in fits {
        if given && !fits {
            errors.add(
                format!("{key}.{constraint}"),
                format!("expected only with the types {types}"),
            );
        }
    }
    let pattern = written.pattern.as_deref().and_then(|pattern| {
        Regex::new(pattern)
            .map_err(|error| {
                let error = error.to_string();
                let last = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
                errors.add(
                    format!("{key}.pattern"),
                    format!("expected a regular expression: {last}"),
                );
            })
            .ok()
    });
    let minimum = bound("minimum", written.minimum.as_deref(), (kind, key), errors);
    let maximum = bound("maximum", written.maximum.as_deref(), (kind, key), errors);
    if let (Some(minimum), Some(maximum)) = (&minimum, &maximum)
        && decimal::compare(&minimum.0, &maximum.0) == Some(Ordering::Greater)
    {
        errors.add(format!("{key}.minimum"), "expected at most `maximum`");
    }
    if let (Some(fewest), Some(most)) = (written.min_length, written.max_length)
        && fewest > most
    {
        errors.add(format!("{key}.minLength"), "expected at most `maxLength`");
    }
    Constraints {
        allowed: None,
        pattern,
        minimum,
        maximum,
        length_min: written.min_length,
        length_max: written.max_length,
        items_max: written.max_items,
    }
}

fn bound(
    constraint: &str,
    raw: Option<&RawValue>,
    (kind, key): (ParameterType, &str),
    errors: &mut EndpointErrors<'_>,
) -> Option<Bound> {
    let text = raw?.get();
    let whole = text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let fits = match kind {
        ParameterType::Int32 => whole && text.parse::<i32>().is_ok(),
        ParameterType::Int64 => whole && text.parse::<i64>().is_ok(),
        _ => decimal::is_number(text),
    };
    if !fits {
        errors.add(format!("{key}.{constraint}"), check::expected(kind));
        return None;
    }
    Some(Bound(text.into()))
}

/// Reads `enum` and `default` as a request's values are read, so that they keep to the same rules.
fn own_values(
    parameter: &mut Parameter,
    (allowed, default): (Option<Vec<Box<RawValue>>>, Option<Box<RawValue>>),
    key: &str,
    errors: &mut EndpointErrors<'_>,
) {
    use ParameterType as T;
    if let Some(allowed) = allowed {
        let key = format!("{key}.enum");
        if matches!(parameter.kind, T::Boolean | T::Binary | T::Json | T::Table) {
            errors.add(&key, "expected only with text, numbers, dates and times");
        } else if allowed.is_empty() {
            errors.add(&key, "expected at least one value");
        } else {
            let mut values: Vec<Value> = Vec::with_capacity(allowed.len());
            for raw in allowed {
                match read_own(parameter, &raw) {
                    Ok(Value::Null) => errors.add(&key, "expected no null"),
                    Ok(value) if values.contains(&value) => {
                        errors.add(&key, format!("{raw} is given more than once"));
                    }
                    Ok(value) => values.push(value),
                    Err(expected) => errors.add(&key, format!("{raw}: {expected}")),
                }
            }
            parameter.constraints.allowed = Some(values);
        }
    }
    let key = format!("{key}.default");
    match default.map(|raw| (read_own(parameter, &raw), raw)) {
        None => {}
        Some(_) if matches!(parameter.kind, T::Table) => {
            errors.add(key, "a table has no default");
        }
        Some((Ok(value), _)) => parameter.default = Some(value),
        Some((Err(expected), raw)) => errors.add(key, format!("{raw}: {expected}")),
    }
}

fn read_own(parameter: &Parameter, raw: &RawValue) -> Result<Value, String> {
    let mut findings = Findings::default();
    let read = check::from_raw(parameter, raw, Spot::Named(parameter), &mut findings);
    match (read, findings.into_violations().into_iter().next()) {
        (Some(value), None) => Ok(value.into_value()),
        (_, violation) => Err(violation.map_or_else(String::new, |violation| violation.detail)),
    }
}
