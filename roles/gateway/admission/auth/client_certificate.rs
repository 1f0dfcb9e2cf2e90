//! Maps the names in client certificates to callers.

use std::collections::BTreeMap;

use super::rejection::AuthFailure;
use crate::config::auth::{CertificateConfig, san};
use crate::roles::gateway::client::caller::Caller;
use crate::roles::gateway::client::caller::PRINCIPAL_BYTES_MAX;
use crate::roles::gateway::client::caller::is_principal;

/// The caller for each subject alternative name. A name includes its type.
#[derive(Debug)]
pub(super) struct ClientCertificates(BTreeMap<String, Caller>);

impl ClientCertificates {
    pub(super) fn load(config: &BTreeMap<String, CertificateConfig>) -> Result<Self, Vec<String>> {
        let (mut known, mut errors) = (BTreeMap::new(), Vec::new());
        for (subject, written) in config {
            let place = format!("auth.certificates.{subject:?}");
            match san::parse(subject) {
                Ok(name) => {
                    if known.insert(name, caller(written)).is_some() {
                        errors
                            .push(format!("{place}: expected each name once, got this one twice"));
                    }
                }
                Err(expected) => errors.push(format!("{place}: {expected}")),
            }
            if !is_principal(&written.principal) {
                errors.push(format!(
                    "{place}.principal: expected 1 to {PRINCIPAL_BYTES_MAX} bytes of text without control, invisible or bidi characters"
                ));
            }
        }
        if errors.is_empty() { Ok(Self(known)) } else { Err(errors) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the caller that the names of one certificate are mapped to. Each name includes its type and is normalized.
    pub(super) fn find(&self, names: &[String]) -> Result<Caller, AuthFailure> {
        let mut known = names.iter().filter_map(|name| self.0.get(name));
        let caller = known.next().ok_or(AuthFailure::UnknownCertificate)?;
        if known.any(|other| other.principal != caller.principal || other.scopes != caller.scopes) {
            return Err(AuthFailure::Ambiguous);
        }
        Ok(caller.clone())
    }
}

fn caller(written: &CertificateConfig) -> Caller {
    let principal = written.principal.as_str();
    let claims = std::iter::once(("sub".to_owned(), principal.into())).collect();
    Caller {
        principal: Some(principal.into()),
        scopes: written.scopes.clone(),
        claims,
        issuer: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificates() -> ClientCertificates {
        let entry = |principal: &str, scopes: &[&str]| CertificateConfig {
            principal: principal.to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        };
        let config = BTreeMap::from([
            ("uri:spiffe://example.com/clinic".to_owned(), entry("clinic", &["a"])),
            ("dns:clinic.example.com".to_owned(), entry("clinic", &["a"])),
            ("dns:admin.example.com".to_owned(), entry("clinic", &["a", "b"])),
            ("email:vet@example.com".to_owned(), entry("vet", &[])),
        ]);
        ClientCertificates::load(&config).unwrap()
    }

    fn find(names: &[&str]) -> Result<String, AuthFailure> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        certificates().find(&names).map(|caller| caller.principal.unwrap().to_string())
    }

    #[test]
    fn a_known_name_is_mapped_to_its_caller() {
        assert_eq!(find(&["email:vet@example.com"]), Ok("vet".to_owned()));
        assert_eq!(find(&["dns:nobody", "dns:clinic.example.com"]), Ok("clinic".to_owned()));
        assert_eq!(
            find(&["dns:clinic.example.com", "uri:spiffe://example.com/clinic"]),
            Ok("clinic".to_owned())
        );
    }

    #[test]
    fn a_name_that_is_unknown_or_of_another_type_is_rejected() {
        for names in [
            &[][..],
            &["dns:*.example.com"],
            &["uri:clinic.example.com"],
            &["email:clinic.example.com"],
            &["clinic.example.com", ""],
            &["dns:example.com"],
        ] {
            assert_eq!(find(names), Err(AuthFailure::UnknownCertificate), "{names:?}");
        }
    }

    #[test]
    fn a_certificate_that_is_mapped_to_two_callers_is_rejected() {
        for names in [
            ["dns:clinic.example.com", "email:vet@example.com"],
            ["dns:clinic.example.com", "dns:admin.example.com"],
        ] {
            assert_eq!(find(&names), Err(AuthFailure::Ambiguous), "{names:?}");
        }
    }

    #[test]
    fn an_invalid_principal_is_a_config_error() {
        let bad = CertificateConfig { principal: "a\r\nb".to_owned(), scopes: Vec::new() };
        let errors =
            ClientCertificates::load(&BTreeMap::from([("dns:x".to_owned(), bad)])).unwrap_err();
        assert!(errors.join("").starts_with("auth.certificates.\"dns:x\".principal"), "{errors:?}");
    }
}
