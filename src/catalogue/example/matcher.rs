//! Matchers: in an expected answer, `{"$any": "uuid"}` matches any value of the type `uuid`.

use super::value_type::{has_type, sample};
use crate::catalogue::exact_json::ExactJson;
use crate::catalogue::parameter::ParameterType;

/// The member that makes an object a matcher.
pub const ANY: &str = "$any";
/// The member with the value that the documentation shows.
const SHOWN: &str = "example";
/// The member that also allows `null`.
const NULLABLE: &str = "nullable";

/// The types that a matcher can name.
const KINDS: [ParameterType; 12] = [
    ParameterType::String,
    ParameterType::Int32,
    ParameterType::Int64,
    ParameterType::Number,
    ParameterType::Decimal,
    ParameterType::Boolean,
    ParameterType::Uuid,
    ParameterType::Date,
    ParameterType::Time,
    ParameterType::Datetime,
    ParameterType::Binary,
    ParameterType::Json,
];

/// A placeholder for a value that can differ from answer to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matcher<'a> {
    /// The type of the value. The type `json` matches any value.
    pub kind: ParameterType,
    /// Whether the matcher also matches `null`.
    nullable: bool,
    /// The value that the documentation shows.
    shown: Option<&'a ExactJson>,
}

impl<'a> Matcher<'a> {
    /// Returns the value as a matcher, if it is one.
    #[must_use]
    pub fn from_json(value: &'a ExactJson) -> Option<Self> {
        Self::read(value)?.ok()
    }

    /// Reads a matcher. Returns `None` if the value is not a matcher.
    pub(in crate::catalogue) fn read(value: &'a ExactJson) -> Option<Result<Self, String>> {
        let any = value.member(ANY)?;
        let ExactJson::Object(members) = value else { return None };
        let kind = any.as_text();
        let Some(kind) = KINDS.into_iter().find(|known| Some(known.as_str()) == kind) else {
            let known = KINDS.map(ParameterType::as_str).join(", ");
            return Some(Err(format!("{ANY}: expected one of {known}; found {any}")));
        };
        if let Some((name, _)) =
            members.iter().find(|(name, _)| ![ANY, SHOWN, NULLABLE].contains(&&**name))
        {
            let error = format!(
                "expected only {ANY:?}, {SHOWN:?} and {NULLABLE:?} in a matcher; found {name:?}"
            );
            return Some(Err(error));
        }
        let nullable = match value.member(NULLABLE) {
            None => false,
            Some(ExactJson::Boolean(nullable)) => *nullable,
            Some(other) => {
                return Some(Err(format!("{NULLABLE}: expected true or false; found {other}")));
            }
        };
        let shown = value.member(SHOWN);
        let is_null = |shown: &ExactJson| nullable && *shown == ExactJson::Null;
        if shown.is_some_and(|shown| !has_type(kind, shown) && !is_null(shown)) {
            return Some(Err(format!("{SHOWN}: expected a value of the type {}", kind.as_str())));
        }
        Some(Ok(Self { kind, nullable, shown }))
    }

    /// Returns whether the matcher matches a value.
    #[must_use]
    pub fn is_match(&self, value: &ExactJson) -> bool {
        has_type(self.kind, value) || (self.nullable && *value == ExactJson::Null)
    }

    /// Returns the value for the documentation: the matcher's own example, or a sample of its type.
    #[must_use]
    pub fn sample(&self) -> ExactJson {
        self.shown.cloned().unwrap_or_else(|| sample(self.kind))
    }

    /// Describes the values that the matcher matches.
    #[must_use]
    pub fn description(&self) -> String {
        match self.kind {
            ParameterType::Json => "any value".to_owned(),
            kind if self.nullable => format!("any {} or null", kind.as_str()),
            kind => format!("any {}", kind.as_str()),
        }
    }
}

/// Returns every error in the matchers of an expected value, each with its JSON Pointer.
pub(in crate::catalogue) fn errors(value: &ExactJson) -> Vec<(String, String)> {
    let mut found = Vec::new();
    add_errors(value, String::new(), &mut found);
    found
}

