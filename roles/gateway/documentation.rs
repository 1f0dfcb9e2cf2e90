//! `/openapi.json`, and `/docs`: a page that a person can read and try. Both made once for each catalogue.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Method, header};

use crate::catalogue::{Catalogue, openapi};

use super::respond::Response;

/// The page's style and script stand in it: nothing is fetched but the document itself.
const STYLE: &str = include_str!("documentation/page.css");
const SCRIPT: &str = include_str!("documentation/page.js");

/// Where it is served.
pub const PATHS: [&str; 2] = ["/openapi.json", "/docs"];

/// What is served about a catalogue. An endpoint of the same path comes first.
#[derive(Debug)]
pub struct Documentation {
    document: Bytes,
    page: Bytes,
    /// Lets the page run its own script and style, and nothing else.
    policy: HeaderValue,
}

impl Documentation {
    /// The documentation of a catalogue.
    #[must_use]
    pub fn of(catalogue: &Catalogue) -> Self {
        let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
        let policy = format!(
            "default-src 'none'; connect-src 'self'; style-src 'sha256-{}'; script-src 'sha256-{}'",
            hash(STYLE),
            hash(SCRIPT)
        );
        let page = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>API</title>\
             <style>{STYLE}</style><body><main></main><script>{SCRIPT}</script></body></html>"
        );
        Self {
            document: openapi::text(catalogue).into(),
            page: page.into(),
            // Base64 and fixed text are always a header value.
            policy: HeaderValue::try_from(policy)
                .unwrap_or(HeaderValue::from_static("default-src 'none'")),
        }
    }

    /// The page at a path, if there is one.
    #[must_use]
    pub fn page(&self, method: &Method, path: &str) -> Option<Response> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        let (body, media_type) = match path {
            "/openapi.json" => (&self.document, "application/json"),
            "/docs" => (&self.page, "text/html; charset=utf-8"),
            _ => return None,
        };
        let mut response = Response::new(body.clone().into());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        Some(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::load_toml;

    #[test]
    fn the_page_may_run_its_own_script_and_nothing_else() {
        let config = load_toml("[catalogue]\n").catalogue;
        let text = r#"{"a": {"route": "GET /a", "procedure": "x.a", "auth": "public"}}"#;
        let catalogue = crate::catalogue::load::parse(&[("a.json", text)], &config).unwrap();
        let documentation = Documentation::of(&catalogue);
        let page = documentation.page(&Method::GET, "/docs").unwrap();
        let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(documentation.page(&Method::GET, "/openapi.json").is_some());
        assert!(documentation.page(&Method::POST, "/docs").is_none());
        assert!(documentation.page(&Method::GET, "/other").is_none());
    }
}
