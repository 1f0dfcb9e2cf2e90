//! `fjord call`: calls an endpoint through NATS, as a gateway would. Prints the answer and the duration of each phase.

use std::borrow::Cow;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::nats_connection::{self, NatsConnection};
use super::{EXIT_FAILED, EXIT_USAGE, Output, print_lines};
use crate::catalogue::validate;
use crate::catalogue::violations::{GIVEN_TWICE, JsonPointer, Location, REQUIRED, Violations};
use crate::catalogue::{
    self, Endpoint, EndpointId, Execution, Parameter, ParameterSource, ParameterType,
    ReceivedValue, payload,
};
use crate::cli::CallArguments;
use crate::config::{Config, Sources};
use crate::endpoint_call::{CallFunction, EndpointCall, EndpointCallResult};
use crate::envelope::Request;
use crate::outcome::Outcome;
use crate::problem::{Problem, Violation};
use crate::telemetry::trace_context::TraceContext;

/// Checks the arguments, executes the call and prints its result.
pub(super) fn run<O: Write, E: Write>(
    arguments: &CallArguments,
    sources: &Sources,
    call: CallFunction,
    output: &mut Output<O, E>,
) -> io::Result<ExitCode> {
    // Both roles load all endpoints. Without `--role`, the gateway's configuration is preferred because it controls the
    // call.
    let checked = check_arguments(arguments, &nats_connection::sources(sources));
    let (config, endpoint, request) = match checked {
        Ok(checked) => checked,
        Err(errors) => {
            print_lines(&mut output.err, "error", &errors)?;
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let dry_run = request.dry_run;
    nats_connection::run(
        sources,
        "fjord call",
        output,
        async |connection: NatsConnection, output: &mut Output<O, E>| {
            let transport = Arc::clone(&connection.transport);
            match call(EndpointCall { endpoint, request, config, transport }).await {
                Ok(called) => print(
                    &if dry_run { check_dry_run(called) } else { called },
                    arguments.json,
                    output,
                ),
                Err(error) => {
                    writeln!(output.err, "error: cannot make the call: {error}")?;
                    Ok(ExitCode::from(EXIT_FAILED))
                }
            }
        },
    )
}

type PreparedCall = (Config, Arc<Endpoint>, Request);

fn check_arguments(
    arguments: &CallArguments,
    sources: &Sources,
) -> Result<PreparedCall, Vec<String>> {
    let lines = |errors: Vec<crate::config::ConfigError>| -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    };
    let config = Config::load(sources).map_err(lines)?.config;
    let catalogue = catalogue::load(&config.catalogue.directory, &config.catalogue.defaults)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let id = EndpointId::new(&arguments.endpoint).ok();
    let endpoint = id.as_ref().and_then(|id| catalogue.get(id)).cloned().ok_or_else(|| {
        vec![format!(
            "endpoint {:?}: expected an endpoint of the catalogue; see fjord routes",
            arguments.endpoint
        )]
    })?;
    let endpoint = match &arguments.queue {
        None => endpoint,
        Some(name) => in_queue(&endpoint, name)?,
    };
    let request = request(&endpoint, arguments)?;
    Ok((config, endpoint, request))
}

/// Returns the endpoint restricted to the queue with this name.
fn in_queue(endpoint: &Arc<Endpoint>, name: &str) -> Result<Arc<Endpoint>, Vec<String>> {
    let queue = endpoint.queues.position(name).map(|position| endpoint.queues.get(position));
    let queue = queue.ok_or_else(|| {
        let (id, known) = (&endpoint.id, endpoint.queues.names());
        vec![format!("--queue: {id} has no queue {name:?}: expected one of {known}")]
    })?;
    Ok(endpoint.for_queue(queue))
}

/// Builds the request that a gateway would send.
fn request(endpoint: &Endpoint, arguments: &CallArguments) -> Result<Request, Vec<String>> {
    let request_id: Arc<str> = uuid::Uuid::now_v7().hyphenated().to_string().into();
    let known = [
        ("request_id", Some(&*request_id)),
        ("idempotency_key", arguments.idempotency_key.as_deref()),
        ("principal", arguments.principal.as_deref()),
        ("client_ip", Some("127.0.0.1")),
    ];
    let dry_run = arguments.dry_run;
    if dry_run && !endpoint.dry_run {
        return Err(vec![format!("--dry-run: {} does not permit dry runs", endpoint.id)]);
    }
    let payload = payload(endpoint, &arguments.values, &known)?;
    Ok(Request {
        endpoint: endpoint.id.clone(),
        attempt: 0,
        timeout: Duration::ZERO,
        execution: if dry_run { Execution::AtMostOnce } else { endpoint.execution },
        dry_run,
        waiting: 0,
        window: 0,
        principal: arguments.principal.clone(),
        idempotency_key: arguments.idempotency_key.clone(),
        traceparent: Some(Arc::clone(TraceContext::from_headers(None, None).traceparent())),
        tracestate: None,
        accept: None,
        request_id,
        payload,
    })
}

/// Builds the payload from `name=value` arguments and validates them as a gateway would. Returns all errors.
fn payload(
    endpoint: &Endpoint,
    values: &[String],
    known: &[(&str, Option<&str>)],
) -> Result<Bytes, Vec<String>> {
    let mut errors = Vec::new();
    let mut given: Vec<(&str, &str)> = Vec::new();
    for value in values {
        match value.split_once('=') {
            Some((name, _)) if !endpoint.parameters.iter().any(|p| &*p.name == name) => {
                errors.push(format!("{name}: {} has no such parameter", endpoint.id));
            }
            Some((name, _)) if given.iter().any(|(each, _)| *each == name) => {
                errors.push(format!("{name}: {GIVEN_TWICE}"));
            }
            Some(pair) => given.push(pair),
            None => errors.push(format!("{value}: expected name=value")),
        }
    }
    let mut violations = Violations::default();
    let received: Vec<ReceivedValue<'_>> = endpoint
        .parameters
        .iter()
        .map(|parameter| {
            let own = given.iter().find(|(name, _)| *name == &*parameter.name);
            let text = own.map(|(_, text)| *text).or_else(|| context(parameter, known));
            text.map_or(ReceivedValue::Absent, |text| received(parameter, text, &mut violations))
        })
        .collect();
    for (parameter, value) in endpoint.parameters.iter().zip(&received) {
        if parameter.required && *value == ReceivedValue::Absent {
            violations.add(Location::Parameter(parameter), REQUIRED);
        }
    }
    let is_good = errors.is_empty() && violations.is_empty();
    errors.extend(violations.into_vec().iter().map(line));
    if is_good { Ok(payload::write(endpoint, &received)) } else { Err(errors) }
}

/// Returns the value of a context parameter.
fn context<'a>(parameter: &Parameter, known: &[(&str, Option<&'a str>)]) -> Option<&'a str> {
    let own = known.iter().find(|(name, _)| *name == &*parameter.name);
    own.filter(|_| parameter.source == ParameterSource::Context).and_then(|(_, text)| *text)
}

