//! Validates an endpoint's definition and collects all errors.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::auth::{Auth, AuthMethod, check_issuers};
use super::cors::CorsRules;
use super::defaults::EndpointDefaults;
use super::definition::json::{ObjectOnly, OrderedMembers};
use super::definition::{
    AuthDefinition, EndpointDefinition, RateLimitDefinition, SizeDefinition, StatusDefinition,
};
use super::endpoint::{Endpoint, Execution, OnDisconnect, RateLimit, ResultKind, StatusMap};
use super::error::EndpointErrors;
use super::names::{EndpointId, eq_ignore_case, is_parameter_name, is_token};
use super::parameter::{Parameter, ParameterSource};
use super::route;
use crate::units::{BYTES_EXPECTED, DURATION_EXPECTED, parse_bytes, parse_duration};

mod constraints;
mod cors;
mod examples;
mod parameters;
mod produces;
mod queues;
mod response;
mod returns;
mod session_context;

use queues::QueueKeys;
use response::ResponseKeys;

/// The largest value of `attempts`.
const ATTEMPTS_CEILING: u32 = 20;
/// The largest value of `timeout` and `session`.
const SESSION_CEILING: Duration = Duration::from_hours(24);
/// The largest value of `max_body`, in bytes.
const BODY_BYTES_CEILING: usize = 64 << 20;
/// The ceiling of `max_in_flight`.
const IN_FLIGHT_CEILING: usize = 1_000_000;
/// The allowed range for the window of a rate limit.
const WINDOW: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_hours(24);
/// The handler that calls a procedure.
const PROCEDURE_HANDLER: &str = "procedure";
/// The statuses of the gateway's own failures. `status` must not map a procedure's outcome to them.
const GATEWAY_STATUSES: [u16; 3] = [502, 503, 504];

/// The method and the path of a route.
type Route = (Method, Arc<str>);

/// Validates one endpoint. Returns `None` if it has an error.
pub(super) fn endpoint(
    id: &str,
    mut definition: EndpointDefinition,
    defaults: &EndpointDefaults,
    errors: &mut EndpointErrors<'_>,
) -> Option<Endpoint> {
    let before = errors.list.len();
    let response = ResponseKeys::take(&mut definition);
    let queues = QueueKeys::take(&mut definition);
    let id = EndpointId::new(id).map_err(|error| errors.add("", format!("id: {error}"))).ok();
    let route = route(definition.route.as_deref(), errors);
    let parameters = parameters::parameters(definition.parameters, route.as_ref(), errors);
    let result = definition.result.unwrap_or(ResultKind::Rows);
    let (timeout, session) =
        timeouts(definition.timeout.as_deref(), definition.session.as_deref(), defaults, errors);
    let handler = handler(definition.handler.as_deref(), errors);
    let queues = queues.validate(&handler, id.as_ref(), errors);
    if definition.transaction && &*handler != PROCEDURE_HANDLER {
        errors.add("transaction", "expected only with the handler `procedure`");
    }
    if definition.dry_run {
        check_dry_run(definition.transaction, route.as_ref(), &parameters, errors);
    }
    let attempts = attempts(definition.attempts, defaults, errors);
    let outputs = outputs(definition.outputs, result, errors);
    let returns = returns::returns(definition.returns.as_deref(), (result, &outputs), errors);
    let status = status_map(definition.status, errors);
    let auth = auth(definition.auth, defaults, errors);
    let body_bytes_max = body_bytes_max(definition.max_body, defaults, errors);
    let rate_limit = definition.rate_limit.and_then(|rate| rate_limit(&rate.0, errors));
    let in_flight_per_caller_max = max_in_flight(definition.max_in_flight, errors);
    let execution = execution(definition.execution, route.as_ref());
    let facts = (route.as_ref(), auth.as_ref(), execution);
    let response = response.validate(facts, (&parameters, &outputs), errors);
    let cors = cors::settings(definition.cors, defaults, errors);
    if errors.list.len() > before {
        return None;
    }
    let (method, path) = route?;
    let auth = auth?;
    let used_headers = cors::used_headers(&method, definition.dry_run, &response);
    let mut endpoint = Endpoint {
        id: id?,
        execution,
        transaction: definition.transaction,
        dry_run: definition.dry_run,
        method,
        path,
        summary: definition.summary,
        description: definition.description,
        tags: definition.tags,
        deprecated: definition.deprecated,
        queues: queues?,
        handler,
        cors: CorsRules::new(&cors, &parameters, &auth, &used_headers).map(Arc::new),
        parameters: parameters.into(),
        result,
        produces: response.produces,
        outputs,
        headers: response.headers,
        returns,
        examples: Vec::new(),
        status,
        timeout,
        session,
        attempts,
        on_disconnect: definition.on_disconnect.unwrap_or(OnDisconnect::Finish),
        auth,
        body_bytes_max,
        rate_limit,
        in_flight_per_caller_max,
        cache: response.cache,
        cache_control: response.cache_control,
    };
    // Examples are validated last, because the rules for an example depend on all other keys.
    endpoint.examples = examples::examples(definition.examples.as_deref(), &endpoint, errors);
    (errors.list.len() == before).then_some(endpoint)
}

