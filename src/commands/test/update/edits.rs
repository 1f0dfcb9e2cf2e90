//! Changes single values of a JSON text, so that the rest keeps its form.

use std::ops::Range;

use serde_json::value::RawValue;

use crate::catalogue::ExactJson;
use crate::catalogue::definition::json::RawMembers;

/// A replacement of a part of a text.
#[derive(Debug)]
pub(super) struct Edit {
    range: Range<usize>,
    text: String,
}

impl Edit {
    fn replace(text: &str, old: &RawValue, new: &ExactJson) -> Self {
        let range = range_of(text, old);
        let (indent, column) = position(text, range.start);
        Self { text: new.to_indented(indent, column), range }
    }

    /// Adds a member at the end of an object of the text.
    pub(super) fn add_member(text: &str, object: &RawValue, name: &str, value: &ExactJson) -> Self {
        let range = range_of(text, object);
        let inner = text.get(range.start + 1..range.end.saturating_sub(1)).unwrap_or_default();
        let at = range.start + 1 + inner.trim_end().len();
        let key = serde_json::Value::from(name);
        let (indent, _) = position(text, range.start);
        let new = if inner.trim().is_empty() {
            let value = value.to_indented(indent, indent.len());
            let range = range.start + 1..range.end.saturating_sub(1);
            return Self { range, text: format!(" {key}: {value} ") };
        } else if inner.contains('\n') {
            let indent = format!("{indent}  ");
            let start = format!("{indent}{key}: ");
            let value = value.to_indented(&indent, start.len());
            format!(",\n{start}{value}")
        } else {
            let (_, column) = position(text, at);
            let start = format!(", {key}: ");
            format!("{start}{}", value.to_indented(indent, column + start.len()))
        };
        Self { range: at..at, text: new }
    }
}

/// Returns the place of a value in the text from which it was read.
fn range_of(text: &str, value: &RawValue) -> Range<usize> {
    let start = value.get().as_ptr().addr().saturating_sub(text.as_ptr().addr());
    start..start + value.get().len()
}

/// Returns the indentation of the line at a place, and the column of the place in it.
fn position(text: &str, at: usize) -> (&str, usize) {
    let before = text.get(..at).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    let indent = line.len() - line.trim_start().len();
    (line.get(..indent).unwrap_or_default(), line.chars().count())
}

/// Adds the edits that turn a value of the text into another one.
///
/// # Errors
/// A message if the value cannot be read.
pub(super) fn edits(
    text: &str,
    old: &RawValue,
    new: &ExactJson,
    found: &mut Vec<Edit>,
) -> Result<(), String> {
    if ExactJson::from_raw(old)? == *new {
        return Ok(());
    }
    match (old.get().as_bytes().first(), new) {
        (Some(b'{'), ExactJson::Object(new_members)) => {
            let read: RawMembers<'_> =
                serde_json::from_str(old.get()).map_err(|error| error.to_string())?;
            let has_same_names = read.0.len() == new_members.len()
                && read.0.iter().all(|(name, _)| new.member(name).is_some());
            if has_same_names {
                for (name, old) in read.0 {
                    if let Some(new) = new.member(&name) {
                        edits(text, old, new, found)?;
                    }
                }
                return Ok(());
            }
        }
        (Some(b'['), ExactJson::Array(new_items)) => {
            let items: Vec<&RawValue> =
                serde_json::from_str(old.get()).map_err(|error| error.to_string())?;
            if items.len() == new_items.len() {
                for (old, new) in items.into_iter().zip(new_items) {
                    edits(text, old, new, found)?;
                }
                return Ok(());
            }
        }
        _ => {}
    }
    found.push(Edit::replace(text, old, new));
    Ok(())
}

/// Applies edits that do not overlap.
pub(super) fn apply(text: &str, mut all: Vec<Edit>) -> String {
    all.sort_by_key(|edit| edit.range.start);
    let mut new = text.to_owned();
    for Edit { range, text } in all.iter().rev() {
        new.replace_range(range.clone(), text);
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str, new: &str) -> String {
        let document: &RawValue = serde_json::from_str(text).unwrap();
        let mut found = Vec::new();
        edits(text, document, &ExactJson::parse(new).unwrap(), &mut found).unwrap();
        apply(text, found)
    }

    #[test]
    fn only_changed_values_are_written() {
        let text =
            "{\n  \"a\" : 1,   \"rows\": [ {\"n\":1}, {\"n\":2} ],\n  \"text\": \"ä\\u00e4\"\n}";
        let expected = text.replace("{\"n\":2}", "{\"n\":30}").replace(": 1,", ": [1, 2],");
        let new = r#"{"rows":[{"n":1},{"n":30}],"text":"ää","a":[1,2]}"#;
        assert_eq!(changed(text, new), expected);
        assert_eq!(changed(text, r#"{"a":1,"rows":[{"n":1},{"n":2}],"text":"ää"}"#), text);
    }

    #[test]
    fn an_object_with_other_members_is_written_anew() {
        let text = "{\n    \"a\": {\n      \"b\": 1\n    },\n    \"c\": []\n}";
        let long = "x".repeat(100);
        let found = changed(text, &format!(r#"{{"a":{{"b":1,"d":"{long}"}},"c":[1]}}"#));
        let expected = format!(
            "{{\n    \"a\": {{\n      \"b\": 1,\n      \"d\": \"{long}\"\n    }},\n    \"c\": [1]\n}}"
        );
        assert_eq!(found, expected);
    }

    #[test]
    fn a_member_is_added_in_the_form_of_its_object() {
        let value = ExactJson::parse(r#"{"status":200}"#).unwrap();
        for (text, expected) in [
            ("{}", r#"{ "answer": { "status": 200 } }"#),
            (r#"{ "a": 1 }"#, r#"{ "a": 1, "answer": { "status": 200 } }"#),
            ("{\n  \"a\": 1\n}", "{\n  \"a\": 1,\n  \"answer\": { \"status\": 200 }\n}"),
        ] {
            let object: &RawValue = serde_json::from_str(text).unwrap();
            let edit = Edit::add_member(text, object, "answer", &value);
            assert_eq!(apply(text, vec![edit]), expected);
        }
    }
}
