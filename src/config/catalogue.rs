//! `[catalogue]`: where the endpoints are and what they inherit.

use std::path::PathBuf;
use std::time::Duration;

use super::limits;
use super::settings::Table;
use crate::catalogue::endpoint::{Auth, AuthMethod};

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
        }
    }
}

/// `auth_default`: `public`, or the accepted methods; and the scopes that a caller then needs.
fn read_auth(table: &mut Table<'_>) -> Option<Auth> {
    let words: Option<Vec<String>> = table.get("auth_default");
    let scopes: Vec<String> = table.get_or("auth_default_scopes", Vec::new());
    let words = words?;
    let mut methods = Vec::new();
    for word in &words {
        match word.as_str() {
            "jwt" => methods.push(AuthMethod::Jwt),
            "api_key" => methods.push(AuthMethod::ApiKey),
            "client_certificate" => methods.push(AuthMethod::ClientCertificate),
            "public" if words.len() == 1 => {
                table.warn("auth_default", "endpoints without auth are open to everybody");
                return Some(Auth::Public);
            }
            _ => {
                let expected =
                    "expected \"public\" alone, or a list of jwt, api_key, client_certificate";
                table.mistake("auth_default", expected.to_owned());
                return None;
            }
        }
    }
    if methods.is_empty() {
        table.mistake("auth_default", "expected at least one method, or \"public\"".to_owned());
        return None;
    }
    Some(Auth::Required { methods, scopes })
}