/// Parses a value: a table is parsed as JSON, and any other value like a query parameter.
fn received<'a>(
    parameter: &Parameter,
    text: &'a str,
    violations: &mut Violations,
) -> ReceivedValue<'a> {
    let named = Location::Parameter(parameter);
    if parameter.kind != ParameterType::Table {
        return validate::from_text(parameter, Cow::Borrowed(text), named, violations).into();
    }
    let Ok(raw) = serde_json::from_str::<&RawValue>(text) else {
        violations.add(named, validate::expected(parameter.kind));
        return ReceivedValue::Invalid;
    };
    // Errors in a table refer to a row, so their location must be a JSON Pointer.
    let pointer = JsonPointer::ROOT.key(&parameter.name);
    validate::from_json(parameter, raw, Location::Json(&pointer), violations).into()
}

fn line(violation: &Violation) -> String {
    let name = violation.parameter.as_deref().or(violation.pointer.as_deref());
    format!("{}: {}", name.unwrap_or("the arguments"), violation.detail)
}

/// Replaces the answer to a dry run with a problem document if a gateway would not forward the answer.
fn check_dry_run(called: EndpointCallResult) -> EndpointCallResult {
    let answer = called.answer.and_then(|answer| {
        if answer.is_valid_for_dry_run() { Ok(answer) } else { Err(Problem::unconfirmed_dry_run()) }
    });
    EndpointCallResult { answer, ..called }
}

