//! Control messages from gateways to workers about claims, jobs and offers.

use crate::message::{Headers, Message, Subject};

use super::headers;

/// A control message to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The claim is granted. The worker executes the request.
    Grant,
    /// The claim is denied. Another worker has the grant, or the session has ended.
    Deny,
    /// The session has ended. The worker stops the job.
    Cancel,
    /// The offered slot is not needed. The worker may offer it to another gateway.
    Decline,
    /// A link was lost. The worker resends the answer of this job, or the answers to the listed
    /// requests.
    Resend,
    /// Asks every worker of a queue for a progress reply that contains the worker's own subject.
    QueryMembers,
    /// The client has received the parts of the answer up to this number. The worker may send more.
    Ack(u32),
}

/// The token after a worker's own subject in the subject of requests that bypass the queue group.
pub const DIRECT_TOKEN: &str = "q";
/// The token between the prefix and the queue in the subject of `Resend`. A queue's workers share
/// this subject.
pub const RESEND_TOKEN: &str = "resend";
/// The maximum number of requests that one `Resend` may list.
pub const RESEND_NAMES_MAX: usize = 32;
/// The maximum length of the list in a `Resend`, in bytes.
const RESEND_BYTES_MAX: usize = 4096;

impl Control {
    /// Returns the message's name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Deny => "deny",
            Self::Cancel => "cancel",
            Self::Decline => "decline",
            Self::Resend => "resend",
            Self::QueryMembers => "members",
            Self::Ack(_) => "ack",
        }
    }

    /// Parses the headers of a message. Returns `None` if the message is not a valid control
    /// message.
    #[must_use]
    pub fn parse(from: &Headers) -> Option<Self> {
        match from.get(headers::CONTROL)? {
            "grant" => Some(Self::Grant),
            "deny" => Some(Self::Deny),
            "cancel" => Some(Self::Cancel),
            "decline" => Some(Self::Decline),
            "resend" => Some(Self::Resend),
            "members" => Some(Self::QueryMembers),
            "ack" => from.get(headers::PART)?.parse().ok().map(Self::Ack),
            _ => None,
        }
    }

    /// Encodes the control message.
    #[must_use]
    pub fn message(self, to: Subject) -> Message {
        let mut message = Message::to(to);
        // The header names and values are constants and numbers, so they are always valid.
        let mut pushed = message.headers.push(headers::CONTROL, self.as_str());
        if let Self::Ack(part) = self {
            pushed = pushed.and(message.headers.push(headers::PART, part.to_string()));
        }
        debug_assert!(pushed.is_ok(), "constants are valid headers");
        message
    }

    /// Encodes a `Resend` that lists requests. The reply subjects of these requests start with
    /// `inbox` followed by one of `names`.
    #[must_use]
    pub fn resend(to: Subject, inbox: Subject, names: &[String]) -> Message {
        debug_assert!(names.len() <= RESEND_NAMES_MAX, "too many names for one message");
        let payload = names.join(" ").into();
        Message { reply: Some(inbox), payload, ..Self::Resend.message(to) }
    }

    /// Parses a `Resend` that lists requests. Returns the subjects at or below which the answers to
    /// these requests were sent, or `None` if the message violates the protocol.
    #[must_use]
    pub fn parse_resend(message: &Message) -> Option<Vec<Subject>> {
        let inbox = message.reply.as_ref()?;
        let is_resend = Self::parse(&message.headers) == Some(Self::Resend);
        if !is_resend || message.payload.len() > RESEND_BYTES_MAX {
            return None;
        }
        let text = std::str::from_utf8(&message.payload).ok()?;
        let names = text.split_ascii_whitespace().map(|name| inbox.join(name).ok());
        let names: Option<Vec<_>> = names.collect();
        names.filter(|names| (1..=RESEND_NAMES_MAX).contains(&names.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resend_lists_a_limited_number_of_requests() {
        let (to, inbox) = (Subject::new("p.resend.q").unwrap(), Subject::new("i.r").unwrap());
        let parsed = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            let message = Message {
                payload: names.join(" ").into(),
                ..Control::resend(to.clone(), inbox.clone(), &[])
            };
            Control::parse_resend(&message)
        };
        let subjects = parsed(&["3.17", "3.18"]).unwrap();
        assert_eq!(
            subjects.iter().map(Subject::as_str).collect::<Vec<_>>(),
            ["i.r.3.17", "i.r.3.18"]
        );
        assert!(parsed(&["1"; RESEND_NAMES_MAX]).is_some());
        for bad in [&["1"; RESEND_NAMES_MAX + 1][..], &[], &["*"], &["3..1"]] {
            assert_eq!(parsed(bad), None, "{bad:?}");
        }
        assert_eq!(parsed(&["1".repeat(RESEND_BYTES_MAX + 1).as_str()]), None);
        let other = Message { reply: Some(inbox), ..Control::Cancel.message(to) };
        assert_eq!(Control::parse_resend(&other), None);
    }
}
