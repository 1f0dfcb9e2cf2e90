//! What is wrong with a request: gathered, with the place of each, up to a bound.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::parameter::{Parameter, Place};
use crate::problem::Violation;

/// Violations that one answer tells. A body of nothing but errors must not become a larger answer.
pub const VIOLATIONS_MAX: usize = 64;
/// Characters of a client's own parameter name that a violation repeats.
const NAME_CHARS_MAX: usize = 64;

/// The violations of one request so far.
#[derive(Debug, Default)]
pub struct Findings {
    violations: Vec<Violation>,
}

impl Findings {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.violations.is_empty()
    }

    /// How many were found.
    #[must_use]
    pub fn count(&self) -> usize {
        self.violations.len()
    }

    /// Whether no more are gathered.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.violations.len() >= VIOLATIONS_MAX
    }

    /// Adds one, unless there are enough.
    pub fn add(&mut self, spot: Spot<'_>, detail: impl Into<String>) {
        if !self.is_full() {
            self.violations.push(spot.violation(detail.into()));
        }
    }

    /// Adds one for a name that the endpoint does not have.
    pub fn add_unknown(&mut self, place: Place, name: &str, detail: &'static str) {
        if !self.is_full() {
            let name: String = name.chars().take(NAME_CHARS_MAX).collect();
            self.violations.push(Violation::of_parameter(place.as_str(), &name, detail));
        }
    }

    /// Adds one for a header that must be there.
    pub fn add_missing_header(&mut self, name: &str) {
        if !self.is_full() {
            self.violations.push(Violation::of_parameter(
                Place::Header.as_str(),
                name,
                super::check::json::REQUIRED,
            ));
        }
    }

    /// All of them.
    #[must_use]
    pub fn into_violations(self) -> Vec<Violation> {
        self.violations
    }
}

/// Where a value stands.
#[derive(Clone, Copy, Debug)]
pub enum Spot<'a> {
    /// Outside a body, under its parameter's name.
    Named(&'a Parameter),
    /// In a JSON text.
    At(&'a Pointer<'a>),
}

impl Spot<'_> {
    fn violation(self, detail: String) -> Violation {
        match self {
            Self::Named(parameter) => {
                Violation::of_parameter(parameter.place.as_str(), &parameter.name, detail)
            }
            Self::At(pointer) => Violation::of_body(pointer.to_string(), detail),
        }
    }
}

/// A JSON Pointer (RFC 6901) as steps on the stack: it costs nothing until it is written.
#[derive(Clone, Copy, Debug)]
pub struct Pointer<'a> {
    parent: Option<&'a Pointer<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl<'a> Pointer<'a> {
    /// The whole text.
    pub const ROOT: Pointer<'static> = Pointer { parent: None, step: Step::Root };

    /// A member of the object here.
    #[must_use]
    pub fn key(&'a self, key: &'a str) -> Pointer<'a> {
        Pointer { parent: Some(self), step: Step::Key(key) }
    }

    /// An item of the array here.
    #[must_use]
    pub fn index(&'a self, index: usize) -> Pointer<'a> {
        Pointer { parent: Some(self), step: Step::Index(index) }
    }

    /// How many objects and arrays are around it.
    #[must_use]
    pub fn depth(&self) -> usize {
        std::iter::successors(self.parent, |pointer| pointer.parent).count()
    }
}

impl std::fmt::Display for Pointer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Index(index) => write!(f, "/{index}"),
            Step::Key(key) => {
                f.write_char('/')?;
                for c in key.chars().take(NAME_CHARS_MAX) {
                    match c {
                        '~' => f.write_str("~0")?,
                        '/' => f.write_str("~1")?,
                        c => f.write_char(c)?,
                    }
                }
                Ok(())
            }
        }
    }
}

/// What a value is not; said about a `Spot` by whoever knows it.
pub type Expected = Cow<'static, str>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_escapes_its_keys() {
        let entries = Pointer::ROOT.key("a/b~c");
        let third = entries.index(3);
        let leaf = third.key("ueln");
        assert_eq!(leaf.to_string(), "/a~1b~0c/3/ueln");
        assert_eq!(leaf.depth(), 3);
        assert_eq!(Pointer::ROOT.to_string(), "");
    }

    #[test]
    fn only_so_many_are_gathered() {
        let mut findings = Findings::default();
        for _ in 0..10 * VIOLATIONS_MAX {
            findings.add_unknown(Place::Query, &"x".repeat(1000), "unknown");
        }
        let violations = findings.into_violations();
        assert_eq!(violations.len(), VIOLATIONS_MAX);
        assert_eq!(violations[0].parameter.as_ref().unwrap().len(), NAME_CHARS_MAX);
    }
}
