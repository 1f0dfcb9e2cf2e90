//! Reads JSON objects key by key, so that every error in them is reported.

use std::collections::HashSet;

use serde::de::Deserialize;
use serde_json::value::RawValue;

use super::ParameterDefinition;
use super::json::RawMembers;
use crate::catalogue::error::EndpointErrors;
use crate::spelling::closest;

/// The error for an unknown key lists the known keys only if there are at most this many.
const KEYS_LISTED_MAX: usize = 8;

/// Returns the text of a JSON object without the members that `T` cannot deserialize. Each of these members is reported
/// as an error. The members `parameters` and `columns` contain definitions of parameters.
pub(in crate::catalogue) fn valid_keys<T: for<'de> Deserialize<'de>>(
    raw: &RawValue,
    prefix: &str,
    errors: &mut EndpointErrors<'_>,
) -> Option<String> {
    read_keys::<T>(raw, prefix, true, errors)
}

/// Like `valid_keys`, but for an object without definitions of parameters.
pub(in crate::catalogue) fn valid_simple_keys<T: for<'de> Deserialize<'de>>(
    raw: &RawValue,
    prefix: &str,
    errors: &mut EndpointErrors<'_>,
) -> Option<String> {
    read_keys::<T>(raw, prefix, false, errors)
}

fn read_keys<T: for<'de> Deserialize<'de>>(
    raw: &RawValue,
    prefix: &str,
    defines_parameters: bool,
    errors: &mut EndpointErrors<'_>,
) -> Option<String> {
    let members: RawMembers<'_> = match serde_json::from_str(raw.get()) {
        Ok(members) => members,
        Err(error) => {
            errors.add(prefix.trim_end_matches('.'), message(&error));
            return None;
        }
    };
    let mut valid: Vec<String> = Vec::new();
    let present: HashSet<String> = members.0.iter().map(|(name, _)| name.clone()).collect();
    let mut names = HashSet::new();
    for (name, value) in members.0 {
        let key = format!("{prefix}{name}");
        if !names.insert(name.clone()) {
            errors.add(&key, "given more than once");
            continue;
        }
        let alone = format!("{{{}:{}}}", quoted(&name), value.get());
        match serde_json::from_str::<T>(&alone) {
            Ok(_) => valid.push(format!("{}:{}", quoted(&name), value.get())),
            Err(_) if defines_parameters && (name == "parameters" || name == "columns") => {
                if let Some(parameters) = valid_parameters(value, &key, errors) {
                    valid.push(format!("{}:{parameters}", quoted(&name)));
                }
            }
            Err(error) => {
                let KeyError { inner, message, suggested } = KeyError::new(&error, &name);
                // A key that is present is not missing because of the misspelt one.
                let (table, is_present) = if inner.is_empty() {
                    (prefix, suggested.as_ref().is_some_and(|name| present.contains(name)))
                } else {
                    (
                        &*format!("{key}."),
                        suggested.as_ref().is_some_and(|name| has_member(value, name)),
                    )
                };
                let absent = suggested.filter(|_| !is_present);
                errors.suggested.extend(absent.map(|name| format!("{table}{name}")));
                let dot = if inner.is_empty() { "" } else { "." };
                errors.add(format!("{key}{dot}{inner}"), message);
            }
        }
    }
    Some(format!("{{{}}}", valid.join(",")))
}

fn valid_parameters(raw: &RawValue, key: &str, errors: &mut EndpointErrors<'_>) -> Option<String> {
    let parameters: RawMembers<'_> =
        serde_json::from_str(raw.get()).map_err(|error| errors.add(key, message(&error))).ok()?;
    let mut valid = Vec::new();
    let mut names = HashSet::new();
    for (name, value) in parameters.0 {
        let key = format!("{key}.{name}");
        if !names.insert(name.clone()) {
            errors.add(&key, "given more than once");
        } else if let Some(keys) =
            valid_keys::<ParameterDefinition>(value, &format!("{key}."), errors)
        {
            valid.push(format!("{}:{keys}", quoted(&name)));
        }
    }
    Some(format!("{{{}}}", valid.join(",")))
}

/// Returns whether an object has a member with this name.
fn has_member(raw: &RawValue, name: &str) -> bool {
    let members = serde_json::from_str::<RawMembers<'_>>(raw.get());
    members.is_ok_and(|members| members.0.iter().any(|(known, _)| *known == *name))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Returns an error's message without its position, which refers to a fragment of the file.
pub(in crate::catalogue) fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text).to_owned()
}

/// An error in a member of an object.
struct KeyError {
    /// The unknown key in the value of the member; empty if the error concerns the member itself.
    inner: String,
    message: String,
    /// The key that the message suggests for an unknown one.
    suggested: Option<String>,
}

impl KeyError {
    /// Describes an error in a member. For an unknown key or value, the message names only the most similar known one.
    fn new(error: &serde_json::Error, member: &str) -> Self {
        let text = message(error);
        // Messages of serde: "unknown field `a`, expected one of `b`, `c`", or "unknown variant …" for a value.
        let parts = text.strip_prefix("unknown field `").map(|rest| (true, rest));
        let parts =
            parts.or_else(|| text.strip_prefix("unknown variant `").map(|rest| (false, rest)));
        let found = parts.and_then(|(is_field, rest)| {
            let (unknown, known) = rest.rsplit_once("`, expected ")?;
            Some((is_field, unknown, known))
        });
        let Some((is_field, unknown, known)) = found else {
            return Self { inner: String::new(), message: text, suggested: None };
        };
        let similar = closest(unknown, known.split('`').skip(1).step_by(2));
        let inner = if is_field && unknown != member { unknown.to_owned() } else { String::new() };
        let message = match (is_field, similar) {
            (true, Some(similar)) => format!("is not a key: did you mean {similar}?"),
            (true, None) if known.split(',').count() > KEYS_LISTED_MAX => {
                "is not a key: fjord schema describes all keys".to_owned()
            }
            (true, None) => format!("is not a key: expected {known}"),
            (false, Some(similar)) => format!("{unknown:?}: did you mean {similar}?"),
            (false, None) => format!("{unknown:?}: expected {known}"),
        };
        let suggested = similar.filter(|_| is_field).map(ToOwned::to_owned);
        Self { inner, message, suggested }
    }
}
