//! Validates the parameters of an endpoint, and the columns of its tables.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::{HeaderName, Method};

use super::{Route, constraints, session_context};
use crate::catalogue::definition::ParameterDefinition;
use crate::catalogue::definition::json::{ObjectOnly, OrderedMembers};
use crate::catalogue::error::EndpointErrors;
use crate::catalogue::names::{ProcedureName, is_parameter_name, is_sql_name};
use crate::catalogue::parameter::{Parameter, ParameterSource, ParameterType};
use crate::catalogue::route::{self, Segment};

/// The maximum number of parameters for an endpoint: SQL Server's limit for a procedure.
const PARAMETERS_MAX: usize = 2100;
/// The maximum length of a parameter's name in bytes.
const NAME_BYTES_MAX: usize = 128;
/// The allowed names of parameters with `in: context`.
const CONTEXT_NAMES: [&str; 4] = ["request_id", "idempotency_key", "principal", "client_ip"];
/// Headers that parameters cannot use, because they describe the message or its sender.
pub(super) const RESERVED_HEADERS: [&str; 20] = [
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

/// The parameters or columns of a definition, by name.
type ParameterDefinitions = OrderedMembers<ObjectOnly<ParameterDefinition>>;

/// Validates all parameters. Checks that the path and the parameters with `in: path` match.
pub(super) fn parameters(
    definitions: ParameterDefinitions,
    route: Option<&Route>,
    errors: &mut EndpointErrors<'_>,
) -> Vec<Parameter> {
    if definitions.0.len() > PARAMETERS_MAX {
        errors.add("parameters", format!("expected at most {PARAMETERS_MAX}"));
        return Vec::new();
    }
    let mut parameters = Vec::with_capacity(definitions.0.len());
    for (name, ObjectOnly(definition)) in definitions.0 {
        let key = format!("parameters.{name}");
        let source = definition.source.unwrap_or_else(|| {
            let expected = "expected path, query, header, body, claim or context";
            errors.add_missing(format!("{key}.in"), expected);
            ParameterSource::Query
        });
        if source == ParameterSource::Body && route.is_some_and(|(method, _)| !has_body(method)) {
            errors.add(format!("{key}.in"), "expected no body parameter with GET, HEAD or DELETE");
        }
        parameters.push(parameter((&key, name), source, definition, errors));
    }
    if let Some((_, path)) = route {
        check_path(path, &parameters, errors);
    }
    check_headers(&parameters, errors);
    check_arguments("parameters", &parameters, errors);
    session_context::check(&parameters, errors);
    parameters
}

fn has_body(method: &Method) -> bool {
    *method == Method::POST || *method == Method::PUT || *method == Method::PATCH
}

/// Checks that each `{name}` in the path is a parameter with `in: path`, and that the path contains each such
/// parameter.
fn check_path(path: &str, parameters: &[Parameter], errors: &mut EndpointErrors<'_>) {
    let mut named = HashSet::new();
    for segment in route::segments(path) {
        let Segment::Parameter(name) = segment else { continue };
        if !named.insert(name) {
            errors.add("route", format!("{{{name}}} is given more than once"));
        }
        let is_declared = |parameter: &Parameter| {
            parameter.source == ParameterSource::Path && *parameter.name == *name
        };
        let is_explained = ["parameters".to_owned(), format!("parameters.{name}.in")]
            .iter()
            .any(|key| errors.is_absence_explained(key));
        if !is_explained && !parameters.iter().any(is_declared) {
            let expected = format!("expected a parameter {name:?} with `\"in\": \"path\"`");
            errors.add("route", format!("{{{name}}} is not among the parameters: {expected}"));
        }
    }
    for parameter in parameters.iter().filter(|p| p.source == ParameterSource::Path) {
        if !named.contains(&*parameter.name) {
            let expected = format!("the route has no {{{}}}", parameter.name);
            errors.add(format!("parameters.{}.in", parameter.name), expected);
        }
    }
}

/// Checks that no two parameters use the same header.
fn check_headers(parameters: &[Parameter], errors: &mut EndpointErrors<'_>) {
    let mut seen = HashSet::new();
    for parameter in parameters.iter().filter(|p| p.source == ParameterSource::Header) {
        if !seen.insert(parameter.name.to_ascii_lowercase()) {
            let key = format!("parameters.{}", parameter.name);
            errors.add(
                key,
                "another parameter uses the same header: header names are not case-sensitive",
            );
        }
    }
}

/// Checks that no two parameters map to the same argument. Case is ignored, as in most collations of SQL Server.
fn check_arguments(key: &str, parameters: &[Parameter], errors: &mut EndpointErrors<'_>) {
    let mut seen: HashMap<String, &str> = HashMap::new();
    for parameter in parameters {
        if let Some(other) = seen.insert(parameter.argument.to_lowercase(), &parameter.name) {
            let expected = format!("the same argument as {other:?}: expected another name");
            errors.add(format!("{key}.{}.as", parameter.name), expected);
        }
    }
}

/// Validates one parameter or column.
fn parameter(
    (key, name): (&str, String),
    source: ParameterSource,
    mut definition: ParameterDefinition,
    errors: &mut EndpointErrors<'_>,
) -> Parameter {
    let kind = definition.kind.unwrap_or_else(|| {
        if source != ParameterSource::Context {
            errors.add_missing(format!("{key}.type"), "expected a type, e.g. \"string\"");
        }
        ParameterType::String
    });
    check_name(&name, key, source, errors);
    check_source(kind, key, source, errors);
    let argument = argument(&name, definition.argument.as_deref(), source)
        .unwrap_or_else(|expected| {
            errors.add(format!("{key}.as"), expected);
            &name
        })
        .into();
    if source == ParameterSource::Path && definition.required == Some(false) {
        errors.add(format!("{key}.required"), "a path parameter is always required");
    }
    let required = definition.required.unwrap_or(source == ParameterSource::Path);
    if required && definition.default.is_some() {
        errors.add(format!("{key}.default"), "expected none, because the parameter is required");
    }
    let columns = columns(definition.columns.take(), kind, key, errors);
    let table_type = table_type(definition.table_type.as_deref(), kind, key, errors);
    let constraints = constraints::constraints(&definition, kind, key, errors);
    let mut parameter = Parameter {
        argument,
        name: name.into(),
        source,
        session_context: definition.session_context,
        kind,
        required,
        default: None,
        constraints,
        description: definition.description,
        columns,
        table_type,
    };
    constraints::add_allowed(&mut parameter, definition.allowed, key, errors);
    constraints::add_default(&mut parameter, definition.default, key, errors);
    parameter
}

/// Returns the name of the procedure's parameter without `@`, or of the table type's column.
fn argument<'a>(
    name: &'a str,
    written: Option<&'a str>,
    source: ParameterSource,
) -> Result<&'a str, &'static str> {
    let argument = written.unwrap_or(name);
    let argument = argument.strip_prefix('@').unwrap_or(argument);
    if source == ParameterSource::Column {
        let expected = "expected the name of the table type's column: 1 to 128 characters, none of them a control character";
        if is_sql_name(argument) { Ok(argument) } else { Err(expected) }
    } else {
        let expected = "expected the name of the procedure's parameter: letters, digits, '_', '$', '#' and '@'";
        if is_parameter_name(argument) { Ok(argument) } else { Err(expected) }
    }
}

