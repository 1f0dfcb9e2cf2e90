//! Parses the server's errors about refused messages and subscriptions. A server can also end an existing subscription
//! after a reload.

/// The refusal of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SubscriptionRefusal {
    /// The server refuses the subscription to this subject.
    Subject {
        /// The subject.
        subject: String,
        /// The queue group, if any.
        group: Option<String>,
    },
    /// The limit on the number of subscriptions is reached. The server does not name the refused subscription.
    TooMany,
}

impl SubscriptionRefusal {
    /// Parses the text of an error. Returns `None` if the error is not the refusal of a subscription.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("maximum subscriptions exceeded") {
            return Some(Self::TooMany);
        }
        let rest = text.strip_prefix("Permissions Violation for Subscription to \"")?;
        let (subject, rest) = rest.split_once('"')?;
        let group = rest.strip_prefix(" using queue \"").and_then(|rest| rest.split_once('"'));
        let group = group.map(|(group, _)| group.to_owned());
        Some(Self::Subject { subject: subject.to_owned(), group })
    }
}

/// The length in bytes from which a token of a subject is considered generated.
const GENERATED_LENGTH_MIN: usize = 12;

/// Returns the subject named in the server's error about a message to a subject to which this user may not publish.
/// Returns `None` for any other error, such as one about a reply subject that the server reserves.
pub(super) fn refused_publish(error: &str) -> Option<&str> {
    let rest = error.strip_prefix("Permissions Violation for Publish to \"")?;
    rest.split('"').next()
}

/// Returns the part of a subject that is common to the messages of one owner.
pub(super) fn owner_part(subject: &str) -> &str {
    // The prefix of an inbox identifies its owner; the id of a process or of a request follows. In `fjord.q.<queue>`, the first
    // three tokens identify the owner.
    let looks_generated = |token: &str| {
        token.len() >= GENERATED_LENGTH_MIN || token.bytes().any(|byte| byte.is_ascii_digit())
    };
    let tokens = if subject.starts_with('_') {
        let prefix = subject.split('.').skip(1).take_while(|token| !looks_generated(token)).count();
        1 + prefix.min(2)
    } else {
        3
    };
    let length: usize = subject.split('.').take(tokens).map(|token| token.len() + 1).sum();
    subject.get(..length.saturating_sub(1)).unwrap_or(subject)
}

/// Shortens an error to the part that is common to repeated errors. Only the tokens of the subject that identify its
/// owner are kept.
pub(super) fn repeated_part(error: &str) -> &str {
    let Some((head, subject)) = error.split_once('"') else { return error };
    let subject = subject.split('"').next().unwrap_or_default();
    let whole = head.len() + '"'.len_utf8() + owner_part(subject).len();
    error.get(..whole).unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_about_messages_of_one_owner_are_equal() {
        for (error, expected) in [
            (
                "Permissions Violation for Publish to \"_INBOX_x.0123456789abcdef.r.17\"",
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
            assert_eq!(repeated_part(error), expected);
        }
    }

    #[test]
    fn the_subject_of_a_refused_message_is_parsed() {
        for (error, subject) in [
            ("Permissions Violation for Publish to \"a.b\"", Some("a.b")),
            ("Permissions Violation for Publish with Reply of \"a.b\"", None),
            ("Permissions Violation for Publish", None),
            ("Permissions Violation for Subscription to \"a\"", None),
        ] {
            assert_eq!(refused_publish(error), subject, "{error}");
        }
        for (subject, owner) in [
            ("_INBOX_x.0123456789abcdef.r.17", "_INBOX_x"),
            ("_INBOX.gateway.0123456789abcdef.r.17", "_INBOX.gateway"),
            ("_INBOX.a.b.c.d.e", "_INBOX.a.b"),
            ("fjord.q.horse", "fjord.q.horse"),
            ("a", "a"),
            ("", ""),
        ] {
            assert_eq!(owner_part(subject), owner);
        }
    }

    #[test]
    fn every_form_of_a_refusal_is_parsed() {
        let refused = |subject: &str, group: Option<&str>| {
            let (subject, group) = (subject.to_owned(), group.map(str::to_owned));
            Some(SubscriptionRefusal::Subject { subject, group })
        };
        let cases = [
            ("Permissions Violation for Subscription to \"a.>\"", refused("a.>", None)),
            ("Permissions Violation for Subscription to \"a\" (sid \"3\")", refused("a", None)),
            (
                "Permissions Violation for Subscription to \"a\" using queue \"q\" (sid \"3\")",
                refused("a", Some("q")),
            ),
            (
                "Permissions Violation for Subscription to \"a.b\", too many tokens",
                refused("a.b", None),
            ),
            ("maximum subscriptions exceeded", Some(SubscriptionRefusal::TooMany)),
            ("Permissions Violation for Publish to \"a\"", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(SubscriptionRefusal::parse(text), expected, "{text}");
        }
    }
}
