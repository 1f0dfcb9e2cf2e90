//! Client certificates: which name in them stands for which caller.

use std::collections::BTreeMap;

use super::refusal::AuthFailure;
use crate::config::auth::CertificateConfig;
use crate::roles::gateway::caller::{Caller, PRINCIPAL_BYTES_MAX, is_principal};

/// Subject alternative names that are known, each with its caller.
#[derive(Debug)]
pub(super) struct Certificates(BTreeMap<String, Caller>);

impl Certificates {
    pub(super) fn load(config: &BTreeMap<String, CertificateConfig>) -> Result<Self, Vec<String>> {
        let mut mistakes = Vec::new();
        for (subject, written) in config {
            let place = format!("auth.certificates.{subject:?}");
            if subject.is_empty() {
                mistakes.push(format!("{place}: expected a name as it stands in the certificate"));
            }
            if !is_principal(&written.principal) {
                mistakes.push(format!(
                    "{place}.principal: expected 1 to {PRINCIPAL_BYTES_MAX} bytes without control characters"
                ));
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Self(
            config.iter().map(|(subject, written)| (subject.clone(), caller(written))).collect(),
        ))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whom the names of one certificate stand for. Names are compared to the letter.
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

    fn certificates() -> Certificates {
        let entry = |principal: &str, scopes: &[&str]| CertificateConfig {
            principal: principal.to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        };
        let config = BTreeMap::from([
            ("spiffe://example.com/clinic".to_owned(), entry("clinic", &["a"])),
            ("clinic.example.com".to_owned(), entry("clinic", &["a"])),
            ("admin.example.com".to_owned(), entry("clinic", &["a", "b"])),
            ("vet@example.com".to_owned(), entry("vet", &[])),
        ]);
        Certificates::load(&config).unwrap()
    }

    fn find(names: &[&str]) -> Result<String, AuthFailure> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        certificates().find(&names).map(|caller| caller.principal.unwrap().to_string())
    }

    #[test]
    fn a_known_name_stands_for_its_caller() {
        assert_eq!(find(&["vet@example.com"]), Ok("vet".to_owned()));
        assert_eq!(find(&["nobody", "clinic.example.com"]), Ok("clinic".to_owned()));
        assert_eq!(
            find(&["clinic.example.com", "spiffe://example.com/clinic"]),
            Ok("clinic".to_owned())
        );
    }

    #[test]
    fn a_name_that_is_not_known_to_the_letter_stands_for_nobody() {
        for names in [&[][..], &["*.example.com"], &["Clinic.example.com"], &["", "example.com"]] {
            assert_eq!(find(names), Err(AuthFailure::UnknownCertificate), "{names:?}");
        }
    }

    #[test]
    fn a_certificate_for_two_callers_is_for_neither() {
        for names in
            [["clinic.example.com", "vet@example.com"], ["clinic.example.com", "admin.example.com"]]
        {
            assert_eq!(find(&names), Err(AuthFailure::Ambiguous), "{names:?}");
        }
    }

    #[test]
    fn a_principal_that_cannot_travel_is_a_mistake_in_the_configuration() {
        let bad = CertificateConfig { principal: "a\r\nb".to_owned(), scopes: Vec::new() };
        let mistakes = Certificates::load(&BTreeMap::from([("x".to_owned(), bad)])).unwrap_err();
        assert!(mistakes.join("").starts_with("auth.certificates.\"x\".principal"), "{mistakes:?}");
    }
}
