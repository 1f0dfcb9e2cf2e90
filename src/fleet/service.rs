//! Implements the NATS service API (ADR-32). Answers `$SRV.PING`, `.INFO` and `.STATS`, so that
//! tools such as `nats micro` can see gateways and workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::{SelectAll, StreamExt};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::Role;
use crate::envelope::headers;
use crate::lifecycle::Tasks;
use crate::message::{Message, Subject};
use crate::messaging::{Subscription, Transport, TransportError};

use super::report::QueueReport;
use super::{FleetMember, ProcessIdentity, Report};

/// The first token of every subject of the API.
const ROOT: &str = "$SRV";

/// The requests of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServiceRequest {
    Ping,
    Info,
    Stats,
}

impl ServiceRequest {
    const ALL: [Self; 3] = [Self::Ping, Self::Info, Self::Stats];

    fn token(self) -> &'static str {
        match self {
            Self::Ping => "PING",
            Self::Info => "INFO",
            Self::Stats => "STATS",
        }
    }

    /// Returns the subjects of the request: one for all services, one for services with this name,
    /// and one for this process.
    fn subjects(self, identity: &ProcessIdentity) -> [String; 3] {
        let (request, name, id) = (self.token(), name(identity.role), &identity.id);
        [
            format!("{ROOT}.{request}"),
            format!("{ROOT}.{request}.{name}"),
            format!("{ROOT}.{request}.{name}.{id}"),
        ]
    }
}

/// Returns the name of the service. The API permits only letters, digits, `-` and `_`.
fn name(role: Role) -> &'static str {
    match role {
        Role::Gateway => "fjord-gateway",
        Role::Worker => "fjord-worker",
    }
}

fn description(role: Role) -> &'static str {
    match role {
        Role::Gateway => {
            "Sends HTTPS requests to queues. Its endpoints are the queues that it sends to."
        }
        Role::Worker => "Runs stored procedures. Its endpoints are the queues that it serves.",
    }
}

/// The fields that every response contains.
#[derive(Serialize)]
struct ServiceInstance<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'static str,
    id: &'a str,
    version: &'static str,
    metadata: BTreeMap<&'static str, &'a str>,
}

impl<'a> ServiceInstance<'a> {
    fn new(identity: &'a ProcessIdentity, kind: &'static str) -> Self {
        let metadata = BTreeMap::from([
            ("role", identity.role.as_str()),
            ("host", identity.host.as_str()),
            ("prefix", identity.prefix.as_str()),
        ]);
        let version = env!("CARGO_PKG_VERSION");
        Self { kind, name: name(identity.role), id: &identity.id, version, metadata }
    }
}

#[derive(Serialize)]
struct InfoResponse<'a> {
    #[serde(flatten)]
    instance: ServiceInstance<'a>,
    description: &'static str,
    endpoints: Vec<EndpointInfo<'a>>,
}

#[derive(Serialize)]
struct EndpointInfo<'a> {
    name: &'a str,
    subject: String,
    queue_group: &'a str,
    metadata: BTreeMap<&'static str, &'static str>,
}

#[derive(Serialize)]
struct StatsResponse<'a> {
    #[serde(flatten)]
    instance: ServiceInstance<'a>,
    started: &'a str,
    endpoints: Vec<EndpointStats<'a>>,
}

#[derive(Serialize)]
struct EndpointStats<'a> {
    name: &'a str,
    subject: String,
    queue_group: &'a str,
    num_requests: u64,
    num_errors: u64,
    last_error: &'a str,
    /// The total time in nanoseconds. The average below has the same unit.
    processing_time: u64,
    average_processing_time: u64,
    data: Value,
}

