//! A request on its way to a worker.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::catalogue::{EndpointId, Execution};
use crate::message::{HeaderError, Headers};

use super::{EnvelopeError, headers};

/// The word on the wire for a request whose effects are rolled back.
const DRY_RUN: &str = "dry-run";
/// Longest request id, principal or idempotency key in bytes.
pub const TEXT_BYTES_MAX: usize = 256;
/// Longest `tracestate` in bytes: what receivers should be able to pass on (W3C Trace Context §3.3.1.5).
pub const TRACESTATE_BYTES_MAX: usize = 512;

/// What is left of the session of a request that does not say it. A promise of the wire: the configuration's default may
/// become another, this may not.
pub const TIMEOUT_PRESUMED: Duration = Duration::from_secs(10);

/// How the payload of a dry run begins, before the JSON object. A responder that reads no headers cannot take it for a
/// request that it should execute.
const DRY_RUN_MARK: &[u8] = b"dry-run ";

/// A request as it travels: the endpoint, what the gateway knows about the call, and the checked parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The request's id, the same over all attempts.
    pub request_id: Arc<str>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The budget left when it was sent.
    pub timeout: Duration,
    /// Whether it may be executed twice.
    pub execution: Execution,
    /// Whether everything that it does is to be rolled back. It is at most once then: what the procedure does outside of
    /// the database is not.
    pub dry_run: bool,
    /// How many more requests for the queue wait at the sender.
    pub waiting: u32,
    /// How many parts of an answer the sender takes before it has acknowledged any; 0: the answer comes whole.
    pub window: u32,
    /// Who calls.
    pub principal: Option<String>,
    /// The client's key for one effect.
    pub idempotency_key: Option<String>,
    /// W3C Trace Context.
    pub traceparent: Option<Arc<str>>,
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
        written.push(headers::REQUEST_ID, &*self.request_id)?;
        // What a reader takes for granted is left out: a header costs each side a microsecond.
        let timeout = millis(self.timeout);
        if timeout != TIMEOUT_PRESUMED.as_millis() {
            written.push(headers::TIMEOUT_MS, timeout.to_string())?;
        }
        if self.attempt > 1 {
            written.push(headers::ATTEMPT, self.attempt.to_string())?;
        }
        if self.dry_run {
            written.push(headers::EXECUTION, DRY_RUN)?;
        } else if self.execution != Execution::AtLeastOnce {
            written.push(headers::EXECUTION, self.execution.as_str())?;
        }
        if self.waiting > 0 {
            written.push(headers::WAITING, self.waiting.to_string())?;
        }
        if self.window > 0 {
            written.push(headers::WINDOW, self.window.to_string())?;
        }
        let optional = [
            (headers::PRINCIPAL, self.principal.as_deref()),
            (headers::IDEMPOTENCY_KEY, self.idempotency_key.as_deref()),
            (headers::TRACEPARENT, self.traceparent.as_deref()),
            (headers::TRACESTATE, self.tracestate.as_deref()),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                written.push(name, value)?;
            }
        }
        Ok(written)
    }

    /// The message's payload.
    #[must_use]
    pub fn body(&self) -> Bytes {
        if self.dry_run {
            [DRY_RUN_MARK, &*self.payload].concat().into()
        } else {
            self.payload.clone()
        }
    }

    /// Reads a request. Trusts nothing: a header that is missing or malformed is an error that names it.
    ///
    /// A caller that is no gateway may leave out everything but the endpoint: then it is the first attempt,
    /// at least once, with `TIMEOUT_PRESUMED`.
    ///
    /// # Errors
    /// `EnvelopeError` for the first header that does not keep to the protocol.
    pub fn parse(from: &Headers, payload: Bytes) -> Result<Self, EnvelopeError> {
        let error = |header, expected| EnvelopeError { header, expected };
        let found = Found::of(from);
        let endpoint = found
            .endpoint
            .and_then(|text| EndpointId::new(text).ok())
            .ok_or(error(headers::ENDPOINT, "expected the id of an endpoint"))?;
        let attempt = match found.attempt {
            None => 1,
            Some(text) => text
                .parse()
                .ok()
                .filter(|n| *n > 0)
                .ok_or(error(headers::ATTEMPT, "expected a number from 1"))?,
        };
        let timeout = match found.timeout {
            None => TIMEOUT_PRESUMED,
            Some(text) => text
                .parse::<u32>()
                .map(|ms| Duration::from_millis(ms.into()))
                .map_err(|_| error(headers::TIMEOUT_MS, "expected milliseconds, a whole number"))?,
        };
        let dry_run = found.execution == Some(DRY_RUN);
        let execution = match found.execution {
            None | Some("at-least-once") => Execution::AtLeastOnce,
            Some("at-most-once" | DRY_RUN) => Execution::AtMostOnce,
            Some(_) => {
                let expected = "expected at-least-once, at-most-once or dry-run";
                return Err(error(headers::EXECUTION, expected));
            }
        };
        if dry_run != payload.starts_with(DRY_RUN_MARK) {
            let expected = "expected dry-run, and a payload that begins with it, or neither";
            return Err(error(headers::EXECUTION, expected));
        }
        let payload = if dry_run { payload.slice(DRY_RUN_MARK.len()..) } else { payload };
        let bounded = |name: &'static str, value: Option<&str>, bytes_max| match value {
            Some(value) if value.len() > bytes_max => Err(error(name, "too long")),
            _ => Ok(()),
        };
        bounded(headers::REQUEST_ID, found.request_id, TEXT_BYTES_MAX)?;
        bounded(headers::PRINCIPAL, found.principal, TEXT_BYTES_MAX)?;
        bounded(headers::IDEMPOTENCY_KEY, found.idempotency_key, TEXT_BYTES_MAX)?;
        bounded(headers::TRACEPARENT, found.traceparent, TEXT_BYTES_MAX)?;
        bounded(headers::TRACESTATE, found.tracestate, TRACESTATE_BYTES_MAX)?;
        Ok(Self {
            endpoint,
            request_id: found.request_id.unwrap_or_default().into(),
            attempt,
            timeout,
            execution,
            dry_run,
            // A hint: what cannot be read is none.
            waiting: found.waiting.and_then(|n| n.parse().ok()).unwrap_or_default(),
            // What cannot be read is none: then the answer comes whole. So does that of a dry run: nothing of it may be
            // told before it is rolled back.
            window: found.window.filter(|_| !dry_run).and_then(|n| n.parse().ok()).unwrap_or(0),
            principal: found.principal.map(ToOwned::to_owned),
            idempotency_key: found.idempotency_key.map(ToOwned::to_owned),
            traceparent: found.traceparent.map(Into::into),
            tracestate: found.tracestate.map(ToOwned::to_owned),
            payload,
        })
    }
}

