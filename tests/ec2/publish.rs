//! `fjord ec2 publish` measures a real fleet, and `CloudWatch` receives the result with a valid signature.

use fjord::lifecycle::Tasks;
use tokio::process::Command;

use super::{ec2, run};
use crate::support::aws::{Accepted, AwsServices, ServiceAnswer};
use crate::support::certs::Certs;
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fjord_binary;
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::nats::NatsOptions;
use crate::support::simulated_fleet::SimulatedFleet;

/// The number of requests that are always in progress.
const CALLERS: u16 = 3;
/// The slots of the queue in each worker.
const SLOTS: u16 = 4;
/// The maximum number of processes that a query collects.
const PROCESSES_MAX: usize = 1_000;

/// Starts a fleet whose two workers belong to the pool `heavy`.
async fn fleet() -> Fleet {
    let worker_toml = "[worker]\npool = 'heavy'".to_owned();
    let concurrency = usize::from(SLOTS);
    Fleet::start(FleetOptions { workers: 2, concurrency, worker_toml, ..FleetOptions::default() })
        .await
}

/// Returns `fjord ec2 publish` with the configuration of the gateway. It measures for one second.
pub(super) fn publish(fleet: &Fleet, aws: &AwsServices, certs: &Certs) -> Command {
    publish_after("1", fleet, aws, certs)
}

/// Returns `fjord ec2 publish` with an interval of `seconds`.
fn publish_after(seconds: &str, fleet: &Fleet, aws: &AwsServices, certs: &Certs) -> Command {
    let mut command = ec2("publish", aws, certs);
    command.arg("--config").arg(fleet.gateways[0].directory()).args(["--interval", seconds]);
    command
}

/// Returns the value of a metric of the pool `heavy`.
fn value<'a>(form: &'a Accepted, metric: &str) -> &'a str {
    let mut numbers = 1..=4;
    let of = |number: i32, key: &str| form[&format!("MetricData.member.{number}.{key}")].as_str();
    let found = numbers.find(|number| of(*number, "MetricName") == metric).expect("the metric");
    assert_eq!(of(found, "Dimensions.member.1.Name"), "Pool");
    assert_eq!(of(found, "Dimensions.member.1.Value"), "heavy");
    assert_eq!(of(found, "Unit"), if metric == "Load" { "Percent" } else { "Count" });
    of(found, "Value")
}

