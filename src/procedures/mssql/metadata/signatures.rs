//! Caches signatures. Only one call at a time reads a missing signature.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tiberius::error::Error;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::signature::Signature;
use super::signature_query::{self, NamedObject, PROCEDURES_PER_QUERY};
use crate::catalogue::ProcedureName;
use crate::procedures::mssql::tds::TdsClient;

/// A signature that is being read. The call that holds the lock reads the signature, and other
/// calls wait for the lock.
#[derive(Clone, Debug, Default)]
struct PendingRead {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// Set if the read found that the procedure does not exist.
    is_missing: Arc<AtomicBool>,
}

/// The next step of a call that needs a signature.
#[derive(Debug)]
pub(crate) enum SignatureLookup {
    /// Use the known signature.
    Known,
    /// Fail, because another call found that the procedure does not exist.
    Missing,
    /// Read the signature, and hold this guard until it is read.
    MustRead(#[expect(dead_code, reason = "held until it is dropped")] OwnedMutexGuard<()>),
}

/// A signature, and the time at which it was last read, or at which this was last tried.
#[derive(Clone, Debug)]
struct KnownSignature {
    signature: Arc<Signature>,
    checked: Instant,
}

/// The signatures read so far, at most one per procedure.
#[derive(Debug, Default)]
pub(crate) struct SignatureCache {
    known: Mutex<HashMap<ProcedureName, KnownSignature>>,
    /// The names of objects that are not procedures, each with the reason why it cannot be called.
    others: Mutex<HashMap<ProcedureName, String>>,
    pending: Mutex<HashMap<ProcedureName, PendingRead>>,
    lacks_parameters_view: AtomicBool,
    /// Whether an unknown code page has been logged.
    is_unknown_logged: AtomicBool,
}

impl SignatureCache {
    /// Returns the signature that was read most recently.
    pub(crate) fn known(&self, procedure: &ProcedureName) -> Option<Arc<Signature>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(procedure).map(|one| Arc::clone(&one.signature))
    }

    /// Returns whether the caller may read the signature again: neither it nor another call has tried within `age`.
    pub(crate) fn claim_read(&self, procedure: &ProcedureName, age: Duration) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(one) = known.get_mut(procedure) else { return true };
        let is_old = one.checked.elapsed() > age;
        if is_old {
            one.checked = Instant::now();
        }
        is_old
    }

    /// Returns whether the signature has been read.
    pub(crate) fn is_known(&self, procedure: &ProcedureName) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains_key(procedure)
    }

    /// Returns the reason why a name cannot be called, if it belongs to an object that is not a
    /// procedure.
    pub(crate) fn other_object(&self, procedure: &ProcedureName) -> Option<String> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner).get(procedure).cloned()
    }

    /// Forgets a signature, unless it has been replaced by a newer one.
    pub(crate) fn forget(&self, procedure: &ProcedureName, used: &Signature) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(procedure).is_some_and(|one| *one.signature == *used) {
            known.remove(procedure);
        }
    }

    /// Looks up a signature. If it is unknown, only one of the calls that need it gets `MustRead`,
    /// and the others wait until that call has finished. This method is cancel safe.
    pub(crate) async fn lookup(&self, procedure: &ProcedureName) -> SignatureLookup {
        let pending = {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.entry(procedure.clone()).or_default().clone()
        };
        let guard = pending.lock.lock_owned().await;
        if self.is_known(procedure) {
            SignatureLookup::Known
        } else if pending.is_missing.load(Ordering::Acquire) {
            SignatureLookup::Missing
        } else {
            SignatureLookup::MustRead(guard)
        }
    }

    /// Reads the signature of a procedure from the database. Returns `None` if the procedure does
    /// not exist. If this future is dropped, the connection must be discarded.
    pub(crate) async fn read(
        &self,
        client: &mut TdsClient,
        procedure: &ProcedureName,
    ) -> Result<Option<Arc<Signature>>, Error> {
        let mut signatures = self.read_all(client, std::slice::from_ref(procedure)).await?;
        Ok(signatures.pop().flatten())
    }

    /// Reads the signatures of any number of procedures, like `read`.
    pub(crate) async fn read_all(
        &self,
        client: &mut TdsClient,
        procedures: &[ProcedureName],
    ) -> Result<Vec<Option<Arc<Signature>>>, Error> {
        let mut all = Vec::with_capacity(procedures.len());
        for chunk in procedures.chunks(PROCEDURES_PER_QUERY) {
            let objects = signature_query::read(client, chunk, &self.lacks_parameters_view).await?;
            let signatures = self.record_others(chunk, objects);
            let (mut known, checked) =
                (self.known.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
            for (procedure, signature) in chunk.iter().zip(&signatures) {
                match signature.clone() {
                    Some(signature) => {
                        known.insert(procedure.clone(), KnownSignature { signature, checked })
                    }
                    None => known.remove(procedure),
                };
            }
            drop(known);
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            for (procedure, signature) in chunk.iter().zip(&signatures) {
                // Later calls start a new read.
                if let Some(read) = pending.remove(procedure) {
                    read.is_missing.store(signature.is_none(), Ordering::Release);
                }
            }
            drop(pending);
            for (procedure, signature) in chunk.iter().zip(&signatures) {
                self.log_unknown_code_page(procedure, signature.as_deref());
            }
            all.extend(signatures);
        }
        Ok(all)
    }

    /// Records which names belong to objects that are not procedures, and returns the signatures of
    /// the procedures.
    fn record_others(
        &self,
        procedures: &[ProcedureName],
        objects: Vec<NamedObject>,
    ) -> Vec<Option<Arc<Signature>>> {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let signature = |(procedure, object): (&ProcedureName, NamedObject)| {
            others.remove(procedure);
            match object {
                NamedObject::Procedure(signature) => Some(signature),
                NamedObject::Other(reason) => {
                    others.insert(procedure.clone(), reason);
                    None
                }
                NamedObject::Missing => None,
            }
        };
        procedures.iter().zip(objects).map(signature).collect()
    }

    /// Logs once that text in an unknown code page is limited to ASCII.
    fn log_unknown_code_page(&self, procedure: &ProcedureName, signature: Option<&Signature>) {
        let unknown = signature.and_then(Signature::unknown_code_page);
        let Some((name, page)) = unknown else { return };
        if !self.is_unknown_logged.swap(true, Ordering::Relaxed) {
            let (procedure, code_page) = (procedure.as_str(), page.number());
            tracing::warn!(
                procedure,
                name,
                code_page,
                "the database has text in an unknown code page, for which only ASCII is accepted"
            );
        }
    }
}
