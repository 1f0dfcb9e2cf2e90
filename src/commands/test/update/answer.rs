//! Describes an actual answer as the answer of an example.

use crate::catalogue::endpoint::is_bodiless;
use crate::catalogue::example::comparison::updated;
use crate::catalogue::example::{PROBLEMS, REFUSED};
use crate::catalogue::{Endpoint, ExactJson, Example};
use crate::commands::test::evaluation::{HttpAnswer, header_matches};

/// The members of a problem document that describe the example. The others depend on the request or follow from the type.
const DESCRIBING: [&str; 2] = ["detail", "errors"];

/// Returns the answer as it is written in the catalogue. Matchers that still match are kept, as are the selection of headers
/// and the omission of the body.
///
/// # Errors
/// The reason why an example cannot expect this answer.
pub(super) fn actual_answer(
    endpoint: &Endpoint,
    example: &Example,
    received: &HttpAnswer,
) -> Result<ExactJson, String> {
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
    let mut members: Vec<(Box<str>, ExactJson)> = Vec::new();
    members.push(("status".into(), ExactJson::Number(received.status.to_string().into())));
    let is_problem = problem.is_some();
    if let Some(problem) = problem {
        members.push(("problem".into(), ExactJson::Text(problem.into())));
    }
    let headers = old.map(|old| &*old.headers).unwrap_or_default();
    let headers = headers.iter().filter_map(|(name, expected)| {
        let value = received.header(name)?;
        let is_match = header_matches(expected, &value);
        let value = if is_match { expected.clone() } else { ExactJson::Text(value.into()) };
        Some(((&**name).into(), value))
    });
    let headers: Vec<(Box<str>, ExactJson)> = headers.collect();
    if !headers.is_empty() {
        members.push(("headers".into(), ExactJson::Object(headers)));
    }
    // The body of an answer of the same kind.
    let same = old.filter(|old| old.problem.is_some() == is_problem);
    let old_body = same.and_then(|old| old.body.as_ref());
    let is_omitted = same.is_some_and(|old| old.body.is_none() && old.status == received.status);
    let has_body = !is_bodiless(received.status)
        && endpoint.method != http::Method::HEAD
        && !received.body.is_empty();
    if has_body && !is_omitted {
        let actual = received.json();
        let body = if is_problem {
            described(old_body, &actual)
        } else {
            Some(updated(old_body, &actual))
        };
        members.extend(body.map(|body| ("body".into(), body)));
    }
    Ok(ExactJson::Object(members))
}

/// Returns the members of a problem document that the example gave before, or those that describe the problem.
fn described(old: Option<&ExactJson>, actual: &ExactJson) -> Option<ExactJson> {
    let ExactJson::Object(members) = actual else { return None };
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
