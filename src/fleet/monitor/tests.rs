//! Tests when a monitor queries the fleet, and which document the page receives.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use tokio::time::sleep;

use super::*;
use crate::cli::Role;
use crate::fleet::ProcessIdentity;
use crate::fleet::report::{DemandReport, QueueReport, SlotsReport};
use crate::message::{Message, Subject};
use crate::messaging::fake::FakeTransport;
use crate::telemetry::{Distribution, count_as_f64};

/// Returns a transport with a reply from each of these processes to each query.
fn transport(replies: Vec<Report>) -> Arc<FakeTransport> {
    let queries = AtomicU64::new(0);
    FakeTransport::with_replies(move |subject| {
        let step = queries.fetch_add(1, Ordering::Relaxed) + 1;
        let message = |report: &Report| {
            let payload = serde_json::to_vec(&grown(report, step)).unwrap().into();
            Message { payload, ..Message::to(subject.clone()) }
        };
        replies.iter().map(message).collect()
    })
}

/// The gateway whose page is tested. Its transport has replies from other processes.
struct MonitoredGateway {
    transport: Arc<FakeTransport>,
    document: DocumentSource,
}

impl MonitoredGateway {
    fn start(covers_fleet: bool, replies: Vec<Report>) -> Self {
        let transport = transport(replies);
        let prefix = Subject::new("fjord").unwrap();
        let mut identity = ProcessIdentity::new(Role::Gateway, prefix, &transport.inbox());
        identity.host = "gw-1".to_owned();
        let reports = AtomicU64::new(0);
        let source = move |identity: &ProcessIdentity| {
            let step = reports.fetch_add(1, Ordering::Relaxed) + 1;
            grown(&own_report(&identity.id), step)
        };
        let member = FleetMember::new(identity, Arc::new(source));
        let shared: Arc<dyn Transport> = Arc::clone(&transport) as Arc<dyn Transport>;
        let document = start(&member, covers_fleet, &shared, &Tasks::new());
        Self { transport, document }
    }

    fn document(&self, queue: Option<&str>) -> Value {
        serde_json::from_slice(&(self.document)(queue)).unwrap()
    }
}

fn own_report(id: &str) -> Report {
    let demand = DemandReport { arrivals: 30, waiting: 2, waits: times(30, 0.001) };
    let queue = QueueReport {
        name: "orders".to_owned(),
        calls: 30,
        errors: 3,
        times: times(30, 0.02),
        demand: Some(demand),
        ..QueueReport::default()
    };
    Report { queues: vec![queue], ..process("gateway", id, "gw-1") }
}

fn worker_report() -> Report {
    let slots = SlotsReport {
        limit: 4,
        running: 1,
        used_seconds: 2.0,
        is_served: true,
        ..SlotsReport::default()
    };
    let queue = QueueReport {
        name: "orders".to_owned(),
        calls: 27,
        errors: 3,
        last_error: "sql_timeout".to_owned(),
        times: times(27, 0.01),
        slots: Some(slots),
        ..QueueReport::default()
    };
    Report { queues: vec![queue], ..process("worker", "w1", "<b>db</b>") }
}

fn process(role: &str, id: &str, host: &str) -> Report {
    Report {
        role: role.to_owned(),
        id: id.to_owned(),
        host: host.to_owned(),
        version: "0.0.0".to_owned(),
        uptime_seconds: 10.0,
        in_flight_max: 8,
        cpu_seconds: Some(1.0),
        memory_bytes: Some(1 << 20),
        ..Report::default()
    }
}

/// Returns the report that the same process would send `step` times 10 s later under the same load.
fn grown(report: &Report, step: u64) -> Report {
    let mut report = report.clone();
    let factor = count_as_f64(step);
    let grow = |times: &mut Distribution| {
        times.count *= step;
        times.seconds *= factor;
        times.buckets.iter_mut().for_each(|(_, count)| *count *= step);
    };
    report.uptime_seconds *= factor;
    report.cpu_seconds = report.cpu_seconds.map(|seconds| seconds * factor);
    for queue in &mut report.queues {
        queue.calls *= step;
        queue.errors *= step;
        grow(&mut queue.times);
        if let Some(demand) = &mut queue.demand {
            demand.arrivals *= step;
            grow(&mut demand.waits);
        }
        if let Some(slots) = &mut queue.slots {
            slots.used_seconds *= factor;
        }
    }
    report
}

