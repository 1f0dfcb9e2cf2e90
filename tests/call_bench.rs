//! `cargo bench`: compares procedure calls through the backend with direct calls through the driver.
//!
//! Both call the same procedures on the same server in turn, so that other load on the machine slows both. The server
//! is the one in `FJORD_TEST_MSSQL`, or else the tests' fake server, which has its own runtime.
//!
//! The backend has one connection and resets it in each call. The driver calls on two connections: one of its own, which is
//! not reset, and one on a stream of the tests, which is reset in the same way. On the fake server, a reset costs nothing,
//! so the driver's own connection is the standard. On a real server, the connection with a reset is. The benchmark fails if
//! the throughput of the backend is below 0.95 times the standard. The cost of the session context is measured as well.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "prints its results")]

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
use support::eventually::for_a_while;
use support::mssql_server::{self, SqlServer};
use tiberius::{ColumnData, Command};
use tokio::time::timeout;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// The allocator of the executable.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The minimum throughput of the backend relative to the standard, which is described above.
const RATIO_MIN: f64 = 0.95;
/// The number of processes. The addresses of code and data in a process change its results by up to a tenth.
const PROCESSES: usize = 8;
/// The number of rounds in each process, and the argument that starts such a process.
const ROUNDS: usize = 8;
const MEASURE: &str = "--measure";

/// The time limit of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum age of a connection of the backend. Babelfish resets a connection more slowly if the backend has read the
/// signature of a procedure on it. The measurement therefore starts when these connections have been closed.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(20);

/// The callers: the backend, the driver on a connection of its own, the driver with a reset in each call, and the backend with
/// a session context.
const CALLERS: usize = 4;
const BACKEND: usize = 0;
const PLAIN: usize = 1;
const RESETTING: usize = 2;
const WITH_SESSION: usize = 3;
/// The orders in which the callers are measured. Each caller is measured once directly after each other one.
const ORDERS: [[usize; CALLERS]; CALLERS] =
    [[0, 1, 3, 2], [1, 2, 0, 3], [2, 3, 1, 0], [3, 0, 2, 1]];

const RETURNS: &str = "[fjord_test].[returns]";
const FIRST_IDS: &str = "[fjord_test].[first_ids]";
const WORKLOADS: [Workload; 3] = [
    Workload { quoted: RETURNS, parameter: "@status", value: 7, calls: 600 },
    Workload { quoted: FIRST_IDS, parameter: "@count", value: 20, calls: 500 },
    Workload { quoted: FIRST_IDS, parameter: "@count", value: 5000, calls: 40 },
];

/// A procedure with an integer argument, and the number of calls in a round.
#[derive(Clone, Copy, Debug)]
struct Workload {
    quoted: &'static str,
    parameter: &'static str,
    value: i32,
    calls: u32,
}

/// A row sink that writes JSON text, which must be the same for the backend and the driver.
#[derive(Debug, Default)]
struct JsonRows(String);

impl JsonRows {
    /// Writes a number in the same way for the backend and the driver.
    fn write(&mut self, number: i64) {
        self.0.push_str(itoa::Buffer::new().format(number));
        self.0.push(',');
    }
}

impl RowSink for JsonRows {
    fn begin_set(&mut self, _: &[String]) -> Result<(), SinkError> {
        Ok(())
    }

