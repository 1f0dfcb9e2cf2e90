//! The response headers that a procedure can set, and the rules for their values.

/// The maximum length of a value in bytes. Many clients and proxies limit all headers together to 8 KiB.
pub const VALUE_BYTES_MAX: usize = 2048;

/// A response header whose value comes from an OUTPUT parameter. The set is closed, because other headers control the
/// connection, caches or the security of browsers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseHeader {
    /// `Location`: the URI of a created resource, or the target of a redirect (RFC 9110 §10.2.2).
    Location,
    /// `Link`: related resources, such as the next page (RFC 8288).
    Link,
    /// `ETag`: the version of the resource (RFC 9110 §8.8.3).
    ETag,
    /// `Content-Disposition`: the name under which a browser stores the answer (RFC 6266).
    ContentDisposition,
    /// `Last-Modified`: the time of the last change (RFC 9110 §8.8.2).
    LastModified,
    /// `X-Total-Count`: the number of records in all pages.
    XTotalCount,
}

impl ResponseHeader {
    /// All headers.
    pub const ALL: [Self; 6] = [
        Self::Location,
        Self::Link,
        Self::ETag,
        Self::ContentDisposition,
        Self::LastModified,
        Self::XTotalCount,
    ];

    /// Returns the name in the catalogue, on the wire and in responses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Location => "Location",
            Self::Link => "Link",
            Self::ETag => "ETag",
            Self::ContentDisposition => "Content-Disposition",
            Self::LastModified => "Last-Modified",
            Self::XTotalCount => "X-Total-Count",
        }
    }

    /// Returns the name in lower case.
    #[must_use]
    pub fn lower_case(self) -> &'static str {
        match self {
            Self::Location => "location",
            Self::Link => "link",
            Self::ETag => "etag",
            Self::ContentDisposition => "content-disposition",
            Self::LastModified => "last-modified",
            Self::XTotalCount => "x-total-count",
        }
    }

    /// Returns the header with a name. The name is case-sensitive, as in NATS.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|header| header.as_str() == name)
    }

    /// Returns one sentence for the generated documentation.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::Location => "The URI of the resource that was created or is to be used instead.",
            Self::Link => "Related resources, such as the next page (RFC 8288).",
            Self::ETag => "Identifies this version of the resource (RFC 9110 §8.8.3).",
            Self::ContentDisposition => "The suggested name of a file (RFC 6266).",
            Self::LastModified => "When the resource was last changed.",
            Self::XTotalCount => "The number of records in all pages.",
        }
    }

    /// Checks a value. A valid value can neither end the header nor begin another one.
    ///
    /// # Errors
    /// Returns a description of the expected value.
    pub fn check(self, value: &str) -> Result<(), &'static str> {
        if value.is_empty() || value.len() > VALUE_BYTES_MAX {
            return Err("expected 1 to 2048 characters");
        }
        // A receiver can read other bytes in any encoding (`obs-text`, RFC 9110 §5.5).
        if !value.bytes().all(|b| (b' '..=b'~').contains(&b)) || value.trim() != value {
            return Err("expected printable ASCII characters without blanks at either end");
        }
        let (is_valid, expected) = match self {
            Self::Location => (
                is_uri_reference(value),
                "expected a URI or a relative reference; other characters are written as %XX",
            ),
            Self::Link => (
                value.starts_with('<') && value.contains('>'),
                "expected links such as </v1/horses?page=2>; rel=\"next\"",
            ),
            Self::ETag => (is_entity_tag(value), "expected an entity tag such as \"7\" or W/\"7\""),
            Self::ContentDisposition => (
                value.starts_with(|c: char| c.is_ascii_alphabetic()),
                "expected a disposition such as attachment; filename=\"a.pdf\"",
            ),
            Self::LastModified => (
                httpdate::parse_http_date(value).is_ok(),
                "expected a date such as Sun, 06 Nov 1994 08:49:37 GMT",
            ),
            Self::XTotalCount => (
                value.bytes().all(|b| b.is_ascii_digit()) && value.len() <= 19,
                "expected a whole number that is not negative",
            ),
        };
        if is_valid { Ok(()) } else { Err(expected) }
    }
}

/// Returns whether a text consists of the characters of a URI reference (RFC 3986 §2).
fn is_uri_reference(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let is_valid = match byte {
            b'%' => {
                let mut is_hex_digit = || bytes.next().is_some_and(|b| b.is_ascii_hexdigit());
                is_hex_digit() && is_hex_digit()
            }
            other => other.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=".contains(&other),
        };
        if !is_valid {
            return false;
        }
    }
    true
}

/// Returns whether a text is an entity tag (RFC 9110 §8.8.3) of ASCII characters.
fn is_entity_tag(text: &str) -> bool {
    let strong = text.strip_prefix("W/").unwrap_or(text);
    let opaque = strong.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    opaque.is_some_and(is_opaque_tag)
}

/// Returns whether a text can appear between the quotes of an entity tag. It must consist of visible ASCII characters
/// other than quotes.
#[must_use]
pub fn is_opaque_tag(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() && b != b'"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_could_change_the_response_are_refused() {
        for header in ResponseHeader::ALL {
            assert_eq!(ResponseHeader::parse(header.as_str()), Some(header));
            assert_eq!(header.as_str().to_ascii_lowercase(), header.lower_case());
            for value in
                ["", "a\r\nSet-Cookie: b", "a\nb", "a\rb", "a\0b", "a\u{7f}", "ä", " a", "a "]
            {
                assert!(header.check(value).is_err(), "{header:?} {value:?}");
            }
            assert!(header.check(&"1".repeat(VALUE_BYTES_MAX + 1)).is_err());
        }
    }

    #[test]
    fn each_header_has_its_own_syntax() {
        use ResponseHeader::{ContentDisposition, ETag, LastModified, Link, Location, XTotalCount};
        for (header, value, is_valid) in [
            (Location, "/v1/horses/528003000000001", true),
            (Location, "https://a.example/x?y=%C3%A4#z", true),
            (Location, "../7", true),
            (Location, "/v1/a b", false),
            (Location, "/v1/%zz", false),
            (Location, "/v1/\"", false),
            (Link, "</v1/h?page=2>; rel=\"next\", </v1/h>; rel=\"first\"", true),
            (Link, "/v1/h?page=2", false),
            (ETag, "\"7\"", true),
            (ETag, "W/\"7\"", true),
            (ETag, "\"\"", true),
            (ETag, "7", false),
            (ETag, "\"a b\"", false),
            (ETag, "\"a\"b\"", false),
            (ETag, "\"", false),
            (ContentDisposition, "attachment; filename*=UTF-8''%C3%A4.pdf", true),
            (ContentDisposition, "=x", false),
            (LastModified, "Sun, 06 Nov 1994 08:49:37 GMT", true),
            (LastModified, "2024-01-01", false),
            (XTotalCount, "1234", true),
            (XTotalCount, "-1", false),
            (XTotalCount, "1.5", false),
        ] {
            assert_eq!(header.check(value).is_ok(), is_valid, "{header:?} {value}");
        }
    }
}
