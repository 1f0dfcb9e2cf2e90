//! `cargo bench --bench procedure_calls`: compares procedure calls through the backend with direct calls through the driver.
//!
//! All callers call the same procedures on the same server in turn, so that other load on the machine slows all of them.
//! The server is the one in `FJORD_TEST_MSSQL`, or else the tests' fake server, which has its own thread.
//!
//! Each caller has one connection and resets it in each call. The driver limits the time of a call with its own timer, as
//! it does by default, or with tokio's, as the backend does. The benchmark fails if the throughput of the backend is below
//! 0.95 times that of the driver with its defaults. A second backend also sets the session context in each call.
//!
//! The results of a process depend on the addresses of its code and data. They are therefore measured in several processes.

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
    Argument, Backend, Call, Cell, RowSink, SessionContext, SinkError, Transaction, mssql,
};
use futures_util::TryStreamExt;
use support::mssql_server::{self, SqlServer};
use support::resetting_connection::ResettingClient;
use tiberius::{ColumnData, Command};
use tokio::time::timeout;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// The allocator of the executable.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The minimum throughput of the backend relative to the driver's.
const RATIO_MIN: f64 = 0.95;
/// The number of processes that measure.
const PROCESSES: usize = 12;
/// The number of rounds that count in each process. A further round precedes them.
const ROUNDS: usize = 4;
/// The argument that starts a process that measures.
const MEASURE: &str = "--measure";

/// The time limit of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The number of callers.
const CALLERS: usize = 4;
/// The backend.
const BACKEND: usize = 0;
/// The driver with its defaults, among them its own timer, which wakes another thread.
const DRIVER: usize = 1;
/// The driver with tokio's timer.
const DRIVER_WITH_TOKIO: usize = 2;
/// The backend with a session context.
const WITH_SESSION: usize = 3;
/// The orders in which the callers are measured. In four rounds, each caller is measured once in each position, and once
/// directly after each other caller of the same round.
const ORDERS: [[usize; CALLERS]; CALLERS] =
    [[0, 1, 3, 2], [1, 2, 0, 3], [2, 3, 1, 0], [3, 0, 2, 1]];
/// The duration of a call in microseconds, for each caller.
type Durations = [f64; CALLERS];

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

impl Workload {
    /// Returns the answer that each caller must get.
    fn expected(self) -> Answer {
        if self.quoted == RETURNS {
            return Answer { status: self.value, numbers: Numbers::default() };
        }
        let mut numbers = Numbers::default();
        (1..=self.value).for_each(|id| numbers.write(id.into()));
        Answer { status: 0, numbers }
    }
}

/// The answer to a call.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    status: i32,
    numbers: Numbers,
}

/// The numbers in an answer, as text. The backend and the driver write them in the same way.
#[derive(Debug, Default, PartialEq)]
struct Numbers(String);

impl Numbers {
    fn write(&mut self, number: i64) {
        self.0.push_str(itoa::Buffer::new().format(number));
        self.0.push(',');
    }
}

impl RowSink for Numbers {
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

/// Returns the duration of the calls, and the last answer.
async fn through_backend(
    backend: &Arc<dyn Backend>,
    workload: Workload,
    session: SessionContext<'_>,
) -> Result<(Duration, Answer), AnyError> {
    let (queue, procedure) = (QueueName::new("bench")?, ProcedureName::new(workload.quoted)?);
    let cancel = Cancel::new();
    let mut answer = Answer::default();
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
        answer = Answer::default();
        let result = backend.call(call, &mut answer.numbers, &cancel).await?;
        answer.status = result.return_status;
    }
    Ok((started.elapsed(), answer))
}

