//! The documents at `/openapi.json`. Each document is generated when it is first requested, and is stored compressed.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::catalogue::Auth;
use crate::catalogue::openapi::{self, ApiInfo};
use crate::catalogue::{Catalogue, Endpoint};

use crate::roles::gateway::edge::compression::stored_body::StoredBody;

/// The maximum number of stored documents. Callers with the same permissions share one.
const DOCUMENTS_MAX: usize = 64;
/// The maximum total size of the stored documents, in bytes. The newest document is stored regardless of its size.
const DOCUMENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Generates and stores a document for each set of permissions.
pub struct OpenApiDocuments(Arc<SharedDocuments>);

struct SharedDocuments {
    catalogue: Arc<Catalogue>,
    info: ApiInfo,
    /// The distinct access requirements of all endpoints.
    requirements: Vec<Auth>,
    /// The index of each endpoint's requirement.
    endpoint_requirements: Vec<usize>,
    stored: Mutex<DocumentStore>,
    /// Held while a document is generated, so that only one document is generated at a time, and
    /// none is generated twice.
    generating: Arc<tokio::sync::Mutex<()>>,
}

/// The stored documents, with the least recently used one first. The key of a document contains, for each requirement,
/// whether the caller meets it.
#[derive(Default)]
struct DocumentStore {
    documents: VecDeque<(Box<[bool]>, StoredBody)>,
    bytes: usize,
}

impl OpenApiDocuments {
    /// Creates an empty store for the documents of a catalogue.
    pub(super) fn new(catalogue: Arc<Catalogue>, info: ApiInfo) -> Self {
        let mut requirements: Vec<Auth> = Vec::new();
        let endpoint_requirements = catalogue.endpoints().iter().map(|endpoint| {
            requirements.iter().position(|known| *known == endpoint.auth).unwrap_or_else(|| {
                requirements.push(endpoint.auth.clone());
                requirements.len() - 1
            })
        });
        let endpoint_requirements = endpoint_requirements.collect();
        let (stored, generating) = (Mutex::default(), Arc::default());
        Self(Arc::new(SharedDocuments {
            catalogue,
            info,
            requirements,
            endpoint_requirements,
            stored,
            generating,
        }))
    }

    /// Returns the distinct access requirements of all endpoints.
    #[must_use]
    pub fn requirements(&self) -> &[Auth] {
        &self.0.requirements
    }

    /// Returns the document with all endpoints.
    ///
    /// # Errors
    /// See `get`.
    pub(super) async fn complete(&self) -> io::Result<StoredBody> {
        self.get(&vec![true; self.0.requirements.len()]).await
    }

    /// Returns the document with the endpoints whose requirements are met.
    ///
    /// # Errors
    /// An error if the runtime is shutting down.
    pub(super) async fn get(&self, met: &[bool]) -> io::Result<StoredBody> {
        if let Some(document) = self.0.lock().take(met) {
            return Ok(document);
        }
        let generating = Arc::clone(&self.0.generating).lock_owned().await;
        if let Some(document) = self.0.lock().take(met) {
            return Ok(document);
        }
        // Generating a document takes a tenth of a second for 5,000 endpoints.
        let (shared, met) = (Arc::clone(&self.0), Box::<[bool]>::from(met));
        let generated = tokio::task::spawn_blocking(move || {
            // The lock is held until the document is stored, even if the client that requested it
            // has disconnected.
            let _generating = generating;
            let document = shared.generate(&met)?;
            shared.lock().insert(met, document.clone());
            Ok::<_, io::Error>(document)
        });
        generated.await.map_err(io::Error::other)?
    }
}

impl SharedDocuments {
    fn generate(&self, met: &[bool]) -> io::Result<StoredBody> {
        let endpoints = self.catalogue.endpoints().iter().zip(&self.endpoint_requirements);
        let shown = endpoints.filter(|(_, index)| met.get(**index).is_some_and(|met| *met));
        let shown: Vec<&Endpoint> = shown.map(|(endpoint, _)| &**endpoint).collect();
        StoredBody::write(|out| openapi::write(&shown, &self.info, out))
    }

    fn lock(&self) -> MutexGuard<'_, DocumentStore> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DocumentStore {
    /// Returns a document and marks it as the most recently used.
    fn take(&mut self, met: &[bool]) -> Option<StoredBody> {
        let index = self.documents.iter().position(|(key, _)| **key == *met)?;
        let used = self.documents.remove(index)?;
        let document = used.1.clone();
        self.documents.push_back(used);
        Some(document)
    }

    fn insert(&mut self, met: Box<[bool]>, document: StoredBody) {
        self.bytes += document.stored_bytes();
        self.documents.push_back((met, document));
        while self.documents.len() > 1
            && (self.documents.len() > DOCUMENTS_MAX || self.bytes > DOCUMENT_BYTES_MAX)
        {
            let removed = self.documents.pop_front();
            let bytes = removed.map_or(0, |(_, document)| document.stored_bytes());
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}

impl fmt::Debug for OpenApiDocuments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenApiDocuments")
            .field("requirements", &self.0.requirements.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::load::fixture::catalogue;

    /// Returns the paths of a document.
    async fn paths(documents: &OpenApiDocuments, met: &[bool]) -> Vec<String> {
        let text = documents.get(met).await.unwrap().text();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        document["paths"].as_object().unwrap().keys().cloned().collect()
    }

    #[tokio::test]
    async fn the_store_has_a_limited_number_of_documents() {
        let endpoints = (0..8).map(|number| {
            format!(
                r#""e{number}": {{"route": "GET /e{number}", "procedure": "x.a",
                "auth": {{"methods": ["jwt"], "scopes": ["s{number}"]}}}}"#
            )
        });
        let text = endpoints.collect::<Vec<_>>().join(",");
        let documents = OpenApiDocuments::new(Arc::new(catalogue(&text)), ApiInfo::default());
        assert_eq!(documents.requirements().len(), 8);
        for set in 0..1_u32 << 8 {
            let met: Vec<bool> = (0..8).map(|bit| set & (1 << bit) != 0).collect();
            let expected: Vec<String> = met
                .iter()
                .enumerate()
                .filter(|(_, met)| **met)
                .map(|(n, _)| format!("/e{n}"))
                .collect();
            assert_eq!(paths(&documents, &met).await, expected, "{set}");
            let store = documents.0.lock();
            assert!(store.documents.len() <= DOCUMENTS_MAX);
            let bytes: usize = store.documents.iter().map(|(_, body)| body.stored_bytes()).sum();
            assert_eq!(store.bytes, bytes);
        }
    }

    #[tokio::test]
    async fn concurrent_requests_share_one_generated_document() {
        let catalogue = catalogue(r#""a": {"route": "GET /a", KEYS}"#);
        let documents = OpenApiDocuments::new(Arc::new(catalogue), ApiInfo::default());
        let (one, other) = tokio::join!(documents.complete(), documents.complete());
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.hash(), other.hash());
        assert_eq!(documents.0.lock().documents.len(), 1);
    }
}
