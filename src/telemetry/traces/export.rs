//! Sends spans to a collector (OTLP over HTTP), in batches and by itself. What it cannot send it counts and forgets.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use opentelemetry_proto::tonic::resource::v1::Resource;
use rand::RngExt;
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Span, batch};
use crate::cli::Role;
use crate::config::TracesConfig;
use crate::lifecycle::{Cancel, Tasks};
use crate::telemetry::{chain, counter, names};

/// Spans of one export, and how long the first one waits for others.
const BATCH_SPANS_MAX: usize = 512;
/// See `BATCH_SPANS_MAX`.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// How often a batch is sent before it is forgotten. Its followers wait meanwhile, in a queue that is bounded.
const ATTEMPTS_MAX: u32 = 5;
/// Bounds of the pause before it is sent again; doubling in between.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// See `RETRY_MIN`.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long a process that ends waits until its last spans are taken.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// The export that runs beside a role.
#[derive(Debug)]
pub struct Exporter {
    stop: Cancel,
    task: JoinHandle<()>,
}

impl Exporter {
    pub(super) fn start(
        config: &TracesConfig,
        role: Role,
        tls: Option<ClientConfig>,
        ended: mpsc::Receiver<Span>,
    ) -> Result<Self, String> {
        let sender = SpanSender {
            url: config.url.clone(),
            client: client(config, tls)?,
            resource: batch::resource(role),
            ended,
            is_away: false,
        };
        for result in ["exported", "failed", "rejected"] {
            count(result, 0);
        }
        let stop = Cancel::new();
        let task = Tasks::new().spawn_background(sender.run(stop.clone()));
        Ok(Self { stop, task })
    }

    /// Sends what still waits: the last thing of a process, and for a bounded time.
    pub async fn flush(self) {
        self.stop.cancel();
        if timeout(LAST_WAIT, self.task).await.is_err() {
            tracing::warn!("the last spans were not exported in time");
        }
    }
}

fn client(config: &TracesConfig, tls: Option<ClientConfig>) -> Result<reqwest::Client, String> {
    let builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        // The layers are the only configuration: no proxy of the environment.
        .no_proxy()
        .timeout(config.timeout)
        .default_headers(config.headers.clone())
        .user_agent(concat!("fjord/", env!("CARGO_PKG_VERSION")));
    let builder = match tls {
        Some(tls) => builder.tls_backend_preconfigured(tls).https_only(true),
        None => builder,
    };
    builder.build().map_err(|error| format!("traces: {}", chain(&error)))
}

/// Why a batch was not taken.
struct ExportError {
    why: String,
    /// The least pause before it may be taken after all; `None`: never.
    again_after: Option<Duration>,
}

struct SpanSender {
    url: String,
    client: reqwest::Client,
    resource: Resource,
    ended: mpsc::Receiver<Span>,
    /// Whether the last export failed: an outage is logged once.
    is_away: bool,
}

impl SpanSender {
    async fn run(mut self, stop: Cancel) {
        let mut spans = Vec::with_capacity(BATCH_SPANS_MAX);
        while !stop.is_cancelled() {
            tokio::select! {
                () = self.gather(&mut spans) => {}
                () = stop.cancelled() => {}
            }
            self.send(&mut spans, &stop).await;
        }
        while let Ok(span) = self.ended.try_recv() {
            spans.push(span);
            if spans.len() == BATCH_SPANS_MAX {
                self.send(&mut spans, &stop).await;
            }
        }
        self.send(&mut spans, &stop).await;
    }

    /// Waits for a span, and then a little for others. Safe to drop: what came is in `spans`.
    async fn gather(&mut self, spans: &mut Vec<Span>) {
        if self.ended.recv_many(spans, BATCH_SPANS_MAX).await == 0 {
            // Nobody records any more: the stop is all that is left to wait for.
            return std::future::pending().await;
        }
        let until = Instant::now() + BATCH_WAIT;
        while spans.len() < BATCH_SPANS_MAX {
            let room = BATCH_SPANS_MAX - spans.len();
            match timeout_at(until, self.ended.recv_many(spans, room)).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// Sends a batch, again where that may help; once only when the process is to stop.
    async fn send(&mut self, spans: &mut Vec<Span>, stop: &Cancel) {
        let number = u64::try_from(spans.len()).unwrap_or(u64::MAX);
        if number == 0 {
            return;
        }
        let body = Bytes::from(batch::encode(&self.resource, spans.drain(..)));
        for attempt in 1..=ATTEMPTS_MAX {
            let result = self.post(body.clone()).await;
            self.note(result.as_ref().err());
            let again_after = match result {
                Ok(rejected) => {
                    count("exported", number.saturating_sub(rejected));
                    return count("rejected", rejected.min(number));
                }
                Err(refused) => refused.again_after,
            };
            let Some(after) = again_after.filter(|_| attempt < ATTEMPTS_MAX) else { break };
            tokio::select! {
                () = sleep(pause(attempt).max(after.min(RETRY_MAX))) => {}
                () = stop.cancelled() => break,
            }
        }
        count("failed", number);
    }

    /// How many spans of the batch were rejected.
    async fn post(&self, body: Bytes) -> Result<u64, ExportError> {
        let broken = |error: reqwest::Error| ExportError {
            why: chain(&error.without_url()),
            again_after: Some(Duration::ZERO),
        };
        let protobuf = HeaderValue::from_static("application/x-protobuf");
        let request = self.client.post(&self.url).header(header::CONTENT_TYPE, protobuf);
        let mut answer = request.body(body).send().await.map_err(broken)?;
        let status = answer.status();
        if !status.is_success() {
            let again_after = is_passing(status).then(|| retry_after(answer.headers()));
            return Err(ExportError { why: format!("answered {status}"), again_after });
        }
        let mut bytes = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(broken)? {
            if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
                return Ok(0);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(batch::rejected(&bytes))
    }

    fn note(&mut self, failure: Option<&ExportError>) {
        let word = if failure.is_none() { "ok" } else { "failed" };
        counter(&names::TRACE_EXPORTS, &[(names::RESULT, word.to_owned())]).increment(1);
        let was_away = std::mem::replace(&mut self.is_away, failure.is_some());
        match failure {
            Some(ExportError { why, .. }) if !was_away => {
                tracing::warn!(url = self.url, error = why, "traces cannot be exported");
            }
            None if was_away => tracing::info!(url = self.url, "traces are exported again"),
            _ => {}
        }
    }
}

/// Statuses after which the same batch may be sent again, as OTLP has it.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

fn retry_after(headers: &HeaderMap) -> Duration {
    let value = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    Duration::from_secs(value.and_then(|seconds| seconds.parse().ok()).unwrap_or_default())
}

/// Many processes must not come again in step.
fn pause(attempt: u32) -> Duration {
    let pause = RETRY_MIN.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(RETRY_MAX);
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}

fn count(result: &str, spans: u64) {
    counter(&names::TRACE_SPANS, &[(names::RESULT, result.to_owned())]).increment(spans);
}
