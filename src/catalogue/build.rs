//! From what was written to a checked endpoint. Every error is gathered, none ends the check.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method};

use super::endpoint::{
    Auth, AuthMethod, Endpoint, Execution, OnDisconnect, RateLimit, ResultKind, StatusMap,
};
use super::error::EndpointErrors;
use super::names::{EndpointId, ProcedureName, QueueName, is_identifier};
use super::parameter::{Parameter, Place};
use super::route;
use super::written::{
    Members, WrittenAuth, WrittenEndpoint, WrittenExecution, WrittenMethod, WrittenOnDisconnect,
    WrittenRate, WrittenResult, WrittenSize, WrittenStatus,
};
use crate::config::CatalogueConfig;
use crate::config::auth::issuer::is_name;
use crate::config::duration::{BYTES_EXPECTED, DURATION_EXPECTED, parse_bytes, parse_duration};

mod cors;
mod parameters;

/// Most attempts of a request.
const ATTEMPTS_CEILING: u32 = 20;
/// Longest timeout or session.
const SESSION_CEILING: Duration = Duration::from_hours(24);
/// Largest body that an endpoint can allow, in bytes.
const BODY_BYTES_CEILING: usize = 64 << 20;
/// Longest window of a rate.
const WINDOW_CEILING: Duration = Duration::from_hours(24);
/// The handler that calls a procedure.
const PROCEDURE_HANDLER: &str = "procedure";
/// Statuses by which the gateway itself tells what became of a request (DESIGN §5).
const OWN_STATUSES: [u16; 3] = [502, 503, 504];

/// Checks one endpoint; `None` when it has an error.
pub(super) fn endpoint(
    id: &str,
    written: WrittenEndpoint,
    config: &CatalogueConfig,
    errors: &mut EndpointErrors<'_>,
) -> Option<Endpoint> {
    let before = errors.list.len();
    let id = EndpointId::new(id).map_err(|error| errors.add("", format!("id: {error}"))).ok();
    let route = route_of(written.route.as_deref(), errors);
    let parameters = parameters::parameters(written.parameters, route.as_ref(), errors);
    let result = result_of(written.result);
    let (timeout, session) =
        times(written.timeout.as_deref(), written.session.as_deref(), config, errors);
    let (handler, procedure) =
        handler(written.handler.as_deref(), written.procedure.as_deref(), errors);
    if written.transaction && &*handler != PROCEDURE_HANDLER {
        errors.add("transaction", "expected only with the handler `procedure`");
    }
    if written.dry_run {
        dry_run(written.transaction, route.as_ref(), &parameters, errors);
    }
    let attempts = written.attempts.unwrap_or(config.attempts_default);
    if !(1..=ATTEMPTS_CEILING).contains(&attempts) {
        errors.add("attempts", format!("expected 1 to {ATTEMPTS_CEILING}"));
    }
    let queue = written.queue.as_deref().map(QueueName::new).transpose();
    let queue = queue.map_err(|error| errors.add("queue", error.to_string())).ok().flatten();
    let queue = queue.or_else(|| QueueName::new(id.as_ref()?.as_str()).ok());
    let outputs = outputs(written.outputs, result, errors);
    let status = status(written.status.0, errors);
    let auth = auth(written.auth, config, errors);
    let body_bytes_max = body_bytes_max(written.max_body, config, errors);
    let rate_limit = written.rate_limit.and_then(|rate| rate_limit(&rate.0, errors));
    let cache_control = cache_control(written.cache_control, route.as_ref(), errors);
    let known = (&*parameters, auth.as_ref(), written.dry_run);
    let cors = cors::rules(written.cors, config, known, errors);
    if errors.list.len() > before {
        return None;
    }
    let (method, path) = route?;
    Some(Endpoint {
        id: id?,
        execution: execution(written.execution, &method),
        transaction: written.transaction,
        dry_run: written.dry_run,
        method,
        path,
        summary: written.summary,
        description: written.description,
        tags: written.tags,
        deprecated: written.deprecated,
        queue: queue?,
        handler,
        procedure,
        parameters: parameters.into(),
        result,
        outputs,
        status,
        timeout,
        session,
        attempts,
        on_disconnect: match written.on_disconnect {
            Some(WrittenOnDisconnect::Cancel) => OnDisconnect::Cancel,
            Some(WrittenOnDisconnect::Finish) | None => OnDisconnect::Finish,
        },
        auth: auth?,
        body_bytes_max,
        rate_limit,
        cache_control,
        cors,
    })
}

