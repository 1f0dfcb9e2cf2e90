//! `make bench-pool`: many queues on the connections of one database, and clients that leave.
//!
//! The server is the real one of `FJORD_TEST_MSSQL`, or else the endpoint of the tests, on threads of its own and with a login
//! that takes 50 ms. The rows take turns in each round, so that a busy machine slows all of them; a row is compared with
//! the first one of the same round. Fails when many queues reach less than 0.9 of one, when leaving clients cost more than
//! 0.05, or when a login is made while a row is measured.

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

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fjord::catalogue::{ParameterType, ParameterValue, ProcedureName, QueueName};
use fjord::cli::Role;
use fjord::config::procedures::MssqlConfig;
use fjord::lifecycle::{Cancel, Tasks};
use fjord::procedures::{Argument, Backend, Call, Cell, RowSink, SinkError, Transaction, mssql};
use fjord::telemetry::{Format, recorder};
use rand::RngExt;
use support::mssql_server::{self, Server};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// What many queues must reach of the throughput of one, at least.
const SHARED_MIN: f64 = 0.9;
/// What callers must reach of their throughput while others leave, at least.
const LEAVERS_MIN: f64 = 0.95;
/// A row is measured once no connection was made for so long, which is several times a login.
const QUIET: Duration = Duration::from_millis(500);
/// Longest wait for that.
const WARM_UP_MAX: Duration = Duration::from_secs(20);

/// What is measured.
#[derive(Clone, Copy, Debug)]
struct Row {
    queues: usize,
    connections: usize,
    callers: usize,
    /// Clients a second that leave in the middle of their call.
    leavers: u32,
}

/// Connections of the first row, and of those that must reach its throughput.
const CONNECTIONS: usize = 16;

const ROWS: [Row; 6] = [
    Row { queues: 1, connections: CONNECTIONS, callers: 64, leavers: 0 },
    Row { queues: 20, connections: CONNECTIONS, callers: 64, leavers: 0 },
    Row { queues: 20, connections: 64, callers: 64, leavers: 0 },
    Row { queues: 5, connections: 64, callers: 64, leavers: 0 },
    Row { queues: 5, connections: 64, callers: 128, leavers: 0 },
    Row { queues: 1, connections: CONNECTIONS, callers: 64, leavers: 50 },
];

/// What a row came to in one round.
#[derive(Clone, Copy, Debug)]
struct Figures {
    rate: f64,
    longest_ms: f64,
    logins: f64,
    discarded: f64,
    /// The throughput as a part of the first row's in the same round.
    part: f64,
}

/// Counts calls and how long each waited for its connection.
#[derive(Debug, Default)]
struct Count {
    calls: AtomicU64,
    longest_us: AtomicU64,
}

struct Sink<'a>(&'a Count);

impl RowSink for Sink<'_> {
    fn begin_set(&mut self, _: &[String]) -> Result<(), SinkError> {
        Ok(())
    }

    fn row(&mut self, _: &[Cell<'_>]) -> Result<(), SinkError> {
        Ok(())
    }

    fn restart(&mut self) -> bool {
        true
    }

    fn waited(&mut self, time: Duration) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.longest_us.fetch_max(time, Ordering::Relaxed);
    }
}

/// One caller of a queue.
#[derive(Clone, Debug)]
struct Caller {
    backend: Arc<dyn Backend>,
    queue: QueueName,
    procedure: ProcedureName,
}

impl Caller {
    async fn call(&self, count: &Count, cancel: &Cancel) -> bool {
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
            deadline: Instant::now() + Duration::from_secs(10),
            may_repeat: false,
            transaction: Transaction::None,
        };
        self.backend.call(call, &mut Sink(count), cancel).await.is_ok()
    }
}

fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The sum of a metric's samples so far.
fn metric(name: &str) -> f64 {
    let text = recorder::render(Format::Text);
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

async fn measure(config: &MssqlConfig, row: Row, time: Duration) -> Option<Figures> {
    let config = MssqlConfig { connections_max: row.connections, ..config.clone() };
    let backend = mssql::connect(&config, "bench").ok()?;
    let tasks = Tasks::new();
    let (count, is_over) = (Arc::new(Count::default()), Arc::new(AtomicBool::new(false)));
    let caller = |number: usize| -> Option<Caller> {
        Some(Caller {
            backend: Arc::clone(&backend),
            queue: QueueName::new(&format!("bench-{}", number % row.queues)).ok()?,
            procedure: ProcedureName::new("fjord_test.returns").ok()?,
        })
    };
    // The signature is read once, as when a queue starts: all callers at once would ask for it.
    if !caller(0)?.call(&Count::default(), &Cancel::new()).await {
        return None;
    }
    for number in 0..row.callers {
        let (caller, count, is_over) = (caller(number)?, Arc::clone(&count), Arc::clone(&is_over));
        let _detached = tasks.spawn(async move {
            let nobody = Cancel::new();
            while !is_over.load(Ordering::Relaxed) {
                if caller.call(&count, &nobody).await {
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
    if row.leavers > 0 {
        let _detached = tasks.spawn(leave(caller(0)?, row.leavers, Arc::clone(&is_over)));
    }
    sleep(time).await;
    let took = started.elapsed().as_secs_f64();
    let calls = count.calls.load(Ordering::Relaxed) - calls;
    let after = (logins(), discarded());
    is_over.store(true, Ordering::Relaxed);
    tasks.wait(Duration::from_secs(20)).await;
    backend.close().await;
    Some(Figures {
        rate: number(calls) / took,
        longest_ms: number(count.longest_us.load(Ordering::Relaxed)) / 1000.0,
        logins: after.0 - before.0,
        discarded: after.1 - before.1,
        part: 1.0,
    })
}

/// Waits until no more connections are made: as long as calls wait, there are more of them.
async fn is_warm() -> bool {
    let until = Instant::now() + WARM_UP_MAX;
    let start = logins();
    let mut before = start;
    while Instant::now() < until {
        let now = logins();
        // The first one may take longer than that on a busy machine.
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

/// Clients that send a request and leave at once or a little later.
async fn leave(caller: Caller, each_second: u32, is_over: Arc<AtomicBool>) {
    let tasks = Tasks::new();
    let mut tick = interval(Duration::from_secs(1) / each_second);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while !is_over.load(Ordering::Relaxed) {
        tick.tick().await;
        let caller = caller.clone();
        let stays = Duration::from_micros(rand::rng().random_range(0..30_000));
        let _detached = tasks.spawn(async move {
            let (cancel, unheard) = (Cancel::new(), Count::default());
            let leaving = async {
                sleep(stays).await;
                cancel.cancel();
            };
            tokio::join!(caller.call(&unheard, &cancel), leaving);
        });
    }
    tasks.wait(Duration::from_secs(5)).await;
}

/// The server on threads of its own: what it does must not be counted as ours.
fn server() -> Option<(tokio::runtime::Runtime, Server)> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().ok()?;
    let server = runtime.block_on(mssql_server::servers()).pop()?;
    if let Some(endpoint) = &server.endpoint {
        endpoint.state.login_ms.store(50, Ordering::Relaxed);
    }
    Some((runtime, server))
}

/// A number from the environment, or a default.
fn setting(name: &str, default: u32) -> u32 {
    #[expect(
        clippy::disallowed_methods,
        reason = "what a bench does is not configuration of fjord"
    )]
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Prints a row's line. Says whether it reached what it must.
#[expect(clippy::print_stdout, reason = "what a benchmark is for")]
fn print(row: Row, rounds: &[Figures]) -> bool {
    let rate = median(rounds.iter().map(|round| round.rate));
    let part = median(rounds.iter().map(|round| round.part));
    let parts = rounds.iter().map(|round| round.part);
    let (least, most) = parts.fold((f64::MAX, 0.0_f64), |(l, m), part| (l.min(part), m.max(part)));
    let logins: f64 = rounds.iter().map(|round| round.logins).sum();
    let discarded: f64 = rounds.iter().map(|round| round.discarded).sum();
    let longest = rounds.iter().map(|round| round.longest_ms).fold(0.0, f64::max);
    println!(
        "{:>6} × {:>3} × {:>3} | {:>7} | {rate:>10.0} | {part:.3} ({least:.3}–{most:.3}) | {logins:>6.0} | {discarded:>6.0} | {longest:>8.1} ms",
        row.queues, row.connections, row.callers, row.leavers
    );
    let part_min = match row {
        Row { leavers: 1.., .. } => LEAVERS_MIN,
        Row { connections, .. } if connections == CONNECTIONS => SHARED_MIN,
        // More calls at once are another load, and may be slower on a small machine.
        _ => 0.0,
    };
    part >= part_min && logins + discarded < 0.5
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "what a benchmark is for")]
fn main() -> ExitCode {
    // `cargo test --all-targets` runs it too, and wants to hear nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    recorder::install(Role::Worker);
    let Some((_server_runtime, server)) = server() else { return ExitCode::FAILURE };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    let rounds = setting("FJORD_BENCH_ROUNDS", 5);
    let time = Duration::from_secs(setting("FJORD_BENCH_SECONDS", 2).into());
    let mut found: Vec<Vec<Figures>> = vec![Vec::new(); ROWS.len()];
    for round in 0..rounds {
        let mut of_round: Vec<Option<Figures>> = vec![None; ROWS.len()];
        // Each row is the first one of some round: what comes first finds the machine otherwise than what follows.
        let start = usize::try_from(round).unwrap_or_default();
        for place in (0..ROWS.len()).map(|place| (place + start) % ROWS.len()) {
            let (Some(row), Some(into)) = (ROWS.get(place), of_round.get_mut(place)) else {
                continue;
            };
            *into = runtime.block_on(Box::pin(measure(&server.config, *row, time)));
        }
        let Some(of_round) = of_round.into_iter().collect::<Option<Vec<Figures>>>() else {
            eprintln!("a row could not be measured");
            return ExitCode::FAILURE;
        };
        let base = of_round.first().map_or(1.0, |first| first.rate);
        for (one, figures) in of_round.into_iter().zip(&mut found) {
            figures.push(Figures { part: one.rate / base, ..one });
        }
    }
    println!(
        "{}, {rounds} rounds of {time:?} each: medians, and the spread over the rounds",
        server.name
    );
    println!(
        "queues × connections × callers | leavers | requests/s | of the first row    | logins | closed | longest wait"
    );
    let is_good =
        ROWS.iter().zip(&found).fold(true, |good, (row, figures)| print(*row, figures) & good);
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