/// Returns a distribution of durations just below `seconds`.
fn times(count: u64, seconds: f64) -> Distribution {
    let buckets = vec![(seconds, count)];
    Distribution { count, seconds: seconds * count_as_f64(count), buckets }
}

#[tokio::test(start_paused = true)]
async fn the_fleet_is_queried_only_while_somebody_looks_and_shortly_after() {
    let gateway = MonitoredGateway::start(true, vec![worker_report()]);
    sleep(HISTORY_TIME * 2).await;
    assert_eq!(gateway.transport.published().len(), 0, "nobody has looked");

    assert_eq!(
        gateway.document(None)["bottleneck"],
        Value::Null,
        "the first rates need two reports"
    );
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(gateway.transport.published().len(), 2);
    let document = gateway.document(None);
    assert_eq!(document["bottleneck"]["kind"], "none", "{document}");
    assert_eq!(document["processes"].as_array().map(Vec::len), Some(2), "{document}");

    sleep(LINGER).await;
    let last = gateway.transport.published().len();
    let expected = usize::try_from(LINGER.as_secs() / INTERVAL.as_secs()).unwrap() + 2;
    assert!((expected - 1..=expected + 1).contains(&last), "{last} queries");
    sleep(HISTORY_TIME * 2).await;
    let ended = gateway.transport.published().len();
    assert!(ended <= last + 1, "nobody has looked for a long time");
    let document = gateway.document(None);
    assert_eq!(document["processes"], Value::Array(Vec::new()), "old data is discarded");

    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(gateway.transport.published().len(), ended + 2, "the collection starts again");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_does_not_cover_the_fleet_never_sends_a_query() {
    let worker = MonitoredGateway::start(false, vec![worker_report()]);
    for _ in 0..10 {
        let document = worker.document(None);
        assert_eq!(document["covers_fleet"], false);
        sleep(INTERVAL).await;
    }
    assert_eq!(worker.transport.published().len(), 0);
    let document = worker.document(None);
    assert_eq!(document["processes"].as_array().map(Vec::len), Some(1), "{document}");
    assert_eq!(document["failure"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn without_nats_the_last_data_stays_and_is_marked() {
    let gateway = MonitoredGateway::start(true, vec![worker_report()]);
    gateway.document(None);
    sleep(INTERVAL * 2).await;
    let link = |state| gateway.transport.set_link(state);
    link(LinkState::Down);
    sleep(INTERVAL * 4).await;
    let document = gateway.document(None);
    assert_eq!(document["nats"], "down");
    assert_eq!(document["failure"], "cannot query the fleet: the message bus is not connected");
    assert_eq!(document["processes"].as_array().map(Vec::len), Some(2), "{document}");
    assert!(document["age_seconds"].as_f64() >= Some(15.0), "{document}");
    assert_eq!(document["missing"], Value::Array(Vec::new()), "nobody was asked");
    let requests = document["history"]["requests_per_second"].as_array().unwrap();
    assert!(requests.ends_with(&[Value::Null, Value::Null]), "{requests:?}");
    link(LinkState::Up);
    sleep(INTERVAL * 2).await;
    assert_eq!(gateway.document(None)["failure"], Value::Null);

    // A process that has never received a reply shows only itself.
    let alone = MonitoredGateway::start(true, Vec::new());
    alone.document(None);
    sleep(INTERVAL * 3).await;
    let document = alone.document(None);
    assert!(document["failure"].as_str().unwrap().contains("fjord.status"), "{document}");
    assert_eq!(document["processes"].as_array().map(Vec::len), Some(1), "{document}");
}

#[tokio::test(start_paused = true)]
async fn the_document_has_the_fields_that_the_page_reads() {
    let gateway = MonitoredGateway::start(true, vec![worker_report()]);
    gateway.document(None);
    sleep(Duration::from_millis(1_500)).await;
    let mut document = gateway.document(Some("orders"));
    document["process"]["version"] = "0.0.0".into();
    insta::assert_snapshot!(format!("{document:#}"));
    let other = gateway.document(Some("<other>"));
    assert_eq!(other["history"]["is_kept"], false);
    assert_eq!(other["history"]["queue"], "<other>");
}
