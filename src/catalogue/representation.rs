//! Representations: the media types in which an endpoint's answer can be sent.

use std::borrow::Cow;
use std::sync::Arc;

/// A form in which an answer can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Representation {
    /// `application/json`.
    Json,
    /// `text/csv` (RFC 4180): one line for each row, after a line with the names of the columns.
    Csv,
    /// `application/x-ndjson`: one JSON object for each row, each on its own line.
    Ndjson,
    /// The bytes or the text of a `value`, with the media type that the endpoint names.
    Raw(Arc<str>),
}

impl Representation {
    /// Returns the representation of rows that has this media type.
    #[must_use]
    pub(super) fn of_rows(media_type: &str) -> Option<Self> {
        [Self::Json, Self::Csv, Self::Ndjson].into_iter().find(|one| one.media_type() == media_type)
    }

    /// Returns the media type without parameters.
    #[must_use]
    pub fn media_type(&self) -> &str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv",
            Self::Ndjson => "application/x-ndjson",
            Self::Raw(media_type) => essence(media_type),
        }
    }

    /// Returns the value of `Content-Type`.
    #[must_use]
    pub fn content_type(&self) -> Cow<'static, str> {
        match self {
            Self::Json => Cow::Borrowed("application/json"),
            // The parameters are those of RFC 4180 §3.
            Self::Csv => Cow::Borrowed("text/csv; charset=utf-8; header=present"),
            Self::Ndjson => Cow::Borrowed("application/x-ndjson"),
            Self::Raw(media_type) => Cow::Owned(media_type.to_string()),
        }
    }

    /// Returns whether a worker's `Content-Type` denotes this representation.
    #[must_use]
    pub fn is_content_type(&self, content_type: &str) -> bool {
        essence(content_type).eq_ignore_ascii_case(self.media_type())
    }
}

/// Returns a media type without its parameters.
fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Returns whether a text is a media type without wildcards (RFC 9110 §8.3.1), such as `image/png` or
/// `text/plain; charset=utf-8`.
#[must_use]
pub(super) fn is_media_type(text: &str) -> bool {
    let is_token = |part: &str| {
        let is_symbol = |b: u8| b"!#$%&'+-.^_`|~".contains(&b);
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || is_symbol(b))
    };
    let is_parameter = |parameter: &str| {
        let (name, value) = parameter.trim().split_once('=').unwrap_or_default();
        is_token(name) && is_token(value)
    };
    let mut parts = text.split(';');
    let kind = parts.next().and_then(|kind| kind.trim_end().split_once('/'));
    kind.is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
        && parts.all(is_parameter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_recognized() {
        for (text, expected) in [
            ("image/png", true),
            ("text/plain; charset=utf-8", true),
            ("application/vnd.ms-excel", true),
            ("image/*", false),
            ("image", false),
            ("image/png/x", false),
            ("image/png;", false),
            (" image/png", false),
            ("a/b\r\nc: d", false),
            ("", false),
        ] {
            assert_eq!(is_media_type(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_content_type_is_compared_without_its_parameters() {
        let html = Representation::Raw("text/html; charset=utf-8".into());
        assert_eq!(html.media_type(), "text/html");
        assert!(html.is_content_type("Text/HTML"));
        assert!(Representation::Csv.is_content_type("text/csv;header=present"));
        assert!(!Representation::Csv.is_content_type("application/json"));
        for one in [Representation::Json, Representation::Csv, Representation::Ndjson] {
            assert!(one.is_content_type(&one.content_type()));
            assert_eq!(Representation::of_rows(one.media_type()), Some(one));
        }
    }
}