fn route_of(written: Option<&str>, errors: &mut EndpointErrors<'_>) -> Option<(Method, Arc<str>)> {
    let Some(text) = written else {
        errors.add_missing("route", route::EXPECTED);
        return None;
    };
    let Some(parsed) = route::parse(text) else {
        errors.add("route", route::EXPECTED);
        return None;
    };
    if route::RESERVED.contains(&&*parsed.1) {
        errors.add("route", "expected a path that the gateway does not answer itself");
    }
    Some(parsed)
}

/// What a dry run needs.
fn dry_run(
    transaction: bool,
    route: Option<&(Method, Arc<str>)>,
    parameters: &[Parameter],
    errors: &mut EndpointErrors<'_>,
) {
    if !transaction {
        let expected = "expected together with \"transaction\": true, which is what it rolls back";
        errors.add("dry_run", expected);
    }
    if route.is_some_and(|(method, _)| method.is_safe()) {
        errors.add("dry_run", "expected only with POST, PUT, PATCH and DELETE");
    }
    let is_prefer =
        |p: &Parameter| p.place == Place::Header && p.name.eq_ignore_ascii_case("prefer");
    if let Some(own) = parameters.iter().find(|parameter| is_prefer(parameter)) {
        let key = format!("parameters.{}", own.name);
        errors
            .add(key, "expected another header: Prefer is the gateway's where there is a dry run");
    }
}

fn result_of(written: Option<WrittenResult>) -> ResultKind {
    match written {
        Some(WrittenResult::Rows) | None => ResultKind::Rows,
        Some(WrittenResult::Row) => ResultKind::Row,
        Some(WrittenResult::Value) => ResultKind::Value,
        Some(WrittenResult::Sets) => ResultKind::Sets,
        Some(WrittenResult::Json) => ResultKind::Json,
        Some(WrittenResult::None) => ResultKind::None,
        Some(WrittenResult::Full) => ResultKind::Full,
    }
}

fn execution(written: Option<WrittenExecution>, method: &Method) -> Execution {
    match written {
        Some(WrittenExecution::AtMostOnce) => Execution::AtMostOnce,
        // RFC 9110 §9.2.2: all other methods are idempotent.
        None if *method == Method::POST || *method == Method::PATCH => Execution::AtMostOnce,
        Some(WrittenExecution::AtLeastOnce) | None => Execution::AtLeastOnce,
    }
}

fn times(
    timeout: Option<&str>,
    session: Option<&str>,
    config: &CatalogueConfig,
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
    let timeout = read("timeout", timeout).unwrap_or(config.timeout_default);
    let written = read("session", session);
    if written.is_some_and(|session| session < timeout) {
        errors.add("session", "expected at least the endpoint's timeout");
    }
    (timeout, written.unwrap_or(timeout))
}

fn handler(
    handler: Option<&str>,
    procedure: Option<&str>,
    errors: &mut EndpointErrors<'_>,
) -> (Arc<str>, Option<ProcedureName>) {
    let handler = handler.unwrap_or(PROCEDURE_HANDLER);
    if QueueName::new(handler).is_err() {
        errors.add("handler", "expected the name of a handler, e.g. \"procedure\"");
    }
    let name = procedure.map(ProcedureName::new).transpose();
    let name = name.map_err(|error| errors.add("procedure", error.to_string())).ok().flatten();
    if handler == PROCEDURE_HANDLER && procedure.is_none() {
        errors
            .add("procedure", "missing: the handler `procedure` needs it, e.g. \"dbo.horse_get\"");
    }
    (handler.into(), name)
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
        if !is_identifier(name) {
            errors.add("outputs", format!("{name:?}: expected the name of an OUTPUT parameter"));
        } else if outputs.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            errors.add("outputs", format!("{name:?} is given more than once"));
        } else {
            outputs.push(name.to_owned());
        }
    }
    outputs
}

fn status(written: WrittenStatus, errors: &mut EndpointErrors<'_>) -> StatusMap {
    StatusMap {
        returns: outcomes(("status.return", 200), written.returns, errors),
        errors: outcomes(("status.error", 400), written.errors, errors),
    }
}

fn outcomes<K: FromStr + Ord + Copy>(
    (key, lowest): (&str, u16),
    written: Members<u16>,
    errors: &mut EndpointErrors<'_>,
) -> std::collections::BTreeMap<K, u16> {
    let mut read = std::collections::BTreeMap::new();
    for (outcome, status) in written.0 {
        let key = format!("{key}.{outcome}");
        if !(lowest..=599).contains(&status) || OWN_STATUSES.contains(&status) {
            let own = "other than 502, 503 and 504, by which the gateway tells of itself";
            errors.add(&key, format!("expected a status from {lowest} to 599, {own}"));
        }
        match outcome.parse() {
            Ok(number) if read.insert(number, status).is_none() => {}
            _ => errors.add(&key, "expected a whole number as the key, each once"),
        }
    }
    read
}

