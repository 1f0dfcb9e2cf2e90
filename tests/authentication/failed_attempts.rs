//! Failed authentications are limited per client address, and their access lines state the reason.

use std::time::Duration;

use serde_json::Value;

use crate::support::certs::{Leaf, PemFiles};
use crate::support::client::{Client, ClientOptions, HttpResponse, HttpVersion};
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::http2;
use crate::support::raw_client::RawClient;
use crate::support::tokens::{AUDIENCE, ISSUER, Signer, claims, jwks};

use super::HOUR;
use super::fixture::{file, hash};

/// The maximum number of failed attempts per client and minute. After a burst, the limit admits one every three
/// seconds.
const LIMIT: usize = 20;
/// The maximum number of concurrent streams of an HTTP/2 connection.
const STREAMS_MAX: usize = 100;
/// The time without data after which a read ends. It is longer than any pause between two responses.
const QUIET: Duration = Duration::from_secs(20);

const ENDPOINTS: &str = r#"{
    "guarded": { "route": "GET /v1/guarded", "queue": "echo", "handler": "echo", "timeout": "2s",
        "auth": { "methods": ["jwt", "api-key", "certificate"] } },
    "scoped": { "route": "GET /v1/scoped", "queue": "echo", "handler": "echo", "timeout": "2s",
        "auth": { "methods": ["jwt", "api-key", "certificate"], "scopes": ["write"] } } }"#;

/// A gateway that accepts one issuer, two API keys and one client certificate.
struct GuardedGateway {
    fleet: Fleet,
    signer: Signer,
    stranger: PemFiles,
}

impl GuardedGateway {
    async fn start(limit: usize, gateway_keys: &'static str) -> Self {
        let signer = Signer::p256("2026-11").unwrap();
        let keys = file(&jwks(&[&signer]).unwrap());
        let gateway_toml = format!(
            "auth_failures_per_minute_max = {limit}\n\
             [auth.jwt.main]\nissuer = '{ISSUER}'\naudiences = ['{AUDIENCE}']\nkeys = '{}'\n\
             [auth.api_keys.billing]\nsha256 = ['{}']\n\
             [auth.api_keys.former]\nsha256 = ['{}']\nexpires_at = '2020-01-01T00:00:00Z'\n\
             [auth.certificates.'dns:fjord-test']\nprincipal = 'clinic'\n",
            keys.path().display(),
            hash("billing-key"),
            hash("former-key"),
        );
        let fleet = Fleet::start(FleetOptions {
            catalogue: Some(("guarded.json", ENDPOINTS)),
            gateway_keys,
            gateway_tls_keys: "client_certificates = 'optional'\nclient_ca = '{ca}'",
            gateway_toml,
            ..FleetOptions::default()
        })
        .await;
        let leaf = Leaf { dns: &["stranger.example"], addresses: &[], ..Leaf::LOCAL };
        let stranger = fleet.certs.issue("stranger", leaf);
        Self { fleet, signer, stranger }
    }

    fn token(&self) -> String {
        self.signer.sign(&claims("anna", "", HOUR)).unwrap()
    }

    fn client(&self) -> Client {
        self.fleet.client_with(ClientOptions { http: HttpVersion::One, ..ClientOptions::default() })
    }

    fn client_of(&self, identity: &PemFiles) -> Client {
        let options = ClientOptions { http: HttpVersion::One, identity: Some(identity) };
        self.fleet.client_with(options)
    }

    /// Returns the access line of a request.
    async fn access_line(&self, answer: &HttpResponse) -> Value {
        let id = answer.header("x-request-id");
        eventually_some("the access line", SOON, async || {
            let log = self.fleet.gateways[0].process.log();
            let lines = log
                .lines()
                .filter_map(|access_line| serde_json::from_str::<Value>(access_line).ok());
            lines.into_iter().find(|access_line| {
                access_line["message"] == "request" && access_line["request_id"] == id
            })
        })
        .await
    }

