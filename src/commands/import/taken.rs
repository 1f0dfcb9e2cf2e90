//! What the catalogue has already: procedures, ids and routes that an import leaves alone.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::catalogue::route::{Segment, segments};
use crate::catalogue::{self, CatalogueError};
use crate::config::CatalogueConfig;

/// What is taken.
#[derive(Debug, Default)]
pub(super) struct Taken {
    procedures: HashSet<String>,
    ids: HashSet<String>,
    routes: HashSet<String>,
}

impl Taken {
    /// What the catalogue has. One without any file has nothing: it is the first import.
    ///
    /// # Errors
    /// The catalogue's errors: what it has cannot be told then.
    pub(super) fn by(config: &CatalogueConfig) -> Result<Self, Vec<CatalogueError>> {
        let mut taken = Self::default();
        if has_no_file(&config.directory) {
            return Ok(taken);
        }
        for endpoint in catalogue::load(&config.directory, config)?.endpoints() {
            taken.take(endpoint.id.as_str(), &format!("{} {}", endpoint.method, endpoint.path));
            let name = endpoint.procedure.as_ref().map(|name| name.as_str().to_lowercase());
            taken.procedures.extend(name);
        }
        Ok(taken)
    }

    /// Whether an endpoint calls this procedure already.
    pub(super) fn has_procedure(&self, name: &str) -> bool {
        self.procedures.contains(&name.to_lowercase())
    }

    /// Whether an endpoint has this id.
    pub(super) fn has_id(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Whether a route of this shape is there, whatever its parameters are called.
    pub(super) fn has_route(&self, route: &str) -> bool {
        self.routes.contains(&shape(route))
    }

    /// Takes an id and a route.
    pub(super) fn take(&mut self, id: &str, route: &str) {
        self.ids.insert(id.to_owned());
        self.routes.insert(shape(route));
    }
}

/// Whether the catalogue's directory is not there, or has no file of it.
fn has_no_file(directory: &Path) -> bool {
    let is_json = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|end| end == "json");
    match fs::read_dir(directory) {
        Ok(mut entries) => !entries.any(|entry| entry.is_ok_and(|entry| is_json(&entry))),
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// A route with nothing in its braces.
fn shape(route: &str) -> String {
    let (method, path) = route.split_once(' ').unwrap_or_default();
    let mut shape = method.to_owned();
    for segment in segments(path) {
        shape.push('/');
        shape.push_str(match segment {
            Segment::Literal(text) => text,
            Segment::Parameter(_) => "{}",
        });
    }
    shape
}
