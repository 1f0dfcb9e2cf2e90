//! Splits the name of a procedure into words and recognizes its verb.

/// The action that a procedure's name suggests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcedureVerb {
    /// Reads one record.
    ReadOne,
    /// Reads several records.
    ReadMany,
    /// Creates a record.
    Create,
    /// Changes a record.
    Change,
    /// Removes a record.
    Remove,
    /// The name contains no known verb.
    Other,
}

/// Prefixes that only indicate that a name belongs to a procedure.
const PREFIXES: [&str; 4] = ["usp", "sp", "proc", "prc"];
const VERBS: [(ProcedureVerb, &[&str]); 5] = [
    (ProcedureVerb::ReadOne, &["get", "read", "fetch", "show"]),
    (ProcedureVerb::ReadMany, &["list", "search", "find", "browse", "query", "select", "report"]),
    (ProcedureVerb::Create, &["create", "add", "insert", "new"]),
    (ProcedureVerb::Change, &["update", "set", "change", "modify", "upsert"]),
    (ProcedureVerb::Remove, &["delete", "remove"]),
];

/// Returns the words of a name in lower case, without a leading prefix. The name is split at characters that are not
/// ASCII letters or digits, and before an upper-case letter that follows a lower-case letter or a digit.
pub(super) fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() || (was_lower && c.is_ascii_uppercase()) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_ascii_alphanumeric()) {
            word.push(c.to_ascii_lowercase());
        }
        was_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
    }
    words.retain(|word| !word.is_empty());
    if words.len() > 1 && words.first().is_some_and(|word| PREFIXES.contains(&word.as_str())) {
        words.remove(0);
    }
    words
}

/// Returns the verb and the remaining words. The verb is the first or last word, but never the only one.
pub(super) fn verb(words: &[String]) -> (ProcedureVerb, Vec<&str>) {
    let verb_of = |word: &String| {
        let found = VERBS.iter().find(|(_, verbs)| verbs.contains(&word.as_str()));
        found.map(|(verb, _)| *verb)
    };
    let at_start = words.split_first().and_then(|(first, others)| Some((verb_of(first)?, others)));
    let at_end = || words.split_last().and_then(|(last, others)| Some((verb_of(last)?, others)));
    let found = at_start.or_else(at_end).filter(|(_, others)| !others.is_empty());
    let (verb, noun) = found.unwrap_or((ProcedureVerb::Other, words));
    (verb, noun.iter().map(String::as_str).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_in_every_notation() {
        for (name, expected, rest) in [
            ("horse_get", ProcedureVerb::ReadOne, "horse"),
            ("usp_GetHorse", ProcedureVerb::ReadOne, "horse"),
            ("HorseOwnerList", ProcedureVerb::ReadMany, "horse-owner"),
            ("insert-horse", ProcedureVerb::Create, "horse"),
            ("horse_update", ProcedureVerb::Change, "horse"),
            ("DeleteHorse2", ProcedureVerb::Remove, "horse2"),
            ("get", ProcedureVerb::Other, "get"),
            ("horse_transfer", ProcedureVerb::Other, "horse-transfer"),
            ("budget", ProcedureVerb::Other, "budget"),
            ("___", ProcedureVerb::Other, ""),
        ] {
            let words = words(name);
            let (verb, others) = verb(&words);
            assert_eq!((verb, others.join("-").as_str()), (expected, rest), "{name}");
        }
    }
}
