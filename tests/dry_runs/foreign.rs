//! Promise: a foreign worker that does not support dry runs never executes one. The answer of a foreign worker is
//! forwarded only if it confirms the rollback.

use http::Method;
use serde_json::json;

use super::{applied, fleet, preferring};
use crate::foreign_workers::python_worker;
use crate::support::client::{Client, HttpResponse, send};
use crate::support::fleet::Fleet;

const PATH: &str = "/v1/foreign-try/abc";

async fn ask(client: &Client) -> HttpResponse {
    send(client.request(Method::POST, PATH)).await
}

async fn dry_runs(fleet: &Fleet, result: &str) -> f64 {
    let figure =
        format!(r#"fjord_gateway_dry_runs_total{{endpoint="foreign-try",result="{result}"}}"#);
    fleet.gateways[0].metric(&figure).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_responder_cannot_execute_a_dry_run() {
    let fleet = fleet("ledger-*").await;
    let worker = python_worker(&fleet, "foreign", &["plain"]).await;
    let dry = preferring(&fleet, "tx=rollback");
    ask(&dry).await.is_problem(503, "not-executed");
    assert!(!worker.log().contains("executed"), "{}", worker.log());
    assert_eq!(ask(&fleet.client()).await.is(200).json(), json!({ "plain": "abc" }));
    assert!(worker.log().contains("executed"), "{}", worker.log());
}

/// The worker behaves as fjord's workers did before they supported dry runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_dry_runs_answers_without_a_proof() {
    let fleet = fleet("ledger-*").await;
    let _worker = python_worker(&fleet, "foreign", &["older"]).await;
    let answer = ask(&preferring(&fleet, "tx=rollback")).await;
    let problem = answer.is_problem(502, "outcome-unknown");
    assert_eq!(problem["detail"], "the worker did not confirm that the dry run was rolled back");
    assert!((dry_runs(&fleet, "unconfirmed").await - 1.0).abs() < 0.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_proof_is_not_forwarded() {
    let fleet = fleet("ledger-*").await;
    let mut worker = python_worker(&fleet, "foreign", &["careless"]).await;
    let dry = preferring(&fleet, "tx=rollback");
    for _ in 0..2 {
        let answer = ask(&dry).await;
        assert_eq!(answer.is_problem(502, "outcome-unknown")["effect"], "unknown");
        assert_eq!(applied(&answer), "");
    }
    assert!((dry_runs(&fleet, "unconfirmed").await - 2.0).abs() < 0.1);
    let log = fleet.gateways[0].process.log();
    assert_eq!(log.matches("did not report that a dry run was rolled back").count(), 1, "{log}");
    worker.kill();

    let _worker = python_worker(&fleet, "foreign", &["dry"]).await;
    let answer = ask(&dry).await;
    assert_eq!((answer.is(200).json(), applied(&answer)), (json!({ "id": "abc" }), "tx=rollback"));
    assert!((dry_runs(&fleet, "rolled_back").await - 1.0).abs() < 0.1);
}
