//! The part of the configuration that requests depend on. A reload replaces it as a whole.

use std::sync::Arc;

use http::Method;

use crate::catalogue::cors::CorsRules;
use crate::catalogue::{self, Catalogue};
use crate::config::Config;
use crate::config::gateway::{DocumentationAccess, HttpLimits};
use crate::start_check::StartError;

use crate::roles::gateway::admission::auth::Authenticator;
use crate::roles::gateway::admission::router::{RouteLookup, Router};
use crate::roles::gateway::client::caller::Caller;
use crate::roles::gateway::edge::documentation::DOCUMENTATION_PATHS;
use crate::roles::gateway::edge::documentation::Documentation;

/// The catalogue, routes, keys and limits, which were loaded together and are consistent with each
/// other.
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
    /// The CORS rules for responses that do not come from an endpoint.
    pub default_cors: Option<Arc<CorsRules>>,
    /// The path of the health check.
    pub health_path: Option<String>,
    /// HTTP limits.
    pub http: Arc<HttpLimits>,
    /// The scope that a caller needs to get a `Server-Timing` header. With `*`, all callers get it.
    pub server_timing_scope: Option<String>,
}

impl ActiveConfig {
    /// Loads the keys and the catalogue that a configuration names, and checks that they are
    /// consistent.
    ///
    /// # Errors
    /// All errors found.
    pub fn load(config: &Config) -> Result<Self, Vec<StartError>> {
        let authenticator = Authenticator::load(&config.auth);
        let catalogue = catalogue::load(&config.catalogue.directory, &config.catalogue.defaults);
        let (authenticator, catalogue) = match (authenticator, catalogue) {
            (Ok(authenticator), Ok(mut catalogue)) => {
                if config.gateway.documentation == DocumentationAccess::Off {
                    catalogue.remove_examples();
                }
                (authenticator, Arc::new(catalogue))
            }
            (authenticator, catalogue) => {
                let lines = authenticator.err().unwrap_or_default();
                let errors = lines.iter().map(|line| StartError::from_line(line));
                let catalogue = catalogue.err().unwrap_or_default();
                return Err(errors.chain(catalogue.into_iter().map(StartError::from)).collect());
            }
        };
        let health_path = config.gateway.health_path.clone();
        let errors: Vec<StartError> = catalogue
            .endpoints()
            .iter()
            .filter_map(|endpoint| {
                let (key, expected) = authenticator.endpoint_error(endpoint)?;
                Some(catalogue.error(&endpoint.id, key, expected).into())
            })
            .chain(health_path.as_deref().and_then(|path| health_path_error(path, &catalogue)))
            .collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        let router = Router::new(&catalogue).map_err(|conflicts| {
            let conflict = |expected: String| StartError::at_key("catalogue.directory", expected);
            conflicts.into_iter().map(conflict).collect::<Vec<_>>()
        })?;
        let documentation = Documentation::new(
            &catalogue,
            &config.openapi,
            config.gateway.documentation,
            &config.gateway.compression,
        );
        let default_cors = CorsRules::without_endpoint(&config.catalogue.defaults.cors);
        let default_cors = default_cors.map(Arc::new);
        let http = Arc::new(config.gateway.http.clone());
        let server_timing_scope = config.gateway.server_timing_scope.clone();
        Ok(Self {
            catalogue,
            router,
            authenticator,
            documentation,
            default_cors,
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

    /// Returns whether the gateway itself serves a path, with GET and HEAD.
    #[must_use]
    pub fn is_own_path(&self, path: &str) -> bool {
        self.is_health_check(path)
            || (self.documentation.is_some() && DOCUMENTATION_PATHS.contains(&path))
            || self.is_documentation_asset(path)
    }

    /// Returns whether a path names a file of the documentation page.
    #[must_use]
    pub fn is_documentation_asset(&self, path: &str) -> bool {
        self.documentation.as_ref().is_some_and(|documentation| documentation.is_asset(path))
    }

    /// Returns the CORS rules for a response: those of the endpoint that the request names, or the
    /// default rules.
    #[must_use]
    pub fn cors_rules(&self, method: &Method, path: &str) -> Option<Arc<CorsRules>> {
        match self.router.find(method, path) {
            RouteLookup::Matched(matched) => matched.endpoint.cors.clone(),
            _ => self.default_cors.clone(),
        }
    }

    /// Returns whether responses to a caller include a `Server-Timing` header.
    #[must_use]
    pub fn shows_timing(&self, caller: &Caller) -> bool {
        let Some(scope) = &self.server_timing_scope else { return false };
        scope == "*" || caller.scopes.contains(scope)
    }
}

/// Returns an error if an endpoint or the documentation already uses the health check's path.
fn health_path_error(path: &str, catalogue: &Catalogue) -> Option<StartError> {
    let endpoint = catalogue.endpoints().iter().find(|endpoint| *endpoint.path == *path);
    let owner = match endpoint {
        Some(endpoint) => format!("the path of endpoint {}", endpoint.id),
        None if DOCUMENTATION_PATHS.contains(&path) => "a path of the documentation".to_owned(),
        None => return None,
    };
    let expected = format!("{path} is {owner}: expected another path, or \"\" for none");
    Some(StartError::at_key("gateway.health_path", expected))
}
