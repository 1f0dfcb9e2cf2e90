//! What the name of a procedure says of it: its words, and which of them is the verb.

/// What a procedure does, as far as its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// Reads one.
    ReadOne,
    /// Reads many.
    ReadMany,
    /// Makes a new one.
    Create,
    /// Changes one.
    Change,
    /// Removes one.
    Remove,
    /// Who knows.
    Other,
}

/// Prefixes that only say "this is a procedure".
const EMPTY_WORDS: [&str; 4] = ["usp", "sp", "proc", "prc"];
const VERBS: [(Verb, &[&str]); 5] = [
    (Verb::ReadOne, &["get", "read", "fetch", "show"]),
    (Verb::ReadMany, &["list", "search", "find", "browse", "query", "select", "report"]),
    (Verb::Create, &["create", "add", "insert", "new"]),
    (Verb::Change, &["update", "set", "change", "modify", "upsert"]),
    (Verb::Remove, &["delete", "remove"]),
];

/// The words of a name in lower case: parted by what is no letter or digit, and where a capital follows a small letter.
pub(super) fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_small = false;
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() || (was_small && c.is_ascii_uppercase()) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_ascii_alphanumeric()) {
            word.push(c.to_ascii_lowercase());
        }
        was_small = c.is_ascii_lowercase() || c.is_ascii_digit();
    }
    words.retain(|word| !word.is_empty());
    if words.len() > 1 && words.first().is_some_and(|word| EMPTY_WORDS.contains(&word.as_str())) {
        words.remove(0);
    }
    words
}

/// The verb, and the words without it. It stands first or last, and never alone.
pub(super) fn verb(words: &[String]) -> (Verb, Vec<&str>) {
    let of = |word: &String| {
        let found = VERBS.iter().find(|(_, verbs)| verbs.contains(&word.as_str()));
        found.map(|(verb, _)| *verb)
    };
    let at_start = words.split_first().and_then(|(first, others)| Some((of(first)?, others)));
    let at_end = || words.split_last().and_then(|(last, others)| Some((of(last)?, others)));
    let found = at_start.or_else(at_end).filter(|(_, others)| !others.is_empty());
    let (verb, noun) = found.unwrap_or((Verb::Other, words));
    (verb, noun.iter().map(String::as_str).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parted_however_they_are_written() {
        for (name, expected, rest) in [
            ("horse_get", Verb::ReadOne, "horse"),
            ("usp_GetHorse", Verb::ReadOne, "horse"),
            ("HorseOwnerList", Verb::ReadMany, "horse-owner"),
            ("insert-horse", Verb::Create, "horse"),
            ("horse_update", Verb::Change, "horse"),
            ("DeleteHorse2", Verb::Remove, "horse2"),
            ("get", Verb::Other, "get"),
            ("horse_transfer", Verb::Other, "horse-transfer"),
            ("budget", Verb::Other, "budget"),
            ("___", Verb::Other, ""),
        ] {
            let words = words(name);
            let (verb, others) = verb(&words);
            assert_eq!((verb, others.join("-").as_str()), (expected, rest), "{name}");
        }
    }
}
