//! Reads JSON objects key by key, so that every error in them is reported.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::ParameterDefinition;
use crate::catalogue::error::EndpointErrors;

/// Returns the text of a JSON object without the members that `T` cannot deserialize, each of which is reported as an error.
pub(in crate::catalogue) fn valid_keys<T: for<'de> Deserialize<'de>>(
    raw: &RawValue,
    prefix: &str,
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
            Err(_) if name == "parameters" || name == "columns" => {
                if let Some(parameters) = valid_parameters(value, &key, errors) {
                    valid.push(format!("{}:{parameters}", quoted(&name)));
                }
            }
            Err(error) => errors.add(&key, message(&error)),
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

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Returns an error's message without its position, which refers to a fragment of the file.
pub(in crate::catalogue) fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text).to_owned()
}

/// The members of a JSON object in their original order, with unparsed values. Duplicate names are kept.
pub(in crate::catalogue) struct RawMembers<'a>(
    pub(in crate::catalogue) Vec<(String, &'a RawValue)>,
);

impl<'de: 'a, 'a> Deserialize<'de> for RawMembers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawMembersVisitor;
        impl<'de> Visitor<'de> for RawMembersVisitor {
            type Value = RawMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawMembers<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<String, &'de RawValue>()? {
                    members.push(member);
                }
                Ok(RawMembers(members))
            }
        }
        deserializer.deserialize_map(RawMembersVisitor)
    }
}
