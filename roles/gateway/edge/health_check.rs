//! The health check for load balancers, on the public port. It reports only whether the gateway is ready.
//!
//! It needs no credentials and writes no access line. The limit on requests in flight does not apply to it, because a gateway
//! at that limit is healthy.

use http::{Method, StatusCode, header};

use crate::admin::Readiness;
use crate::telemetry::{Counter, counter, names};

use crate::roles::gateway::response::Response;

/// The health check, which tells load balancers whether to send requests to this gateway.
#[derive(Debug)]
pub struct HealthCheck {
    readiness: Readiness,
    ready: Counter,
    not_ready: Counter,
}

impl HealthCheck {
    /// Creates a health check that reports whether the components in `readiness` are ready.
    #[must_use]
    pub fn new(readiness: Readiness) -> Self {
        let with = |result: &str| {
            counter(&names::GATEWAY_HEALTH_CHECKS, &[(names::RESULT, result.to_owned())])
        };
        Self { readiness, ready: with("ready"), not_ready: with("not_ready") }
    }

    /// Returns 200 or 503 for GET and HEAD, and `None` for other methods.
    #[must_use]
    pub fn respond(&self, method: &Method) -> Option<Response> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        let (status, body, counter) = if self.readiness.is_ready() {
            (StatusCode::OK, "ready\n", &self.ready)
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready\n", &self.not_ready)
        };
        counter.increment(1);
        let mut response = Response::new(bytes::Bytes::from_static(body.as_bytes()).into());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let text = header::HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, text);
        headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
        Some(response)
    }
}