/// Prints the body to stdout and everything else to stderr, or everything as one JSON document.
fn print(
    called: &EndpointCallResult,
    as_json: bool,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    let (status, content_type, body, outcome) = match &called.answer {
        Ok(answer) => (answer.status, &*answer.content_type, answer.body.clone(), answer.outcome),
        Err(problem) => parts_of(problem),
    };
    let took = called.duration.as_secs_f64() * 1e3;
    let is_rolled_back = called.answer.as_ref().is_ok_and(|answer| answer.is_rolled_back);
    if as_json {
        let text = String::from_utf8_lossy(&body).into_owned();
        let phases: serde_json::Map<String, Value> =
            called.phases.iter().map(|(name, ms)| ((*name).to_owned(), json!(ms))).collect();
        let document = json!({
            "status": status, "outcome": outcome.as_str(), "attempts": called.attempts,
            "queue": called.queue.as_str(), "duration_ms": took, "phases_ms": phases, "content_type": content_type,
            "rolled_back": is_rolled_back, "body": serde_json::from_str(&text).unwrap_or(Value::String(text)),
        });
        writeln!(output.out, "{document}")?;
    } else {
        let attempts = if called.attempts == 1 { "attempt" } else { "attempts" };
        writeln!(
            output.err,
            "{status} {content_type} ({outcome}, {}{} {attempts}, queue {}, {took:.2} ms)",
            if is_rolled_back { "rolled back, " } else { "" },
            called.attempts,
            called.queue
        )?;
        for (name, ms) in &called.phases {
            writeln!(output.err, "  {name:10} {ms:>10.3} ms")?;
        }
        output.out.write_all(&body)?;
        if !body.is_empty() && !body.ends_with(b"\n") {
            writeln!(output.out)?;
        }
    }
    output.out.flush()?;
    Ok(if status < 400 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

fn parts_of(problem: &Problem) -> (u16, &'static str, Bytes, Outcome) {
    let status = problem.kind.status().as_u16();
    (status, crate::problem::PROBLEM_JSON, problem.to_json("").into(), problem.kind.outcome())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::load::fixture;

    fn written(values: &[&str]) -> Result<String, Vec<String>> {
        let catalogue = fixture::catalogue(
            r#""move": {"route":"POST /v1/{id}","procedure":"a.b","auth":"public","parameters":{
                 "id":{"in":"path","type":"int32"}, "note":{"in":"body","type":"string","default":"none"},
                 "rows":{"in":"body","type":"table","columns":{"n":{"type":"int32"}}},
                 "request_id":{"in":"context"}}}"#,
        );
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        let known = [("request_id", Some("r1")), ("note", Some("never"))];
        let payload = payload(&catalogue.endpoints()[0], &values, &known)?;
        Ok(String::from_utf8(payload.to_vec()).unwrap())
    }

    #[test]
    fn arguments_are_encoded_as_a_gateway_would_send_them() {
        let found = written(&["id=7", r#"rows=[{"n":1}]"#, "note=a=b"]);
        let expected = json!({"id": 7, "note": "a=b", "rows": [{"n": 1}], "request_id": "r1"});
        assert_eq!(serde_json::from_str::<Value>(&found.unwrap()).unwrap(), expected);
        assert!(written(&["id=7"]).unwrap().contains(r#""note":"none""#));
    }

    #[test]
    fn all_errors_in_the_arguments_are_reported() {
        let found = written(&["note", "tea=1", "rows=x", "note=a", "note=b"]).unwrap_err();
        for expected in ["note: expected name=value", "tea: move has no such", "note: given more"] {
            assert!(found.iter().any(|line| line.starts_with(expected)), "{found:?}");
        }
        assert!(found.contains(&"id: required".to_owned()), "{found:?}");
        assert!(found.contains(&"rows: expected an array of objects".to_owned()), "{found:?}");
    }
}
