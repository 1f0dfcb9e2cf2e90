//! Requests from a gateway to a worker.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::catalogue::{EndpointId, Execution, RequestKey};
use crate::message::{HeaderError, Headers};

use super::{EnvelopeError, headers};

/// The value of `Fjord-Execution` for a dry run.
const DRY_RUN: &str = "dry-run";
/// The maximum length of a request id, principal, idempotency key or `traceparent`, in bytes.
pub const TEXT_BYTES_MAX: usize = 256;
/// The maximum length of `tracestate` in bytes. W3C Trace Context §3.3.1.5 recommends that every receiver propagate at
/// least this length.
pub const TRACESTATE_BYTES_MAX: usize = 512;

/// The remaining session time of a request without `Fjord-Timeout-Ms`. This value is part of the protocol and does not
/// depend on the configured default.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Precedes the JSON object in the payload of a dry run. A responder that ignores headers then cannot mistake the dry
/// run for a request that is to be executed.
const DRY_RUN_PREFIX: &[u8] = b"dry-run ";

/// A request to a worker: the endpoint, the validated parameters, and the context of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The request's id. It is the same in all attempts.
    pub request_id: Arc<str>,
    /// The number of the attempt, starting at 1.
    pub attempt: u32,
    /// The session time that remained when the message was sent.
    pub timeout: Duration,
    /// Whether the request may be executed more than once.
    pub execution: Execution,
    /// Whether the changes made by the procedure must be rolled back. Such a request is executed at most once, because
    /// effects outside the database cannot be rolled back.
    pub dry_run: bool,
    /// The number of further requests waiting in the gateway for the same queue.
    pub waiting: u32,
    /// The maximum number of unacknowledged parts. 0 if the answer must not be streamed.
    pub window: u32,
    /// The media type of the answer, without parameters. `None` means JSON. If the endpoint does not produce JSON,
    /// `None` means the first media type that it produces.
    pub accept: Option<String>,
    /// The name of the authenticated caller.
    pub principal: Option<String>,
    /// The client's idempotency key.
    pub idempotency_key: Option<String>,
    /// The `traceparent` of W3C Trace Context.
    pub traceparent: Option<Arc<str>>,
    /// The `tracestate` of W3C Trace Context.
    pub tracestate: Option<String>,
    /// The validated parameters as a JSON object.
    pub payload: Bytes,
}

