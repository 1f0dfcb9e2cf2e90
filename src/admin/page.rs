//! The page at `/`, which shows the fleet. It displays the data from `/fleet.json` and requests nothing from other
//! hosts.

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{AdminResponse, response, text};

/// The chart library: `dist/uPlot.iife.min.js` and `dist/uPlot.min.css` of the npm package `uplot`, version 1.6.32
/// (MIT), unchanged.
const UPLOT_SCRIPT: &[u8] = include_bytes!("page/uplot.min.js");
const UPLOT_STYLE: &[u8] = include_bytes!("page/uplot.min.css");
const UPLOT_LICENSE: &[u8] = include_bytes!("page/uplot.license.txt");
const HTML: &[u8] = include_bytes!("page/page.html");

const SCRIPT_TYPE: &str = "text/javascript; charset=utf-8";
const STYLE_TYPE: &str = "text/css; charset=utf-8";

/// The files of the page, each with its name, media type and content.
const FILES: [(&str, &str, &[u8]); 7] = [
    ("page.js", SCRIPT_TYPE, include_bytes!("page/page.js")),
    ("charts.js", SCRIPT_TYPE, include_bytes!("page/charts.js")),
    ("tables.js", SCRIPT_TYPE, include_bytes!("page/tables.js")),
    ("page.css", STYLE_TYPE, include_bytes!("page/page.css")),
    ("uplot.js", SCRIPT_TYPE, UPLOT_SCRIPT),
    ("uplot.css", STYLE_TYPE, UPLOT_STYLE),
    ("uplot-license.txt", "text/plain; charset=utf-8", UPLOT_LICENSE),
];
/// The path below which the files are served. Links to them are relative, so that the page also works below a path that
/// a proxy strips.
const FILES_PATH: &str = "/page/";
/// Permits only the page's own files and requests to the same origin.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; connect-src 'self'; style-src 'self'; script-src 'self'; img-src data:; \
     frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
);
/// The header that every request for data must have. Its value does not matter.
const PAGE_HEADER: &str = "fjord-page";
const WITHOUT_HEADER: &str = "the header Fjord-Page is missing: only the page at / may request this data \
    (use fjord status --json instead)\n";
/// The key in the query string of `/fleet.json` that selects a queue.
const QUEUE_KEY: &str = "queue=";

/// Returns the page.
pub(super) fn html() -> AdminResponse {
    let mut page = response(StatusCode::OK, "text/html; charset=utf-8", HTML);
    let headers = page.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    page
}

/// Returns the page's file at a path, if there is one.
pub(super) fn file(path: &str) -> Option<AdminResponse> {
    let wanted = path.strip_prefix(FILES_PATH)?;
    let (_, media_type, content) = FILES.iter().find(|(name, ..)| *name == wanted)?;
    Some(response(StatusCode::OK, media_type, *content))
}

/// Returns the data of the page if the request has the header that only the page sends. For a page of another site, a
/// browser uses a CORS preflight to ask whether the page may send this header. This listener never permits that.
/// Without this rule, such a page could not read the answer, but it could make this process query the fleet.
pub(super) fn data(
    headers: &HeaderMap,
    query: Option<&str>,
    source: &dyn Fn(Option<&str>) -> Vec<u8>,
) -> AdminResponse {
    if !headers.contains_key(PAGE_HEADER) {
        return text(StatusCode::FORBIDDEN, WITHOUT_HEADER);
    }
    let queue = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix(QUEUE_KEY));
    let queue = queue.map(|queue| percent_encoding::percent_decode_str(queue).decode_utf8_lossy());
    response(StatusCode::OK, "application/json", source(queue.as_deref()))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, digest};

    use super::*;

    #[test]
    fn the_page_names_all_its_files_relative_to_itself() {
        let html = str::from_utf8(HTML).unwrap();
        let links: Vec<&str> = html.split('"').filter(|text| text.starts_with("page/")).collect();
        assert_eq!(links.len(), FILES.len(), "{links:?}");
        for link in links {
            let found = file(&format!("/{link}")).unwrap();
            assert_eq!(found.headers()["x-content-type-options"], "nosniff", "{link}");
        }
        assert!(!html.contains("=\"/") && !html.contains("://"), "{html}");
        assert!(!html.contains("style=") && !html.contains("<script>"), "the policy forbids both");
        assert!(file("/page/other.js").is_none() && file("/page.js").is_none());
    }

    #[test]
    fn the_policy_allows_only_the_files_of_the_page() {
        let page = html();
        let policy = page.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        for part in ["frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"] {
            assert!(policy.contains(part), "{policy}");
        }
    }

    #[test]
    fn the_files_of_uplot_are_unchanged_and_their_license_is_in_the_notice() {
        let hash = |bytes| {
            let add = |text, byte: &u8| format!("{text}{byte:02x}");
            digest(&SHA256, bytes).as_ref().iter().fold(String::new(), add)
        };
        let update = "after an update of uPlot, also change its version here and in NOTICE";
        assert_eq!(
            hash(UPLOT_SCRIPT),
            "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
            "{update}"
        );
        assert_eq!(
            hash(UPLOT_STYLE),
            "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
            "{update}"
        );
        let script = str::from_utf8(UPLOT_SCRIPT).unwrap();
        assert!(script.starts_with("/*! https://github.com/leeoniya/uPlot (v1.6.32) */"));
        let notice = include_str!("../../NOTICE");
        assert!(notice.contains("uPlot 1.6.32"), "{update}");
        assert!(notice.contains(str::from_utf8(UPLOT_LICENSE).unwrap().trim()), "{update}");
    }

    #[test]
    fn only_the_page_itself_can_start_the_collection() {
        let source = |_: Option<&str>| -> Vec<u8> { panic!("the data is not collected") };
        let mut headers = HeaderMap::new();
        // A browser may omit `Sec-Fetch-Site`, or may consider the request not to be cross-site.
        for site in [None, Some("none"), Some("same-origin"), Some("cross-site")] {
            headers.clear();
            if let Some(site) = site {
                headers.insert("sec-fetch-site", HeaderValue::from_static(site));
            }
            assert_eq!(data(&headers, None, &source).status(), StatusCode::FORBIDDEN, "{site:?}");
        }
        headers.insert(PAGE_HEADER, HeaderValue::from_static("1"));
        let source = |queue: Option<&str>| format!("{queue:?}").into_bytes();
        assert_eq!(data(&headers, None, &source).status(), StatusCode::OK);
        let script = str::from_utf8(FILES[0].2).unwrap();
        assert!(script.contains(r#"fetch(`fleet.json${query}`, { headers: { "Fjord-Page": "1" }"#));
    }

    #[test]
    fn the_queue_is_decoded() {
        let seen = std::cell::RefCell::new(None);
        let source = |queue: Option<&str>| {
            *seen.borrow_mut() = queue.map(ToOwned::to_owned);
            Vec::new()
        };
        let mut headers = HeaderMap::new();
        headers.insert(PAGE_HEADER, HeaderValue::from_static("1"));
        for (query, queue) in [
            (None, None),
            (Some(""), None),
            (Some("other=1"), None),
            (Some("queue=a"), Some("a")),
            (Some("other=1&queue=a%20b%3C%ff"), Some("a b<\u{fffd}")),
        ] {
            let _response = data(&headers, query, &source);
            assert_eq!(seen.borrow().as_deref(), queue, "{query:?}");
        }
    }
}
