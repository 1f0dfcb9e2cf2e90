//! Validates `examples`. The endpoint must be able to return each answer. It must also accept each request, unless the
//! example expects `invalid-request`.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, header};
use serde_json::value::RawValue;

use super::parameters::RESERVED_HEADERS;
use crate::catalogue::auth::Auth;
use crate::catalogue::definition::example::{
    ExampleAnswerDefinition, ExampleCallerDefinition, ExampleDefinition,
};
use crate::catalogue::definition::json::{ObjectOnly, OrderedMembers};
use crate::catalogue::definition::keys;
use crate::catalogue::endpoint::{Endpoint, ResultKind, is_bodiless};
use crate::catalogue::error::EndpointErrors;
use crate::catalogue::exact_json::ExactJson;
use crate::catalogue::example::{
    EXAMPLE_BYTES_MAX, EXAMPLES_BYTES_MAX, EXAMPLES_MAX, Example, ExampleAnswer, ExampleCaller,
    Matcher, PRINCIPAL_DEFAULT, PROBLEMS, REFUSED, matcher,
};
use crate::catalogue::example_request::representation;
use crate::catalogue::parameter::ParameterSource;
use crate::catalogue::representation::Representation;
use crate::catalogue::response_header::ResponseHeader;
use crate::catalogue::returns_drift;
use crate::problem::ProblemKind;

mod values;

/// The maximum length of an example's name in characters.
const NAME_CHARACTERS_MAX: usize = 64;
/// The maximum length of a principal in bytes.
const PRINCIPAL_BYTES_MAX: usize = 256;
/// Validates the examples of an endpoint whose other keys are valid.
pub(super) fn examples(
    written: Option<&RawValue>,
    endpoint: &Endpoint,
    errors: &mut EndpointErrors<'_>,
) -> Vec<Example> {
    let Some(raw) = written else { return Vec::new() };
    let read: Result<OrderedMembers<Box<RawValue>>, _> = serde_json::from_str(raw.get());
    let members = match read {
        Ok(members) => members.0,
        Err(error) => {
            let found = keys::message(&error);
            errors.add("examples", format!("expected an object of examples by name: {found}"));
            return Vec::new();
        }
    };
    if members.len() > EXAMPLES_MAX {
        errors.add("examples", format!("expected at most {EXAMPLES_MAX}"));
        return Vec::new();
    }
    if raw.get().len() > EXAMPLES_BYTES_MAX {
        errors.add("examples", format!("expected at most {} KiB", EXAMPLES_BYTES_MAX >> 10));
        return Vec::new();
    }
    let read = members.into_iter().filter_map(|(name, raw)| {
        let key = format!("examples.{name}");
        ExampleBuilder { endpoint, key: &key, errors }.example(&name, &raw)
    });
    read.collect()
}

/// Reads one example.
struct ExampleBuilder<'a, 'e> {
    endpoint: &'a Endpoint,
    /// The key of the example.
    key: &'a str,
    errors: &'a mut EndpointErrors<'e>,
}

impl ExampleBuilder<'_, '_> {
    fn add(&mut self, key: &str, expected: impl Into<String>) {
        self.errors.add(format!("{}{key}", self.key), expected);
    }

    fn example(&mut self, name: &str, raw: &RawValue) -> Option<Example> {
        let is_short = (1..=NAME_CHARACTERS_MAX).contains(&name.chars().count());
        if !is_short || name.trim() != name || name.contains(char::is_control) || name.contains('/')
        {
            let expected = format!(
                "expected a name of 1 to {NAME_CHARACTERS_MAX} characters without '/', control characters, or spaces at either end"
            );
            self.add("", expected);
        }
        if raw.get().len() > EXAMPLE_BYTES_MAX {
            self.add("", format!("expected at most {} KiB", EXAMPLE_BYTES_MAX >> 10));
            return None;
        }
        let before = self.errors.list.len();
        let definition = self.definition(raw)?;
        let parameters = self.exact_members(definition.parameters, ".parameters");
        let headers = self.request_headers(definition.headers);
        let mut example = Example {
            name: name.into(),
            summary: definition.summary,
            parameters: parameters.into_iter().map(|(name, it)| (name.into(), it)).collect(),
            headers,
            caller: self.caller(definition.caller.0),
            answer: None,
        };
        example.answer = definition.answer.and_then(|ObjectOnly(it)| self.answer(it, &example));
        for (key, expected) in values::errors(self.endpoint, &example) {
            // The key is the name of a member of the example, and of a member of that.
            let section = key.trim_start_matches('.').split('.').next().unwrap_or_default();
            if !self.errors.is_absence_explained(&format!("{}.{section}", self.key)) {
                self.add(&key, expected);
            }
        }
        (self.errors.list.len() == before).then_some(example)
    }

