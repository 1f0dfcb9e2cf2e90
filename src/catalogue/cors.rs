//! Cross-origin resource sharing (CORS, Fetch standard). Its rules decide which pages from other origins may call an
//! endpoint.

use std::time::Duration;

use http::{HeaderName, HeaderValue, header};

use super::auth::{Auth, AuthMethod};
use super::parameter::{Parameter, ParameterSource};

/// The default time for which a browser may cache a preflight response.
pub const MAX_AGE_DEFAULT: Duration = Duration::from_mins(10);
/// The largest `max_age`. No browser caches a preflight response for more than a day.
const MAX_AGE_CEILING: Duration = Duration::from_hours(24);

/// The response headers that fjord sets and that every page may read.
const EXPOSED: [&str; 8] = [
    "x-request-id",
    "retry-after",
    "ratelimit",
    "ratelimit-policy",
    "deprecation",
    "proxy-status",
    "server-timing",
    "www-authenticate",
];
/// The request headers that every endpoint uses and that every page may send.
const ALLOWED: [&str; 4] = ["idempotency-key", "x-request-id", "traceparent", "tracestate"];

/// The CORS settings of one endpoint, or the defaults for all endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorsSettings {
    /// The allowed origins, or only `*`. If empty, no other origin may call the endpoint.
    pub origins: Vec<String>,
    /// Headers that a page may send in addition to those that the endpoint uses.
    pub headers: Vec<String>,
    /// Headers that a page may read in addition to those that fjord sets.
    pub exposed_headers: Vec<String>,
    /// Whether the browser presents a client certificate.
    pub credentials: bool,
    /// The time for which a browser may cache a preflight response.
    pub max_age: Duration,
}

impl CorsSettings {
    /// Returns all errors, each with its key.
    #[must_use]
    pub fn errors(&self) -> Vec<(&'static str, String)> {
        let mut errors = Vec::new();
        let any = self.origins.iter().any(|origin| origin == "*");
        if any && self.origins.len() > 1 {
            errors.push(("origins", "expected \"*\" alone, or a list of origins".to_owned()));
        }
        if any && self.credentials {
            let expected = "expected a list of origins instead of \"*\", because any web page could act on behalf of its visitors";
            errors.push(("credentials", expected.to_owned()));
        }
        for origin in self.origins.iter().filter(|origin| *origin != "*" && !is_origin(origin)) {
            let expected = "expected an origin as browsers send it, such as \"https://app.example\": scheme, host, \
                            and the port if it is not the scheme's default, in lower case, without a path";
            errors.push(("origins", format!("{origin:?}: {expected}")));
        }
        for (key, names) in [("headers", &self.headers), ("exposed_headers", &self.exposed_headers)]
        {
            for name in names.iter().filter(|name| HeaderName::try_from(*name).is_err()) {
                errors.push((key, format!("{name:?}: expected the name of a header")));
            }
        }
        if self.max_age > MAX_AGE_CEILING {
            errors.push(("max_age", "expected at most 24h".to_owned()));
        }
        errors
    }
}

/// Returns whether a string is an origin as a browser serializes it (RFC 6454 §6.2).
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => "",
    };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
    let is_plain = authority.is_ascii()
        && !authority.bytes().any(|b| b.is_ascii_uppercase() || b"@/?#*\\".contains(&b));
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|number| number.to_string() == port);
    let has_host = authority.parse::<http::uri::Authority>().is_ok_and(|parsed| {
        let port = authority.strip_prefix(parsed.host()).unwrap_or_default();
        !parsed.host().is_empty()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
    });
    let has_default_port = !default_port.is_empty() && authority.ends_with(default_port);
    is_scheme && is_plain && has_host && !has_default_port
}

/// The headers that an endpoint uses because of its keys. Their names are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UsedHeaders {
    /// Request headers, which pages may send.
    pub(super) request: Vec<&'static str>,
    /// Response headers, which pages may read.
    pub(super) response: Vec<&'static str>,
}

/// The CORS rules of one endpoint, with the values of its response headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsRules {
    origins: Vec<HeaderValue>,
    /// Whether the browser presents a client certificate.
    pub credentials: bool,
    /// `Access-Control-Allow-Headers`.
    pub allow_headers: HeaderValue,
    /// `Access-Control-Expose-Headers`.
    pub expose_headers: HeaderValue,
    /// `Access-Control-Max-Age`.
    pub max_age: HeaderValue,
}

impl CorsRules {
    /// Returns the rules of an endpoint, given its parameters, its `auth` and the other headers that it uses. Returns `None` if
    /// no other origin may call it.
    pub(super) fn new(
        cors: &CorsSettings,
        parameters: &[Parameter],
        auth: &Auth,
        used: &UsedHeaders,
    ) -> Option<Self> {
        if cors.origins.is_empty() {
            return None;
        }
        let mut allowed = ALLOWED.map(ToOwned::to_owned).to_vec();
        if parameters.iter().any(|parameter| parameter.source == ParameterSource::Body) {
            allowed.push("content-type".to_owned());
        }
        let headers = parameters.iter().filter(|p| p.source == ParameterSource::Header);
        allowed.extend(headers.map(|parameter| parameter.name.to_string()));
        if let Auth::Required { methods, .. } = auth {
            let takes_api_keys = methods.contains(&AuthMethod::ApiKey);
            if takes_api_keys || methods.contains(&AuthMethod::Jwt) {
                allowed.push(header::AUTHORIZATION.to_string());
            }
            allowed.extend(takes_api_keys.then(|| "x-api-key".to_owned()));
        }
        allowed.extend(used.request.iter().map(|name| (*name).to_owned()));
        allowed.extend_from_slice(&cors.headers);
        let mut exposed = EXPOSED.map(ToOwned::to_owned).to_vec();
        exposed.extend(used.response.iter().map(|name| (*name).to_owned()));
        exposed.extend_from_slice(&cors.exposed_headers);
        Some(Self {
            origins: cors
                .origins
                .iter()
                .filter_map(|text| HeaderValue::from_str(text).ok())
                .collect(),
            credentials: cors.credentials,
            allow_headers: join(allowed)?,
            expose_headers: join(exposed)?,
            max_age: HeaderValue::from(cors.max_age.as_secs()),
        })
    }

    /// Returns the rules for responses that do not belong to an endpoint, such as the documentation, or `None` if no other
    /// origin may read them.
    #[must_use]
    pub fn without_endpoint(cors: &CorsSettings) -> Option<Self> {
        Self::new(
            cors,
            &[],
            &Auth::Required {
                methods: AuthMethod::ALL.to_vec(),
                scopes: Vec::new(),
                issuers: Vec::new(),
            },
            &UsedHeaders::default(),
        )
    }

    /// Returns the value of `Access-Control-Allow-Origin` for an origin, or `None` if that origin may not call the endpoint.
    #[must_use]
    pub fn allows(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        self.origins.iter().find(|allowed| *allowed == origin || *allowed == "*").cloned()
    }
}

/// Joins header names and removes duplicates. Joined valid names are always a valid header value.
fn join(names: Vec<String>) -> Option<HeaderValue> {
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
    fn only_origins_as_browsers_send_them_are_accepted() {
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
            ("https://app.example:08443", false),
            ("https://žluť.example", false),
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
    fn unsafe_or_meaningless_settings_are_errors() {
        let cors = CorsSettings {
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
        let any = CorsSettings { origins: vec!["*".into()], ..CorsSettings::default() };
        assert_eq!(any.errors(), Vec::new());
    }
}
