//! Encodes replies as messages and parses them.

use std::borrow::Cow;

use bytes::Bytes;

use crate::catalogue::ResponseHeader;
use crate::envelope::{EnvelopeError, Phases, headers};
use crate::message::{HeaderError, Headers, Message, Subject};
use crate::outcome::Outcome;

use super::effect;
use super::{AnswerHead, Final, JSON, RefusalReason, Reply};

impl Reply {
    /// Parses a reply.
    ///
    /// # Errors
    /// Returns `EnvelopeError` if the message violates the protocol. Such a reply cannot be
    /// forwarded.
    pub fn parse(message: Message) -> Result<Self, EnvelopeError> {
        let error = |header, expected| EnvelopeError { header, expected };
        if message.no_responders {
            return Ok(Self::NoResponders);
        }
        let fields = ReplyHeaders::read(&message.headers);
        match fields.reply {
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
                .ok_or(error(headers::REPLY, "an answered reply needs a reply subject")),
            Some("refused") => {
                let reason = match fields.reason {
                    Some("busy") => RefusalReason::Busy,
                    Some("draining") => RefusalReason::Draining,
                    Some("expired") => RefusalReason::Expired,
                    Some("unavailable") => RefusalReason::Unavailable,
                    Some("paused") => RefusalReason::Paused,
                    _ => {
                        return Err(error(
                            headers::REASON,
                            "expected busy, draining, expired, unavailable or paused",
                        ));
                    }
                };
                Ok(Self::Refused { reason, control: message.reply })
            }
            Some("part") => Self::parse_part(&fields, message.payload, message.reply),
            Some("final") => Self::parse_final(&fields, message.payload, message.reply),
            Some(_) => Err(error(headers::REPLY, "expected a known kind of reply")),
            None => Self::parse_plain(&fields, message.payload),
        }
    }

    fn parse_part(
        from: &ReplyHeaders<'_>,
        bytes: Bytes,
        control: Option<Subject>,
    ) -> Result<Self, EnvelopeError> {
        let number =
            from.part.and_then(|text| text.parse().ok()).filter(|number| *number > 0).ok_or(
                EnvelopeError { header: headers::PART, expected: "expected a number from 1" },
            )?;
        let head = match from.status {
            None => None,
            Some(text) => Some(AnswerHead {
                status: status(Some(text))?,
                content_type: media_type(from.content_type.unwrap_or_default()),
            }),
        };
        if head.as_ref().is_some_and(|head| !effect::is_valid_head(head.status, &head.content_type))
        {
            return Err(INVALID_EFFECT);
        }
        Ok(Self::Part { number, bytes, head, control })
    }

    fn parse_final(
        from: &ReplyHeaders<'_>,
        body: Bytes,
        control: Option<Subject>,
    ) -> Result<Self, EnvelopeError> {
        let status = status(from.status)?;
        let parts = match from.part {
            None => 0,
            Some(text) => text.parse().map_err(|_| EnvelopeError {
                header: headers::PART,
                expected: "expected the number of parts",
            })?,
        };
        let outcome = match from.outcome {
            Some(word) => Outcome::parse(word),
            None => default_outcome(status),
        };
        let content_type = media_type(from.content_type.unwrap_or_default());
        if !effect::is_valid_final(status, &content_type, (&body, parts)) {
            return Err(INVALID_EFFECT);
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
            headers: from.response.iter().map(|(one, value)| (*one, (*value).to_owned())).collect(),
        }))
    }

    /// Parses the reply from a plain NATS responder, or an error from the NATS service API (ADR-32).
    fn parse_plain(from: &ReplyHeaders<'_>, body: Bytes) -> Result<Self, EnvelopeError> {
        if from.has_fjord_header {
            return Err(EnvelopeError {
                header: headers::REPLY,
                expected: "expected the kind of reply",
            });
        }
        let Some(code) = from.service_error_code else {
            return Ok(Self::Final(Final::whole(200, JSON, body, Outcome::Ok)));
        };
        let status = code.parse().ok().filter(|status| (400..600).contains(status)).unwrap_or(500);
        let content_type = media_type(from.content_type.unwrap_or(JSON));
        if !effect::is_valid_final(status, &content_type, (&body, 0)) {
            return Err(EnvelopeError { header: headers::SERVICE_ERROR_CODE, ..INVALID_EFFECT });
        }
        let content_type = if body.is_empty() { Cow::Borrowed("") } else { content_type };
        let answer = Final::whole(status, "", body, Outcome::ServiceError);
        Ok(Self::Final(Final { content_type, ..answer }))
    }

    /// Encodes the reply as a message to the request's reply subject.
    ///
    /// # Errors
    /// Returns `HeaderError` if the media type contains a control character.
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
                // Headers with default values are omitted.
                if answer.outcome != default_outcome(answer.status) {
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
                for (header, value) in answer.headers {
                    message.headers.push(header.as_str(), value)?;
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

/// The error for a reply that states that its request was not executed.
const INVALID_EFFECT: EnvelopeError = EnvelopeError {
    header: headers::STATUS,
    expected: "expected neither 503 nor the effect \"not-executed\": a worker that does not execute a request must refuse it",
};

/// The value of `Fjord-Transaction` in the final of a dry run.
const ROLLED_BACK: &str = "rolled-back";

/// Returns the outcome of a final that has no `Fjord-Outcome`.
fn default_outcome(status: u16) -> Outcome {
    if status < 400 { Outcome::Ok } else { Outcome::Other }
}

/// Returns a media type. JSON and the empty media type are not copied.
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

/// The values of a reply's headers, collected in one pass.
#[derive(Default)]
struct ReplyHeaders<'a> {
    reply: Option<&'a str>,
    reason: Option<&'a str>,
    part: Option<&'a str>,
    status: Option<&'a str>,
    outcome: Option<&'a str>,
    phases: Option<&'a str>,
    transaction: Option<&'a str>,
    content_type: Option<&'a str>,
    service_error_code: Option<&'a str>,
    /// Headers for the client.
    response: Vec<(ResponseHeader, &'a str)>,
    /// Whether any of the headers is one of fjord's own.
    has_fjord_header: bool,
}

impl<'a> ReplyHeaders<'a> {
    fn read(from: &'a Headers) -> Self {
        let mut fields = Self::default();
        from.for_each(|name, value| {
            fields.has_fjord_header |= name.starts_with(headers::PREFIX);
            let field = match name {
                headers::REPLY => &mut fields.reply,
                headers::REASON => &mut fields.reason,
                headers::PART => &mut fields.part,
                headers::STATUS => &mut fields.status,
                headers::OUTCOME => &mut fields.outcome,
                headers::PHASES => &mut fields.phases,
                headers::TRANSACTION => &mut fields.transaction,
                headers::CONTENT_TYPE => &mut fields.content_type,
                headers::SERVICE_ERROR_CODE => &mut fields.service_error_code,
                other => {
                    if let Some(header) = ResponseHeader::parse(other)
                        && fields.response.iter().all(|(known, _)| *known != header)
                    {
                        fields.response.push((header, value));
                    }
                    return;
                }
            };
            field.get_or_insert(value);
        });
        fields
    }
}
