//! What a gateway tells one worker about a claim, a running job or an offer.

use crate::messaging::{Headers, Message, Subject};

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
    /// My link was lost: send the last answers to my inbox again.
    Repeat,
    /// The parts of the job's answer up to this one were taken: send on.
    Taken(u32),
}

/// The token, after the prefix, of the subject where every worker hears `Repeat`.
pub const REPEAT_TOKEN: &str = "repeat";

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
}
