//! Changes individual values in JSON text and preserves the formatting of the rest.

use std::ops::Range;

use serde_json::value::RawValue;

use crate::catalogue::ExactJson;
use crate::catalogue::exact_json::quoted;

use container::ContainerEdit;

mod container;

/// The indentation unit for text without indented lines.
const UNIT_DEFAULT: &str = "  ";

/// A text and its formatting.
#[derive(Clone, Copy, Debug)]
pub(super) struct SourceText<'a> {
    text: &'a str,
    /// The indentation that is added for each level.
    unit: &'a str,
    has_crlf: bool,
}

impl<'a> SourceText<'a> {
    /// Determines the formatting from the first indented line and the first line ending.
    pub(super) fn new(text: &'a str) -> Self {
        let indents = text.lines().filter_map(|line| {
            let inner = line.trim_start_matches([' ', '\t']);
            let is_indented = !inner.trim().is_empty() && inner.len() < line.len();
            is_indented.then(|| line.get(..line.len() - inner.len())).flatten()
        });
        let unit = indents.take(1).next().unwrap_or(UNIT_DEFAULT);
        let first_line = text.split_once('\n').map_or("", |(line, _)| line);
        Self { text, unit, has_crlf: first_line.ends_with('\r') }
    }

    /// Returns the range of a value that was parsed from the text.
    pub(super) fn range_of(&self, value: &RawValue) -> Range<usize> {
        let start = value.get().as_ptr().addr().saturating_sub(self.text.as_ptr().addr());
        start..start + value.get().len()
    }

    /// Returns the indentation of the line that contains an offset, and the offset's column in that line.
    fn position(&self, at: usize) -> (&'a str, usize) {
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        let indent = line.len() - line.trim_start().len();
        (line.get(..indent).unwrap_or_default(), line.chars().count())
    }

    /// Applies non-overlapping edits to a part of the text.
    pub(super) fn edited<'e>(
        &self,
        part: Range<usize>,
        edits: impl IntoIterator<Item = &'e Edit>,
    ) -> String {
        let mut edits: Vec<&Edit> = edits.into_iter().collect();
        edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
        let (mut new, mut at) = (String::new(), part.start);
        for Edit { range, text } in edits {
            new.push_str(self.text.get(at..range.start).unwrap_or_default());
            new.push_str(text);
            at = range.end;
        }
        new.push_str(self.text.get(at..part.end).unwrap_or_default());
        new
    }
}

/// A replacement for a part of a text.
#[derive(Debug)]
pub(super) struct Edit {
    range: Range<usize>,
    text: String,
}

impl Edit {
    fn new(source: SourceText<'_>, range: Range<usize>, text: String) -> Self {
        // Line breaks inside strings are escaped in JSON, so only the formatting changes.
        let text = if source.has_crlf { text.replace('\n', "\r\n") } else { text };
        Self { range, text }
    }

    fn replace(source: SourceText<'_>, old: &RawValue, new: &ExactJson) -> Self {
        let range = source.range_of(old);
        let (indent, column) = source.position(range.start);
        Self::new(source, range, new.to_indented(indent, source.unit, column))
    }

    /// Returns the edit that adds a member at the end of an object in the text.
    pub(super) fn add_member(
        source: SourceText<'_>,
        object: &RawValue,
        name: &str,
        value: &ExactJson,
    ) -> Self {
        let range = source.range_of(object);
        let content = range.start + 1..range.end.saturating_sub(1);
        let inner = source.text.get(content.clone()).unwrap_or_default();
        let at = content.start + inner.trim_end().len();
        let key = quoted(name);
        let (indent, _) = source.position(range.start);
        let unit = source.unit;
        if inner.trim().is_empty() {
            let value = value.to_indented(indent, unit, indent.len());
            return Self::new(source, content, format!(" {key}: {value} "));
        }
        let new = if inner.contains('\n') {
            let indent = format!("{indent}{unit}");
            let start = format!("{indent}{key}: ");
            let value = value.to_indented(&indent, unit, start.len());
            format!(",\n{start}{value}")
        } else {
            let (_, column) = source.position(at);
            let start = format!(", {key}: ");
            format!("{start}{}", value.to_indented(indent, unit, column + start.len()))
        };
        Self::new(source, at..at, new)
    }
}

