//! Adds and removes items of an array or members of an object in JSON text.

use std::ops::Range;

use serde_json::value::RawValue;

use super::{Edit, SourceText};
use crate::catalogue::ExactJson;
use crate::catalogue::definition::json::RawMembers;
use crate::catalogue::exact_json::{LINE_WIDTH_MAX, quoted};
use crate::catalogue::example::pairing::pairs;

/// An item or member in the new version of an array or object.
#[derive(Clone, Copy, Debug)]
enum NewItem<'a> {
    /// An item of the old version, identified by its position.
    Old(usize),
    /// An added item. If it is a member, it also has a name.
    Added(Option<&'a str>, &'a ExactJson),
}

/// An array or object in the text, and its new version. At least one item or member is kept.
#[derive(Debug)]
pub(super) struct ContainerEdit<'a> {
    source: SourceText<'a>,
    range: Range<usize>,
    /// The ranges of the items, or of the members including their names.
    places: Vec<Range<usize>>,
    /// The items or members of the new version, in order.
    new: Vec<NewItem<'a>>,
    /// The kept values and their new versions.
    pub(super) kept: Vec<(&'a RawValue, &'a ExactJson)>,
}

impl<'a> ContainerEdit<'a> {
    /// Compares an array with its new version. Returns `None` if no item is kept.
    pub(super) fn array(
        source: SourceText<'a>,
        old: &'a RawValue,
        (old_items, items): (&[ExactJson], &'a [ExactJson]),
    ) -> Result<Option<Self>, String> {
        let raw: Vec<&RawValue> =
            serde_json::from_str(old.get()).map_err(|error| error.to_string())?;
        let is_same = |at: usize, to: usize| old_items.get(at) == items.get(to);
        let mut paired = pairs(raw.len(), items.len(), is_same).into_iter().peekable();
        let (mut new, mut kept) = (Vec::with_capacity(items.len()), Vec::new());
        for (to, item) in items.iter().enumerate() {
            let pair = paired.next_if(|(_, other)| *other == to);
            match pair.and_then(|(at, _)| Some((at, raw.get(at)?))) {
                Some((at, raw)) => {
                    new.push(NewItem::Old(at));
                    kept.push((*raw, item));
                }
                None => new.push(NewItem::Added(None, item)),
            }
        }
        let places = raw.iter().map(|raw| source.range_of(raw)).collect();
        let container = Self { source, range: source.range_of(old), places, new, kept };
        Ok((!container.kept.is_empty()).then_some(container))
    }

    /// Compares an object with its new version. Returns `None` if no member is kept. Kept members stay in their order,
    /// and an added member is placed after the member that it follows in the new version.
    pub(super) fn object(
        source: SourceText<'a>,
        old: &'a RawValue,
        members: &'a [(Box<str>, ExactJson)],
    ) -> Result<Option<Self>, String> {
        let RawMembers(raw) = serde_json::from_str(old.get()).map_err(|error| error.to_string())?;
        let range = source.range_of(old);
        let (mut places, mut from) = (Vec::with_capacity(raw.len()), range.start + 1);
        for (_, value) in &raw {
            // Only whitespace and a comma precede the name.
            let between = source.text.get(from..).unwrap_or_default();
            let start = from + between.find('"').unwrap_or_default();
            from = source.range_of(value).end;
            places.push(start..from);
        }
        let (mut new, mut kept) = (Vec::new(), Vec::new());
        for (at, (name, raw)) in raw.iter().enumerate() {
            if let Some((_, value)) = members.iter().find(|(known, _)| **known == **name) {
                new.push((&**name, NewItem::Old(at)));
                kept.push((*raw, value));
            }
        }
        let mut before: Option<&str> = None;
        for (name, value) in members {
            if !raw.iter().any(|(known, _)| **known == **name) {
                let place = new.iter().position(|(known, _)| Some(*known) == before);
                let added = NewItem::Added(Some(name), value);
                new.insert(place.map_or(0, |place| place + 1), (&**name, added));
            }
            before = Some(name);
        }
        let new = new.into_iter().map(|(_, item)| item).collect();
        let container = Self { source, range, places, new, kept };
        Ok((!container.kept.is_empty()).then_some(container))
    }

    /// Returns whether the new version contains added items.
    pub(super) fn has_new(&self) -> bool {
        self.new.iter().any(|item| matches!(item, NewItem::Added(..)))
    }

    /// Returns whether the container still fits on one line after these edits. Always returns true if the container did
    /// not fit on one line before.
    pub(super) fn fits(&self, edits: &[Edit]) -> bool {
        let old = self.source.text.get(self.range.clone()).unwrap_or_default();
        let (_, column) = self.source.position(self.range.start);
        let is_short =
            |text: &str| !text.contains('\n') && column + text.chars().count() <= LINE_WIDTH_MAX;
        !is_short(old) || is_short(&self.source.edited(self.range.clone(), edits))
    }

    /// Returns the edits that add and remove items. The edits do not overlap with the kept items.
    pub(super) fn edits(&self) -> Vec<Edit> {
        let mut found = Vec::new();
        let separator = self.separator();
        let (mut last, mut added) = (None, Vec::new());
        for item in &self.new {
            match item {
                NewItem::Added(name, value) => added.push((*name, *value)),
                NewItem::Old(at) => {
                    found.extend(self.between((last, Some(*at)), &added, &separator));
                    added.clear();
                    last = Some(*at);
                }
            }
        }
        found.extend(self.between((last, None), &added, &separator));
        found
    }

    /// Returns the edit between two kept items, or at an end of the container. It removes the old items there and adds
    /// the new ones.
    fn between(
        &self,
        (last, next): (Option<usize>, Option<usize>),
        added: &[(Option<&str>, &ExactJson)],
        separator: &str,
    ) -> Option<Edit> {
        let count = self.places.len();
        let removed = last.map_or(0, |last| last + 1)..next.unwrap_or(count);
        if removed.is_empty() && added.is_empty() {
            return None;
        }
        let place = |at: usize| self.places.get(at).cloned();
        let range = match (last, next) {
            (Some(last), Some(next)) => place(last)?.end..place(next)?.start,
            (Some(last), None) => place(last)?.end..place(count.checked_sub(1)?)?.end,
            (None, Some(next)) => place(0)?.start..place(next)?.start,
            (None, None) => return None,
        };
        let mut text = String::new();
        for (name, value) in added {
            if last.is_some() {
                text.push_str(separator);
            }
            text.push_str(&self.added(separator, *name, value));
            if last.is_none() {
                text.push_str(separator);
            }
        }
        if let (Some(_), Some(next)) = (last, next) {
            let before = place(next.checked_sub(1)?)?.end..place(next)?.start;
            text.push_str(&self.text(before));
        }
        Some(Edit::new(self.source, range, text))
    }

    /// Returns the shortest text between two items. If there is only one item, derives the text from the line break
    /// before the item.
    fn separator(&self) -> String {
        let neighbours = self.places.iter().zip(self.places.iter().skip(1));
        let separators = neighbours.map(|(one, other)| self.text(one.end..other.start));
        let shortest = separators.min_by_key(String::len);
        shortest.unwrap_or_else(|| {
            let only = self.places.first().map_or(self.range.end, |only| only.start);
            let before = self.text(self.range.start + 1..only);
            if before.contains('\n') { format!(",{before}") } else { ", ".to_owned() }
        })
    }

    /// Returns a part of the text with `\n` line endings, which `Edit` converts back.
    fn text(&self, range: Range<usize>) -> String {
        self.source.text.get(range).unwrap_or_default().replace("\r\n", "\n")
    }

    /// Returns the text of an added item.
    fn added(&self, separator: &str, name: Option<&str>, value: &ExactJson) -> String {
        let start = name.map(|name| format!("{}: ", quoted(name))).unwrap_or_default();
        let (indent, column) = match separator.rsplit_once('\n') {
            Some((_, indent)) => (indent, indent.chars().count()),
            None => self.source.position(self.range.start),
        };
        let column = column + start.chars().count();
        format!("{start}{}", value.to_indented(indent, self.source.unit, column))
    }
}
