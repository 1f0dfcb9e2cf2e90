//! The span of a request, the gateway's first span in its trace.

use http::{Method, StatusCode};

use crate::telemetry::traces::{AttributeValue, SpanData, SpanKind};

use super::RequestLog;

/// The methods that may appear in a span. Any other method is an arbitrary string from the
/// client.
const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::CONNECT,
    Method::TRACE,
];
/// The value that the semantic conventions prescribe for any other method.
const OTHER: &str = "_OTHER";

impl RequestLog {
    /// Passes the span to the exporter if the trace is recorded.
    pub(super) fn end_span(&self, status: StatusCode) {
        let Some(span) = self.trace.span(self.started_at) else { return };
        let known = METHODS.iter().find(|method| **method == self.method);
        let method = known.map_or(OTHER, Method::as_str);
        let outcome = self.outcome.as_str();
        let scheme = if self.is_tls { "https" } else { "http" };
        let mut attributes = vec![
            ("http.request.method", AttributeValue::Name(method.to_owned())),
            ("http.response.status_code", AttributeValue::Number(status.as_u16().into())),
            ("url.scheme", AttributeValue::Constant(scheme)),
            ("fjord.outcome", AttributeValue::Constant(outcome)),
            ("fjord.attempts", AttributeValue::Number(self.attempts.into())),
        ];
        // For any other method, the semantic conventions require `HTTP` in the name of the span.
        let mut name = if known.is_some() { method } else { "HTTP" }.to_owned();
        if let Some(endpoint) = &self.endpoint {
            name = format!("{name} {}", endpoint.path);
            attributes.push(("http.route", AttributeValue::Name(endpoint.path.to_string())));
            attributes.push(("fjord.endpoint", AttributeValue::Name(endpoint.id.to_string())));
        }
        if let Some(queue) = self.chosen_queue() {
            attributes.push(("fjord.queue", AttributeValue::Name(queue.to_string())));
        }
        if self.is_dry_run() {
            attributes.push(("fjord.dry_run", AttributeValue::Constant("true")));
        }
        // For a server span, a status below 500 is not an error.
        let error = status.is_server_error().then_some(outcome);
        if let Some(word) = error {
            attributes.push(("error.type", AttributeValue::Constant(word)));
        }
        span.end(SpanData { kind: SpanKind::Server, name, attributes, error });
    }
}
