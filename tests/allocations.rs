//! Promise: the number of allocations per request does not grow. Unlike a duration, this number does not depend on the
//! machine.
//!
//! The gateway and the worker run as in production, over a real NATS server with TLS. Each has its own runtime with one
//! thread, so that the allocations of a thread are those of its role. Requests are sent one at a time.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use allocation_counter::measure;
use arc_swap::ArcSwap;
use fjord::admin::Readiness;
use fjord::catalogue::QueueName;
use fjord::cli::Role;
use fjord::config::messaging::TransportConfig;
use fjord::config::{Config, Sources};
use fjord::in_flight::ConcurrencyLimit;
use fjord::lifecycle::{Cancel, Tasks};
use fjord::messaging::{self, Transport, nats};
use fjord::roles::gateway::active_config::ActiveConfig;
use fjord::roles::gateway::admission::rate_limit::RateLimiter;
use fjord::roles::gateway::client::byte_budget::ByteBudget;
use fjord::roles::gateway::client::requests_per_caller::RequestsPerCaller;
use fjord::roles::gateway::dispatch::{AnswerReuse, Dispatcher};
use fjord::roles::gateway::edge::health_check::HealthCheck;
use fjord::roles::gateway::edge::listener::Listener;
use fjord::roles::gateway::pipeline::Pipeline;
use fjord::roles::worker::HandlerContext;
use fjord::roles::worker::execution::executor::Executor;
use fjord::roles::worker::execution::handlers;
use fjord::roles::worker::execution::recent_replies::RecentReplies;
use fjord::roles::worker::execution::reply_sender::ReplySender;
use fjord::roles::worker::intake::membership::GroupMembership;
use fjord::roles::worker::intake::queue::Queue;
use fjord::roles::worker::intake::slots::Slots;
use fjord::roles::worker::intake::version::{self, QueueVersion, ServedEndpoint};
use fjord::roles::worker::observation::readiness::QueueReadiness;
use fjord::roles::worker::subjects::QueueSubjects;
use fjord::telemetry::{exposition, gauge, names, snapshot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};

use super::support::certs::Certs;
use super::support::client::install_provider;
use super::support::eventually::{SOON, TICK, poll};
use super::support::nats::{NatsOptions, NatsServer};

/// The expected number of the gateway's allocations per request, from reading the request to writing the response.
/// Lower this value and `WORKER` after an improvement.
const GATEWAY: f64 = 67.0;
/// The expected number of the worker's allocations per request, from the message to the reply.
const WORKER: f64 = 58.0;
/// The test fails if a count exceeds its expected value by more than this factor.
const GROWTH: f64 = 1.1;

const WARM_UP: u32 = 200;
const REQUESTS: u32 = 500;

const ENDPOINTS: &str = r#"{ "echo": { "route": "GET /v1/echo/{id}", "handler": "echo",
    "parameters": { "id": { "in": "path", "type": "string" } },
    "result": "json", "timeout": "10s", "auth": "public" } }"#;

pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

pub(crate) fn config(home: &Path, role: Role, text: &str) -> Config {
    let directory = home.join(role.as_str());
    fs::create_dir_all(&directory).expect("the directory can be created");
    fs::write(directory.join("fjord.toml"), text).expect("the file can be written");
    let (environment, sets) = (Vec::new(), Vec::new());
    let directory = Some(directory);
    let sources = Sources { directory, role: Some(role), environment, sets, ..Sources::default() };
    Config::load(&sources).expect("a valid configuration").config
}

pub(crate) async fn connect(config: &Config) -> Arc<dyn Transport> {
    let TransportConfig::Nats(settings) = &config.messaging.transport;
    let transport =
        nats::connect(settings, "allocations").await.expect("the transport can be created");
    messaging::wait_until_up(&mut transport.link()).await.expect("the link comes up");
    transport
}

/// Starts a gateway as `roles::gateway::run` does, without TLS for clients.
pub(crate) async fn gateway(config: &Config, tasks: &Tasks) -> SocketAddr {
    let transport = connect(config).await;
    let active_config = ActiveConfig::load(config).expect("a valid catalogue");
    let endpoints = active_config.catalogue.endpoints().iter();
    let queues: Vec<QueueName> =
        endpoints.map(|endpoint| endpoint.queues.first().name.clone()).collect();
    let dispatcher =
        Dispatcher::start(config, &queues, transport, tasks).await.expect("a subscription");
    let pipeline = Pipeline {
        active_config: ArcSwap::from_pointee(active_config),
        dispatcher,
        reuse: AnswerReuse::new(&config.gateway.http),
        rates: Arc::new(RateLimiter::new(config.gateway.rate_limits)),
        in_flight: ConcurrencyLimit::new(100, gauge(&names::GATEWAY_IN_FLIGHT, &[])),
        in_flight_per_caller: RequestsPerCaller::new(100),
        bytes: ByteBudget::new(&config.gateway.http),
        health: HealthCheck::new(Readiness::new()),
    };
    let listener = Listener::bind(&config.gateway, None).expect("a free port");
    listener.serve(Arc::new(pipeline), tasks).address()
}

