//! The `Prefer` header (RFC 7240): how a caller wants the call's transaction to end.
//!
//! A preference that cannot be met is ignored by the RFC. Here that would execute for real what the caller wants undone,
//! so whatever is not certainly met is refused: nothing runs, and the caller hears why.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::catalogue::Endpoint;
use crate::envelope::Final;
use crate::problem::{Problem, Violation};
use crate::telemetry::conditions::{self, Condition};
use crate::telemetry::{counter, names};

const PREFER: HeaderName = HeaderName::from_static("prefer");
/// What the answer says of it.
pub(in crate::roles::gateway) const PREFERENCE_APPLIED: HeaderName =
    HeaderName::from_static("preference-applied");

/// A worker answers dry runs without the proof that they were rolled back.
const UNPROVED: Condition = Condition::new("dry runs are not proved to be rolled back");

/// How a caller wants the call's transaction to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::roles::gateway) enum TransactionEnd {
    /// As always.
    Commit,
    /// A dry run.
    Rollback,
}

/// What a caller prefers, as far as we know it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Preferences {
    transaction_end: Option<TransactionEnd>,
    handling: Option<Handling>,
    has_unknown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handling {
    Strict,
    Other,
}

/// How the transaction of this request is to end; `None` when nobody says or the endpoint has no dry run.
///
/// # Errors
/// `Violation` when the header cannot be read, or asks for what there is not.
pub(in crate::roles::gateway) fn transaction_end(
    headers: &HeaderMap,
    endpoint: &Endpoint,
) -> Result<Option<TransactionEnd>, Violation> {
    if !headers.contains_key(PREFER) {
        return Ok(None);
    }
    let refused = |detail| Err(Violation::of_parameter("header", "Prefer", detail));
    let preferences = match Preferences::read(headers) {
        Ok(preferences) => preferences,
        Err(detail) => return refused(detail),
    };
    if preferences.has_unknown && preferences.handling == Some(Handling::Strict) {
        return refused("handling=strict: expected no other preference than tx and handling");
    }
    match preferences.transaction_end {
        Some(TransactionEnd::Rollback) if !endpoint.dry_run => {
            refused("tx=rollback: this endpoint has no dry run, and nothing was executed")
        }
        end => Ok(end.filter(|_| endpoint.dry_run)),
    }
}

/// What an answer says of the caller's preference.
///
/// # Errors
/// The problem of a dry run that was answered without the proof that nothing of it stays.
pub(in crate::roles::gateway) fn applied(
    end: Option<TransactionEnd>,
    answer: &Final,
    endpoint: &Endpoint,
) -> Result<Option<HeaderValue>, Problem> {
    match end {
        None => Ok(None),
        Some(TransactionEnd::Commit) => {
            Ok((answer.status < 400).then(|| TransactionEnd::Commit.header_value()))
        }
        Some(TransactionEnd::Rollback) if answer.is_rolled_back => {
            count(endpoint, "rolled_back");
            Ok(Some(TransactionEnd::Rollback.header_value()))
        }
        Some(TransactionEnd::Rollback) if answer.is_valid_for_dry_run() => {
            count(endpoint, "failed");
            Ok(None)
        }
        Some(TransactionEnd::Rollback) => {
            count(endpoint, "unproved");
            if conditions::begins(&UNPROVED, endpoint.id.as_str()) {
                tracing::error!(
                    endpoint = %endpoint.id, queue = %endpoint.queue, status = answer.status,
                    "a worker answered a dry run without the proof that it was rolled back: it does not know dry runs, \
                     or its procedure ends the transaction"
                );
            }
            Err(Problem::unproved_dry_run())
        }
    }
}

fn count(endpoint: &Endpoint, result: &str) {
    let labels = [(names::ENDPOINT, endpoint.id.to_string()), (names::RESULT, result.to_owned())];
    counter(&names::GATEWAY_DRY_RUNS, &labels).increment(1);
}

impl TransactionEnd {
    /// The value of `Preference-Applied`.
    #[must_use]
    fn header_value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Commit => "tx=commit",
            Self::Rollback => "tx=rollback",
        })
    }
}

