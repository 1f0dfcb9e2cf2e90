//! The API documentation: the document at `/openapi.json`, and the page at `/docs` for reading the document and trying
//! endpoints. A caller sees only the endpoints that it may call, unless the configuration makes the documentation
//! public.

use std::io;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, header};

use crate::catalogue::Catalogue;
use crate::catalogue::openapi::ApiInfo;
use crate::config::gateway::{Coding, CompressionConfig, DocumentationAccess};

use crate::roles::gateway::admission::auth::Permissions;
use crate::roles::gateway::edge::compression::stored_body::StoredBodyRequest;
use crate::roles::gateway::response::Response;

mod documents;
mod page;

pub use documents::OpenApiDocuments;
use page::Page;

/// The paths of the documentation.
pub const DOCUMENTATION_PATHS: [&str; 2] = [DOCUMENT_PATH, PAGE_PATH];

const DOCUMENT_PATH: &str = "/openapi.json";
const PAGE_PATH: &str = "/docs";
const JSON: &str = "application/json";

/// `Vary` for a document that depends on the caller.
const VARY: HeaderValue = HeaderValue::from_static("Authorization, X-Api-Key");
/// `Cache-Control` for a document that depends on the caller.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// `Cache-Control` for content that changes with the catalogue or the version. Caches may store it, but must validate
/// it before each use.
const VALIDATE: &str = "no-cache";

/// The documentation of a catalogue.
#[derive(Debug)]
pub struct Documentation {
    page: &'static Page,
    documents: OpenApiDocuments,
    access: DocumentationAccess,
    codings: Vec<Coding>,
}

/// The content at a path of the documentation.
#[derive(Debug)]
pub enum DocumentationPage<'a> {
    /// The page for reading the document, or one of the page's files. These contain no endpoints, so every caller may
    /// read them.
    Page(Response),
    /// The document, which is the same for all callers.
    Public(&'a Documentation),
    /// The document, which depends on the caller's permissions.
    PerCaller(&'a Documentation),
}

impl Documentation {
    /// Creates the documentation of a catalogue, unless the configuration disables it.
    #[must_use]
    pub fn new(
        catalogue: &Arc<Catalogue>,
        info: &ApiInfo,
        access: DocumentationAccess,
        compression: &CompressionConfig,
    ) -> Option<Self> {
        if access == DocumentationAccess::Off {
            return None;
        }
        let documents = OpenApiDocuments::new(Arc::clone(catalogue), info.clone());
        Some(Self { page: Page::get(), documents, access, codings: compression.codings.clone() })
    }

    /// Returns whether a path names one of the page's style sheets or scripts. Their names contain
    /// a hash, so they do not conflict with routes, not even with routes such as `/{table}/{id}`.
    #[must_use]
    pub fn is_asset(&self, path: &str) -> bool {
        asset_name(path).is_some_and(|name| self.page.has_asset(name))
    }

    /// Returns the content at a path, if there is one.
    #[must_use]
    pub fn page(
        &self,
        method: &Method,
        path: &str,
        request: &HeaderMap,
    ) -> Option<DocumentationPage<'_>> {
        if !is_read(method) {
            return None;
        }
        match path {
            PAGE_PATH => Some(DocumentationPage::Page(self.page.response(self.request(request)))),
            DOCUMENT_PATH if self.access == DocumentationAccess::Public => {
                Some(DocumentationPage::Public(self))
            }
            DOCUMENT_PATH => Some(DocumentationPage::PerCaller(self)),
            _ => {
                let asset = self.page.asset(asset_name(path)?, self.request(request))?;
                Some(DocumentationPage::Page(asset))
            }
        }
    }

    /// Returns the documents and the distinct access requirements of all endpoints.
    #[must_use]
    pub fn documents(&self) -> &OpenApiDocuments {
        &self.documents
    }

    /// Returns the document with all endpoints.
    ///
    /// # Errors
    /// An error if the runtime is shutting down.
    pub async fn public(&self, request: &HeaderMap) -> io::Result<Response> {
        let document = self.documents.complete().await?;
        Ok(document.cacheable_response(self.request(request), JSON, VALIDATE))
    }

    /// Returns the document with the endpoints that a caller may call.
    ///
    /// # Errors
    /// An error if the runtime is shutting down.
    pub async fn for_caller(
        &self,
        permissions: &Permissions,
        request: &HeaderMap,
    ) -> io::Result<Response> {
        let document = self.documents.get(&permissions.met).await?;
        let mut response = document.response(self.request(request), JSON);
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        let encoding = headers.insert(header::VARY, VARY);
        if let Some(encoding) = encoding {
            headers.append(header::VARY, encoding);
        }
        Ok(response)
    }

    fn request<'a>(&'a self, headers: &'a HeaderMap) -> StoredBodyRequest<'a> {
        StoredBodyRequest { headers, codings: &self.codings }
    }
}

/// Returns the file name in a path, if the path could name one of the page's files.
fn asset_name(path: &str) -> Option<&str> {
    path.strip_prefix(PAGE_PATH)?.strip_prefix('/')
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::load::fixture::catalogue;

    #[test]
    fn only_reads_of_known_paths_are_answered() {
        let catalogue = Arc::new(catalogue(r#""a": {"route": "GET /a", KEYS}"#));
        let none = HeaderMap::new();
        let info = ApiInfo::default();
        let compression = CompressionConfig { codings: Coding::ALL.to_vec(), bytes_min: 100 };
        for access in [DocumentationAccess::Public, DocumentationAccess::Authenticated] {
            let documentation =
                Documentation::new(&catalogue, &info, access, &compression).unwrap();
            let page = |method, path| documentation.page(&method, path, &none);
            assert!(matches!(page(Method::GET, "/docs"), Some(DocumentationPage::Page(_))));
            let document = page(Method::HEAD, "/openapi.json").unwrap();
            let is_public = matches!(document, DocumentationPage::Public(_));
            assert_eq!(is_public, access == DocumentationAccess::Public);
            assert!(page(Method::POST, "/docs").is_none());
            assert!(page(Method::GET, "/other").is_none());
        }
        let off = Documentation::new(&catalogue, &info, DocumentationAccess::Off, &compression);
        assert!(off.is_none());
    }
}
