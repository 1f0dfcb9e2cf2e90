//! Compares an answer with the answer that its example expects, and with the endpoint's `returns`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;

use crate::catalogue::endpoint::is_bodiless;
use crate::catalogue::example::comparison::{OtherMembers, differences};
use crate::catalogue::example::{Difference, ExampleAnswer, Matcher};
use crate::catalogue::example_request::representation;
use crate::catalogue::returns_drift::{self, ReturnsDrift};
use crate::catalogue::{Endpoint, ExactJson, Example, Representation};
use crate::problem::PROBLEM_JSON;

/// The prefix of fjord's problem types.
const PROBLEM_TYPE: &str = "urn:fjord:problem:";
/// The maximum number of violations that a difference lists.
const VIOLATIONS_SHOWN_MAX: usize = 5;

/// An HTTP response.
#[derive(Clone, Debug)]
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// The differences between an answer and its example or `returns`.
#[derive(Debug, Default)]
pub(super) struct Evaluation {
    pub(super) differences: Vec<Difference>,
    /// Values that contradict `returns`.
    pub(super) contradictions: Vec<String>,
    /// Members that are not declared in `returns`.
    pub(super) undeclared: Vec<String>,
}

impl Evaluation {
    pub(super) fn is_success(&self) -> bool {
        self.differences.is_empty() && self.contradictions.is_empty()
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let differences = self.differences.iter().map(ToString::to_string);
        differences.chain(self.contradictions.iter().cloned()).collect()
    }
}

impl HttpAnswer {
    /// Returns the media type without its parameters.
    pub(super) fn content_type(&self) -> &str {
        let value = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().split(';').next().unwrap_or_default().trim()
    }

    /// Returns the last part of the problem type, if the answer is one of fjord's problem documents.
    pub(super) fn problem(&self) -> Option<String> {
        if !self.content_type().eq_ignore_ascii_case(PROBLEM_JSON) {
            return None;
        }
        let document = self.json().ok()?;
        let kind = document.member("type")?.as_text()?;
        kind.strip_prefix(PROBLEM_TYPE).map(ToOwned::to_owned)
    }

    /// Returns the body as a JSON value. Text of any other media type becomes a string, and bytes that are not text are
    /// encoded as base64.
    ///
    /// # Errors
    /// Returns the reason why the JSON cannot be parsed.
    pub(super) fn json(&self) -> Result<ExactJson, String> {
        let text = std::str::from_utf8(&self.body);
        let content_type = self.content_type();
        let is_json = [Representation::Json.media_type(), PROBLEM_JSON]
            .iter()
            .any(|known| content_type.eq_ignore_ascii_case(known));
        match text {
            Ok(text) if is_json && !text.is_empty() => ExactJson::parse(text),
            Err(error) if is_json => Err(error.to_string()),
            Ok(text) => Ok(ExactJson::Text(text.into())),
            Err(_) => Ok(ExactJson::Text(STANDARD.encode(&self.body).into())),
        }
    }

    /// Returns the value of a header. If the header occurs several times, its values are joined.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let values = self.headers.get_all(name).iter();
        let values: Vec<_> =
            values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// Returns a short description of the answer: its status and, for a problem, its message.
    pub(super) fn description(&self) -> String {
        let Some(problem) = self.problem() else { return self.status.to_string() };
        let document = self.json().unwrap_or(ExactJson::Null);
        let detail = document.member("detail").and_then(ExactJson::as_text);
        let violations = match document.member("errors") {
            Some(ExactJson::Array(items)) => &**items,
            _ => &[],
        };
        let violations = violations.iter().take(VIOLATIONS_SHOWN_MAX).map(|violation| {
            let text = |name: &str| violation.member(name).and_then(ExactJson::as_text);
            let place = text("parameter").or(text("pointer")).unwrap_or("the request");
            format!("{place}: {}", text("detail").unwrap_or_default())
        });
        let details: Vec<String> =
            detail.map(ToOwned::to_owned).into_iter().chain(violations).collect();
        let colon = if details.is_empty() { "" } else { ": " };
        format!("{} {problem}{colon}{}", self.status, details.join("; "))
    }
}

/// Compares an answer with its example.
pub(super) fn evaluate(
    endpoint: &Endpoint,
    example: &Example,
    received: &HttpAnswer,
) -> Evaluation {
    let body = readable_body(endpoint, example, received);
    let mut differences = if let Some(expected) = &example.answer {
        compare(expected, received, body.as_ref().ok())
    } else {
        let expected = "the catalogue to contain an answer (--update adds it)";
        vec![Difference::new("answer", expected, received.description())]
    };
    match body {
        Ok(body) => {
            let ReturnsDrift { contradictions, undeclared } =
                drift(endpoint, example, received, &body);
            Evaluation { differences, contradictions, undeclared }
        }
        Err(difference) => {
            differences.push(difference);
            Evaluation { differences, ..Evaluation::default() }
        }
    }
}

