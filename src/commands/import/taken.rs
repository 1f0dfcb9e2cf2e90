//! What the catalogue has already: procedures, ids and routes that an import leaves alone.

use std::collections::HashSet;

use crate::catalogue::route::{Segment, segments};
use crate::catalogue::{self, Mistake};
use crate::config::CatalogueConfig;

/// What is taken.
#[derive(Debug, Default)]
pub(super) struct Taken {
    procedures: HashSet<String>,
    ids: HashSet<String>,
    routes: HashSet<String>,
}

impl Taken {
    /// What the catalogue has, with its mistakes: what has one is not seen. One that does not exist has nothing.
    pub(super) fn by(config: &CatalogueConfig) -> (Self, Vec<Mistake>) {
        let mut taken = Self::default();
        match catalogue::load(&config.directory, config) {
            Ok(catalogue) => {
                for endpoint in catalogue.endpoints() {
                    taken.take(
                        endpoint.id.as_str(),
                        &format!("{} {}", endpoint.method, endpoint.path),
                    );
                    let name = endpoint.procedure.as_ref().map(|name| name.as_str().to_lowercase());
                    taken.procedures.extend(name);
                }
                (taken, Vec::new())
            }
            // Without a file there is nothing to be read, and nothing wrong: it is the first import.
            Err(mistakes) => {
                let of_files = mistakes.into_iter().filter(|mistake| mistake.endpoint.is_some());
                (taken, of_files.collect())
            }
        }
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