    /// Reads the definition as a whole or, if that fails, key by key, so that every error is reported.
    fn definition(&mut self, raw: &RawValue) -> Option<ExampleDefinition> {
        if let Ok(ObjectOnly(definition)) = serde_json::from_str(raw.get()) {
            return Some(definition);
        }
        let prefix = format!("{}.", self.key);
        let valid = keys::valid_simple_keys::<ExampleDefinition>(raw, &prefix, self.errors)?;
        let read = serde_json::from_str(&valid);
        read.map_err(|error| self.add("", keys::message(&error))).ok()
    }

    fn exact_members(
        &mut self,
        members: OrderedMembers<Box<RawValue>>,
        key: &str,
    ) -> Vec<(String, ExactJson)> {
        let read = members.0.into_iter().filter_map(|(name, raw)| {
            let value = ExactJson::from_raw(&raw);
            let value = value.map_err(|error| self.add(&format!("{key}.{name}"), error)).ok()?;
            Some((name, value))
        });
        read.collect()
    }

    fn request_headers(
        &mut self,
        written: OrderedMembers<String>,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::with_capacity(written.0.len());
        for (name, value) in written.0 {
            let key = format!(".headers.{name}");
            let lower = name.to_ascii_lowercase();
            let is_parameter = self.endpoint.parameters.iter().any(|parameter| {
                parameter.source == ParameterSource::Header
                    && parameter.name.eq_ignore_ascii_case(&name)
            });
            let is_refused = lower != "accept"
                && (RESERVED_HEADERS.contains(&&*lower)
                    || ["accept-encoding", "x-api-key"].contains(&&*lower)
                    || lower.starts_with("fjord-"));
            let parsed = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value));
            let (Ok(header), Ok(value)) = parsed else {
                self.add(&key, "expected a valid header name and value");
                continue;
            };
            if is_parameter {
                self.add(&key, "this header is a parameter: expected it in `parameters`");
            } else if is_refused {
                self.add(&key, "expected another header: `fjord test` sets this one itself");
            } else if headers.iter().any(|(known, _)| *known == header) {
                self.add(&key, "given more than once: header names are not case-sensitive");
            } else {
                headers.push((header, value));
            }
        }
        headers
    }

    fn caller(&mut self, written: ExampleCallerDefinition) -> ExampleCaller {
        let is_public = self.endpoint.auth == Auth::Public;
        if is_public && (written.principal.is_some() || !written.claims.0.is_empty()) {
            self.add(".caller", "expected none, because the endpoint is public");
        }
        let claims = self.exact_members(written.claims, ".caller.claims");
        for (name, _) in &claims {
            let is_claim = |source| source == ParameterSource::Claim;
            if !self.endpoint.parameters.iter().any(|it| is_claim(it.source) && *it.name == **name)
            {
                let expected = "expected the name of a parameter with `in: claim`";
                self.add(&format!(".caller.claims.{name}"), expected);
            }
        }
        let principal = written.principal.or((!is_public).then(|| PRINCIPAL_DEFAULT.to_owned()));
        if let Some(principal) = &principal
            && (principal.is_empty()
                || principal.len() > PRINCIPAL_BYTES_MAX
                || principal.trim() != principal
                || principal.contains(char::is_control))
        {
            let expected = format!(
                "expected 1 to {PRINCIPAL_BYTES_MAX} bytes without control characters, or spaces at either end"
            );
            self.add(".caller.principal", expected);
        }
        let claims = claims.into_iter().map(|(name, value)| (name, value.to_value()));
        ExampleCaller { principal: principal.map(Arc::from), claims: claims.collect() }
    }

    fn answer(
        &mut self,
        written: ExampleAnswerDefinition,
        example: &Example,
    ) -> Option<ExampleAnswer> {
        let status = match &written.problem {
            Some(problem) => self.problem_status(problem, written.status),
            None => self.success_status(written.status, example),
        };
        let headers = self.exact_members(written.headers, ".answer.headers");
        let headers = self.answer_headers(headers);
        let body = written.body.and_then(|raw| {
            let read = ExactJson::from_raw(&raw);
            read.map_err(|error| self.add(".answer.body", error)).ok()
        });
        let status = status?;
        if let Some(body) = &body {
            self.check_body(body, (status, written.problem.is_some()), example);
        }
        Some(ExampleAnswer { status, problem: written.problem.map(Arc::from), headers, body })
    }

    fn problem_status(&mut self, slug: &str, status: Option<u16>) -> Option<u16> {
        let fixed = |kind: &ProblemKind| (kind.definition().slug, kind.status().as_u16());
        let known = PROBLEMS.iter().map(fixed).find(|(known, _)| *known == slug);
        let is_negotiated = !matches!(*self.endpoint.produces, [Representation::Json]);
        match (known, status) {
            (Some((_, 406)), _) if !is_negotiated => {
                let expected = "expected another problem, because the endpoint answers with JSON regardless of `Accept`";
                self.add(".answer.problem", expected);
                None
            }
            (Some((_, fixed)), None) => Some(fixed),
            (Some((_, fixed)), Some(status)) => {
                if status != fixed {
                    self.add(".answer.status", format!("expected {fixed} with this problem"));
                }
                Some(fixed)
            }
            (None, Some(status)) if slug == REFUSED => {
                let other = PROBLEMS.iter().map(fixed).skip(1).find(|(_, fixed)| *fixed == status);
                if let Some((other, _)) = other {
                    let expected = format!("expected {other:?} with the status {status}");
                    self.add(".answer.problem", expected);
                } else if !(400..=599).contains(&status) || (502..=504).contains(&status) {
                    let expected = "expected a status from 400 to 599 except 502, 503 and 504";
                    self.add(".answer.status", expected);
                }
                Some(status)
            }
            (None, None) if slug == REFUSED => {
                self.add(".answer.status", format!("missing: expected it with {REFUSED:?}"));
                None
            }
            (None, _) => {
                let known: Vec<&str> = PROBLEMS.iter().map(|kind| fixed(kind).0).collect();
                let expected = format!("expected {REFUSED} or one of {}", known.join(", "));
                self.add(".answer.problem", expected);
                None
            }
        }
    }

    fn success_status(&mut self, status: Option<u16>, example: &Example) -> Option<u16> {
        let possible = success_statuses(self.endpoint, example);
        if status.is_none_or(|status| !possible.contains(&status)) {
            let possible: Vec<String> = possible.iter().map(ToString::to_string).collect();
            let or_problem = "or a `problem`";
            let expected = match status {
                None => format!("missing: expected {} {or_problem}", possible.join(", ")),
                Some(status) if status >= 400 => {
                    format!("expected `problem` with the status {status}, e.g. \"refused\"")
                }
                Some(status) => format!(
                    "{status} cannot be the answer to this request: expected {} {or_problem}",
                    possible.join(", ")
                ),
            };
            self.add(".answer.status", expected);
            return None;
        }
        status
    }

    fn answer_headers(&mut self, written: Vec<(String, ExactJson)>) -> Vec<(Arc<str>, ExactJson)> {
        let mut headers: Vec<(Arc<str>, ExactJson)> = Vec::with_capacity(written.len());
        for (name, value) in written {
            let key = format!(".answer.headers.{name}");
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                self.add(&key, "expected the name of a header");
            }
            match Matcher::read(&value) {
                Some(Ok(_)) => {}
                Some(Err(error)) => self.add(&key, error),
                None if value.as_text().is_some() => {}
                None => {
                    self.add(&key, "expected a string or a matcher, e.g. { \"$any\": \"string\" }");
                }
            }
            if headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) {
                self.add(&key, "given more than once: header names are not case-sensitive");
            }
            headers.push((name.into(), value));
        }
        headers
    }

    fn check_body(
        &mut self,
        body: &ExactJson,
        (status, is_problem): (u16, bool),
        example: &Example,
    ) {
        if is_bodiless(status) || self.endpoint.method == Method::HEAD {
            self.add(".answer.body", "expected none, because the answer has no content");
            return;
        }
        let before = self.errors.list.len();
        for (pointer, error) in matcher::errors(body) {
            let place = if pointer.is_empty() { pointer } else { format!("{pointer}: ") };
            self.add(".answer.body", format!("{place}{error}"));
        }
        if self.errors.list.len() > before {
            return;
        }
        if is_problem {
            if !matches!(body, ExactJson::Object(_)) || Matcher::from_json(body).is_some() {
                let expected = "expected an object with members of the problem document, e.g. { \"detail\": \"…\" }";
                self.add(".answer.body", expected);
            }
            return;
        }
        match representation(self.endpoint, example) {
            Some(Representation::Json) => {
                for line in returns_drift::drift(self.endpoint, body).contradictions {
                    self.add(".answer.body", line);
                }
            }
            Some(other) if body.as_text().is_none() && Matcher::from_json(body).is_none() => {
                let expected =
                    format!("expected the text of the {} as a string", other.media_type());
                self.add(".answer.body", expected);
            }
            _ => {}
        }
    }
}

/// Returns the statuses below 400 that the answer to an example can have.
fn success_statuses(endpoint: &Endpoint, example: &Example) -> BTreeSet<u16> {
    let usual = if endpoint.result == ResultKind::None { 204 } else { 200 };
    let mapped = endpoint.status.returns.values().copied().filter(|status| *status < 400);
    let mut statuses: BTreeSet<u16> = mapped.chain([usual]).collect();
    let prefer = example.header(&HeaderName::from_static("prefer")).unwrap_or_default();
    if !endpoint.method.is_safe() && prefer.to_ascii_lowercase().contains("return=minimal") {
        statuses.remove(&200);
        statuses.insert(204);
    }
    let has = |wanted| endpoint.headers.iter().any(|(header, _)| *header == wanted);
    let has_etag = endpoint.cache.etag || has(ResponseHeader::ETag);
    let is_conditional = (has_etag && example.header(&header::IF_NONE_MATCH).is_some())
        || (has(ResponseHeader::LastModified)
            && example.header(&header::IF_MODIFIED_SINCE).is_some());
    if endpoint.method.is_safe() && is_conditional {
        statuses.insert(304);
    }
    statuses
}

#[cfg(test)]
mod tests;