/// Adds the edits that turn a value in the text into another value. Unchanged items and members keep their formatting.
///
/// # Errors
/// Returns a message if the value cannot be parsed.
pub(super) fn edits(
    source: SourceText<'_>,
    old: &RawValue,
    new: &ExactJson,
    found: &mut Vec<Edit>,
) -> Result<(), String> {
    let old_json = ExactJson::from_raw(old)?;
    if old_json == *new {
        return Ok(());
    }
    let container = match (&old_json, new) {
        (ExactJson::Object(_), ExactJson::Object(members)) => {
            ContainerEdit::object(source, old, members)?
        }
        (ExactJson::Array(old_items), ExactJson::Array(items)) => {
            ContainerEdit::array(source, old, (old_items, items))?
        }
        _ => None,
    };
    let Some(container) = container else {
        found.push(Edit::replace(source, old, new));
        return Ok(());
    };
    let mut own = container.edits();
    for (raw, new) in &container.kept {
        edits(source, raw, new, &mut own)?;
    }
    if container.has_new() && !container.fits(&own) {
        own = vec![Edit::replace(source, old, new)];
    }
    found.append(&mut own);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str, new: &str) -> String {
        let document: &RawValue = serde_json::from_str(text).unwrap();
        let mut found = Vec::new();
        let source = SourceText::new(text);
        edits(source, document, &ExactJson::parse(new).unwrap(), &mut found).unwrap();
        source.edited(0..text.len(), &found)
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
    fn items_and_members_that_stay_keep_their_form() {
        let text = "{\n  \"rows\": [\n    {\"n\":1,  \"t\":\"a\"},\n\n    { \"n\" : 2 },\n    {\"n\":3}\n  ],\n  \"one\": [ 1,2,  3 ],\n  \"b\": 1\n}";
        for (new, from, to) in [
            // Items are added at the start, in the middle and at the end.
            (
                r#"{"rows":[{"n":0},{"n":1,"t":"a"},{"n":2},{"n":3}],"one":[1,2,3],"b":1}"#,
                "    {\"n\":1",
                "    { \"n\": 0 },\n    {\"n\":1",
            ),
            (
                r#"{"rows":[{"n":1,"t":"a"},{"n":2},{"n":9},{"n":3}],"one":[1,2,3],"b":1}"#,
                "{ \"n\" : 2 },\n",
                "{ \"n\" : 2 },\n    { \"n\": 9 },\n",
            ),
            (
                r#"{"rows":[{"n":1,"t":"a"},{"n":2},{"n":3}],"one":[1,2,3,4],"b":1}"#,
                "2,  3 ]",
                "2,  3,4 ]",
            ),
            // An item is removed and another one is changed.
            (
                r#"{"rows":[{"n":2},{"n":3}],"one":[1,2,3],"b":1}"#,
                "    {\"n\":1,  \"t\":\"a\"},\n\n",
                "",
            ),
            (r#"{"rows":[{"n":1,"t":"b"},{"n":2}],"one":[1,2,3],"b":1}"#, "\"a\"", "\"b\""),
            (r#"{"rows":[{"n":1,"t":"a"},{"n":2},{"n":3}],"one":[1,3],"b":1}"#, "1,2,  3", "1,  3"),
            // Members are added, removed and changed.
            (
                r#"{"rows":[{"n":1,"t":"a"},{"n":2},{"n":3}],"one":[1,2,3],"c":{},"b":1}"#,
                "  \"b\": 1",
                "  \"c\": {},\n  \"b\": 1",
            ),
            (r#"{"rows":[{"n":1},{"n":2},{"n":3}],"one":[1,2,3],"b":1}"#, ",  \"t\":\"a\"", ""),
            (r#"{"one":[1,2,3],"b":1}"#, text.get(4..text.find("\"one\"").unwrap()).unwrap(), ""),
        ] {
            let expected = if new.contains("\"t\":\"b\"") {
                text.replace(from, to).replace(",\n    {\"n\":3}", "")
            } else {
                text.replacen(from, to, 1)
            };
            assert_eq!(changed(text, new), expected, "{new}");
        }
    }

    #[test]
    fn an_object_in_one_line_that_becomes_too_long_is_written_anew() {
        let text = "{\n    \"a\": {\n        \"b\": 1\n    },\n    \"c\": []\n}";
        let long = "x".repeat(100);
        let found = changed(text, &format!(r#"{{"a":{{"b":1,"d":"{long}"}},"c":[1]}}"#));
        let expected = format!(
            "{{\n    \"a\": {{\n        \"b\": 1,\n        \"d\": \"{long}\"\n    }},\n    \"c\": [1]\n}}"
        );
        assert_eq!(found, expected);
    }

    #[test]
    fn line_ends_and_indentation_are_those_of_the_text() {
        let text = "{\r\n\t\"a\": { \"b\": 1 }\r\n}\r\n";
        let long = "x".repeat(110);
        let expected = format!(
            "{{\r\n\t\"a\": {{\r\n\t\t\"b\": 1,\r\n\t\t\"c\": \"\\n{long}\"\r\n\t}}\r\n}}\r\n"
        );
        let new = format!(r#"{{"a":{{"b":1,"c":"\n{long}"}}}}"#);
        assert_eq!(changed(text, &new), expected);
        let four = "{\n\n    \"a\": []\n}";
        let expected = format!("{{\n\n    \"a\": [\n        \"{long}\"\n    ]\n}}");
        assert_eq!(changed(four, &format!(r#"{{"a":["{long}"]}}"#)), expected);
    }

    #[test]
    fn a_member_is_added_in_the_form_of_its_object() {
        let value = ExactJson::parse(r#"{"status":200}"#).unwrap();
        for (text, expected) in [
            ("{}", r#"{ "answer": { "status": 200 } }"#),
            (r#"{ "a": 1 }"#, r#"{ "a": 1, "answer": { "status": 200 } }"#),
            ("{\r\n\t\"a\": 1\r\n}", "{\r\n\t\"a\": 1,\r\n\t\"answer\": { \"status\": 200 }\r\n}"),
            ("{\n  \"a\": 1\n}", "{\n  \"a\": 1,\n  \"answer\": { \"status\": 200 }\n}"),
        ] {
            let object: &RawValue = serde_json::from_str(text).unwrap();
            let source = SourceText::new(text);
            let edit = Edit::add_member(source, object, "answer", &value);
            assert_eq!(source.edited(0..text.len(), [&edit]), expected);
        }
    }
}
