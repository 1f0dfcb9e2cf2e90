//! JSON structures that serde alone would read too leniently.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{
    Deserialize, Deserializer, Error as _, MapAccess, Visitor, value::MapAccessDeserializer,
};
use serde_json::value::RawValue;

/// A structure that must be written as an object. Serde alone would also accept an array.
#[derive(Debug, Default, JsonSchema)]
#[schemars(transparent)]
pub struct ObjectOnly<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ObjectOnly<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectOnlyVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectOnlyVisitor<T> {
            type Value = ObjectOnly<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(ObjectOnly)
            }
        }
        deserializer.deserialize_map(ObjectOnlyVisitor(PhantomData))
    }
}

/// The members of a JSON object in their original order. A duplicate name is an error.
#[derive(Debug)]
pub struct OrderedMembers<T>(pub Vec<(String, T)>);

impl<T> Default for OrderedMembers<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OrderedMembers<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OrderedMembersVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OrderedMembersVisitor<T> {
            type Value = OrderedMembers<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                let mut names = HashSet::new();
                while let Some((name, value)) = map.next_entry::<String, T>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format!("`{name}` is given more than once")));
                    }
                    members.push((name, value));
                }
                Ok(OrderedMembers(members))
            }
        }
        deserializer.deserialize_map(OrderedMembersVisitor(PhantomData))
    }
}

/// The members of a JSON object in their original order, with unparsed values. Duplicate names are kept.
#[derive(Debug)]
pub struct RawMembers<'a>(pub Vec<(String, &'a RawValue)>);

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

/// Returns every duplicate member of the objects in a JSON text, as its path (the keys, joined by dots) and its line.
///
/// # Errors
/// Returns a syntax error in the text.
pub fn duplicate_members(text: &str) -> Result<Vec<(String, usize)>, serde_json::Error> {
    let mut found = Vec::new();
    let document: &RawValue = serde_json::from_str(text)?;
    add_duplicates(text, document, "", &mut found)?;
    Ok(found)
}

fn add_duplicates(
    text: &str,
    value: &RawValue,
    key: &str,
    found: &mut Vec<(String, usize)>,
) -> Result<(), serde_json::Error> {
    match value.get().as_bytes().first() {
        Some(b'{') => {
            let RawMembers(members) = serde_json::from_str(value.get())?;
            let mut names = HashSet::new();
            for (name, value) in &members {
                let dot = if key.is_empty() { "" } else { "." };
                let key = format!("{key}{dot}{name}");
                if !names.insert(name) {
                    found.push((key.clone(), line_of(text, value)));
                }
                add_duplicates(text, value, &key, found)?;
            }
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(value.get())?;
            for (index, value) in items.into_iter().enumerate() {
                add_duplicates(text, value, &format!("{key}[{index}]"), found)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Returns the line in which a value starts, counted from 1. The value must have been read from the text.
#[must_use]
pub fn line_of(text: &str, value: &RawValue) -> usize {
    let offset = value.get().as_ptr().addr().saturating_sub(text.as_ptr().addr());
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    memchr::memchr_iter(b'\n', before).count() + 1
}

impl<T: JsonSchema> JsonSchema for OrderedMembers<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        BTreeMap::<String, T>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BTreeMap::<String, T>::json_schema(generator)
    }

    fn inline_schema() -> bool {
        true
    }
}
