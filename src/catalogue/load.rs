//! Reads the catalogue's files.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::build;
use super::endpoint::Endpoint;
use super::error::{CatalogueError, EndpointErrors};
use super::names::EndpointId;
use super::route::Routes;
use super::written::{Object, WrittenEndpoint, WrittenParameter};
use crate::config::CatalogueConfig;

/// Largest catalogue file in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Every endpoint.
#[derive(Debug, Default)]
pub struct Catalogue {
    endpoints: Vec<Arc<Endpoint>>,
    by_id: HashMap<EndpointId, Arc<Endpoint>>,
}

impl Catalogue {
    /// All endpoints, in the order of the files and within them.
    #[must_use]
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// The endpoint with an id.
    #[must_use]
    pub fn get(&self, id: &EndpointId) -> Option<&Arc<Endpoint>> {
        self.by_id.get(id)
    }
}

/// Reads every `*.json` file of a directory in name order.
///
/// # Errors
/// Every error of every file.
pub fn load(directory: &Path, config: &CatalogueConfig) -> Result<Catalogue, Vec<CatalogueError>> {
    let mut texts = Vec::new();
    let mut errors = Vec::new();
    match files(directory) {
        Err(error) => errors.push(of_file(directory, format!("cannot be read: {error}"))),
        Ok(files) if files.is_empty() => {
            errors.push(of_file(directory, "expected at least one file *.json".to_owned()));
        }
        Ok(files) => {
            for file in files {
                match read(&file) {
                    Ok(text) => texts.push((file.display().to_string(), text)),
                    Err(error) => errors.push(of_file(&file, error)),
                }
            }
        }
    }
    let texts: Vec<(&str, &str)> = texts.iter().map(|(file, text)| (&**file, &**text)).collect();
    match parse(&texts, config) {
        Ok(catalogue) if errors.is_empty() => Ok(catalogue),
        Ok(_) => Err(errors),
        Err(more) => {
            errors.extend(more);
            Err(errors)
        }
    }
}

fn of_file(file: &Path, expected: String) -> CatalogueError {
    CatalogueError {
        file: file.display().to_string(),
        endpoint: None,
        key: String::new(),
        expected,
    }
}

fn files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        // Editors and package managers leave hidden files behind.
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && path.extension().is_some_and(|extension| extension == "json") {
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
    String::from_utf8(bytes).map_err(|_| "expected UTF-8".to_owned())
}

/// Reads a catalogue from the texts of its files, each with its name.
///
/// # Errors
/// Every error of every file.
pub fn parse(
    files: &[(&str, &str)],
    config: &CatalogueConfig,
) -> Result<Catalogue, Vec<CatalogueError>> {
    let mut catalogue = Catalogue::default();
    let mut errors = Vec::new();
    let mut routes = Routes::default();
    let mut first: HashMap<String, &str> = HashMap::new();
    for &(file, text) in files {
        let endpoints: Pairs<'_> = match serde_json::from_str(text) {
            Ok(endpoints) => endpoints,
            Err(error) => {
                let mut errors = EndpointErrors { file, endpoint: None, list: &mut errors };
                errors.add("", format!("expected a JSON object of endpoints by id: {error}"));
                continue;
            }
        };
        for (id, raw) in endpoints.0 {
            let mut found = EndpointErrors { file, endpoint: Some(&id), list: &mut errors };
            if let Some(other) = first.insert(id.clone(), file) {
                found.add(
                    "",
                    format!("this id is taken by an endpoint in {other}: expected another"),
                );
            }
            let Some(written) = written(raw, &mut found) else { continue };
            let Some(endpoint) = build::endpoint(&id, written, config, &mut found) else {
                continue;
            };
            if let Err(error) = routes.add((file, &id), &endpoint.method, &endpoint.path) {
                errors.push(error);
            }
            let endpoint = Arc::new(endpoint);
            catalogue.by_id.insert(endpoint.id.clone(), Arc::clone(&endpoint));
            catalogue.endpoints.push(endpoint);
        }
    }
    if errors.is_empty() { Ok(catalogue) } else { Err(errors) }
}

