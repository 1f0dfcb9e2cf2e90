//! The part of the configuration that requests depend on. A reload replaces it as a whole.

use std::sync::Arc;

use crate::catalogue::{self, Catalogue};
use crate::config::Config;
use crate::config::gateway::HttpLimits;

use crate::roles::gateway::admission::auth::Authenticator;
use crate::roles::gateway::admission::router::Router;
use crate::roles::gateway::client::caller::Caller;
use crate::roles::gateway::edge::documentation::DOCUMENTATION_PATHS;
use crate::roles::gateway::edge::documentation::Documentation;

/// Catalogue, routes, keys and limits that were loaded together and are consistent with each other.
#[derive(Debug)]
pub struct ActiveConfig {
    /// The endpoints.
    pub catalogue: Arc<Catalogue>,
    /// The routes of the endpoints.
    pub router: Router,
    /// Authenticates callers and authorizes them to call endpoints.
    pub authenticator: Authenticator,
    /// The documentation of the endpoints, if it is served.
    pub documentation: Option<Documentation>,
    /// The path of the health check.
    pub health_path: Option<String>,
    /// HTTP limits.
    pub http: HttpLimits,
    /// The scope of the callers that get a `Server-Timing` header; `*` means all callers.
    pub server_timing_scope: Option<String>,
}

impl ActiveConfig {
    /// Loads the keys and the catalogue of a configuration and checks their consistency.
    ///
    /// # Errors
    /// All errors, one line each.
    pub fn load(config: &Config) -> Result<Self, Vec<String>> {
        let lines = |errors: Vec<catalogue::CatalogueError>| -> Vec<String> {
            errors.iter().map(ToString::to_string).collect()
        };
        let authenticator = Authenticator::load(&config.auth);
        let catalogue = catalogue::load(&config.catalogue.directory, &config.catalogue.defaults);
        let (authenticator, catalogue) = match (authenticator, catalogue) {
            (Ok(authenticator), Ok(catalogue)) => (authenticator, Arc::new(catalogue)),
            (authenticator, catalogue) => {
                let mut errors = authenticator.err().unwrap_or_default();
                errors.extend(catalogue.map_err(lines).err().unwrap_or_default());
                return Err(errors);
            }
        };
        let health_path = config.gateway.health_path.clone();
        let errors: Vec<String> = catalogue
            .endpoints()
            .iter()
            .filter_map(|endpoint| authenticator.endpoint_error(endpoint))
            .chain(health_path.as_deref().and_then(|path| health_path_error(path, &catalogue)))
            .collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        let router = Router::new(&catalogue)?;
        let documentation =
            Documentation::new(&catalogue, &config.openapi, config.gateway.documentation);
        let http = config.gateway.http.clone();
        let server_timing_scope = config.gateway.server_timing_scope.clone();
        Ok(Self {
            catalogue,
            router,
            authenticator,
            documentation,
            health_path,
            http,
            server_timing_scope,
        })
    }

    /// Returns whether a path is the path of the health check.
    #[must_use]
    pub fn is_health_check(&self, path: &str) -> bool {
        self.health_path.as_deref() == Some(path)
    }

    /// Returns whether the responses to a caller have a `Server-Timing` header.
    #[must_use]
    pub fn shows_timing(&self, caller: &Caller) -> bool {
        let Some(scope) = &self.server_timing_scope else { return false };
        scope == "*" || caller.scopes.contains(scope)
    }
}

/// Returns an error if an endpoint or the documentation already uses the health check's path.
fn health_path_error(path: &str, catalogue: &Catalogue) -> Option<String> {
    let endpoint = catalogue.endpoints().iter().find(|endpoint| *endpoint.path == *path);
    let owner = match endpoint {
        Some(endpoint) => format!("the path of endpoint {}", endpoint.id),
        None if DOCUMENTATION_PATHS.contains(&path) => "a path of the documentation".to_owned(),
        None => return None,
    };
    Some(format!("gateway.health_path: {path} is {owner}: expected another path, or \"\" for none"))
}
