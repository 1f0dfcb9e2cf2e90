//! What attacks by bytes take of a gateway and of the system: before, at the peak, and half a minute after.

use std::fs;
use std::pin::pin;
use std::time::Duration;

use fjord::lifecycle::Tasks;
use http::Method;
use socket2::SockRef;
use tokio::time::interval;

use super::bytes::{all_in_flight, announce, large_bodies};
use super::stalled::held;
use crate::large_answers::head_requests::send_heads;
use crate::large_answers::memory::{reset_peak, status};
use crate::support::client::{ClientOptions, Http, send};
use crate::support::eventually::{SOON, eventually_some, for_a_while};
use crate::support::fjord::{Fleet, FleetOptions, Node};
use crate::support::raw::RawClient;

const MIB: u64 = 1 << 20;
/// How long after an attack is looked again.
const REST: Duration = Duration::from_secs(30);
/// A client's share, and what is not counted.
const GROWTH_BYTES_MAX: u64 = 128 * MIB;
/// What an allocator keeps.
const KEPT_BYTES_MAX: u64 = 32 * MIB;
/// Longer than 300 answers of 4 MiB take a debug build on a busy machine.
const ANSWERS_LIMIT: Duration = Duration::from_mins(10);
/// The large answer of the ledger, with time limits that only `ANSWERS_LIMIT` can meet: bytes alone bound the attack.
const PATIENT: &str = r#"{
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

/// Bytes that are taken.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// What is resident of the gateway.
    gateway: u64,
    /// What the system has of its answers and may not send.
    unsent: u64,
    /// What the system holds for all TCP sockets of this machine (proc(5), /proc/net/sockstat).
    sockets: u64,
}

impl Taken {
    fn now(gateway: &Node) -> Self {
        Self {
            gateway: status(gateway, "VmRSS"),
            unsent: held(gateway.https().port()).1,
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
    let text = fs::read_to_string("/proc/net/sockstat").expect("Linux");
    let line = text.lines().find(|line| line.starts_with("TCP:")).expect("the line");
    let pages: u64 = line.rsplit(' ').next().expect("a word").parse().expect("a number");
    pages * 4096
}

async fn weigh(what: &str, gateway_toml: &str, attack: impl AsyncFnOnce(&Fleet)) {
    let gateway_toml = gateway_toml.to_owned();
    // All calls run side by side.
    let catalogue = Some(("patient.json", PATIENT));
    let options =
        FleetOptions { gateway_toml, catalogue, concurrency: 64, ..FleetOptions::default() };
    let fleet = Fleet::start(options).await;
    let gateway = &fleet.gateways[0];
    fleet.client().get("/v1/flow?rows=3000").await.is(200);
    // The system counts the FIN of a closed connection as unsent until the client has acknowledged it.
    eventually_some("the first connection is closed", SOON, async || {
        let connections = gateway.figure("fjord_gateway_connections ").await;
        (connections < 0.5 && held(gateway.https().port()) == (0, 0)).then_some(())
    })
    .await;
    reset_peak(gateway);
    let before = Taken::now(gateway);
    let mut peak = before;
    let (mut attack, mut ticks) = (pin!(attack(&fleet)), interval(Duration::from_millis(20)));
    loop {
        tokio::select! {
            () = &mut attack => break,
            _ = ticks.tick() => peak = peak.max(Taken::now(gateway)),
        }
    }
    peak.gateway = status(gateway, "VmHWM");
    for_a_while(REST).await;
    let after = Taken::now(gateway);
    let in_kib = |of: fn(Taken) -> u64| {
        [before, peak, after].map(|taken| (of(taken) / 1024).to_string()).join(" / ")
    };
    println!(
        "KIB {what}: gateway {}, unsent {}, all TCP sockets {}",
        in_kib(|taken| taken.gateway),
        in_kib(|taken| taken.unsent),
        in_kib(|taken| taken.sockets),
    );
    assert!(peak.gateway < before.gateway + GROWTH_BYTES_MAX, "{what}: {peak:?}");
    assert!(after.gateway < before.gateway + KEPT_BYTES_MAX, "{what}: {after:?}");
    assert_eq!(after.unsent, 0, "{what}");
    let held = gateway.figure("fjord_gateway_buffered_bytes ").await;
    assert!(held < 0.5, "{what}: {held} bytes count as held");
    fleet.client().get("/v1/echo/a").await.is(200);
}

/// Asks for a large answer so often, and reads none of any.
async fn stall(fleet: &Fleet, clients: usize) {
    let gateway = &fleet.gateways[0];
    let port = gateway.https().port();
    let mut stalled = Vec::new();
    for _ in 0..clients {
        let mut client = RawClient::connect(gateway.https(), &fleet.certs, &["http/1.1"]).await;
        SockRef::from(client.tcp()).set_recv_buffer_size(4096).expect("a socket");
        let request = "GET /v1/flow?rows=8192 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        client.send(request.as_bytes()).await.expect("it is taken");
        stalled.push(client);
    }
    eventually_some("all are given up", Duration::from_mins(2), async || {
        // In this order: what is given up now counts neither.
        let connections = gateway.figure("fjord_gateway_connections ").await;
        let (sockets, _) = held(port);
        assert!(
            f64::from(u32::try_from(sockets).expect("a few")) < connections + 0.5,
            "the system holds answers of {sockets} sockets, {connections} places are taken"
        );
        (connections < 0.5).then_some(())
    })
    .await;
    assert_eq!(held(port), (0, 0));
}

/// Asks for large answers, all of them at once.
async fn many_answers(fleet: &Fleet, count: usize) {
    let client = fleet.client_with(ClientOptions { http: Http::Two, ..ClientOptions::default() });
    let tasks = Tasks::new();
    let answers: Vec<_> = (0..count)
        .map(|_| {
            let request = client.request(Method::GET, "/v1/patient?rows=4096");
            tasks.spawn(send(request.timeout(ANSWERS_LIMIT)))
        })
        .collect();
    for answer in answers {
        let status = answer.await.expect("it ends").status.as_u16();
        assert!([200, 502, 503].contains(&status), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make test-hostile"]
async fn long_every_attack_by_bytes_gives_its_memory_back() {
    const WHOLE: &str = "[gateway.session]\nwindow_parts = 0\n";
    for (how, toml) in [("streamed", ""), ("put together", WHOLE)] {
        weigh(&format!("40 stalled readers of 8 MiB, {how}"), toml, async |fleet| {
            stall(fleet, 40).await;
        })
        .await;
    }
    weigh("300 bodies of 0.9 MB on 3 connections", "", async |fleet| {
        large_bodies(fleet).await;
    })
    .await;
    weigh("200 announced bodies of 1 MB", "", async |fleet| {
        let _announced = announce(fleet, 200).await;
        all_in_flight(&fleet.gateways[0], 200).await;
    })
    .await;
    for (how, toml) in [("streamed", ""), ("put together", WHOLE)] {
        weigh(&format!("300 HEADs of 4 MiB, {how}"), toml, async |fleet| {
            send_heads(fleet, 300).await;
        })
        .await;
        weigh(&format!("300 GETs of 4 MiB, {how}"), toml, async |fleet| {
            many_answers(fleet, 300).await;
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_places_of_stalled_readers_are_free_when_the_system_holds_nothing() {
    let gateway_toml = "body_idle_timeout = '2s'\n".to_owned();
    let fleet = Fleet::start(FleetOptions { gateway_toml, ..FleetOptions::default() }).await;
    stall(&fleet, 40).await;
    fleet.client().get("/v1/echo/a").await.is(200);
}
