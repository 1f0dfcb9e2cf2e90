//! What a worker says about a request: any number of interim replies, then one final.

use std::borrow::Cow;

use bytes::Bytes;

use crate::message::{HeaderError, Headers, Message, Subject};
use crate::outcome::Word;

use super::{EnvelopeError, Phases, headers, promise};

/// A worker's reply, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// I have it, it runs. `control` is where a cancel goes.
    Progress {
        /// The job's control subject, when the worker can be cancelled.
        control: Option<Subject>,
    },
    /// May I execute it? The answer goes to `control`.
    Claim {
        /// The job's control subject.
        control: Subject,
    },
    /// I did not execute it, and never will.
    Refused {
        /// Why.
        reason: Reason,
        /// The job's control subject when it had claimed before, else the worker's own subject.
        control: Option<Subject>,
    },
    /// A slot is free: send the request to `direct`, or decline there.
    Offer {
        /// The worker's own subject for this offer.
        direct: Subject,
    },
    /// I have sent the answer, and my link was lost: whoever lacks it says `repeat` to `control`.
    Answered {
        /// The job's control subject.
        control: Subject,
    },
    /// A piece of a large answer.
    Part {
        /// Its number, from 1.
        number: u32,
        /// The piece.
        bytes: Bytes,
        /// In the first: how the answer begins, when it may begin with it.
        head: Option<Head>,
        /// The job's control subject, when it waits for its parts to be taken or has named it before.
        control: Option<Subject>,
    },
    /// The answer, or its last piece.
    Final(Final),
    /// Nobody serves the queue.
    NoResponders,
}

/// Why a worker did not execute a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// All its slots are taken.
    Busy,
    /// It is about to stop.
    Draining,
    /// The budget was spent when the message was read.
    Expired,
    /// Its database is not there, or its claim was not answered in time.
    Unavailable,
}

impl Reason {
    /// The word on the wire and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Draining => "draining",
            Self::Expired => "expired",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How an answer begins before its end is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The HTTP status.
    pub status: u16,
    /// The media type.
    pub content_type: Cow<'static, str>,
}

/// The answer of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Final {
    /// The HTTP status.
    pub status: u16,
    /// The media type; empty when there is no body.
    pub content_type: Cow<'static, str>,
    /// The body, or its last piece. The gateway does not parse it.
    pub body: Bytes,
    /// How many parts came before.
    pub parts: u32,
    /// The job's control subject, when an earlier reply of the job had named it.
    pub control: Option<Subject>,
    /// How the call ended, as one word for metrics and logs.
    pub outcome: Word,
    /// Where the worker's time went, when it tells.
    pub phases: Option<Phases>,
    /// Of a dry run: whether nothing of it stays. It was rolled back, or never sent.
    pub is_rolled_back: bool,
}

impl Final {
    /// A whole answer in one message.
    #[must_use]
    pub fn whole(status: u16, content_type: &'static str, body: Bytes, outcome: Word) -> Self {
        let content_type = Cow::Borrowed(content_type);
        Self {
            status,
            content_type,
            body,
            parts: 0,
            control: None,
            outcome,
            phases: None,
            is_rolled_back: false,
        }
    }

    /// Whether a caller of a dry run may be told this: it is proved, or says by itself that something went wrong.
    #[must_use]
    pub fn is_valid_for_dry_run(&self) -> bool {
        self.is_rolled_back || self.status >= 500
    }
}

impl Reply {
    /// Reads a reply.
    ///
    /// # Errors
    /// `EnvelopeError` when it does not keep to the protocol: such an answer cannot be passed on.
    pub fn parse(message: Message) -> Result<Self, EnvelopeError> {
        let error = |header, expected| EnvelopeError { header, expected };
        if message.no_responders {
            return Ok(Self::NoResponders);
        }
        let found = Found::of(&message.headers);
        match found.reply {
            Some("progress") => Ok(Self::Progress { control: message.reply }),
            Some("claim") => message
                .reply
                .map(|control| Self::Claim { control })
                .ok_or(error(headers::REPLY, "a claim needs a reply subject")),
            Some("offer") => message
                .reply
                .map(|direct| Self::Offer { direct })
                .ok_or(error(headers::REPLY, "an offer needs a reply subject")),
            Some("answered") => message
                .reply
                .map(|control| Self::Answered { control })
                .ok_or(error(headers::REPLY, "what was answered needs a reply subject")),
            Some("refused") => {
                let reason = match found.reason {
                    Some("busy") => Reason::Busy,
                    Some("draining") => Reason::Draining,
                    Some("expired") => Reason::Expired,
                    Some("unavailable") => Reason::Unavailable,
                    _ => {
                        return Err(error(
                            headers::REASON,
                            "expected busy, draining, expired or unavailable",
                        ));
                    }
                };
                Ok(Self::Refused { reason, control: message.reply })
            }
            Some("part") => Self::parse_part(&found, message.payload, message.reply),
            Some("final") => Self::parse_final(&found, message.payload, message.reply),
            Some(_) => Err(error(headers::REPLY, "expected a kind of reply that is known")),
            None => Self::parse_plain(&found, message.payload),
        }
    }

