//! The API documentation: `/openapi.json`, and `/docs`, a page for reading the document and trying out endpoints. A caller sees
//! only the endpoints that it may call, unless the configuration makes the documentation public.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Method, header};

use crate::catalogue::Auth;
use crate::catalogue::Catalogue;
use crate::catalogue::openapi::{self, ApiInfo};
use crate::config::gateway::DocumentationAccess;

use crate::roles::gateway::admission::auth::Permissions;
use crate::roles::gateway::admission::two_generation_cache::TwoGenerationCache;
use crate::roles::gateway::response::Response;

/// The page contains its style sheet and script, and fetches only the document.
const STYLE: &str = include_str!("documentation/page.css");
const SCRIPT: &str = include_str!("documentation/page.js");

/// The paths of the documentation.
pub const DOCUMENTATION_PATHS: [&str; 2] = ["/openapi.json", "/docs"];

/// The maximum number of cached documents. Callers with the same permissions share one.
const DOCUMENTS_MAX: usize = 64;
/// The maximum total size of the cached documents. At least two documents are cached, regardless of their size.
const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// `Vary` for a document that depends on the caller.
const VARY: HeaderValue = HeaderValue::from_static("Authorization, X-Api-Key");
/// `Cache-Control` for a document that depends on the caller.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The documentation of a catalogue. An endpoint at one of its paths takes precedence.
#[derive(Debug)]
pub struct Documentation {
    page: Bytes,
    document: OpenApiDocument,
    /// A content security policy that allows only the page's own script and style sheet.
    policy: HeaderValue,
}

/// The document at `/openapi.json`.
#[derive(Debug)]
enum OpenApiDocument {
    /// One document for all callers.
    Public(Bytes),
    PerCaller(Box<CallerDocuments>),
}

/// Generates and caches a document for each set of permissions.
pub struct CallerDocuments {
    catalogue: Arc<Catalogue>,
    info: ApiInfo,
    /// The distinct access requirements of all endpoints.
    requirements: Vec<Auth>,
    /// The index of each endpoint's requirement.
    endpoint_requirements: Vec<usize>,
    /// The cached documents. A key contains, for each requirement, whether the caller meets it.
    cache: Mutex<TwoGenerationCache<Vec<bool>, Bytes>>,
}

/// The content at a path of the documentation.
#[derive(Debug)]
pub enum DocumentationPage<'a> {
    /// A response that is the same for all callers.
    Public(Response),
    /// A document that depends on the caller's permissions.
    PerCaller(&'a CallerDocuments),
}

impl Documentation {
    /// Creates the documentation of a catalogue, unless the configuration disables it.
    #[must_use]
    pub fn new(
        catalogue: &Arc<Catalogue>,
        info: &ApiInfo,
        access: DocumentationAccess,
    ) -> Option<Self> {
        let documents = || CallerDocuments::new(Arc::clone(catalogue), info.clone());
        let document = match access {
            DocumentationAccess::Off => return None,
            DocumentationAccess::Public => OpenApiDocument::Public(documents().complete()),
            DocumentationAccess::Authenticated => OpenApiDocument::PerCaller(Box::new(documents())),
        };
        let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
        let policy = format!(
            "default-src 'none'; connect-src 'self'; style-src 'sha256-{}'; script-src 'sha256-{}'; \
             frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
            hash(STYLE),
            hash(SCRIPT)
        );
        let page = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>API</title>\
             <style>{STYLE}</style><body><main></main><script>{SCRIPT}</script></body></html>"
        );
        // Never fails: base64 and fixed text form a valid header value.
        let policy = HeaderValue::try_from(policy)
            .unwrap_or(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
        Some(Self { page: page.into(), document, policy })
    }

    /// Returns the page at a path, if there is one.
    #[must_use]
    pub fn page(&self, method: &Method, path: &str) -> Option<DocumentationPage<'_>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        match (path, &self.document) {
            // The page itself contains no endpoints. Its script fetches the document with the credentials that the user enters.
            ("/docs", _) => {
                let mut response = response(&self.page, "text/html; charset=utf-8");
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
                Some(DocumentationPage::Public(response))
            }
            ("/openapi.json", OpenApiDocument::Public(document)) => {
                Some(DocumentationPage::Public(response(document, JSON)))
            }
            ("/openapi.json", OpenApiDocument::PerCaller(documents)) => {
                Some(DocumentationPage::PerCaller(documents))
            }
            _ => None,
        }
    }
}

const JSON: &str = "application/json";

