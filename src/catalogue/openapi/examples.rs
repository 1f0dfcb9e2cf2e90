//! Adds the examples of an endpoint to its operation. Matchers are replaced by sample values.

use http::HeaderName;
use serde_json::{Map, Value as Json, json};

use crate::catalogue::endpoint::Endpoint;
use crate::catalogue::exact_json::ExactJson;
use crate::catalogue::example::{Example, ExampleAnswer, PROBLEMS, matcher};
use crate::catalogue::example_request::{self, representation};
use crate::catalogue::parameter::{Parameter, ParameterSource, ParameterType};
use crate::catalogue::payload;
use crate::catalogue::representation::Representation;
use crate::catalogue::returns_drift;
use crate::catalogue::validate;
use crate::catalogue::violations::{Location, Violations};
use crate::problem::{self, Effect, PROBLEM_JSON, ProblemKind};

/// The id of the request in the sample of a problem document.
const REQUEST_ID: &str = "0198f1c5-7d2a-7c3e-9b1f-2a4c6e8f0a1b";

/// Returns the examples whose requests the endpoint accepts. The values in the other examples contradict the schemas.
fn accepted(endpoint: &Endpoint) -> impl Iterator<Item = &Example> {
    endpoint.examples.iter().filter(|example| !example.is_invalid())
}

fn object(example: &Example, value: Json) -> Json {
    let mut object = Map::new();
    if let Some(summary) = &example.summary {
        object.insert("summary".to_owned(), json!(summary));
    }
    object.insert("value".to_owned(), value);
    Json::Object(object)
}

/// Returns the examples of a parameter in the path, the query or a header. Each value occurs only once.
pub(super) fn of_parameter(endpoint: &Endpoint, parameter: &Parameter) -> Map<String, Json> {
    let mut values: Vec<Json> = Vec::new();
    let mut examples = Map::new();
    for example in accepted(endpoint) {
        let value = example.parameter(&parameter.name).and_then(|it| typed(parameter, it));
        let Some(value) = value.filter(|value| !values.contains(value)) else { continue };
        examples.insert(example.name.to_string(), object(example, value.clone()));
        values.push(value);
    }
    examples
}

/// Returns the examples of a request header that is not a parameter.
pub(super) fn of_header(endpoint: &Endpoint, name: &'static str) -> Map<String, Json> {
    let name = HeaderName::from_static(name);
    let values = accepted(endpoint).filter_map(|example| Some((example, example.header(&name)?)));
    values.map(|(one, value)| (one.name.to_string(), object(one, value.into()))).collect()
}

/// Converts a value, which an example may contain as a string, to the JSON type of its parameter. Returns `None` for
/// NULL.
fn typed(parameter: &Parameter, value: &ExactJson) -> Option<Json> {
    if parameter.kind == ParameterType::Json {
        return Some(value.to_value());
    }
    let mut violations = Violations::default();
    let text = example_request::text(parameter, value);
    let location = Location::Parameter(parameter);
    let value = validate::from_text(parameter, text, location, &mut violations)?;
    payload::to_json(&value).filter(|value| !value.is_null())
}

/// Returns the examples of a request body.
pub(super) fn of_body(endpoint: &Endpoint) -> Map<String, Json> {
    let is_member = |name: &str| {
        let mut parameters = endpoint.parameters.iter();
        parameters.any(|one| one.source == ParameterSource::Body && *one.name == *name)
    };
    let body = |example: &Example| {
        let members = example.parameters.iter().filter(|(name, _)| is_member(name));
        members.map(|(name, value)| (name.to_string(), value.to_value())).collect()
    };
    let examples = accepted(endpoint);
    examples.map(|one| (one.name.to_string(), object(one, Json::Object(body(one))))).collect()
}

/// Adds the examples of answers to the responses of an operation.
pub(super) fn add_answers(endpoint: &Endpoint, responses: &mut Map<String, Json>) {
    for example in &endpoint.examples {
        let Some(answer) = &example.answer else { continue };
        let Some((media_type, value)) = sample(endpoint, example, answer) else { continue };
        let status = answer.status.to_string();
        if answer.problem.is_some() {
            // The reference to the shared response is replaced, because it cannot have examples.
            let response = responses.entry(status).or_insert_with(|| json!({}));
            if response.get("content").is_none() {
                *response = super::problem_response();
            }
            add_answer(response, PROBLEM_JSON, example, value);
        } else if let Some(response) = responses.get_mut(&status) {
            add_answer(response, media_type, example, value);
        }
    }
}

fn add_answer(response: &mut Json, media_type: &str, example: &Example, value: Json) {
    let content = response.get_mut("content").and_then(|content| content.get_mut(media_type));
    let Some(content) = content.and_then(Json::as_object_mut) else { return };
    let examples = content.entry("examples").or_insert_with(|| json!({}));
    if let Some(examples) = examples.as_object_mut() {
        examples.insert(example.name.to_string(), object(example, value));
    }
}

