//! Reads the catalogue files.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::value::RawValue;

use super::build;
use super::defaults::EndpointDefaults;
use super::definition::EndpointDefinition;
use super::definition::json::{ObjectOnly, RawMembers};
use super::definition::keys::{message, valid_keys};
use super::endpoint::Endpoint;
use super::error::{CatalogueError, EndpointErrors};
use super::names::EndpointId;
use super::route::RouteTable;

/// The largest catalogue file in bytes.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// The member that names the file's JSON Schema, for editors.
const SCHEMA: &str = "$schema";
/// The byte order mark that Windows editors write at the start of a file. It is ignored.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The endpoints of all catalogue files.
#[derive(Debug, Default)]
pub struct Catalogue {
    endpoints: Vec<Arc<Endpoint>>,
    by_id: HashMap<EndpointId, Arc<Endpoint>>,
    /// The file of each endpoint.
    files: HashMap<EndpointId, Arc<str>>,
}

impl Catalogue {
    /// Returns all endpoints, in the order of the files and of the entries in each file.
    #[must_use]
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Creates an error about an endpoint. Used for rules that cannot be checked with the catalogue alone.
    #[must_use]
    pub fn error(&self, id: &EndpointId, key: &str, expected: String) -> CatalogueError {
        let file = self.files.get(id).map(ToString::to_string).unwrap_or_default();
        CatalogueError {
            file,
            endpoint: Some(id.to_string()),
            key: key.to_owned(),
            expected,
            position: None,
        }
    }

    /// Returns the file of an endpoint.
    #[must_use]
    pub fn file(&self, id: &EndpointId) -> Option<&str> {
        self.files.get(id).map(|file| &**file)
    }

    /// Removes the examples, which only `fjord test` and the documentation use.
    pub fn remove_examples(&mut self) {
        // An endpoint can be changed in place only while no references to it exist outside the list.
        self.by_id.clear();
        for endpoint in &mut self.endpoints {
            if !endpoint.examples.is_empty() {
                Arc::make_mut(endpoint).examples = Vec::new();
            }
            self.by_id.insert(endpoint.id.clone(), Arc::clone(endpoint));
        }
    }

    /// Returns a copy of the catalogue in which the endpoints that have this queue have no other queue. Returns `None`
    /// if no endpoint has the queue.
    #[must_use]
    pub fn with_queue(&self, name: &str) -> Option<Self> {
        let mut is_found = false;
        let endpoints = self.endpoints.iter().map(|endpoint| {
            let Some(position) = endpoint.queues.position(name) else {
                return Arc::clone(endpoint);
            };
            is_found = true;
            endpoint.for_queue(endpoint.queues.get(position))
        });
        let endpoints: Vec<Arc<Endpoint>> = endpoints.collect();
        let by_id = endpoints.iter().map(|one| (one.id.clone(), Arc::clone(one))).collect();
        is_found.then(|| Self { endpoints, by_id, files: self.files.clone() })
    }

    /// Returns the endpoint with the given id.
    #[must_use]
    pub fn get(&self, id: &EndpointId) -> Option<&Arc<Endpoint>> {
        self.by_id.get(id)
    }
}

/// Reads all `*.json` files of a directory except hidden ones, sorted by name.
///
/// # Errors
/// Returns all errors in all files.
pub fn load(
    directory: &Path,
    defaults: &EndpointDefaults,
) -> Result<Catalogue, Vec<CatalogueError>> {
    let mut texts = Vec::new();
    let mut errors = Vec::new();
    match files(directory) {
        Err(error) => errors.push(file_error(directory, format!("cannot be read: {error}"))),
        Ok(files) if files.is_empty() => {
            errors.push(file_error(directory, "expected at least one *.json file".to_owned()));
        }
        Ok(files) => {
            for file in files {
                match read(&file) {
                    Ok(text) => texts.push((file.display().to_string(), text)),
                    Err(error) => errors.push(file_error(&file, error)),
                }
            }
        }
    }
    let texts: Vec<(&str, &str)> = texts.iter().map(|(file, text)| (&**file, &**text)).collect();
    match parse(&texts, defaults) {
        Ok(catalogue) if errors.is_empty() => Ok(catalogue),
        Ok(_) => Err(errors),
        Err(more) => {
            errors.extend(more);
            Err(errors)
        }
    }
}

fn file_error(file: &Path, expected: String) -> CatalogueError {
    let file = file.display().to_string();
    CatalogueError { file, endpoint: None, key: String::new(), expected, position: None }
}

