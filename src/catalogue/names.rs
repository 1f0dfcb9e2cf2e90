//! Names from the catalogue, validated so that they can be used in NATS subjects, SQL and metric labels.

use std::fmt;
use std::sync::Arc;

/// The maximum length of an endpoint id or queue name in bytes. Both become NATS subject tokens and metric labels.
pub const NAME_BYTES_MAX: usize = 64;
/// The maximum length of each part of a procedure's name in characters (SQL Server's `sysname`).
pub const IDENTIFIER_CHARS_MAX: usize = 128;

/// The error for a malformed name. Its text states what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(pub &'static str);

macro_rules! token_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Validates a name: a letter or digit followed by letters, digits, `-` or `_`; at most 64 bytes.
            ///
            /// # Errors
            /// `NameError` for any other text.
            pub fn new(name: &str) -> Result<Self, NameError> {
                if is_token(name) {
                    Ok(Self(name.into()))
                } else {
                    Err(NameError(
                        "expected 1 to 64 letters, digits, '-' or '_', starting with a letter or digit",
                    ))
                }
            }

            /// Returns the name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

token_name! {
    /// The key of an endpoint in the catalogue.
    EndpointId
}
token_name! {
    /// The queue that serves an endpoint: a single NATS subject token and the queue group's name.
    QueueName
}

/// Returns whether a string is a valid name: a single NATS subject token of letters, digits, `-` and `_`, at most 64 bytes.
#[must_use]
pub fn is_token(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// The name of a stored procedure, `schema.procedure`. Both parts are plain SQL identifiers.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcedureName {
    full: Arc<str>,
    dot: usize,
}

impl ProcedureName {
    /// Validates `schema.procedure`.
    ///
    /// # Errors
    /// `NameError` if the string is not two plain identifiers joined by a dot.
    pub fn new(name: &str) -> Result<Self, NameError> {
        const EXPECTED: NameError = NameError(
            "expected schema.procedure, each a letter or '_' and then letters, digits, '_', '$', '#' or '@'",
        );
        match name.split_once('.') {
            Some((schema, procedure)) if is_identifier(schema) && is_identifier(procedure) => {
                Ok(Self { full: name.into(), dot: schema.len() })
            }
            _ => Err(EXPECTED),
        }
    }

    /// Returns the whole name, `schema.procedure`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.full
    }

    /// Returns the schema.
    #[must_use]
    pub fn schema(&self) -> &str {
        self.full.get(..self.dot).unwrap_or_default()
    }

    /// Returns the procedure's name within its schema.
    #[must_use]
    pub fn procedure(&self) -> &str {
        self.full.get(self.dot + 1..).unwrap_or_default()
    }
}

impl fmt::Display for ProcedureName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

impl fmt::Debug for ProcedureName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.full, f)
    }
}

/// Returns whether a string is a plain SQL identifier. It cannot inject SQL, but can be a reserved word, which needs quoting.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '#' | '@'))
        && text.len() <= IDENTIFIER_CHARS_MAX
}
