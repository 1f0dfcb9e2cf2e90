//! Names of client certificates (SAN) with their kind, in the one form in which they are compared.

/// The kind of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A DNS name.
    Dns,
    /// A URI.
    Uri,
    /// An e-mail address.
    Email,
}

const KINDS: [(&str, Kind); 3] =
    [("dns:", Kind::Dns), ("uri:", Kind::Uri), ("email:", Kind::Email)];

/// A name of a kind, as it is compared: with the kind before it. `None` when it names nobody.
///
/// A DNS name is compared without its case and its last dot (RFC 5280 §7.2); a wildcard is no name. Of an e-mail address the
/// domain is compared so, and what stands before the `@` to the letter (§7.5). A URI is compared to the letter.
#[must_use]
pub fn parse(kind: Kind, name: &str) -> Option<String> {
    let is_visible = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
    if !is_visible {
        return None;
    }
    Some(match kind {
        Kind::Dns => format!("dns:{}", domain(name)?),
        Kind::Uri => format!("uri:{name}"),
        Kind::Email => {
            let (local, host) = name.rsplit_once('@').filter(|(local, _)| !local.is_empty())?;
            format!("email:{local}@{}", domain(host)?)
        }
    })
}

/// A name as it is written in the configuration: `dns:clinic.example.com`.
///
/// # Errors
/// What to write.
pub fn written(text: &str) -> Result<String, String> {
    let found = KINDS.into_iter().find_map(|(word, kind)| Some((kind, text.strip_prefix(word)?)));
    let Some((kind, name)) = found else {
        let kind = match text {
            _ if text.contains("://") => "uri",
            _ if text.contains('@') => "email",
            _ => "dns",
        };
        return Err(format!(
            "expected the kind of the name before it, dns:, uri: or email:, e.g. [auth.certificates.{:?}]",
            format!("{kind}:{text}")
        ));
    };
    parse(kind, name).ok_or_else(|| {
        match kind {
            Kind::Dns => "expected a DNS name in ASCII (xn--…), without wildcards",
            Kind::Uri => "expected a URI in ASCII",
            Kind::Email => "expected an e-mail address in ASCII",
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
    fn a_name_has_one_form() {
        let check = |text: &str, expected: &str| {
            assert_eq!(written(text).as_deref(), Ok(expected), "{text}");
        };
        check("dns:Clinic.Example.COM.", "dns:clinic.example.com");
        check("uri:spiffe://Example.com/Clinic", "uri:spiffe://Example.com/Clinic");
        check("email:Vet@Example.COM", "email:Vet@example.com");
        // The scheme of a URI is no kind.
        check("uri:dns:clinic.example.com", "uri:dns:clinic.example.com");
    }

    #[test]
    fn what_names_nobody_is_refused_with_what_to_write() {
        let check = |text: &str, expected: &str| {
            let error = written(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("clinic.example.com", r#"[auth.certificates."dns:clinic.example.com"]"#);
        check("spiffe://example.com/x", r#"[auth.certificates."uri:spiffe://example.com/x"]"#);
        check("vet@example.com", r#"[auth.certificates."email:vet@example.com"]"#);
        check("ip:192.0.2.1", "dns:, uri: or email:");
        check("DNS:clinic.example.com", "dns:, uri: or email:");
        check("", "dns:, uri: or email:");
        for nobody in ["dns:", "dns:.", "dns:*.example.com", "dns:žluť.example", "dns:a b"] {
            check(nobody, "expected a DNS name");
        }
        check("uri:", "expected a URI");
        for nobody in ["email:vet", "email:@example.com", "email:vet@", "email:a b@example.com"] {
            check(nobody, "expected an e-mail");
        }
    }
}
