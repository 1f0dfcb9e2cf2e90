//! JSON that is read with suspicion: duplicate members, depth, lone surrogates, NUL.
//!
//! No tree is built. An object is cut into the texts of its members, and each goes to its parameter.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Checked, Slot, from_raw, wrong_type};
use crate::catalogue::findings::{Findings, Pointer, Spot};
use crate::catalogue::parameter::{Parameter, Place};

/// Objects and arrays inside each other, at most.
pub const DEPTH_MAX: usize = 64;
/// Members up to which looking at each is cheaper than hashing.
const LINEAR_MAX: usize = 16;

pub(super) const LONE_SURROGATE: &str = "contains half of a surrogate pair, which is no character";
/// What is said of bytes that are no text.
pub const NOT_UTF8: &str = "not UTF-8";
pub(super) const NUL: &str = "must not contain U+0000";
/// What is said of a parameter that is not there.
pub const REQUIRED: &str = "required";
/// What is said of a parameter that is there again.
pub const TWICE: &str = "given more than once";

/// The text of a JSON string; `None` when an escape is half of a surrogate pair.
pub(super) fn unescape(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(raw).ok().map(Cow::Owned);
    }
    // The scan that found the end of this string has refused control characters.
    Some(Cow::Borrowed(inner))
}

/// Reads the members of a JSON object into `slots`, one for each parameter at `place` (of all places
/// for `None`). Members that no such parameter has are findings, as is each that does not fit.
pub fn object<'a>(
    text: &'a str,
    parameters: &[Parameter],
    place: Option<Place>,
    at: &Pointer<'_>,
    (slots, findings): (&mut [Slot<'a>], &mut Findings),
) {
    let mut reader = serde_json::Deserializer::from_str(text);
    let members = Members { parameters, place, at, slots, findings };
    // What the visitor finds is in `findings`; its own errors are of JSON's grammar.
    let read = reader.deserialize_map(members).and_then(|()| reader.end());
    if let Err(error) = read {
        findings.add(Spot::At(at), grammar(&error, "expected a JSON object"));
    }
}

/// Says where a text stops being JSON. The library's own words could repeat what was sent.
fn grammar(error: &serde_json::Error, expected: &str) -> String {
    match error.classify() {
        serde_json::error::Category::Eof => "the JSON ends too early".to_owned(),
        serde_json::error::Category::Data => expected.to_owned(),
        _ => format!("not JSON: error at line {}, column {}", error.line(), error.column()),
    }
}

struct Members<'s, 'a> {
    parameters: &'s [Parameter],
    place: Option<Place>,
    at: &'s Pointer<'s>,
    slots: &'s mut [Slot<'a>],
    findings: &'s mut Findings,
}

impl<'a> Visitor<'a> for Members<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(Key)? {
            let raw: &RawValue = map.next_value()?;
            if self.findings.is_full() {
                continue;
            }
            let at = self.at.key(&name);
            let found = self.parameters.iter().zip(self.slots.iter_mut()).find(|(parameter, _)| {
                *parameter.name == *name && self.place.is_none_or(|place| place == parameter.place)
            });
            match found {
                None => self.findings.add(Spot::At(&at), "unknown member"),
                Some((_, slot)) if !matches!(slot, Slot::Absent) => {
                    self.findings.add(Spot::At(&at), TWICE);
                }
                Some((parameter, slot)) => {
                    *slot = from_raw(parameter, raw, Spot::At(&at), self.findings).into();
                }
            }
        }
        Ok(())
    }
}

/// A member's name, borrowed where it has no escape.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
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

/// The names of an object so far.
#[derive(Default)]
struct Seen<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> Seen<'a> {
    /// Whether the name is new.
    fn insert(&mut self, name: Cow<'a, str>) -> bool {
        if !self.many.is_empty() {
            return self.many.insert(name);
        }
        if self.few.contains(&name) {
            return false;
        }
        self.few.push(name);
        if self.few.len() > LINEAR_MAX {
            self.many.extend(self.few.drain(..));
        }
        true
    }
}

/// Checks a `table`: an array of objects whose members are the declared columns.
pub(super) fn table<'a>(
    parameter: &Parameter,
    text: &'a str,
    spot: Spot<'_>,
    findings: &mut Findings,
) -> Option<Checked<'a>> {
    let Spot::At(at) = spot else {
        return wrong_type(parameter, spot, findings);
    };
    let before = findings.count();
    let mut rows = Vec::new();
    let reader = Rows { parameter, at, into: &mut rows, findings };
    let read = serde_json::Deserializer::from_str(text).deserialize_seq(reader);
    if read.is_err() && findings.count() == before {
        return wrong_type(parameter, spot, findings);
    }
    (findings.count() == before).then_some(Checked::Table(rows))
}

struct Rows<'s, 'a> {
    parameter: &'s Parameter,
    at: &'s Pointer<'s>,
    into: &'s mut Vec<Vec<Checked<'a>>>,
    findings: &'s mut Findings,
}