fn load(form: &Accepted) -> f64 {
    value(form, "Load").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_of_a_pool_is_published_and_equal_for_two_publishers() {
    let fleet = fleet().await;
    let aws = AwsServices::start(&fleet.certs).await;
    // The calls last longer than the measurement, so the load does not depend on the speed of the machine.
    let calls = Tasks::new();
    for _ in 0..CALLERS {
        let client = fleet.client();
        calls.spawn(async move { client.get("/v1/slow?ms=20000").await });
    }
    eventually_some("all calls run", SOON, async || {
        let mut running = 0.0;
        for worker in &fleet.workers {
            running += worker.metric("fjord_worker_running{queue=\"slow\"}").await;
        }
        (running >= f64::from(CALLERS)).then_some(())
    })
    .await;
    let publisher = || {
        let mut command = publish_after("3", &fleet, &aws, &fleet.certs);
        command.args(["--namespace", "team/fjord"]);
        command
    };
    let (first, second) = tokio::join!(run(publisher()), run(publisher()));
    for (status, stdout, stderr) in [&first, &second] {
        assert_eq!((*status, stderr.as_str()), (Some(0), ""), "{stdout}");
        assert!(stdout.contains("team/fjord Workers{Pool=heavy} 2.0"), "{stdout}");
    }
    let accepted = aws.accepted();
    assert_eq!(accepted.len(), 2, "one request for each publisher");
    // Three calls are always in progress, in the eight slots of two workers.
    let expected = 100.0 * f64::from(CALLERS) / f64::from(2 * SLOTS);
    for form in &accepted {
        println!("Load {:.1}, expected {expected:.1}", load(form));
        assert!((expected * 0.9..expected * 1.1).contains(&load(form)), "{form:?}");
        assert_eq!(form["Namespace"], "team/fjord");
        assert_eq!(value(form, "Workers"), "2");
        assert_eq!(value(form, "WorkersNeeded"), "1");
        assert_eq!(value(form, "WorkersFree"), "1");
    }
    let difference = load(&accepted[0]) - load(&accepted[1]);
    assert!(difference.abs() < expected * 0.2, "{difference}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_needs_no_aws_and_status_shows_the_same_pool() {
    let fleet = fleet().await;
    let aws = AwsServices::start(&fleet.certs).await;
    let mut command = publish(&fleet, &aws, &fleet.certs);
    command.args(["--dry-run", "--metadata-url", "http://127.0.0.1:1"]);
    let (status, stdout, stderr) = run(command).await;
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(
        lines,
        [
            "fjord Load{Pool=heavy} 0.0",
            "fjord Workers{Pool=heavy} 2.0",
            "fjord WorkersNeeded{Pool=heavy} 1.0",
            "fjord WorkersFree{Pool=heavy} 1.0",
        ]
    );
    assert_eq!(aws.attempts(), 0);
    let mut status = Command::new(fjord_binary());
    status.arg("status").arg("--config").arg(fleet.gateways[0].directory());
    let (_, page, _) = run(status).await;
    let row = page.lines().find(|line| line.starts_with("heavy ")).expect("the pool");
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..6], ["heavy", "2", "0", "%", "1", "1"], "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn transient_refusals_are_retried_and_others_are_reported() {
    let fleet = fleet().await;
    let aws = AwsServices::start(&fleet.certs).await;
    let refuse = |status, code, message| ServiceAnswer::Refuse(status, code, message);
    let throttled = || refuse(400, "Throttling", "Rate exceeded");
    let expired = || refuse(403, "ExpiredToken", "The security token is expired");
    let denied = refuse(403, "AccessDenied", "User is not authorized");
    let skewed = refuse(403, "SignatureDoesNotMatch", "Signature expired");
    let invalid = refuse(400, "InvalidParameterValue", "The value \u{1b}[31m is not valid");
    let large = ServiceAnswer::Text(400, "x".repeat(100_000));
    let broken = || ServiceAnswer::Text(502, "<html>Bad Gateway</html>".to_owned());
    // Each case has the answers of the service, the number of attempts, and the end of the error, which is empty
    // if the command succeeds.
    let cases: Vec<(Vec<ServiceAnswer>, usize, &str)> = vec![
        (vec![throttled(), throttled()], 3, ""),
        (
            vec![throttled(), throttled(), throttled()],
            3,
            "Throttling: Rate exceeded (status 400), after 3 attempts",
        ),
        (vec![expired()], 2, ""),
        (vec![expired(), expired(), expired()], 3, "check the clock of this host"),
        (vec![broken()], 2, ""),
        (vec![broken(), broken(), broken()], 3, "status 502 Bad Gateway, after 3 attempts"),
        (vec![denied], 1, "role fjord-gateway must permit cloudwatch:PutMetricData"),
        (vec![skewed], 1, "Signature expired (status 403): check the clock of this host"),
        (
            vec![invalid],
            1,
            "InvalidParameterValue: The value \\u{1b}[31m is not valid (status 400)",
        ),
        (vec![large], 2, ""),
        (vec![ServiceAnswer::Hang], 2, ""),
    ];
    for (answers, attempts, error) in cases {
        let name = format!("{answers:.80?}");
        aws.answer_with(answers);
        let (status, stdout, stderr) = run(publish(&fleet, &aws, &fleet.certs)).await;
        assert_eq!(aws.attempts(), attempts, "{name}: {stderr}");
        if error.is_empty() {
            assert_eq!((status, stderr.as_str()), (Some(0), ""), "{name}");
            assert_eq!(aws.accepted().len(), 1, "{name}");
        } else {
            assert_eq!((status, stdout.as_str()), (Some(1), ""), "{name}");
            assert!(stderr.starts_with("error: https://127.0.0.1:"), "{name}: {stderr}");
            assert_eq!(stderr.lines().count(), 1, "{name}: {stderr}");
            assert!(stderr.trim_end().ends_with(error), "{name}: {stderr}");
            assert!(aws.accepted().is_empty(), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_published_if_some_processes_could_not_be_queried() {
    let nats = NatsOptions { has_tls: false, ..NatsOptions::default() };
    let fleet = Fleet::start(FleetOptions { nats, workers: 0, ..FleetOptions::default() }).await;
    let aws = AwsServices::start(&fleet.certs).await;
    let url = &fleet.nats.urls()[0];
    // Including the gateway, the first fleet has exactly as many processes as a query collects. The second fleet
    // has one process more.
    let simulated = SimulatedFleet::start(url, PROCESSES_MAX - 1).await;
    let (status, stdout, stderr) = run(publish(&fleet, &aws, &fleet.certs)).await;
    assert_eq!(status, Some(0), "{stdout}{stderr}");
    assert_eq!(aws.accepted().len(), 1);
    drop(simulated);
    aws.answer_with([]);
    let _simulated = SimulatedFleet::start(url, PROCESSES_MAX).await;
    let (status, stdout, stderr) = run(publish(&fleet, &aws, &fleet.certs)).await;
    assert_eq!((status, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(
        stderr.starts_with("error: the load is not known, because the fleet is too large"),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert_eq!(aws.attempts(), 0);
    let mut status = Command::new(fjord_binary());
    status.arg("status").arg("--config").arg(fleet.gateways[0].directory());
    let (_, page, _) = run(status).await;
    let note = format!("the fleet is too large: only {PROCESSES_MAX} processes are known");
    assert!(page.contains(&note), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_workers_or_with_invalid_arguments_nothing_is_published() {
    let fleet = Fleet::start(FleetOptions { workers: 0, ..FleetOptions::default() }).await;
    let aws = AwsServices::start(&fleet.certs).await;
    let (status, _, stderr) = run(publish(&fleet, &aws, &fleet.certs)).await;
    assert_eq!(status, Some(1));
    assert_eq!(stderr, "error: no worker serves a queue, so there is no headroom to publish\n");
    for (arguments, reason) in [
        (["--cloudwatch-url", "http://127.0.0.1"], "expected https://HOST"),
        (["--namespace", "AWS/EC2"], "expected 1 to 255 letters"),
        (["--namespace", "a b"], "expected 1 to 255 letters"),
        (["--interval", "0"], "0 is not in 1..=300"),
    ] {
        let mut command = Command::new(fjord_binary());
        command.args(["ec2", "publish"]).args(arguments);
        let (status, _, stderr) = run(command).await;
        assert_eq!(status, Some(2), "{stderr}");
        assert!(stderr.contains(reason), "{stderr}");
    }
    assert_eq!(aws.attempts(), 0);
}