/// Returns the media type and a sample of an answer, or `None` if the example does not determine a possible answer.
fn sample<'a>(
    endpoint: &'a Endpoint,
    example: &Example,
    answer: &ExampleAnswer,
) -> Option<(&'a str, Json)> {
    if let Some(slug) = &answer.problem {
        return Some((PROBLEM_JSON, problem_document(slug, answer)));
    }
    let body = matcher::with_samples(answer.body.as_ref()?);
    let representation = representation(endpoint, example)?;
    let is_possible = *representation != Representation::Json
        || returns_drift::drift(endpoint, &body).contradictions.is_empty();
    is_possible.then(|| (representation.media_type(), body.to_value()))
}

/// Returns the problem document with the members that the example contains.
fn problem_document(slug: &str, answer: &ExampleAnswer) -> Json {
    let kind = PROBLEMS.into_iter().find(|kind| kind.definition().slug == slug);
    let kind = kind.unwrap_or(ProblemKind::ProcedureError(answer.status));
    let definition = kind.definition();
    let mut document = json!({
        "type": kind.type_uri(), "title": definition.title, "status": answer.status,
        "instance": problem::instance(REQUEST_ID), "request_id": REQUEST_ID,
        "effect": Effect::as_str(definition.effect) });
    if let (Some(document), Some(ExactJson::Object(members))) =
        (document.as_object_mut(), answer.body.as_ref().map(matcher::with_samples))
    {
        document.extend(members.into_iter().map(|(name, it)| (name.into(), it.to_value())));
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::load::fixture::catalogue;

    #[test]
    fn examples_appear_at_parameters_bodies_and_answers() {
        let catalogue = catalogue(
            r#""e": {"route":"POST /e/{id}", KEYS, "result":"row","status":{"return":{"0":201}},
              "returns":{"n":{"type":"int64"},"at":{"type":"datetime"}},"parameters":{
                "id":{"in":"path","type":"int32"},"where":{"in":"query","type":"json"},"since":{"in":"query","type":"date"},
                "idempotency_key":{"in":"context"},"price":{"in":"body","type":"decimal","maximum":9}},
              "examples":{
                "cheap":{"summary":"A cheap one","parameters":{"id":"7","where":{"a":1},"price":1.5},
                  "headers":{"Idempotency-Key":"k1"},
                  "answer":{"status":201,"body":{"n":{"$any":"int64","example":24001},"at":{"$any":"datetime"}}}},
                "same id":{"parameters":{"id":7},"answer":{"status":201,"body":{"n":{"$any":"json"},"at":{"$any":"json"}}}},
                "refused":{"parameters":{"id":8},"answer":{"status":422,"problem":"refused","body":{"detail":"no"}}},
                "wrong":{"parameters":{"id":9,"price":10},"answer":{"problem":"invalid-request"}},
                "unknown":{"parameters":{"id":10}}}}"#,
        );
        let endpoint = &catalogue.endpoints()[0];
        let operation = super::super::operation(endpoint, &endpoint.path);
        let parameters = operation["parameters"].as_array().unwrap();
        assert_eq!(
            parameters[0]["examples"],
            json!({ "cheap": { "summary": "A cheap one", "value": 7 }, "refused": { "value": 8 }, "unknown": { "value": 10 } })
        );
        assert_eq!(
            parameters[1]["content"]["application/json"]["examples"]["cheap"]["value"],
            json!({ "a": 1 })
        );
        assert!(parameters[2].get("examples").is_none(), "no example gives a value");
        assert_eq!(parameters[3]["examples"]["cheap"]["value"], "k1");
        let body = &operation["requestBody"]["content"]["application/json"]["examples"];
        assert_eq!(body["cheap"]["value"], json!({ "price": 1.5 }));
        assert!(body.get("wrong").is_none(), "it contradicts the schema");
        let responses = &operation["responses"];
        let answers = &responses["201"]["content"]["application/json"]["examples"];
        assert_eq!(
            *answers,
            json!({ "cheap": { "summary": "A cheap one", "value": { "n": 24001, "at": "2026-01-31T12:30:00Z" } } })
        );
        let problem = &responses["422"]["content"][PROBLEM_JSON];
        assert_eq!(problem["schema"]["$ref"], "#/components/schemas/Problem");
        let document = &problem["examples"]["refused"]["value"];
        assert_eq!(document["type"], "urn:fjord:problem:refused");
        assert_eq!((&document["status"], &document["detail"]), (&json!(422), &json!("no")));
        assert!(responses["400"]["content"][PROBLEM_JSON]["examples"]["wrong"].is_object());
        assert_eq!(responses["500"]["$ref"], "#/components/responses/Problem");
    }

    #[test]
    fn a_sample_that_contradicts_the_schema_of_a_json_column_is_left_out() {
        let catalogue = catalogue(
            r#""list":{"route":"GET /v1/list",KEYS,"result":"row","returns":{"all":{"type":"json","schema":{"type":"array"}}},
              "examples":{
                "good":{"answer":{"status":200,"body":{"all":[1]}}},
                "any":{"answer":{"status":200,"body":{"all":{"$any":"json"}}}},
                "shown":{"answer":{"status":200,"body":{"all":{"$any":"json","example":[2]}}}}}}"#,
        );
        let endpoint = &catalogue.endpoints()[0];
        let operation = super::super::operation(endpoint, &endpoint.path);
        let answers = &operation["responses"]["200"]["content"]["application/json"];
        let names: Vec<&String> = answers["examples"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["good", "shown"]);
    }
}
