//! `cargo bench`: compares procedure calls through the backend with direct calls through the driver, on one connection each.
//!
//! Both call the same procedures on the same server in turn, so that other load on the machine slows both. The server
//! is the one in `FJORD_TEST_MSSQL`, or else the tests' fake server, which has its own runtime.
//!
//! The backend resets the connection in each call, but the driver does not. The cost of a reset is measured separately,
//! with two connections without TLS, one of which is reset in the same way as the backend's connection. The cost of the
//! session context is also measured separately. The benchmark fails if the throughput of the backend is below 0.95
//! times that of direct calls with a reset.

#[expect(dead_code, unused_imports, reason = "other tests use the rest of it")]
#[expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the shared test support panics on failure, which is fine in a benchmark"
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
    Argument, Backend, Call, CallError, Cell, RowSink, SessionContext, SinkError, Transaction,
    mssql,
};
use futures_util::TryStreamExt;
use support::mssql_server::{self, SqlServer};
use tiberius::{ColumnData, Command};

/// The minimum throughput of the backend relative to that of direct calls with a reset.
const RATIO_MIN: f64 = 0.95;
/// The number of rounds. The first `WARM_UP` of them are not counted.
const ROUNDS: usize = 22;
const WARM_UP: usize = 2;

const WORKLOADS: [Workload; 3] = [
    Workload { procedure: "returns", argument: "status", value: 7, calls: 600 },
    Workload { procedure: "first_ids", argument: "count", value: 20, calls: 300 },
    Workload { procedure: "first_ids", argument: "count", value: 5000, calls: 6 },
];

/// A procedure with an integer argument, and the number of calls in a round.
#[derive(Clone, Copy, Debug)]
struct Workload {
    procedure: &'static str,
    argument: &'static str,
    value: i32,
    calls: u32,
}

/// A row sink that writes JSON text, which must be the same for the backend and the driver.
#[derive(Debug, Default)]
struct JsonRows(String);

impl RowSink for JsonRows {
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

/// The facts about a call, as a worker passes them.
const SESSION: SessionContext<'static> = SessionContext {
    request_id: Some("01997f3c-8a55-7cc0-9d59-0f6b1d6c7e42"),
    trace_id: Some("0af7651916cd43dd8448eb211c80319c"),
    endpoint: Some("horse-get"),
    principal: Some("clinic.example"),
    values: &[],
};

async fn through_backend(
    backend: &Arc<dyn Backend>,
    workload: Workload,
    session: SessionContext<'_>,
) -> Result<Duration, CallError> {
    #[expect(clippy::expect_used, reason = "the names are valid")]
    let (queue, procedure) = (
        QueueName::new("bench").expect("a name"),
        ProcedureName::new(&format!("fjord_test.{}", workload.procedure)).expect("a name"),
    );
    let cancel = Cancel::new();
    let started = Instant::now();
    for _ in 0..workload.calls {
        let arguments = [Argument {
            name: workload.argument.into(),
            kind: ParameterType::Int32,
            value: ParameterValue::Integer(workload.value.into()),
            columns: Arc::new([]),
            table_type: None,
        }];
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        let call = Call {
            queue: &queue,
            procedure: &procedure,
            arguments: &arguments,
            session,
            deadline,
            may_repeat: false,
            transaction: Transaction::None,
        };
        backend.call(call, &mut JsonRows::default(), &cancel).await?;
    }
    Ok(started.elapsed())
}

