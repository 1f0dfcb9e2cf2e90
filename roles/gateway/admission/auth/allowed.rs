//! What one caller may call, of all that there is.

use std::sync::Arc;

use http::HeaderMap;

use super::{AuthFailure, AuthRefusal, Authenticator, has_all};
use crate::catalogue::{Auth, AuthMethod};
use crate::roles::gateway::client::caller::Caller;
use crate::roles::gateway::client::caller::Peer;

/// What a caller may call.
#[derive(Clone, Debug)]
pub struct Allowed {
    /// Its name, by the first method by which it proved who it is.
    pub principal: Option<Arc<str>>,
    /// Whether it may call endpoints of each kind that was asked for.
    pub kinds: Vec<bool>,
}

/// Who a caller is for some methods and issuers.
type Proof<'a> = (&'a [AuthMethod], &'a [String], Result<Caller, Box<AuthRefusal>>);

impl Authenticator {
    /// What a caller may call: for each kind of access what `authenticate` would say of an endpoint of that kind. Credentials
    /// are checked once for each set of methods and issuers, however many scopes there are.
    ///
    /// # Errors
    /// `AuthRefusal` when it showed a credential that is good for nothing. Who shows none, or a certificate that stands for
    /// nobody, may call what is public.
    pub fn allowed(
        &self,
        kinds: &[Auth],
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Allowed, Box<AuthRefusal>> {
        let mut proofs: Vec<Proof<'_>> = Vec::new();
        let mut allowed = Vec::with_capacity(kinds.len());
        for kind in kinds {
            let Auth::Required { methods, scopes, issuers } = kind else {
                allowed.push(true);
                continue;
            };
            let known = proofs.iter().position(|(by, of, _)| by == methods && of == issuers);
            let at = known.unwrap_or_else(|| {
                let caller = self.prove(methods, issuers, headers, peer).map(|(_, caller)| caller);
                proofs.push((methods, issuers, caller));
                proofs.len() - 1
            });
            let caller = proofs.get(at).and_then(|(_, _, caller)| caller.as_ref().ok());
            allowed.push(caller.is_some_and(|caller| has_all(caller, scopes)));
        }
        let caller = proofs.iter().find_map(|(_, _, caller)| caller.as_ref().ok());
        let Some(caller) = caller else {
            let refusals = proofs.into_iter().filter_map(|(_, _, caller)| caller.err());
            let nobody = Allowed { principal: None, kinds: allowed };
            return refusals.into_iter().find(|refusal| was_shown(refusal)).map_or(Ok(nobody), Err);
        };
        Ok(Allowed { principal: caller.principal.clone(), kinds: allowed })
    }
}

/// Whether a caller showed a credential of its own will. A certificate comes with the connection.
fn was_shown(refusal: &AuthRefusal) -> bool {
    !matches!(refusal.failure, AuthFailure::NoCredentials | AuthFailure::NotConfigured)
        && refusal.presented.method != Some(AuthMethod::ClientCertificate)
}