fn add_errors(value: &ExactJson, pointer: String, found: &mut Vec<(String, String)>) {
    match (Matcher::read(value), value) {
        (Some(Err(error)), _) => found.push((pointer, error)),
        (None, ExactJson::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                add_errors(item, format!("{pointer}/{index}"), found);
            }
        }
        (None, ExactJson::Object(members)) => {
            for (name, value) in members {
                add_errors(value, format!("{pointer}/{name}"), found);
            }
        }
        (Some(Ok(_)) | None, _) => {}
    }
}

/// Returns an expected value with a sample instead of each matcher.
#[must_use]
pub fn with_samples(value: &ExactJson) -> ExactJson {
    match (Matcher::from_json(value), value) {
        (Some(matcher), _) => matcher.sample(),
        (None, ExactJson::Array(items)) => {
            ExactJson::Array(items.iter().map(with_samples).collect())
        }
        (None, ExactJson::Object(members)) => ExactJson::Object(
            members.iter().map(|(name, value)| (name.clone(), with_samples(value))).collect(),
        ),
        (None, other) => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> ExactJson {
        ExactJson::parse(text).unwrap()
    }

    #[test]
    fn a_matcher_matches_the_values_of_its_type() {
        for (written, matching, other) in [
            (r#"{"$any":"string"}"#, r#""""#, "1"),
            (r#"{"$any":"int64"}"#, "-7", "7.5"),
            (r#"{"$any":"decimal"}"#, "7.5", r#""7.5""#),
            (r#"{"$any":"datetime"}"#, r#""2026-01-31T12:30:00.5+01:00""#, r#""2026-01-31""#),
            (r#"{"$any":"uuid"}"#, r#""3f2504e0-4f89-41d3-9a0c-0305e82c3301""#, r#""3f2504e0""#),
            (r#"{"$any":"boolean"}"#, "false", "null"),
            (r#"{"$any":"boolean","nullable":false}"#, "false", "null"),
            (r#"{"$any":"datetime","nullable":true}"#, "null", r#""2026-01-31""#),
            (r#"{"$any":"date","nullable":true,"example":null}"#, r#""2026-01-31""#, "1"),
        ] {
            let written = json(written);
            let matcher = Matcher::from_json(&written).unwrap();
            assert!(matcher.is_match(&json(matching)), "{written}");
            assert!(!matcher.is_match(&json(other)), "{written}");
        }
        let any = json(r#"{"$any":"json"}"#);
        assert!(Matcher::from_json(&any).unwrap().is_match(&ExactJson::Null));
        assert!(Matcher::from_json(&json(r#"{"any":"json"}"#)).is_none());
    }

    #[test]
    fn errors_in_matchers_are_located() {
        let written = json(
            r#"{"a":[{"$any":"guid"}],"b":{"$any":"uuid","like":1},"c":{"$any":"date","example":"x"},"d":{"$any":1},"e":{"$any":"time"},
                "f":{"$any":"time","nullable":1},"g":{"$any":"time","example":null}}"#,
        );
        let found = errors(&written);
        let pointers: Vec<&str> = found.iter().map(|(pointer, _)| &**pointer).collect();
        assert_eq!(pointers, ["/a/0", "/b", "/c", "/d", "/f", "/g"]);
        assert!(found[0].1.contains("uuid") && found[0].1.ends_with("found \"guid\""), "{found:?}");
        assert!(found[1].1.contains("found \"like\""), "{found:?}");
        assert!(found[2].1.contains("a value of the type date"), "{found:?}");
        assert_eq!(found[4].1, "nullable: expected true or false; found 1");
    }

    #[test]
    fn a_sample_replaces_each_matcher() {
        let written =
            json(r#"[{"id":{"$any":"int64","example":24001},"at":{"$any":"date"},"n":1}]"#);
        let expected = json(r#"[{"id":24001,"at":"2026-01-31","n":1}]"#);
        assert_eq!(with_samples(&written), expected);
    }
}
