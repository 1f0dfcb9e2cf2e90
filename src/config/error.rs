//! Errors in the configuration.

use std::fmt;

use crate::catalogue::TextPosition;

/// A configuration error. It is displayed on one line and never contains a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigError {
    /// The file, variable or flag that contains the error. For an unset key, this is the
    /// configuration directory.
    pub location: String,
    /// The key with its section. Empty if the error applies to the whole file, variable or flag.
    pub key: String,
    /// A message that describes the problem and states what was expected.
    pub message: String,
    /// The position in the file, if it cannot be determined from the key.
    pub position: Option<TextPosition>,
}

impl ConfigError {
    /// Creates an error about a key.
    pub fn at_key(
        location: impl Into<String>,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { location: location.into(), key: key.into(), message: message.into(), position: None }
    }

    /// Creates an error about a whole file, variable or flag.
    pub fn at_location(location: impl Into<String>, message: impl Into<String>) -> Self {
        Self::at_key(location, "", message)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.location, &self.key, &self.message];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        let parts: Vec<String> = parts.map(|part| escape_control_characters(part)).collect();
        f.write_str(&parts.join(": "))
    }
}

impl std::error::Error for ConfigError {}

/// Escapes control characters. Keys are untrusted, and each error must fit on a single log line.
fn escape_control_characters(text: &str) -> String {
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
    fn an_error_is_one_line_whatever_its_key() {
        let error = ConfigError::at_key("fjord.toml", "gateway.a\nb\u{1b}[31m", "unknown key");
        assert_eq!(error.to_string(), "fjord.toml: gateway.a\\nb\\u{1b}[31m: unknown key");
        let error = ConfigError::at_location("fjord.toml", "invalid TOML");
        assert_eq!(error.to_string(), "fjord.toml: invalid TOML");
    }
}
