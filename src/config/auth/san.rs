//! Subject alternative names (SANs) of client certificates, in a canonical form that can be
//! compared.

/// The kind of a subject alternative name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanKind {
    /// A DNS name.
    Dns,
    /// A URI.
    Uri,
    /// An e-mail address.
    Email,
}

const KINDS: [(&str, SanKind); 3] =
    [("dns:", SanKind::Dns), ("uri:", SanKind::Uri), ("email:", SanKind::Email)];

/// Returns the canonical form of a name, with its kind as prefix, or `None` if the name is invalid.
///
/// DNS names ignore case and a trailing dot (RFC 5280 §7.2). Wildcards are invalid. The domain of
/// an e-mail address follows the same rules. The local part of an e-mail address (§7.5) and URIs
/// are left unchanged.
#[must_use]
pub fn canonical(kind: SanKind, name: &str) -> Option<String> {
    let is_visible = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
    if !is_visible {
        return None;
    }
    Some(match kind {
        SanKind::Dns => format!("dns:{}", domain(name)?),
        SanKind::Uri => format!("uri:{name}"),
        SanKind::Email => {
            let (local, host) = name.rsplit_once('@').filter(|(local, _)| !local.is_empty())?;
            format!("email:{local}@{}", domain(host)?)
        }
    })
}

/// Parses a configured name with its kind, such as `dns:clinic.example.com`, into its canonical
/// form.
///
/// # Errors
/// Returns a message that states what was expected.
pub fn parse(text: &str) -> Result<String, String> {
    let split = |(prefix, kind)| Some((kind, text.strip_prefix(prefix)?));
    let Some((kind, name)) = KINDS.into_iter().find_map(split) else {
        let kind = match text {
            _ if text.contains("://") => "uri",
            _ if text.contains('@') => "email",
            _ => "dns",
        };
        return Err(format!(
            "expected the name with its kind as prefix, dns:, uri: or email:, e.g. [auth.certificates.{:?}]",
            format!("{kind}:{text}")
        ));
    };
    canonical(kind, name).ok_or_else(|| {
        match kind {
            SanKind::Dns => "expected a DNS name in ASCII (xn--…), without wildcards",
            SanKind::Uri => "expected a URI in ASCII",
            SanKind::Email => "expected an e-mail address in ASCII",
        }
        .to_owned()
    })
}

fn domain(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let is_name = !name.is_empty() && name.bytes().all(is_plain);
    is_name.then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_canonical_form() {
        let check = |text: &str, expected: &str| {
            assert_eq!(parse(text).as_deref(), Ok(expected), "{text}");
        };
        check("dns:Clinic.Example.COM.", "dns:clinic.example.com");
        check("uri:spiffe://Example.com/Clinic", "uri:spiffe://Example.com/Clinic");
        check("email:Vet@Example.COM", "email:Vet@example.com");
        // The scheme of a URI must not be mistaken for a kind.
        check("uri:dns:clinic.example.com", "uri:dns:clinic.example.com");
    }

    #[test]
    fn an_invalid_name_is_refused_with_a_correction() {
        let check = |text: &str, expected: &str| {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("clinic.example.com", r#"[auth.certificates."dns:clinic.example.com"]"#);
        check("spiffe://example.com/x", r#"[auth.certificates."uri:spiffe://example.com/x"]"#);
        check("vet@example.com", r#"[auth.certificates."email:vet@example.com"]"#);
        check("ip:192.0.2.1", "dns:, uri: or email:");
        check("DNS:clinic.example.com", "dns:, uri: or email:");
        check("", "dns:, uri: or email:");
        for invalid in ["dns:", "dns:.", "dns:*.example.com", "dns:žluť.example", "dns:a b"] {
            check(invalid, "expected a DNS name");
        }
        check("uri:", "expected a URI");
        for invalid in ["email:vet", "email:@example.com", "email:vet@", "email:a b@example.com"] {
            check(invalid, "expected an e-mail");
        }
    }
}
