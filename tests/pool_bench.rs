//! `make bench-pool`: measures the throughput of many queues that share the connections to a database, and the cost of
//! clients that disconnect.
//!
//! The server is the one in `FJORD_TEST_MSSQL`, or else the tests' fake server, which runs on its own thread and takes
//! 50 ms for a login. Each round measures every scenario, so that other load on the machine slows all of them, and
//! compares each scenario with the first one of the same round. The benchmark fails if the throughput of many queues is
//! below 0.9 times that of one queue, if disconnecting clients reduce the throughput by more than 5 %, or if a
//! connection is opened or discarded during a measurement.

#[expect(dead_code, unused_imports, reason = "other tests use the rest of it")]
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

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fjord::catalogue::{ParameterType, ParameterValue, ProcedureName, QueueName};
use fjord::cli::Role;
use fjord::config::procedures::MssqlConfig;
use fjord::lifecycle::{Cancel, Tasks};
use fjord::procedures::{
    Argument, Backend, Call, Cell, RowSink, SessionContext, SinkError, Transaction, mssql,
};
use fjord::telemetry::{Format, exposition};
use rand::RngExt;
use support::mssql_server::{self, SqlServer};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// The minimum throughput of many queues relative to one queue.
const SHARED_MIN: f64 = 0.9;
/// The minimum relative throughput while other clients disconnect.
const DISCONNECTS_MIN: f64 = 0.95;
/// The time without a new connection after which a measurement starts. It is several times the duration of a login.
const QUIET: Duration = Duration::from_millis(500);
/// The longest time to wait for `QUIET`.
const WARM_UP_MAX: Duration = Duration::from_secs(20);

/// A load to measure.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    queues: usize,
    connections: usize,
    callers: usize,
    /// The number of clients per second that disconnect during their call.
    disconnects: u32,
}

/// The number of connections in the first scenario, and in the scenarios that must reach its throughput.
const CONNECTIONS: usize = 16;
/// The number of callers. There is at least one for each queue.
const CALLERS: usize = 100;

const SCENARIOS: [Scenario; 6] = [
    Scenario { queues: 1, connections: CONNECTIONS, callers: CALLERS, disconnects: 0 },
    Scenario { queues: 20, connections: CONNECTIONS, callers: CALLERS, disconnects: 0 },
    Scenario { queues: 100, connections: CONNECTIONS, callers: CALLERS, disconnects: 0 },
    Scenario { queues: 1, connections: 64, callers: CALLERS, disconnects: 0 },
    Scenario { queues: 100, connections: 64, callers: CALLERS, disconnects: 0 },
    Scenario { queues: 1, connections: CONNECTIONS, callers: CALLERS, disconnects: 50 },
];

/// The result of a scenario in one round.
#[derive(Clone, Copy, Debug)]
struct PoolSample {
    rate: f64,
    longest_ms: f64,
    logins: f64,
    discarded: f64,
    /// The throughput relative to the first scenario of the same round.
    ratio: f64,
}

/// The number of calls, and the longest wait for a connection.
#[derive(Debug, Default)]
struct CallCount {
    calls: AtomicU64,
    longest_us: AtomicU64,
}

struct WaitSink<'a>(&'a CallCount);

impl RowSink for WaitSink<'_> {
    fn begin_set(&mut self, _: &[String]) -> Result<(), SinkError> {
        Ok(())
    }

    fn row(&mut self, _: &[Cell<'_>]) -> Result<(), SinkError> {
        Ok(())
    }

    fn restart(&mut self) -> bool {
        true
    }

    fn add_connection_wait(&mut self, time: Duration) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.longest_us.fetch_max(time, Ordering::Relaxed);
    }
}

/// A caller on a queue.
#[derive(Clone, Debug)]
struct QueueCaller {
    backend: Arc<dyn Backend>,
    queue: QueueName,
    procedure: ProcedureName,
}