    fn row(&mut self, cells: &[Cell<'_>]) -> Result<(), SinkError> {
        for cell in cells {
            if let Cell::Int(number) = cell {
                self.write(*number);
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
        ProcedureName::new(workload.quoted).expect("a name"),
    );
    let cancel = Cancel::new();
    let started = Instant::now();
    for _ in 0..workload.calls {
        let arguments = [Argument {
            name: workload.parameter.trim_start_matches('@').into(),
            kind: ParameterType::Int32,
            value: ParameterValue::Integer(workload.value.into()),
            columns: Arc::new([]),
            table_type: None,
        }];
        let deadline = tokio::time::Instant::now() + CALL_TIMEOUT;
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
) -> Result<Duration, AnyError>
where
    S: futures_util::AsyncRead + futures_util::AsyncWrite + Unpin + Send,
{
    let started = Instant::now();
    for _ in 0..workload.calls {
        let call = async {
            let mut command = Command::new(workload.quoted);
            command.bind_param(workload.parameter, workload.value);
            let mut json = JsonRows::default();
            let mut stream = Box::pin(command.exec(client)).await?;
            while let Some(item) = stream.try_next().await? {
                let Some(row) = item.into_row() else { continue };
                for (_, value) in row.cells() {
                    if let ColumnData::I32(Some(number)) = value {
                        json.write(i64::from(*number));
                    }
                }
            }
            tiberius::Result::Ok(())
        };
        timeout(CALL_TIMEOUT, call).await??;
    }
    Ok(started.elapsed())
}

/// Measures all callers in turn, in a process of its own, and prints a line for each round: the index of the workload, and
/// the duration of a call in microseconds for each caller.
async fn measure(server: &SqlServer) -> Result<(), AnyError> {
    let config = MssqlConfig { connection_age_max: CONNECTION_AGE_MAX, ..server.config.clone() };
    // Babelfish keeps the session context, so a call removes each absent value there.
    let without = MssqlConfig { session_context: Vec::new(), ..config.clone() };
    let backend = mssql::connect(&without, "default")?;
    let with_session = mssql::connect(&config, "session")?;
    let mut plain = mssql_server::direct(&server.config).await;
    let mut resetting = mssql_server::resetting(&server.config).await;
    for workload in WORKLOADS {
        for backend in [&backend, &with_session] {
            let once = Workload { calls: 1, ..workload };
            through_backend(backend, once, SESSION).await?;
        }
    }
    if server.fake.is_none() {
        for_a_while(CONNECTION_AGE_MAX * 5 / 4).await;
    }
    for (index, workload) in WORKLOADS.into_iter().enumerate() {
        for round in 0..=ROUNDS {
            let mut us = [0.0; CALLERS];
            for caller in ORDERS.get(round % CALLERS).copied().ok_or("no such order")? {
                let took = match caller {
                    BACKEND => {
                        through_backend(&backend, workload, SessionContext::default()).await?
                    }
                    PLAIN => direct(&mut plain, workload).await?,
                    RESETTING => direct(&mut resetting, workload).await?,
                    _ => through_backend(&with_session, workload, SESSION).await?,
                };
                *us.get_mut(caller).ok_or("no such caller")? =
                    took.as_secs_f64() * 1e6 / f64::from(workload.calls);
            }
            // The first round is not counted.
            if round > 0 {
                let [backend, plain, resetting, with_session] = us;
                println!("{index} {backend} {plain} {resetting} {with_session}");
            }
        }
    }
    Ok(())
}

/// Runs `measure` in a new process. Returns the indexes of the workloads and the durations of all rounds.
fn measure_in_process() -> Option<Vec<(usize, [f64; CALLERS])>> {
    let mut process = std::process::Command::new(std::env::current_exe().ok()?);
    let output = process.args(["--bench", MEASURE]).output().ok()?;
    if !output.status.success() {
        eprintln!("a measurement failed: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    let round = |line: &str| {
        let (index, durations) = line.split_once(' ')?;
        let durations: Option<Vec<f64>> = durations.split(' ').map(|us| us.parse().ok()).collect();
        Some((index.parse().ok()?, durations?.try_into().ok()?))
    };
    String::from_utf8(output.stdout).ok()?.lines().map(round).collect()
}

/// Prints the result for a workload. Returns whether the backend is fast enough.
fn report(workload: Workload, rounds: &[[f64; CALLERS]], is_fake: bool) -> Option<bool> {
    let of = |value: fn(&[f64; CALLERS]) -> f64| quartiles(rounds.iter().map(value).collect());
    let [us, us_low, us_high] = of(|us| us[BACKEND])?;
    let [plain, plain_low, plain_high] = of(|us| us[PLAIN] / us[BACKEND])?;
    let [resetting, low, high] = of(|us| us[RESETTING] / us[BACKEND])?;
    let [session, ..] = of(|us| us[WITH_SESSION] - us[BACKEND])?;
    println!(
        "{:>24}({:>4}): {us:.0} µs ({us_low:.0}–{us_high:.0}); {plain:.3} ({plain_low:.3}–{plain_high:.3}) × plain calls, \
            {resetting:.3} ({low:.3}–{high:.3}) × calls with a reset; session context: {session:.0} µs",
        workload.quoted, workload.value
    );
    Some(if is_fake { plain } else { resetting } >= RATIO_MIN)
}

/// Returns the median and the quartiles.
fn quartiles(mut samples: Vec<f64>) -> Option<[f64; 3]> {
    samples.sort_by(f64::total_cmp);
    let at = |quarters: usize| samples.get(samples.len() * quarters / 4).copied();
    Some([at(2)?, at(1)?, at(3)?])
}

/// Starts the server on its own thread, so that its work does not count as the client's.
fn server() -> Option<(tokio::runtime::Runtime, SqlServer)> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().ok()?;
    let mut server = runtime.block_on(mssql_server::servers()).pop()?;
    server.config.connections_max = 1;
    Some((runtime, server))
}

/// Runs the measurement in this process.
fn run_measurement() -> ExitCode {
    let Some((_server_runtime, server)) = server() else { return ExitCode::FAILURE };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    match runtime.block_on(Box::pin(measure(&server))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn main() -> ExitCode {
    // `cargo test --all-targets` also runs this benchmark, but without `--bench`.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    if std::env::args().any(|argument| argument == MEASURE) {
        return run_measurement();
    }
    let is_fake = std::env::var_os(mssql_server::VARIABLE).is_none();
    let name = if is_fake { "the fake server" } else { "the real server" };
    println!("{name}: throughput of the backend relative to the driver's");
    let mut rounds = Vec::new();
    for _ in 0..PROCESSES {
        let Some(measured) = measure_in_process() else { return ExitCode::FAILURE };
        rounds.extend(measured);
    }
    let mut is_good = true;
    for (index, workload) in WORKLOADS.into_iter().enumerate() {
        let rounds = rounds.iter().filter(|(of, _)| *of == index);
        let rounds: Vec<_> = rounds.map(|(_, durations)| *durations).collect();
        is_good &= report(workload, &rounds, is_fake).unwrap_or(false);
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
