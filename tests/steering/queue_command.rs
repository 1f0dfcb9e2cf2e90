//! Tests `fjord queue`.

use fjord::lifecycle::Tasks;
use http::Method;
use serde_json::{Value, json};

use super::{document, fleet, run, run_as, send, text};
use crate::support::client::{get_json, send as send_request};
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fleet::Fleet;
use crate::support::ledger_load::{GatewayRotation, LedgerLoad, reconcile};
use crate::support::nats::SHIPPED_PASSWORD;
use crate::support::random::SeededRandom;
use crate::support::reload;

/// Runs a command that must succeed, and returns its output.
async fn succeeds(fleet: &Fleet, arguments: &[&str]) -> String {
    let output = run(fleet, arguments).await;
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command that must fail, and returns its errors.
async fn fails(fleet: &Fleet, arguments: &[&str], status: i32) -> String {
    let output = run(fleet, arguments).await;
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

async fn paused(fleet: &Fleet, queue: &str) -> Vec<bool> {
    let name = format!(r#"fjord_worker_queue_paused{{queue="{queue}"}}"#);
    let mut paused = Vec::new();
    for worker in &fleet.workers {
        paused.push(worker.metric(&name).await > 0.5);
    }
    paused
}

async fn status(fleet: &Fleet) -> Value {
    let output = run(fleet, &["status", "--json", "--interval", "1"]).await;
    document(&output)
}

/// Returns the ids of the processes of a role.
fn ids<'a>(report: &'a Value, role: &str) -> Vec<&'a str> {
    let processes = report["processes"].as_array().unwrap().iter();
    let of_role = processes.filter(|process| process["role"] == role);
    of_role.map(|process| process["id"].as_str().unwrap()).collect()
}

fn slow(processes: &Value) -> Vec<&Value> {
    let queues = processes["processes"].as_array().unwrap().iter();
    let queues = queues.flat_map(|process| process["queues"].as_array().unwrap());
    queues.filter(|queue| queue["name"] == "slow").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_finishes_its_calls_and_refuses_new_ones_until_it_is_resumed() {
    let fleet = fleet(1, 2).await;
    let client = fleet.client();
    let running = client.clone();
    let running = Tasks::new().spawn(async move { running.get("/v1/slow?ms=4000").await });
    let metric = r#"fjord_worker_running{queue="slow"}"#;
    eventually_some("the call runs", SOON, async || {
        let calls = fleet.workers[0].metric(metric).await + fleet.workers[1].metric(metric).await;
        (calls > 0.5).then_some(())
    })
    .await;
    let said = succeeds(&fleet, &["queue", "pause", "slow", "slow-once"]).await;
    assert!(said.ends_with("\n2 workers: paused\n"), "{said}");
    assert_eq!(said.matches("queue slow is paused, with ").count(), 2, "{said}");
    assert_eq!(said.matches("with 1 calls in progress").count(), 1, "{said}");
    assert_eq!(paused(&fleet, "slow").await, [true, true]);

    let refused = client.get("/v1/slow?ms=1").await;
    let problem = refused.is_problem(503, "queue-paused");
    assert_eq!(problem["effect"], "not-executed");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    let once = async || send_request(client.request(Method::POST, "/v1/slow?ms=1")).await;
    once().await.is_problem(503, "queue-paused");
    client.get("/v1/echo/a").await.is(200);
    running.await.unwrap().is(200);

    // The pause is visible, but does not make the workers unready.
    let report = status(&fleet).await;
    assert!(slow(&report).iter().all(|queue| queue["is_paused"] == true), "{report}");
    let page = succeeds(&fleet, &["status", "--interval", "1"]).await;
    assert!(page.contains("2 (2 paused)") && page.contains("paused by grace@"), "{page}");
    for worker in &fleet.workers {
        let ready = get_json(&format!("http://{}/readyz", worker.admin())).await.expect("ready");
        assert!(
            ready["notes"]["paused queue slow"].as_str().unwrap().contains("grace@"),
            "{ready}"
        );
        worker
            .process
            .log_line(&[
                r#""command":"pause-queues""#,
                r#""arguments":"slow slow-once""#,
                r#""by":"grace@"#,
            ])
            .await;
        for queue in ["slow", "slow-once"] {
            let change =
                format!(r#""queue":"{queue}","before":"limit 16","after":"limit 16, paused""#);
            worker.process.log_line(&[&change]).await;
        }
    }

    let said = succeeds(&fleet, &["queue", "resume", "slow", "slow-once"]).await;
    assert!(said.contains("queue slow accepts requests"), "{said}");
    client.get("/v1/slow?ms=1").await.is(200);
    once().await.is(200);
    assert_eq!(paused(&fleet, "slow").await, [false, false]);
    let ready = format!("http://{}/readyz", fleet.workers[0].admin());
    assert_eq!(get_json(&ready).await.expect("ready")["notes"], json!({}));
    let said = succeeds(&fleet, &["queue", "resume", "slow"]).await;
    assert!(said.contains("queue slow was not paused"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_to_a_paused_queue_is_answered_queue_paused() {
    let fleet = fleet(1, 2).await;
    succeeds(&fleet, &["queue", "pause", "slow"]).await;
    let client = fleet.client();
    let requests: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            Tasks::new().spawn(async move { client.get("/v1/slow?ms=1").await })
        })
        .collect();
    for request in requests {
        request.await.unwrap().is_problem(503, "queue-paused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_serves_all_requests_while_most_workers_are_paused() {
    let fleet = fleet(1, 3).await;
    let report = status(&fleet).await;
    for id in &ids(&report, "worker")[1..] {
        succeeds(&fleet, &["queue", "pause", "slow", "--on", id]).await;
    }
    let mut states = paused(&fleet, "slow").await;
    states.sort_unstable();
    assert_eq!(states, [false, true, true]);
    let client = fleet.client();
    let load: Vec<_> = (0..12)
        .map(|_| {
            let client = client.clone();
            Tasks::new().spawn(async move {
                for _ in 0..100 {
                    client.get("/v1/slow?ms=5").await.is(200);
                }
            })
        })
        .collect();
    for requests in load {
        requests.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_pause_and_a_pause_of_one_worker_fail_no_request() {
    let fleet = fleet(1, 2).await;
    let load =
        LedgerLoad::start(&GatewayRotation::new(vec![fleet.client()]), &mut SeededRandom::new());
    load.wait_for_more(20).await;
    let queues = ["ledger-once", "ledger-again", "ledger-refuse", "ledger-keyed"];
    let known = reload::queues(&fleet.workers[0]).await;
    let queues: Vec<&str> =
        queues.into_iter().filter(|name| known.iter().any(|one| one == name)).collect();
    for _ in 0..3 {
        succeeds(&fleet, &[&["queue", "pause"], &*queues].concat()).await;
        succeeds(&fleet, &[&["queue", "resume"], &*queues].concat()).await;
        load.wait_for_more(20).await;
    }
    let report = status(&fleet).await;
    let one = ids(&report, "worker")[0];
    let said = succeeds(&fleet, &[&["queue", "pause", "--on", one], &*queues].concat()).await;
    assert!(said.ends_with("\n1 worker: paused\n"), "{said}");
    let mut states = paused(&fleet, "ledger-once").await;
    states.sort_unstable();
    assert_eq!(states, [false, true]);
    load.wait_for_more(100).await;
    let answers = load.stop().await;
    reconcile("fjord queue pause", &answers, fleet.ledger()).no_request_lost().all_ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_applies_at_once_and_outlasts_a_reload_but_not_a_restart() {
    let mut fleet = fleet(1, 1).await;
    let limit = async |fleet: &Fleet| {
        reload::status(&fleet.workers[0]).await["queues"]["slow"]["limit"].clone()
    };
    assert_eq!(limit(&fleet).await, 16);
    let said = succeeds(&fleet, &["queue", "limit", "slow", "1"]).await;
    let expected = "queue slow: concurrency limit 1 (previously 16, configured 16)\n";
    assert!(said.contains(expected), "{said}");
    assert_eq!(limit(&fleet).await, 1);
    let client = fleet.client();
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            Tasks::new().spawn(async move { client.get("/v1/slow?ms=150").await.is(200).status })
        })
        .collect();
    let running = r#"fjord_worker_running{queue="slow"}"#;
    let mut highest = 0.0_f64;
    eventually_some("the calls end", SOON, async || {
        highest = highest.max(fleet.workers[0].metric(running).await);
        calls.iter().all(tokio::task::JoinHandle::is_finished).then_some(())
    })
    .await;
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert!(highest < 1.5, "{highest} calls ran at once");

    // A reload keeps the limit and the pause.
    succeeds(&fleet, &["queue", "pause", "echo"]).await;
    reload::edit(&fleet.workers[0], "concurrency = 16", "concurrency = 3");
    succeeds(&fleet, &["reload"]).await;
    assert_eq!(limit(&fleet).await, 1);
    assert_eq!(paused(&fleet, "echo").await, [true]);
    let report = status(&fleet).await;
    assert_eq!(slow(&report)[0]["limit_configured"], 3);
    let page = succeeds(&fleet, &["status", "--interval", "1"]).await;
    assert!(page.contains("0/1 (configured 3)"), "{page}");
    let said = succeeds(&fleet, &["queue", "limit", "slow", "20"]).await;
    assert!(said.contains("configured 3); calls may have to wait for a connection"), "{said}");
    assert_eq!(limit(&fleet).await, 20);
    succeeds(&fleet, &["queue", "limit", "slow", "configured"]).await;
    assert_eq!(limit(&fleet).await, 3);
    succeeds(&fleet, &["queue", "limit", "slow", "2"]).await;

    assert!(fleet.workers[0].stop().await.success());
    fleet.workers[0].restart();
    fleet.workers[0].ready().await;
    assert_eq!(limit(&fleet).await, 3);
    assert_eq!(paused(&fleet, "echo").await, [false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_queue_limit_target_or_user_is_named() {
    let fleet = fleet(1, 1).await;
    let errors = fails(&fleet, &["queue", "pause", "slwo"], 1).await;
    assert_eq!(errors, "error: no worker serves the queue slwo, did you mean slow?\n");
    let errors = fails(&fleet, &["queue", "pause", "slow", "--on", "nobody"], 1).await;
    assert!(errors.contains("no process has the id or the host name nobody"), "{errors}");
    let errors = fails(&fleet, &["queue", "resume", "slow", "--on", "gateway"], 1).await;
    assert!(errors.contains("no worker serves the queue slow"), "{errors}");
    for wrong in ["0", "10001", "1.5", "many"] {
        let errors = fails(&fleet, &["queue", "limit", "slow", wrong], 2).await;
        assert!(errors.contains("expected a number of calls from 1 to 10000"), "{errors}");
    }
    fails(&fleet, &["queue", "pause", "a.b"], 2).await;
    fails(&fleet, &["queue", "pause"], 2).await;
    let output = run_as(&fleet, "operator", &["queue", "pause", "slow", "--timeout", "1"]).await;
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("no reply to pause-queues within 1s"), "{errors}");
    assert!(errors.ends_with("\nerror: 0 of 1 worker: paused\n"), "{errors}");
    assert_eq!(paused(&fleet, "slow").await, [false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_hangs_is_counted_as_failed_and_may_be_on_the_named_host() {
    let mut fleet = fleet(1, 2).await;
    let report = status(&fleet).await;
    let host = report["processes"][0]["host"].as_str().unwrap().to_owned();
    fleet.workers[0].process.pause();
    let user = "messaging.nats.system.user=system".to_owned();
    let password = format!("messaging.nats.system.password={SHIPPED_PASSWORD}");
    let system = ["--set", &*user, "--set", &*password];
    let pause = [&["queue", "pause", "slow", "--timeout", "2"], &system[..]].concat();
    let errors = fails(&fleet, &pause, 1).await;
    let hangs = |id: &&&str| errors.contains(&format!("error: worker {id} on 127.0.0.1: no reply"));
    let ids = ids(&report, "worker");
    let id = ids.iter().find(hangs).unwrap_or_else(|| panic!("{ids:?}: {errors}"));
    assert!(errors.ends_with("\nerror: 1 of 2 workers: paused\n"), "{errors}");
    let said = succeeds(&fleet, &[&pause[..], &["--on", &host]].concat()).await;
    let uncertain = format!("worker {id} on 127.0.0.1: does not reply, and may be on {host}\n");
    assert!(said.contains(&uncertain) && said.ends_with("\n1 worker: paused\n"), "{said}");
    fleet.workers[0].process.resume();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_refuses_an_excessive_limit_and_a_command_on_the_subject_of_another() {
    let mut fleet = fleet(1, 1).await;
    for limit in [0, 10_001] {
        let command = json!({ "limit-queue": { "queue": "slow", "limit": limit } });
        let reply = send(&fleet, "fjord.control.queue", command).await;
        assert_eq!(reply["faults"], json!(["expected a limit from 1 to 10000"]));
    }
    let pause = json!({ "pause-queues": { "queues": ["slow"] } });
    for (subject, command) in [
        ("fjord.control.log", json!("drain")),
        ("fjord.control.queue", json!("drain")),
        ("fjord.control.log", pause.clone()),
        ("fjord.control", pause.clone()),
    ] {
        let reply = send(&fleet, subject, command).await;
        let fault = reply["faults"][0].as_str().unwrap();
        assert!(fault.contains("must be sent to another subject"), "{reply}");
    }
    assert_eq!(paused(&fleet, "slow").await, [false]);
    assert!(fleet.workers[0].process.is_running());
    let reply = send(&fleet, "fjord.control.queue", pause).await;
    assert_eq!(reply["faults"], json!([]), "{reply}");
    assert_eq!(reply["changed"], json!(["slow"]), "{reply}");
    assert_eq!(paused(&fleet, "slow").await, [true]);
    let pause = json!({ "pause-queues": { "queues": ["unknown"] } });
    let reply = send(&fleet, "fjord.control.queue", pause).await;
    assert_eq!((&reply["faults"], &reply["changed"]), (&json!([]), &json!([])), "{reply}");
}
