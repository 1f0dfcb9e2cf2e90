//! `cargo bench`: compares procedure calls through the backend with direct calls through the driver.
//!
//! Both call the same procedures on the same server in turn, so that other load on the machine slows both. The server
//! is the one in `FJORD_TEST_MSSQL`, or else the tests' fake server, which has its own runtime.
//!
//! The backend has one connection and resets it in each call. The driver calls on two connections: one of its own, which is
//! not reset, and one on a stream of the tests, which is reset in the same way. On the fake server, a reset costs nothing,
//! so the driver's own connection is the standard. On a real server, the connection with a reset is. The benchmark fails if
//! the throughput of the backend is below 0.95 times the standard. The cost of the session context is measured separately.

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

/// The allocator of the executable.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The minimum throughput of the backend relative to the standard, which is described above.
const RATIO_MIN: f64 = 0.95;
/// The number of rounds. The first `WARM_UP` of them are not counted.
const ROUNDS: usize = 33;
const WARM_UP: usize = 3;

/// The maximum age of a connection of the backend. Babelfish resets a connection more slowly if the backend has read the
/// signature of a procedure on it. The measurement therefore starts when these connections have been closed.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(20);

/// All orders of the three measurements.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1], [2, 0, 1], [1, 0, 2]];

const WORKLOADS: [Workload; 3] = [
    Workload { procedure: "returns", argument: "status", value: 7, calls: 600 },
    Workload { procedure: "first_ids", argument: "count", value: 20, calls: 500 },
    Workload { procedure: "first_ids", argument: "count", value: 5000, calls: 40 },
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
                    json.write(i64::from(*number));
                }
            }
        }
    }
    Ok(started.elapsed())
}

/// The result for a workload: medians and quartiles over the rounds.
#[derive(Clone, Copy, Debug)]
struct CallCosts {
    /// The duration of a call through the backend, in microseconds.
    backend_us: [f64; 3],
    /// The throughput of the backend relative to the driver's.
    vs_plain: [f64; 3],
    /// The throughput of the backend relative to the driver's if the driver also resets the connection in each call.
    vs_resetting: [f64; 3],
}

/// Measures the backend and the driver in turn.
async fn costs(
    backend: &Arc<dyn Backend>,
    config: &MssqlConfig,
    workload: Workload,
) -> Option<CallCosts> {
    let mut plain = mssql_server::direct(config).await;
    let mut resetting = mssql_server::resetting(config).await;
    let (mut backend_us, mut vs_plain, mut vs_resetting) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut took = [Duration::ZERO; 3];
        // The order changes, because each measurement also depends on what was measured before.
        for which in ORDERS.get(round % ORDERS.len()).copied()? {
            *took.get_mut(which)? = match which {
                0 => through_backend(backend, workload, SessionContext::default()).await.ok()?,
                1 => direct(&mut plain, workload).await.ok()?,
                _ => direct(&mut resetting, workload).await.ok()?,
            };
        }
        if round >= WARM_UP {
            let [backend, plain, resetting] = took.map(|took| took.as_secs_f64());
            backend_us.push(backend * 1e6 / f64::from(workload.calls));
            vs_plain.push(plain / backend);
            vs_resetting.push(resetting / backend);
        }
    }
    Some(CallCosts {
        backend_us: quartiles(backend_us)?,
        vs_plain: quartiles(vs_plain)?,
        vs_resetting: quartiles(vs_resetting)?,
    })
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
        let config = MssqlConfig { connection_age_max: CONNECTION_AGE_MAX, ..server.config.clone() };
        // Babelfish keeps the session context, so a call removes each absent value there.
        let plain = MssqlConfig { session_context: Vec::new(), ..config.clone() };
        let (Ok(backend), Ok(with_session)) =
            (mssql::connect(&plain, "default"), mssql::connect(&config, "session"))
        else {
            eprintln!("cannot create the backends");
            is_good = false;
            return;
        };
        for workload in WORKLOADS {
            let once = Workload { calls: 1, ..workload };
            for backend in [&backend, &with_session] {
                is_good &= through_backend(backend, once, SESSION).await.is_ok();
            }
        }
        if server.fake.is_none() {
            for_a_while(CONNECTION_AGE_MAX * 5 / 4).await;
        }
        for workload in WORKLOADS {
            let Some(costs) = costs(&backend, &server.config, workload).await else {
                is_good = false;
                continue;
            };
            let session = session_context([&with_session, &backend], workload).await;
            let session = session.unwrap_or(f64::NAN);
            let [us, us_low, us_high] = costs.backend_us;
            let [plain, plain_low, plain_high] = costs.vs_plain;
            let [ratio, low, high] = costs.vs_resetting;
            println!(
                "{:>9}({:>4}): {us:.0} µs ({us_low:.0}–{us_high:.0}); {plain:.3} ({plain_low:.3}–{plain_high:.3}) × plain \
                    calls, {ratio:.3} ({low:.3}–{high:.3}) × calls with a reset; session context: {session:.0} µs",
                workload.procedure, workload.value
            );
            is_good &= if server.fake.is_some() { plain } else { ratio } >= RATIO_MIN;
        }
    }));
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
