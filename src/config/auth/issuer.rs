//! `[auth.jwt.<name>]`: an issuer of tokens.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::limits;
use crate::config::settings::Table;
use crate::config::tls::ClientTlsConfig;

/// Every algorithm that a token may be signed with. Of an RSA key whose JWKS names none, the first RSA one holds.
pub const ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
/// Issuers at most: each may be fetched from.
const ISSUERS_MAX: usize = 64;
/// Longest name of an issuer in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Longest `principal_prefix` in bytes: the rest of a principal is the issuer's.
const PREFIX_BYTES_MAX: usize = 64;

/// An issuer of tokens, and what is asked of them.
#[derive(Clone, Debug)]
pub struct IssuerConfig {
    /// Its URL as tokens name it in `iss`, to the letter.
    pub issuer: String,
    /// Its keys.
    pub keys: KeySource,
    /// A token must name one of these.
    pub audiences: Vec<String>,
    /// Of `ALGORITHMS`, those that its keys may be used with.
    pub algorithms: Vec<String>,
    /// How far clocks may disagree.
    pub leeway: Duration,
    /// The claim that names the principal; `sub`.
    pub principal_claim: String,
    /// What every principal of this issuer begins with.
    pub principal_prefix: String,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A JWKS file, or a PEM public key.
    File(PathBuf),
    /// Where the issuer publishes them.
    Fetched(FetchConfig),
}

/// How an issuer's keys are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchConfig {
    /// Where from.
    pub from: KeysAt,
    /// Whether `http://` will do.
    pub is_insecure: bool,
    /// Whose certificates are believed.
    pub tls: ClientTlsConfig,
    /// How often they are fetched.
    pub refresh: Duration,
    /// How often a token with an unknown key may make us fetch.
    pub cooldown: Duration,
    /// How long they count when they cannot be fetched any more.
    pub age_max: Duration,
}

/// Where an issuer publishes its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysAt {
    /// At this URL: a JWKS.
    Url(String),
    /// Where the discovery document of this issuer says (`OpenID` Connect Discovery 1.0, §4).
    Discovery {
        /// The issuer's URL.
        issuer: String,
    },
}

/// What to write where `[auth.jwt]` itself has keys.
pub(super) const ONE_TABLE_EACH: &str = "expected a table for each issuer: write [auth.jwt.NAME] instead of [auth.jwt], \
     and audiences = [\"…\"] instead of audience";

impl IssuerConfig {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        let issuer: String = table.need("issuer");
        Self {
            keys: KeySource::read(table, &issuer),
            issuer,
            audiences: table.need("audiences"),
            algorithms: table.get_or("algorithms", ALGORITHMS.map(str::to_owned).to_vec()),
            leeway: table.limited("leeway", limits::JWT_LEEWAY),
            principal_claim: table.get_or("principal_claim", "sub".to_owned()),
            principal_prefix: table.get_or("principal_prefix", String::new()),
        }
    }

    /// What is wrong with this issuer alone: the key, and what was expected.
    fn errors(&self) -> Vec<(&'static str, String)> {
        let mut errors = Vec::new();
        if self.issuer.is_empty() {
            errors.push(("issuer", "expected the issuer as tokens name it in iss".to_owned()));
        }
        if self.audiences.is_empty() || self.audiences.iter().any(String::is_empty) {
            errors.push(("audiences", "expected one audience or more".to_owned()));
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

/// What is wrong with issuers, alone and beside each other: the issuer's name, its key, what was expected.
///
/// Two issuers must not be able to name the same principal: with several, every one has a prefix, and none begins with
/// another's.
#[must_use]
pub fn errors(issuers: &BTreeMap<String, IssuerConfig>) -> Vec<(&str, &'static str, String)> {
    let mut errors = Vec::new();
    if let Some((name, _)) = issuers.iter().nth(ISSUERS_MAX) {
        errors.push((name.as_str(), "", format!("expected at most {ISSUERS_MAX} issuers")));
    }
    for (name, issuer) in issuers {
        if !is_name(name) {
            let expected = format!(
                "expected a name of 1 to {NAME_BYTES_MAX} letters, digits, '-' and '_' that begins with a letter or digit"
            );
            errors.push((name.as_str(), "", expected));
        }
        let own = issuer.errors().into_iter();
        errors.extend(own.map(|(key, expected)| (name.as_str(), key, expected)));
        let others = || issuers.iter().filter(|(other, _)| *other != name);
        if let Some((other, _)) = others().find(|(_, each)| each.issuer == issuer.issuer) {
            let expected = format!("expected another issuer than that of auth.jwt.{other}");
            errors.push((name.as_str(), "issuer", expected));
        }
        let prefix = &issuer.principal_prefix;
        let overlap = others().find(|(_, each)| prefix.starts_with(&each.principal_prefix));
        if let Some((other, each)) = overlap {
            let expected = format!(
                "{prefix:?} begins with the {:?} of auth.jwt.{other}: expected prefixes of which none begins with \
                 another, or two issuers could name the same principal",
                each.principal_prefix
            );
            errors.push((name.as_str(), "principal_prefix", expected));
        }
    }
    errors
}

/// Whether a text can name an issuer in the configuration: it is a label of metrics, and part of a name in `OpenAPI`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    text.len() <= NAME_BYTES_MAX
        && text.bytes().all(is_plain)
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

impl KeySource {
    fn read(table: &mut Table<'_>, issuer: &str) -> Self {
        let file = table.file("keys");
        let url: Option<String> = table.get("keys_url");
        let is_insecure = table.get_or("insecure_plain_text", false);
        let fetch = FetchConfig {
            from: match &url {
                Some(url) => KeysAt::Url(url.clone()),
                None => KeysAt::Discovery { issuer: issuer.to_owned() },
            },
            is_insecure,
            tls: ClientTlsConfig { ca: table.file("keys_url_ca"), identity: None },
            refresh: table.limited("keys_refresh", limits::JWT_KEYS_REFRESH),
            cooldown: table.limited("keys_cooldown", limits::JWT_KEYS_COOLDOWN),
            age_max: table.limited("keys_age_max", limits::JWT_KEYS_AGE_MAX),
        };
        if let Some(file) = file {
            for key in ["keys_url", "keys_url_ca", "keys_refresh", "keys_cooldown", "keys_age_max"]
            {
                if table.has(key) {
                    table.error(key, "expected either keys or fetched ones, found both".to_owned());
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
                    format!("expected {schemes} and a host, without user and password{plain}");
                table.error("keys_url", expected);
            }
            None if !issuer.is_empty()
                && (!is_url(issuer, is_insecure) || issuer.contains(['?', '#'])) =>
            {
                let expected = format!(
                    "without keys and keys_url its keys are found by its URL: expected {schemes} and a host, without \
                     user, password, query and fragment{plain}"
                );
                table.error("issuer", expected);
            }
            _ => {}
        }
        Self::Fetched(fetch)
    }
}

/// Whether something can be fetched from a URL, over TLS unless that is not asked for.
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
    fn two_issuers_that_could_name_one_principal_are_refused() {
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
    fn an_issuer_is_configured_once() {
        let issuers = BTreeMap::from([
            ("a".to_owned(), issuer("https://a", "a:")),
            ("b".to_owned(), issuer("https://a", "b:")),
        ]);
        let found = errors(&issuers);
        assert!(found.iter().all(|(_, key, _)| *key == "issuer") && found.len() == 2, "{found:?}");
    }

    #[test]
    fn every_error_of_an_issuer_is_told() {
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
