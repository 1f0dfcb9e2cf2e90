//! `[auth]`: authentication of callers.

use std::collections::BTreeMap;

use chrono::DateTime;

use super::settings::SettingsTable;

pub mod issuer;
pub mod san;

pub use issuer::{FetchConfig, IssuerConfig, KeyLocation, KeySource};

/// The credentials that the gateway accepts.
#[derive(Clone, Debug, Default)]
pub struct AuthConfig {
    /// The issuers of JWT bearer tokens, by name.
    pub issuers: BTreeMap<String, IssuerConfig>,
    /// The API keys, by label.
    pub api_keys: BTreeMap<String, ApiKeyConfig>,
    /// The client certificates, keyed by subject alternative name (SAN) with its kind, such as
    /// `dns:…`.
    pub certificates: BTreeMap<String, CertificateConfig>,
}

/// An API key and its caller: `[auth.api_keys.<label>]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyConfig {
    /// The SHA-256 hashes of the accepted keys, in hexadecimal. There are two while a key is being
    /// replaced.
    pub sha256: Vec<String>,
    /// The scopes of the caller.
    pub scopes: Vec<String>,
    /// The Unix time in seconds at which the keys expire, if they expire.
    pub expires_at: Option<i64>,
    /// The caller's claims, for parameters with `in: claim`.
    pub claims: BTreeMap<String, String>,
}

/// The callers whose certificate contains this name: `[auth.certificates."<name>"]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateConfig {
    /// The principal of the callers.
    pub principal: String,
    /// The scopes of the callers.
    pub scopes: Vec<String>,
}

impl AuthConfig {
    pub(super) fn read(table: &mut SettingsTable<'_>) -> Self {
        Self {
            issuers: read_issuers(table),
            api_keys: table.named_tables("api_keys", |_, key| ApiKeyConfig::read(key)),
            certificates: table.named_tables("certificates", |name, each| {
                if let Err(expected) = san::parse(name) {
                    each.error("", expected);
                }
                CertificateConfig {
                    principal: each.get_required("principal"),
                    scopes: each.get_or("scopes", Vec::new()),
                }
            }),
        }
    }
}

fn read_issuers(table: &mut SettingsTable<'_>) -> BTreeMap<String, IssuerConfig> {
    table.table("jwt", |table| {
        let issuers = table.entries_as_tables(issuer::ONE_TABLE_EACH, IssuerConfig::read);
        for (name, key, expected) in issuer::errors(&issuers) {
            // A missing key has already been reported.
            if key.is_empty() || table.has_inside(name, key) || key == "principal_prefix" {
                table.error_inside(name, key, expected);
            }
        }
        issuers
    })
}

impl ApiKeyConfig {
    fn read(table: &mut SettingsTable<'_>) -> Self {
        let sha256 = table.get_hidden_list("sha256");
        let is_hash =
            |text: &String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if sha256.is_empty() || !sha256.iter().all(is_hash) {
            let expected =
                "expected one or more SHA-256 hashes of keys, each as 64 hexadecimal digits";
            table.error("sha256", expected.to_owned());
        }
        Self {
            sha256: sha256.iter().map(|hash| hash.to_ascii_lowercase()).collect(),
            scopes: table.get_or("scopes", Vec::new()),
            expires_at: table.get::<String>("expires_at").and_then(|text| {
                let date = DateTime::parse_from_rfc3339(&text);
                if date.is_err() {
                    let expected = "expected a date and time, e.g. \"2030-01-31T00:00:00Z\"";
                    table.error("expires_at", expected.to_owned());
                }
                date.ok().map(|date| date.timestamp())
            }),
            claims: table.named_texts("claims"),
        }
    }
}
