//! `[auth]`: how callers prove who they are.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

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
    /// The keys: a JWKS file, or a PEM public key.
    pub keys: PathBuf,
    /// The only issuer that is believed.
    pub issuer: String,
    /// The audience that a token must name.
    pub audience: String,
    /// How far clocks may disagree.
    pub leeway: Duration,
    /// The claim that names the principal; `sub`.
    pub principal_claim: String,
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
