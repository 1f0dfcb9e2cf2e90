//! What requests are judged by: catalogue, routes and keys, replaced whole at a reload.

use std::sync::Arc;

use crate::catalogue::{self, Catalogue};
use crate::config::Config;

use super::auth::Authenticator;
use super::documentation::Documentation;
use super::router::Router;

/// One state of catalogue, routes and keys.
#[derive(Debug)]
pub struct Snapshot {
    /// The endpoints.
    pub catalogue: Arc<Catalogue>,
    /// Their routes.
    pub router: Router,
    /// Who may call them.
    pub authenticator: Authenticator,
    /// What people read about them, when it is served.
    pub documentation: Option<Documentation>,
}

impl Snapshot {
    /// Reads everything that a configuration names.
    ///
    /// # Errors
    /// Every mistake, a line each.
    pub fn load(config: &Config) -> Result<Self, Vec<String>> {
        let lines = |mistakes: Vec<catalogue::Mistake>| -> Vec<String> {
            mistakes.iter().map(ToString::to_string).collect()
        };
        let authenticator = Authenticator::load(&config.auth);
        let catalogue = catalogue::load(&config.catalogue.directory, &config.catalogue);
        let (authenticator, catalogue) = match (authenticator, catalogue) {
            (Ok(authenticator), Ok(catalogue)) => (authenticator, Arc::new(catalogue)),
            (authenticator, catalogue) => {
                let mut mistakes = authenticator.err().unwrap_or_default();
                mistakes.extend(catalogue.map_err(lines).err().unwrap_or_default());
                return Err(mistakes);
            }
        };
        let mistakes: Vec<String> = catalogue
            .endpoints()
            .iter()
            .filter_map(|endpoint| authenticator.mistake(endpoint))
            .collect();
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let router = Router::new(&catalogue)?;
        let documentation = config.gateway.documentation.then(|| Documentation::of(&catalogue));
        Ok(Self { catalogue, router, authenticator, documentation })
    }
}
