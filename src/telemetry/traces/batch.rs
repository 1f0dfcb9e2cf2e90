//! Spans as OTLP writes them: one export, in protobuf.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{self as otlp, ResourceSpans, ScopeSpans};
use prost::Message as _;
use tokio::time::Instant;

use super::{Kind, Span, Value};
use crate::cli::Role;

/// The flag of a span that is recorded.
const SAMPLED: u32 = 1;

/// Who the spans of this process are from.
pub(super) fn resource(role: Role) -> Resource {
    let instance = uuid::Uuid::new_v4().to_string();
    let attributes = vec![
        attribute("service.name", Value::Name(format!("fjord-{}", role.as_str()))),
        attribute("service.version", Value::Word(env!("CARGO_PKG_VERSION"))),
        attribute("service.instance.id", Value::Name(instance)),
    ];
    Resource { attributes, ..Resource::default() }
}

/// One export.
pub(super) fn encode(resource: &Resource, spans: impl Iterator<Item = Span>) -> Vec<u8> {
    let clock = Clock { now: Instant::now(), wall: SystemTime::now() };
    let name = "fjord".to_owned();
    let scope_spans = ScopeSpans {
        scope: Some(InstrumentationScope { name, ..InstrumentationScope::default() }),
        spans: spans.map(|span| written(span, &clock)).collect(),
        ..ScopeSpans::default()
    };
    let resource_spans = ResourceSpans {
        resource: Some(resource.clone()),
        scope_spans: vec![scope_spans],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
}

/// How many spans a collector says it did not take; what it says in another form is none.
pub(super) fn rejected(answer: &[u8]) -> u64 {
    let answer = ExportTraceServiceResponse::decode(answer).ok();
    let partial = answer.and_then(|answer| answer.partial_success);
    partial.and_then(|partial| u64::try_from(partial.rejected_spans).ok()).unwrap_or_default()
}

/// What time it is: spans are measured by a clock that nobody sets, and told by the one on the wall.
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

fn written(span: Span, clock: &Clock) -> otlp::Span {
    let Span { open, ended, told } = span;
    let kind = match told.kind {
        Kind::Server => otlp::span::SpanKind::Server,
        Kind::Client => otlp::span::SpanKind::Client,
        Kind::Producer => otlp::span::SpanKind::Producer,
        Kind::Consumer => otlp::span::SpanKind::Consumer,
    };
    let status = told.error.map(|word| otlp::Status {
        message: word.to_owned(),
        code: otlp::status::StatusCode::Error.into(),
    });
    otlp::Span {
        trace_id: open.trace.to_be_bytes().to_vec(),
        span_id: open.id.to_be_bytes().to_vec(),
        parent_span_id: open.parent.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
        flags: SAMPLED,
        name: told.name,
        kind: kind.into(),
        start_time_unix_nano: clock.nanos(open.began),
        end_time_unix_nano: clock.nanos(ended),
        attributes: told.attributes.into_iter().map(|(key, value)| attribute(key, value)).collect(),
        status,
        ..otlp::Span::default()
    }
}

fn attribute(key: &'static str, value: Value) -> KeyValue {
    let value = match value {
        Value::Word(word) => any_value::Value::StringValue(word.to_owned()),
        Value::Name(name) => any_value::Value::StringValue(name),
        Value::Number(number) => any_value::Value::IntValue(number),
    };
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}