/// Reads one endpoint. When it does not read, each key is tried on its own, so that every error shows;
/// what is left without the wrong keys is checked further.
fn written(raw: &RawValue, errors: &mut EndpointErrors<'_>) -> Option<WrittenEndpoint> {
    if let Ok(Object(written)) = serde_json::from_str(raw.get()) {
        return Some(written);
    }
    let good = good_keys::<WrittenEndpoint>(raw, "", errors)?;
    serde_json::from_str(&good).map_err(|error| errors.add("", plain(&error))).ok()
}

/// The members of an object that can be read, as an object again.
fn good_keys<T: for<'de> Deserialize<'de>>(
    raw: &RawValue,
    key: &str,
    errors: &mut EndpointErrors<'_>,
) -> Option<String> {
    let members: Pairs<'_> = match serde_json::from_str(raw.get()) {
        Ok(members) => members,
        Err(error) => {
            errors.add(key.trim_end_matches('.'), plain(&error));
            return None;
        }
    };
    let mut good: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (name, value) in members.0 {
        let path = format!("{key}{name}");
        if !seen.insert(name.clone()) {
            errors.add(&path, "given more than once");
            continue;
        }
        let alone = format!("{{{}:{}}}", quoted(&name), value.get());
        match serde_json::from_str::<T>(&alone) {
            Ok(_) => good.push(format!("{}:{}", quoted(&name), value.get())),
            Err(_) if name == "parameters" || name == "columns" => {
                if let Some(kept) = good_parameters(value, &path, errors) {
                    good.push(format!("{}:{kept}", quoted(&name)));
                }
            }
            Err(error) => errors.add(&path, plain(&error)),
        }
    }
    Some(format!("{{{}}}", good.join(",")))
}

fn good_parameters(raw: &RawValue, key: &str, errors: &mut EndpointErrors<'_>) -> Option<String> {
    let parameters: Pairs<'_> =
        serde_json::from_str(raw.get()).map_err(|error| errors.add(key, plain(&error))).ok()?;
    let mut good = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (name, value) in parameters.0 {
        let path = format!("{key}.{name}");
        if !seen.insert(name.clone()) {
            errors.add(&path, "given more than once");
        } else if let Some(kept) = good_keys::<WrittenParameter>(value, &format!("{path}."), errors)
        {
            good.push(format!("{}:{kept}", quoted(&name)));
        }
    }
    Some(format!("{{{}}}", good.join(",")))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// An error of the reader without its position, which is that of a fragment.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text).to_owned()
}

/// The members of an object as they stand, whatever they hold.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<String, &'de RawValue>()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Form)
    }
}

#[cfg(test)]
pub(crate) mod fixture {
    //! Catalogues for tests.

    use std::path::PathBuf;
    use std::time::Duration;

    use super::{Catalogue, parse};
    use crate::config::CatalogueConfig;

    pub(crate) fn config() -> CatalogueConfig {
        CatalogueConfig {
            directory: PathBuf::new(),
            auth_default: None,
            timeout_default: Duration::from_secs(5),
            attempts_default: 3,
            body_bytes_max_default: 65_536,
            buffered_bytes_per_client_max: 1 << 20,
            cors_default: crate::catalogue::cors::Cors::default(),
        }
    }

    /// A catalogue from the members of one file, in which `KEYS` stands for what an endpoint must have.
    pub(crate) fn catalogue(endpoints: &str) -> Catalogue {
        let keys = r#""procedure":"a.b","auth":"public""#;
        let text = format!("{{{}}}", endpoints.replace("KEYS", keys));
        parse(&[("test.json", &text)], &config()).unwrap()
    }
}

#[cfg(test)]
mod tests;
