//! Reads JSON objects and tables strictly: unknown and duplicate members are violations.
//!
//! No document tree is built. An object is split into the texts of its members, and each text is validated against its
//! parameter.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{from_json, wrong_type};
use crate::catalogue::parameter::{Parameter, ParameterSource};
use crate::catalogue::value::{ParameterValue, ReceivedValue};
use crate::catalogue::violations::{GIVEN_TWICE, JsonPointer, Location, REQUIRED, Violations};

pub(super) const LONE_SURROGATE: &str = "contains an unpaired surrogate";
pub(super) const NUL: &str = "must not contain U+0000";

/// Returns the text of a JSON string, or `None` if an escape is an unpaired surrogate.
pub(super) fn unescape(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(raw).ok().map(Cow::Owned);
    }
    // The deserializer rejected control characters when it searched for the end of this string.
    Some(Cow::Borrowed(inner))
}

/// Reads the members of a JSON object into `values`, which has one element for each of `parameters`.
///
/// Only parameters with this `source` can be members. If `source` is `None`, all of `parameters` can be members. An
/// unknown, duplicate or invalid member is a violation.
pub fn read_object<'a>(
    text: &'a str,
    parameters: &[Parameter],
    source: Option<ParameterSource>,
    pointer: &JsonPointer<'_>,
    (values, violations): (&mut [ReceivedValue<'a>], &mut Violations),
) {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let reader = ObjectReader { parameters, source, pointer, values, violations };
    // The reader records violations itself and returns only syntax errors.
    let read = deserializer.deserialize_map(reader).and_then(|()| deserializer.end());
    if let Err(error) = read {
        violations.add(Location::Json(pointer), syntax_error(&error, "expected a JSON object"));
    }
}

/// Returns the detail of a syntax error. The library's own message is not used, because it could repeat the client's text.
pub(super) fn syntax_error(error: &serde_json::Error, expected: &str) -> String {
    match error.classify() {
        serde_json::error::Category::Eof => "the JSON ends too early".to_owned(),
        serde_json::error::Category::Data => expected.to_owned(),
        _ => format!("not JSON: error at line {}, column {}", error.line(), error.column()),
    }
}

struct ObjectReader<'s, 'a> {
    parameters: &'s [Parameter],
    source: Option<ParameterSource>,
    pointer: &'s JsonPointer<'s>,
    values: &'s mut [ReceivedValue<'a>],
    violations: &'s mut Violations,
}

impl<'a> Visitor<'a> for ObjectReader<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(MemberName)? {
            let raw: &RawValue = map.next_value()?;
            if self.violations.is_full() {
                continue;
            }
            let pointer = self.pointer.key(&name);
            let location = Location::Json(&pointer);
            let declared = self.parameters.iter().zip(self.values.iter_mut()).find(|(p, _)| {
                *p.name == *name && self.source.is_none_or(|source| source == p.source)
            });
            match declared {
                None => self.violations.add(location, "unknown member"),
                Some((_, value)) if !matches!(value, ReceivedValue::Absent) => {
                    self.violations.add(location, GIVEN_TWICE);
                }
                Some((parameter, value)) => {
                    *value = from_json(parameter, raw, location, self.violations).into();
                }
            }
        }
        Ok(())
    }
}

/// Reads the name of a member. The name is borrowed if it contains no escape.
pub(super) struct MemberName;

impl<'de> DeserializeSeed<'de> for MemberName {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for MemberName {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// Validates a `table`: an array of objects whose members are the declared columns.
pub(super) fn read_table<'a>(
    parameter: &Parameter,
    text: &'a str,
    location: Location<'_>,
    violations: &mut Violations,
) -> Option<ParameterValue<'a>> {
    let Location::Json(pointer) = location else {
        return wrong_type(parameter, location, violations);
    };
    let before = violations.len();
    let mut rows = Vec::new();
    let reader = TableReader { parameter, pointer, rows: &mut rows, violations };
    let read = serde_json::Deserializer::from_str(text).deserialize_seq(reader);
    if read.is_err() && violations.len() == before {
        return wrong_type(parameter, location, violations);
    }
    (violations.len() == before).then_some(ParameterValue::Table(rows))
}

struct TableReader<'s, 'a> {
    parameter: &'s Parameter,
    pointer: &'s JsonPointer<'s>,
    rows: &'s mut Vec<Vec<ParameterValue<'a>>>,
    violations: &'s mut Violations,
}

impl<'a> Visitor<'a> for TableReader<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        let columns = &self.parameter.columns;
        for index in 0.. {
            let Some(raw) = seq.next_element::<&RawValue>()? else {
                break;
            };
            if let Some(max) = self.parameter.constraints.items_max.filter(|max| index >= *max) {
                let detail = format!("expected at most {max} items");
                self.violations.add(Location::Json(self.pointer), detail);
                return Err(A::Error::custom("too many items"));
            }
            if self.violations.is_full() {
                return Err(A::Error::custom("too many violations"));
            }
            let pointer = self.pointer.index(index);
            if !raw.get().starts_with('{') {
                self.violations.add(Location::Json(&pointer), "expected an object");
                continue;
            }
            let mut values = vec![ReceivedValue::Absent; columns.len()];
            read_object(raw.get(), columns, None, &pointer, (&mut values, self.violations));
            let row = columns.iter().zip(values).map(|(column, value)| match value {
                ReceivedValue::Valid(value) => value,
                ReceivedValue::Invalid => ParameterValue::Null,
                ReceivedValue::Absent => {
                    if column.required {
                        let pointer = pointer.key(&column.name);
                        self.violations.add(Location::Json(&pointer), REQUIRED);
                    }
                    column.default.clone().unwrap_or(ParameterValue::Null)
                }
            });
            let row = row.collect();
            self.rows.push(row);
        }
        Ok(())
    }
}