/// Rounded up, so that a session that has just begun has all of its time. What is left of less than a millisecond is
/// nothing: no worker could do anything with it.
fn millis(left: Duration) -> u128 {
    let whole = left.as_millis();
    if whole == 0 { 0 } else { left.as_micros().div_ceil(1000) }
}

/// The headers of a request as they stand there, found in one pass.
#[derive(Default)]
struct Found<'a> {
    endpoint: Option<&'a str>,
    request_id: Option<&'a str>,
    attempt: Option<&'a str>,
    timeout: Option<&'a str>,
    execution: Option<&'a str>,
    waiting: Option<&'a str>,
    window: Option<&'a str>,
    principal: Option<&'a str>,
    idempotency_key: Option<&'a str>,
    traceparent: Option<&'a str>,
    tracestate: Option<&'a str>,
}

impl<'a> Found<'a> {
    fn of(from: &'a Headers) -> Self {
        let mut found = Self::default();
        from.for_each(|name, value| {
            let place = match name {
                headers::ENDPOINT => &mut found.endpoint,
                headers::REQUEST_ID => &mut found.request_id,
                headers::ATTEMPT => &mut found.attempt,
                headers::TIMEOUT_MS => &mut found.timeout,
                headers::EXECUTION => &mut found.execution,
                headers::WAITING => &mut found.waiting,
                headers::WINDOW => &mut found.window,
                headers::PRINCIPAL => &mut found.principal,
                headers::IDEMPOTENCY_KEY => &mut found.idempotency_key,
                headers::TRACEPARENT => &mut found.traceparent,
                headers::TRACESTATE => &mut found.tracestate,
                _ => return,
            };
            place.get_or_insert(value);
        });
        found
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
            principal: Some("p".to_owned()),
            idempotency_key: Some("k".to_owned()),
            traceparent: Some("t".into()),
            tracestate: Some("s".repeat(tracestate)),
            payload: Bytes::from_static(b"{}"),
        }
    }

    fn carried(request: &Request) -> Result<Request, EnvelopeError> {
        Request::parse(&request.headers().unwrap(), request.body())
    }

    #[test]
    fn the_time_that_is_left_is_whole_milliseconds_unless_it_is_presumed() {
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
            let left = Request { timeout: Duration::from_micros(micros), ..request(0) };
            assert_eq!(left.headers().unwrap().get(headers::TIMEOUT_MS), text, "{micros} us");
        }
    }

    #[test]
    fn what_a_gateway_passes_on_a_worker_reads() {
        let longest = request(TRACESTATE_BYTES_MAX);
        assert_eq!(carried(&longest), Ok(longest));
        let error = carried(&request(TRACESTATE_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(error.header, headers::TRACESTATE);
    }

    #[test]
    fn a_dry_run_is_unreadable_for_who_does_not_know_it_and_never_streams() {
        let dry_run = Request { dry_run: true, window: 0, ..request(0) };
        assert_eq!(carried(&dry_run), Ok(dry_run.clone()));
        assert_eq!(carried(&Request { window: 2, ..dry_run.clone() }), Ok(dry_run.clone()));
        assert!(serde_json::from_slice::<serde_json::Value>(&dry_run.body()).is_err());
        let headers = dry_run.headers().unwrap();
        assert_eq!(headers.get(headers::EXECUTION), Some("dry-run"));
        // Half of it is none: neither is executed for real.
        let half = Request::parse(&headers, dry_run.payload.clone()).unwrap_err();
        let other = Request::parse(&request(0).headers().unwrap(), dry_run.body()).unwrap_err();
        assert_eq!([half.header, other.header], [headers::EXECUTION; 2]);
    }
}