    fn parse_part(
        from: &Found<'_>,
        bytes: Bytes,
        control: Option<Subject>,
    ) -> Result<Self, EnvelopeError> {
        let number =
            from.part.and_then(|text| text.parse().ok()).filter(|number| *number > 0).ok_or(
                EnvelopeError { header: headers::PART, expected: "expected a number from 1" },
            )?;
        let head = match from.status {
            None => None,
            Some(text) => Some(Head {
                status: status(Some(text))?,
                content_type: media_type(from.content_type.unwrap_or_default()),
            }),
        };
        if head.as_ref().is_some_and(|head| !promise::may_begin(head.status, &head.content_type)) {
            return Err(NOT_OF_A_WORKER);
        }
        Ok(Self::Part { number, bytes, head, control })
    }

    fn parse_final(
        from: &Found<'_>,
        body: Bytes,
        control: Option<Subject>,
    ) -> Result<Self, EnvelopeError> {
        let status = status(from.status)?;
        let parts = match from.part {
            None => 0,
            Some(text) => text.parse().map_err(|_| EnvelopeError {
                header: headers::PART,
                expected: "expected how many parts there were",
            })?,
        };
        let outcome = match from.outcome {
            Some(word) => Word::of(word),
            None => presumed(status),
        };
        let content_type = media_type(from.content_type.unwrap_or_default());
        if !promise::may_end(status, &content_type, (&body, parts)) {
            return Err(NOT_OF_A_WORKER);
        }
        Ok(Self::Final(Final {
            status,
            content_type,
            body,
            parts,
            control,
            outcome,
            phases: from.phases.and_then(Phases::parse),
            is_rolled_back: from.transaction == Some(ROLLED_BACK),
        }))
    }

    /// The answer of a plain NATS responder, or of the NATS service API (ADR-32), whose body may be empty.
    fn parse_plain(from: &Found<'_>, body: Bytes) -> Result<Self, EnvelopeError> {
        if from.has_ours {
            return Err(EnvelopeError {
                header: headers::REPLY,
                expected: "expected the kind of reply",
            });
        }
        let Some(code) = from.service_error_code else {
            return Ok(Self::Final(Final::whole(200, JSON, body, Word::Ok)));
        };
        let status = code.parse().ok().filter(|status| (400..600).contains(status)).unwrap_or(500);
        let content_type = media_type(from.content_type.unwrap_or(JSON));
        if !promise::may_end(status, &content_type, (&body, 0)) {
            return Err(EnvelopeError { header: headers::SERVICE_ERROR_CODE, ..NOT_OF_A_WORKER });
        }
        let content_type = if body.is_empty() { Cow::Borrowed("") } else { content_type };
        let answer = Final::whole(status, "", body, Word::ServiceError);
        Ok(Self::Final(Final { content_type, ..answer }))
    }

    /// The subject of its worker that it names.
    #[must_use]
    pub fn control(&self) -> Option<&Subject> {
        match self {
            Self::Progress { control }
            | Self::Refused { control, .. }
            | Self::Part { control, .. }
            | Self::Final(Final { control, .. }) => control.as_ref(),
            Self::Claim { control: named }
            | Self::Offer { direct: named }
            | Self::Answered { control: named } => Some(named),
            Self::NoResponders => None,
        }
    }