impl<'a> Visitor<'a> for Rows<'_, 'a> {
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
            if let Some(most) = self.parameter.constraints.items_max.filter(|most| index >= *most) {
                self.findings.add(Spot::At(self.at), format!("expected at most {most} items"));
                return Err(A::Error::custom("too many"));
            }
            if self.findings.is_full() {
                return Err(A::Error::custom("enough"));
            }
            let at = self.at.index(index);
            if !raw.get().starts_with('{') {
                self.findings.add(Spot::At(&at), "expected an object");
                continue;
            }
            let mut slots = vec![Slot::Absent; columns.len()];
            object(raw.get(), columns, None, &at, (&mut slots, self.findings));
            let row = columns.iter().zip(slots).map(|(column, slot)| match slot {
                Slot::Given(value) => value,
                Slot::Refused => Checked::Null,
                Slot::Absent => {
                    if column.required {
                        self.findings.add(Spot::At(&at.key(&column.name)), REQUIRED);
                    }
                    column.default.as_ref().map_or(Checked::Null, owned)
                }
            });
            let row = row.collect();
            self.into.push(row);
        }
        Ok(())
    }
}

/// A default's copy: the catalogue does not live as long as the request. Columns hold no tables.
fn owned<'a>(value: &crate::catalogue::Value) -> Checked<'a> {
    match Checked::from(value) {
        Checked::Decimal(text) => Checked::Decimal(Cow::Owned(text.into_owned())),
        Checked::Text(text) => Checked::Text(Cow::Owned(text.into_owned())),
        Checked::Json(text) => Checked::Json(Cow::Owned(text.into_owned())),
        Checked::Boolean(value) => Checked::Boolean(value),
        Checked::Integer(value) => Checked::Integer(value),
        Checked::Number(value) => Checked::Number(value),
        Checked::Binary(bytes) => Checked::Binary(bytes),
        Checked::Null | Checked::Table(_) => Checked::Null,
    }
}

/// Checks a `json` parameter. Its text is kept as it was sent.
pub(super) fn text<'a>(
    parameter: &Parameter,
    text: Cow<'a, str>,
    spot: Spot<'_>,
    findings: &mut Findings,
) -> Option<Checked<'a>> {
    let before = findings.count();
    let root = Pointer::ROOT;
    let (at, named) = match spot {
        Spot::At(at) => (at, None),
        Spot::Named(_) => (&root, Some(spot)),
    };
    let mut strict = Strict { at, named, findings, items: None };
    let mut reader = serde_json::Deserializer::from_str(&text);
    let read = (&mut strict).deserialize(&mut reader).and_then(|()| reader.end());
    let items = strict.items;
    if let Err(error) = read
        && findings.count() == before
    {
        findings.add(spot, grammar(&error, "expected JSON"));
    }
    let rules = &parameter.constraints;
    if let Some(most) = rules.items_max.filter(|most| items.is_some_and(|items| items > *most)) {
        findings.add(spot, format!("expected at most {most} items"));
    }
    if let Some(most) = rules.length_max.filter(|most| text.chars().count() > *most) {
        findings.add(spot, format!("expected at most {most} characters"));
    }
    (findings.count() == before).then_some(Checked::Json(text))
}

/// Walks any JSON value and keeps nothing of it.
struct Strict<'s> {
    at: &'s Pointer<'s>,
    /// The parameter, when the JSON stands outside a body.
    named: Option<Spot<'s>>,
    findings: &'s mut Findings,
    /// How many items the outermost array has.
    items: Option<usize>,
}

impl Strict<'_> {
    fn find(&mut self, at: &Pointer<'_>, detail: &'static str) {
        let spot = self.named.unwrap_or(Spot::At(at));
        self.findings.add(spot, detail);
    }

    fn enter<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.at.depth() >= DEPTH_MAX {
            self.find(self.at, "nested too deeply: expected at most 64 levels");
            return Err(E::custom("too deep"));
        }
        Ok(())
    }

    fn below<'t>(&'t mut self, at: &'t Pointer<'t>) -> Strict<'t> {
        Strict { at, named: self.named, findings: self.findings, items: None }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Strict<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Strict<'_> {
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
            self.find(self.at, NUL);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.enter()?;
        let at = self.at;
        let mut count = 0;
        loop {
            let here = at.index(count);
            if seq.next_element_seed(&mut self.below(&here))?.is_none() {
                break;
            }
            count += 1;
        }
        self.items = Some(count);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.enter()?;
        let at = self.at;
        let mut seen = Seen::default();
        while let Some(name) = map.next_key_seed(Key)? {
            let here = at.key(&name);
            if name.contains('\0') {
                self.find(&here, NUL);
            }
            map.next_value_seed(&mut self.below(&here))?;
            if !seen.insert(name.clone()) {
                self.find(&here, TWICE);
            }
        }
        Ok(())
    }
}