/// Returns whether a file in the catalogue's directory is part of the catalogue.
#[must_use]
pub fn is_catalogue_file(path: &Path) -> bool {
    // Editors and package managers leave hidden files behind.
    let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    !is_hidden && path.extension().is_some_and(|extension| extension == "json")
}

fn files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if is_catalogue_file(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<String, String> {
    let opened = fs::File::open(file).map_err(|error| format!("cannot be read: {error}"))?;
    let mut bytes = Vec::new();
    let length = opened
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if length as u64 > FILE_BYTES_MAX {
        return Err(format!("expected at most {} MiB", FILE_BYTES_MAX >> 20));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| "expected UTF-8".to_owned())?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    Ok(text)
}

/// Parses a catalogue from pairs of file name and text.
///
/// # Errors
/// Returns all errors in all files.
pub fn parse(
    files: &[(&str, &str)],
    defaults: &EndpointDefaults,
) -> Result<Catalogue, Vec<CatalogueError>> {
    let mut catalogue = Catalogue::default();
    let mut errors = Vec::new();
    let mut routes = RouteTable::default();
    let mut ids: HashMap<String, &str> = HashMap::new();
    for &(file, text) in files {
        let endpoints: RawMembers<'_> = match serde_json::from_str(text) {
            Ok(endpoints) => endpoints,
            Err(error) => {
                let mut errors = EndpointErrors::new(file, None, &mut errors);
                let expected = format!("expected a JSON object of endpoints by id: {error}");
                errors.add_at((&error).into(), expected);
                continue;
            }
        };
        let name: Arc<str> = file.into();
        for (id, raw) in endpoints.0 {
            let mut own = EndpointErrors::new(file, Some(&id), &mut errors);
            if id == SCHEMA {
                if !raw.get().starts_with('"') {
                    own.add("", "expected the URL or the path of a JSON Schema as a string");
                }
                continue;
            }
            if let Some(other) = ids.insert(id.clone(), file) {
                let expected =
                    format!("this id is used by an endpoint in {other}: expected another");
                own.add("", expected);
            }
            let Some(definition) = read_definition(raw, &mut own) else { continue };
            let Some(endpoint) = build::endpoint(&id, definition, defaults, &mut own) else {
                continue;
            };
            if let Err(error) = routes.add((file, &id), &endpoint.method, &endpoint.path) {
                errors.push(error);
            }
            let endpoint = Arc::new(endpoint);
            catalogue.files.insert(endpoint.id.clone(), Arc::clone(&name));
            catalogue.by_id.insert(endpoint.id.clone(), Arc::clone(&endpoint));
            catalogue.endpoints.push(endpoint);
        }
    }
    if errors.is_empty() { Ok(catalogue) } else { Err(errors) }
}

/// Reads the definition of one endpoint as a whole or, if that fails, key by key, so that every error is reported. Validation
/// then continues with the valid keys.
fn read_definition(raw: &RawValue, errors: &mut EndpointErrors<'_>) -> Option<EndpointDefinition> {
    if let Ok(ObjectOnly(definition)) = serde_json::from_str(raw.get()) {
        return Some(definition);
    }
    let valid = valid_keys::<EndpointDefinition>(raw, "", errors)?;
    serde_json::from_str(&valid).map_err(|error| errors.add("", message(&error))).ok()
}

#[cfg(test)]
pub(crate) mod fixture {
    //! Catalogues for tests.

    use std::time::Duration;

    use super::{Catalogue, parse};
    use crate::catalogue::EndpointDefaults;
    use crate::catalogue::cors::CorsSettings;

    pub(crate) fn defaults() -> EndpointDefaults {
        EndpointDefaults {
            auth: None,
            timeout: Duration::from_secs(5),
            attempts: 3,
            body_bytes_max: 65_536,
            body_bytes_ceiling: 1 << 20,
            cors: CorsSettings::default(),
        }
    }

    /// Parses a catalogue from the members in one file. `KEYS` in the text is replaced with the keys `procedure` and `auth`.
    pub(crate) fn catalogue(endpoints: &str) -> Catalogue {
        let keys = r#""procedure":"a.b","auth":"public""#;
        let text = format!("{{{}}}", endpoints.replace("KEYS", keys));
        parse(&[("test.json", &text)], &defaults()).unwrap()
    }
}

#[cfg(test)]
mod tests;
