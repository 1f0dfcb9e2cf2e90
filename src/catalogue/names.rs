//! Names from the catalogue, validated so that they can be used in NATS subjects, SQL and metric labels.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The maximum length of an endpoint id or queue name in bytes. Both become NATS subject tokens and metric labels.
pub const NAME_BYTES_MAX: usize = 64;
/// The maximum length of an identifier in UTF-16 code units (SQL Server's `sysname`).
pub const IDENTIFIER_LENGTH_MAX: usize = 128;

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
            /// Validates a name, which must be a letter or digit followed by letters, digits, `-` or `_`. The maximum
            /// length is 64 bytes.
            ///
            /// # Errors
            /// Returns `NameError` for any other text.
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
    /// The id of an endpoint: its key in the catalogue.
    EndpointId
}
token_name! {
    /// The name of a queue: a single NATS subject token, which is also the name of the queue group.
    QueueName
}

/// Returns whether a string is a valid name: a single NATS subject token of letters, digits, `-` and `_`, at most 64 bytes.
#[must_use]
pub fn is_token(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// The qualified name of a procedure or a table type, `schema.name`. Names that differ only in
/// unnecessary brackets are equal.
#[derive(Clone)]
pub struct ProcedureName {
    /// The name with brackets around each part that needs them. It determines the other fields.
    full: Arc<str>,
    schema: Arc<str>,
    procedure: Arc<str>,
}

impl ProcedureName {
    /// Parses `schema.procedure`. A part that is not a plain identifier is enclosed in brackets, in
    /// which `]` is written as `]]`.
    ///
    /// # Errors
    /// Returns `NameError` if the string is not two identifiers joined by a dot.
    pub fn new(name: &str) -> Result<Self, NameError> {
        const EXPECTED: NameError = NameError(
            "expected schema.procedure: each part a letter or '_' and then letters, digits, '_', '$', '#' or '@', \
             or any name in brackets, such as dbo.[Sales by Year] (a ']' in brackets is written as ']]')",
        );
        let (schema, rest) = parse_part(name).ok_or(EXPECTED)?;
        let (procedure, rest) = rest.strip_prefix('.').and_then(parse_part).ok_or(EXPECTED)?;
        if !rest.is_empty() {
            return Err(EXPECTED);
        }
        Self::from_parts(&schema, &procedure)
    }

    /// Creates a name from its two parts, which must not be quoted.
    ///
    /// # Errors
    /// Returns `NameError` if a part is empty, too long, or contains control characters.
    pub fn from_parts(schema: &str, procedure: &str) -> Result<Self, NameError> {
        if !is_sql_name(schema) || !is_sql_name(procedure) {
            return Err(NameError(
                "expected a schema and a name of 1 to 128 characters each, without control characters",
            ));
        }
        let full = format!("{}.{}", quoted_if_needed(schema), quoted_if_needed(procedure));
        Ok(Self { full: full.into(), schema: schema.into(), procedure: procedure.into() })
    }

    /// Returns the whole name, with brackets around each part that needs them.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.full
    }

    /// Returns the schema, without brackets.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Returns the procedure's name within its schema, without brackets.
    #[must_use]
    pub fn procedure(&self) -> &str {
        &self.procedure
    }

    /// Returns the name for SQL, with brackets around both parts, because a part can be a reserved word.
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.procedure))
    }
}

impl PartialEq for ProcedureName {
    fn eq(&self, other: &Self) -> bool {
        self.full == other.full
    }
}

impl Eq for ProcedureName {}

impl PartialOrd for ProcedureName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ProcedureName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.full.cmp(&other.full)
    }
}

impl Hash for ProcedureName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.full.hash(state);
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

/// Parses the identifier at the start of a qualified name. Returns it without brackets, and the rest.
fn parse_part(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('[') else {
        let (part, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
        return is_identifier(part).then(|| (part.to_owned(), rest));
    };
    let mut part = String::new();
    loop {
        let (before, after) = rest.split_once(']')?;
        part.push_str(before);
        match after.strip_prefix(']') {
            Some(after) => {
                part.push(']');
                rest = after;
            }
            None => return Some((part, after)),
        }
    }
}

/// Encloses an identifier in brackets, so that SQL does not interpret any part of it.
#[must_use]
pub fn quoted(identifier: &str) -> String {
    format!("[{}]", identifier.replace(']', "]]"))
}

fn quoted_if_needed(identifier: &str) -> Cow<'_, str> {
    if is_identifier(identifier) {
        Cow::Borrowed(identifier)
    } else {
        Cow::Owned(quoted(identifier))
    }
}

