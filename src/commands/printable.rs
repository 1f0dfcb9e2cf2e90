//! Escapes characters that could control a terminal or change the order of the displayed text.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Replaces control characters, line breaks and invisible formatting characters with escape sequences such as `\u{1b}`.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_unprintable(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Escapes the same characters in JSON text, with JSON escape sequences. Line breaks between values are kept.
pub(super) fn printable_json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unprintable(character) && character != '\n' {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing into a string cannot fail.
                write!(escaped, "\\u{unit:04x}").ok();
            }
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Returns whether a character is in the Unicode categories Cc (control), Cf (format, which includes the controls for
/// text direction), Zl (line separator) or Zp (paragraph separator), or is one of two other characters that XML
/// forbids.
fn is_unprintable(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    matches!(character,
        '\u{80}'..='\u{9f}' | '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
        | '\u{890}' | '\u{891}' | '\u{8e2}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{110bd}' | '\u{110cd}'
        | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_characters_that_are_not_shown_are_escaped() {
        for text in ["", "a \\ \"b\"", "Halló ä e\u{301} 馬 🐎"] {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
            assert_eq!(printable_json(text), text);
        }
        for (text, escaped) in [
            ("a\u{1b}[2J\r\n", "a\\u{1b}[2J\\r\\n"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("\u{fffe}\u{ffff}", "\\u{fffe}\\u{ffff}"),
            ("a\u{202e}b\u{2066}c\u{200b}\u{2028}", "a\\u{202e}b\\u{2066}c\\u{200b}\\u{2028}"),
        ] {
            assert_eq!(printable(text), escaped);
        }
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let value = serde_json::json!({ "a": "\u{9b}31m \u{202e}\u{7f} \u{e0001} ä" });
        let text = printable_json(&format!("{value:#}"));
        assert!(
            !text.contains(|character| character != '\n' && is_unprintable(character)),
            "{text}"
        );
        assert!(text.contains("\\udb40\\udc01"), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
