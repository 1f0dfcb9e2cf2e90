//! Finds the line of a key in a TOML or JSON file.

use std::ops::Range;
use std::path::Path;

use serde_json::value::RawValue;
use toml_edit::{ImDocument, Item, TableLike};

use crate::catalogue::definition::json::{RawMembers, line_of};

/// Returns the line of a key, counted from 1. If the key is missing, returns the line of the innermost table or object
/// that should contain it. `endpoint` is the endpoint's id in a catalogue file.
pub(super) fn line(path: &Path, endpoint: Option<&str>, key: &str) -> Option<usize> {
    let text = std::fs::read_to_string(path).ok()?;
    if path.extension().is_some_and(|extension| extension == "toml") {
        let document = ImDocument::parse(text.as_str()).ok()?;
        let span = find_in_toml(document.as_table(), key)?;
        let before = text.as_bytes().get(..span.start)?;
        return Some(memchr::memchr_iter(b'\n', before).count() + 1);
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let document: &RawValue = serde_json::from_str(text).ok()?;
    match endpoint {
        Some(id) => {
            let RawMembers(members) = serde_json::from_str(document.get()).ok()?;
            let (_, found) = members.into_iter().find(|(name, _)| name == id)?;
            Some(line_of(text, find_in_json(found, key).unwrap_or(found)))
        }
        None => find_in_json(document, key).map(|found| line_of(text, found)),
    }
}

/// Removes the first part `name` from a key and returns the rest, or `None` if the key starts with another part. A part
/// can be quoted and can contain dots.
fn rest_after<'a>(key: &'a str, name: &str) -> Option<&'a str> {
    let quoted = format!("\"{name}\"");
    let rest = key.strip_prefix(quoted.as_str()).or_else(|| key.strip_prefix(name))?;
    if rest.is_empty() || rest.starts_with('[') {
        return Some(rest);
    }
    rest.strip_prefix('.')
}

/// Splits a bracketed index off the start of a key.
fn index_of(key: &str) -> Option<(usize, &str)> {
    let (index, rest) = key.strip_prefix('[')?.split_once(']')?;
    Some((index.parse().ok()?, rest.strip_prefix('.').unwrap_or(rest)))
}

fn find_in_json<'a>(value: &'a RawValue, key: &str) -> Option<&'a RawValue> {
    if key.is_empty() {
        return Some(value);
    }
    if let Some((index, rest)) = index_of(key) {
        let items: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
        return find_in_json(items.get(index)?, rest);
    }
    let RawMembers(members) = serde_json::from_str(value.get()).ok()?;
    let mut matching = members
        .iter()
        .filter_map(|(name, value)| find_in_json(value, rest_after(key, name)?).or(Some(*value)));
    matching.next()
}

fn find_in_toml(table: &dyn TableLike, key: &str) -> Option<Range<usize>> {
    for (name, _) in table.iter() {
        let Some(rest) = rest_after(key, name) else { continue };
        let (written, item) = table.get_key_value(name)?;
        let own = written.span().or_else(|| item.span());
        return find_in_item(item, rest).or(own);
    }
    None
}

fn find_in_item(item: &Item, key: &str) -> Option<Range<usize>> {
    if let Some((index, rest)) = index_of(key) {
        if let Some(tables) = item.as_array_of_tables() {
            let table = tables.get(index)?;
            return find_in_toml(table, rest).or_else(|| table.span());
        }
        let value = item.as_array()?.get(index)?;
        let inner = value.as_inline_table().and_then(|table| find_in_toml(table, rest));
        return inner.or_else(|| value.span());
    }
    if key.is_empty() {
        return None;
    }
    find_in_toml(item.as_table_like()?, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_in(name: &str, text: &str, endpoint: Option<&str>, key: &str) -> Option<usize> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        line(&path, endpoint, key)
    }

    #[test]
    fn a_key_of_toml_has_the_line_where_it_is_written() {
        let text = "[gateway]\nlisten = 'x'\n[gateway.tls]\ncertificates = [\n  { key = 'a' },\n  { key = 'b' },\n]\n\
                    [worker.queues.\"horse-*\"]\nconcurrency = 0\n[[a.b]]\nc = 1\n[[a.b]]\nc = 2\n";
        for (key, expected) in [
            ("gateway.listen", Some(2)),
            ("gateway.tls", Some(3)),
            ("gateway.tls.certificates[1].key", Some(6)),
            ("gateway.tls.missing", Some(3)),
            ("worker.queues.\"horse-*\".concurrency", Some(9)),
            ("a.b[1].c", Some(13)),
            ("other.key", None),
            ("", None),
        ] {
            assert_eq!(line_in("a.toml", text, None, key), expected, "{key}");
        }
    }

    #[test]
    fn a_key_of_json_has_the_line_of_its_value() {
        let text = "\u{feff}{ \"a\": {\n\"route\": 1,\n\"parameters\": {\n\"x.y\": {\n\"type\": 2 } } },\n\"b\": {} }";
        for (endpoint, key, expected) in [
            (Some("a"), "route", Some(2)),
            (Some("a"), "parameters.x.y.type", Some(5)),
            (Some("a"), "parameters.x.y.in", Some(4)),
            (Some("a"), "missing", Some(1)),
            (Some("b"), "route", Some(6)),
            (Some("c"), "route", None),
            (None, "a.route", Some(2)),
        ] {
            assert_eq!(line_in("a.json", text, endpoint, key), expected, "{endpoint:?} {key}");
        }
    }
}