/// Returns the duration of the calls, and the last answer.
async fn direct<S>(
    client: &mut tiberius::Client<S>,
    workload: Workload,
    has_timer: bool,
) -> Result<(Duration, Answer), AnyError>
where
    S: futures_util::AsyncRead + futures_util::AsyncWrite + Unpin + Send,
{
    let mut answer = Answer::default();
    let started = Instant::now();
    for _ in 0..workload.calls {
        answer = Answer::default();
        let call = async {
            let mut command = Command::new(workload.quoted);
            command.bind_param(workload.parameter, workload.value);
            // The future is boxed here too, because it would be moved.
            let mut stream = Box::pin(command.exec(client)).await?;
            while let Some(item) = stream.try_next().await? {
                if let Some(row) = item.as_row() {
                    for (_, value) in row.cells() {
                        if let ColumnData::I32(Some(number)) = value {
                            answer.numbers.write(i64::from(*number));
                        }
                    }
                } else if let Some(status) = item.as_return_status() {
                    answer.status = status.cast_signed();
                }
            }
            tiberius::Result::Ok(())
        };
        if has_timer {
            call.await?;
        } else {
            timeout(CALL_TIMEOUT, call).await??;
        }
    }
    Ok((started.elapsed(), answer))
}

/// Closes the connection of a backend. Babelfish resets a connection more slowly if the backend has read the signature of a
/// procedure on it.
async fn close_connection(
    backend: &Arc<dyn Backend>,
    client: &mut ResettingClient,
) -> Result<(), AnyError> {
    let call = Call {
        queue: &QueueName::new("bench")?,
        procedure: &ProcedureName::new("fjord_test.process")?,
        arguments: &[],
        session: SessionContext::default(),
        deadline: tokio::time::Instant::now() + CALL_TIMEOUT,
        may_repeat: false,
        transaction: Transaction::None,
    };
    let mut process = Numbers::default();
    backend.call(call, &mut process, &Cancel::new()).await?;
    let kill = format!("KILL {}", process.0.trim_end_matches(','));
    client.simple_query(kill).await?.into_results().await?;
    Ok(())
}

/// Measures all callers in turn, and prints a line for each round that counts: the index of the workload and the durations.
async fn measure(server: &SqlServer) -> Result<(), AnyError> {
    // Babelfish keeps the session context, so a call removes each absent value there.
    let without = MssqlConfig { session_context: Vec::new(), ..server.config.clone() };
    let backend = mssql::connect(&without, "default")?;
    let with_session = mssql::connect(&server.config, "session")?;
    let mut driver = mssql_server::resetting(&server.config, true).await;
    let mut with_tokio = mssql_server::resetting(&server.config, false).await;
    for backend in [&backend, &with_session] {
        for workload in WORKLOADS {
            let once = Workload { calls: 1, ..workload };
            through_backend(backend, once, SESSION).await?;
        }
        if server.is_babelfish {
            close_connection(backend, &mut driver).await?;
        }
    }
    for (index, workload) in WORKLOADS.into_iter().enumerate() {
        let expected = workload.expected();
        for round in 0..=ROUNDS {
            let mut durations = Durations::default();
            for caller in ORDERS.get(round % ORDERS.len()).copied().unwrap_or_default() {
                let (took, answer) = match caller {
                    BACKEND => {
                        through_backend(&backend, workload, SessionContext::default()).await?
                    }
                    DRIVER => direct(&mut driver, workload, true).await?,
                    DRIVER_WITH_TOKIO => direct(&mut with_tokio, workload, false).await?,
                    _ => through_backend(&with_session, workload, SESSION).await?,
                };
                if answer != expected {
                    return Err(format!("caller {caller} got {answer:?}").into());
                }
                if let Some(us) = durations.get_mut(caller) {
                    *us = took.as_secs_f64() * 1e6 / f64::from(workload.calls);
                }
            }
            if round > 0 {
                let [backend, driver, with_tokio, with_session] = durations;
                println!("{index} {backend} {driver} {with_tokio} {with_session}");
            }
        }
    }
    Ok(())
}

