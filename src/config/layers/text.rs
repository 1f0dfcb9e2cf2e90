//! Parses TOML, JSON, and the values of environment variables and `--set`.

use figment::value::{Dict, Value};

use crate::catalogue::TextPosition;
use crate::catalogue::definition::json::duplicate_members;

/// Parses a TOML file. An error contains its position but not the text of the line, which may be secret.
pub(super) fn parse_toml(text: &str) -> Result<Dict, (String, TextPosition)> {
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
        let expected = if error.message().starts_with("duplicate key") {
            format!("duplicate key at line {line}")
        } else {
            format!("invalid TOML at line {line}")
        };
        (expected, TextPosition { line, column: Some(column) })
    })?;
    Ok(table.into_iter().map(|(key, value)| (key, from_toml(value))).collect())
}

fn from_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(flag) => flag.into(),
        // Settings expect dates as text. TOML formats dates as in RFC 3339.
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Array(items) => {
            items.into_iter().map(from_toml).collect::<Vec<Value>>().into()
        }
        toml::Value::Table(table) => {
            table.into_iter().map(|(key, value)| (key, from_toml(value))).collect::<Dict>().into()
        }
    }
}

/// A key that occurs more than once in a JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DuplicateKey {
    /// The key with its section.
    pub(super) key: String,
    /// The line of the second value, counted from 1.
    pub(super) line: usize,
}

/// Parses a JSON file. Its `$schema` is ignored. An error contains its position but not the text of the line.
pub(super) fn parse_json(text: &str) -> Result<(Dict, Vec<DuplicateKey>), (String, TextPosition)> {
    let mut values: Dict = serde_json::from_str(text).map_err(|error| {
        let expected = if error.is_data() {
            "expected a JSON object of sections".to_owned()
        } else {
            format!("invalid JSON at line {}, column {}", error.line(), error.column())
        };
        (expected, TextPosition::from(&error))
    })?;
    values.remove("$schema");
    Ok((values, duplicates(text)))
}

fn duplicates(text: &str) -> Vec<DuplicateKey> {
    let found = duplicate_members(text).unwrap_or_default();
    found.into_iter().map(|(key, line)| DuplicateKey { key, line }).collect()
}

/// Parses the value of a variable or of `--set`. The value can be a JSON object or a JSON array. Anything else is text.
/// Also returns the keys that occur more than once in the value.
///
/// Text is converted later, according to the key's type, so that a numeric password remains text.
pub(super) fn parse_value(text: &str) -> (Value, Vec<DuplicateKey>) {
    let structured = matches!(text.trim_start().as_bytes().first(), Some(b'{' | b'['));
    let parsed = structured.then(|| serde_json::from_str::<Value>(text).ok()).flatten();
    match parsed {
        Some(value) => (value, duplicates(text)),
        None => (Value::from(text), Vec::new()),
    }
}

/// Splits `key=value` at the first `=` outside quotes.
pub(super) fn split_assignment(text: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let at = text.find(|character| {
        quoted ^= character == '"';
        character == '=' && !quoted
    })?;
    let (key, value) = text.split_at_checked(at)?;
    Some((key.trim(), value.strip_prefix('=')?))
}

/// Splits a key at dots outside quotes. Returns `None` if a part is empty or a quote is not closed.
pub(super) fn split_key(key: &str) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for character in key.chars() {
        match character {
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            _ => parts.last_mut()?.push(character),
        }
    }
    (!quoted && parts.iter().all(|part| !part.is_empty())).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_splits_at_the_first_equals_sign_outside_quotes() {
        let check = |text, expected| assert_eq!(split_assignment(text), expected, "{text}");
        check("a.b=c", Some(("a.b", "c")));
        check("a.b=c=d", Some(("a.b", "c=d")));
        check("a.b=", Some(("a.b", "")));
        check("a.\"CN=x\".b=c", Some(("a.\"CN=x\".b", "c")));
        check("a.b", None);
    }

    #[test]
    fn a_quoted_part_of_a_key_can_contain_dots() {
        let check = |text, expected: Option<&[&str]>| {
            let expected = expected.map(|parts| parts.iter().map(ToString::to_string).collect());
            assert_eq!(split_key(text), expected, "{text}");
        };
        check("gateway.listen", Some(&["gateway", "listen"]));
        check("worker.queues.horse-*", Some(&["worker", "queues", "horse-*"]));
        check(
            "auth.certificates.\"shop.example\".x",
            Some(&["auth", "certificates", "shop.example", "x"]),
        );
        check("a..b", None);
        check("a.\"b", None);
        check("", None);
    }

    #[test]
    fn a_password_of_digits_stays_text() {
        for text in ["007", "true", "1e3", "[a", "{x", " [a, b]"] {
            assert_eq!(parse_value(text).0.as_str(), Some(text));
        }
        assert!(parse_value("{\"horse-*\": {\"concurrency\": 64}}").0.as_dict().is_some());
        assert!(parse_value("[\"a\"]").0.as_array().is_some());
    }

    #[test]
    fn a_syntax_error_gives_the_line_but_not_its_text() {
        let (error, at) =
            parse_toml("[messaging.nats]\nuser = \"u\"\npassword = \"hunter2\n").unwrap_err();
        assert_eq!((error.as_str(), at.line), ("invalid TOML at line 3", 3));
        let (error, at) = parse_toml("[a]\nb = 1\n  b = 2\n").unwrap_err();
        assert_eq!(error, "duplicate key at line 3");
        assert_eq!(at, TextPosition { line: 3, column: Some(3) });
        let (error, at) = parse_json("{\n\"password\": \"hunter2\n\"}").unwrap_err();
        assert!(error.starts_with("invalid JSON at line 3"), "{error}");
        assert_eq!(at.line, 3);
        let (error, _) = parse_json("\"hunter2\"").unwrap_err();
        assert_eq!(error, "expected a JSON object of sections");
    }

    #[test]
    fn a_key_that_json_gives_twice_is_found() {
        let text = "{\"a\": {\"b\": 1,\n\"b\": 2}, \"c\": [{\"d\": 1, \"d\": 1}],\n\"a\": {}}";
        let (_, found) = parse_json(text).unwrap();
        let expected = [("a.b", 2), ("c[0].d", 2), ("a", 3)];
        assert_eq!(found, expected.map(|(key, line)| DuplicateKey { key: key.to_owned(), line }));
        let (_, found) = parse_value("{\"a\": 1, \"a\": 2}");
        assert_eq!(found, [DuplicateKey { key: "a".to_owned(), line: 1 }]);
        let (values, _) = parse_json("{\"$schema\": \"x.json\", \"a\": {}}").unwrap();
        assert_eq!(values.keys().collect::<Vec<_>>(), ["a"]);
    }
}
