//! Compares an answer with the expected one, which can contain matchers.

use std::cmp::Ordering;
use std::fmt;

use super::matcher::{ANY, Matcher};
use super::pairing::pairs;
use crate::catalogue::exact_json::ExactJson;
use crate::catalogue::validate::decimal;

/// The maximum number of differences that are collected.
pub const DIFFERENCES_MAX: usize = 50;
/// The number of characters after which a value in the description of a difference is truncated.
const SHOWN_CHARACTERS_MAX: usize = 160;

/// A difference between an expected and an actual value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The place: `status`, the name of a header, or a JSON Pointer into the body. The pointer is empty for the whole
    /// body.
    pub place: String,
    /// The expected value.
    pub expected: String,
    /// The actual value.
    pub actual: String,
}

impl Difference {
    /// Creates a difference. Long values are truncated.
    #[must_use]
    pub fn new(
        place: impl Into<String>,
        expected: impl Into<String>,
        actual: impl fmt::Display,
    ) -> Self {
        let (expected, actual) = (truncated(&expected.into()), truncated(&actual.to_string()));
        Self { place: place.into(), expected, actual }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.place.is_empty() { "body" } else { &self.place };
        write!(f, "{place}: expected {}, got {}", self.expected, self.actual)
    }
}

fn truncated(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The members that an object may have besides the expected ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherMembers {
    /// None.
    Refused,
    /// Any, in the outermost object.
    Ignored,
}

/// Returns the differences, each with its JSON Pointer, up to `DIFFERENCES_MAX`. Numbers are compared by value. The
/// order of members is ignored.
#[must_use]
pub fn differences(
    expected: &ExactJson,
    actual: &ExactJson,
    others: OtherMembers,
) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(expected, actual, others, "", &mut found);
    found
}

/// Returns whether the actual value matches the expected one. Unlike `differences`, it does not describe any difference.
#[must_use]
pub fn is_match(expected: &ExactJson, actual: &ExactJson) -> bool {
    if let Some(matcher) = Matcher::from_json(expected) {
        return matcher.is_match(actual);
    }
    match (expected, actual) {
        (ExactJson::Number(one), ExactJson::Number(other)) => {
            one == other || decimal::compare(one, other) == Some(Ordering::Equal)
        }
        (ExactJson::Array(expected), ExactJson::Array(actual)) => {
            expected.len() == actual.len()
                && expected.iter().zip(actual).all(|(expected, actual)| is_match(expected, actual))
        }
        // The names in an object are unique, so equal counts exclude further members.
        (ExactJson::Object(expected), ExactJson::Object(members)) => {
            let has = |(name, expected): &(Box<str>, ExactJson)| {
                actual.member(name).is_some_and(|actual| is_match(expected, actual))
            };
            expected.len() == members.len() && expected.iter().all(has)
        }
        (expected, actual) => expected == actual,
    }
}

fn compare(
    expected: &ExactJson,
    actual: &ExactJson,
    others: OtherMembers,
    pointer: &str,
    found: &mut Vec<Difference>,
) {
    if found.len() >= DIFFERENCES_MAX {
        return;
    }
    if let Some(matcher) = Matcher::from_json(expected) {
        if !matcher.is_match(actual) {
            found.push(Difference::new(pointer, matcher.description(), actual));
        }
        return;
    }
    match (expected, actual) {
        (ExactJson::Number(one), ExactJson::Number(other))
            if decimal::compare(one, other) == Some(Ordering::Equal) => {}
        (ExactJson::Array(expected), ExactJson::Array(actual)) => {
            for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                let pointer = format!("{pointer}/{index}");
                compare(expected, actual, OtherMembers::Refused, &pointer, found);
            }
            if expected.len() != actual.len() {
                let count = |items: &[ExactJson]| match items.len() {
                    1 => "1 item".to_owned(),
                    count => format!("{count} items"),
                };
                found.push(Difference::new(pointer, count(expected), count(actual)));
            }
        }
        (ExactJson::Object(members), ExactJson::Object(actual_members)) => {
            for (name, expected) in members {
                let pointer = member_pointer(pointer, name);
                match actual.member(name) {
                    Some(actual) => {
                        compare(expected, actual, OtherMembers::Refused, &pointer, found);
                    }
                    None => found.push(Difference::new(pointer, shown(expected), "no such member")),
                }
            }
            let is_other = |name: &str| expected.member(name).is_none();
            for (name, actual) in actual_members.iter().filter(|(name, _)| is_other(name)) {
                if others == OtherMembers::Refused && found.len() < DIFFERENCES_MAX {
                    let pointer = member_pointer(pointer, name);
                    found.push(Difference::new(pointer, "no such member", actual));
                }
            }
        }
        (expected, actual) if expected == actual => {}
        (expected, actual) => found.push(Difference::new(pointer, shown(expected), actual)),
    }
}

/// Returns the text of an expected value for a message.
fn shown(expected: &ExactJson) -> String {
    Matcher::from_json(expected).map_or_else(|| expected.to_string(), |one| one.description())
}

