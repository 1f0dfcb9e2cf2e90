//! A request on its way to a worker.

use std::time::Duration;

use bytes::Bytes;

use crate::catalogue::{EndpointId, Execution};
use crate::messaging::{HeaderError, Headers};

use super::{EnvelopeError, headers};

/// Longest request id, principal or idempotency key in bytes.
pub const TEXT_BYTES_MAX: usize = 256;
/// Longest `tracestate` in bytes: what receivers should be able to pass on (W3C Trace Context §3.3.1.5).
pub const TRACESTATE_BYTES_MAX: usize = 512;

/// A request as it travels: the endpoint, what the gateway knows about the call, and the checked parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The request's id, the same over all attempts.
    pub request_id: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The budget left when it was sent.
    pub timeout: Duration,
    /// Whether it may be executed twice.
    pub execution: Execution,
    /// How many more requests for the queue wait at the sender.
    pub waiting: u32,
    /// Who calls.
    pub principal: Option<String>,
    /// The client's key for one effect.
    pub idempotency_key: Option<String>,
    /// W3C Trace Context.
    pub traceparent: Option<String>,
    /// W3C Trace Context.
    pub tracestate: Option<String>,
    /// The JSON object of checked parameters.
    pub payload: Bytes,
}

impl Request {
    /// The headers that say all but the payload.
    ///
    /// # Errors
    /// `HeaderError` when a text has a control character; the gateway checks them before.
    pub fn headers(&self) -> Result<Headers, HeaderError> {
        let mut written = Headers::default();
        written.push(headers::ENDPOINT, self.endpoint.as_str())?;
        written.push(headers::REQUEST_ID, self.request_id.as_str())?;
        written.push(headers::ATTEMPT, self.attempt.to_string())?;
        written.push(headers::TIMEOUT_MS, self.timeout.as_millis().to_string())?;
        written.push(headers::EXECUTION, self.execution.as_str())?;
        if self.waiting > 0 {
            written.push(headers::WAITING, self.waiting.to_string())?;
        }
        let optional = [
            (headers::PRINCIPAL, &self.principal),
            (headers::IDEMPOTENCY_KEY, &self.idempotency_key),
            (headers::TRACEPARENT, &self.traceparent),
            (headers::TRACESTATE, &self.tracestate),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                written.push(name, value.as_str())?;
            }
        }
        Ok(written)
    }

    /// Reads a request. Trusts nothing: a header that is missing or malformed is an error that names it.
    ///
    /// A caller that is no gateway may leave out everything but the endpoint: then it is the first attempt,
    /// at least once, with the time that `timeout_default` gives.
    ///
    /// # Errors
    /// `EnvelopeError` for the first header that does not keep to the protocol.
    pub fn parse(
        from: &Headers,
        payload: Bytes,
        timeout_default: Duration,
    ) -> Result<Self, EnvelopeError> {
        let error = |header, expected| EnvelopeError { header, expected };
        let endpoint = from
            .get(headers::ENDPOINT)
            .and_then(|text| EndpointId::new(text).ok())
            .ok_or(error(headers::ENDPOINT, "expected the id of an endpoint"))?;
        let attempt = match from.get(headers::ATTEMPT) {
            None => 1,
            Some(text) => text
                .parse()
                .ok()
                .filter(|n| *n > 0)
                .ok_or(error(headers::ATTEMPT, "expected a number from 1"))?,
        };
        let timeout = match from.get(headers::TIMEOUT_MS) {
            None => timeout_default,
            Some(text) => text
                .parse::<u32>()
                .map(|ms| Duration::from_millis(ms.into()))
                .map_err(|_| error(headers::TIMEOUT_MS, "expected milliseconds, a whole number"))?,
        };
        let execution = match from.get(headers::EXECUTION) {
            None | Some("at-least-once") => Execution::AtLeastOnce,
            Some("at-most-once") => Execution::AtMostOnce,
            Some(_) => {
                return Err(error(headers::EXECUTION, "expected at-least-once or at-most-once"));
            }
        };
        let bounded = |name: &'static str, bytes_max| match from.get(name) {
            Some(value) if value.len() > bytes_max => Err(error(name, "too long")),
            value => Ok(value.map(ToOwned::to_owned)),
        };
        let text = |name| bounded(name, TEXT_BYTES_MAX);
        Ok(Self {
            endpoint,
            request_id: text(headers::REQUEST_ID)?.unwrap_or_default(),
            attempt,
            timeout,
            execution,
            // A hint: what cannot be read is none.
            waiting: from.get(headers::WAITING).and_then(|n| n.parse().ok()).unwrap_or_default(),
            principal: text(headers::PRINCIPAL)?,
            idempotency_key: text(headers::IDEMPOTENCY_KEY)?,
            traceparent: text(headers::TRACEPARENT)?,
            tracestate: bounded(headers::TRACESTATE, TRACESTATE_BYTES_MAX)?,
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(tracestate: usize) -> Request {
        Request {
            endpoint: EndpointId::new("horse-get").unwrap(),
            request_id: "r".repeat(TEXT_BYTES_MAX),
            attempt: 2,
            timeout: Duration::from_millis(1500),
            execution: Execution::AtMostOnce,
            waiting: 7,
            principal: Some("p".to_owned()),
            idempotency_key: Some("k".to_owned()),
            traceparent: Some("t".to_owned()),
            tracestate: Some("s".repeat(tracestate)),
            payload: Bytes::from_static(b"{}"),
        }
    }

    fn carried(request: &Request) -> Result<Request, EnvelopeError> {
        Request::parse(&request.headers().unwrap(), request.payload.clone(), Duration::ZERO)
    }

    #[test]
    fn what_a_gateway_passes_on_a_worker_reads() {
        let longest = request(TRACESTATE_BYTES_MAX);
        assert_eq!(carried(&longest), Ok(longest));
        let error = carried(&request(TRACESTATE_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(error.header, headers::TRACESTATE);
    }
}
