//! The `Prefer` header (RFC 7240). It lets a caller request that the call's transaction be rolled
//! back, or that the answer have no content.
//!
//! The RFC lets servers ignore a preference. Ignoring a dry run would commit a call that the caller wants rolled back, so a
//! request whose preference might not be honoured is rejected before anything is executed.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::catalogue::Endpoint;
use crate::envelope::Final;
use crate::problem::{Problem, Violation};
use crate::telemetry::conditions::{self, ConditionKind};
use crate::telemetry::{counter, names};

const PREFER: HeaderName = HeaderName::from_static("prefer");
/// The response header that names the honoured preference.
pub(in crate::roles::gateway) const PREFERENCE_APPLIED: HeaderName =
    HeaderName::from_static("preference-applied");

/// The condition in which workers answer dry runs without reporting a rollback.
const UNCONFIRMED: ConditionKind = ConditionKind::new("dry runs are not reported as rolled back");

/// How the caller wants the transaction to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::roles::gateway) enum TransactionEnd {
    /// Commit, which is also the default.
    Commit,
    /// Roll back: a dry run.
    Rollback,
}

/// The preferences that the gateway honours in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::roles::gateway) struct HonoredPreferences {
    /// How the caller wants the transaction to end. `None` if the request states no preference or the endpoint does not
    /// support dry runs.
    pub(in crate::roles::gateway) transaction_end: Option<TransactionEnd>,
    /// Whether a successful answer to a change has no content: `return=minimal` (RFC 7240 §4.2).
    pub(in crate::roles::gateway) is_minimal: bool,
}

/// The supported preferences in a request, and whether the request has others.
#[derive(Debug, Default, PartialEq, Eq)]
struct Preferences {
    transaction_end: Option<TransactionEnd>,
    handling: Option<Handling>,
    wants_minimal: bool,
    wants_representation: bool,
    has_unknown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handling {
    Strict,
    Other,
}

/// Returns the preferences that the gateway honours in a request.
///
/// # Errors
/// `Violation` if the header is malformed or requests something unsupported.
pub(in crate::roles::gateway) fn honored(
    headers: &HeaderMap,
    endpoint: &Endpoint,
) -> Result<HonoredPreferences, Violation> {
    if !headers.contains_key(PREFER) {
        return Ok(HonoredPreferences::default());
    }
    let refused = |detail| Err(Violation::in_parameter("header", "Prefer", detail));
    let preferences = match Preferences::read(headers) {
        Ok(preferences) => preferences,
        Err(detail) => return refused(detail),
    };
    // The two preferences exclude each other, so a request with both counts as a request with
    // neither (RFC 7240 §4.2).
    let wants_minimal = preferences.wants_minimal && !preferences.wants_representation;
    let is_minimal = wants_minimal && endpoint.may_be_minimal();
    let has_unknown = preferences.has_unknown || (wants_minimal && !is_minimal);
    if has_unknown && preferences.handling == Some(Handling::Strict) {
        return refused(
            "handling=strict: expected no preference other than tx, return and handling",
        );
    }
    if preferences.transaction_end == Some(TransactionEnd::Rollback) && !endpoint.dry_run {
        return refused(
            "tx=rollback: this endpoint does not permit dry runs; nothing was executed",
        );
    }
    let transaction_end = preferences.transaction_end.filter(|_| endpoint.dry_run);
    Ok(HonoredPreferences { transaction_end, is_minimal })
}

/// Returns how the transaction of an answered call ended, for `Preference-Applied`.
///
/// # Errors
/// `Problem` if the answer to a dry run reports neither a rollback nor a failure with a status of 500 or more.
pub(in crate::roles::gateway) fn applied(
    end: Option<TransactionEnd>,
    answer: &Final,
    endpoint: &Endpoint,
) -> Result<Option<TransactionEnd>, Problem> {
    match end {
        None => Ok(None),
        Some(TransactionEnd::Commit) => Ok((answer.status < 400).then_some(TransactionEnd::Commit)),
        Some(TransactionEnd::Rollback) if answer.is_rolled_back => {
            count(endpoint, "rolled_back");
            Ok(Some(TransactionEnd::Rollback))
        }
        Some(TransactionEnd::Rollback) if answer.is_valid_for_dry_run() => {
            count(endpoint, "failed");
            Ok(None)
        }
        Some(TransactionEnd::Rollback) => {
            count(endpoint, "unconfirmed");
            if conditions::raise(&UNCONFIRMED, endpoint.id.as_str()) {
                tracing::error!(
                    endpoint = %endpoint.id, queues = endpoint.queues.names(), status = answer.status,
                    "a worker did not report that a dry run was rolled back: it does not support dry runs, \
                     or its procedure ends the transaction"
                );
            }
            Err(Problem::unconfirmed_dry_run())
        }
    }
}

fn count(endpoint: &Endpoint, result: &str) {
    let labels = [(names::ENDPOINT, endpoint.id.to_string()), (names::RESULT, result.to_owned())];
    counter(&names::GATEWAY_DRY_RUNS, &labels).increment(1);
}

/// Returns the value of `Preference-Applied`.
#[must_use]
pub(in crate::roles::gateway) fn header_value(
    end: Option<TransactionEnd>,
    is_minimal: bool,
) -> Option<HeaderValue> {
    Some(HeaderValue::from_static(match (end, is_minimal) {
        (None, false) => return None,
        (None, true) => "return=minimal",
        (Some(TransactionEnd::Commit), false) => "tx=commit",
        (Some(TransactionEnd::Commit), true) => "tx=commit, return=minimal",
        (Some(TransactionEnd::Rollback), false) => "tx=rollback",
        (Some(TransactionEnd::Rollback), true) => "tx=rollback, return=minimal",
    }))
}

const LOOKS_LIKE_ROLLBACK: &str =
    "expected tx=rollback, or no preference that looks like a dry run";
const MALFORMED: &str = "expected preferences separated by commas, such as tx=rollback (RFC 7240)";

impl Preferences {
    /// Parses all `Prefer` headers. The error describes the expected form.
    fn read(headers: &HeaderMap) -> Result<Self, &'static str> {
        let mut preferences = Self::default();
        for value in headers.get_all(PREFER) {
            let mut rest = PreferenceParser(value.to_str().map_err(|_| MALFORMED)?);
            loop {
                rest.skip_blanks();
                if let Some(name) = rest.token() {
                    let value = rest.value()?;
                    rest.skip_parameters()?;
                    preferences.add(name, &value)?;
                }
                // Empty elements are ignored (RFC 9110 §5.6.1).
                if !rest.skip(',') {
                    break;
                }
            }
            if !rest.0.is_empty() {
                return Err(MALFORMED);
            }
        }
        Ok(preferences)
    }

