//! `make bench-procedures`: compares fjord's worker with a worker in Go that calls the same procedures, on
//! the same server and in the same rounds. The callers send requests over NATS, without a gateway. Both
//! workers have the same number of connections to the database, which they reset with the first packet of
//! the next request.

use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use tempfile::TempDir;

use crate::support::eventually::eventually_some;
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::nats::NatsServer;
use crate::support::process::Process;

use super::https_client::BenchHttp;
use super::load_generator::LoadSample;
use super::procedure_client::{NatsCaller, ProcedureRequest};
use super::processes::{self, LoadOptions, READY_LIMIT, wait_for_line};

mod report;
pub(crate) mod sql_server;

use report::ProcedureReport;
use sql_server::BenchSqlServer;

/// The endpoints. The endpoints of the second queue set the session context.
const CATALOGUE: &str = r#"{
"row": { "route": "GET /v1/row", "procedure": "fjord_test.first_articles", "queue": "plain",
  "parameters": { "count": { "in": "query", "type": "int32" } }, "result": "row", "auth": "public" },
"rows": { "route": "GET /v1/rows", "procedure": "fjord_test.first_articles", "queue": "plain",
  "parameters": { "count": { "in": "query", "type": "int32" } }, "result": "rows", "auth": "public" },
"session-row": { "route": "GET /v1/session/row", "procedure": "fjord_test.first_articles", "queue": "session",
  "parameters": { "count": { "in": "query", "type": "int32" } }, "result": "row", "auth": "public" }
}"#;

/// The length to which an unexpected answer is shortened in a message.
const SHOWN_CHARS: usize = 300;

/// The options of the benchmark.
#[derive(Args, Clone, Debug)]
pub(crate) struct ProcedureBenchmark {
    /// The number of rounds. Every result is the median over the rounds.
    #[arg(long, env = "FJORD_BENCH_ROUNDS", default_value_t = 5)]
    rounds: usize,
    /// The duration of each measurement in seconds, after a warm-up of half that time.
    #[arg(long, env = "FJORD_BENCH_SECONDS", default_value_t = 3.0)]
    seconds: f64,
    /// Numbers of concurrent calls.
    #[arg(long, env = "FJORD_BENCH_CONCURRENCY", default_value = "1,16,64", value_delimiter = ',')]
    concurrency: Vec<usize>,
    /// The maximum number of connections from a worker to the database.
    #[arg(long, env = "FJORD_BENCH_CONNECTIONS", default_value_t = 16)]
    connections: usize,
    /// The fjord executable. By default it is the one that was built in the same profile as the benchmark.
    #[arg(long, env = "FJORD_BENCH_EXECUTABLE")]
    executable: Option<PathBuf>,
    /// The executable of the worker in Go. It is measured only if it is given.
    #[arg(long, env = "FJORD_BENCH_GO_PROCEDURES")]
    go: Option<PathBuf>,
}

/// The rows that a call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum CallResult {
    /// One row, as an object.
    Row,
    /// Rows, as an array.
    Rows(u32),
}

/// The sizes of results, in the order of measurement.
const RESULTS: [CallResult; 3] = [CallResult::Row, CallResult::Rows(20), CallResult::Rows(5000)];

impl CallResult {
    fn name(self) -> String {
        match self {
            Self::Row => "row".to_owned(),
            Self::Rows(count) => format!("rows of {count}"),
        }
    }

    fn endpoint(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Rows(_) => "rows",
        }
    }

    fn payload(self) -> String {
        let count = match self {
            Self::Row => 1,
            Self::Rows(count) => count,
        };
        format!(r#"{{"count":{count}}}"#)
    }
}

/// A worker, or a mode in which it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum WorkerKind {
    /// fjord's worker, without a session context.
    Fjord,
    /// fjord's worker, which sets the request id and the endpoint in the session context.
    FjordSession,
    /// The worker in Go.
    Go,
}

impl WorkerKind {
    fn name(self) -> &'static str {
        match self {
            Self::Fjord => "fjord",
            Self::FjordSession => "fjord with a session context",
            Self::Go => "Go",
        }
    }

    /// Returns the request for a result, or `None` if it is not measured.
    fn request(self, result: CallResult) -> Option<ProcedureRequest> {
        let endpoint = result.endpoint();
        let (subject, endpoint) = match self {
            Self::Fjord => ("fjord.q.plain".to_owned(), endpoint.to_owned()),
            Self::FjordSession if result == CallResult::Row => {
                ("fjord.q.session".to_owned(), "session-row".to_owned())
            }
            Self::FjordSession => return None,
            Self::Go => (format!("bench.procedures.{endpoint}"), endpoint.to_owned()),
        };
        Some(ProcedureRequest { subject: Some(subject), endpoint, payload: result.payload() })
    }
}

/// The running processes.
struct Workers {
    fleet: Fleet,
    go: Option<Process>,
    _server: BenchSqlServer,
    _home: TempDir,
}

