//! Creates a catalogue entry for a procedure by applying naming conventions.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::existing::ExistingEndpoints;
use super::procedure_name::{ProcedureVerb, verb, words};
use super::returns::{self, ImportedReturns};
use crate::catalogue::ParameterType;
use crate::catalogue::names::{is_parameter_name, is_sql_name};
use crate::procedures::ResultDescription;
use crate::procedures::description::{ParameterDescription, ProcedureDescription};

/// The maximum length in bytes of a `binary` parameter that is passed in the query string.
const QUERY_LENGTH_MAX: usize = 1_000;

/// The maximum number that is appended to a route or id to distinguish procedures with similar names.
const NUMBERS_MAX: usize = 1_000;

/// The advice for a procedure that no endpoint can call in its present form.
pub(super) const WRAPPER: &str =
    "write a procedure that the catalogue can call, and that calls this one";

/// Entries by id, in file order.
#[derive(Debug)]
pub(super) struct ImportedCatalogue<'a>(pub(super) Vec<(String, ImportedEndpoint<'a>)>);

impl Serialize for ImportedCatalogue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(id, entry)| (id, entry)))
    }
}

/// An endpoint, serialized in the format of a catalogue file.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct ImportedEndpoint<'a> {
    /// The method and the path.
    pub(super) route: String,
    procedure: &'a str,
    #[serde(skip_serializing_if = "ImportedParameters::is_empty")]
    parameters: ImportedParameters<'a>,
    result: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    returns: Option<ImportedReturns<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<Value>,
}

impl ImportedEndpoint<'_> {
    /// Returns whether the columns of the answer are declared.
    pub(super) fn is_typed(&self) -> bool {
        self.returns.is_some()
    }

    /// Returns whether a parameter is marked as required although it may have a default.
    pub(super) fn may_have_defaults(&self) -> bool {
        self.parameters.0.iter().any(|(_, parameter)| parameter.is_required_by_guess)
    }
}

/// Parameters by name, in the procedure's order.
#[derive(Clone, Debug)]
struct ImportedParameters<'a>(Vec<(&'a str, ImportedParameter<'a>)>);

impl ImportedParameters<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for ImportedParameters<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, parameter) in &self.0 {
            map.serialize_entry(name, parameter)?;
        }
        map.end()
    }
}

#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct ImportedParameter<'a> {
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    location: Option<&'static str>,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    required: Option<bool>,
    /// Whether the parameter is marked as required although it may have a default.
    #[serde(skip)]
    is_required_by_guess: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    minimum: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_length: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<ImportedParameters<'a>>,
}

/// Creates the entry and its id.
///
/// # Errors
/// Returns the reason why no entry can be created, and how to fix the problem.
pub(super) fn create<'a>(
    (described, results): (&'a ProcedureDescription, Option<&'a ResultDescription>),
    prefix: &str,
    auth: Option<Value>,
    existing: &ExistingEndpoints,
) -> Result<(String, ImportedEndpoint<'a>), String> {
    let parameters = described.parameters.as_ref().map_err(Clone::clone)?;
    let (inputs, outputs): (Vec<_>, Vec<_>) =
        parameters.iter().partition(|parameter| !parameter.is_output);
    let (schema, name) = &described.parts;
    let words = words(name);
    let (verb, noun) = verb(&words);
    let fits_query = inputs.iter().all(|parameter| fits_query(parameter));
    let method = method(verb, fits_query);
    // The path of a single record contains the record's key. By convention, the key is the first parameter.
    let has_key =
        matches!(verb, ProcedureVerb::ReadOne | ProcedureVerb::Change | ProcedureVerb::Remove)
            && method != "POST";
    let key = inputs.first().filter(|parameter| has_key && fits_path(parameter));
    let key = key.map(|parameter| &*parameter.name);
    let tail = key.map(|key| format!("/{{{key}}}")).unwrap_or_default();
    let schema = words_of(schema);
    let (full, noun) = (or_procedure(words.join("-")), or_procedure(noun.join("-")));
    let suggestions =
        [format!("/{noun}"), format!("/{schema}/{noun}"), format!("/{schema}/{full}")];
    let numbered = (2..NUMBERS_MAX).map(|number| format!("/{schema}/{full}-{number}"));
    let mut routes = suggestions
        .into_iter()
        .chain(numbered)
        .map(|path| format!("{method} {prefix}{path}{tail}"));
    let route = routes.find(|route| !existing.has_route(route));
    let numbered = (2..NUMBERS_MAX).map(|number| format!("{schema}-{full}-{number}"));
    let mut ids = [full.clone(), format!("{schema}-{full}")].into_iter().chain(numbered);
    let id = ids.find(|id| !existing.has_id(id));
    let (Some(route), Some(id)) = (route, id) else {
        return Err("all routes or ids that its name suggests are in use; pass another --prefix, or write its entry by hand".to_owned());
    };
    let rest = if matches!(method, "GET" | "DELETE") { "query" } else { "body" };
    let location = |parameter: &ParameterDescription| {
        if Some(&*parameter.name) == key { "path" } else { rest }
    };
    let has_no_set =
        results.is_some_and(|results| matches!(&results.sets, Ok(sets) if sets.is_empty()));
    let result = match verb {
        ProcedureVerb::ReadOne if outputs.is_empty() && !has_no_set => "row",
        ProcedureVerb::ReadMany if outputs.is_empty() && !has_no_set => "rows",
        ProcedureVerb::Remove if outputs.is_empty() => "none",
        _ => "full",
    };
    let outputs: Vec<&str> = outputs.iter().map(|parameter| &*parameter.name).collect();
    let entry = ImportedEndpoint {
        route,
        procedure: &described.name,
        parameters: imported(&inputs, &|parameter| Some(location(parameter)))?,
        result,
        returns: results.and_then(|results| returns::create(result, &outputs, results)),
        outputs,
        // PUT and DELETE default to at-least-once, but the procedure might not be idempotent.
        execution: matches!(method, "PUT" | "DELETE").then_some("at-most-once"),
        auth,
    };
    Ok((id, entry))
}

