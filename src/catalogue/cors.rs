//! Which web pages of other origins a browser lets call an endpoint (CORS, as in the Fetch standard).

use std::time::Duration;

use http::{HeaderName, HeaderValue, header};

use super::endpoint::{Auth, AuthMethod};
use super::parameter::{Parameter, Place};

/// How long a browser may remember a preflight's answer unless the catalogue says otherwise.
pub const MAX_AGE_DEFAULT: Duration = Duration::from_mins(10);
/// Longest such time: no browser remembers it longer than a day.
pub const MAX_AGE_CEILING: Duration = Duration::from_hours(24);

/// What a page may always read: the headers that our answers have.
const EXPOSED: [&str; 7] = [
    "x-request-id",
    "retry-after",
    "ratelimit",
    "ratelimit-policy",
    "deprecation",
    "server-timing",
    "www-authenticate",
];
/// What a page may always send: the headers that every endpoint takes.
const ALLOWED: [&str; 4] = ["idempotency-key", "x-request-id", "traceparent", "tracestate"];

/// What was written about other origins, for one endpoint or as the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// The origins, or `*` alone; none: no other origin.
    pub origins: Vec<String>,
    /// Headers that a page may send, beside those that the endpoint takes.
    pub headers: Vec<String>,
    /// Headers that a page may read, beside those that our answers have.
    pub exposed_headers: Vec<String>,
    /// Whether a page may use the browser's own credentials: client certificates.
    pub credentials: bool,
    /// How long a browser may remember a preflight's answer.
    pub max_age: Duration,
}

impl Cors {
    /// Every error in it, with the key it stands at.
    #[must_use]
    pub fn errors(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let any = self.origins.iter().any(|origin| origin == "*");
        if any && self.origins.len() > 1 {
            found.push(("origins", "expected \"*\" alone, or a list of origins".to_owned()));
        }
        if any && self.credentials {
            let expected = "expected origins by name instead of \"*\": every web page could act for its visitor";
            found.push(("credentials", expected.to_owned()));
        }
        for origin in self.origins.iter().filter(|origin| *origin != "*" && !is_origin(origin)) {
            let expected = "expected an origin as browsers send it, such as \"https://app.example\": scheme, host and \
                            any port but the scheme's own, in lower case, without a path";
            found.push(("origins", format!("{origin:?}: {expected}")));
        }
        for (key, names) in [("headers", &self.headers), ("exposed_headers", &self.exposed_headers)]
        {
            for name in names.iter().filter(|name| HeaderName::try_from(*name).is_err()) {
                found.push((key, format!("{name:?}: expected the name of a header")));
            }
        }
        if self.max_age > MAX_AGE_CEILING {
            found.push(("max_age", "expected 24h at most".to_owned()));
        }
        found
    }
}

/// Whether a text is an origin as a browser writes it (RFC 6454 §6.2).
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let own_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => "",
    };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
    let is_plain = !authority.bytes().any(|b| b.is_ascii_uppercase() || b"@/?#*\\".contains(&b));
    let is_port = |port: &str| port.parse::<u16>().is_ok() && !port.starts_with('+');
    let has_host = authority.parse::<http::uri::Authority>().is_ok_and(|parsed| {
        let port = authority.strip_prefix(parsed.host()).unwrap_or_default();
        !parsed.host().is_empty()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
    });
    let names_own_port = !own_port.is_empty() && authority.ends_with(own_port);
    is_scheme && is_plain && has_host && !names_own_port
}

/// One endpoint's rules, ready to be answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsRules {
    origins: Vec<HeaderValue>,
    /// Whether a page may use the browser's own credentials.
    pub credentials: bool,
    /// `Access-Control-Allow-Headers`.
    pub allow_headers: HeaderValue,
    /// `Access-Control-Expose-Headers`.
    pub expose_headers: HeaderValue,
    /// `Access-Control-Max-Age`.
    pub max_age: HeaderValue,
}

impl CorsRules {
    /// The rules of an endpoint with these parameters and callers, with a dry run or without; `None` when no other origin
    /// may call it.
    pub(super) fn new(
        cors: &Cors,
        (parameters, dry_run): (&[Parameter], bool),
        auth: &Auth,
    ) -> Option<Self> {
        if cors.origins.is_empty() {
            return None;
        }
        let mut allowed = ALLOWED.map(ToOwned::to_owned).to_vec();
        if parameters.iter().any(|parameter| parameter.place == Place::Body) {
            allowed.push("content-type".to_owned());
        }
        let headers = parameters.iter().filter(|parameter| parameter.place == Place::Header);
        allowed.extend(headers.map(|parameter| parameter.name.to_string()));
        if let Auth::Required { methods, .. } = auth {
            let keys = methods.contains(&AuthMethod::ApiKey);
            if keys || methods.contains(&AuthMethod::Jwt) {
                allowed.push(header::AUTHORIZATION.to_string());
            }
            allowed.extend(keys.then(|| "x-api-key".to_owned()));
        }
        allowed.extend(dry_run.then(|| "prefer".to_owned()));
        allowed.extend_from_slice(&cors.headers);
        let mut exposed = EXPOSED.map(ToOwned::to_owned).to_vec();
        exposed.extend(dry_run.then(|| "preference-applied".to_owned()));
        exposed.extend_from_slice(&cors.exposed_headers);
        Some(Self {
            origins: cors
                .origins
                .iter()
                .filter_map(|text| HeaderValue::from_str(text).ok())
                .collect(),
            credentials: cors.credentials,
            allow_headers: list(allowed)?,
            expose_headers: list(exposed)?,
            max_age: HeaderValue::from(cors.max_age.as_secs()),
        })
    }

    /// What `Access-Control-Allow-Origin` says to this origin; nothing when it may not call.
    #[must_use]
    pub fn allows(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        self.origins.iter().find(|allowed| *allowed == origin || *allowed == "*").cloned()
    }
}

/// Names joined, each once. Checked names are always a header's value.
fn list(names: Vec<String>) -> Option<HeaderValue> {
    let mut seen: Vec<String> = Vec::with_capacity(names.len());
    for name in names.into_iter().map(|name| name.to_ascii_lowercase()) {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    HeaderValue::try_from(seen.join(", ")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_send_it() {
        for (origin, expected) in [
            ("https://app.example", true),
            ("https://app.example:8443", true),
            ("http://localhost:3000", true),
            ("http://127.0.0.1:443", true),
            ("https://[2001:db8::1]:8443", true),
            ("capacitor://localhost", true),
            ("https://app.example/", false),
            ("https://app.example:443", false),
            ("http://app.example:80", false),
            ("https://App.example", false),
            ("HTTPS://app.example", false),
            ("https://*.example", false),
            ("https://user@app.example", false),
            ("https://app.example:x", false),
            ("https://app.example:", false),
            ("https://app.example?x", false),
            ("https://", false),
            ("app.example", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(is_origin(origin), expected, "{origin}");
        }
    }

    #[test]
    fn what_is_unsafe_or_meaningless_is_an_error() {
        let cors = Cors {
            origins: vec!["*".into(), "null".into()],
            headers: vec!["x y".into()],
            exposed_headers: vec![String::new()],
            credentials: true,
            max_age: MAX_AGE_CEILING + Duration::from_secs(1),
        };
        let keys: Vec<_> = cors.errors().into_iter().map(|(key, _)| key).collect();
        let expected =
            ["origins", "credentials", "origins", "headers", "exposed_headers", "max_age"];
        assert_eq!(keys, expected);
        let any = Cors { origins: vec!["*".into()], ..Cors::default() };
        assert_eq!(any.errors(), Vec::new());
    }
}