impl ProcedureBenchmark {
    /// Runs the benchmark and prints the results.
    pub(crate) async fn run(self) {
        let (workers, server, version) = self.start().await;
        let mut report = ProcedureReport::default();
        workers.compare_answers().await;
        for round in 1..=self.rounds {
            println!("round {round} of {}", self.rounds);
            for result in RESULTS {
                for &concurrency in &self.concurrency {
                    self.measure(&workers, (result, concurrency, round), &mut report).await;
                }
            }
        }
        println!(
            "\n{server}, {} connections, {} rounds of {} s; {}",
            self.connections,
            self.rounds,
            self.seconds,
            version.as_deref().unwrap_or("Go is not measured")
        );
        report.print();
    }

    async fn start(&self) -> (Workers, &'static str, Option<String>) {
        let home = tempfile::tempdir().expect("a temporary directory");
        let server = BenchSqlServer::start(home.path()).await;
        let slots = self.concurrency.iter().copied().max().unwrap_or(1);
        let database = |name: &str, keys: &str| {
            format!(
                "[procedures.databases.{name}]\nbackend = 'mssql'\n\
                 [procedures.databases.{name}.mssql]\nconnections_max = {}\n{keys}{}\n",
                self.connections,
                server.toml()
            )
        };
        let fleet = Fleet::start(FleetOptions {
            gateways: 0,
            queues: "echo",
            catalogue: Some(("procedures.json", CATALOGUE)),
            worker_toml: format!(
                "[worker.queues.plain]\nconcurrency = {slots}\ndatabase = 'plain'\n\
                 [worker.queues.session]\nconcurrency = {slots}\ndatabase = 'session'\n{}{}",
                database("plain", "session_context = []\n"),
                database("session", ""),
            ),
            executable: self.executable.clone(),
            ..FleetOptions::default()
        })
        .await;
        let worker = fleet.workers.first().expect("a worker");
        for queue in ["plain", "session"] {
            let metric = format!(r#"fjord_worker_queue_ready{{queue="{queue}"}}"#);
            let is_served = async || (worker.metric(&metric).await > 0.5).then_some(());
            eventually_some(format!("the queue {queue} is served"), READY_LIMIT, is_served).await;
        }
        let (mut go, mut version) = (None, None);
        if let Some(executable) = &self.go {
            let mut command = Command::new(executable);
            command.arg(fleet.nats.urls().first().expect("a server")).arg(&fleet.certs.ca);
            command.arg(self.connections.to_string());
            command.env("FJORD_BENCH_DATABASE", server.connection_string());
            let process = Process::start("go worker", command, &home.path().join("go-worker"));
            version = Some(wait_for_line(&process, "version ").await);
            wait_for_line(&process, "listening").await;
            go = Some(process);
        }
        let name = server.name;
        (Workers { fleet, go, _server: server, _home: home }, name, version)
    }

    /// Measures all workers. Each round begins with a different worker.
    async fn measure(
        &self,
        workers: &Workers,
        (result, concurrency, round): (CallResult, usize, usize),
        report: &mut ProcedureReport,
    ) {
        let mut kinds = workers.kinds();
        let first = round % kinds.len();
        kinds.rotate_left(first);
        for kind in kinds {
            let Some(request) = kind.request(result) else { continue };
            let sample = workers.ask(kind, request, concurrency, self.seconds).await;
            report.add(result, concurrency, kind, sample);
        }
    }
}

impl Workers {
    fn kinds(&self) -> Vec<WorkerKind> {
        let go = self.go.as_ref().map(|_| WorkerKind::Go);
        [WorkerKind::Fjord, WorkerKind::FjordSession].into_iter().chain(go).collect()
    }

    fn url(&self) -> String {
        self.fleet.nats.urls().into_iter().next().expect("a server")
    }

    /// Checks that all workers send the same answers.
    async fn compare_answers(&self) {
        for result in RESULTS {
            let mut first: Option<serde_json::Value> = None;
            for kind in self.kinds() {
                let Some(request) = kind.request(result) else { continue };
                let ca = self.fleet.certs.ca.clone();
                let mut callers = NatsCaller::new(&self.url(), ca, &request, 1).await;
                let answer = callers.first_mut().expect("a caller").answer().await;
                let answer = answer.unwrap_or_else(|| panic!("{}: no answer", kind.name()));
                let answer = serde_json::from_slice(&answer).expect("the answer is JSON");
                let first = first.get_or_insert_with(|| Clone::clone(&answer));
                let start = |value: &serde_json::Value| {
                    value.to_string().chars().take(SHOWN_CHARS).collect::<String>()
                };
                let (expected, found) = (start(first), start(&answer));
                assert!(*first == answer, "{}: {found}, not {expected}", kind.name());
            }
        }
    }

    async fn ask(
        &self,
        kind: WorkerKind,
        request: ProcedureRequest,
        concurrency: usize,
        seconds: f64,
    ) -> LoadSample {
        let worker = match (kind, &self.go) {
            (WorkerKind::Go, Some(go)) => go.pid(),
            _ => self.fleet.workers.first().expect("a worker").process.pid(),
        };
        let nats = self.fleet.nats.servers.first().map(NatsServer::pid);
        processes::ask(&LoadOptions {
            ca: &self.fleet.certs.ca,
            https: Vec::new(),
            nats: Some(self.url()),
            request: Some(request),
            http: BenchHttp::H1,
            concurrency,
            seconds,
            rate: None,
            pids: [worker].into_iter().chain(nats).collect(),
        })
        .await
    }
}