fn auth(
    written: Option<WrittenAuth>,
    config: &CatalogueConfig,
    errors: &mut EndpointErrors<'_>,
) -> Option<Auth> {
    let required = match written {
        Some(WrittenAuth::Public(_)) => return Some(Auth::Public),
        Some(WrittenAuth::Required(required)) => required,
        None => {
            if config.auth_default.is_none() {
                let words = "\"public\", or an object with `methods` and `scopes`";
                let why = "because the configuration names no default";
                errors.add_missing("auth", &format!("expected {words}, {why}"));
            }
            return config.auth_default.clone();
        }
    };
    let methods = required.methods.map_or_else(
        || vec![AuthMethod::Jwt, AuthMethod::ApiKey, AuthMethod::ClientCertificate],
        |methods| {
            let method = |method| match method {
                WrittenMethod::Jwt => AuthMethod::Jwt,
                WrittenMethod::ApiKey => AuthMethod::ApiKey,
                WrittenMethod::Certificate => AuthMethod::ClientCertificate,
            };
            methods.into_iter().map(method).collect()
        },
    );
    if methods.is_empty() {
        errors.add("auth.methods", "expected at least one of jwt, api-key and certificate");
    }
    // RFC 6749 §3.3: the characters of a scope.
    let well_formed = |scope: &String| {
        !scope.is_empty() && scope.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
    };
    if !required.scopes.iter().all(well_formed) {
        errors.add("auth.scopes", "expected scopes without blanks, quotes or backslashes");
    }
    let issuers = issuers(required.issuers, &methods, errors);
    Some(Auth::Required { methods, scopes: required.scopes, issuers })
}

fn issuers(
    written: Option<Vec<String>>,
    methods: &[AuthMethod],
    errors: &mut EndpointErrors<'_>,
) -> Vec<String> {
    let Some(issuers) = written else { return Vec::new() };
    if let Some(expected) = issuers_error(&issuers, methods) {
        errors.add("auth.issuers", expected);
    }
    issuers
}

/// What is wrong with the issuers that an `auth` names.
pub(crate) fn issuers_error(issuers: &[String], methods: &[AuthMethod]) -> Option<&'static str> {
    if issuers.is_empty() || !issuers.iter().all(|name| is_name(name)) {
        return Some(
            "expected the names of issuers in the configuration (auth.jwt.NAME), one or more",
        );
    }
    (!methods.contains(&AuthMethod::Jwt)).then_some("expected only with the method jwt")
}

fn body_bytes_max(
    written: Option<WrittenSize>,
    config: &CatalogueConfig,
    errors: &mut EndpointErrors<'_>,
) -> usize {
    let read = match written {
        None => return config.body_bytes_max_default,
        Some(WrittenSize::Bytes(bytes)) => Some(bytes),
        Some(WrittenSize::Text(text)) => parse_bytes(&text),
    };
    let read = read.filter(|bytes| (1..=BODY_BYTES_CEILING).contains(bytes));
    let share = config.buffered_bytes_per_client_max;
    match read {
        Some(bytes) if bytes <= share => return bytes,
        Some(_) => {
            let limit = "gateway.http.buffered_bytes_per_client_max";
            errors.add("max_body", format!("expected at most {limit} ({share} bytes)"));
        }
        None => errors.add("max_body", format!("expected {BYTES_EXPECTED}, at most 64MiB")),
    }
    config.body_bytes_max_default
}

fn rate_limit(written: &WrittenRate, errors: &mut EndpointErrors<'_>) -> Option<RateLimit> {
    if written.requests == 0 {
        errors.add("rate_limit.requests", "expected at least 1");
    }
    let window = parse_duration(&written.window)
        .filter(|window| (Duration::from_secs(1)..=WINDOW_CEILING).contains(window));
    if window.is_none() {
        let range = "from 1s to 24h";
        errors.add("rate_limit.window", format!("expected {DURATION_EXPECTED}, {range}"));
    }
    Some(RateLimit { requests: written.requests, window: window? })
}

fn cache_control(
    written: Option<String>,
    route: Option<&(Method, Arc<str>)>,
    errors: &mut EndpointErrors<'_>,
) -> Option<String> {
    let text = written?;
    if route.is_some_and(|(method, _)| !method.is_safe()) {
        errors.add("cache_control", "expected only with GET and HEAD");
    }
    if text.is_empty() || HeaderValue::from_str(&text).is_err() {
        errors.add("cache_control", "expected a header's value, e.g. \"max-age=60\"");
    }
    Some(text)
}
