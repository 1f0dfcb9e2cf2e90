//! `/openapi.json`, and `/docs`: a page that a person can read and try. Who may not call an endpoint does not read of it, unless
//! the configuration makes all of it public.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Method, header};

use crate::catalogue::Auth;
use crate::catalogue::{Catalogue, openapi};
use crate::config::gateway::DocumentationAccess;

use crate::roles::gateway::admission::auth::Allowed;
use crate::roles::gateway::admission::generations::Generations;
use crate::roles::gateway::response::Response;

/// The page's style and script stand in it: nothing is fetched but the document itself.
const STYLE: &str = include_str!("documentation/page.css");
const SCRIPT: &str = include_str!("documentation/page.js");

/// Where it is served.
pub const PATHS: [&str; 2] = ["/openapi.json", "/docs"];

/// Documents that are kept, for callers who may call the same.
const DOCUMENTS_MAX: usize = 64;
/// Bytes of them; two are always kept.
const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a document depends on that shows each caller its own: nobody else is given it, and it is not kept.
const VARY: HeaderValue = HeaderValue::from_static("Authorization, X-Api-Key");
/// See `VARY`.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// What is served about a catalogue. An endpoint of the same path comes first.
#[derive(Debug)]
pub struct Documentation {
    page: Bytes,
    document: Document,
    /// Lets the page run its own script and style, and nothing else.
    policy: HeaderValue,
}

/// The document, as callers see it.
#[derive(Debug)]
enum Document {
    /// Everybody the same.
    Whole(Bytes),
    OfCallers(Box<Documents>),
}

/// A document for each set of kinds of endpoints.
pub struct Documents {
    catalogue: Arc<Catalogue>,
    /// Who may call, of all endpoints; each kind once.
    kinds: Vec<Auth>,
    /// The kind of each endpoint.
    of_endpoints: Vec<usize>,
    /// By which kinds their callers may call.
    made: Mutex<Generations<Vec<bool>, Bytes>>,
}

/// What is served at a path.
#[derive(Debug)]
pub enum Page<'a> {
    /// The same for everybody.
    Same(Response),
    /// What depends on what the caller may call.
    OfCaller(&'a Documents),
}

impl Documentation {
    /// The documentation of a catalogue.
    #[must_use]
    pub fn new(catalogue: &Arc<Catalogue>, access: DocumentationAccess) -> Option<Self> {
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
        let documents = Documents::new(Arc::clone(catalogue));
        let document = match access {
            DocumentationAccess::Off => return None,
            DocumentationAccess::Public => Document::Whole(documents.whole()),
            DocumentationAccess::Authenticated => Document::OfCallers(Box::new(documents)),
        };
        // Base64 and fixed text are always a header value.
        let policy = HeaderValue::try_from(policy)
            .unwrap_or(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
        Some(Self { page: page.into(), document, policy })
    }

    /// What is served at a path, if anything is.
    #[must_use]
    pub fn page(&self, method: &Method, path: &str) -> Option<Page<'_>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        match (path, &self.document) {
            // It tells nothing: it asks for the document with the credential that a person gives it.
            ("/docs", _) => {
                let mut response = response(&self.page, "text/html; charset=utf-8");
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
                Some(Page::Same(response))
            }
            ("/openapi.json", Document::Whole(document)) => {
                Some(Page::Same(response(document, JSON)))
            }
            ("/openapi.json", Document::OfCallers(documents)) => Some(Page::OfCaller(documents)),
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

impl Documents {
    fn new(catalogue: Arc<Catalogue>) -> Self {
        let mut kinds: Vec<Auth> = Vec::new();
        let of_endpoints = catalogue.endpoints().iter().map(|endpoint| {
            kinds.iter().position(|kind| *kind == endpoint.auth).unwrap_or_else(|| {
                kinds.push(endpoint.auth.clone());
                kinds.len() - 1
            })
        });
        let of_endpoints = of_endpoints.collect();
        let made = Mutex::new(Generations::new(1));
        let mut documents = Self { catalogue, kinds, of_endpoints, made };
        // None is larger than the whole.
        let bytes = documents.whole().len().max(1);
        let most = (DOCUMENT_BYTES_MAX / bytes).clamp(2, DOCUMENTS_MAX);
        documents.made = Mutex::new(Generations::new(most / 2));
        documents
    }

    /// Who may call, of all endpoints.
    #[must_use]
    pub fn kinds(&self) -> &[Auth] {
        &self.kinds
    }

    /// What a caller reads of the endpoints that it may call.
    #[must_use]
    pub fn of(&self, allowed: &Allowed) -> Response {
        let kinds = &allowed.kinds;
        let document = self.kept(kinds).unwrap_or_else(|| {
            // Some milliseconds for a thousand endpoints.
            let made = self.make(kinds);
            self.keep(kinds, &made);
            made
        });
        let mut response = response(&document, JSON);
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        headers.insert(header::VARY, VARY);
        response
    }

    fn kept(&self, kinds: &[bool]) -> Option<Bytes> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let kinds = kinds.to_vec();
        let found = made.take(&kinds)?;
        made.put(kinds, found.clone(), |_| true);
        Some(found)
    }

    fn keep(&self, kinds: &[bool], document: &Bytes) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.put(kinds.to_vec(), document.clone(), |_| true);
    }

    fn whole(&self) -> Bytes {
        self.make(&vec![true; self.kinds.len()])
    }

    fn make(&self, kinds: &[bool]) -> Bytes {
        let endpoints = self.catalogue.endpoints().iter().zip(&self.of_endpoints);
        let shown = endpoints.filter(|(_, kind)| kinds.get(**kind).is_some_and(|shown| *shown));
        openapi::text(&shown.map(|(endpoint, _)| &**endpoint).collect::<Vec<_>>()).into()
    }
}

impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Documents").field("kinds", &self.kinds.len()).finish_non_exhaustive()
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
    fn the_page_may_run_its_own_script_and_nothing_else() {
        for access in [DocumentationAccess::Public, DocumentationAccess::Authenticated] {
            let documentation = Documentation::new(&catalogue(ONE), access).unwrap();
            let Some(Page::Same(page)) = documentation.page(&Method::GET, "/docs") else {
                panic!("the page is the same for everybody")
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
        assert!(Documentation::new(&catalogue(ONE), DocumentationAccess::Off).is_none());
    }

    #[test]
    fn documents_are_kept_up_to_a_number_of_them() {
        let endpoints = (0..12).map(|number| {
            format!(
                r#""e{number}": {{"route": "GET /e{number}", "procedure": "x.a",
                "auth": {{"methods": ["jwt"], "scopes": ["s{number}"]}}}}"#
            )
        });
        let text = format!("{{{}}}", endpoints.collect::<Vec<_>>().join(","));
        let documents = Documents::new(catalogue(&text));
        assert_eq!(documents.kinds().len(), 12);
        for set in 0..1_u32 << 12 {
            let kinds: Vec<bool> = (0..12).map(|bit| set & (1 << bit) != 0).collect();
            let shown = documents.of(&Allowed { principal: None, kinds: kinds.clone() });
            let body = shown.into_body().into_whole().unwrap();
            let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let paths = document["paths"].as_object().unwrap();
            for (number, is_shown) in kinds.iter().enumerate() {
                assert_eq!(paths.contains_key(&format!("/e{number}")), *is_shown, "{set}");
            }
            assert!(documents.made.lock().unwrap().len() <= DOCUMENTS_MAX);
        }
    }
}
