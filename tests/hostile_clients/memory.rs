//! The memory of the gateway and of the kernel: before an attack on the byte limits, at its peak, and 30 s after it.

use std::fs;
use std::pin::pin;
use std::time::Duration;

use fjord::lifecycle::Tasks;
use http::Method;
use socket2::SockRef;
use tokio::time::interval;

use super::byte_budget::{announce_bodies, send_large_bodies, wait_for_in_flight};
use super::stalled_clients::unsent_data;
use crate::large_answers::head_requests::send_heads;
use crate::large_answers::memory::{reset_peak, status};
use crate::support::client::{ClientOptions, HttpVersion, send};
use crate::support::eventually::{SOON, eventually_some, for_a_while};
use crate::support::fjord_process::FjordProcess;
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::raw_client::RawClient;

const MIB: u64 = 1 << 20;
/// The time between the end of an attack and the last measurement.
const SETTLE_TIME: Duration = Duration::from_secs(30);
/// The maximum growth of the gateway's memory: a client's share, and memory outside the budget.
const GROWTH_BYTES_MAX: u64 = 128 * MIB;
/// The maximum amount of memory that the allocator retains.
const KEPT_BYTES_MAX: u64 = 32 * MIB;
/// A time limit that is longer than 300 answers of 4 MiB take in a debug build on a busy machine.
const ANSWERS_LIMIT: Duration = Duration::from_mins(10);
/// Session settings that make a gateway wait for a worker that is silent for seconds.
const PATIENT_SESSION: &str =
    "[gateway.session]\naccept_timeout = '60s'\nprogress_interval = '60s'\n";
/// Worker settings that make a worker wait for a gateway that acknowledges no part of an answer for
/// seconds.
const PATIENT_WORKER: &str = "[worker]\nprogress_interval = '60s'\n";
/// An endpoint with a large answer and time limits above `ANSWERS_LIMIT`, so that only byte limits can be reached.
const PATIENT_ENDPOINT: &str = r#"{
  "patient": {
    "route": "GET /v1/patient", "procedure": "ledger.flow",
    "parameters": {
      "rows": { "in": "query", "type": "int32", "default": 10 },
      "pause_at": { "in": "query", "type": "int32", "default": 0 },
      "ms": { "in": "query", "type": "int32", "default": 0 },
      "fail_at": { "in": "query", "type": "int32", "default": 0 }
    },
    "result": "rows", "timeout": "15m", "session": "15m", "auth": "public"
  }
}"#;

/// The memory in use, in bytes.
#[derive(Clone, Copy, Debug)]
struct MemoryUse {
    /// The resident anonymous memory of the gateway. Pages of the executable file do not count, because the kernel
    /// loads them when code runs for the first time, and can drop them at any time.
    gateway: u64,
    /// The unsent data in the gateway's send buffers.
    unsent: u64,
    /// The memory of all TCP sockets of this machine (/proc/net/sockstat, see proc(5)).
    sockets: u64,
}

impl MemoryUse {
    fn now(gateway: &FjordProcess) -> Self {
        Self {
            gateway: status(gateway, "RssAnon"),
            unsent: unsent_data(gateway.https().port()).1,
            sockets: socket_bytes(),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            gateway: self.gateway.max(other.gateway),
            unsent: self.unsent.max(other.unsent),
            sockets: self.sockets.max(other.sockets),
        }
    }
}

fn socket_bytes() -> u64 {
    let text = fs::read_to_string("/proc/net/sockstat").expect("the file exists on Linux");
    let line =
        text.lines().find(|line| line.starts_with("TCP:")).expect("the file has the line TCP:");
    let pages: u64 =
        line.rsplit(' ').next().expect("the line has words").parse().expect("a number");
    pages * 4096
}

async fn measure(name: &str, session_keys: &str, attack: impl AsyncFnOnce(&Fleet)) {
    let gateway_toml = format!("{PATIENT_SESSION}{session_keys}");
    let catalogue = Some(("patient.json", PATIENT_ENDPOINT));
    // Both session settings must stay below the default timeout of an endpoint.
    let environment = ["FJORD_CATALOGUE__TIMEOUT_DEFAULT", "FJORD_LIFECYCLE__DRAIN_TIMEOUT"]
        .map(|name| (name, "15m".to_owned()))
        .to_vec();
    let options = FleetOptions {
        gateway_toml,
        worker_toml: PATIENT_WORKER.to_owned(),
        catalogue,
        environment,
        concurrency: 64,
        ..FleetOptions::default()
    };
    let fleet = Fleet::start(options).await;
    let gateway = &fleet.gateways[0];
    fleet.client().get("/v1/flow?rows=3000").await.is(200);
    // The kernel counts the FIN of a closed connection as unsent until the client has acknowledged it.
    eventually_some("the first connection is closed", SOON, async || {
        let connections = gateway.metric("fjord_gateway_connections ").await;
        (connections < 0.5 && unsent_data(gateway.https().port()) == (0, 0)).then_some(())
    })
    .await;
    reset_peak(gateway);
    let before = MemoryUse::now(gateway);
    let mut peak = before;
    let (mut attack, mut ticks) = (pin!(attack(&fleet)), interval(Duration::from_millis(20)));
    loop {
        tokio::select! {
            () = &mut attack => break,
            _ = ticks.tick() => peak = peak.max(MemoryUse::now(gateway)),
        }
    }
    // The kernel records only the peak of all resident memory.
    peak.gateway = status(gateway, "VmHWM").saturating_sub(status(gateway, "RssFile"));
    for_a_while(SETTLE_TIME).await;
    let after = MemoryUse::now(gateway);
    let in_kib = |of: fn(MemoryUse) -> u64| {
        [before, peak, after].map(|memory| (of(memory) / 1024).to_string()).join(" / ")
    };
    println!(
        "KIB {name}: gateway {}, unsent {}, all TCP sockets {}",
        in_kib(|memory| memory.gateway),
        in_kib(|memory| memory.unsent),
        in_kib(|memory| memory.sockets),
    );
    assert!(peak.gateway < before.gateway + GROWTH_BYTES_MAX, "{name}: {peak:?}");
    assert!(after.gateway < before.gateway + KEPT_BYTES_MAX, "{name}: {after:?}");
    assert_eq!(after.unsent, 0, "{name}");
    let reserved = gateway.metric("fjord_gateway_buffered_bytes ").await;
    assert!(reserved < 0.5, "{name}: {reserved} bytes are still reserved");
    fleet.client().get("/v1/echo/a").await.is(200);
}