async fn direct<S>(
    client: &mut tiberius::Client<S>,
    workload: Workload,
) -> tiberius::Result<Duration>
where
    S: futures_util::AsyncRead + futures_util::AsyncWrite + Unpin + Send,
{
    let started = Instant::now();
    for _ in 0..workload.calls {
        let mut command = Command::new(format!("[fjord_test].[{}]", workload.procedure));
        command.bind_param(format!("@{}", workload.argument), workload.value);
        let mut json = JsonRows::default();
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

/// The result for a workload.
#[derive(Clone, Copy, Debug)]
struct CallCosts {
    /// The throughput of the backend relative to the driver's.
    vs_plain: f64,
    /// The throughput of the backend relative to the driver's if the driver also reset the connection in each call: the
    /// median, and the quartiles.
    vs_resetting: [f64; 3],
    /// The duration of a reset in microseconds, or `None` if the server accepts no connection without TLS.
    reset_us: Option<f64>,
}

/// Measures the backend and the driver in turn. Returns the medians over the rounds.
async fn costs(
    backend: &Arc<dyn Backend>,
    config: &MssqlConfig,
    workload: Workload,
) -> Option<CallCosts> {
    let mut client = mssql_server::direct(config).await;
    let reset_us = reset(config, workload).await;
    let reset = reset_us.unwrap_or_default() * f64::from(workload.calls) / 1e6;
    let (mut bare, mut resetting) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // The order alternates, so that neither is always measured after the other.
        let (backend_time, driver_time) = if round % 2 == 0 {
            let backend_time =
                through_backend(backend, workload, SessionContext::default()).await.ok()?;
            (backend_time, direct(&mut client, workload).await.ok()?)
        } else {
            let driver_time = direct(&mut client, workload).await.ok()?;
            (through_backend(backend, workload, SessionContext::default()).await.ok()?, driver_time)
        };
        if round >= WARM_UP {
            bare.push(driver_time.as_secs_f64() / backend_time.as_secs_f64());
            resetting.push((driver_time.as_secs_f64() + reset) / backend_time.as_secs_f64());
        }
    }
    Some(CallCosts { vs_plain: median(bare)?, vs_resetting: quartiles(resetting)?, reset_us })
}

/// Measures the cost of setting the session context of a call, with one backend that sets it and one that does not.
/// Returns the median over the rounds, in microseconds.
async fn session_context(
    [setting, plain]: [&Arc<dyn Backend>; 2],
    workload: Workload,
) -> Option<f64> {
    let mut costs = Vec::new();
    for round in 0..ROUNDS {
        let (with, without) = if round % 2 == 0 {
            let with = through_backend(setting, workload, SESSION).await.ok()?;
            (with, through_backend(plain, workload, SESSION).await.ok()?)
        } else {
            let without = through_backend(plain, workload, SESSION).await.ok()?;
            (through_backend(setting, workload, SESSION).await.ok()?, without)
        };
        if round >= WARM_UP {
            costs.push(
                (with.as_secs_f64() - without.as_secs_f64()) * 1e6 / f64::from(workload.calls),
            );
        }
    }
    median(costs)
}

/// Measures the duration of a connection reset. Returns the median over the rounds, in microseconds.
async fn reset(config: &MssqlConfig, workload: Workload) -> Option<f64> {
    let mut bare = mssql_server::unencrypted(config, false).await?;
    let mut resetting = mssql_server::unencrypted(config, true).await?;
    let mut costs = Vec::new();
    for round in 0..ROUNDS {
        let (with, without) = if round % 2 == 0 {
            let with = direct(&mut resetting, workload).await.ok()?;
            (with, direct(&mut bare, workload).await.ok()?)
        } else {
            let without = direct(&mut bare, workload).await.ok()?;
            (direct(&mut resetting, workload).await.ok()?, without)
        };
        if round >= WARM_UP {
            costs.push(
                (with.as_secs_f64() - without.as_secs_f64()) * 1e6 / f64::from(workload.calls),
            );
        }
    }
    median(costs)
}

/// Returns the median and the quartiles.
fn quartiles(mut samples: Vec<f64>) -> Option<[f64; 3]> {
    samples.sort_by(f64::total_cmp);
    let at = |quarters: usize| samples.get(samples.len() * quarters / 4).copied();
    Some([at(2)?, at(1)?, at(3)?])
}

fn median(mut samples: Vec<f64>) -> Option<f64> {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied()
}

/// Starts the server on its own thread, so that its work does not count as the client's.
fn server() -> Option<(tokio::runtime::Runtime, SqlServer)> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().ok()?;
    let mut server = runtime.block_on(mssql_server::servers()).pop()?;
    server.config.connections_max = 1;
    Some((runtime, server))
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "prints its result")]
fn main() -> ExitCode {
    // `cargo test --all-targets` also runs this benchmark, but without `--bench`.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let Some((_server_runtime, server)) = server() else { return ExitCode::FAILURE };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    println!("{}: throughput of the backend relative to the driver's", server.name);
    let mut is_good = true;
    runtime.block_on(Box::pin(async {
        // Babelfish keeps the session context, so a call removes each absent value there.
        let plain = MssqlConfig { session_context: Vec::new(), ..server.config.clone() };
        let (Ok(backend), Ok(with_session)) =
            (mssql::connect(&plain, "default"), mssql::connect(&server.config, "session"))
        else {
            eprintln!("cannot create the backends");
            is_good = false;
            return;
        };
        for workload in WORKLOADS {
            let Some(costs) = costs(&backend, &server.config, workload).await else {
                is_good = false;
                continue;
            };
            let session = session_context([&with_session, &backend], workload).await.unwrap_or(f64::NAN);
            let reset = costs.reset_us.map_or_else(
                || "not measured, because the server requires TLS".to_owned(),
                |us| format!("{us:.0} µs"),
            );
            let [ratio, low, high] = costs.vs_resetting;
            println!(
                "{:>9}({:>4}): {:.3} × plain calls, {ratio:.3} ({low:.3}–{high:.3}) × calls with a reset; \
                    duration of a reset: {reset}; of a session context: {session:.0} µs",
                workload.procedure, workload.value, costs.vs_plain
            );
            is_good &= ratio >= RATIO_MIN;
        }
    }));
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