    fn add(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        if name.eq_ignore_ascii_case("tx") {
            let end = match value {
                "commit" => TransactionEnd::Commit,
                "rollback" => TransactionEnd::Rollback,
                _ => return Err("tx: expected commit or rollback"),
            };
            // According to the RFC, only the first value counts, so a commit followed by a rollback
            // would commit the call.
            if self.transaction_end.is_some_and(|before| before != end) {
                return Err("tx: expected commit or rollback, not both");
            }
            self.transaction_end = Some(end);
        } else if name.eq_ignore_ascii_case("handling") {
            let handling = if value == "strict" { Handling::Strict } else { Handling::Other };
            self.handling.get_or_insert(handling);
        } else if name.eq_ignore_ascii_case("return") && value == "minimal" {
            self.wants_minimal = true;
        } else if name.eq_ignore_ascii_case("return") && value == "representation" {
            self.wants_representation = true;
        } else if looks_like_rollback(name) || looks_like_rollback(value) {
            return Err(LOOKS_LIKE_ROLLBACK);
        } else {
            self.has_unknown = true;
        }
        Ok(())
    }
}

/// Returns whether an unknown preference might be meant as a dry run. A call with such a preference must not be
/// committed.
fn looks_like_rollback(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    // "dry" must be a whole word, so that "laundry" does not match.
    ["rollback", "roll-back", "roll_back", "dryrun"].iter().any(|part| text.contains(part))
        || text.split(|c: char| !c.is_ascii_alphabetic()).any(|word| word == "dry")
}

/// The unparsed rest of a header value.
struct PreferenceParser<'a>(&'a str);

impl<'a> PreferenceParser<'a> {
    fn skip_blanks(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    /// Skips blanks, and then `what` if it is the next character. Returns whether `what` was skipped.
    fn skip(&mut self, what: char) -> bool {
        self.skip_blanks();
        let rest = self.0.strip_prefix(what);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Parses a token (RFC 9110 §5.6.2).
    fn token(&mut self) -> Option<&'a str> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let end = self.0.find(|c| !is_part(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }

    /// Parses the value after `=`. Returns an empty value if there is no `=`.
    fn value(&mut self) -> Result<String, &'static str> {
        if !self.skip('=') {
            return Ok(String::new());
        }
        self.skip_blanks();
        if self.skip('"') {
            return self.quoted();
        }
        // An empty value is equivalent to no value (RFC 7240 §2).
        Ok(self.token().unwrap_or_default().to_owned())
    }

    /// Parses the rest of a quoted string (RFC 9110 §5.6.4).
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

    /// Skips the parameters of a preference. None of them has a meaning here.
    fn skip_parameters(&mut self) -> Result<(), &'static str> {
        while self.skip(';') {
            self.skip_blanks();
            if let Some(name) = self.token() {
                let value = self.value()?;
                if name.eq_ignore_ascii_case("tx") {
                    return Err("tx: expected a comma before it, not a semicolon");
                }
                if looks_like_rollback(name) || looks_like_rollback(&value) {
                    return Err(LOOKS_LIKE_ROLLBACK);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
