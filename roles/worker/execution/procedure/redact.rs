//! Strikes the caller's values out of a message that is about to be logged.
//!
//! Databases quote what they refuse ("The duplicate key value is (…)"), and procedures do in their own errors. A word
//! that is in one of the request's values is struck out; the names of tables, columns and constraints stay.

use serde_json::Value;

/// What stands for a word that was struck out.
const STRUCK: &str = "…";
/// Words of a message that are looked at; the rest of it is left out.
const WORDS_MAX: usize = 200;

/// The message without any word of the request's values.
pub(super) fn without_values(message: &str, payload: &[u8]) -> String {
    let mut values =
        Values { payload: String::from_utf8_lossy(payload).to_lowercase(), ..Values::default() };
    match serde_json::from_slice::<Value>(payload) {
        Ok(payload) => values.add(&payload),
        // Not to be read, so it cannot be struck out either.
        Err(_) => values.texts.clone_from(&values.payload),
    }
    let mut writer = Writer { values, out: String::with_capacity(message.len()), words: 0 };
    writer.message(message);
    writer.out
}

/// Writes a message with what is to be left out left out.
struct Writer {
    values: Values,
    out: String,
    words: usize,
}

impl Writer {
    /// Databases put values into parentheses and quotes, and write them in their own way: a date, a decimal. So what
    /// stands there is left out whole when any of it is a value, in parentheses also when it has a digit.
    fn message(&mut self, mut rest: &str) {
        while let Some(before) = rest.split(['(', '\'']).next().filter(|one| one.len() < rest.len())
        {
            let group = rest.strip_prefix(before).unwrap_or_default();
            let (open, close) = if group.starts_with('(') { ('(', ')') } else { ('\'', '\'') };
            let inside = group.strip_prefix(open).unwrap_or_default();
            let Some((inside, after)) = inside.split_once(close) else { break };
            self.text(before);
            self.out.push(open);
            let has_digit = open == '(' && inside.contains(|c: char| c.is_ascii_digit());
            if has_digit || self.values.are_in(inside) {
                self.out.push_str(STRUCK);
            } else {
                self.text(inside);
            }
            self.out.push(close);
            rest = after;
        }
        self.text(rest);
    }

    fn text(&mut self, text: &str) {
        for word in text.split_inclusive(|c: char| !c.is_alphanumeric()) {
            self.words += 1;
            if self.words > WORDS_MAX {
                return;
            }
            let bare = bare(word);
            if self.words == WORDS_MAX {
                self.out.push_str(STRUCK);
            } else if self.values.has(bare) {
                self.out.push_str(STRUCK);
                self.out.push_str(word.get(bare.len()..).unwrap_or_default());
            } else {
                self.out.push_str(word);
            }
        }
    }
}

fn bare(word: &str) -> &str {
    word.trim_end_matches(|c: char| !c.is_alphanumeric())
}

/// Every value of a payload; not its names.
#[derive(Default)]
struct Values {
    /// Texts, in lower case.
    texts: String,
    /// All of it as it was sent, in lower case: numbers with every digit.
    payload: String,
}

impl Values {
    fn add(&mut self, value: &Value) {
        match value {
            // Numbers are looked for in the payload itself: a parsed one has not every digit.
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
            Value::String(text) => {
                self.texts.push_str(&text.to_lowercase());
                self.texts.push('\n');
            }
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::Object(members) => members.values().for_each(|member| self.add(member)),
        }
    }

    fn has(&self, word: &str) -> bool {
        let word = word.to_lowercase();
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        // One or two characters are part of many a value: only as a whole word they tell it.
        let is_part = match word.len() {
            0 => return false,
            1..3 => self.texts.split(|c: char| !c.is_alphanumeric()).any(|part| part == word),
            _ => self.texts.contains(&word) || (is_number && self.payload.contains(&word)),
        };
        is_part || (is_number && self.numbers().any(|number| is_part_of(number, &word)))
    }

    /// Every number that was sent, in texts as well.
    fn numbers(&self) -> impl Iterator<Item = &str> {
        self.payload.split(|c: char| !c.is_ascii_digit() && c != '.')
    }

    /// Whether any word of a text is one of a value.
    fn are_in(&self, text: &str) -> bool {
        text.split_inclusive(|c: char| !c.is_alphanumeric()).any(|word| self.has(bare(word)))
    }
}

/// Whether digits are a number's, before its point or behind it: there zeros at the end count for nothing.
fn is_part_of(number: &str, digits: &str) -> bool {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let significant = digits.trim_end_matches('0');
    whole == digits || (!significant.is_empty() && fraction.trim_end_matches('0') == significant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_caller_sent_is_struck_out_and_the_rest_stays() {
        let payload = r#"{"ueln": "528003000004000", "name": "Black Beauty", "price": 4711.50,
                          "rows": [{"note": "kick\"s"}], "limit": 3, "big": 12345678901234567890.1}"#;
        for (message, expected) in [
            (
                "Violation of UNIQUE KEY constraint 'uq_ueln'. The duplicate key value is (528003000004000).",
                "Violation of UNIQUE KEY constraint 'uq_ueln'. The duplicate key value is (…).",
            ),
            (
                "String or binary data would be truncated in column 'name'. Truncated value: 'Black Bea'.",
                "String or binary data would be truncated in column 'name'. Truncated value: '…'.",
            ),
            ("no horse Black Beauty for 4711.50", "no horse … … for ….…"),
            // As the database writes it, not as it was sent.
            (
                "The duplicate key value is (Feb 29 2024 12:34PM, BLACK beauty).",
                "The duplicate key value is (…).",
            ),
            (
                "converting 'BLACK' to a type (int) of dbo.horse",
                "converting '…' to a type (int) of dbo.horse",
            ),
            ("at 12345678901234567890.10", "at ….…"),
            ("limit 3 is under 30, kick's", "limit … is under 30, …'…"),
        ] {
            assert_eq!(without_values(message, payload.as_bytes()), expected);
        }
        assert_eq!(without_values("tea, no milk", b"tea without"), "…, no milk");
    }

    #[test]
    fn a_message_without_end_is_cut() {
        let long = without_values(&"word ".repeat(10_000), b"{}");
        assert!(long.len() < 2_000 && long.ends_with(STRUCK), "{long}");
    }
}