fn response(body: &Bytes, media_type: &'static str) -> Response {
    let mut response = Response::new(body.clone().into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

impl CallerDocuments {
    fn new(catalogue: Arc<Catalogue>, info: ApiInfo) -> Self {
        let mut requirements: Vec<Auth> = Vec::new();
        let endpoint_requirements = catalogue.endpoints().iter().map(|endpoint| {
            requirements.iter().position(|known| *known == endpoint.auth).unwrap_or_else(|| {
                requirements.push(endpoint.auth.clone());
                requirements.len() - 1
            })
        });
        let endpoint_requirements = endpoint_requirements.collect();
        let cache = Mutex::new(TwoGenerationCache::new(1));
        let mut documents = Self { catalogue, info, requirements, endpoint_requirements, cache };
        // No document is larger than the complete one.
        let bytes = documents.complete().len().max(1);
        let documents_max = (DOCUMENT_BYTES_MAX / bytes).clamp(2, DOCUMENTS_MAX);
        documents.cache = Mutex::new(TwoGenerationCache::new(documents_max / 2));
        documents
    }

    /// Returns the distinct access requirements of all endpoints.
    #[must_use]
    pub fn requirements(&self) -> &[Auth] {
        &self.requirements
    }

    /// Returns the document with the endpoints that a caller may call.
    #[must_use]
    pub fn for_caller(&self, permissions: &Permissions) -> Response {
        let met = &permissions.met;
        let document = self.cached(met).unwrap_or_else(|| {
            // Takes a few milliseconds for a thousand endpoints.
            let document = self.generate(met);
            self.cache(met, &document);
            document
        });
        let mut response = response(&document, JSON);
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        headers.insert(header::VARY, VARY);
        response
    }

    fn cached(&self, met: &[bool]) -> Option<Bytes> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let met = met.to_vec();
        let document = cache.take(&met)?;
        cache.insert(met, document.clone(), |_| true);
        Some(document)
    }

    fn cache(&self, met: &[bool], document: &Bytes) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(met.to_vec(), document.clone(), |_| true);
    }

    fn complete(&self) -> Bytes {
        self.generate(&vec![true; self.requirements.len()])
    }

    /// Generates the document of the endpoints whose requirements are met.
    fn generate(&self, met: &[bool]) -> Bytes {
        let endpoints = self.catalogue.endpoints().iter().zip(&self.endpoint_requirements);
        let shown = endpoints.filter(|(_, index)| met.get(**index).is_some_and(|met| *met));
        let shown: Vec<_> = shown.map(|(endpoint, _)| &**endpoint).collect();
        openapi::text(&shown, &self.info).into()
    }
}

impl fmt::Debug for CallerDocuments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerDocuments")
            .field("requirements", &self.requirements.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::load_toml;

    fn catalogue(text: &str) -> Arc<Catalogue> {
        let defaults = load_toml("[catalogue]\n").catalogue.defaults;
        Arc::new(crate::catalogue::load::parse(&[("a.json", text)], &defaults).unwrap())
    }

    const ONE: &str = r#"{"a": {"route": "GET /a", "procedure": "x.a", "auth": "public"}}"#;

    #[test]
    fn the_policy_allows_only_the_script_of_the_page() {
        for access in [DocumentationAccess::Public, DocumentationAccess::Authenticated] {
            let documentation =
                Documentation::new(&catalogue(ONE), &ApiInfo::default(), access).unwrap();
            let Some(DocumentationPage::Public(page)) = documentation.page(&Method::GET, "/docs")
            else {
                panic!("the page is the same for every caller")
            };
            let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'"), "{policy}");
            assert!(!policy.contains("unsafe"), "{policy}");
            for part in ["frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"] {
                assert!(policy.contains(part), "{policy}");
            }
            assert!(documentation.page(&Method::HEAD, "/openapi.json").is_some());
            assert!(documentation.page(&Method::POST, "/docs").is_none());
            assert!(documentation.page(&Method::GET, "/other").is_none());
        }
        assert!(
            Documentation::new(&catalogue(ONE), &ApiInfo::default(), DocumentationAccess::Off)
                .is_none()
        );
    }

    #[test]
    fn the_cache_holds_a_limited_number_of_documents() {
        let endpoints = (0..12).map(|number| {
            format!(
                r#""e{number}": {{"route": "GET /e{number}", "procedure": "x.a",
                "auth": {{"methods": ["jwt"], "scopes": ["s{number}"]}}}}"#
            )
        });
        let text = format!("{{{}}}", endpoints.collect::<Vec<_>>().join(","));
        let documents = CallerDocuments::new(catalogue(&text), ApiInfo::default());
        assert_eq!(documents.requirements().len(), 12);
        for set in 0..1_u32 << 12 {
            let met: Vec<bool> = (0..12).map(|bit| set & (1 << bit) != 0).collect();
            let shown = documents.for_caller(&Permissions { principal: None, met: met.clone() });
            let body = shown.into_body().into_whole().unwrap();
            let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let paths = document["paths"].as_object().unwrap();
            for (number, is_shown) in met.iter().enumerate() {
                assert_eq!(paths.contains_key(&format!("/e{number}")), *is_shown, "{set}");
            }
            assert!(documents.cache.lock().unwrap().len() <= DOCUMENTS_MAX);
        }
    }
}
