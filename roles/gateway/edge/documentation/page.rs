//! The page at `/docs`: Swagger UI, with a list of tags and a search field. The page requests nothing from other hosts.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderValue, header};

use super::VALIDATE;
use crate::roles::gateway::edge::compression::stored_body::{StoredBody, StoredBodyRequest};
use crate::roles::gateway::response::Response;

/// Swagger UI. `build.rs` takes the files of Swagger UI from the crate `utoipa-swagger-ui-vendored`, and stores them as
/// gzip files.
const SWAGGER_SCRIPT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.js.gz"));
const SWAGGER_STYLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.gz"));
const SWAGGER_LICENSE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.license.gz"));
/// The notices of the libraries in Swagger UI's script: `swagger-ui-bundle.js.LICENSE.txt` from the same version of the
/// npm package `swagger-ui-dist`. The crate does not contain this file.
const SWAGGER_NOTICES: &str = include_str!("swagger-ui.notices.txt");
const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("page.css");

const HTML_TYPE: &str = "text/html; charset=utf-8";
const SCRIPT_TYPE: &str = "text/javascript; charset=utf-8";
const STYLE_TYPE: &str = "text/css; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// `Cache-Control` for files whose names change with their content.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// Allows only the page's own files, requests to the same origin, and the icons in Swagger UI's style sheet.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; connect-src 'self'; style-src 'self'; script-src 'self'; img-src data:; \
     frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
);

/// The page and its files, which are the same for every catalogue.
#[derive(Debug)]
pub(super) struct Page {
    html: StoredBody,
    assets: Vec<PageAsset>,
}

/// A file of the page.
#[derive(Debug)]
struct PageAsset {
    name: String,
    media_type: &'static str,
    body: StoredBody,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let gzip = |bytes: &'static [u8]| StoredBody::from_gzip(Bytes::from_static(bytes));
    let assets = vec![
        PageAsset::new("swagger-ui", "css", STYLE_TYPE, gzip(SWAGGER_STYLE)),
        PageAsset::new("page", "css", STYLE_TYPE, compress(STYLE)),
        PageAsset::new("swagger-ui", "js", SCRIPT_TYPE, gzip(SWAGGER_SCRIPT)),
        PageAsset::new("page", "js", SCRIPT_TYPE, compress(SCRIPT)),
        PageAsset::new("swagger-ui-license", "txt", TEXT_TYPE, gzip(SWAGGER_LICENSE)),
        PageAsset::new("swagger-ui-notices", "txt", TEXT_TYPE, compress(SWAGGER_NOTICES)),
    ];
    Page { html: compress(&html(&assets)), assets }
});

/// Compresses text.
fn compress(text: &str) -> StoredBody {
    let stored = StoredBody::write(|out| out.write_all(text.as_bytes()));
    // Writing to memory does not fail.
    stored.unwrap_or_else(|_| StoredBody::from_gzip(Bytes::new()))
}

/// Returns the page. Its links are relative, so that the page also works below a path that a proxy removes.
fn html(assets: &[PageAsset]) -> String {
    let links = assets.iter().map(|PageAsset { name, media_type, .. }| match *media_type {
        STYLE_TYPE => format!("<link rel=\"stylesheet\" href=\"docs/{name}\">\n"),
        SCRIPT_TYPE => format!("<script defer src=\"docs/{name}\"></script>\n"),
        _ => format!("<link rel=\"license\" href=\"docs/{name}\">\n"),
    });
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>API</title>\n<link rel=\"icon\" href=\"data:,\">\n{}</head>\n<body>\n\
         <nav aria-label=\"Operations\">\n<input id=\"search\" type=\"search\" placeholder=\"Search\" \
         aria-label=\"Search operations\" autocomplete=\"off\" spellcheck=\"false\">\n\
         <ul id=\"tags\"></ul>\n</nav>\n<main>\n<p id=\"note\" role=\"status\">Loading …</p>\n\
         <div id=\"swagger-ui\"></div>\n<button id=\"more\" type=\"button\" hidden>Show more</button>\n</main>\n<noscript>This page needs JavaScript. The API's OpenAPI \
         document is at <a href=\"openapi.json\">openapi.json</a>.</noscript>\n</body>\n</html>\n",
        links.collect::<String>()
    )
}

impl Page {
    /// Returns the page of this process.
    pub(super) fn get() -> &'static Self {
        &PAGE
    }

    /// Returns the response to a request for the page.
    pub(super) fn response(&self, request: StoredBodyRequest<'_>) -> Response {
        let mut response = self.html.cacheable_response(request, HTML_TYPE, VALIDATE);
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY);
        response
    }

    /// Returns whether the page has a file with this name.
    pub(super) fn has_asset(&self, name: &str) -> bool {
        self.assets.iter().any(|asset| asset.name == name)
    }

    /// Returns the response to a request for a file of the page, or `None` if there is no file with this name.
    pub(super) fn asset(&self, name: &str, request: StoredBodyRequest<'_>) -> Option<Response> {
        let asset = self.assets.iter().find(|asset| asset.name == name)?;
        Some(asset.body.cacheable_response(request, asset.media_type, IMMUTABLE))
    }
}

impl PageAsset {
    fn new(name: &str, extension: &str, media_type: &'static str, body: StoredBody) -> Self {
        Self { name: format!("{name}-{}.{extension}", body.hash()), media_type, body }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::config::gateway::Coding;

    fn request(headers: &HeaderMap) -> StoredBodyRequest<'_> {
        StoredBodyRequest { headers, codings: &Coding::ALL }
    }

    #[test]
    fn the_policy_allows_only_the_files_of_the_page() {
        let page = Page::get().response(request(&HeaderMap::new()));
        let policy = page.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        for part in ["frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"] {
            assert!(policy.contains(part), "{policy}");
        }
    }

    #[test]
    fn the_notices_are_those_of_the_embedded_script() {
        let script = StoredBody::from_gzip(Bytes::from_static(SWAGGER_SCRIPT));
        assert_eq!(
            script.hash(),
            "-f6HEYppLXBX",
            "after an update of Swagger UI, replace swagger-ui.notices.txt and the end of NOTICE"
        );
        assert!(include_str!("../../../../NOTICE").ends_with(SWAGGER_NOTICES));
    }

    #[test]
    fn the_page_names_existing_files_relative_to_itself() {
        let (page, none) = (Page::get(), HeaderMap::new());
        let html = html(&page.assets);
        let links = html.split(['"', '\'']).filter(|text| text.starts_with("docs/"));
        let mut found = 0;
        for link in links {
            let asset = page.asset(link.strip_prefix("docs/").unwrap(), request(&none)).unwrap();
            assert_eq!(asset.status(), StatusCode::OK);
            assert_eq!(asset.headers()["cache-control"], IMMUTABLE);
            found += 1;
        }
        assert_eq!(found, page.assets.len());
        assert!(!html.contains("=\"/") && !html.contains("://"), "{html}");
        assert!(page.asset("page.js", request(&none)).is_none());
    }
}
