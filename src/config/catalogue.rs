//! `[catalogue]`: the directory of the endpoints, and the defaults that endpoints inherit.

use std::path::PathBuf;

use super::limits;
use super::settings::SettingsTable;
use crate::catalogue::auth::check_issuers;
use crate::catalogue::cors::{CorsSettings, MAX_AGE_DEFAULT};
use crate::catalogue::{Auth, AuthMethod, EndpointDefaults};

const AUTH_DEFAULT: &str = "auth_default";

/// The catalogue directory and the endpoint defaults.
#[derive(Clone, Debug)]
pub struct CatalogueConfig {
    /// The directory of the `*.json` files, resolved against the configuration directory.
    pub directory: PathBuf,
    /// The values for endpoints that do not set their own.
    pub defaults: EndpointDefaults,
}

impl CatalogueConfig {
    pub(super) fn read(table: &mut SettingsTable<'_>) -> Self {
        Self {
            directory: table.get_path_or("directory", "endpoints"),
            defaults: EndpointDefaults {
                auth: read_auth(table),
                timeout: table.get_limited("timeout_default", limits::TIMEOUT_DEFAULT),
                attempts: table.get_limited("attempts_default", limits::ATTEMPTS_DEFAULT),
                body_bytes_max: table
                    .get_bytes("body_bytes_max_default", limits::BODY_BYTES_MAX_DEFAULT),
                body_bytes_ceiling: limits::BUFFERED_BYTES_PER_CLIENT_MAX.default,
                cors: table.table("cors_default", read_cors),
            },
        }
    }
}

fn read_cors(table: &mut SettingsTable<'_>) -> CorsSettings {
    let settings = CorsSettings {
        origins: table.get_or("origins", Vec::new()),
        headers: table.get_or("headers", Vec::new()),
        exposed_headers: table.get_or("exposed_headers", Vec::new()),
        credentials: table.get_or("credentials", false),
        max_age: table.get_or("max_age", MAX_AGE_DEFAULT),
    };
    for (key, expected) in settings.errors() {
        table.error(key, expected);
    }
    settings
}

/// Reads `auth_default`. Its value is `"public"` or, as in an endpoint, a table of methods, scopes
/// and issuers.
fn read_auth(table: &mut SettingsTable<'_>) -> Option<Auth> {
    if table.has_table(AUTH_DEFAULT) {
        return table.optional_table(AUTH_DEFAULT, read_requirements);
    }
    let text: String = table.get(AUTH_DEFAULT)?;
    if text == "public" {
        table.warn(AUTH_DEFAULT, "endpoints without auth are open to everyone");
        return Some(Auth::Public);
    }
    let expected = "expected \"public\", or a table of methods, scopes and issuers";
    table.error(AUTH_DEFAULT, expected.to_owned());
    None
}

fn read_requirements(table: &mut SettingsTable<'_>) -> Auth {
    let names = AuthMethod::ALL.map(|method| method.as_str().to_owned()).to_vec();
    let names = table.get_or("methods", names);
    let method = |name: &String| AuthMethod::ALL.into_iter().find(|each| each.as_str() == name);
    let methods: Option<Vec<_>> = names.iter().map(method).collect();
    let methods = methods.filter(|methods| !methods.is_empty()).unwrap_or_else(|| {
        let expected = "expected one or more of jwt, api-key, certificate";
        table.error("methods", expected.to_owned());
        Vec::new()
    });
    let scopes = table.get_or("scopes", Vec::new());
    let issuers: Option<Vec<String>> = table.get("issuers");
    if let Some(issuers) = &issuers
        && let Err(expected) = check_issuers(issuers, &methods)
    {
        table.error("issuers", expected.to_owned());
    }
    Auth::Required { methods, scopes, issuers: issuers.unwrap_or_default() }
}
