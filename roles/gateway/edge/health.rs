//! The health check of load balancers, on the serving port: ready or not, and nothing else.
//!
//! It needs no credentials and no place among the requests in flight: a gateway that is full is well. It writes no access line.

use http::{Method, StatusCode, header};

use crate::admin::Readiness;
use crate::telemetry::{Counter, counter, names};

use crate::roles::gateway::response::Response;

/// Answers whether this gateway should be sent requests.
#[derive(Debug)]
pub struct HealthCheck {
    readiness: Readiness,
    ready: Counter,
    not_ready: Counter,
}

impl HealthCheck {
    /// A check of these parts.
    #[must_use]
    pub fn new(readiness: Readiness) -> Self {
        let with = |result: &str| {
            counter(&names::GATEWAY_HEALTH_CHECKS, &[(names::RESULT, result.to_owned())])
        };
        Self { readiness, ready: with("ready"), not_ready: with("not_ready") }
    }

    /// 200 or 503, for GET and HEAD; none for other methods.
    #[must_use]
    pub fn answer(&self, method: &Method) -> Option<Response> {
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
