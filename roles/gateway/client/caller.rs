//! The peer of a connection, and the caller that it authenticates as.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use regex::Regex;
use serde_json::Value;

use crate::tls::{ClientCertificate, ServerTls};

/// The maximum length of a principal, in bytes. Every request to a worker carries it in a header.
pub const PRINCIPAL_BYTES_MAX: usize = 256;

/// The peer of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address: the connection's, or the one that a trusted proxy reported.
    pub address: IpAddr,
    /// Whether the connection uses TLS.
    pub is_tls: bool,
    /// The names (SAN: URI, DNS, e-mail) in the client's certificate, if it has a trusted one.
    pub certificate_names: Arc<[String]>,
    /// The certificate, kept to check whether it is still trusted.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// The TLS settings, if the connection uses TLS.
    pub tls: Option<Arc<ServerTls>>,
}

impl Peer {
    /// Creates a peer without a certificate.
    #[must_use]
    pub fn new(address: IpAddr, is_tls: bool) -> Self {
        Self { address, is_tls, certificate_names: Arc::from([]), certificate: None, tls: None }
    }

    /// Adds the TLS settings of the peer's connection.
    #[must_use]
    pub fn over(self, tls: ServerTls) -> Self {
        // Each request clones the peer. With an `Arc` per connection, only the requests of one
        // connection share a reference count.
        Self { tls: Some(Arc::new(tls)), ..self }
    }

    /// Adds a certificate.
    #[must_use]
    pub fn with_certificate(self, certificate: ClientCertificate) -> Self {
        let certificate_names = Arc::clone(certificate.names());
        Self { certificate_names, certificate: Some(Arc::new(certificate)), ..self }
    }
}

/// A caller that was authenticated, or that calls a public endpoint.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The caller's name, or `None` on a public endpoint without credentials.
    pub principal: Option<Arc<str>>,
    /// The scopes, which determine which endpoints the caller may call.
    pub scopes: Vec<String>,
    /// The claims of the caller's token, for parameters with `in: claim`.
    pub claims: serde_json::Map<String, Value>,
    /// The name of the token's issuer in the configuration.
    pub issuer: Option<Arc<str>>,
}

impl Caller {
    /// Returns a claim by its name or by a dotted path into nested objects.
    ///
    /// An exact name takes precedence: names such as `https://example.com/herd` contain dots.
    #[must_use]
    pub fn claim(&self, path: &str) -> Option<&Value> {
        claim(&self.claims, path)
    }
}

/// Returns a claim by its name or dotted path. A claim that is `null` counts as absent.
pub(in crate::roles::gateway) fn claim<'a>(
    claims: &'a serde_json::Map<String, Value>,
    path: &str,
) -> Option<&'a Value> {
    let found = claims.get(path).or_else(|| {
        let mut steps = path.split('.');
        let first = claims.get(steps.next()?)?;
        steps.try_fold(first, |value, step| value.as_object()?.get(step))
    })?;
    (!found.is_null()).then_some(found)
}

/// Characters not allowed in a principal: control, format, private-use, unassigned and invisible
/// ones (default-ignorable code points, and the braille blank), and every space except U+0020.
/// Principals that differ only in such characters look the same or compare equal in a SQL Server
/// collation.
const HIDDEN: &str = r"[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\x{2800}[\p{Zs}--\x{20}]]";

/// Returns whether a string can be a principal. Principals are logged and sent to workers in a
/// header.
///
/// Leading and trailing spaces are rejected, because header parsers strip them. One principal could
/// otherwise become another.
#[must_use]
pub fn is_principal(text: &str) -> bool {
    static HIDDEN_CHARACTER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(HIDDEN).ok());
    !text.is_empty()
        && text.len() <= PRINCIPAL_BYTES_MAX
        && text.trim() == text
        && HIDDEN_CHARACTER.as_ref().is_some_and(|hidden| !hidden.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Caller {
        let claims = serde_json::json!({
            "sub": "anna",
            "org": {"id": 7, "unit": {"name": "north"}},
            "https://example.com/herd": "h1",
            "a.b": "flat",
            "a": {"b": "nested"},
            "none": null
        });
        Caller { claims: claims.as_object().cloned().unwrap(), ..Caller::default() }
    }

    #[test]
    fn a_claim_is_found_by_its_name_and_by_its_path() {
        let check = |path: &str, expected: Option<Value>| {
            assert_eq!(caller().claim(path).cloned(), expected, "{path}");
        };
        check("sub", Some("anna".into()));
        check("org.id", Some(7.into()));
        check("org.unit.name", Some("north".into()));
        check("https://example.com/herd", Some("h1".into()));
        check("a.b", Some("flat".into()));
        for absent in ["", ".", "none", "sub.x", "org.", ".org", "org.unit.name.x", "nobody"] {
            check(absent, None);
        }
    }

    #[test]
    fn a_principal_is_short_and_has_no_hidden_characters() {
        for good in
            ["anna", "urn:stable:7", "Łukasz Żak", "a b", "李雷", "a\u{301}", &"x".repeat(256)]
        {
            assert!(is_principal(good), "{good}");
        }
        let bad =
            ["", " anna", "anna ", "a\r\nNats-X: 1", "a\0", "a\u{7f}", "a\u{85}b", "a\u{2028}b"];
        for bad in bad.into_iter().chain([&*"x".repeat(257)]) {
            assert!(!is_principal(bad), "{bad:?}");
        }
        // Format, bidi, joiner, tag, soft hyphen, filler, selector, blank, private use, unassigned,
        // noncharacter.
        for hidden in [
            '\u{200b}',
            '\u{202e}',
            '\u{2066}',
            '\u{feff}',
            '\u{200d}',
            '\u{e0061}',
            '\u{ad}',
            '\u{61c}',
            '\u{3164}',
            '\u{115f}',
            '\u{fe0f}',
            '\u{34f}',
            '\u{2800}',
            '\u{a0}',
            '\u{3000}',
            '\u{2003}',
            '\u{e000}',
            '\u{378}',
            '\u{fffe}',
            '\u{9b}',
        ] {
            for bad in [format!("an{hidden}na"), format!("{hidden}anna"), format!("anna{hidden}")] {
                assert!(!is_principal(&bad), "{bad:?}");
            }
        }
    }
}
