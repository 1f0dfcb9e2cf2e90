//! `[catalogue]`: where the endpoints are and what they inherit.

use std::path::PathBuf;
use std::time::Duration;

use super::limits;
use super::settings::Table;
use crate::catalogue::cors::{Cors, MAX_AGE_DEFAULT};
use crate::catalogue::endpoint::{Auth, AuthMethod};
use crate::catalogue::issuers_error;

/// The words for the methods; an endpoint that names none accepts all.
const METHODS: [(&str, AuthMethod); 3] = [
    ("jwt", AuthMethod::Jwt),
    ("api-key", AuthMethod::ApiKey),
    ("certificate", AuthMethod::ClientCertificate),
];

/// The catalogue's place and what endpoints inherit.
#[derive(Clone, Debug)]
pub struct CatalogueConfig {
    /// The directory of `*.json` files; relative to the configuration directory.
    pub directory: PathBuf,
    /// The `auth` of an endpoint that has none. `None`: such an endpoint is an error.
    pub auth_default: Option<Auth>,
    /// The `timeout` of an endpoint that has none.
    pub timeout_default: Duration,
    /// The `attempts` of an endpoint that has none.
    pub attempts_default: u32,
    /// The `max_body` of an endpoint that has none, in bytes.
    pub body_bytes_max_default: usize,
    /// What a client may have in memory at once, and so the largest `max_body`: a larger body would never find room.
    pub buffered_bytes_per_client_max: usize,
    /// The `cors` of an endpoint that has none; without origins: no other origin.
    pub cors_default: Cors,
}

impl CatalogueConfig {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        Self {
            directory: table.path_or("directory", "endpoints"),
            auth_default: read_auth(table),
            timeout_default: table.limited("timeout_default", limits::TIMEOUT_DEFAULT),
            attempts_default: table.limited("attempts_default", limits::ATTEMPTS_DEFAULT),
            body_bytes_max_default: table
                .bytes("body_bytes_max_default", limits::BODY_BYTES_MAX_DEFAULT),
            buffered_bytes_per_client_max: limits::BUFFERED_BYTES_PER_CLIENT_MAX.default,
            cors_default: table.table("cors_default", read_cors),
        }
    }
}

fn read_cors(table: &mut Table<'_>) -> Cors {
    let cors = Cors {
        origins: table.get_or("origins", Vec::new()),
        headers: table.get_or("headers", Vec::new()),
        exposed_headers: table.get_or("exposed_headers", Vec::new()),
        credentials: table.get_or("credentials", false),
        max_age: table.get_or("max_age", MAX_AGE_DEFAULT),
    };
    for (key, expected) in cors.errors() {
        table.error(key, expected);
    }
    cors
}

/// `auth_default`, in the forms that an endpoint's `auth` has: `"public"`, or a table of methods and scopes.
fn read_auth(table: &mut Table<'_>) -> Option<Auth> {
    const NAME: &str = "auth_default";
    if table.has_table(NAME) {
        return table.optional_table(NAME, |auth| {
            let words = auth.get_or("methods", METHODS.map(|(word, _)| word.to_owned()).to_vec());
            let scopes = auth.get_or("scopes", Vec::new());
            let method = |word: &String| METHODS.into_iter().find(|(each, _)| each == word);
            let methods: Option<Vec<_>> = words.iter().map(|word| Some(method(word)?.1)).collect();
            let methods = methods.filter(|methods| !methods.is_empty()).unwrap_or_else(|| {
                let expected = "expected one or more of jwt, api-key, certificate";
                auth.error("methods", expected.to_owned());
                Vec::new()
            });
            let issuers: Option<Vec<String>> = auth.get("issuers");
            let error = issuers.as_ref().and_then(|issuers| issuers_error(issuers, &methods));
            if let Some(expected) = error {
                auth.error("issuers", expected.to_owned());
            }
            Auth::Required { methods, scopes, issuers: issuers.unwrap_or_default() }
        });
    }
    let word: String = table.get(NAME)?;
    if word == "public" {
        table.warn(NAME, "endpoints without auth are open to everybody");
        return Some(Auth::Public);
    }
    table.error(NAME, "expected \"public\", or a table of methods, scopes and issuers".to_owned());
    None
}
