//! Generates sample values for parameters, and `curl` commands that call endpoints with them.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::catalogue::parameter::NumberBound;
use crate::catalogue::route::{Segment, segments};
use crate::catalogue::uri;
use crate::catalogue::{
    Auth, AuthMethod, Catalogue, Endpoint, Parameter, ParameterSource, ParameterType,
    ParameterValue,
};
use crate::commands::shell::{quoted, quoted_path};

/// The sample text for a string that has no constraints except on its length.
const TEXT: &str = "example";
/// The maximum length of the text that is generated to satisfy a pattern or a minimum length.
const TEXT_CHARACTERS_MAX: usize = 64;

/// The options that `curl` needs to reach the gateway.
#[derive(Clone, Copy, Debug)]
pub(super) struct CurlOptions<'a> {
    /// The URL of the gateway without a path.
    pub(super) url: &'a str,
    /// The file with the certificate of the certificate authority.
    pub(super) ca: &'a Path,
    /// The issuer of a token, and the file with the header that contains the token.
    pub(super) token: Option<(&'a str, &'a Path)>,
    /// The client certificate and its key, if the gateway asks for one.
    pub(super) client: Option<(&'a Path, &'a Path)>,
}

/// Returns commands for two endpoints: one that needs no token and one that needs a token, if the catalogue contains
/// both. Reads are preferred over writes, and endpoints without required parameters over others.
pub(super) fn curl_commands(catalogue: &Catalogue, options: &CurlOptions<'_>) -> Vec<String> {
    let (mut public, mut protected) = (Vec::new(), Vec::new());
    for endpoint in catalogue.endpoints() {
        let Some((guesses, command)) = curl_command(endpoint, options) else { continue };
        let rank = (!endpoint.method.is_safe(), guesses);
        if endpoint.auth == Auth::Public { &mut public } else { &mut protected }
            .push((rank, command));
    }
    let best = [public, protected].into_iter().filter_map(|commands| {
        commands.into_iter().min_by_key(|(rank, _)| *rank).map(|(_, command)| command)
    });
    best.collect()
}

/// Returns a command for an endpoint, and the number of values in it that had to be guessed. Returns `None` if there is
/// no value for a required parameter, or no credential that the endpoint accepts.
fn curl_command(endpoint: &Endpoint, options: &CurlOptions<'_>) -> Option<(usize, String)> {
    let mut command = format!("curl --cacert {}", quoted_path(options.ca));
    if let Some((certificate, key)) = options.client {
        write!(command, " --cert {} --key {}", quoted_path(certificate), quoted_path(key)).ok()?;
    }
    if let Auth::Required { methods, issuers, .. } = &endpoint.auth {
        let (issuer, file) = options.token?;
        let is_accepted = issuers.is_empty() || issuers.iter().any(|name| name == issuer);
        if !methods.contains(&AuthMethod::Jwt) || !is_accepted {
            return None;
        }
        write!(command, " -H {}", quoted(&format!("@{}", file.display()))).ok()?;
    }
    let (mut guesses, mut query, mut body) = (0, String::new(), Map::new());
    for parameter in endpoint.parameters.iter() {
        let name = &parameter.name;
        let is_needed = parameter.required && parameter.default.is_none();
        match parameter.source {
            ParameterSource::Query if is_needed => {
                let mark = if query.is_empty() { '?' } else { '&' };
                write!(query, "{mark}{name}={}", encoded(parameter)?).ok()?;
                guesses += 1;
            }
            ParameterSource::Header if is_needed => {
                let text = text(&value(parameter)?);
                write!(command, " -H {}", quoted(&format!("{name}: {text}"))).ok()?;
                guesses += 1;
            }
            ParameterSource::Body if is_needed => {
                body.insert(name.to_string(), value(parameter)?);
                guesses += 1;
            }
            ParameterSource::Context if is_needed && &**name == "idempotency_key" => {
                command.push_str(" -H 'Idempotency-Key: \"example\"'");
            }
            _ => {}
        }
    }
    let mut path = String::new();
    for segment in segments(&endpoint.path) {
        match segment {
            Segment::Literal(text) => write!(path, "/{text}").ok()?,
            Segment::Parameter(name) => {
                let is_named = |parameter: &&Parameter| {
                    parameter.source == ParameterSource::Path && *parameter.name == *name
                };
                let parameter = endpoint.parameters.iter().find(is_named)?;
                write!(path, "/{}", encoded(parameter)?).ok()?;
                guesses += 1;
            }
        }
    }
    let takes_body =
        endpoint.parameters.iter().any(|parameter| parameter.source == ParameterSource::Body);
    if takes_body {
        write!(command, " --json {}", quoted(&Value::Object(body).to_string())).ok()?;
    }
    // By default, curl sends GET without a body and POST with one.
    if endpoint.method.as_str() != if takes_body { "POST" } else { "GET" } {
        write!(command, " -X {}", endpoint.method).ok()?;
    }
    write!(command, " {}", quoted(&format!("{}{path}{query}", options.url))).ok()?;
    Some((guesses, command))
}