fn attempts(
    definition: Option<u32>,
    defaults: &EndpointDefaults,
    errors: &mut EndpointErrors<'_>,
) -> u32 {
    let attempts = definition.unwrap_or(defaults.attempts);
    if !(1..=ATTEMPTS_CEILING).contains(&attempts) {
        errors.add("attempts", format!("expected 1 to {ATTEMPTS_CEILING}"));
    }
    attempts
}

fn route(written: Option<&str>, errors: &mut EndpointErrors<'_>) -> Option<Route> {
    let Some(text) = written else {
        errors.add_missing("route", route::EXPECTED);
        return None;
    };
    let Some(parsed) = route::parse(text) else {
        errors.add("route", route::EXPECTED);
        return None;
    };
    if route::RESERVED.contains(&&*parsed.1) {
        errors.add("route", "expected a path that the gateway does not serve itself");
    }
    Some(parsed)
}

fn check_dry_run(
    transaction: bool,
    route: Option<&Route>,
    parameters: &[Parameter],
    errors: &mut EndpointErrors<'_>,
) {
    if !transaction {
        let expected = "expected only together with \"transaction\": true, because a dry run rolls that transaction back";
        errors.add("dry_run", expected);
    }
    if route.is_some_and(|(method, _)| method.is_safe()) {
        errors.add("dry_run", "expected only with POST, PUT, PATCH and DELETE");
    }
    let is_prefer = |parameter: &&Parameter| {
        parameter.source == ParameterSource::Header && parameter.name.eq_ignore_ascii_case("prefer")
    };
    if let Some(parameter) = parameters.iter().find(is_prefer) {
        let key = format!("parameters.{}", parameter.name);
        errors.add(key, "expected another header: with dry_run the gateway itself uses Prefer");
    }
}

/// Returns the execution guarantee. By default, it depends on the method.
fn execution(written: Option<Execution>, route: Option<&Route>) -> Execution {
    // All other permitted methods are idempotent (RFC 9110 §9.2.2).
    let is_idempotent = |method: &Method| *method != Method::POST && *method != Method::PATCH;
    match (written, route) {
        (Some(written), _) => written,
        (None, Some((method, _))) if !is_idempotent(method) => Execution::AtMostOnce,
        (None, _) => Execution::AtLeastOnce,
    }
}

/// Returns `timeout` and `session`.
fn timeouts(
    timeout: Option<&str>,
    session: Option<&str>,
    defaults: &EndpointDefaults,
    errors: &mut EndpointErrors<'_>,
) -> (Duration, Duration) {
    let mut read = |key: &str, text: Option<&str>| {
        let duration = parse_duration(text?);
        let duration = duration.filter(|d| !d.is_zero() && *d <= SESSION_CEILING);
        if duration.is_none() {
            errors.add(key, format!("expected {DURATION_EXPECTED}, more than 0 and at most 24h"));
        }
        duration
    };
    let timeout = read("timeout", timeout).unwrap_or(defaults.timeout);
    let session = read("session", session);
    if session.is_some_and(|session| session < timeout) {
        errors.add("session", "expected at least the endpoint's timeout");
    }
    (timeout, session.unwrap_or(timeout))
}

fn handler(written: Option<&str>, errors: &mut EndpointErrors<'_>) -> Arc<str> {
    let handler = written.unwrap_or(PROCEDURE_HANDLER);
    if !is_token(handler) {
        errors.add("handler", "expected the name of a handler, e.g. \"procedure\"");
    }
    handler.into()
}

fn outputs(
    written: Vec<String>,
    result: ResultKind,
    errors: &mut EndpointErrors<'_>,
) -> Vec<String> {
    if !written.is_empty()
        && !matches!(result, ResultKind::Row | ResultKind::Value | ResultKind::Full)
    {
        errors.add("outputs", "expected only with the results `row`, `value` and `full`");
    }
    let mut outputs: Vec<String> = Vec::with_capacity(written.len());
    for name in written {
        let name = name.strip_prefix('@').unwrap_or(&name);
        if !is_parameter_name(name) {
            errors.add("outputs", format!("{name:?}: expected the name of an OUTPUT parameter"));
        } else if outputs.iter().any(|other| eq_ignore_case(other, name)) {
            errors.add("outputs", format!("{name:?} is given more than once"));
        } else {
            outputs.push(name.to_owned());
        }
    }
    outputs
}