/// Returns the body of an answer.
///
/// # Errors
/// Returns a difference if the endpoint cannot give this answer, because the answer has a different media type or
/// contains JSON that cannot be parsed.
pub(super) fn readable_body(
    endpoint: &Endpoint,
    example: &Example,
    received: &HttpAnswer,
) -> Result<ExactJson, Difference> {
    if received.status < 400 && has_body(endpoint, received) {
        let produced = match representation(endpoint, example) {
            Some(one) => std::slice::from_ref(one),
            None => &*endpoint.produces,
        };
        let found = received.content_type();
        if !produced.iter().any(|one| one.is_content_type(found)) {
            let expected: Vec<&str> = produced.iter().map(Representation::media_type).collect();
            let found = if found.is_empty() { "none" } else { found };
            return Err(Difference::new("content-type", expected.join(" or "), found));
        }
    }
    received.json().map_err(|error| {
        Difference::new("body", "JSON", format!("a text that cannot be read: {error}"))
    })
}

/// Returns whether an answer has a body.
pub(super) fn has_body(endpoint: &Endpoint, received: &HttpAnswer) -> bool {
    !is_bodiless(received.status)
        && endpoint.method != http::Method::HEAD
        && !received.body.is_empty()
}

fn drift(
    endpoint: &Endpoint,
    example: &Example,
    received: &HttpAnswer,
    body: &ExactJson,
) -> ReturnsDrift {
    let is_json = representation(endpoint, example) == Some(&Representation::Json);
    // The answer to a request with `Prefer: return=minimal` has no body, whatever its status.
    if !is_json || received.status >= 300 || received.body.is_empty() {
        return ReturnsDrift::default();
    }
    returns_drift::drift(endpoint, body)
}

/// Compares an answer with the expected one. `body` is `None` if a problem with the body has already been reported.
fn compare(
    expected: &ExampleAnswer,
    received: &HttpAnswer,
    body: Option<&ExactJson>,
) -> Vec<Difference> {
    let expected_status = match &expected.problem {
        Some(problem) => format!("{} {problem}", expected.status),
        None => expected.status.to_string(),
    };
    let is_same = expected.status == received.status
        && expected.problem.as_deref() == received.problem().as_deref();
    if !is_same {
        // If the status differs, further differences add no information.
        return vec![Difference::new("status", expected_status, received.description())];
    }
    let mut found = Vec::new();
    for (name, expected) in &expected.headers {
        let value = received.header(name);
        let is_match = value.as_deref().is_some_and(|value| header_matches(expected, value));
        if !is_match {
            let expected = Matcher::from_json(expected)
                .map_or_else(|| expected.to_string(), |matcher| matcher.description());
            let value = value.map_or_else(|| "no such header".to_owned(), |it| format!("{it:?}"));
            found.push(Difference::new(format!("header {name}"), expected, value));
        }
    }
    if let (Some(expected_body), Some(body)) = (&expected.body, body)
        && !is_bodiless(received.status)
    {
        let others = match expected.problem {
            Some(_) => OtherMembers::Ignored,
            None => OtherMembers::Refused,
        };
        found.extend(differences(expected_body, body, others));
    }
    found
}

