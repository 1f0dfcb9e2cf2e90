//! Checks the values of an example's request against the rules of the parameters, with the gateway's own code.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};
use serde_json::value::RawValue;

use crate::catalogue::endpoint::Endpoint;
use crate::catalogue::exact_json::ExactJson;
use crate::catalogue::example::Example;
use crate::catalogue::example_request as request;
use crate::catalogue::parameter::{Parameter, ParameterSource, ParameterType};
use crate::catalogue::uri;
use crate::catalogue::validate;
use crate::catalogue::violations::{JsonPointer, Location, REQUIRED, Violations};
use crate::problem::Violation;
use crate::spelling::closest;

/// The header that contains the idempotency key.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Advice on how to correct a value that the gateway refuses.
const CURE: &str =
    "expected a value that the endpoint accepts, or \"problem\": \"invalid-request\" as the answer";

/// Advice on how to correct a value that cannot be sent. Such a value does not even reach the gateway.
const UNSENDABLE: &str = "cannot be sent in a header: expected a value without control characters";

/// Returns all errors, each as the key within the example and the message.
pub(super) fn errors(endpoint: &Endpoint, example: &Example) -> Vec<(String, String)> {
    let mut errors = Vec::new();
    for (name, _) in &example.parameters {
        errors.extend(unknown(endpoint, name).map(|error| (format!(".parameters.{name}"), error)));
    }
    // The remaining checks assume that all names are known.
    if errors.is_empty() {
        for parameter in endpoint.parameters.iter() {
            add(parameter, example, &mut errors);
        }
        if errors.is_empty()
            && !example.is_invalid()
            && let Err(error) = uri::decode_path(&request::path(endpoint, example))
        {
            errors.push((".parameters".to_owned(), format!("{error}; {CURE}")));
        }
    }
    errors
}

/// Returns the error for a name that is not a parameter of the request.
fn unknown(endpoint: &Endpoint, name: &str) -> Option<String> {
    let declared = endpoint.parameters.iter().find(|parameter| *parameter.name == *name);
    let expected = match declared.map(|parameter| parameter.source) {
        Some(ParameterSource::Claim) => {
            "the value comes from the caller's credentials: it must be in `caller.claims`"
        }
        Some(ParameterSource::Context) => match name {
            "idempotency_key" => "must be the header `Idempotency-Key` in `headers` instead",
            "principal" => "must be in `caller` instead",
            _ => "expected none, because the gateway supplies the value",
        },
        Some(_) => return None,
        None => {
            let sent = endpoint.parameters.iter().filter(|parameter| {
                !matches!(parameter.source, ParameterSource::Claim | ParameterSource::Context)
            });
            let known: Vec<&str> = sent.map(|parameter| &*parameter.name).collect();
            return Some(match closest(name, known.iter().copied()) {
                Some(similar) => {
                    format!("the endpoint has no such parameter: did you mean {similar}?")
                }
                None if known.is_empty() => "the endpoint has no parameters".to_owned(),
                None => {
                    format!("the endpoint has no such parameter: expected {}", known.join(", "))
                }
            });
        }
    };
    Some(expected.to_owned())
}

/// Adds the errors in one parameter's value.
fn add(parameter: &Parameter, example: &Example, errors: &mut Vec<(String, String)>) {
    let name = &parameter.name;
    let mut violations = Violations::default();
    let key = match parameter.source {
        ParameterSource::Claim => {
            match example.caller.claims.get(&**name).filter(|claim| !claim.is_null()) {
                Some(claim) => check_claim(parameter, claim, &mut violations),
                None => add_missing(parameter, &mut violations),
            }
            format!(".caller.claims.{name}")
        }
        ParameterSource::Context => {
            let (key, is_given) = match &**name {
                "idempotency_key" => {
                    (".headers.Idempotency-Key", example.header(&IDEMPOTENCY_KEY).is_some())
                }
                "principal" => (".caller.principal", example.caller.principal.is_some()),
                _ => return,
            };
            if !is_given {
                add_missing(parameter, &mut violations);
            }
            key.to_owned()
        }
        _ => {
            match example.parameter(name) {
                Some(value) => check(parameter, value, &mut violations),
                None => add_missing(parameter, &mut violations),
            }
            format!(".parameters.{name}")
        }
    };
    if parameter.source == ParameterSource::Header
        && let Some(value) = example.parameter(name)
        && HeaderValue::from_str(&request::text(parameter, value)).is_err()
    {
        errors.push((key, UNSENDABLE.to_owned()));
        return;
    }
    let is_from_caller = parameter.source == ParameterSource::Claim || key.ends_with("principal");
    if example.is_invalid() && !is_from_caller {
        return;
    }
    let root = JsonPointer::ROOT.key(name).to_string();
    for Violation { pointer, detail, .. } in violations.into_vec() {
        let inner = pointer.as_deref().and_then(|pointer| pointer.strip_prefix(&*root));
        let place = match inner {
            Some(inner) if !inner.is_empty() => format!("{inner}: "),
            _ => String::new(),
        };
        let cure = if is_from_caller { "expected a valid value" } else { CURE };
        errors.push((key.clone(), format!("{place}{detail}; {cure}")));
    }
}

fn add_missing(parameter: &Parameter, violations: &mut Violations) {
    if parameter.required {
        violations.add(Location::Parameter(parameter), REQUIRED);
    }
}

fn check(parameter: &Parameter, value: &ExactJson, violations: &mut Violations) {
    let location = Location::Parameter(parameter);
    if parameter.source == ParameterSource::Body {
        let text = value.to_string();
        let pointer = JsonPointer::ROOT.key(&parameter.name);
        if let Ok(raw) = serde_json::from_str::<&RawValue>(&text) {
            validate::from_json(parameter, raw, Location::Json(&pointer), violations);
        }
        return;
    }
    if matches!(value, ExactJson::Array(_) | ExactJson::Object(_))
        && parameter.kind != ParameterType::Json
    {
        violations.add(location, "expected a string, a number or a boolean");
        return;
    }
    let text = request::text(parameter, value);
    if parameter.source == ParameterSource::Header
        && !text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
    {
        violations.add(location, "expected visible ASCII characters");
        return;
    }
    validate::from_text(parameter, text, location, violations);
}

/// Checks a claim in the same way as the gateway. A string is validated as text, and any other value as JSON.
fn check_claim(parameter: &Parameter, claim: &serde_json::Value, violations: &mut Violations) {
    let location = Location::Parameter(parameter);
    match claim {
        serde_json::Value::String(text) if parameter.kind != ParameterType::Json => {
            validate::from_text(parameter, Cow::Borrowed(text), location, violations);
        }
        claim => {
            if let Ok(raw) = serde_json::value::to_raw_value(claim) {
                validate::from_json(parameter, &raw, location, violations);
            }
        }
    }
}
