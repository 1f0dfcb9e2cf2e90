//! The response to HEAD has the headers of the response to GET that are known before the answer is complete. No part of the
//! answer is kept in memory.

use std::sync::Arc;

use http::Method;

use super::memory::{reset_peak, status};
use super::{ROWS_PER_MIB, client, reaches, wait_until_idle};
use crate::support::client::{Client, ClientOptions, HttpResponse, HttpVersion, send};
use crate::support::fleet::{Fleet, FleetOptions};

async fn call(client: &Client, method: Method, path: &str) -> HttpResponse {
    send(client.request(method, path).header("accept-encoding", "gzip")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn head_has_the_headers_of_get() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let large = format!("/v1/flow?rows={ROWS_PER_MIB}");
    let no_window = "[gateway.session]\nwindow_parts = 0\n".to_owned();
    let whole =
        Fleet::start(FleetOptions { gateway_toml: no_window, ..FleetOptions::default() }).await;
    for (fleet, path, has_length) in [
        (&fleet, large.as_str(), false),
        (&fleet, "/v1/flow?rows=20", true),
        (&fleet, "/v1/echo/a", true),
        // Without a window, the gateway assembles the answer to GET, so its length is known. For HEAD, it discards the
        // answer.
        (&whole, large.as_str(), false),
        (&whole, "/v1/flow?rows=20", true),
    ] {
        for http in super::BOTH {
            let client = fleet.client_with(ClientOptions { http, ..ClientOptions::default() });
            let get = call(&client, Method::GET, path).await;
            let head = call(&client, Method::HEAD, path).await;
            assert_eq!(get.is(200).status, head.status);
            for name in ["content-type", "content-encoding", "vary", "cache-control"] {
                assert_eq!(head.header(name), get.header(name), "{name} of {path} over {http:?}");
            }
            assert!(head.body.is_empty());
            let length = head.header("content-length");
            assert_eq!(!length.is_empty(), has_length, "{path} over {http:?}: {length}");
            if has_length {
                assert_eq!(length, get.header("content-length"), "{path} over {http:?}");
            }
        }
    }
    wait_until_idle(&fleet.workers[0]).await;
    let ok =
        r#"fjord_gateway_requests_total{endpoint="flow",queue="flow",status="200",outcome="ok"}"#;
    reaches(&fleet.gateways[0], ok, 8.0).await;
}

/// Sends `count` HEAD requests for 4 MiB concurrently. Returns the number of responses with status 200.
pub(crate) async fn send_heads(fleet: &Fleet, count: usize) -> usize {
    let client = Arc::new(client(fleet, HttpVersion::Two));
    let path = format!("/v1/flow?rows={}", 4 * ROWS_PER_MIB);
    let tasks = fjord::lifecycle::Tasks::new();
    let heads: Vec<_> = (0..count)
        .map(|_| {
            let (client, path) = (Arc::clone(&client), path.clone());
            tasks.spawn(async move { call(&client, Method::HEAD, &path).await.status.as_u16() })
        })
        .collect();
    let mut answered = 0;
    for head in heads {
        answered += usize::from(head.await.expect("the task does not panic") == 200);
    }
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_heads_of_a_large_answer_hold_no_memory() {
    for gateway_toml in ["", "[gateway.session]\nwindow_parts = 0\n"] {
        let gateway_toml = gateway_toml.to_owned();
        let fleet = Fleet::start(FleetOptions { gateway_toml, ..FleetOptions::default() }).await;
        let gateway = &fleet.gateways[0];
        assert_eq!(send_heads(&fleet, 1).await, 1);
        let before = reset_peak(gateway);
        let answered = send_heads(&fleet, 300).await;
        let grown = status(gateway, "VmHWM").saturating_sub(before) / 1024;
        println!("MEMORY of 300 HEADs, {answered} answered: +{grown} KiB");
        assert!(answered > 0 && grown < 64 << 10, "{answered} answered, +{grown} KiB");
    }
}
