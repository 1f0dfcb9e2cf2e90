//! `[traces]`: the export of traces.

use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Uri};

use super::limits;
use super::settings::SettingsTable;
use super::tls::ClientTlsConfig;

/// The default path of OTLP/HTTP, used for endpoints without a path.
const PATH: &str = "/v1/traces";

/// The settings for the export of traces.
#[derive(Clone, Debug, PartialEq)]
pub struct TracesConfig {
    /// The full URL to which spans are sent.
    pub url: String,
    /// The headers sent with every export, such as credentials. Their values are marked as
    /// sensitive.
    pub headers: HeaderMap,
    /// TLS settings. `None` is possible only with `insecure_plain_text = true`.
    pub tls: Option<ClientTlsConfig>,
    /// The maximum duration of an export.
    pub timeout: Duration,
    /// The share of requests that are recorded if their callers do not decide this.
    pub sample_ratio: f64,
    /// The callers that decide whether their requests are recorded.
    pub parent_sampling: ParentSampling,
    /// The maximum number of spans that are waiting to be exported. Further spans are dropped.
    pub spans_max: usize,
}

/// The callers whose `sampled` flag in `traceparent` decides whether their requests are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ParentSampling {
    /// No callers.
    Never,
    /// Authenticated callers.
    #[default]
    Authenticated,
    /// All callers.
    Always,
}

const PARENT_SAMPLING: [(&str, ParentSampling); 3] = [
    ("authenticated", ParentSampling::Authenticated),
    ("never", ParentSampling::Never),
    ("always", ParentSampling::Always),
];

impl TracesConfig {
    /// Reads the settings. If no endpoint is set, returns `None` and nothing is recorded.
    pub(super) fn read(table: &mut SettingsTable<'_>) -> Option<Self> {
        let endpoint: Option<String> = table.get("endpoint");
        let plain = table.get_or("insecure_plain_text", false);
        let headers = read_headers(table);
        let tls = table.table("tls", ClientTlsConfig::read);
        let timeout = table.get_limited("timeout", limits::TRACES_TIMEOUT);
        let sample_ratio = table.get_limited("sample_ratio", limits::TRACES_SAMPLE_RATIO);
        let parent_sampling = table
            .get_choice("parent_sampling", &PARENT_SAMPLING, "authenticated")
            .unwrap_or_default();
        let spans_max = table.get_limited("spans_max", limits::TRACES_SPANS_MAX);
        if plain && table.has("tls") {
            let expected = "conflicts with [traces.tls]: remove one of them";
            table.error("insecure_plain_text", expected.to_owned());
        }
        let endpoint = endpoint?;
        if plain {
            table.warn("insecure_plain_text", "traces are sent without TLS");
        }
        let scheme = if plain { "http" } else { "https" };
        let url = url(&endpoint, scheme);
        if url.is_none() {
            let plain =
                if plain { "" } else { " (http:// needs traces.insecure_plain_text = true)" };
            let expected = format!(
                "expected {scheme}:// and a host, optionally a port of 1 to 65535, and no user, password, query or \
                 fragment{plain}"
            );
            table.error("endpoint", expected);
        }
        let tls = (!plain).then_some(tls);
        Some(Self { url: url?, headers, tls, timeout, sample_ratio, parent_sampling, spans_max })
    }
}

/// Returns the URL of an endpoint. If the endpoint has no path, the default path is added.
fn url(endpoint: &str, scheme: &str) -> Option<String> {
    let uri = Uri::try_from(endpoint).ok().filter(|uri| uri.scheme_str() == Some(scheme))?;
    let authority = uri.authority()?;
    let has_port = authority.as_str().len() > authority.host().len();
    let is_good = !authority.host().is_empty() && !endpoint.contains('#');
    // The URL is logged, so it must not contain a query or a password. Both may be secret.
    if !is_good || authority.as_str().contains('@') || uri.query().is_some() {
        return None;
    }
    if has_port && authority.port_u16().is_none_or(|port| port == 0) {
        return None;
    }
    let path = if uri.path() == "/" { PATH } else { uri.path() };
    Some(format!("{scheme}://{authority}{path}"))
}

/// Reads the headers from lines of the form `name=value`.
fn read_headers(table: &mut SettingsTable<'_>) -> HeaderMap {
    let Some(secret) = table.get_secret("headers") else { return HeaderMap::new() };
    let header = |line: &str| {
        let (name, value) = line.split_once('=')?;
        let mut value = HeaderValue::try_from(value.trim()).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::try_from(name.trim()).ok()?, value))
    };
    let lines = secret.expose().lines().filter(|line| !line.trim().is_empty());
    let headers: Option<HeaderMap> = lines.map(header).collect();
    if headers.is_none() {
        table.error("headers", "expected lines of name=value, each an HTTP header".to_owned());
    }
    headers.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_a_path_gets_the_default_path_of_otlp() {
        let check = |endpoint, scheme, expected: Option<&str>| {
            assert_eq!(url(endpoint, scheme).as_deref(), expected, "{endpoint}");
        };
        check("https://a.example:4318", "https", Some("https://a.example:4318/v1/traces"));
        check("https://a.example/", "https", Some("https://a.example/v1/traces"));
        check("https://a.example/otlp/x", "https", Some("https://a.example/otlp/x"));
        check("http://127.0.0.1:4318", "http", Some("http://127.0.0.1:4318/v1/traces"));
        for bad in [
            "http://a.example",
            "https://u:p@a.example",
            "https://a.example/?key=1",
            "a",
            "https://a:99999",
            "https://a:x",
            "https://:4318",
            "https://a:0",
            "https://a/#b",
        ] {
            check(bad, "https", None);
        }
    }
}
