//! NATS subjects.

use std::fmt;
use std::sync::Arc;

/// The maximum length in bytes of a `u64` in decimal and the dot that precedes it.
const NUMBER_BYTES_MAX: usize = 21;

/// A subject whose tokens have been checked. Text from clients never becomes part of a subject.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Subject(Arc<str>);

impl Subject {
    /// The maximum length of a subject, in bytes.
    pub const BYTES_MAX: usize = 512;

    /// Checks a subject, which must not contain wildcards.
    ///
    /// # Errors
    /// Returns `SubjectError` if the string is too long, has an empty token or a wildcard, or
    /// contains anything but graphic ASCII characters.
    pub fn new(text: &str) -> Result<Self, SubjectError> {
        let is_valid = text.len() <= Self::BYTES_MAX
            && text.split('.').all(|token| {
                !token.is_empty()
                    && token.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'*' | b'>'))
            });
        if is_valid { Ok(Self(text.into())) } else { Err(SubjectError) }
    }

    /// Appends tokens.
    ///
    /// # Errors
    /// Returns `SubjectError` if the result is not a valid subject.
    pub fn join(&self, tail: impl fmt::Display) -> Result<Self, SubjectError> {
        Self::new(&format!("{}.{tail}", self.0))
    }

    /// Appends numbers as tokens. Numbers are always valid tokens, so this cannot fail.
    #[must_use]
    pub fn join_numbers<const TOKENS: usize>(&self, numbers: [u64; TOKENS]) -> Self {
        let mut text = String::with_capacity(self.0.len() + TOKENS * NUMBER_BYTES_MAX);
        text.push_str(&self.0);
        let mut digits = itoa::Buffer::new();
        for number in numbers {
            text.push('.');
            text.push_str(digits.format(number));
        }
        Self(text.into())
    }

    /// Returns the wildcard that matches every subject below this one, for subscriptions only.
    #[must_use]
    pub fn all_below(&self) -> Self {
        Self(format!("{}.>", self.0).into())
    }

    /// Wraps a received subject without checking it. The server checks subjects but not reply
    /// subjects.
    #[must_use]
    pub(crate) fn from_received(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the subject as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The error for text that is not a valid subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a NATS subject without empty tokens, wildcards, blanks or control characters")]
pub struct SubjectError;