const LIKE_ROLLBACK: &str = "expected tx=rollback, or no preference that looks like a dry run";
const MALFORMED: &str =
    "expected preferences with commas between them, such as tx=rollback (RFC 7240)";

impl Preferences {
    /// Reads every `Prefer` header, or says what was expected.
    fn read(headers: &HeaderMap) -> Result<Self, &'static str> {
        let mut found = Self::default();
        for value in headers.get_all(PREFER) {
            let mut rest = Text(value.to_str().map_err(|_| MALFORMED)?);
            loop {
                rest.skip_blanks();
                if let Some(name) = rest.token() {
                    let value = rest.value()?;
                    rest.skip_parameters()?;
                    found.add(name, &value)?;
                }
                // Empty elements are passed over (RFC 9110 §5.6.1).
                if !rest.takes(',') {
                    break;
                }
            }
            if !rest.0.is_empty() {
                return Err(MALFORMED);
            }
        }
        Ok(found)
    }

    fn add(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        if name.eq_ignore_ascii_case("tx") {
            let end = match value {
                "commit" => TransactionEnd::Commit,
                "rollback" => TransactionEnd::Rollback,
                _ => return Err("tx: expected commit or rollback"),
            };
            // By the RFC the first would count, and a rollback that comes second be executed for real.
            if self.transaction_end.is_some_and(|before| before != end) {
                return Err("tx: expected commit or rollback, not both");
            }
            self.transaction_end = Some(end);
        } else if name.eq_ignore_ascii_case("handling") {
            let handling = if value == "strict" { Handling::Strict } else { Handling::Other };
            self.handling.get_or_insert(handling);
        } else if is_like_rollback(name) || is_like_rollback(value) {
            return Err(LIKE_ROLLBACK);
        } else {
            self.has_unknown = true;
        }
        Ok(())
    }
}

/// Whether an unknown preference may well be meant as a dry run: it must not be executed for real.
fn is_like_rollback(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    // "dry" alone only as a word: "laundry" is none.
    ["rollback", "roll-back", "roll_back", "dryrun"].iter().any(|part| text.contains(part))
        || text.split(|c: char| !c.is_ascii_alphabetic()).any(|word| word == "dry")
}

/// What is left of a header's value.
struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    fn skip_blanks(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    /// Skips blanks, and this character after them if it comes.
    fn takes(&mut self, what: char) -> bool {
        self.skip_blanks();
        let rest = self.0.strip_prefix(what);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// A token (RFC 9110 §5.6.2).
    fn token(&mut self) -> Option<&'a str> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let end = self.0.find(|c| !is_part(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }

    /// What follows `=`; empty without it.
    fn value(&mut self) -> Result<String, &'static str> {
        if !self.takes('=') {
            return Ok(String::new());
        }
        self.skip_blanks();
        if self.takes('"') {
            return self.quoted();
        }
        // An empty value is none (RFC 7240 §2).
        Ok(self.token().unwrap_or_default().to_owned())
    }

    /// The rest of a quoted string, without its quotes (RFC 9110 §5.6.4).
    fn quoted(&mut self) -> Result<String, &'static str> {
        let mut value = String::new();
        let mut characters = self.0.chars();
        loop {
            match characters.next() {
                Some('"') => break,
                Some('\\') => value.push(characters.next().ok_or(MALFORMED)?),
                Some(other) => value.push(other),
                None => return Err(MALFORMED),
            }
        }
        self.0 = characters.as_str();
        Ok(value)
    }

    /// Parameters of a preference: none means anything to us.
    fn skip_parameters(&mut self) -> Result<(), &'static str> {
        while self.takes(';') {
            self.skip_blanks();
            if let Some(name) = self.token() {
                let value = self.value()?;
                if name.eq_ignore_ascii_case("tx") {
                    return Err("tx: expected a comma before it, not a semicolon");
                }
                if is_like_rollback(name) || is_like_rollback(&value) {
                    return Err(LIKE_ROLLBACK);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
