//! `[auth.jwt.<name>]`: an issuer of tokens.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::catalogue::names::{NAME_BYTES_MAX, is_token};
use crate::config::limits;
use crate::config::settings::SettingsTable;
use crate::config::tls::ClientTlsConfig;

/// The supported signature algorithms. If a JWKS names no algorithm for an RSA key, the first RSA algorithm in
/// `IssuerConfig::algorithms` is used.
pub const ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
/// The maximum number of issuers. The gateway may have to fetch keys from each of them.
const ISSUERS_MAX: usize = 64;
/// The maximum length of `principal_prefix` in bytes.
const PREFIX_BYTES_MAX: usize = 64;

/// An issuer of tokens, and the requirements that its tokens must meet.
#[derive(Clone, Debug)]
pub struct IssuerConfig {
    /// The required value of `iss`, compared exactly.
    pub issuer: String,
    /// The source of the issuer's keys.
    pub keys: KeySource,
    /// The accepted audiences. A token must contain at least one of them.
    pub audiences: Vec<String>,
    /// The algorithms allowed for the issuer's keys. This is a subset of `ALGORITHMS`.
    pub algorithms: Vec<String>,
    /// The tolerated clock difference between the issuer and the gateway.
    pub leeway: Duration,
    /// The claim that contains the principal. The default is `sub`.
    pub principal_claim: String,
    /// The prefix added to every principal of this issuer.
    pub principal_prefix: String,
}

/// The source of an issuer's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A JWKS file, or a PEM public key.
    File(PathBuf),
    /// Keys fetched over HTTP.
    Fetched(FetchConfig),
}

/// The settings for fetching the keys of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchConfig {
    /// Where the issuer publishes its keys.
    pub from: KeyLocation,
    /// Whether `http://` is allowed.
    pub is_insecure: bool,
    /// The TLS settings of the connection, such as the trusted authorities.
    pub tls: ClientTlsConfig,
    /// The interval between fetches.
    pub refresh: Duration,
    /// The minimum time between fetches that are triggered by tokens with an unknown key.
    pub cooldown: Duration,
    /// How long keys remain valid while fetches fail.
    pub age_max: Duration,
}

/// Where an issuer publishes its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyLocation {
    /// The URL of a JWKS.
    Url(String),
    /// The URL named in the issuer's discovery document (`OpenID` Connect Discovery 1.0, §4).
    Discovery {
        /// The issuer's URL.
        issuer: String,
    },
}

/// The error for settings placed directly in `[auth.jwt]`.
pub(super) const ONE_TABLE_EACH: &str = "expected a table for each issuer: write [auth.jwt.NAME] instead of [auth.jwt], \
     and audiences = [\"…\"] instead of audience";

impl IssuerConfig {
    pub(super) fn read(table: &mut SettingsTable<'_>) -> Self {
        let issuer: String = table.get_required("issuer");
        Self {
            keys: KeySource::read(table, &issuer),
            issuer,
            audiences: table.get_required("audiences"),
            algorithms: table.get_or("algorithms", ALGORITHMS.map(str::to_owned).to_vec()),
            leeway: table.get_limited("leeway", limits::JWT_LEEWAY),
            principal_claim: table.get_or("principal_claim", "sub".to_owned()),
            principal_prefix: table.get_or("principal_prefix", String::new()),
        }
    }

    /// Returns the errors that involve only this issuer, each with its key.
    fn errors(&self) -> Vec<(&'static str, String)> {
        let mut errors = Vec::new();
        if self.issuer.is_empty() {
            errors.push((
                "issuer",
                "expected the issuer exactly as it appears in the iss claim of its tokens"
                    .to_owned(),
            ));
        }
        if self.audiences.is_empty() || self.audiences.iter().any(String::is_empty) {
            errors.push((
                "audiences",
                "expected one or more audiences, none of them empty".to_owned(),
            ));
        }
        let is_known = |name: &String| ALGORITHMS.contains(&name.as_str());
        if self.algorithms.is_empty() || !self.algorithms.iter().all(is_known) {
            let known = ALGORITHMS.join(", ");
            errors.push(("algorithms", format!("expected one or more of {known}")));
        }
        if self.principal_claim.is_empty() {
            errors.push(("principal_claim", "expected the name of a claim".to_owned()));
        }
        let is_visible = |c: char| c.is_ascii_graphic();
        let prefix = &self.principal_prefix;
        if prefix.len() > PREFIX_BYTES_MAX || !prefix.chars().all(is_visible) {
            let expected = format!(
                "expected at most {PREFIX_BYTES_MAX} visible ASCII characters, e.g. \"partner:\""
            );
            errors.push(("principal_prefix", expected));
        }
        errors
    }
}

/// Returns the errors in the settings of all issuers, each with the issuer's name and the key of the setting.
///
/// Two issuers must not be able to issue tokens for the same principal. If there are several
/// issuers, each must therefore have a prefix, and no prefix may begin with another issuer's prefix.
#[must_use]
pub fn errors(issuers: &BTreeMap<String, IssuerConfig>) -> Vec<(&str, &'static str, String)> {
    let mut errors = Vec::new();
    if let Some((name, _)) = issuers.iter().nth(ISSUERS_MAX) {
        errors.push((name.as_str(), "", format!("expected at most {ISSUERS_MAX} issuers")));
    }
    for (name, issuer) in issuers {
        if !is_token(name) {
            let expected = format!(
                "expected a name of 1 to {NAME_BYTES_MAX} letters, digits, '-' and '_' that begins with a letter or digit"
            );
            errors.push((name.as_str(), "", expected));
        }
        let own = issuer.errors().into_iter();
        errors.extend(own.map(|(key, expected)| (name.as_str(), key, expected)));
        let others = || issuers.iter().filter(|(other, _)| *other != name);
        if let Some((other, _)) = others().find(|(_, each)| each.issuer == issuer.issuer) {
            let expected =
                format!("auth.jwt.{other} has the same issuer: expected a different one");
            errors.push((name.as_str(), "issuer", expected));
        }
        let prefix = &issuer.principal_prefix;
        let overlap = others().find(|(_, each)| prefix.starts_with(&each.principal_prefix));
        if let Some((other, each)) = overlap {
            let expected = format!(
                "{prefix:?} begins with the {:?} of auth.jwt.{other}: expected prefixes of which none is the \
                 beginning of another, because otherwise tokens of two issuers could name the same principal",
                each.principal_prefix
            );
            errors.push((name.as_str(), "principal_prefix", expected));
        }
    }
    errors
}