impl<'a> EndpointStats<'a> {
    fn new(prefix: &Subject, queue: &'a QueueReport) -> Self {
        Self {
            name: &queue.name,
            subject: subject(prefix, queue),
            queue_group: &queue.name,
            num_requests: queue.calls,
            num_errors: queue.errors,
            last_error: &queue.last_error,
            processing_time: nanoseconds(queue.times.seconds),
            average_processing_time: nanoseconds(queue.times.mean().unwrap_or_default()),
            data: data(queue),
        }
    }
}

/// Returns the subject to which requests for a queue are published.
fn subject(prefix: &Subject, queue: &QueueReport) -> String {
    format!("{prefix}.q.{}", queue.name)
}

/// Returns the values of a queue for which the API has no field.
fn data(queue: &QueueReport) -> Value {
    match (&queue.slots, &queue.demand) {
        (Some(slots), _) => json!({
            "limit": slots.limit, "running": slots.running, "waiting": slots.waiting,
            "served": slots.is_served, "paused": slots.is_paused,
        }),
        (None, Some(demand)) => json!({ "arrivals": demand.arrivals, "waiting": demand.waiting }),
        (None, None) => json!({}),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "2^64 nanoseconds are more than 500 years, and no time is negative"
)]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e9) as u64
}

/// Subscribes to requests and answers them one at a time until the transport closes.
///
/// # Errors
/// Returns `TransportError` if a subscription fails.
pub async fn serve(
    member: &Arc<FleetMember>,
    transport: &Arc<dyn Transport>,
    tasks: &Tasks,
) -> Result<(), TransportError> {
    let mut requests = SelectAll::new();
    for request in ServiceRequest::ALL {
        for subject in request.subjects(&member.identity) {
            let subject =
                Subject::new(&subject).map_err(|error| TransportError::Failed(error.into()))?;
            let subscription: Box<dyn Subscription> =
                transport.subscribe_optional(&subject).await?;
            requests.push(subscription.map(move |message| (request, message)));
        }
    }
    let (member, transport) = (Arc::clone(member), Arc::clone(transport));
    let _detached = tasks.spawn_background(async move {
        while let Some((request, message)) = requests.next().await {
            if let Some(inbox) = message.reply {
                respond(&member, request, &*transport, inbox).await;
            }
        }
    });
    Ok(())
}

async fn respond(
    member: &FleetMember,
    request: ServiceRequest,
    transport: &dyn Transport,
    inbox: Subject,
) {
    let answer = answer(member, request);
    let message = Message { payload: answer.into(), ..Message::to(inbox.clone()) };
    let sent = match transport.publish(message).await {
        Err(TransportError::TooLarge) => transport.publish(too_large(inbox)).await,
        sent => sent,
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "cannot answer a request to the service API");
    }
}

fn answer(member: &FleetMember, request: ServiceRequest) -> Vec<u8> {
    let identity = &member.identity;
    match request {
        ServiceRequest::Ping => {
            written(&ServiceInstance::new(identity, "io.nats.micro.v1.ping_response"))
        }
        ServiceRequest::Info => written(&info(identity, &member.report())),
        ServiceRequest::Stats => written(&stats(identity, &member.report())),
    }
}

fn info<'a>(identity: &'a ProcessIdentity, report: &'a Report) -> InfoResponse<'a> {
    let endpoint = |queue: &'a QueueReport| EndpointInfo {
        name: &queue.name,
        subject: subject(&identity.prefix, queue),
        queue_group: &queue.name,
        metadata: BTreeMap::new(),
    };
    InfoResponse {
        instance: ServiceInstance::new(identity, "io.nats.micro.v1.info_response"),
        description: description(identity.role),
        endpoints: report.queues.iter().map(endpoint).collect(),
    }
}

fn stats<'a>(identity: &'a ProcessIdentity, report: &'a Report) -> StatsResponse<'a> {
    let endpoint = |queue| EndpointStats::new(&identity.prefix, queue);
    StatsResponse {
        instance: ServiceInstance::new(identity, "io.nats.micro.v1.stats_response"),
        started: &identity.started,
        endpoints: report.queues.iter().map(endpoint).collect(),
    }
}

