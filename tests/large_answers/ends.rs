//! After its first part, an answer is either completed or visibly cut off.

use http::Method;

use super::{begin, client, reaches, read};
use crate::foreign_workers::python_worker;
use crate::support::fleet::{Fleet, FleetOptions};

#[tokio::test(flavor = "multi_thread")]
async fn an_error_after_the_first_part_cuts_the_answer_off() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    for (http, count) in super::BOTH.into_iter().zip([1.0, 2.0]) {
        let client = client(&fleet, http);
        let (body, is_complete) =
            read(begin(&client, "/v1/flow?rows=3000&fail_at=2500").await).await;
        assert!(!is_complete && body.starts_with(b"[{\"number\":1,"), "{http:?}");
        let failed = r#"fjord_gateway_requests_total{endpoint="flow",queue="flow",status="200",outcome="sql_user"}"#;
        reaches(&fleet.gateways[0], failed, count).await;
        // An error before the first part still determines the status.
        client.get("/v1/flow?rows=3000&fail_at=50").await.is(422);
    }
    let log = fleet.gateways[0].process.log();
    assert!(log.contains("truncated a response"), "{log}");
    let line = log.lines().find(|line| line.contains(r#""outcome":"sql_user","attempts":1"#));
    assert!(line.is_some_and(|line| line.contains(r#""status":200"#)), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_above_the_size_limit_is_cut_off() {
    let worker_toml = "[worker]\nanswer_bytes_max = '2MiB'\n".to_owned();
    let fleet = Fleet::start(FleetOptions { worker_toml, ..FleetOptions::default() }).await;
    let (body, is_complete) = read(begin(&fleet.client(), "/v1/flow?rows=9000").await).await;
    assert!(!is_complete && body.len() <= 2 << 20, "{}", body.len());
    let cut = r#"fjord_gateway_requests_total{endpoint="flow",queue="flow",status="200",outcome="answer_too_large"}"#;
    reaches(&fleet.gateways[0], cut, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_workers_can_stream_and_their_protocol_errors_cut_the_answer_off() {
    let fleet = Fleet::start(FleetOptions { queues: "ledger-*", ..FleetOptions::default() }).await;
    let cases = [
        ("stream", true),
        ("stream-failed", false),
        ("stream-missing", false),
        ("stream-doubled", false),
        ("stream-garbage", false),
        ("stream-renamed", false),
        ("stream-blind", false),
        ("stream-silent", false),
    ];
    for (behaviour, expected) in cases {
        let mut worker = python_worker(&fleet, "foreign", &[behaviour]).await;
        for http in super::BOTH {
            let response = client(&fleet, http).request(Method::GET, "/v1/foreign/a").send().await;
            // Over HTTP/2, the reset may be sent before the headers.
            let (body, is_complete) = match response {
                Ok(response) => read(response).await,
                Err(_) => (Vec::new(), false),
            };
            assert_eq!(is_complete, expected, "{behaviour} over {http:?}: {}", worker.log());
            assert_eq!(body == b"[1,1,1]", expected, "{behaviour} over {http:?}");
        }
        worker.kill();
    }
}
