//! Checks whether an answer has the columns that `returns` declares.

use std::collections::HashMap;

use super::endpoint::{Endpoint, ResultKind};
use super::exact_json::ExactJson;
use super::example::Matcher;
use super::example::comparison::member_pointer;
use super::example::matcher::with_samples;
use super::example::value_type::{has_type, sample};
use super::json_schema::JsonSchema;
use super::names::eq_ignore_case;
use super::parameter::ParameterType;
use super::returns::{ReturnColumn, Returns, VALUE};

/// The maximum number of lines in each list of a `ReturnsDrift`.
const LINES_MAX: usize = 20;

/// The differences between the JSON of a successful answer and `returns`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReturnsDrift {
    /// Values that contradict `returns`. A client generated from the `OpenAPI` document cannot read an answer with such
    /// values.
    pub contradictions: Vec<String>,
    /// Members that `returns` does not declare.
    pub undeclared: Vec<String>,
}

impl ReturnsDrift {
    fn add(&mut self, line: String) {
        if self.contradictions.len() < LINES_MAX && !self.contradictions.contains(&line) {
            self.contradictions.push(line);
        }
    }

    fn undeclared(&mut self, line: String) {
        if self.undeclared.len() < LINES_MAX && !self.undeclared.contains(&line) {
            self.undeclared.push(line);
        }
    }
}

/// The state of a comparison: the differences found so far, and the schemas compiled so far.
#[derive(Debug, Default)]
struct DriftCollector {
    found: ReturnsDrift,
    /// The compiled schemas, by the address of their column. They are kept because an answer can have many rows.
    schemas: HashMap<usize, Option<JsonSchema>>,
}

impl DriftCollector {
    fn add(&mut self, line: String) {
        self.found.add(line);
    }

    fn undeclared(&mut self, line: String) {
        self.found.undeclared(line);
    }

    /// Compares a `json` value with its column's schema.
    fn schema(&mut self, column: &ReturnColumn, answer: &ExactJson, pointer: &str) {
        let Some(schema) = &column.schema else { return };
        if column.nullable && *answer == ExactJson::Null {
            return;
        }
        let address = std::ptr::from_ref(column).addr();
        // `fjord check` warns about a schema that cannot be compiled.
        let compiled = self.schemas.entry(address).or_insert_with(|| JsonSchema::new(schema).ok());
        let Some(compiled) = compiled else { return };
        // The parts of the answer that are matchers are not compared.
        let mut matchers = Vec::new();
        add_matchers(answer, String::new(), &mut matchers);
        let sample = with_samples(answer);
        if !sample.is_convertible() {
            return;
        }
        let found = compiled.contradiction(&sample.to_value(), &matchers);
        if let Some((place, reason)) = found {
            let place = format!("{pointer}{place}");
            let place = if place.is_empty() { "body" } else { &place };
            self.add(format!("{place}: contradicts the schema in `returns`: {reason}"));
        }
    }
}

/// Compares the JSON of a successful answer, which can contain matchers, with `returns`.
#[must_use]
pub fn drift(endpoint: &Endpoint, answer: &ExactJson) -> ReturnsDrift {
    let mut drift = DriftCollector::default();
    let Some(returns) = &endpoint.returns else { return drift.found };
    if is_any(answer) {
        return drift.found;
    }
    match (endpoint.result, returns) {
        (ResultKind::Rows, Returns::Columns(columns)) => rows(columns, answer, "", &mut drift),
        (ResultKind::Row, Returns::Columns(columns)) => object(columns, answer, "", &mut drift),
        (ResultKind::Value | ResultKind::Json, Returns::Columns(columns)) => {
            if endpoint.outputs.is_empty() {
                if let Some(column) = columns.iter().find(|column| column.name == VALUE) {
                    value(column, answer, "", &mut drift);
                }
            } else {
                object(columns, answer, "", &mut drift);
            }
        }
        (_, Returns::Sets(declared)) => sets(declared, answer, "", &mut drift),
        (_, Returns::Full { sets: declared, outputs }) => {
            if let (Some(declared), Some(answer)) = (declared, answer.member("sets")) {
                sets(declared, answer, "/sets", &mut drift);
            }
            if let Some(answer) = answer.member("outputs").filter(|_| !outputs.is_empty()) {
                object(outputs, answer, "/outputs", &mut drift);
            }
        }
        _ => {}
    }
    // The endpoint declares its `outputs` itself, so they are not reported as undeclared even if `returns` omits them.
    drift.found.undeclared.retain(|line| {
        let name = line.split(':').next().unwrap_or_default();
        !endpoint.outputs.iter().any(|output| eq_ignore_case(&format!("/{output}"), name))
    });
    drift.found
}

