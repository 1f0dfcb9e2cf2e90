//! Determines which access requirements a caller meets.

use std::sync::Arc;

use http::HeaderMap;

use super::{AuthFailure, AuthRejection, Authenticator, has_all};
use crate::catalogue::{Auth, AuthMethod};
use crate::roles::gateway::client::caller::Caller;
use crate::roles::gateway::client::caller::Peer;

/// The access rights of a caller.
#[derive(Clone, Debug)]
pub struct Permissions {
    /// The caller's name, from the first set of methods that authenticated it.
    pub principal: Option<Arc<str>>,
    /// For each requirement, whether the caller meets it.
    pub met: Vec<bool>,
}

/// The result of authentication for a set of methods and issuers.
type Proof<'a> = (&'a [AuthMethod], &'a [String], Result<Caller, Box<AuthRejection>>);

impl Authenticator {
    /// Returns, for each access requirement, whether `authenticate` would succeed for an endpoint with that requirement.
    /// Credentials are checked once for each distinct set of methods and issuers.
    ///
    /// # Errors
    /// `AuthRejection` if the caller sent a credential that no requirement accepts. Missing credentials, or a certificate that
    /// is mapped to no caller, are not errors: the caller may call the public endpoints.
    pub fn permissions(
        &self,
        requirements: &[Auth],
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Permissions, Box<AuthRejection>> {
        let mut proofs: Vec<Proof<'_>> = Vec::new();
        let mut met = Vec::with_capacity(requirements.len());
        for requirement in requirements {
            let Auth::Required { methods, scopes, issuers } = requirement else {
                met.push(true);
                continue;
            };
            let known = proofs.iter().position(|(by, of, _)| by == methods && of == issuers);
            let at = known.unwrap_or_else(|| {
                let caller =
                    self.authenticate_by(methods, issuers, headers, peer).map(|(_, caller)| caller);
                proofs.push((methods, issuers, caller));
                proofs.len() - 1
            });
            let caller = proofs.get(at).and_then(|(_, _, caller)| caller.as_ref().ok());
            met.push(caller.is_some_and(|caller| has_all(caller, scopes)));
        }
        let caller = proofs.iter().find_map(|(_, _, caller)| caller.as_ref().ok());
        let Some(caller) = caller else {
            let refusals = proofs.into_iter().filter_map(|(_, _, caller)| caller.err());
            let unauthenticated = Permissions { principal: None, met };
            return refusals
                .into_iter()
                .find(|refusal| was_sent_deliberately(refusal))
                .map_or(Ok(unauthenticated), Err);
        };
        Ok(Permissions { principal: caller.principal.clone(), met })
    }
}

/// Returns whether the caller sent the rejected credential deliberately. A certificate does not count,
/// because it belongs to the connection.
fn was_sent_deliberately(refusal: &AuthRejection) -> bool {
    !matches!(refusal.failure, AuthFailure::NoCredentials | AuthFailure::NotConfigured)
        && refusal.presented.method != Some(AuthMethod::ClientCertificate)
}