impl Request {
    /// Returns the key by which repetitions of the request are recognized, if the client sent one.
    #[must_use]
    pub fn key(&self) -> Option<RequestKey<'_>> {
        let principal = self.principal.as_deref();
        self.idempotency_key
            .as_deref()
            .map(|idempotency_key| RequestKey { principal, idempotency_key })
    }

    /// Encodes everything except the payload as headers.
    ///
    /// # Errors
    /// Returns `HeaderError` if a value contains a control character. The gateway prevents such values.
    pub fn headers(&self) -> Result<Headers, HeaderError> {
        let mut encoded = Headers::default();
        encoded.push(headers::ENDPOINT, self.endpoint.as_str())?;
        encoded.push(headers::REQUEST_ID, &*self.request_id)?;
        // Headers with default values are omitted, because each header costs both sides a microsecond.
        let timeout = millis(self.timeout);
        if timeout != DEFAULT_TIMEOUT.as_millis() {
            encoded.push(headers::TIMEOUT_MS, timeout.to_string())?;
        }
        if self.attempt > 1 {
            encoded.push(headers::ATTEMPT, self.attempt.to_string())?;
        }
        if self.dry_run {
            encoded.push(headers::EXECUTION, DRY_RUN)?;
        } else if self.execution != Execution::AtLeastOnce {
            encoded.push(headers::EXECUTION, self.execution.as_str())?;
        }
        if self.waiting > 0 {
            encoded.push(headers::WAITING, self.waiting.to_string())?;
        }
        if self.window > 0 {
            encoded.push(headers::WINDOW, self.window.to_string())?;
        }
        let optional = [
            (headers::ACCEPT, self.accept.as_deref()),
            (headers::PRINCIPAL, self.principal.as_deref()),
            (headers::IDEMPOTENCY_KEY, self.idempotency_key.as_deref()),
            (headers::TRACEPARENT, self.traceparent.as_deref()),
            (headers::TRACESTATE, self.tracestate.as_deref()),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                encoded.push(name, value)?;
            }
        }
        Ok(encoded)
    }

    /// Encodes the payload.
    #[must_use]
    pub fn body(&self) -> Bytes {
        if self.dry_run {
            [DRY_RUN_PREFIX, &*self.payload].concat().into()
        } else {
            self.payload.clone()
        }
    }

    /// Parses a request. The sender is not trusted.
    ///
    /// A sender other than a gateway may omit every header except the endpoint. The request is then treated as a first
    /// attempt that may be executed more than once and has `DEFAULT_TIMEOUT`.
    ///
    /// # Errors
    /// Returns `EnvelopeError`, which names the first header that is missing or malformed.
    pub fn parse(from: &Headers, payload: Bytes) -> Result<Self, EnvelopeError> {
        let error = |header, expected| EnvelopeError { header, expected };
        let fields = RequestHeaders::read(from);
        let endpoint = fields
            .endpoint
            .and_then(|text| EndpointId::new(text).ok())
            .ok_or(error(headers::ENDPOINT, "expected the id of an endpoint"))?;
        let attempt = match fields.attempt {
            None => 1,
            Some(text) => text
                .parse()
                .ok()
                .filter(|n| *n > 0)
                .ok_or(error(headers::ATTEMPT, "expected a number from 1"))?,
        };
        let timeout = match fields.timeout {
            None => DEFAULT_TIMEOUT,
            Some(text) => text
                .parse::<u32>()
                .map(|ms| Duration::from_millis(ms.into()))
                .map_err(|_| error(headers::TIMEOUT_MS, "expected milliseconds, a whole number"))?,
        };
        let dry_run = fields.execution == Some(DRY_RUN);
        let execution = match fields.execution {
            None | Some("at-least-once") => Execution::AtLeastOnce,
            Some("at-most-once" | DRY_RUN) => Execution::AtMostOnce,
            Some(_) => {
                let expected = "expected at-least-once, at-most-once or dry-run";
                return Err(error(headers::EXECUTION, expected));
            }
        };
        if dry_run != payload.starts_with(DRY_RUN_PREFIX) {
            let expected =
                "expected either dry-run and a payload that starts with its prefix, or neither";
            return Err(error(headers::EXECUTION, expected));
        }
        let payload = if dry_run { payload.slice(DRY_RUN_PREFIX.len()..) } else { payload };
        let bounded = |name: &'static str, value: Option<&str>, bytes_max| match value {
            Some(value) if value.len() > bytes_max => Err(error(name, "too long")),
            _ => Ok(()),
        };
        bounded(headers::REQUEST_ID, fields.request_id, TEXT_BYTES_MAX)?;
        bounded(headers::ACCEPT, fields.accept, TEXT_BYTES_MAX)?;
        bounded(headers::PRINCIPAL, fields.principal, TEXT_BYTES_MAX)?;
        bounded(headers::IDEMPOTENCY_KEY, fields.idempotency_key, TEXT_BYTES_MAX)?;
        bounded(headers::TRACEPARENT, fields.traceparent, TEXT_BYTES_MAX)?;
        bounded(headers::TRACESTATE, fields.tracestate, TRACESTATE_BYTES_MAX)?;
        Ok(Self {
            endpoint,
            request_id: fields.request_id.unwrap_or_default().into(),
            attempt,
            timeout,
            execution,
            dry_run,
            // This is only a hint, so a value that cannot be parsed counts as zero.
            waiting: fields.waiting.and_then(|n| n.parse().ok()).unwrap_or_default(),
            // Without a valid window, the answer is not streamed. The answer to a dry run is never streamed, because no
            // part of it may reach the client before the rollback.
            window: fields.window.filter(|_| !dry_run).and_then(|n| n.parse().ok()).unwrap_or(0),
            accept: fields.accept.map(ToOwned::to_owned),
            principal: fields.principal.map(ToOwned::to_owned),
            idempotency_key: fields.idempotency_key.map(ToOwned::to_owned),
            traceparent: fields.traceparent.map(Into::into),
            tracestate: fields.tracestate.map(ToOwned::to_owned),
            payload,
        })
    }
}

/// Converts a remaining time to milliseconds. Rounds up, so that a new session keeps its full time. Less than one
/// millisecond becomes zero, because no worker could use so little time.
fn millis(left: Duration) -> u128 {
    let whole = left.as_millis();
    if whole == 0 { 0 } else { left.as_micros().div_ceil(1000) }
}