/// Adds the JSON Pointers of all matchers.
fn add_matchers(value: &ExactJson, pointer: String, found: &mut Vec<String>) {
    match value {
        _ if Matcher::from_json(value).is_some() => found.push(pointer),
        ExactJson::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                add_matchers(item, format!("{pointer}/{index}"), found);
            }
        }
        ExactJson::Object(members) => {
            for (name, value) in members {
                add_matchers(value, member_pointer(&pointer, name), found);
            }
        }
        _ => {}
    }
}

fn is_any(value: &ExactJson) -> bool {
    Matcher::from_json(value).is_some_and(|matcher| matcher.kind == ParameterType::Json)
}

fn sets(
    declared: &[Vec<ReturnColumn>],
    answer: &ExactJson,
    pointer: &str,
    drift: &mut DriftCollector,
) {
    if is_any(answer) {
        return;
    }
    let ExactJson::Array(sets) = answer else {
        drift.add(contradiction(pointer, "an array of result sets", answer));
        return;
    };
    for (index, (columns, answer)) in declared.iter().zip(sets).enumerate() {
        rows(columns, answer, &format!("{pointer}/{index}"), drift);
    }
}

fn rows(columns: &[ReturnColumn], answer: &ExactJson, pointer: &str, drift: &mut DriftCollector) {
    if is_any(answer) {
        return;
    }
    let ExactJson::Array(rows) = answer else {
        drift.add(contradiction(pointer, "an array of rows", answer));
        return;
    };
    for (index, answer) in rows.iter().enumerate() {
        object(columns, answer, &format!("{pointer}/{index}"), drift);
    }
}

fn object(columns: &[ReturnColumn], answer: &ExactJson, pointer: &str, drift: &mut DriftCollector) {
    if is_any(answer) {
        return;
    }
    let ExactJson::Object(members) = answer else {
        drift.add(contradiction(pointer, "an object", answer));
        return;
    };
    for column in columns {
        let pointer = member_pointer(pointer, &column.name);
        match answer.member(&column.name) {
            Some(answer) => value(column, answer, &pointer, drift),
            None => drift.add(format!("{pointer}: missing, although `returns` declares it")),
        }
    }
    for (name, _) in members {
        if !columns.iter().any(|column| *column.name == **name) {
            let pointer = member_pointer(pointer, name);
            drift.undeclared(format!("{pointer}: `returns` does not declare this member"));
        }
    }
}

fn value(column: &ReturnColumn, answer: &ExactJson, pointer: &str, drift: &mut DriftCollector) {
    let kind = column.kind;
    let fits = match (Matcher::from_json(answer), answer) {
        // The two types must have values in common.
        (Some(matcher), _) => {
            is_any(answer) || has_type(kind, &matcher.sample()) || matcher.is_match(&sample(kind))
        }
        (None, ExactJson::Null) => column.nullable || kind == ParameterType::Json,
        (None, answer) => has_type(kind, answer),
    };
    if fits {
        drift.schema(column, answer, pointer);
    } else {
        let null = if column.nullable { " or null" } else { "" };
        drift.add(contradiction(pointer, &format!("{}{null}", kind.as_str()), answer));
    }
}