impl KeySource {
    fn read(table: &mut SettingsTable<'_>, issuer: &str) -> Self {
        let file = table.get_file("keys");
        let url: Option<String> = table.get("keys_url");
        let is_insecure = table.get_or("insecure_plain_text", false);
        let fetch = FetchConfig {
            from: match &url {
                Some(url) => KeyLocation::Url(url.clone()),
                None => KeyLocation::Discovery { issuer: issuer.to_owned() },
            },
            is_insecure,
            tls: ClientTlsConfig { ca: table.get_file("keys_url_ca"), identity: None },
            refresh: table.get_limited("keys_refresh", limits::JWT_KEYS_REFRESH),
            cooldown: table.get_limited("keys_cooldown", limits::JWT_KEYS_COOLDOWN),
            age_max: table.get_limited("keys_age_max", limits::JWT_KEYS_AGE_MAX),
        };
        if let Some(file) = file {
            let of_fetched_keys = [
                "keys_url",
                "keys_url_ca",
                "keys_refresh",
                "keys_cooldown",
                "keys_age_max",
                "insecure_plain_text",
            ];
            for key in of_fetched_keys {
                if table.has(key) {
                    let problem = "applies only to keys that are fetched, but `keys` names a file: remove one of the two";
                    table.error(key, problem.to_owned());
                }
            }
            return Self::File(file);
        }
        if is_insecure {
            table.warn("insecure_plain_text", "an issuer's keys are fetched without TLS");
        }
        let schemes = if is_insecure { "https:// or http://" } else { "https://" };
        let plain = if is_insecure { "" } else { " (http:// needs insecure_plain_text = true)" };
        match &url {
            Some(url) if !is_url(url, is_insecure) => {
                let expected =
                    format!("expected {schemes} and a host, without user or password{plain}");
                table.error("keys_url", expected);
            }
            None if !issuer.is_empty()
                && (!is_url(issuer, is_insecure) || issuer.contains(['?', '#'])) =>
            {
                let expected = format!(
                    "if neither keys nor keys_url is set, this URL is used to discover the keys: expected {schemes} \
                     and a host, without user, password, query or fragment{plain}"
                );
                table.error("issuer", expected);
            }
            _ => {}
        }
        Self::Fetched(fetch)
    }
}

/// Returns whether a string is an `https://` URL (or `http://` if `is_insecure`) without credentials.
#[must_use]
pub fn is_url(text: &str, is_insecure: bool) -> bool {
    http::Uri::try_from(text).is_ok_and(|uri| {
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let is_scheme = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => is_insecure,
            _ => false,
        };
        is_scheme && !authority.is_empty() && !authority.contains('@')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(url: &str, prefix: &str) -> IssuerConfig {
        IssuerConfig {
            issuer: url.to_owned(),
            keys: KeySource::File(PathBuf::new()),
            audiences: vec!["fjord".to_owned()],
            algorithms: ALGORITHMS.map(str::to_owned).to_vec(),
            leeway: Duration::ZERO,
            principal_claim: "sub".to_owned(),
            principal_prefix: prefix.to_owned(),
        }
    }

    #[test]
    fn issuers_that_could_name_the_same_principal_are_an_error() {
        let check = |first: &str, second: &str, expected: usize| {
            let issuers = BTreeMap::from([
                ("a".to_owned(), issuer("https://a", first)),
                ("b".to_owned(), issuer("https://b", second)),
            ]);
            let found = errors(&issuers);
            assert_eq!(found.len(), expected, "{first:?} {second:?}: {found:?}");
            assert!(found.iter().all(|(_, key, _)| *key == "principal_prefix"), "{found:?}");
        };
        check("", "", 2);
        check("", "b:", 1);
        check("a:", "a:", 2);
        check("a:", "a:b:", 1);
        check("a:", "b:", 0);
        check("a:", "ab:", 0);
    }

    #[test]
    fn an_issuer_cannot_be_configured_twice() {
        let issuers = BTreeMap::from([
            ("a".to_owned(), issuer("https://a", "a:")),
            ("b".to_owned(), issuer("https://a", "b:")),
        ]);
        let found = errors(&issuers);
        assert!(found.iter().all(|(_, key, _)| *key == "issuer") && found.len() == 2, "{found:?}");
    }

    #[test]
    fn all_errors_of_an_issuer_are_reported() {
        let bad = IssuerConfig {
            audiences: Vec::new(),
            algorithms: vec!["HS256".to_owned()],
            principal_claim: String::new(),
            ..issuer("", "a\u{200b}")
        };
        let issuers = BTreeMap::from([("bad name".to_owned(), bad)]);
        let keys: Vec<_> = errors(&issuers).into_iter().map(|(_, key, _)| key).collect();
        let expected =
            ["", "issuer", "audiences", "algorithms", "principal_claim", "principal_prefix"];
        assert_eq!(keys, expected);
    }
}
