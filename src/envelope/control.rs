//! What a gateway tells one worker about a claim, a running job or an offer.

use crate::message::{Headers, Message, Subject};

use super::headers;

/// A message to a worker's own subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The claim is granted: execute.
    Grant,
    /// The claim is denied: another worker has it, or nobody waits any more.
    Deny,
    /// Nobody waits for the job any more: stop it.
    Cancel,
    /// The offered slot is not needed: give it to the next.
    Decline,
    /// I lack the answer to this job, or to these requests: a link was lost. Send it again.
    Repeat,
    /// Who serves this queue? Every worker answers with a progress that names its own subject.
    Members,
    /// The parts of the job's answer up to this one were taken: send on.
    Taken(u32),
}

/// The token, after a worker's own subject, of the subject where it takes requests that go past the group.
pub const DIRECT_TOKEN: &str = "q";
/// The token, after the prefix and before the queue, of the subject where every worker of a queue hears `Repeat`.
pub const REPEAT_TOKEN: &str = "repeat";
/// The requests that one `Repeat` names, at most.
pub const REPEAT_NAMES_MAX: usize = 32;
/// Longest list of them in bytes.
const REPEAT_BYTES_MAX: usize = 4096;

impl Control {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Deny => "deny",
            Self::Cancel => "cancel",
            Self::Decline => "decline",
            Self::Repeat => "repeat",
            Self::Members => "members",
            Self::Taken(_) => "taken",
        }
    }

    /// Reads it from a message's headers; `None` when the message is something else.
    #[must_use]
    pub fn parse(from: &Headers) -> Option<Self> {
        match from.get(headers::CONTROL)? {
            "grant" => Some(Self::Grant),
            "deny" => Some(Self::Deny),
            "cancel" => Some(Self::Cancel),
            "decline" => Some(Self::Decline),
            "repeat" => Some(Self::Repeat),
            "members" => Some(Self::Members),
            "taken" => from.get(headers::PART)?.parse().ok().map(Self::Taken),
            _ => None,
        }
    }

    /// The message that says it.
    #[must_use]
    pub fn message(self, to: Subject) -> Message {
        let mut message = Message::to(to);
        // The name and the words are constants of ours: they are always good headers.
        let mut pushed = message.headers.push(headers::CONTROL, self.as_str());
        if let Self::Taken(part) = self {
            pushed = pushed.and(message.headers.push(headers::PART, part.to_string()));
        }
        debug_assert!(pushed.is_ok(), "constant header");
        message
    }

    /// The message that asks for the answers to some requests again. Their reply subjects begin with `inbox` and one of
    /// `names`.
    #[must_use]
    pub fn repeat(to: Subject, inbox: Subject, names: &[String]) -> Message {
        debug_assert!(names.len() <= REPEAT_NAMES_MAX, "a page");
        let payload = names.join(" ").into();
        Message { reply: Some(inbox), payload, ..Self::Repeat.message(to) }
    }

    /// The subjects that a `Repeat` names: what went to one of them or below is meant. `None` when it does not keep to
    /// the protocol.
    #[must_use]
    pub fn parse_repeat(message: &Message) -> Option<Vec<Subject>> {
        let inbox = message.reply.as_ref()?;
        let is_repeat = Self::parse(&message.headers) == Some(Self::Repeat);
        if !is_repeat || message.payload.len() > REPEAT_BYTES_MAX {
            return None;
        }
        let text = std::str::from_utf8(&message.payload).ok()?;
        let names = text.split_ascii_whitespace().map(|name| inbox.join(name).ok());
        let names: Option<Vec<_>> = names.collect();
        names.filter(|names| (1..=REPEAT_NAMES_MAX).contains(&names.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_names_a_page_of_requests_and_no_more() {
        let (to, inbox) = (Subject::new("p.repeat.q").unwrap(), Subject::new("i.r").unwrap());
        let asked = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            let message = Message {
                payload: names.join(" ").into(),
                ..Control::repeat(to.clone(), inbox.clone(), &[])
            };
            Control::parse_repeat(&message)
        };
        let found = asked(&["3.17", "3.18"]).unwrap();
        assert_eq!(found.iter().map(Subject::as_str).collect::<Vec<_>>(), ["i.r.3.17", "i.r.3.18"]);
        assert!(asked(&["1"; REPEAT_NAMES_MAX]).is_some());
        for bad in [&["1"; REPEAT_NAMES_MAX + 1][..], &[], &["*"], &["3..1"]] {
            assert_eq!(asked(bad), None, "{bad:?}");
        }
        assert_eq!(asked(&["1".repeat(REPEAT_BYTES_MAX + 1).as_str()]), None);
        let other = Message { reply: Some(inbox), ..Control::Cancel.message(to) };
        assert_eq!(Control::parse_repeat(&other), None);
    }
}