/// The values of a request's headers, collected in one pass.
#[derive(Default)]
struct RequestHeaders<'a> {
    endpoint: Option<&'a str>,
    request_id: Option<&'a str>,
    attempt: Option<&'a str>,
    timeout: Option<&'a str>,
    execution: Option<&'a str>,
    waiting: Option<&'a str>,
    window: Option<&'a str>,
    accept: Option<&'a str>,
    principal: Option<&'a str>,
    idempotency_key: Option<&'a str>,
    traceparent: Option<&'a str>,
    tracestate: Option<&'a str>,
}

impl<'a> RequestHeaders<'a> {
    fn read(from: &'a Headers) -> Self {
        let mut fields = Self::default();
        from.for_each(|name, value| {
            let field = match name {
                headers::ENDPOINT => &mut fields.endpoint,
                headers::REQUEST_ID => &mut fields.request_id,
                headers::ATTEMPT => &mut fields.attempt,
                headers::TIMEOUT_MS => &mut fields.timeout,
                headers::EXECUTION => &mut fields.execution,
                headers::WAITING => &mut fields.waiting,
                headers::WINDOW => &mut fields.window,
                headers::ACCEPT => &mut fields.accept,
                headers::PRINCIPAL => &mut fields.principal,
                headers::IDEMPOTENCY_KEY => &mut fields.idempotency_key,
                headers::TRACEPARENT => &mut fields.traceparent,
                headers::TRACESTATE => &mut fields.tracestate,
                _ => return,
            };
            field.get_or_insert(value);
        });
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(tracestate: usize) -> Request {
        Request {
            endpoint: EndpointId::new("horse-get").unwrap(),
            request_id: "r".repeat(TEXT_BYTES_MAX).into(),
            attempt: 2,
            timeout: Duration::from_millis(1500),
            execution: Execution::AtMostOnce,
            dry_run: false,
            waiting: 7,
            window: 2,
            accept: Some("text/csv".to_owned()),
            principal: Some("p".to_owned()),
            idempotency_key: Some("k".to_owned()),
            traceparent: Some("t".into()),
            tracestate: Some("s".repeat(tracestate)),
            payload: Bytes::from_static(b"{}"),
        }
    }

    fn round_trip(request: &Request) -> Result<Request, EnvelopeError> {
        Request::parse(&request.headers().unwrap(), request.body())
    }

    #[test]
    fn the_remaining_time_is_sent_in_milliseconds_unless_it_is_the_default() {
        for (micros, text) in [
            (10_000_000, None),
            (9_999_001, None),
            (9_999_000, Some("9999")),
            (10_000_001, Some("10001")),
            (1_001, Some("2")),
            (1_000, Some("1")),
            (999, Some("0")),
            (0, Some("0")),
        ] {
            let request = Request { timeout: Duration::from_micros(micros), ..request(0) };
            assert_eq!(request.headers().unwrap().get(headers::TIMEOUT_MS), text, "{micros} us");
        }
    }

    #[test]
    fn a_worker_parses_the_request_that_a_gateway_writes() {
        let longest = request(TRACESTATE_BYTES_MAX);
        assert_eq!(round_trip(&longest), Ok(longest));
        let error = round_trip(&request(TRACESTATE_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(error.header, headers::TRACESTATE);
    }

    #[test]
    fn a_dry_run_is_not_valid_json_and_never_streamed() {
        let dry_run = Request { dry_run: true, window: 0, ..request(0) };
        assert_eq!(round_trip(&dry_run), Ok(dry_run.clone()));
        assert_eq!(round_trip(&Request { window: 2, ..dry_run.clone() }), Ok(dry_run.clone()));
        assert!(serde_json::from_slice::<serde_json::Value>(&dry_run.body()).is_err());
        let headers = dry_run.headers().unwrap();
        assert_eq!(headers.get(headers::EXECUTION), Some("dry-run"));
        // A message that has only the header or only the prefix is rejected. It must not be executed.
        let header_only = Request::parse(&headers, dry_run.payload.clone()).unwrap_err();
        let prefix_only =
            Request::parse(&request(0).headers().unwrap(), dry_run.body()).unwrap_err();
        assert_eq!([header_only.header, prefix_only.header], [headers::EXECUTION; 2]);
    }
}