/// Returns the HTTP method for a procedure, or `None` if no entry can be created for it.
pub(super) fn method_of(described: &ProcedureDescription) -> Option<&'static str> {
    let parameters = described.parameters.as_ref().ok()?;
    let fits = parameters.iter().filter(|parameter| !parameter.is_output).all(fits_query);
    Some(method(verb(&words(&described.parts.1)).0, fits))
}

fn method(verb: ProcedureVerb, fits_query: bool) -> &'static str {
    match verb {
        ProcedureVerb::ReadOne | ProcedureVerb::ReadMany if fits_query => "GET",
        ProcedureVerb::Change => "PUT",
        ProcedureVerb::Remove if fits_query => "DELETE",
        _ => "POST",
    }
}

/// Returns the words of a schema's name, or `schema` if the name has no ASCII letters or digits.
fn words_of(schema: &str) -> String {
    let words = words(schema).join("-");
    if words.is_empty() { "schema".to_owned() } else { words }
}

/// Returns the words of a procedure's name, or `procedure` if the name has no ASCII letters or digits.
fn or_procedure(words: String) -> String {
    if words.is_empty() { "procedure".to_owned() } else { words }
}

fn imported<'a>(
    described: &[&'a ParameterDescription],
    location: &dyn Fn(&ParameterDescription) -> Option<&'static str>,
) -> Result<ImportedParameters<'a>, String> {
    let mut parameters = Vec::new();
    for parameter in described {
        let ParameterDescription { name, declared, .. } = parameter;
        let is_column = location(parameter).is_none();
        if !(if is_column { is_sql_name(name) } else { is_parameter_name(name) }) {
            return Err(format!("the catalogue cannot contain the name {name:?}; {WRAPPER}"));
        }
        let kind = parameter
            .kind
            .ok_or_else(|| {
                format!("the catalogue has no type for @{name} {declared}; {WRAPPER} after converting text or binary")
            })?;
        let columns: Vec<&ParameterDescription> = parameter.columns.iter().collect();
        let columns = (kind == ParameterType::Table).then(|| imported(&columns, &|_| None));
        let (minimum, maximum) = parameter.range.unzip();
        let is_required = location(parameter).is_some_and(|location| location != "path")
            && parameter.has_default != Some(true);
        let entry = ImportedParameter {
            location: location(parameter),
            kind: kind.as_str(),
            required: is_required.then_some(true),
            is_required_by_guess: is_required && parameter.has_default.is_none(),
            minimum,
            maximum,
            max_length: parameter.length_max,
            columns: columns.transpose()?,
        };
        parameters.push((name.as_str(), entry));
    }
    Ok(ImportedParameters(parameters))
}

fn fits_query(parameter: &ParameterDescription) -> bool {
    let is_bounded = parameter.length_max.is_some_and(|length| length <= QUERY_LENGTH_MAX);
    match parameter.kind {
        Some(ParameterType::Table | ParameterType::Json) | None => false,
        Some(ParameterType::Binary) => is_bounded,
        _ => true,
    }
}

/// Returns whether the parameter can be a path segment.
fn fits_path(parameter: &ParameterDescription) -> bool {
    // The name becomes part of the route.
    let is_plain = parameter.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    is_plain && fits_query(parameter) && parameter.kind != Some(ParameterType::Binary)
}