/// Starts a worker as `roles::worker::run` does, with a queue for each endpoint, and returns once its queues are served.
pub(crate) async fn worker(config: &Config, tasks: &Tasks) {
    let transport = connect(config).await;
    let replies = ReplySender::new(Arc::clone(&transport));
    let recent = RecentReplies::new(config.messaging.transport.reconnect_time_max());
    let (executor, _requests) =
        Executor::new(replies, recent, config.worker.clone(), tasks.clone());
    let directory = &config.catalogue.directory;
    let catalogue =
        fjord::catalogue::load(directory, &config.catalogue.defaults).expect("a valid catalogue");
    let (executor, prefix) = (Arc::new(executor), &config.messaging.prefix);
    let readiness = Arc::new(QueueReadiness::new(Readiness::new()));
    for (index, endpoint) in catalogue.endpoints().iter().enumerate() {
        let context = HandlerContext { database: None, answer_bytes_max: 1 << 20 };
        let handler = handlers::create(&endpoint.handler, &context).expect("the handler");
        let name = endpoint.queues.first().name.clone();
        let subjects = QueueSubjects::new(prefix, name, index, "1").expect("valid subjects");
        let slots =
            Slots::new(16, config.worker.remembered_refusals_max, config.worker.offer_timeout);
        let endpoints = vec![ServedEndpoint::new(Arc::clone(endpoint), handler)];
        let endpoints = Arc::new(version::by_id(endpoints));
        let version = QueueVersion {
            number: 1,
            endpoints: Arc::clone(&endpoints),
            verification: None,
            leave_timeout: std::time::Duration::from_secs(1),
        };
        let (sender, versions) = watch::channel(Arc::new(version));
        let queue = Arc::new(Queue::new(subjects, endpoints, slots, Arc::clone(&executor)));
        let membership = GroupMembership {
            queue,
            transport: Arc::clone(&transport),
            versions,
            executor: Arc::clone(&executor),
            readiness: Arc::clone(&readiness),
            stop: Cancel::new(),
            closed: Cancel::new(),
        };
        drop(tasks.spawn(async move {
            membership.serve().await;
            drop(sender);
        }));
    }
    let served = poll(SOON, TICK, async || {
        let ready = snapshot::sums(&names::WORKER_QUEUE_READY, names::QUEUE);
        let is_ready = |queue: &str| ready.get(queue).is_some_and(|ready| *ready > 0.5);
        let mut endpoints = catalogue.endpoints().iter();
        endpoints.all(|endpoint| is_ready(endpoint.queues.first().name.as_str())).then_some(())
    });
    served.await.expect("the queues are served");
}

/// Sends requests on one connection, without allocating.
async fn send_requests(stream: &mut TcpStream, times: u32) {
    const REQUEST: &[u8] = b"GET /v1/echo/528003000004000 HTTP/1.1\r\nhost: localhost\r\n\r\n";
    const END: &[u8] = b"{\"id\":\"528003000004000\"}";
    for _ in 0..times {
        stream.write_all(REQUEST).await.expect("the request is sent");
        let (mut answer, mut length) = ([0; 2048], 0);
        while !answer[..length].ends_with(END) {
            let read = stream.read(&mut answer[length..]).await.expect("the response");
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer[..length]));
            length += read;
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
}

#[track_caller]
fn check(role: &str, counted: u64, allowed: f64) {
    let per_request =
        f64::from(u32::try_from(counted).expect("the number fits u32")) / f64::from(REQUESTS);
    println!("ALLOCATIONS of the {role} per request: {per_request:.1}, expected {allowed}");
    assert!(
        per_request <= allowed * GROWTH,
        "{role}: {per_request:.1} allocations per request, expected {allowed}"
    );
}

#[test]
fn the_number_of_allocations_per_request_does_not_grow() {
    install_provider();
    exposition::install(Role::Gateway);
    let home = tempfile::tempdir().expect("a temporary directory");
    let certs = Certs::new(&home.path().join("certs"));
    let own = runtime();
    let server = own.block_on(NatsServer::start(home.path(), &certs, &NatsOptions::default()));
    let endpoints = home.path().join("endpoints");
    fs::create_dir_all(&endpoints).expect("the directory can be created");
    fs::write(endpoints.join("echo.json"), ENDPOINTS).expect("the file can be written");
    let shared = format!(
        "[catalogue]\ndirectory = '{}'\n[messaging.nats]\nservers = ['{}']\n[messaging.nats.tls]\nca = '{}'\n",
        endpoints.display(),
        server.url(),
        certs.ca.display()
    );
    let queues = format!("{shared}[worker.queues.'*']\nconcurrency = 16\n");
    let workers = config(home.path(), Role::Worker, &queues);
    let listen = "[gateway]\nlisten = '127.0.0.1:0'\ninsecure_plain_text = true\n";
    let gateways = config(home.path(), Role::Gateway, &format!("{shared}{listen}"));

    let (tell_ready, ready) = oneshot::channel();
    let (begin, begins) = oneshot::channel::<()>();
    let (end, ends) = oneshot::channel::<()>();
    let working = thread::spawn(move || {
        let (runtime, tasks) = (runtime(), Tasks::new());
        runtime.block_on(worker(&workers, &tasks));
        tell_ready.send(()).expect("the receiver exists");
        runtime.block_on(begins).expect("the test sends the signal to begin");
        measure(|| runtime.block_on(ends).expect("the test sends the signal to end")).count_total
    });
    own.block_on(ready).expect("the worker does not panic");
    let tasks = Tasks::new();
    let mut stream = own.block_on(async {
        let address = gateway(&gateways, &tasks).await;
        let mut stream = TcpStream::connect(address).await.expect("the gateway listens");
        send_requests(&mut stream, WARM_UP).await;
        stream
    });
    begin.send(()).expect("the worker listens");
    let counted = measure(|| own.block_on(send_requests(&mut stream, REQUESTS))).count_total;
    end.send(()).expect("the worker listens");
    check("gateway", counted, GATEWAY);
    check("worker", working.join().expect("the worker does not panic"), WORKER);
}
