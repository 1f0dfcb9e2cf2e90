//! Parses the layers: TOML, JSON, and the values of environment variables and `--set`.

use figment::value::{Dict, Value};

/// Parses a TOML file. An error contains the line number but not the line, which may be secret.
pub(super) fn parse_toml(text: &str) -> Result<Dict, String> {
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        format!("not TOML at line {line}")
    })?;
    Ok(table.into_iter().map(|(key, value)| (key, from_toml(value))).collect())
}

fn from_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(flag) => flag.into(),
        // Settings read dates as text. TOML formats them as in RFC 3339.
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Array(items) => {
            items.into_iter().map(from_toml).collect::<Vec<Value>>().into()
        }
        toml::Value::Table(table) => {
            table.into_iter().map(|(key, value)| (key, from_toml(value))).collect::<Dict>().into()
        }
    }
}

/// Parses a JSON file. An error contains the line number but not the line.
pub(super) fn parse_json(text: &str) -> Result<Dict, String> {
    serde_json::from_str(text).map_err(|error| {
        if error.is_data() {
            "expected a JSON object of sections".to_owned()
        } else {
            format!("not JSON at line {}, column {}", error.line(), error.column())
        }
    })
}

/// Parses the value of a variable or of `--set`: a JSON object, a JSON array, or otherwise text.
///
/// Text is converted later, by the key's type, so that a numeric password stays text.
pub(super) fn parse_value(text: &str) -> Value {
    let structured = matches!(text.trim_start().as_bytes().first(), Some(b'{' | b'['));
    let parsed = structured.then(|| serde_json::from_str::<Value>(text).ok()).flatten();
    parsed.unwrap_or_else(|| Value::from(text))
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

/// Splits a dotted key outside quotes. Returns `None` if a part is empty or a quote is open.
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
            assert_eq!(parse_value(text).as_str(), Some(text));
        }
        assert!(parse_value("{\"horse-*\": {\"concurrency\": 64}}").as_dict().is_some());
        assert!(parse_value("[\"a\"]").as_array().is_some());
    }

    #[test]
    fn a_syntax_error_gives_the_line_but_not_its_text() {
        let error =
            parse_toml("[messaging.nats]\nuser = \"u\"\npassword = \"hunter2\n").unwrap_err();
        assert_eq!(error, "not TOML at line 3");
        let error = parse_json("{\n\"password\": \"hunter2\n\"}").unwrap_err();
        assert!(error.starts_with("not JSON at line 3"), "{error}");
        assert_eq!(parse_json("\"hunter2\"").unwrap_err(), "expected a JSON object of sections");
    }
}
