//! Collects the violations of one request, each with its location, up to a limit.

use std::fmt::{self, Write as _};

use super::parameter::{Parameter, ParameterSource};
use crate::problem::Violation;

/// The maximum number of violations in one answer. Even if a body is full of errors, the answer must not be
/// larger than the body.
pub const VIOLATIONS_MAX: usize = 64;
/// The number of characters after which a name that the client sent is truncated in a violation.
const NAME_CHARS_MAX: usize = 64;

/// The detail for a required parameter that is absent.
pub const REQUIRED: &str = "required";
/// The detail for a parameter that occurs more than once.
pub const GIVEN_TWICE: &str = "given more than once";
/// The detail for bytes that are not UTF-8.
pub const NOT_UTF8: &str = "not UTF-8";

/// The violations found in one request so far.
#[derive(Debug, Default)]
pub struct Violations {
    list: Vec<Violation>,
}

impl Violations {
    /// Returns whether no violation has been recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the number of recorded violations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns whether the limit has been reached. If so, further violations are dropped.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.list.len() >= VIOLATIONS_MAX
    }

    /// Records a violation.
    pub fn add(&mut self, location: Location<'_>, detail: impl Into<String>) {
        if !self.is_full() {
            self.list.push(location.violation(detail.into()));
        }
    }

    /// Records a violation for a parameter that the endpoint does not declare.
    pub fn add_unknown(&mut self, source: ParameterSource, name: &str, detail: &'static str) {
        if !self.is_full() {
            let name: String = name.chars().take(NAME_CHARS_MAX).collect();
            self.list.push(Violation::in_parameter(source.as_str(), &name, detail));
        }
    }

    /// Records a violation for a required header that is absent.
    pub fn add_missing_header(&mut self, name: &str) {
        if !self.is_full() {
            let source = ParameterSource::Header.as_str();
            self.list.push(Violation::in_parameter(source, name, REQUIRED));
        }
    }

    /// Returns all recorded violations.
    #[must_use]
    pub fn into_vec(self) -> Vec<Violation> {
        self.list
    }
}

/// The location of a value in a request.
#[derive(Clone, Copy, Debug)]
pub enum Location<'a> {
    /// A value outside a JSON document, located by the parameter's source and name.
    Parameter(&'a Parameter),
    /// A value inside a JSON document.
    Json(&'a JsonPointer<'a>),
}

impl Location<'_> {
    fn violation(self, detail: String) -> Violation {
        match self {
            Self::Parameter(parameter) => {
                Violation::in_parameter(parameter.source.as_str(), &parameter.name, detail)
            }
            Self::Json(pointer) => Violation::in_body(pointer.to_string(), detail),
        }
    }
}

/// A JSON Pointer (RFC 6901) as a linked list on the stack. It allocates only when it is formatted.
#[derive(Clone, Copy, Debug)]
pub struct JsonPointer<'a> {
    parent: Option<&'a JsonPointer<'a>>,
    token: ReferenceToken<'a>,
}

#[derive(Clone, Copy, Debug)]
enum ReferenceToken<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl<'a> JsonPointer<'a> {
    /// The pointer to the whole document.
    pub const ROOT: JsonPointer<'static> =
        JsonPointer { parent: None, token: ReferenceToken::Root };

    /// Returns the pointer to a member of the object at this pointer.
    #[must_use]
    pub fn key(&'a self, key: &'a str) -> JsonPointer<'a> {
        JsonPointer { parent: Some(self), token: ReferenceToken::Key(key) }
    }

    /// Returns the pointer to an item of the array at this pointer.
    #[must_use]
    pub fn index(&'a self, index: usize) -> JsonPointer<'a> {
        JsonPointer { parent: Some(self), token: ReferenceToken::Index(index) }
    }

    /// Returns the number of objects and arrays that enclose this pointer's value.
    #[must_use]
    pub fn depth(&self) -> usize {
        std::iter::successors(self.parent, |pointer| pointer.parent).count()
    }
}

impl fmt::Display for JsonPointer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.token {
            ReferenceToken::Root => Ok(()),
            ReferenceToken::Index(index) => write!(f, "/{index}"),
            ReferenceToken::Key(key) => {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_escapes_its_keys() {
        let entries = JsonPointer::ROOT.key("a/b~c");
        let third = entries.index(3);
        let leaf = third.key("ueln");
        assert_eq!(leaf.to_string(), "/a~1b~0c/3/ueln");
        assert_eq!(leaf.depth(), 3);
        assert_eq!(JsonPointer::ROOT.to_string(), "");
    }

    #[test]
    fn violations_and_their_names_are_limited() {
        let mut violations = Violations::default();
        for _ in 0..10 * VIOLATIONS_MAX {
            violations.add_unknown(ParameterSource::Query, &"x".repeat(1000), "unknown");
        }
        let violations = violations.into_vec();
        assert_eq!(violations.len(), VIOLATIONS_MAX);
        assert_eq!(violations[0].parameter.as_ref().unwrap().len(), NAME_CHARS_MAX);
    }
}