/// Returns whether a text is a plain SQL identifier. A plain identifier cannot inject SQL. However, it can be a
/// reserved word, which needs quoting.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && chars.all(is_identifier_char)
        && is_short(text)
}

/// Returns whether a text is a valid parameter name without `@`, such as `größe` or `1`. Parameters cannot be
/// quoted.
#[must_use]
pub fn is_parameter_name(text: &str) -> bool {
    // The `@` counts towards the length.
    !text.is_empty()
        && text.chars().all(is_identifier_char)
        && text.encode_utf16().count() < IDENTIFIER_LENGTH_MAX
}

/// Returns whether SQL Server can have an object or a column with this name, in brackets if needed.
#[must_use]
pub fn is_sql_name(text: &str) -> bool {
    !text.is_empty() && is_short(text) && !text.contains(char::is_control)
}

/// Compares names case-insensitively, as most SQL Server collations do.
#[must_use]
pub fn eq_ignore_case(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
        || (!(one.is_ascii() && other.is_ascii())
            && one
                .chars()
                .flat_map(char::to_lowercase)
                .eq(other.chars().flat_map(char::to_lowercase)))
}

fn is_identifier_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$' | '#' | '@')
}

fn is_short(text: &str) -> bool {
    text.encode_utf16().count() <= IDENTIFIER_LENGTH_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_name_is_read_and_written_with_as_few_brackets_as_possible() {
        for (written, schema, procedure, full) in [
            ("dbo.horse_get", "dbo", "horse_get", "dbo.horse_get"),
            ("[dbo].[horse_get]", "dbo", "horse_get", "dbo.horse_get"),
            ("dbo.[Sales by Year]", "dbo", "Sales by Year", "dbo.[Sales by Year]"),
            ("[my.schema].[a.b]", "my.schema", "a.b", "[my.schema].[a.b]"),
            ("dbo.[a]]b[c]", "dbo", "a]b[c", "dbo.[a]]b[c]"),
            ("dbo.[]]]", "dbo", "]", "dbo.[]]]"),
            ("dbo.[1st]", "dbo", "1st", "dbo.[1st]"),
            ("dbo.größe_lesen", "dbo", "größe_lesen", "dbo.größe_lesen"),
            ("[дом].[日本 語]", "дом", "日本 語", "дом.[日本 語]"),
            ("dbo.order", "dbo", "order", "dbo.order"),
        ] {
            let name = ProcedureName::new(written).unwrap();
            assert_eq!((name.schema(), name.procedure()), (schema, procedure), "{written}");
            assert_eq!(name.as_str(), full, "{written}");
            assert_eq!(ProcedureName::new(full).unwrap(), name, "{written}");
        }
        let name = ProcedureName::new("dbo.[a]]b]").unwrap();
        assert_eq!(name.quoted(), "[dbo].[a]]b]");
    }

    #[test]
    fn a_malformed_name_is_refused() {
        let long = format!("dbo.[{}]", "x".repeat(129));
        let wide = format!("dbo.[{}]", "𝄞".repeat(65));
        for bad in [
            "",
            "dbo",
            ".",
            "dbo.",
            ".a",
            "dbo.a.b",
            "a b.c",
            "dbo.1a",
            "dbo.[a",
            "dbo.[a]b",
            "dbo.[]",
            "[].a",
            "dbo.[a]]",
            "dbo.a]",
            "dbo.[a\u{7}]",
            "dbo. a",
            "dbo.\"a\"",
            &long,
            &wide,
        ] {
            assert!(ProcedureName::new(bad).is_err(), "{bad}");
        }
        assert!(ProcedureName::new(&format!("dbo.[{}]", "𝄞".repeat(64))).is_ok());
    }

    #[test]
    fn parameter_names_may_contain_letters_of_every_language() {
        for (name, expected) in [
            ("größe", true),
            ("a$b#c@d", true),
            ("1", true),
            ("日本", true),
            ("", false),
            ("a b", false),
            ("a-b", false),
            ("a]", false),
            ("a'", false),
        ] {
            assert_eq!(is_parameter_name(name), expected, "{name}");
        }
        assert!(is_parameter_name(&"x".repeat(127)) && !is_parameter_name(&"x".repeat(128)));
        assert!(eq_ignore_case("ÄÖ", "äö") && !eq_ignore_case("ä", "a"));
    }
}
