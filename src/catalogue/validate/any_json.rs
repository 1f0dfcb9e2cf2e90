//! Validates the JSON of a `json` parameter: syntax, nesting depth, duplicate members, unpaired surrogates and NUL.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::json::{MemberName, NUL, syntax_error};
use crate::catalogue::parameter::Parameter;
use crate::catalogue::value::ParameterValue;
use crate::catalogue::violations::{GIVEN_TWICE, JsonPointer, Location, Violations};

/// The maximum nesting depth of objects and arrays.
const DEPTH_MAX: usize = 64;
/// The number of members up to which a linear search for a name is cheaper than hashing.
const LINEAR_SEARCH_MAX: usize = 16;

/// Validates JSON and returns its text unchanged.
pub(super) fn validate<'a>(
    parameter: &Parameter,
    text: Cow<'a, str>,
    location: Location<'_>,
    violations: &mut Violations,
) -> Option<ParameterValue<'a>> {
    let before = violations.len();
    let root = JsonPointer::ROOT;
    let (pointer, fixed) = match location {
        Location::Json(pointer) => (pointer, None),
        Location::Parameter(_) => (&root, Some(location)),
    };
    let mut checker = JsonChecker { pointer, fixed, violations, items: None };
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let read = (&mut checker).deserialize(&mut deserializer).and_then(|()| deserializer.end());
    let items = checker.items;
    if let Err(error) = read
        && violations.len() == before
    {
        violations.add(location, syntax_error(&error, "expected JSON"));
    }
    let constraints = &parameter.constraints;
    if let Some(max) = constraints.items_max.filter(|max| items.is_some_and(|n| n > *max)) {
        violations.add(location, format!("expected at most {max} items"));
    }
    if let Some(max) = constraints.length_max.filter(|max| text.chars().count() > *max) {
        violations.add(location, format!("expected at most {max} characters"));
    }
    (violations.len() == before).then_some(ParameterValue::Json(text))
}

/// Validates any JSON value without building a document.
struct JsonChecker<'s> {
    pointer: &'s JsonPointer<'s>,
    /// The location reported for all violations, if the JSON is not part of a body.
    fixed: Option<Location<'s>>,
    violations: &'s mut Violations,
    /// The number of items in the outermost array.
    items: Option<usize>,
}

impl JsonChecker<'_> {
    fn add(&mut self, pointer: &JsonPointer<'_>, detail: &'static str) {
        match self.fixed {
            // Without the pointer, the detail "given more than once" would refer to the parameter.
            Some(location) if pointer.depth() > 0 => {
                self.violations.add(location, format!("{pointer}: {detail}"));
            }
            Some(location) => self.violations.add(location, detail),
            None => self.violations.add(Location::Json(pointer), detail),
        }
    }

    fn check_depth<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.pointer.depth() >= DEPTH_MAX {
            self.add(self.pointer, "nested too deeply: expected at most 64 levels");
            return Err(E::custom("too deep"));
        }
        Ok(())
    }

    fn child<'t>(&'t mut self, pointer: &'t JsonPointer<'t>) -> JsonChecker<'t> {
        JsonChecker { pointer, fixed: self.fixed, violations: self.violations, items: None }
    }
}

impl<'de> DeserializeSeed<'de> for &mut JsonChecker<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut JsonChecker<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if text.contains('\0') {
            self.add(self.pointer, NUL);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.check_depth()?;
        let pointer = self.pointer;
        let mut count = 0;
        loop {
            let item = pointer.index(count);
            if seq.next_element_seed(&mut self.child(&item))?.is_none() {
                break;
            }
            count += 1;
        }
        self.items = Some(count);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.check_depth()?;
        let pointer = self.pointer;
        let mut names = NameSet::default();
        while let Some(name) = map.next_key_seed(MemberName)? {
            let member = pointer.key(&name);
            if name.contains('\0') {
                self.add(&member, NUL);
            }
            map.next_value_seed(&mut self.child(&member))?;
            if !names.insert(name.clone()) {
                self.add(&member, GIVEN_TWICE);
            }
        }
        Ok(())
    }
}

/// The member names of one object.
#[derive(Default)]
struct NameSet<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> NameSet<'a> {
    /// Adds a name and returns whether it was absent before.
    fn insert(&mut self, name: Cow<'a, str>) -> bool {
        if !self.many.is_empty() {
            return self.many.insert(name);
        }
        if self.few.contains(&name) {
            return false;
        }
        self.few.push(name);
        if self.few.len() > LINEAR_SEARCH_MAX {
            self.many.extend(self.few.drain(..));
        }
        true
    }
}
