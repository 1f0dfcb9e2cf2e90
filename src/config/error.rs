//! One thing that is wrong with what was configured.

use std::fmt;

/// An error: where it stands, under which key, and what was expected there. One line, never a secret's value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigError {
    /// The file, the variable or the flag; the configuration directory for what stands nowhere.
    pub place: String,
    /// The key, with its section; empty when the place as a whole is wrong.
    pub key: String,
    /// What is wrong and what was expected.
    pub expected: String,
}

impl ConfigError {
    /// An error at a key.
    pub fn at_key(
        place: impl Into<String>,
        key: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self { place: place.into(), key: key.into(), expected: expected.into() }
    }

    /// An error of a whole file, variable or flag.
    pub fn in_source(place: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::at_key(place, "", expected)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.place, &self.key, &self.expected];
        let line: Vec<String> =
            parts.into_iter().filter(|part| !part.is_empty()).map(|part| one_line(part)).collect();
        f.write_str(&line.join(": "))
    }
}

/// The text with its control characters escaped: keys come from outside, and an error is one line of a log.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_the_key_is() {
        let error = ConfigError::at_key("fjord.toml", "gateway.a\nb\u{1b}[31m", "unknown key");
        assert_eq!(error.to_string(), "fjord.toml: gateway.a\\nb\\u{1b}[31m: unknown key");
        assert_eq!(
            ConfigError::in_source("fjord.toml", "not TOML").to_string(),
            "fjord.toml: not TOML"
        );
    }
}