/// Connects clients that request a large answer and read nothing. Waits until all are disconnected.
async fn attack_with_stalled_readers(fleet: &Fleet, clients: usize) {
    let gateway = &fleet.gateways[0];
    let port = gateway.https().port();
    let mut stalled = Vec::new();
    for _ in 0..clients {
        let mut client = RawClient::connect(gateway.https(), &fleet.certs, &["http/1.1"]).await;
        SockRef::from(client.tcp())
            .set_recv_buffer_size(4096)
            .expect("the socket option can be set");
        let request = "GET /v1/flow?rows=8192 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        client.send(request.as_bytes()).await.expect("the request is sent");
        stalled.push(client);
    }
    eventually_some("all connections are closed", Duration::from_mins(2), async || {
        // The number of connections is read first, because a connection that no longer counts must not have left data
        // in its send buffer.
        let connections = gateway.metric("fjord_gateway_connections ").await;
        let (sockets, _) = unsent_data(port);
        assert!(
            f64::from(u32::try_from(sockets).expect("the number fits u32")) < connections + 0.5,
            "{sockets} sockets have unsent data, {connections} connections are open"
        );
        (connections < 0.5).then_some(())
    })
    .await;
    assert_eq!(unsent_data(port), (0, 0));
}

/// Requests many large answers concurrently.
async fn request_many_answers(fleet: &Fleet, count: usize) {
    let client =
        fleet.client_with(ClientOptions { http: HttpVersion::Two, ..ClientOptions::default() });
    let tasks = Tasks::new();
    let answers: Vec<_> = (0..count)
        .map(|_| {
            let request = client.request(Method::GET, "/v1/patient?rows=4096");
            tasks.spawn(send(request.timeout(ANSWERS_LIMIT)))
        })
        .collect();
    for answer in answers {
        let status = answer.await.expect("the task ends").status.as_u16();
        assert!([200, 502, 503].contains(&status), "{status}");
    }
}

/// Session settings with which the gateway assembles each answer before it sends the first byte.
const ASSEMBLED: &str = "window_parts = 0\n";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make test-hostile"]
async fn long_memory_returns_after_stalled_readers_of_streamed_answers() {
    measure("40 stalled readers of 8 MiB, streamed", "", async |fleet| {
        attack_with_stalled_readers(fleet, 40).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make test-hostile"]
async fn long_memory_returns_after_stalled_readers_of_assembled_answers() {
    measure("40 stalled readers of 8 MiB, assembled", ASSEMBLED, async |fleet| {
        attack_with_stalled_readers(fleet, 40).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make test-hostile"]
async fn long_memory_returns_after_large_bodies() {
    measure("300 bodies of 0.9 MB on 3 connections", "", async |fleet| {
        send_large_bodies(fleet).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make test-hostile"]
async fn long_memory_returns_after_announced_bodies() {
    measure("200 announced bodies of 1 MB", "", async |fleet| {
        let _announced = announce_bodies(fleet, 200).await;
        wait_for_in_flight(&fleet.gateways[0], 200).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make test-hostile"]
async fn long_memory_returns_after_heads_of_streamed_answers() {
    measure("300 HEADs of 4 MiB, streamed", "", async |fleet| {
        send_heads(fleet, 300).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make test-hostile"]
async fn long_memory_returns_after_heads_of_assembled_answers() {
    measure("300 HEADs of 4 MiB, assembled", ASSEMBLED, async |fleet| {
        send_heads(fleet, 300).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make test-hostile"]
async fn long_memory_returns_after_many_streamed_answers() {
    measure("300 GETs of 4 MiB, streamed", "", async |fleet| {
        request_many_answers(fleet, 300).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make test-hostile"]
async fn long_memory_returns_after_many_assembled_answers() {
    measure("300 GETs of 4 MiB, assembled", ASSEMBLED, async |fleet| {
        request_many_answers(fleet, 300).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_readers_count_while_their_send_buffers_have_data() {
    let gateway_toml = "body_idle_timeout = '2s'\n".to_owned();
    let fleet = Fleet::start(FleetOptions { gateway_toml, ..FleetOptions::default() }).await;
    attack_with_stalled_readers(&fleet, 40).await;
    fleet.client().get("/v1/echo/a").await.is(200);
}
