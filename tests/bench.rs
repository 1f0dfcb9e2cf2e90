//! `cargo bench`: procedure calls through the backend against the driver's own, on one connection each.
//!
//! Both call the same procedures of the same server in turns, so that a busy machine slows both. The server is the
//! real one of `FJORD_TEST_MSSQL`, or else the endpoint of the tests in a runtime of its own. Fails below 0.9.

#[expect(dead_code, unused_imports, reason = "the suite stands on the rest of it")]
#[expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "written for tests, where a failed expectation is the message"
)]
mod support;

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fjord::catalogue::{ParameterType, ProcedureName, QueueName, Value};
use fjord::lifecycle::Cancel;
use fjord::procedures::{Argument, Backend, BackendError, Call, Cell, RowSink, SinkError, mssql};
use futures_util::TryStreamExt;
use support::mssql_server::{self, Direct, Server};
use tiberius::{ColumnData, Command};

/// The least that the backend must reach of the driver's throughput.
const RATIO_MIN: f64 = 0.9;
/// Rounds of each; the first two warm up.
const ROUNDS: usize = 22;
const WARM_UP: usize = 2;

/// A procedure with one whole-number argument, and how often a round calls it.
const WORKS: [Work; 3] = [
    Work { procedure: "returns", argument: "status", value: 7, calls: 600 },
    Work { procedure: "many", argument: "count", value: 20, calls: 300 },
    Work { procedure: "many", argument: "count", value: 5000, calls: 6 },
];

#[derive(Clone, Copy, Debug)]
struct Work {
    procedure: &'static str,
    argument: &'static str,
    value: i32,
    calls: u32,
}

/// Writes rows as JSON text, which is what either has to come to.
#[derive(Debug, Default)]
struct Json(String);

impl RowSink for Json {
    fn begin_set(&mut self, _: &[String]) -> Result<(), SinkError> {
        Ok(())
    }

    fn row(&mut self, cells: &[Cell<'_>]) -> Result<(), SinkError> {
        for cell in cells {
            if let Cell::Int(number) = cell {
                write!(self.0, "{number},").map_err(|_| SinkError::TooLarge)?;
            }
        }
        Ok(())
    }

    fn restart(&mut self) -> bool {
        self.0.clear();
        true
    }
}

async fn through_backend(backend: &Arc<dyn Backend>, work: Work) -> Result<Duration, BackendError> {
    #[expect(clippy::expect_used, reason = "names of this file")]
    let (queue, procedure) = (
        QueueName::new("bench").expect("a name"),
        ProcedureName::new(&format!("fjord_test.{}", work.procedure)).expect("a name"),
    );
    let cancel = Cancel::new();
    let started = Instant::now();
    for _ in 0..work.calls {
        let arguments = [Argument {
            name: work.argument.into(),
            kind: ParameterType::Int32,
            value: Value::Integer(work.value.into()),
            columns: Arc::new([]),
            table_type: None,
        }];
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        let call = Call {
            queue: &queue,
            procedure: &procedure,
            arguments: &arguments,
            deadline,
            may_repeat: false,
        };
        backend.call(call, &mut Json::default(), &cancel).await?;
    }
    Ok(started.elapsed())
}

async fn direct(client: &mut Direct, work: Work) -> tiberius::Result<Duration> {
    let started = Instant::now();
    for _ in 0..work.calls {
        let mut command = Command::new(format!("[fjord_test].[{}]", work.procedure));
        command.bind_param(format!("@{}", work.argument), work.value);
        let mut json = Json::default();
        let mut stream = Box::pin(command.exec(client)).await?;
        while let Some(item) = stream.try_next().await? {
            let Some(row) = item.into_row() else { continue };
            for (_, value) in row.cells() {
                if let ColumnData::I32(Some(number)) = value {
                    let _written = write!(json.0, "{number},");
                }
            }
        }
    }
    Ok(started.elapsed())
}

/// The backend's throughput as a part of the driver's: the median over the rounds.
async fn ratio(backend: &Arc<dyn Backend>, client: &mut Direct, work: Work) -> Option<f64> {
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        // In turns first and second, so that neither always follows the other.
        let (ours, theirs) = if round % 2 == 0 {
            let ours = through_backend(backend, work).await.ok()?;
            (ours, direct(client, work).await.ok()?)
        } else {
            let theirs = direct(client, work).await.ok()?;
            (through_backend(backend, work).await.ok()?, theirs)
        };
        if round >= WARM_UP {
            ratios.push(theirs.as_secs_f64() / ours.as_secs_f64());
        }
    }
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied()
}

/// The server on threads of its own: what it does must not be counted as ours.
fn server() -> Option<(tokio::runtime::Runtime, Server)> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().ok()?;
    let mut server = runtime.block_on(mssql_server::servers()).pop()?;
    server.config.connections_max = 1;
    Some((runtime, server))
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "what a benchmark is for")]
fn main() -> ExitCode {
    // `cargo test --all-targets` runs it too, and wants to hear nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let Some((_server_runtime, server)) = server() else { return ExitCode::FAILURE };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    println!("{}: throughput of the backend, as a part of the driver's own", server.name);
    let mut is_good = true;
    runtime.block_on(Box::pin(async {
        let Ok(backend) = mssql::connect(&server.config, "default") else {
            eprintln!("no backend");
            is_good = false;
            return;
        };
        let mut client = mssql_server::direct(&server.config).await;
        for work in WORKS {
            match ratio(&backend, &mut client, work).await {
                Some(ratio) => {
                    println!("{:>8}({:>4}): {ratio:.3}", work.procedure, work.value);
                    is_good &= ratio >= RATIO_MIN;
                }
                None => is_good = false,
            }
        }
    }));
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