/// Starts the server on its own thread, so that its work does not count as the client's, and measures.
fn run_measurement() -> Result<(), AnyError> {
    let threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut server = threads.block_on(mssql_server::servers()).pop().ok_or("there is no server")?;
    server.config.connections_max = 1;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Box::pin(measure(&server)))
}

/// Measures in a new process. Returns the durations in each round, by workload.
fn measure_in_process() -> Result<Vec<Vec<Durations>>, AnyError> {
    let mut process = std::process::Command::new(std::env::current_exe()?);
    let output = process.args(["--bench", MEASURE]).output()?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("a measurement ended with {}: {errors}", output.status).into());
    }
    let mut rounds = vec![Vec::new(); WORKLOADS.len()];
    for line in String::from_utf8(output.stdout)?.lines() {
        let (index, durations) = line.split_once(' ').ok_or("a line has no durations")?;
        let durations: Vec<f64> = durations.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let durations =
            durations.try_into().map_err(|_| "a line needs a duration for each caller")?;
        rounds.get_mut(index.parse::<usize>()?).ok_or("unknown workload")?.push(durations);
    }
    if rounds.iter().any(|of_workload| of_workload.len() != ROUNDS) {
        return Err(format!("a measurement did not print {ROUNDS} rounds for each workload").into());
    }
    Ok(rounds)
}

/// Measures in several processes, and prints the results. Returns whether the backend is fast enough.
fn compare() -> Result<bool, AnyError> {
    let is_fake = mssql_server::real().is_none();
    println!("{} server, {PROCESSES} processes:", if is_fake { "the fake" } else { "the real" });
    let processes: Vec<_> =
        (0..PROCESSES).map(|_| measure_in_process()).collect::<Result<_, _>>()?;
    let mut is_good = true;
    for (index, workload) in WORKLOADS.into_iter().enumerate() {
        // The lower quartile, the median and the upper quartile of the processes' medians.
        let spread = |value: fn(&Durations) -> f64| {
            let rounds = processes.iter().filter_map(|process| process.get(index));
            let medians: Vec<f64> =
                rounds.map(|rounds| quantile(rounds.iter().map(value).collect(), 0.5)).collect();
            [0.25, 0.5, 0.75].map(|at| quantile(medians.clone(), at))
        };
        let [us_low, us, us_high] = spread(|us| us[BACKEND]);
        let [low, driver, high] = spread(|us| us[DRIVER] / us[BACKEND]);
        let [tokio_low, tokio, tokio_high] = spread(|us| us[DRIVER_WITH_TOKIO] / us[BACKEND]);
        let [_, session, _] = spread(|us| us[WITH_SESSION] - us[BACKEND]);
        println!(
            "{}({}): {us:.0} µs ({us_low:.0}–{us_high:.0}); throughput {driver:.3} ({low:.3}–{high:.3}) × the driver's, {tokio:.3} \
                ({tokio_low:.3}–{tokio_high:.3}) × the driver's with tokio's timer; session context: {session:.0} µs",
            workload.quoted, workload.value
        );
        if driver < RATIO_MIN {
            println!("  missed: at least {RATIO_MIN} is required");
            is_good = false;
        }
    }
    Ok(is_good)
}

/// Returns a quantile, interpolated between the two nearest samples. It is 0 if there are no samples.
fn quantile(mut samples: Vec<f64>, at: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let last = samples.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "there are few samples"
    )]
    let (below, part) = ((at * last as f64) as usize, (at * last as f64).fract());
    let sample = |index: usize| samples.get(index.min(last)).copied().unwrap_or_default();
    sample(below) * (1.0 - part) + sample(below + 1) * part
}

fn main() -> ExitCode {
    let has = |name: &str| std::env::args().any(|argument| argument == name);
    // `cargo test --all-targets` also runs this benchmark, but without `--bench`.
    let result = match (has("--bench"), has(MEASURE)) {
        (false, _) => Ok(true),
        (true, true) => run_measurement().map(|()| true),
        (true, false) => compare(),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
