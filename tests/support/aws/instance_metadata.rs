//! A local stand-in for the metadata service of an instance. It checks session tokens, and can hang.

use std::collections::BTreeMap;

use http::request::Parts;
use http::{Method, StatusCode};

use super::{REGION, ROLE};

/// How the metadata service behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetadataMode {
    /// It requires a session token.
    Version2,
    /// It issues no session tokens.
    Version1,
    /// It never answers.
    Hangs,
}

/// The state of the service.
#[derive(Debug)]
pub(super) struct MetadataState {
    pub(super) mode: MetadataMode,
    /// The values below `/latest/meta-data/`.
    pub(super) values: BTreeMap<String, String>,
    /// The number of session tokens that have been issued, and how many of them are no longer valid.
    tokens: u32,
    revoked_tokens: u32,
    /// The number of times that the credentials have been read. Each read returns new credentials.
    pub(super) credentials: u32,
}

impl MetadataState {
    pub(super) fn new() -> Self {
        let values = [
            ("placement/region", REGION),
            ("services/domain", "amazonaws.example"),
            ("instance-id", "i-0123456789abcdef0"),
            ("iam/security-credentials/", ROLE),
        ];
        let values = values.map(|(path, value)| (path.to_owned(), value.to_owned())).into();
        Self { mode: MetadataMode::Version2, values, tokens: 0, revoked_tokens: 0, credentials: 0 }
    }

    /// Invalidates all session tokens that have been issued.
    pub(super) fn revoke_tokens(&mut self) {
        self.revoked_tokens = self.tokens;
    }

    /// Answers a request; `None` if the service hangs.
    pub(super) fn answer(&mut self, parts: &Parts) -> Option<(StatusCode, String)> {
        let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let path = parts.uri.path();
        match self.mode {
            MetadataMode::Hangs => return None,
            MetadataMode::Version1 if parts.method == Method::PUT => {
                return Some((StatusCode::NOT_FOUND, "not found".to_owned()));
            }
            MetadataMode::Version1 | MetadataMode::Version2 => {}
        }
        if parts.method == Method::PUT && path == "/latest/api/token" {
            let seconds: u32 = text("x-aws-ec2-metadata-token-ttl-seconds")?.parse().ok()?;
            assert!((1..=21_600).contains(&seconds), "{seconds}");
            self.tokens += 1;
            return Some((StatusCode::OK, format!("token-{}", self.tokens)));
        }
        let number =
            text("x-aws-ec2-metadata-token").and_then(|token| token.strip_prefix("token-"));
        let number = number.and_then(|number| number.parse::<u32>().ok()).unwrap_or_default();
        let is_valid = (self.revoked_tokens + 1..=self.tokens).contains(&number);
        if self.mode == MetadataMode::Version2 && !is_valid {
            return Some((StatusCode::UNAUTHORIZED, String::new()));
        }
        let path = path.strip_prefix("/latest/meta-data/").unwrap_or_default();
        if let Some(value) = self.values.get(path) {
            return Some((StatusCode::OK, value.clone()));
        }
        if path == format!("iam/security-credentials/{ROLE}") {
            self.credentials += 1;
            let number = self.credentials;
            let credentials = serde_json::json!({
                "Code": "Success",
                "Type": "AWS-HMAC",
                "AccessKeyId": format!("ASIA{number}"),
                "SecretAccessKey": secret_key(number),
                "Token": format!("session-token-{number}"),
                "Expiration": "2026-01-01T06:00:00Z",
            });
            return Some((StatusCode::OK, credentials.to_string()));
        }
        Some((StatusCode::NOT_FOUND, "not found".to_owned()))
    }
}

/// Returns the secret key of the credentials that the `number`th read returned.
pub(super) fn secret_key(number: u32) -> String {
    format!("secret-key-{number}")
}
