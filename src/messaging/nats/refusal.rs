//! What the server says when it refuses a subscription, or ends one because of its new configuration.

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Of the subscription to this subject.
    Of {
        /// The subject.
        subject: String,
        /// The queue group, where it was one.
        group: Option<String>,
    },
    /// Of one that is not named: there are too many.
    TooMany,
}

impl Refusal {
    /// Reads the text of an error; `None` when it is about something else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("maximum subscriptions exceeded") {
            return Some(Self::TooMany);
        }
        let rest = text.strip_prefix("Permissions Violation for Subscription to \"")?;
        let (subject, rest) = rest.split_once('"')?;
        let group = rest.strip_prefix(" using queue \"").and_then(|rest| rest.split_once('"'));
        let group = group.map(|(group, _)| group.to_owned());
        Some(Self::Of { subject: subject.to_owned(), group })
    }
}

/// What an error is about, without what is different for each message: the tokens of a subject that say whose it is.
pub(super) fn about(error: &str) -> &str {
    let Some((head, subject)) = error.split_once('"') else { return error };
    // Of an inbox its first token, of `fjord.q.<queue>` three.
    let tokens = if subject.starts_with('_') { 1 } else { 3 };
    let subject = subject.split('"').next().unwrap_or_default();
    let length: usize = subject.split('.').take(tokens).map(|token| token.len() + 1).sum();
    let whole = head.len() + '"'.len_utf8() + length.saturating_sub(1);
    error.get(..whole).unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_known_again_whatever_its_message() {
        for (error, known) in [
            (
                "Permissions Violation for Publish to \"_INBOX_x.a.17\"",
                "Permissions Violation for Publish to \"_INBOX_x",
            ),
            (
                "Permissions Violation for Publish to \"fjord.q.horse\"",
                "Permissions Violation for Publish to \"fjord.q.horse",
            ),
            (
                "nats: Permissions Violation for Publish to \"fjord.w.a.j.7\"",
                "nats: Permissions Violation for Publish to \"fjord.w.a",
            ),
            ("maximum connections exceeded", "maximum connections exceeded"),
            ("odd \"", "odd \""),
        ] {
            assert_eq!(about(error), known);
        }
    }

    #[test]
    fn a_refusal_names_subject_and_group_in_every_form_that_servers_use() {
        let of = |subject: &str, group: Option<&str>| {
            let (subject, group) = (subject.to_owned(), group.map(str::to_owned));
            Some(Refusal::Of { subject, group })
        };
        let cases = [
            ("Permissions Violation for Subscription to \"a.>\"", of("a.>", None)),
            ("Permissions Violation for Subscription to \"a\" (sid \"3\")", of("a", None)),
            (
                "Permissions Violation for Subscription to \"a\" using queue \"q\" (sid \"3\")",
                of("a", Some("q")),
            ),
            ("Permissions Violation for Subscription to \"a.b\", too many tokens", of("a.b", None)),
            ("maximum subscriptions exceeded", Some(Refusal::TooMany)),
            ("Permissions Violation for Publish to \"a\"", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Refusal::parse(text), expected, "{text}");
        }
    }
}