    async fn metric(&self, name: &str) -> f64 {
        self.fleet.gateways[0].metric(name).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_line_has_the_reason_but_not_the_credential() {
    let guarded = GuardedGateway::start(600, "").await;
    let (client, token) = (guarded.client(), guarded.token());
    let other = guarded.signer.sign(&claims("bob", "", HOUR)).unwrap();
    let (signed, _) = token.rsplit_once('.').unwrap();
    let (_, signature) = other.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{signature}");
    let odd = Signer::p256("k\u{202e}\r\n\"admin\"").unwrap();
    let odd = odd.sign(&claims("anna", "", HOUR)).unwrap();
    let long = Signer::p256(&"k".repeat(4_000)).unwrap();
    let long = long.sign(&claims("anna", "", HOUR)).unwrap();
    let cut = format!("{}…", "k".repeat(64));
    let with = |name, value: &str| client.with_header(name, value);
    for (client, path, expected) in [
        (client.clone(), "guarded", ["no-credentials", "", "", "", ""]),
        (with("authorization", "Bearer a,b"), "guarded", ["malformed", "jwt", "", "", ""]),
        (with("authorization", "ApiKey "), "guarded", ["malformed", "api-key", "", "", ""]),
        (
            client.with_bearer(&token).with_header("x-api-key", "billing-key"),
            "guarded",
            ["ambiguous", "", "", "", ""],
        ),
        (client.with_bearer(&forged), "guarded", ["bad-signature", "jwt", "main", "2026-11", ""]),
        (client.with_bearer(&long), "guarded", ["unknown-key", "jwt", "main", &cut, ""]),
        (
            client.with_bearer(&odd),
            "guarded",
            ["unknown-key", "jwt", "main", r#"k\u{202e}\r\n\"admin\""#, ""],
        ),
        (with("x-api-key", "guess-7351"), "guarded", ["unknown-api-key", "api-key", "", "", ""]),
        (with("x-api-key", "former-key"), "guarded", ["expired", "api-key", "", "former", ""]),
        (
            guarded.client_of(&guarded.stranger),
            "guarded",
            ["unknown-certificate", "certificate", "", "dns:stranger.example", ""],
        ),
        (client.with_bearer(&token), "scoped", ["missing-scope", "jwt", "main", "", "anna"]),
        (
            with("x-api-key", "billing-key"),
            "scoped",
            ["missing-scope", "api-key", "", "", "billing"],
        ),
    ] {
        let answer = client.get(&format!("/v1/{path}")).await;
        answer.is(if expected[0] == "missing-scope" { 403 } else { 401 });
        let access_line = guarded.access_line(&answer).await;
        let found = ["auth_failure", "auth_method", "auth_issuer", "auth_key", "principal"]
            .map(|name| access_line[name].as_str().unwrap_or_default());
        assert_eq!(found, expected, "{access_line}");
    }
    let good = client.with_bearer(&token).get("/v1/guarded").await;
    good.is(200);
    let access_line = guarded.access_line(&good).await;
    assert_eq!(
        (access_line["principal"].as_str(), access_line.get("auth_failure")),
        (Some("anna"), None)
    );
    let logged = guarded.fleet.gateways[0].process.log();
    for secret in [token.as_str(), &forged, &odd, "guess-7351", "former-key", "billing-key"] {
        let secret = secret.rsplit('.').next().unwrap();
        assert!(!logged.contains(secret), "{secret} is in the log");
    }
}

/// Returns the statuses of consecutive HTTP/1.1 responses.
fn statuses(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    text.split("HTTP/1.1 ").skip(1).map(|answer| answer.chars().take(3).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_too_many_failures_gets_429_and_is_disconnected() {
    let guarded = GuardedGateway::start(LIMIT, "").await;
    let fleet = &guarded.fleet;
    let mut raw = RawClient::connect(fleet.gateways[0].https(), &fleet.certs, &["http/1.1"]).await;
    let one = "GET /v1/guarded HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer guess\r\n\r\n";
    // The gateway can close the connection before all requests are sent.
    drop(raw.send(one.repeat(1_000).as_bytes()).await);
    let (bytes, closed) = Box::pin(raw.read(QUIET)).await;
    let got = statuses(&bytes);
    assert!(closed, "{} responses, and the connection stays open", got.len());
    let refused = got.iter().filter(|status| *status == "401").count();
    assert!((LIMIT..LIMIT + 10).contains(&refused), "{got:?}");
    assert_eq!((got.len(), got.last().unwrap().as_str()), (refused + 1, "429"), "{got:?}");

    // The limit applies to every kind of failure.
    let (client, token) = (guarded.client(), guarded.token());
    for (client, path) in [
        (client.clone(), "/v1/guarded"),
        (client.with_bearer("a.b.c"), "/v1/guarded"),
        (client.with_header("x-api-key", "guess"), "/v1/guarded"),
        (guarded.client_of(&guarded.stranger), "/v1/guarded"),
        (client.with_bearer(&token), "/v1/scoped"),
    ] {
        let mut limited = 0;
        for _ in 0..3 {
            let answer = client.get(path).await;
            if answer.status == 429 {
                answer.is_problem(429, "rate-limited");
                assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
                assert_eq!(answer.header("connection"), "close");
                // The response contains a challenge even after the limit has been exceeded.
                let challenge = answer.header("www-authenticate");
                assert!(!challenge.is_empty(), "{path}");
                limited += 1;
            }
        }
        // One of the attempts may be allowed, because the limit admits one every three seconds.
        assert!(limited >= 2, "{path}: {limited} of 3");
    }
    // Valid credentials are accepted even after the limit has been exceeded, because clients can share an
    // address.
    client.with_bearer(&token).get("/v1/guarded").await.is(200);
    client.with_header("x-api-key", "billing-key").get("/v1/guarded").await.is(200);
    guarded.client_of(&fleet.certs.client).get("/v1/guarded").await.is(200);
    client.get("/v1/echo/1").await.is(200);

    assert!(guarded.metric("fjord_auth_failures_limited_total").await >= 11.0);
    let closed = r#"fjord_gateway_connections_refused_total{reason="auth_failures"}"#;
    assert!(guarded.metric(closed).await >= 11.0);
    let log = fleet.gateways[0].process.log();
    assert_eq!(log.matches("too many requests from a client failed authentication").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_client_with_too_many_failures_gets_goaway_and_is_disconnected_if_it_continues() {
    const HEADERS: u8 = 1;
    const GOAWAY: u8 = 7;
    const AT_ONCE: usize = 50;
    let guarded = GuardedGateway::start(LIMIT, "").await;
    let fleet = &guarded.fleet;
    let mut raw = RawClient::connect(fleet.gateways[0].https(), &fleet.certs, &["h2"]).await;
    raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // The HPACK encoding (RFC 7541) of GET https localhost /v1/guarded, with static table entries and literals.
    let head = b"\x82\x87\x01\x09localhost\x04\x0b/v1/guarded";
    let (mut bytes, mut closed, mut stream) = (Vec::new(), false, 1);
    for round in 1..=40 {
        let some = (0..AT_ONCE).flat_map(|_| {
            stream += 2;
            http2::frame(HEADERS, 0x05, stream - 2, head)
        });
        let is_sent = raw.send(&some.collect::<Vec<_>>()).await.is_ok();
        while !closed && http2::count(&bytes, HEADERS) < round * AT_ONCE {
            let (more, is_closed) = Box::pin(raw.read(Duration::from_millis(100))).await;
            // The client ignores GOAWAY and PING.
            bytes.extend(more);
            closed = is_closed;
        }
        if closed || !is_sent {
            break;
        }
    }
    let answers = http2::count(&bytes, HEADERS);
    assert!(closed, "{answers} responses, and the connection stays open");
    assert!(answers <= LIMIT + 10 + 3 * STREAMS_MAX, "{answers} responses");
    assert!(answers > LIMIT && http2::count(&bytes, GOAWAY) > 0, "{answers} responses, no GOAWAY");
    guarded.client().with_bearer(&guarded.token()).get("/v1/guarded").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_behind_a_trusted_proxy_have_their_own_limits() {
    let guarded = GuardedGateway::start(LIMIT, "trusted_proxies = ['127.0.0.0/8']\n").await;
    let from = |address: &str| guarded.client().with_header("x-forwarded-for", address);
    let mut limited = 0;
    let bad = from("203.0.113.7").with_bearer("a.b.c");
    for _ in 0..LIMIT + 10 {
        let answer = bad.get("/v1/guarded").await;
        assert_eq!(answer.header("connection"), "", "the proxy's connection stays open");
        limited += usize::from(answer.status == 429);
    }
    assert!((1..=10).contains(&limited), "{limited} were limited");
    from("203.0.113.8").get("/v1/guarded").await.is(401);
    let refused = r#"fjord_gateway_connections_refused_total{reason="auth_failures"}"#;
    assert!(guarded.metric(refused).await < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_network_is_one_client() {
    let guarded = GuardedGateway::start(LIMIT, "trusted_proxies = ['127.0.0.0/8']\n").await;
    let ask = async |address: String| {
        let client = guarded.client().with_header("x-forwarded-for", &address);
        client.with_bearer("a.b.c").get("/v1/guarded").await.status
    };
    let mut limited = 0;
    // By default, the first 56 bits of an IPv6 address identify a client.
    for subnet in 0..LIMIT + 10 {
        limited += usize::from(ask(format!("2001:db8:1:{subnet:x}::1")).await == 429);
    }
    assert!((1..=10).contains(&limited), "{limited} were limited");
    assert_eq!(ask("2001:db8:1:100::1".to_owned()).await, 401, "another network");
}