fn status_map(
    ObjectOnly(definition): ObjectOnly<StatusDefinition>,
    errors: &mut EndpointErrors<'_>,
) -> StatusMap {
    StatusMap {
        returns: statuses(("status.return", 200), definition.returns, errors),
        errors: statuses(("status.error", 400), definition.errors, errors),
    }
}

fn statuses<K: FromStr + Ord + Copy>(
    (key, lowest): (&str, u16),
    definition: OrderedMembers<u16>,
    errors: &mut EndpointErrors<'_>,
) -> BTreeMap<K, u16> {
    let mut statuses = BTreeMap::new();
    for (number, status) in definition.0 {
        let key = format!("{key}.{number}");
        if !(lowest..=599).contains(&status) || GATEWAY_STATUSES.contains(&status) {
            let reserved = "except 502, 503 and 504, which are reserved for the gateway";
            errors.add(&key, format!("expected a status from {lowest} to 599, {reserved}"));
        }
        match number.parse() {
            Ok(number) if statuses.insert(number, status).is_none() => {}
            _ => errors.add(&key, "expected whole numbers as keys, each given once"),
        }
    }
    statuses
}

fn auth(
    definition: Option<AuthDefinition>,
    defaults: &EndpointDefaults,
    errors: &mut EndpointErrors<'_>,
) -> Option<Auth> {
    let required = match definition {
        Some(AuthDefinition::Public(_)) => return Some(Auth::Public),
        Some(AuthDefinition::Required(required)) => required,
        None => {
            if defaults.auth.is_none() {
                let expected = "expected \"public\", or an object with `methods` and `scopes`, because the configuration \
                                sets no default";
                errors.add_missing("auth", expected);
            }
            return defaults.auth.clone();
        }
    };
    let methods = required.methods.unwrap_or_else(|| AuthMethod::ALL.to_vec());
    if methods.is_empty() {
        errors.add("auth.methods", "expected at least one of jwt, api-key and certificate");
    }
    // The characters that a scope can contain (RFC 6749 §3.3).
    let well_formed = |scope: &String| {
        !scope.is_empty() && scope.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
    };
    if !required.scopes.iter().all(well_formed) {
        errors.add("auth.scopes", "expected scopes without spaces, quotes or backslashes");
    }
    if let Some(issuers) = &required.issuers
        && let Err(expected) = check_issuers(issuers, &methods)
    {
        errors.add("auth.issuers", expected);
    }
    let issuers = required.issuers.unwrap_or_default();
    Some(Auth::Required { methods, scopes: required.scopes, issuers })
}

fn body_bytes_max(
    definition: Option<SizeDefinition>,
    defaults: &EndpointDefaults,
    errors: &mut EndpointErrors<'_>,
) -> usize {
    let bytes = match definition {
        None => return defaults.body_bytes_max,
        Some(SizeDefinition::Bytes(bytes)) => Some(bytes),
        Some(SizeDefinition::Text(text)) => parse_bytes(&text),
    };
    let ceiling = defaults.body_bytes_ceiling;
    match bytes.filter(|bytes| (1..=BODY_BYTES_CEILING).contains(bytes)) {
        Some(bytes) if bytes <= ceiling => return bytes,
        Some(_) => {
            let limit = "half of gateway.http.buffered_bytes_per_client_max";
            errors.add("max_body", format!("expected at most {limit} ({ceiling} bytes)"));
        }
        None => errors.add("max_body", format!("expected {BYTES_EXPECTED}, at most 64MiB")),
    }
    defaults.body_bytes_max
}

fn max_in_flight(definition: Option<usize>, errors: &mut EndpointErrors<'_>) -> Option<usize> {
    if definition.is_some_and(|requests| !(1..=IN_FLIGHT_CEILING).contains(&requests)) {
        errors.add("max_in_flight", format!("expected 1 to {IN_FLIGHT_CEILING}"));
    }
    definition
}

fn rate_limit(
    definition: &RateLimitDefinition,
    errors: &mut EndpointErrors<'_>,
) -> Option<RateLimit> {
    if definition.requests == 0 {
        errors.add("rate_limit.requests", "expected at least 1");
    }
    let window = parse_duration(&definition.window).filter(|window| WINDOW.contains(window));
    if window.is_none() {
        errors.add("rate_limit.window", format!("expected {DURATION_EXPECTED}, from 1s to 24h"));
    }
    Some(RateLimit { requests: definition.requests, window: window? })
}
