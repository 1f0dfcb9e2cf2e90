//! `[auth]`: how callers prove who they are.

use std::collections::BTreeMap;

use chrono::DateTime;

use super::settings::Table;

pub mod issuer;
pub mod san;

pub use issuer::{FetchConfig, IssuerConfig, KeySource, KeysAt};

/// How callers prove who they are.
#[derive(Clone, Debug, Default)]
pub struct AuthConfig {
    /// Issuers of JWT bearer tokens, by name.
    pub issuers: BTreeMap<String, IssuerConfig>,
    /// API keys by label.
    pub api_keys: BTreeMap<String, ApiKeyConfig>,
    /// Client certificates: a name in them (SAN) with its kind, `dns:…`, to principal.
    pub certificates: BTreeMap<String, CertificateConfig>,
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
            issuers: read_issuers(table),
            api_keys: table.named_tables("api_keys", |_, key| ApiKeyConfig::read(key)),
            certificates: table.named_tables("certificates", |name, each| {
                if let Err(expected) = san::written(name) {
                    each.error("", expected);
                }
                CertificateConfig {
                    principal: each.need("principal"),
                    scopes: each.get_or("scopes", Vec::new()),
                }
            }),
        }
    }
}

fn read_issuers(table: &mut Table<'_>) -> BTreeMap<String, IssuerConfig> {
    table.table("jwt", |table| {
        let issuers = table.own_named_tables(issuer::ONE_TABLE_EACH, IssuerConfig::read);
        for (name, key, expected) in issuer::errors(&issuers) {
            // What is missing is known already.
            if key.is_empty() || table.has_below(name, key) || key == "principal_prefix" {
                table.error_below(name, key, expected);
            }
        }
        issuers
    })
}

impl ApiKeyConfig {
    fn read(table: &mut Table<'_>) -> Self {
        let sha256 = table.hidden_list("sha256");
        let is_hash =
            |text: &String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if sha256.is_empty() || !sha256.iter().all(is_hash) {
            let expected =
                "expected the SHA-256 of each key, 64 hexadecimal digits, and at least one";
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