impl QueueCaller {
    async fn call(&self, count: &CallCount, cancel: &Cancel) -> bool {
        let arguments = [Argument {
            name: "status".into(),
            kind: ParameterType::Int32,
            value: ParameterValue::Integer(7),
            columns: Arc::new([]),
            table_type: None,
        }];
        let call = Call {
            queue: &self.queue,
            procedure: &self.procedure,
            arguments: &arguments,
            session: SessionContext::default(),
            deadline: Instant::now() + Duration::from_secs(10),
            may_repeat: false,
            transaction: Transaction::None,
        };
        self.backend.call(call, &mut WaitSink(count), cancel).await.is_ok()
    }
}

fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Returns the sum of a metric over its labels.
fn metric(name: &str) -> f64 {
    let text = exposition::render(Format::Text);
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

async fn measure(config: &MssqlConfig, scenario: Scenario, time: Duration) -> Option<PoolSample> {
    let config = MssqlConfig { connections_max: scenario.connections, ..config.clone() };
    let backend = mssql::connect(&config, "bench").ok()?;
    let tasks = Tasks::new();
    let (count, is_over) = (Arc::new(CallCount::default()), Arc::new(AtomicBool::new(false)));
    let caller = |number: usize| -> Option<QueueCaller> {
        Some(QueueCaller {
            backend: Arc::clone(&backend),
            queue: QueueName::new(&format!("bench-{}", number % scenario.queues)).ok()?,
            procedure: ProcedureName::new("fjord_test.returns").ok()?,
        })
    };
    // This call reads the signature in advance, so that no caller waits for it. A worker does the same when it starts a
    // queue.
    if !caller(0)?.call(&CallCount::default(), &Cancel::new()).await {
        return None;
    }
    for number in 0..scenario.callers {
        let (caller, count, is_over) = (caller(number)?, Arc::clone(&count), Arc::clone(&is_over));
        let _detached = tasks.spawn(async move {
            let never = Cancel::new();
            while !is_over.load(Ordering::Relaxed) {
                if caller.call(&count, &never).await {
                    count.calls.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    if !is_warm().await {
        return None;
    }
    count.longest_us.store(0, Ordering::Relaxed);
    let calls = count.calls.load(Ordering::Relaxed);
    let before = (logins(), discarded());
    let started = Instant::now();
    if scenario.disconnects > 0 {
        let _detached =
            tasks.spawn(disconnect_clients(caller(0)?, scenario.disconnects, Arc::clone(&is_over)));
    }
    sleep(time).await;
    let took = started.elapsed().as_secs_f64();
    let calls = count.calls.load(Ordering::Relaxed) - calls;
    let after = (logins(), discarded());
    is_over.store(true, Ordering::Relaxed);
    tasks.wait(Duration::from_secs(20)).await;
    backend.close().await;
    Some(PoolSample {
        rate: number(calls) / took,
        longest_ms: number(count.longest_us.load(Ordering::Relaxed)) / 1000.0,
        logins: after.0 - before.0,
        discarded: after.1 - before.1,
        ratio: 1.0,
    })
}

/// Waits until no more connections are opened. Returns whether that happened within `WARM_UP_MAX`.
async fn is_warm() -> bool {
    let until = Instant::now() + WARM_UP_MAX;
    let start = logins();
    let mut before = start;
    while Instant::now() < until {
        let now = logins();
        // On a busy machine, the first login can take longer than `QUIET`.
        if now - start > 0.5 && now - before < 0.5 {
            return true;
        }
        before = now;
        sleep(QUIET).await;
    }
    false
}

fn logins() -> f64 {
    metric("fjord_backend_login_seconds_count")
}

fn discarded() -> f64 {
    metric("fjord_backend_connections_discarded_total")
}

/// Simulates clients that send a request and disconnect up to 30 ms later.
async fn disconnect_clients(caller: QueueCaller, per_second: u32, is_over: Arc<AtomicBool>) {
    let tasks = Tasks::new();
    let mut tick = interval(Duration::from_secs(1) / per_second);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while !is_over.load(Ordering::Relaxed) {
        tick.tick().await;
        let caller = caller.clone();
        let delay = Duration::from_micros(rand::rng().random_range(0..30_000));
        let _detached = tasks.spawn(async move {
            let (cancel, count) = (Cancel::new(), CallCount::default());
            let disconnect = async {
                sleep(delay).await;
                cancel.cancel();
            };
            tokio::join!(caller.call(&count, &cancel), disconnect);
        });
    }
    tasks.wait(Duration::from_secs(5)).await;
}

/// Starts the server on its own thread, so that its work does not count as the client's.
fn server() -> Option<(tokio::runtime::Runtime, SqlServer)> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().ok()?;
    let server = runtime.block_on(mssql_server::servers()).pop()?;
    if let Some(fake) = &server.fake {
        fake.state.login_ms.store(50, Ordering::Relaxed);
    }
    Some((runtime, server))
}

/// Returns a number from the environment, or a default.
fn setting(name: &str, default: u32) -> u32 {
    #[expect(
        clippy::disallowed_methods,
        reason = "the settings of a benchmark are not part of fjord's configuration"
    )]
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn median(samples: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = samples.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Prints the results of a scenario. Returns whether they are good enough.
#[expect(clippy::print_stdout, reason = "prints its result")]
fn print(scenario: Scenario, rounds: &[PoolSample]) -> bool {
    let rate = median(rounds.iter().map(|round| round.rate));
    let ratio = median(rounds.iter().map(|round| round.ratio));
    let ratios = rounds.iter().map(|round| round.ratio);
    let (least, most) =
        ratios.fold((f64::MAX, 0.0_f64), |(l, m), ratio| (l.min(ratio), m.max(ratio)));
    let logins: f64 = rounds.iter().map(|round| round.logins).sum();
    let discarded: f64 = rounds.iter().map(|round| round.discarded).sum();
    let longest = rounds.iter().map(|round| round.longest_ms).fold(0.0, f64::max);
    println!(
        "{:>6} × {:>3} × {:>3} | {:>7} | {rate:>10.0} | {ratio:.3} ({least:.3}–{most:.3}) | {logins:>6.0} | {discarded:>6.0} | {longest:>8.1} ms",
        scenario.queues, scenario.connections, scenario.callers, scenario.disconnects
    );
    let ratio_min = match scenario {
        Scenario { disconnects: 1.., .. } => DISCONNECTS_MIN,
        Scenario { connections, .. } if connections == CONNECTIONS => SHARED_MIN,
        // This scenario has more concurrent calls. That is a different load, which can be slower on a small machine.
        _ => 0.0,
    };
    ratio >= ratio_min && logins + discarded < 0.5
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "prints its result")]
fn main() -> ExitCode {
    // `cargo test --all-targets` also runs this benchmark, but without `--bench`.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    exposition::install(Role::Worker);
    let Some((_server_runtime, server)) = server() else { return ExitCode::FAILURE };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    let rounds = setting("FJORD_BENCH_ROUNDS", 5);
    let time = Duration::from_secs(setting("FJORD_BENCH_SECONDS", 2).into());
    let mut found: Vec<Vec<PoolSample>> = vec![Vec::new(); SCENARIOS.len()];
    for round in 0..rounds {
        let mut of_round: Vec<Option<PoolSample>> = vec![None; SCENARIOS.len()];
        // Each round starts with a different scenario, because the state of the machine can differ for the first
        // scenario of a round.
        let start = usize::try_from(round).unwrap_or_default();
        for place in (0..SCENARIOS.len()).map(|place| (place + start) % SCENARIOS.len()) {
            let (Some(scenario), Some(into)) = (SCENARIOS.get(place), of_round.get_mut(place))
            else {
                continue;
            };
            *into = runtime.block_on(Box::pin(measure(&server.config, *scenario, time)));
        }
        let Some(of_round) = of_round.into_iter().collect::<Option<Vec<PoolSample>>>() else {
            eprintln!("a scenario could not be measured");
            return ExitCode::FAILURE;
        };
        let base = of_round.first().map_or(1.0, |first| first.rate);
        for (one, figures) in of_round.into_iter().zip(&mut found) {
            figures.push(PoolSample { ratio: one.rate / base, ..one });
        }
    }
    println!(
        "{}, {rounds} rounds of {time:?} each: medians, and the range over the rounds",
        server.name
    );
    println!(
        "queues × connections × callers | disconnects | requests/s | of the first one    | logins | closed | longest wait"
    );
    let is_good = SCENARIOS
        .iter()
        .zip(&found)
        .fold(true, |good, (scenario, samples)| print(*scenario, samples) & good);
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