/// Returns the JSON Pointer of a member (RFC 6901).
#[must_use]
pub fn member_pointer(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Returns an expected value that matches the actual one. Matchers that still match are kept, even in items whose
/// position has changed. Members keep their order.
#[must_use]
pub fn updated(expected: Option<&ExactJson>, actual: &ExactJson) -> ExactJson {
    if let Some(expected) = expected
        && is_match(expected, actual)
    {
        return expected.clone();
    }
    match (expected, actual) {
        (_, ExactJson::Object(members)) => {
            // An object with the member `$any` would be read as a matcher. It is therefore replaced by a matcher for
            // any value.
            if actual.member(ANY).is_some() {
                return ExactJson::Object(vec![(ANY.into(), ExactJson::Text("json".into()))]);
            }
            let old = match expected {
                Some(expected @ ExactJson::Object(old)) if expected.member(ANY).is_none() => &**old,
                _ => &[],
            };
            let kept = old.iter().filter_map(|(name, expected)| {
                Some((name.clone(), updated(Some(expected), actual.member(name)?)))
            });
            let is_new = |name: &str| !old.iter().any(|(known, _)| **known == *name);
            let new = members.iter().filter(|(name, _)| is_new(name));
            let new = new.map(|(name, actual)| (name.clone(), updated(None, actual)));
            ExactJson::Object(kept.chain(new).collect())
        }
        (expected, ExactJson::Array(items)) => {
            let old = match expected {
                Some(ExactJson::Array(old)) => &**old,
                _ => &[],
            };
            let is_same = |at: usize, to: usize| {
                old.get(at)
                    .zip(items.get(to))
                    .is_some_and(|(expected, actual)| is_match(expected, actual))
            };
            let mut paired = pairs(old.len(), items.len(), is_same).into_iter().peekable();
            let items = items.iter().enumerate().map(|(to, actual)| {
                let pair = paired.next_if(|(_, other)| *other == to);
                updated(pair.and_then(|(at, _)| old.get(at)), actual)
            });
            ExactJson::Array(items.collect())
        }
        (_, actual) => actual.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> ExactJson {
        ExactJson::parse(text).unwrap()
    }

    fn lines(expected: &str, actual: &str) -> Vec<String> {
        let (expected, actual) = (json(expected), json(actual));
        let found = differences(&expected, &actual, OtherMembers::Refused);
        assert_eq!(is_match(&expected, &actual), found.is_empty(), "{expected} {actual}");
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn equal_values_have_no_difference() {
        for (expected, actual) in [
            (r#"{"a":1,"b":[true,null]}"#, r#"{"b":[true,null],"a":1}"#),
            ("1.50", "1.5"),
            ("100", "1e2"),
            (r#"{"id":{"$any":"int64"}}"#, r#"{"id":77}"#),
            (r#"{"$any":"json"}"#, "[1,2]"),
            (r#"{"at":{"$any":"datetime","nullable":true}}"#, r#"{"at":null}"#),
        ] {
            assert_eq!(lines(expected, actual), [""; 0], "{expected} {actual}");
        }
    }

    #[test]
    fn each_difference_has_a_pointer() {
        let found = lines(
            r#"{"a":1,"b":{"c/d":"x","gone":{"$any":"uuid"}},"rows":[{"n":1},{"n":2}],"id":{"$any":"uuid"}}"#,
            r#"{"a":"1","b":{"c/d":"y"},"rows":[{"n":1}],"id":"7","more":null}"#,
        );
        assert_eq!(
            found,
            [
                r#"/a: expected 1, got "1""#,
                r#"/b/c~1d: expected "x", got "y""#,
                "/b/gone: expected any uuid, got no such member",
                "/rows: expected 2 items, got 1 item",
                r#"/id: expected any uuid, got "7""#,
                "/more: expected no such member, got null",
            ]
        );
        assert_eq!(
            lines(r#"{"$any":"date","nullable":true}"#, "1"),
            ["body: expected any date or null, got 1"]
        );
        assert_eq!(lines("[]", "{}"), ["body: expected [], got {}"]);
        assert_eq!(
            lines("0.30000000000000000001", "0.3"),
            ["body: expected 0.30000000000000000001, got 0.3"]
        );
    }

    #[test]
    fn differences_and_their_texts_are_limited() {
        let list = |text: &str| format!("[{}]", vec![text; 100].join(","));
        assert_eq!(lines(&list("1"), &list("2")).len(), DIFFERENCES_MAX);
        let long = format!("\"{}\"", "ä".repeat(1000));
        assert!(lines("1", &long)[0].chars().count() < 200);
    }

    #[test]
    fn other_members_of_the_outermost_object_can_be_ignored() {
        let found = |expected| {
            let actual = json(r#"{"detail":"x","in":{"a":1,"b":2}}"#);
            differences(&json(expected), &actual, OtherMembers::Ignored).len()
        };
        assert_eq!(found(r#"{"detail":"x"}"#), 0);
        assert_eq!(found(r#"{"detail":"y"}"#), 1);
        assert_eq!(found(r#"{"in":{"a":1}}"#), 1);
    }

    #[test]
    fn an_update_keeps_matching_matchers_and_the_order() {
        for (expected, actual, updated_to) in [
            (
                r#"{"id":{"$any":"int64"},"b":1,"gone":2,"at":{"$any":"date"}}"#,
                r#"{"at":"never","b":2,"id":5,"new":[1]}"#,
                r#"{"id":{"$any":"int64"},"b":2,"at":"never","new":[1]}"#,
            ),
            (r#"[{"$any":"uuid"},1]"#, "[1,1,2]", "[1,1,2]"),
            (r#"{"n":1.50}"#, r#"{"n":1.5,"m":0}"#, r#"{"n":1.50,"m":0}"#),
            ("1", r#"{"$any":"x"}"#, r#"{"$any":"json"}"#),
            (r#"{"$any":"uuid"}"#, r#"{"a":1}"#, r#"{"a":1}"#),
        ] {
            let (expected, actual) = (json(expected), json(actual));
            let found = updated(Some(&expected), &actual);
            assert_eq!(found, json(updated_to));
            assert_eq!(differences(&found, &actual, OtherMembers::Refused), []);
        }
    }
}