/// Returns a value that matches the type of a parameter and, as far as possible, its constraints. Returns `None` if no
/// such value is found.
pub(super) fn value(parameter: &Parameter) -> Option<Value> {
    let constraints = &parameter.constraints;
    if let Some(first) = constraints.allowed.iter().flatten().next().or(parameter.default.as_ref())
    {
        return json_value(first);
    }
    Some(match parameter.kind {
        ParameterType::String => sample_text(parameter)?.into(),
        ParameterType::Int32
        | ParameterType::Int64
        | ParameterType::Number
        | ParameterType::Decimal => {
            let bound = |bound: &Option<NumberBound>| bound.as_ref()?.0.parse::<f64>().ok();
            let (minimum, maximum) = (bound(&constraints.minimum), bound(&constraints.maximum));
            let is_one = minimum.is_none_or(|it| it <= 1.0) && maximum.is_none_or(|it| it >= 1.0);
            let other = constraints.minimum.as_ref().or(constraints.maximum.as_ref());
            match other {
                Some(other) if !is_one => serde_json::from_str(&other.0).ok()?,
                _ => json!(1),
            }
        }
        ParameterType::Boolean => json!(true),
        ParameterType::Uuid => json!("00000000-0000-4000-8000-000000000000"),
        ParameterType::Date => json!("2026-01-01"),
        ParameterType::Time => json!("12:00:00"),
        ParameterType::Datetime => json!("2026-01-01T12:00:00Z"),
        ParameterType::Binary => json!("AAAA"),
        ParameterType::Json => json!({}),
        ParameterType::Table => json!([]),
    })
}

/// Returns text of a permitted length. If there is a pattern, tries repetitions of a letter or a digit.
fn sample_text(parameter: &Parameter) -> Option<String> {
    let constraints = &parameter.constraints;
    let length = constraints.length_min.unwrap_or(0)..=constraints.length_max.unwrap_or(usize::MAX);
    let repeated = (1..=TEXT_CHARACTERS_MAX)
        .flat_map(|count| ["1", "A", "a"].map(|character| character.repeat(count)));
    std::iter::once(TEXT.to_owned()).chain(repeated).find(|text| {
        let is_match = constraints.pattern.as_ref().is_none_or(|pattern| pattern.is_match(text));
        is_match && length.contains(&text.len())
    })
}

fn json_value(value: &ParameterValue<'static>) -> Option<Value> {
    Some(match value {
        ParameterValue::Boolean(value) => json!(value),
        ParameterValue::Integer(value) => json!(value),
        ParameterValue::Number(value) => json!(value),
        ParameterValue::Text(text) => json!(text),
        ParameterValue::Decimal(text) | ParameterValue::Json(text) => {
            serde_json::from_str(text).ok()?
        }
        ParameterValue::Null | ParameterValue::Binary(_) | ParameterValue::Table(_) => return None,
    })
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// Returns a sample value in the form in which it appears in a URL.
fn encoded(parameter: &Parameter) -> Option<String> {
    let text = text(&value(parameter)?);
    Some(uri::encode(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::load::fixture;

    fn commands(endpoints: &str) -> Vec<String> {
        let token = Some(("main", Path::new("/run/token.header")));
        let options = CurlOptions {
            url: "https://localhost:8443",
            ca: Path::new("/run/my ca.pem"),
            token,
            client: None,
        };
        curl_commands(&fixture::catalogue(endpoints), &options)
    }

    #[test]
    fn a_public_and_a_protected_endpoint_are_called() {
        let jwt = r#""procedure":"a.b","auth":{"methods":["jwt"]}"#;
        let endpoints = format!(
            r#""create": {{"route":"POST /v1/x",KEYS,"parameters":{{"a":{{"in":"body","type":"string","required":true}}}}}},
               "get": {{"route":"GET /v1/x/{{id}}",KEYS,"parameters":{{"id":{{"in":"path","type":"int32","minimum":5}}}}}},
               "list": {{"route":"GET /v1/x",KEYS,"parameters":{{"q":{{"in":"query","type":"string"}}}}}},
               "own": {{"route":"GET /v1/own",{jwt},"parameters":{{"on":{{"in":"query","type":"date","required":true}}}}}}"#
        );
        assert_eq!(
            commands(&endpoints),
            [
                "curl --cacert '/run/my ca.pem' https://localhost:8443/v1/x",
                "curl --cacert '/run/my ca.pem' -H @/run/token.header \
                 'https://localhost:8443/v1/own?on=2026-01-01'",
            ]
        );
    }

    #[test]
    fn a_write_is_called_if_there_is_no_read() {
        let endpoints = r#""create": {"route":"PUT /v1/x/{id}",KEYS,"parameters":{
            "id":{"in":"path","type":"int32","minimum":5},
            "a":{"in":"body","type":"string","maxLength":3,"required":true}}}"#;
        let expected = "curl --cacert '/run/my ca.pem' --json '{\"a\":\"1\"}' -X PUT https://localhost:8443/v1/x/5";
        assert_eq!(commands(endpoints), [expected]);
    }

    #[test]
    fn an_endpoint_without_a_sample_or_a_credential_is_left_out() {
        let endpoints = r#"
            "a": {"route":"GET /v1/a/{x}",KEYS,"parameters":{"x":{"in":"path","type":"string","pattern":"^b{2}c$"}}},
            "b": {"route":"GET /v1/b","procedure":"a.b","auth":{"methods":["api-key"]}},
            "c": {"route":"GET /v1/c","procedure":"a.b","auth":{"methods":["jwt"],"issuers":["other"]}}"#;
        assert_eq!(commands(endpoints), Vec::<String>::new());
    }
}
