//! `[auth]`: how callers prove who they are.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use chrono::DateTime;

use super::limits;
use super::settings::Table;
use super::tls::ClientTlsConfig;

/// How callers prove who they are.
#[derive(Clone, Debug, Default)]
pub struct AuthConfig {
    /// JWT bearer tokens.
    pub jwt: Option<JwtConfig>,
    /// API keys by label.
    pub api_keys: BTreeMap<String, ApiKeyConfig>,
    /// Client certificates: subject name (SAN) to principal.
    pub certificates: BTreeMap<String, CertificateConfig>,
}

/// `[auth.jwt]`.
#[derive(Clone, Debug)]
pub struct JwtConfig {
    /// The keys.
    pub keys: KeySource,
    /// The only issuer that is believed.
    pub issuer: String,
    /// The audience that a token must name.
    pub audience: String,
    /// How far clocks may disagree.
    pub leeway: Duration,
    /// The claim that names the principal; `sub`.
    pub principal_claim: String,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A JWKS file, or a PEM public key.
    File(PathBuf),
    /// Where the issuer publishes them.
    Url(KeysUrl),
}

/// How an issuer's keys are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysUrl {
    /// `https://` and a JWKS behind it.
    pub url: String,
    /// Whose certificates are believed.
    pub tls: ClientTlsConfig,
    /// How often they are fetched.
    pub refresh: Duration,
    /// How often a token with an unknown key may make us fetch.
    pub cooldown: Duration,
    /// How long they count when they cannot be fetched any more.
    pub age_max: Duration,
}

/// `[auth.api_keys.<label>]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyConfig {
    /// SHA-256 of the keys in hex: two while they are being exchanged.
    pub sha256: Vec<String>,
    /// Scopes of whoever has one.
    pub scopes: Vec<String>,
    /// From when on the keys are refused (seconds since 1970), when set.
    pub expires_at: Option<i64>,
    /// Claims of whoever has one, for parameters with `in: claim`.
    pub claims: BTreeMap<String, String>,
}

/// `[auth.certificates."<subject>"]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateConfig {
    /// The principal that the subject stands for.
    pub principal: String,
    /// Its scopes.
    pub scopes: Vec<String>,
}

impl AuthConfig {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        Self {
            jwt: table.optional_table("jwt", JwtConfig::read),
            api_keys: table.named_tables("api_keys", |_, key| ApiKeyConfig::read(key)),
            certificates: table.named_tables("certificates", |_, each| CertificateConfig {
                principal: each.need("principal"),
                scopes: each.get_or("scopes", Vec::new()),
            }),
        }
    }
}

impl JwtConfig {
    fn read(table: &mut Table<'_>) -> Self {
        Self {
            keys: KeySource::read(table),
            issuer: table.need("issuer"),
            audience: table.need("audience"),
            leeway: table.limited("leeway", limits::JWT_LEEWAY),
            principal_claim: table.get_or("principal_claim", "sub".to_owned()),
        }
    }
}

impl KeySource {
    fn read(table: &mut Table<'_>) -> Self {
        if !table.has("keys_url") {
            table.require("keys", "a JWKS file or a PEM public key, or keys_url");
            return Self::File(table.file("keys").unwrap_or_default());
        }
        if table.has("keys") {
            table.mistake("keys_url", "expected either keys or keys_url, found both".to_owned());
            table.file("keys");
        }
        let url: String = table.need("keys_url");
        let is_good = http::Uri::try_from(&url).is_ok_and(|uri| {
            let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
            uri.scheme_str() == Some("https") && !authority.is_empty() && !authority.contains('@')
        });
        if !is_good {
            let expected = "expected https:// and a host, without user and password";
            table.mistake("keys_url", expected.to_owned());
        }
        Self::Url(KeysUrl {
            url,
            tls: ClientTlsConfig { ca: table.file("keys_url_ca"), identity: None },
            refresh: table.limited("keys_refresh", limits::JWT_KEYS_REFRESH),
            cooldown: table.limited("keys_cooldown", limits::JWT_KEYS_COOLDOWN),
            age_max: table.limited("keys_age_max", limits::JWT_KEYS_AGE_MAX),
        })
    }
}

impl ApiKeyConfig {
    fn read(table: &mut Table<'_>) -> Self {
        let sha256 = table.hidden_list("sha256");
        let is_hash =
            |text: &String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if sha256.is_empty() || !sha256.iter().all(is_hash) {
            let expected =
                "expected the SHA-256 of each key, 64 hexadecimal digits, and at least one";
            table.mistake("sha256", expected.to_owned());
        }
        Self {
            sha256: sha256.iter().map(|hash| hash.to_ascii_lowercase()).collect(),
            scopes: table.get_or("scopes", Vec::new()),
            expires_at: table.get::<String>("expires_at").and_then(|text| {
                let date = DateTime::parse_from_rfc3339(&text);
                if date.is_err() {
                    let expected = "expected a date and time, e.g. \"2030-01-31T00:00:00Z\"";
                    table.mistake("expires_at", expected.to_owned());
                }
                date.ok().map(|date| date.timestamp())
            }),
            claims: table.named_texts("claims"),
        }
    }
}
