//! A catalogue's entry from a described procedure, by convention.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::taken::Taken;
use super::words::{Verb, verb, words};
use crate::catalogue::ParameterType;
use crate::catalogue::names::is_identifier;
use crate::procedures::described::{Described, DescribedParameter};

/// Texts longer than this do not go into a path or a query.
const QUERY_LENGTH_MAX: usize = 1_000;

/// Entries by id, in their order.
#[derive(Debug)]
pub(super) struct Document<'a>(pub(super) Vec<(String, Written<'a>)>);

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(id, entry)| (id, entry)))
    }
}

/// An endpoint as a person would write it.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Written<'a> {
    /// Method and path.
    pub(super) route: String,
    procedure: &'a str,
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    parameters: Parameters<'a>,
    result: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<Value>,
}

/// Parameters by name, in their order.
#[derive(Clone, Debug)]
struct Parameters<'a>(Vec<(&'a str, Parameter<'a>)>);

impl Parameters<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Parameters<'_> {
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
struct Parameter<'a> {
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    place: Option<&'static str>,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    required: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    minimum: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_length: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<Parameters<'a>>,
}

/// The entry of a procedure with its id. The error says why it has none.
pub(super) fn make<'a>(
    described: &'a Described,
    prefix: &str,
    auth: Option<Value>,
    taken: &Taken,
) -> Result<(String, Written<'a>), String> {
    let parameters = described.parameters.as_ref().map_err(Clone::clone)?;
    let (inputs, outputs): (Vec<_>, Vec<_>) = parameters.iter().partition(|one| !one.is_output);
    let (schema, name) = described.name.split_once('.').unwrap_or(("", &described.name));
    let words = words(name);
    let (verb, noun) = verb(&words);
    let fits_query = inputs.iter().all(|one| fits_query(one));
    let method = match verb {
        Verb::ReadOne | Verb::ReadMany if fits_query => "GET",
        Verb::Change => "PUT",
        Verb::Remove if fits_query => "DELETE",
        _ => "POST",
    };
    // One thing is addressed by its key, which is the first parameter by custom.
    let has_key = matches!(verb, Verb::ReadOne | Verb::Change | Verb::Remove) && method != "POST";
    let key = inputs.first().filter(|one| has_key && fits_query_one(one)).map(|one| &*one.name);
    let tail = key.map(|key| format!("/{{{key}}}")).unwrap_or_default();
    let schema = words_of(schema);
    let full = words.join("-");
    let candidates = [
        format!("{method} {prefix}/{}{tail}", noun.join("-")),
        format!("{method} {prefix}/{schema}/{}{tail}", noun.join("-")),
        format!("{method} {prefix}/{schema}/{full}{tail}"),
    ];
    let route = candidates.into_iter().find(|route| !taken.has_route(route));
    let ids = [full.clone(), format!("{schema}-{full}")];
    let id = ids.into_iter().find(|id| !taken.has_id(id));
    let (Some(route), Some(id)) = (route, id) else {
        return Err("every route or id that its name suggests is taken".to_owned());
    };
    let rest = if matches!(method, "GET" | "DELETE") { "query" } else { "body" };
    let place = |one: &DescribedParameter| if Some(&*one.name) == key { "path" } else { rest };
    let entry = Written {
        route,
        procedure: &described.name,
        parameters: written(&inputs, &|one| Some(place(one)))?,
        result: match verb {
            Verb::ReadOne if outputs.is_empty() => "row",
            Verb::ReadMany if outputs.is_empty() => "rows",
            Verb::Remove if outputs.is_empty() => "none",
            _ => "full",
        },
        outputs: outputs.iter().map(|one| &*one.name).collect(),
        // What it does is not known well enough to be done twice.
        execution: matches!(method, "PUT" | "DELETE").then_some("at-most-once"),
        auth,
    };
    Ok((id, entry))
}

fn words_of(schema: &str) -> String {
    words(schema).join("-")
}

fn written<'a>(
    described: &[&'a DescribedParameter],
    place: &dyn Fn(&DescribedParameter) -> Option<&'static str>,
) -> Result<Parameters<'a>, String> {
    let mut parameters = Vec::new();
    for one in described {
        let DescribedParameter { name, declared, .. } = one;
        if !is_identifier(name) {
            return Err(format!("the name of @{name} is no plain identifier"));
        }
        let kind =
            one.kind.ok_or_else(|| format!("the catalogue has no type for @{name} {declared}"))?;
        let columns: Vec<&DescribedParameter> = one.columns.iter().collect();
        let columns = (kind == ParameterType::Table).then(|| written(&columns, &|_| None));
        let (minimum, maximum) = one.range.unzip();
        let parameter = Parameter {
            place: place(one),
            kind: kind.as_str(),
            required: place(one).filter(|place| *place != "path").map(|_| true),
            minimum,
            maximum,
            max_length: one.length_max,
            columns: columns.transpose()?,
        };
        parameters.push((name.as_str(), parameter));
    }
    Ok(Parameters(parameters))
}

fn fits_query(parameter: &DescribedParameter) -> bool {
    let is_bounded = parameter.length_max.is_some_and(|length| length <= QUERY_LENGTH_MAX);
    match parameter.kind {
        Some(ParameterType::Table | ParameterType::Json) | None => false,
        Some(ParameterType::Binary) => is_bounded,
        _ => true,
    }
}

/// Whether it can be a segment of the path.
fn fits_query_one(parameter: &DescribedParameter) -> bool {
    fits_query(parameter) && parameter.kind != Some(ParameterType::Binary)
}
