//! JSON values that keep every digit of their numbers and the order of their members.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The maximum nesting depth of arrays and objects.
const DEPTH_MAX: usize = 64;
/// The maximum width of a line on which `to_indented` writes a whole value.
pub const LINE_WIDTH_MAX: usize = 110;

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExactJson {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A number, as written in the text.
    Number(Box<str>),
    /// A string.
    Text(Box<str>),
    /// An array.
    Array(Vec<ExactJson>),
    /// An object. Its names are unique.
    Object(Vec<(Box<str>, ExactJson)>),
}

impl ExactJson {
    /// Parses a JSON text.
    ///
    /// # Errors
    /// Returns a message if the text is not JSON, is nested too deeply, or has an object with a duplicate member.
    pub fn parse(text: &str) -> Result<Self, String> {
        let raw: &RawValue = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Self::from_raw(raw)
    }

    /// Reads a JSON value.
    ///
    /// # Errors
    /// See `parse`.
    pub fn from_raw(raw: &RawValue) -> Result<Self, String> {
        Self::read(raw, 0)
    }

    fn read(raw: &RawValue, depth: usize) -> Result<Self, String> {
        if depth > DEPTH_MAX {
            return Err(format!("nested too deeply: expected at most {DEPTH_MAX} levels"));
        }
        let text = raw.get();
        let error = |error: serde_json::Error| error.to_string();
        Ok(match text.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't') => Self::Boolean(true),
            Some(b'f') => Self::Boolean(false),
            Some(b'"') => Self::Text(serde_json::from_str(text).map_err(error)?),
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text).map_err(error)?;
                let items = items.into_iter().map(|item| Self::read(item, depth + 1));
                Self::Array(items.collect::<Result<_, _>>()?)
            }
            Some(b'{') => {
                let UniqueMembers(members) = serde_json::from_str(text).map_err(error)?;
                let read = |(name, raw)| Ok((name, Self::read(raw, depth + 1)?));
                Self::Object(members.into_iter().map(read).collect::<Result<_, String>>()?)
            }
            _ => Self::Number(text.into()),
        })
    }

    /// Returns the value of a member, or `None` if this is not an object or has no such member.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().find(|(known, _)| **known == *name).map(|(_, value)| value)
    }

    /// Returns the text of a string.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// Returns the number of arrays, objects and other values in this value, including the value itself.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Array(items) => 1 + items.iter().map(Self::count).sum::<usize>(),
            Self::Object(members) => 1 + members.iter().map(|(_, it)| it.count()).sum::<usize>(),
            _ => 1,
        }
    }

    /// Converts the value to `serde_json`'s type, which libraries expect. Numbers that are not 64-bit integers are
    /// rounded to doubles. Numbers that are too large for a double become `null`.
    #[must_use]
    pub fn to_value(&self) -> serde_json::Value {
        use serde_json::Value;
        match self {
            Self::Null => Value::Null,
            Self::Boolean(value) => (*value).into(),
            Self::Number(text) => serde_json::from_str(text).unwrap_or(Value::Null),
            Self::Text(text) => (&**text).into(),
            Self::Array(items) => items.iter().map(Self::to_value).collect(),
            Self::Object(members) => members
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_value()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    /// Returns whether `to_value` can convert every number. It cannot convert a number such as `1e999`, which is too
    /// large for a double.
    #[must_use]
    pub fn is_convertible(&self) -> bool {
        match self {
            Self::Number(text) => serde_json::from_str::<serde_json::Number>(text).is_ok(),
            Self::Array(items) => items.iter().all(Self::is_convertible),
            Self::Object(members) => members.iter().all(|(_, value)| value.is_convertible()),
            _ => true,
        }
    }

    /// Returns the text in the form of catalogue files. A short value is written on one line. A longer array or object
    /// is written with one item or member per line. `indent` is the indentation of the line on which the text starts,
    /// at column `column`. `unit` is the additional indentation of each level.
    #[must_use]
    pub fn to_indented(&self, indent: &str, unit: &str, column: usize) -> String {
        let line = self.to_string();
        let inner = format!("{indent}{unit}");
        let is_short = column + line.chars().count() <= LINE_WIDTH_MAX;
        match self {
            Self::Array(items) if !items.is_empty() && !is_short => {
                let items: Vec<String> = items
                    .iter()
                    .map(|item| format!("{inner}{}", item.to_indented(&inner, unit, inner.len())))
                    .collect();
                format!("[\n{}\n{indent}]", items.join(",\n"))
            }
            Self::Object(members) if !members.is_empty() && !is_short => {
                let members: Vec<String> = members
                    .iter()
                    .map(|(name, value)| {
                        let start = format!("{inner}{}: ", quoted(name));
                        let column = start.chars().count();
                        start + &value.to_indented(&inner, unit, column)
                    })
                    .collect();
                format!("{{\n{}\n{indent}}}", members.join(",\n"))
            }
            _ => line,
        }
    }
}

/// The members of an object, whose names are unique.
struct UniqueMembers<'a>(Vec<(Box<str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for UniqueMembers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UniqueMembersVisitor;
        impl<'de> Visitor<'de> for UniqueMembersVisitor {
            type Value = UniqueMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                let mut names: HashSet<Box<str>> = HashSet::new();
                while let Some((name, value)) = map.next_entry::<Box<str>, &'de RawValue>()? {
                    if !names.insert(name.clone()) {
                        let error = format!("the member {name:?} is given more than once");
                        return Err(A::Error::custom(error));
                    }
                    members.push((name, value));
                }
                Ok(UniqueMembers(members))
            }
        }
        deserializer.deserialize_map(UniqueMembersVisitor)
    }
}

/// Returns a string as JSON.
#[must_use]
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Writes the value on one line, in the form of catalogue files.
impl fmt::Display for ExactJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Boolean(value) => value.fmt(f),
            Self::Number(text) => f.write_str(text),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Array(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}{item}")?;
                }
                f.write_str("]")
            }
            Self::Object(members) if members.is_empty() => f.write_str("{}"),
            Self::Object(members) => {
                for (index, (name, value)) in members.iter().enumerate() {
                    let separator = if index == 0 { "{ " } else { ", " };
                    write!(f, "{separator}{}: {value}", quoted(name))?;
                }
                f.write_str(" }")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_digit_and_the_order_of_members_are_kept() {
        let text = r#"{ "z": 12345678901234567890.10, "a": [1.0, -0, 1e400, null, true, "\"ä"], "o": {} }"#;
        assert_eq!(ExactJson::parse(text).unwrap().to_string(), text);
    }

    #[test]
    fn text_that_is_not_json_is_refused() {
        let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
        for (text, part) in [
            ("{", "EOF"),
            ("1 2", "trailing"),
            (r#"{"a":1,"a":2}"#, "\"a\" is given more than once"),
            (r#""\ud800""#, "escape"),
            (&*deep, "nested too deeply"),
        ] {
            let error = ExactJson::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_long_value_has_several_lines() {
        let long = "x".repeat(100);
        let text = format!(r#"{{"a": ["{long}", {{"b": 1}}], "c": 2}}"#);
        let expected = format!(
            "{{\n    \"a\": [\n      \"{long}\",\n      {{ \"b\": 1 }}\n    ],\n    \"c\": 2\n  }}"
        );
        let parsed = ExactJson::parse(&text).unwrap();
        assert_eq!(parsed.to_indented("  ", "  ", 10), expected);
        assert_eq!(ExactJson::parse(&expected).unwrap(), parsed);
        assert_eq!(parsed.count(), 6);
    }
}
