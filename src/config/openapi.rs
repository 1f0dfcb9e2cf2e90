//! `[openapi]`: the title, version and servers in the `OpenAPI` document, and descriptions of its tags.

use http::Uri;

use super::settings::SettingsTable;
use crate::catalogue::openapi::{ApiInfo, TITLE_DEFAULT, VERSION_DEFAULT};

pub(super) fn read(table: &mut SettingsTable<'_>) -> ApiInfo {
    let info = ApiInfo {
        title: table.get_or("title", TITLE_DEFAULT.to_owned()),
        version: table.get_or("version", VERSION_DEFAULT.to_owned()),
        description: table.get("description"),
        servers: table.get_or("servers", Vec::new()),
        tags: table.named_texts("tags"),
    };
    for (key, text) in [("title", &info.title), ("version", &info.version)] {
        if text.trim().is_empty() {
            table.error(key, "expected non-empty text".to_owned());
        }
    }
    if let Some(wrong) = info.servers.iter().find(|url| !is_server(url)) {
        let expected = format!(
            "{wrong:?}: expected a URL such as \"https://api.example\", or a path such as \"/\", without query or fragment"
        );
        table.error("servers", expected);
    }
    info
}

/// Returns whether a text can precede the paths of endpoints, which begin with a slash.
fn is_server(url: &str) -> bool {
    if url.contains(['?', '#', '@']) {
        return false;
    }
    let Ok(uri) = url.parse::<Uri>() else { return false };
    match uri.scheme_str() {
        Some(scheme) => matches!(scheme, "https" | "http") && uri.host().is_some(),
        None => url.starts_with('/'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_url_or_a_path() {
        for good in [
            "https://api.example",
            "https://api.example:8443/base",
            "http://[::1]:80",
            "/",
            "/base",
        ] {
            assert!(is_server(good), "{good}");
        }
        for bad in [
            "",
            "api.example",
            "ftp://api.example",
            "https://",
            "https://a.example?x=1",
            "https://u@a.example",
        ] {
            assert!(!is_server(bad), "{bad}");
        }
    }
}