    /// Bytes of the body, or of a piece of it.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        match self {
            Self::Part { bytes, .. } => bytes.len(),
            Self::Final(answer) => answer.body.len(),
            _ => 0,
        }
    }

    /// The message that says it, to the request's reply subject.
    ///
    /// # Errors
    /// `HeaderError` when a final's media type has a control character.
    pub fn into_message(self, to: Subject) -> Result<Message, HeaderError> {
        let mut message = Message::to(to);
        match self {
            Self::Progress { control } => {
                message.headers.push(headers::REPLY, "progress")?;
                message.reply = control;
            }
            Self::Claim { control } => {
                message.headers.push(headers::REPLY, "claim")?;
                message.reply = Some(control);
            }
            Self::Refused { reason, control } => {
                message.headers.push(headers::REPLY, "refused")?;
                message.headers.push(headers::REASON, reason.as_str())?;
                message.reply = control;
            }
            Self::Offer { direct } => {
                message.headers.push(headers::REPLY, "offer")?;
                message.reply = Some(direct);
            }
            Self::Answered { control } => {
                message.headers.push(headers::REPLY, "answered")?;
                message.reply = Some(control);
            }
            Self::Part { number, bytes, head, control } => {
                message.headers.push(headers::REPLY, "part")?;
                message.headers.push(headers::PART, number.to_string())?;
                if let Some(head) = head {
                    message.headers.push(headers::STATUS, head.status.to_string())?;
                    message.headers.push(headers::CONTENT_TYPE, head.content_type)?;
                }
                message.payload = bytes;
                message.reply = control;
            }
            Self::Final(answer) => {
                message.headers.push(headers::REPLY, "final")?;
                message.headers.push(headers::STATUS, answer.status.to_string())?;
                // What a reader takes for granted is left out.
                if answer.outcome != presumed(answer.status) {
                    message.headers.push(headers::OUTCOME, answer.outcome.as_str())?;
                }
                if let Some(phases) = answer.phases {
                    message.headers.push(headers::PHASES, phases.to_text())?;
                }
                if answer.is_rolled_back {
                    message.headers.push(headers::TRANSACTION, ROLLED_BACK)?;
                }
                if !answer.content_type.is_empty() {
                    message.headers.push(headers::CONTENT_TYPE, answer.content_type)?;
                }
                if answer.parts > 0 {
                    message.headers.push(headers::PART, answer.parts.to_string())?;
                }
                message.payload = answer.body;
                message.reply = answer.control;
            }
            Self::NoResponders => message.no_responders = true,
        }
        Ok(message)
    }
}

/// An answer that promises what only a gateway can know.
const NOT_OF_A_WORKER: EnvelopeError = EnvelopeError {
    header: headers::STATUS,
    expected: "expected no 503 and no effect \"not-executed\": a worker that did not execute refuses",
};

/// Nothing of a dry run stays.
const ROLLED_BACK: &str = "rolled-back";

/// How an answer ended that does not say it.
fn presumed(status: u16) -> Word {
    if status < 400 { Word::Ok } else { Word::Other }
}

/// The media type of nearly every answer.
pub const JSON: &str = "application/json";

/// A media type as it came; the usual one without a copy.
fn media_type(text: &str) -> Cow<'static, str> {
    match text {
        JSON => Cow::Borrowed(JSON),
        "" => Cow::Borrowed(""),
        other => Cow::Owned(other.to_owned()),
    }
}

fn status(text: Option<&str>) -> Result<u16, EnvelopeError> {
    text.and_then(|text| text.parse().ok()).filter(|status| (200..600).contains(status)).ok_or(
        EnvelopeError {
            header: headers::STATUS,
            expected: "expected a final HTTP status, 200 to 599",
        },
    )
}

/// The headers of a reply as they stand there, found in one pass.
#[derive(Default)]
struct Found<'a> {
    reply: Option<&'a str>,
    reason: Option<&'a str>,
    part: Option<&'a str>,
    status: Option<&'a str>,
    outcome: Option<&'a str>,
    phases: Option<&'a str>,
    transaction: Option<&'a str>,
    content_type: Option<&'a str>,
    service_error_code: Option<&'a str>,
    /// Whether any of them is fjord's.
    has_ours: bool,
}

impl<'a> Found<'a> {
    fn of(from: &'a Headers) -> Self {
        let mut found = Self::default();
        from.for_each(|name, value| {
            found.has_ours |= name.starts_with(headers::PREFIX);
            let place = match name {
                headers::REPLY => &mut found.reply,
                headers::REASON => &mut found.reason,
                headers::PART => &mut found.part,
                headers::STATUS => &mut found.status,
                headers::OUTCOME => &mut found.outcome,
                headers::PHASES => &mut found.phases,
                headers::TRANSACTION => &mut found.transaction,
                headers::CONTENT_TYPE => &mut found.content_type,
                headers::SERVICE_ERROR_CODE => &mut found.service_error_code,
                _ => return,
            };
            place.get_or_insert(value);
        });
        found
    }
}
