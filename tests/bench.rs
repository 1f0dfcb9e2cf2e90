//! `cargo bench`: procedure calls through the backend against the driver's own, on one connection each.
//!
//! Both call the same procedures of the same server in turns, so that a busy machine slows both. The server is the
//! real one of `FJORD_TEST_MSSQL`, or else the endpoint of the tests in a runtime of its own.
//!
//! A call of the backend starts on a reset session, one of the driver does not. What a reset costs the server is measured
//! apart, between two connections without TLS of which one resets as the backend does. Fails when the backend is below
//! 0.9 of direct calls with a reset each.

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

use fjord::catalogue::{ParameterType, ParameterValue, ProcedureName, QueueName};
use fjord::config::procedures::MssqlConfig;
use fjord::lifecycle::Cancel;
use fjord::procedures::{
    Argument, Backend, Call, CallError, Cell, RowSink, SinkError, Transaction, mssql,
};
use futures_util::TryStreamExt;
use support::mssql_server::{self, Server};
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

async fn through_backend(backend: &Arc<dyn Backend>, work: Work) -> Result<Duration, CallError> {
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
            value: ParameterValue::Integer(work.value.into()),
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
            transaction: Transaction::None,
        };
        backend.call(call, &mut Json::default(), &cancel).await?;
    }
    Ok(started.elapsed())
}

async fn direct<S>(client: &mut tiberius::Client<S>, work: Work) -> tiberius::Result<Duration>
where
    S: futures_util::AsyncRead + futures_util::AsyncWrite + Unpin + Send,
{
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

/// What a work costs.
#[derive(Clone, Copy, Debug)]
struct Costs {
    /// The backend's throughput as a part of the driver's.
    of_bare: f64,
    /// The same, when each of the driver's calls resets its session.
    of_resetting: f64,
    /// What a reset takes, in microseconds; `None` when the server takes no connection without TLS.
    reset_us: Option<f64>,
}

/// Both ways in turns: the median over the rounds.
async fn costs(backend: &Arc<dyn Backend>, config: &MssqlConfig, work: Work) -> Option<Costs> {
    let mut client = mssql_server::direct(config).await;
    let reset_us = reset(config, work).await;
    let reset = reset_us.unwrap_or_default() * f64::from(work.calls) / 1e6;
    let (mut bare, mut resetting) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // In turns first and second, so that neither always follows the other.
        let (ours, theirs) = if round % 2 == 0 {
            let ours = through_backend(backend, work).await.ok()?;
            (ours, direct(&mut client, work).await.ok()?)
        } else {
            let theirs = direct(&mut client, work).await.ok()?;
            (through_backend(backend, work).await.ok()?, theirs)
        };
        if round >= WARM_UP {
            bare.push(theirs.as_secs_f64() / ours.as_secs_f64());
            resetting.push((theirs.as_secs_f64() + reset) / ours.as_secs_f64());
        }
    }
    Some(Costs { of_bare: median(bare)?, of_resetting: median(resetting)?, reset_us })
}

/// What a reset of the session takes in microseconds: the median over the rounds.
async fn reset(config: &MssqlConfig, work: Work) -> Option<f64> {
    let mut bare = mssql_server::plain(config, false).await?;
    let mut resetting = mssql_server::plain(config, true).await?;
    let mut costs = Vec::new();
    for round in 0..ROUNDS {
        let (with, without) = if round % 2 == 0 {
            let with = direct(&mut resetting, work).await.ok()?;
            (with, direct(&mut bare, work).await.ok()?)
        } else {
            let without = direct(&mut bare, work).await.ok()?;
            (direct(&mut resetting, work).await.ok()?, without)
        };
        if round >= WARM_UP {
            costs.push((with.as_secs_f64() - without.as_secs_f64()) * 1e6 / f64::from(work.calls));
        }
    }
    median(costs)
}

fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
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
        for work in WORKS {
            let Some(costs) = costs(&backend, &server.config, work).await else {
                is_good = false;
                continue;
            };
            let reset = costs.reset_us.map_or_else(
                || "not to be measured, the server wants TLS".to_owned(),
                |us| format!("{us:.0} µs"),
            );
            println!(
                "{:>8}({:>4}): {:.3} of bare calls, {:.3} of calls that reset; a reset: {reset}",
                work.procedure, work.value, costs.of_bare, costs.of_resetting
            );
            is_good &= costs.of_resetting >= RATIO_MIN;
        }
    }));
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
