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
    let mut values = Values::default();
    match serde_json::from_slice::<Value>(payload) {
        Ok(payload) => values.add(&payload),
        // Not to be read, so it cannot be struck out either.
        Err(_) => values.texts.push_str(&String::from_utf8_lossy(payload)),
    }
    let mut out = String::with_capacity(message.len());
    for (count, word) in message.split_inclusive(|c: char| !c.is_alphanumeric()).enumerate() {
        if count >= WORDS_MAX {
            out.push_str(STRUCK);
            break;
        }
        let bare = word.trim_end_matches(|c: char| !c.is_alphanumeric());
        if values.has(bare) {
            out.push_str(STRUCK);
            out.push_str(word.get(bare.len()..).unwrap_or_default());
        } else {
            out.push_str(word);
        }
    }
    out
}

/// Every value of a payload; not its names.
#[derive(Default)]
struct Values {
    texts: String,
    numbers: Vec<String>,
}

impl Values {
    fn add(&mut self, value: &Value) {
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => self.numbers.push(number.to_string()),
            Value::String(text) => {
                self.texts.push_str(text);
                self.texts.push('\n');
            }
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::Object(members) => members.values().for_each(|member| self.add(member)),
        }
    }

    fn has(&self, word: &str) -> bool {
        // A decimal is two words of a message.
        let is_number = |number: &String| number.split(['.', '-']).any(|part| part == word);
        // One or two characters are part of many a value: only as a whole word they tell it.
        let is_part = match word.len() {
            0 => return false,
            1..3 => self.texts.split(|c: char| !c.is_alphanumeric()).any(|part| part == word),
            _ => self.texts.contains(word),
        };
        is_part || self.numbers.iter().any(is_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_caller_sent_is_struck_out_and_the_rest_stays() {
        let payload = r#"{"ueln": "528003000004000", "name": "Black Beauty", "price": 4711.50,
                          "rows": [{"note": "kick\"s"}], "limit": 3}"#;
        for (message, expected) in [
            (
                "Violation of UNIQUE KEY constraint 'uq_ueln'. The duplicate key value is (528003000004000).",
                "Violation of UNIQUE KEY constraint 'uq_ueln'. The duplicate key value is (…).",
            ),
            (
                "String or binary data would be truncated in column 'name'. Truncated value: 'Black Bea'.",
                "String or binary data would be truncated in column 'name'. Truncated value: '… …'.",
            ),
            ("no horse Black Beauty for 4711.50", "no horse … … for ….50"),
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