fn written(value: &impl Serialize) -> Vec<u8> {
    let written = serde_json::to_vec(value);
    debug_assert!(written.is_ok(), "strings and numbers can be serialized");
    written.unwrap_or_default()
}

/// Returns the error that is sent if the response does not fit into a message.
fn too_large(inbox: Subject) -> Message {
    let mut message = Message::to(inbox);
    let code = message.headers.push(headers::SERVICE_ERROR_CODE, "500");
    let text =
        message.headers.push(headers::SERVICE_ERROR, "the answer does not fit into one message");
    debug_assert!(code.is_ok() && text.is_ok(), "constants are valid headers");
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::report::{DemandReport, SlotsReport};
    use crate::telemetry::Distribution;

    fn member(role: Role) -> Arc<FleetMember> {
        let text = |text| Subject::new(text).unwrap();
        let identity = ProcessIdentity::new(role, text("fjord"), &text("_INBOX.0123456789abcdef"));
        let queue = QueueReport {
            name: "horse-get".to_owned(),
            calls: 4,
            errors: 1,
            last_error: "sql_timeout".to_owned(),
            times: Distribution { count: 4, seconds: 0.5, buckets: Vec::new() },
            slots: Some(SlotsReport { limit: 8, running: 2, ..SlotsReport::default() }),
            demand: Some(DemandReport::default()),
            ..QueueReport::default()
        };
        let source = move |identity: &ProcessIdentity| Report {
            queues: vec![queue.clone()],
            ..Report::new(identity)
        };
        FleetMember::new(identity, Arc::new(source))
    }

    fn answered(request: ServiceRequest) -> Value {
        serde_json::from_slice(&answer(&member(Role::Worker), request)).unwrap()
    }

    #[test]
    fn every_response_identifies_its_sender() {
        for (request, word) in [
            (ServiceRequest::Ping, "ping"),
            (ServiceRequest::Info, "info"),
            (ServiceRequest::Stats, "stats"),
        ] {
            let answer = answered(request);
            assert_eq!(answer["type"], format!("io.nats.micro.v1.{word}_response"));
            assert_eq!(answer["name"], "fjord-worker");
            assert_eq!(answer["id"], "0123456789abcdef");
            assert_eq!(answer["version"], env!("CARGO_PKG_VERSION"));
            assert_eq!(answer["metadata"]["prefix"], "fjord");
        }
        assert_eq!(
            answered(ServiceRequest::Ping).as_object().unwrap().len(),
            5,
            "a ping contains nothing else"
        );
    }

    #[test]
    fn an_endpoint_is_a_queue_with_times_in_nanoseconds() {
        let stats = &answered(ServiceRequest::Stats)["endpoints"][0];
        let expected = json!({
            "name": "horse-get", "subject": "fjord.q.horse-get", "queue_group": "horse-get",
            "num_requests": 4, "num_errors": 1, "last_error": "sql_timeout",
            "processing_time": 500_000_000, "average_processing_time": 125_000_000,
            "data": { "limit": 8, "running": 2, "waiting": 0, "served": false, "paused": false },
        });
        assert_eq!(*stats, expected);
        let info = &answered(ServiceRequest::Info)["endpoints"][0];
        let expected = json!({
            "name": "horse-get", "subject": "fjord.q.horse-get", "queue_group": "horse-get",
            "metadata": {},
        });
        assert_eq!(*info, expected);
    }

    #[test]
    fn requests_address_all_services_a_name_or_an_id() {
        let subjects = ServiceRequest::Info.subjects(&member(Role::Gateway).identity);
        let expected =
            ["$SRV.INFO", "$SRV.INFO.fjord-gateway", "$SRV.INFO.fjord-gateway.0123456789abcdef"];
        assert_eq!(subjects, expected);
        assert!(subjects.iter().all(|subject| Subject::new(subject).is_ok()));
    }
}
