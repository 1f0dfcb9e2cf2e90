//! Encodes a batch of spans as one OTLP export request in protobuf format.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{self as otlp, ResourceSpans, ScopeSpans};
use prost::Message as _;
use tokio::time::Instant;

use super::{AttributeValue, EndedSpan, SpanKind};
use crate::cli::Role;

/// The flag of a recorded span.
const SAMPLED: u32 = 1;

/// Describes this process as the source of its spans.
pub(super) fn resource(role: Role) -> Resource {
    // A reload can start another exporter, but the process remains the same service instance.
    static INSTANCE: LazyLock<String> = LazyLock::new(|| uuid::Uuid::new_v4().to_string());
    let attributes = vec![
        attribute("service.name", AttributeValue::Name(format!("fjord-{}", role.as_str()))),
        attribute("service.version", AttributeValue::Constant(env!("CARGO_PKG_VERSION"))),
        attribute("service.instance.id", AttributeValue::Name(INSTANCE.clone())),
    ];
    Resource { attributes, ..Resource::default() }
}

pub(super) fn encode(resource: &Resource, spans: impl Iterator<Item = EndedSpan>) -> Vec<u8> {
    let clock = Clock { now: Instant::now(), wall: SystemTime::now() };
    let name = "fjord".to_owned();
    let scope_spans = ScopeSpans {
        scope: Some(InstrumentationScope { name, ..InstrumentationScope::default() }),
        spans: spans.map(|span| convert(span, &clock)).collect(),
        ..ScopeSpans::default()
    };
    let resource_spans = ResourceSpans {
        resource: Some(resource.clone()),
        scope_spans: vec![scope_spans],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
}

/// Returns the number of spans that a collector's response rejects, or 0 if the body is not a
/// response.
pub(super) fn rejected(response: &[u8]) -> u64 {
    let response = ExportTraceServiceResponse::decode(response).ok();
    let partial = response.and_then(|response| response.partial_success);
    partial.and_then(|partial| u64::try_from(partial.rejected_spans).ok()).unwrap_or_default()
}

/// Converts the monotonic times of spans to wall-clock times, which OTLP requires.
struct Clock {
    now: Instant,
    wall: SystemTime,
}

impl Clock {
    fn nanos(&self, at: Instant) -> u64 {
        let ago = self.now.saturating_duration_since(at);
        let wall = self.wall.checked_sub(ago).unwrap_or(UNIX_EPOCH);
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

fn convert(span: EndedSpan, clock: &Clock) -> otlp::Span {
    let EndedSpan { handle, ended, data } = span;
    let kind = match data.kind {
        SpanKind::Server => otlp::span::SpanKind::Server,
        SpanKind::Client => otlp::span::SpanKind::Client,
        SpanKind::Producer => otlp::span::SpanKind::Producer,
        SpanKind::Consumer => otlp::span::SpanKind::Consumer,
    };
    let status = data.error.map(|error| otlp::Status {
        message: error.to_owned(),
        code: otlp::status::StatusCode::Error.into(),
    });
    otlp::Span {
        trace_id: handle.trace.to_be_bytes().to_vec(),
        span_id: handle.id.to_be_bytes().to_vec(),
        parent_span_id: handle.parent.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
        flags: SAMPLED,
        name: data.name,
        kind: kind.into(),
        start_time_unix_nano: clock.nanos(handle.began),
        end_time_unix_nano: clock.nanos(ended),
        attributes: data.attributes.into_iter().map(|(key, value)| attribute(key, value)).collect(),
        status,
        ..otlp::Span::default()
    }
}

fn attribute(key: &'static str, value: AttributeValue) -> KeyValue {
    let value = match value {
        AttributeValue::Constant(text) => any_value::Value::StringValue(text.to_owned()),
        AttributeValue::Name(name) => any_value::Value::StringValue(name),
        AttributeValue::Number(number) => any_value::Value::IntValue(number),
    };
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}