/// Returns whether a header has the expected value. If the value is a number,
/// matchers for numbers also apply.
pub(super) fn header_matches(expected: &ExactJson, value: &str) -> bool {
    match (Matcher::from_json(expected), expected) {
        (Some(matcher), _) => {
            let number = ExactJson::parse(value).ok();
            let is_number = |value: &ExactJson| matches!(value, ExactJson::Number(_));
            let number = number.filter(is_number);
            matcher.is_match(&ExactJson::Text(value.into()))
                || number.is_some_and(|number| matcher.is_match(&number))
        }
        (None, ExactJson::Text(expected)) => &**expected == value,
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::load::fixture::catalogue;

    const ENDPOINT: &str = r#""e": {"route":"POST /e", KEYS, "result":"row","headers":{"X-Total-Count":"n"},
        "returns":{"n":{"type":"int64"}},"status":{"return":{"0":201}},"examples":{"one":{"answer":ANSWER}}}"#;

    fn received(status: u16, content_type: &str, body: &str) -> HttpAnswer {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        headers.insert("x-total-count", "7".parse().unwrap());
        HttpAnswer { status, headers, body: body.to_owned().into() }
    }

    fn lines(answer: &str, received: &HttpAnswer) -> Vec<String> {
        let catalogue = catalogue(&ENDPOINT.replace("ANSWER", answer));
        let endpoint = &catalogue.endpoints()[0];
        evaluate(endpoint, &endpoint.examples[0], received).lines()
    }

    #[test]
    fn status_headers_and_body_are_compared() {
        let json = |body| received(201, "application/json", body);
        let answer =
            r#"{"status":201,"headers":{"X-Total-Count":{"$any":"int64"}},"body":{"n":1}}"#;
        assert_eq!(lines(answer, &json(r#"{"n":1}"#)), [""; 0]);
        assert_eq!(lines(answer, &json(r#"{"n":2}"#)), ["/n: expected 1, got 2"]);
        assert_eq!(
            lines(r#"{"status":200}"#, &json(r#"{"n":2}"#)),
            ["status: expected 200, got 201"]
        );
        let answer = r#"{"status":201,"headers":{"X-Total-Count":"8","Link":{"$any":"string"}}}"#;
        assert_eq!(
            lines(answer, &json(r#"{"n":1}"#)),
            [
                r#"header X-Total-Count: expected "8", got "7""#,
                "header Link: expected any string, got no such header"
            ]
        );
    }

    #[test]
    fn contradictions_to_returns_are_reported_even_if_nothing_else_differs() {
        let found = lines(r#"{"status":201}"#, &received(201, "application/json", r#"{"n":"1"}"#));
        assert_eq!(found, ["/n: `returns` says int64, found a string"]);
    }

    #[test]
    fn problems_are_compared_by_their_type_and_the_given_members() {
        let problem = received(
            422,
            PROBLEM_JSON,
            r#"{"type":"urn:fjord:problem:refused","status":422,"detail":"too young","request_id":"r"}"#,
        );
        let answer = r#"{"status":422,"problem":"refused","body":{"detail":"too young"}}"#;
        assert_eq!(lines(answer, &problem), [""; 0]);
        assert_eq!(
            lines(&answer.replace("young", "old"), &problem),
            [r#"/detail: expected "too old", got "too young""#]
        );
        assert_eq!(
            lines(r#"{"problem":"no-row"}"#, &problem),
            ["status: expected 404 no-row, got 422 refused: too young"]
        );
        let invalid = received(
            400,
            PROBLEM_JSON,
            r#"{"type":"urn:fjord:problem:invalid-request","errors":[{"in":"query","parameter":"n","detail":"required"}]}"#,
        );
        assert_eq!(
            lines(answer, &invalid),
            ["status: expected 422 refused, got 400 invalid-request: n: required"]
        );
        // An error page from a proxy is not one of fjord's problem documents.
        let foreign = received(422, "text/html", "<p>no</p>");
        assert_eq!(lines(answer, &foreign), ["status: expected 422 refused, got 422"]);
    }

    #[test]
    fn other_media_types_are_strings() {
        let text = |text: &str| Ok(ExactJson::Text(text.into()));
        assert_eq!(received(200, "text/csv", "a\r\n").json(), text("a\r\n"));
        let bytes =
            HttpAnswer { body: Bytes::from_static(b"\xff\xfe"), ..received(200, "image/png", "") };
        assert_eq!(bytes.json(), text("//4="));
        // This media type is listed in `produces`, so the catalogue expects a string.
        assert_eq!(received(200, "application/geo+json", "{}").json(), text("{}"));
    }

    #[test]
    fn another_media_type_and_unreadable_json_are_differences() {
        let answer = r#"{"status":201,"body":{"n":1}}"#;
        assert_eq!(
            lines(answer, &received(201, "text/html; charset=utf-8", "<h1>Log in</h1>")),
            ["content-type: expected application/json, got text/html"]
        );
        assert_eq!(lines(answer, &received(201, "Application/JSON", r#"{"n":1}"#)), [""; 0]);
        let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
        for (body, part) in [
            (r#"{"n":1,"n":2}"#, "the member \"n\" is given more than once"),
            (&*deep, "nested too deeply"),
            ("{", "EOF"),
        ] {
            for answer in [answer, r#"{"status":201}"#] {
                let found = lines(answer, &received(201, "application/json", body));
                let start = "body: expected JSON, got a text that cannot be read: ";
                assert!(found.len() == 1 && found[0].starts_with(start), "{found:?}");
                assert!(found[0].contains(part), "{found:?}");
            }
        }
    }
}
