//! The procedures, ids and routes that are already in the catalogue.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::catalogue::load::is_catalogue_file;
use crate::catalogue::route::{Segment, segments};
use crate::catalogue::{self, CatalogueError};
use crate::config::CatalogueConfig;

/// The procedures, ids and routes in use.
#[derive(Debug, Default)]
pub(super) struct ExistingEndpoints {
    procedures: HashSet<String>,
    ids: HashSet<String>,
    routes: HashSet<String>,
}

impl ExistingEndpoints {
    /// Reads the catalogue. A catalogue without files is treated as empty.
    ///
    /// # Errors
    /// Returns the errors in the catalogue.
    pub(super) fn load(config: &CatalogueConfig) -> Result<Self, Vec<CatalogueError>> {
        let mut existing = Self::default();
        if has_no_file(&config.directory) {
            return Ok(existing);
        }
        for endpoint in catalogue::load(&config.directory, &config.defaults)?.endpoints() {
            existing.add(endpoint.id.as_str(), &format!("{} {}", endpoint.method, endpoint.path));
            let names = endpoint.queues.iter().filter_map(|queue| queue.procedure.as_ref());
            existing.procedures.extend(names.map(|name| name.as_str().to_lowercase()));
        }
        Ok(existing)
    }

    /// Returns whether an endpoint calls this procedure.
    pub(super) fn has_procedure(&self, name: &str) -> bool {
        self.procedures.contains(&name.to_lowercase())
    }

    pub(super) fn has_id(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Returns whether an endpoint has this route. Parameter names are ignored.
    pub(super) fn has_route(&self, route: &str) -> bool {
        self.routes.contains(&without_names(route))
    }

    pub(super) fn add(&mut self, id: &str, route: &str) {
        self.ids.insert(id.to_owned());
        self.routes.insert(without_names(route));
    }
}

/// Returns whether the catalogue directory does not exist or contains no catalogue file.
fn has_no_file(directory: &Path) -> bool {
    match fs::read_dir(directory) {
        Ok(mut entries) => {
            !entries.any(|entry| entry.is_ok_and(|entry| is_catalogue_file(&entry.path())))
        }
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// Returns a route without the parameter names in its braces.
fn without_names(route: &str) -> String {
    let (method, path) = route.split_once(' ').unwrap_or_default();
    let mut result = method.to_owned();
    for segment in segments(path) {
        result.push('/');
        result.push_str(match segment {
            Segment::Literal(text) => text,
            Segment::Parameter(_) => "{}",
        });
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_only_a_hidden_file_has_no_catalogue() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(".x.json"), "{").unwrap();
        assert!(has_no_file(directory.path()));
        fs::write(directory.path().join("x.json"), "{}").unwrap();
        assert!(!has_no_file(directory.path()));
        assert!(has_no_file(&directory.path().join("missing")));
    }
}