fn check_name(name: &str, key: &str, source: ParameterSource, errors: &mut EndpointErrors<'_>) {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
        errors.add(key, "expected a name of 1 to 128 bytes without control characters");
    }
    if source == ParameterSource::Header {
        let lower = name.to_ascii_lowercase();
        let is_internal = lower.starts_with("fjord-") || lower.starts_with("nats-");
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            errors.add(key, "expected the name of a header");
        } else if is_internal || RESERVED_HEADERS.contains(&&*lower) {
            errors.add(key, "this header cannot be a parameter: expected another");
        }
    }
    if source == ParameterSource::Context && !CONTEXT_NAMES.contains(&name) {
        let names = CONTEXT_NAMES.join(", ");
        errors.add(key, format!("expected one of {names} with `in: context`"));
    }
}

fn check_source(
    kind: ParameterType,
    key: &str,
    source: ParameterSource,
    errors: &mut EndpointErrors<'_>,
) {
    if kind == ParameterType::Table && source != ParameterSource::Body {
        errors.add(format!("{key}.type"), "expected a table only with `in: body`");
    }
    if source == ParameterSource::Context && kind != ParameterType::String {
        errors.add(format!("{key}.type"), "expected string with `in: context`");
    }
}

fn columns(
    definitions: Option<ParameterDefinitions>,
    kind: ParameterType,
    key: &str,
    errors: &mut EndpointErrors<'_>,
) -> Vec<Parameter> {
    let key = format!("{key}.columns");
    let definitions = match (kind, definitions) {
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
    let mut columns = Vec::with_capacity(definitions.0.len());
    for (name, ObjectOnly(definition)) in definitions.0 {
        let key = format!("{key}.{name}");
        if definition.source.is_some() {
            errors.add(format!("{key}.in"), "expected none, because a column is part of its table");
        }
        columns.push(parameter((&key, name), ParameterSource::Column, definition, errors));
    }
    check_arguments(&key, &columns, errors);
    columns
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
        errors.add(
            format!("{key}.tableType"),
            "expected schema.type, e.g. \"dbo.horse_list\" or \"dbo.[horse list]\"",
        );
    }
    Some(name.into())
}
