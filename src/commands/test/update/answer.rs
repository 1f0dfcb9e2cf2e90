//! Converts an actual answer into the expected answer of an example.

use crate::catalogue::example::comparison::{member_pointer, updated};
use crate::catalogue::example::{PROBLEMS, REFUSED};
use crate::catalogue::{Endpoint, ExactJson, Example};
use crate::commands::test::evaluation::{HttpAnswer, has_body, header_matches, readable_body};

/// The members of a problem document that are specific to the example. The other members depend on the request or
/// follow from the problem type.
const DESCRIBING: [&str; 2] = ["detail", "errors"];

/// An answer in the form that the catalogue uses.
#[derive(Debug)]
pub(super) struct ActualAnswer {
    pub(super) json: ExactJson,
    /// Expectations that the answer does not meet, such as `header Link`.
    pub(super) removed: Vec<String>,
}

/// Returns the answer in the form that the catalogue uses. Keeps matchers that still match, the selection of headers,
/// and the omission of the body.
///
/// # Errors
/// Returns the reason why an example cannot expect this answer.
pub(super) fn actual_answer(
    endpoint: &Endpoint,
    example: &Example,
    received: &HttpAnswer,
) -> Result<ActualAnswer, String> {
    let old = example.answer.as_ref();
    let problem = received.problem();
    if received.status >= 400 {
        let slug = problem.as_deref().unwrap_or_default();
        let is_known = slug == REFUSED || PROBLEMS.iter().any(|one| one.definition().slug == slug);
        if !is_known {
            let what = received.description();
            return Err(format!("the answer is {what}, which is not an answer of the procedure"));
        }
    }
    let body = readable_body(endpoint, example, received).map_err(|it| it.to_string())?;
    let mut removed = Vec::new();
    let mut members: Vec<(Box<str>, ExactJson)> = Vec::new();
    members.push(("status".into(), ExactJson::Number(received.status.to_string().into())));
    let is_problem = problem.is_some();
    if let Some(problem) = problem {
        members.push(("problem".into(), ExactJson::Text(problem.into())));
    }
    let headers = old.map(|old| &*old.headers).unwrap_or_default();
    let headers = headers.iter().filter_map(|(name, expected)| {
        let Some(value) = received.header(name) else {
            removed.push(format!("header {name}"));
            return None;
        };
        let is_match = header_matches(expected, &value);
        let value = if is_match { expected.clone() } else { ExactJson::Text(value.into()) };
        Some(((&**name).into(), value))
    });
    let headers: Vec<(Box<str>, ExactJson)> = headers.collect();
    if !headers.is_empty() {
        members.push(("headers".into(), ExactJson::Object(headers)));
    }
    // The expected answer, unless one of the two answers is a problem and the other is not.
    let same = old.filter(|old| old.problem.is_some() == is_problem);
    let old_body = same.and_then(|old| old.body.as_ref());
    let is_omitted = same.is_some_and(|old| old.body.is_none() && old.status == received.status);
    if has_body(endpoint, received) && !is_omitted {
        let body = if is_problem {
            described(old_body, &body, &mut removed)
        } else {
            Some(updated(old_body, &body))
        };
        members.extend(body.map(|body| ("body".into(), body)));
    } else if !is_problem && old_body.is_some() {
        removed.push("body".to_owned());
    }
    Ok(ActualAnswer { json: ExactJson::Object(members), removed })
}

/// Returns the members of a problem document that the example already lists. If it lists none, returns the members that
/// describe the problem.
fn described(
    old: Option<&ExactJson>,
    actual: &ExactJson,
    removed: &mut Vec<String>,
) -> Option<ExactJson> {
    let ExactJson::Object(members) = actual else { return None };
    if let Some(ExactJson::Object(old)) = old {
        let missing = old.iter().filter(|(name, _)| actual.member(name).is_none());
        removed.extend(missing.map(|(name, _)| format!("body {}", member_pointer("", name))));
    }
    let is_wanted = |name: &str| match old {
        Some(old) => old.member(name).is_some(),
        None => DESCRIBING.contains(&name),
    };
    let wanted = members.iter().filter(|(name, _)| is_wanted(name));
    let body: Vec<(Box<str>, ExactJson)> = wanted
        .map(|(name, value)| (name.clone(), updated(old.and_then(|old| old.member(name)), value)))
        .collect();
    (!body.is_empty()).then_some(ExactJson::Object(body))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use http::header::CONTENT_TYPE;

    use super::*;
    use crate::catalogue::load::fixture::catalogue;
    use crate::problem::PROBLEM_JSON;

    fn actual(status: u16, content_type: &str, body: &str) -> Result<ActualAnswer, String> {
        let catalogue = catalogue(
            r#""e": {"route":"GET /e", KEYS, "result":"row", "examples":{"one":{"answer":{
                "status":422,"problem":"refused","headers":{"Link":{"$any":"string"},"X-A":"1"},
                "body":{"detail":"no","a/b":1}}}}}"#,
        );
        let endpoint = &catalogue.endpoints()[0];
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        headers.insert("x-a", "2".parse().unwrap());
        let received = HttpAnswer { status, headers, body: Bytes::from(body.to_owned()) };
        actual_answer(endpoint, &endpoint.examples[0], &received)
    }

    #[test]
    fn expectations_that_are_lost_are_named() {
        let body = r#"{"type":"urn:fjord:problem:refused","status":422,"detail":"yes"}"#;
        let found = actual(422, PROBLEM_JSON, body).unwrap();
        assert_eq!(found.removed, ["header Link", "body /a~1b"]);
        let expected =
            r#"{"status":422,"problem":"refused","headers":{"X-A":"2"},"body":{"detail":"yes"}}"#;
        assert_eq!(found.json, ExactJson::parse(expected).unwrap());
    }

    #[test]
    fn only_answers_that_the_endpoint_can_give_are_recorded() {
        for (status, content_type, body, part) in [
            (
                200,
                "text/html",
                "<h1>Log in</h1>",
                "content-type: expected application/json, got text/html",
            ),
            (200, "", "{}", "content-type: expected application/json, got none"),
            (200, "application/json", r#"{"n":1,"n":2}"#, "\"n\" is given more than once"),
            (
                404,
                "text/html",
                "<h1>Not Found</h1>",
                "the answer is 404, which is not an answer of the procedure",
            ),
        ] {
            let error = actual(status, content_type, body).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert!(actual(200, "application/json", r#"{"n":1}"#).unwrap().removed == ["header Link"]);
    }
}