fn contradiction(pointer: &str, expected: &str, answer: &ExactJson) -> String {
    let pointer = if pointer.is_empty() { "body" } else { pointer };
    let found = match (Matcher::from_json(answer), answer) {
        (Some(matcher), _) => matcher.description(),
        (None, ExactJson::Null) => "null".to_owned(),
        (None, ExactJson::Boolean(_)) => "a boolean".to_owned(),
        (None, ExactJson::Number(_)) => "a number".to_owned(),
        (None, ExactJson::Text(_)) => "a string".to_owned(),
        (None, ExactJson::Array(_)) => "an array".to_owned(),
        (None, ExactJson::Object(_)) => "an object".to_owned(),
    };
    format!("{pointer}: `returns` says {expected}, found {found}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::load::fixture::catalogue;

    fn found(keys: &str, answer: &str) -> ReturnsDrift {
        let catalogue = catalogue(&format!(r#""a": {{"route":"GET /a", KEYS, {keys}}}"#));
        drift(&catalogue.endpoints()[0], &ExactJson::parse(answer).unwrap())
    }

    #[test]
    fn answers_of_every_shape_are_compared() {
        let columns = r#"{"n":{"type":"int32"},"d":{"type":"date","nullable":true}}"#;
        let row = format!(r#""result":"row","returns":{columns}"#);
        let rows = format!(r#""result":"rows","returns":{columns}"#);
        let sets = format!(r#""result":"sets","returns":[{columns}]"#);
        let full =
            format!(r#""result":"full","returns":{{"sets":[{columns}],"outputs":{columns}}}"#);
        let value = r#""result":"value","returns":{"value":{"type":"uuid"}}"#;
        for (keys, good) in [
            (&*row, r#"{"n":1,"d":null}"#),
            (&row, r#"{"n":{"$any":"int64"},"d":{"$any":"date"}}"#),
            (&row, r#"{"$any":"json"}"#),
            (&rows, r#"[{"n":1,"d":"2026-01-01"},{"$any":"json"}]"#),
            (&sets, r#"[[{"n":1,"d":null}],[{"x":1}]]"#),
            (&full, r#"{"sets":[[]],"outputs":{"n":1,"d":null},"return":0}"#),
            (value, r#""3f2504e0-4f89-41d3-9a0c-0305e82c3301""#),
        ] {
            assert_eq!(found(keys, good), ReturnsDrift::default(), "{keys} {good}");
        }
        for (keys, bad, line) in [
            (&*row, r#"{"n":"1","d":null}"#, "/n: `returns` says int32, found a string"),
            (&row, r#"{"n":null,"d":null}"#, "/n: `returns` says int32, found null"),
            (&row, r#"{"n":1}"#, "/d: missing, although `returns` declares it"),
            (&row, "[]", "body: `returns` says an object, found an array"),
            (&row, r#"{"n":{"$any":"uuid"},"d":null}"#, "/n: `returns` says int32, found any uuid"),
            (&rows, r#"[{"n":1,"d":"x"}]"#, "/0/d: `returns` says date or null, found a string"),
            (&sets, "[[1]]", "/0/0: `returns` says an object, found a number"),
            (
                &full,
                r#"{"sets":[],"outputs":{}}"#,
                "/outputs/n: missing, although `returns` declares it",
            ),
            (value, "true", "body: `returns` says uuid, found a boolean"),
        ] {
            let found = found(keys, bad).contradictions;
            assert_eq!(found.first().map(String::as_str), Some(line), "{keys} {bad}");
        }
    }

    #[test]
    fn json_values_are_compared_with_their_schema() {
        let column = r#"{"type":"json","nullable":true,"schema":{"type":"array","items":{"type":"integer"}}}"#;
        let rows = format!(r#""result":"rows","returns":{{"a":{column}}}"#);
        let value = format!(r#""result":"json","returns":{{"value":{column}}}"#);
        for (keys, good) in [
            (&*rows, r#"[{"a":[1,2]},{"a":null},{"a":[{"$any":"string"}]},{"a":{"$any":"json"}}]"#),
            (&value, "[]"),
            (&value, "null"),
            (&value, "[1e999]"),
        ] {
            assert_eq!(found(keys, good), ReturnsDrift::default(), "{keys} {good}");
        }
        for (keys, bad, start) in [
            (
                &*rows,
                r#"[{"a":[{"$any":"string"},"2"]}]"#,
                "/0/a/1: contradicts the schema in `returns`: ",
            ),
            (
                &*rows,
                r#"[{"a":[]},{"a":[1,"2"]}]"#,
                "/1/a/1: contradicts the schema in `returns`: ",
            ),
            (&value, "{}", "body: contradicts the schema in `returns`: "),
        ] {
            let found = found(keys, bad).contradictions;
            assert!(found.len() == 1 && found[0].starts_with(start), "{found:?}");
        }
    }

    #[test]
    fn members_that_are_not_declared_contradict_nothing() {
        let keys = r#""result":"row","outputs":["total"],"returns":{"n":{"type":"int32"}}"#;
        let found = found(keys, r#"{"n":1,"m":2,"total":3}"#);
        assert_eq!(found.contradictions, [""; 0]);
        assert_eq!(found.undeclared, ["/m: `returns` does not declare this member"]);
    }
}
