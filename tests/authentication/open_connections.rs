//! An open connection loses the access of its client certificate when the certificate expires, or
//! with the first request after a reload that revokes the access.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use fjord::lifecycle::Tasks;
use h2::client::SendRequest;
use http::{Request, Version};
use rustix::process::Signal;

use crate::support::certs::{Certs, Leaf, PemFiles};
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::raw_client::RawClient;

const ENDPOINTS: &str = r#"{ "guarded": { "route": "GET /v1/guarded", "queue": "echo", "handler": "echo", "timeout": "2s",
    "auth": { "methods": ["certificate"] } } }"#;
const GUARDED: &str = "/v1/guarded";
const PUBLIC: &str = "/v1/echo/1";

/// A client with a single connection, which it never reopens.
enum SingleConnection {
    One(Box<RawClient>),
    Two(SendRequest<Bytes>),
}

impl SingleConnection {
    async fn open(fleet: &Fleet, protocol: &str, identity: Option<&PemFiles>) -> Self {
        let gateway = fleet.gateways[0].https();
        let raw = RawClient::connect_as(gateway, &fleet.certs, &[protocol], identity).await;
        if protocol == "http/1.1" {
            return Self::One(Box::new(raw));
        }
        let (sender, connection) = h2::client::handshake(raw.into_stream()).await.unwrap();
        drop(Tasks::new().spawn(connection));
        Self::Two(sender)
    }

    /// Sends a GET request. Returns the response's status, or `None` if the connection is closed.
    async fn get(&mut self, path: &str) -> Option<u16> {
        match self {
            Self::One(raw) => {
                let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                raw.send(request.as_bytes()).await.ok()?;
                let mut answer = String::new();
                loop {
                    let (bytes, closed) = Box::pin(raw.read(Duration::from_millis(20))).await;
                    answer.push_str(&String::from_utf8_lossy(&bytes));
                    // The body is small enough to arrive together with the head.
                    if let Some(status) = answer.get(9..12) {
                        return status.parse().ok();
                    }
                    if closed {
                        return None;
                    }
                }
            }
            Self::Two(sender) => {
                let mut sender = sender.clone().ready().await.ok()?;
                let request = Request::get(format!("https://localhost{path}"));
                let request = request.version(Version::HTTP_2).body(()).unwrap();
                let (answer, _) = sender.send_request(request, true).ok()?;
                Some(answer.await.ok()?.status().as_u16())
            }
        }
    }

    /// Sends requests until the connection is closed, and asserts that every response before that is a 401.
    async fn wait_until_closed(&mut self, what: &str) {
        eventually_some(format!("{what}: the end of the connection"), SOON, async || {
            let status = self.get(PUBLIC).await;
            assert!(matches!(status, None | Some(401)), "{what}: {status:?}");
            status.is_none().then_some(())
        })
        .await;
    }
}

/// A gateway that trusts two client authorities.
struct MutualTlsGateway {
    fleet: Fleet,
    other: Certs,
}

impl MutualTlsGateway {
    async fn start() -> Self {
        let mut fleet = Fleet::start(FleetOptions {
            gateways: 0,
            catalogue: Some(("guarded.json", ENDPOINTS)),
            gateway_tls_keys: "client_certificates = 'optional'\nclient_ca = '../certs/clients.pem'",
            gateway_toml: "[auth.certificates.'dns:fjord-test']\nprincipal = 'clinic'\n".to_owned(),
            ..FleetOptions::default()
        })
        .await;
        let other = Certs::new(&fleet.certs.ca.with_file_name("other"));
        let guarded = [&fleet.certs.ca, &other.ca];
        write_authorities(&fleet, &guarded.map(|ca| fs::read_to_string(ca).unwrap()));
        fleet.add_gateway().ready().await;
        Self { fleet, other }
    }

    async fn metric(&self, name: &str) -> f64 {
        self.fleet.gateways[0].metric(name).await
    }

    /// Reloads the gateway. Waits until both the configuration and the TLS files are in use.
    async fn reload(&mut self) {
        let reloads = r#"fjord_tls_reloads_total{result="ok"}"#;
        let before = self.metric(reloads).await;
        self.fleet.gateways[0].process.signal(Signal::HUP);
        eventually_some("the reload", SOON, async || {
            (self.metric(reloads).await > before).then_some(())
        })
        .await;
    }

    /// Edits the gateway's configuration file.
    fn edit(&self, from: &str, to: &str) {
        let file = self.fleet.gateways[0].directory().join("gateway.toml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&file, text.replace(from, to)).unwrap();
    }
}

fn write_authorities(fleet: &Fleet, authorities: &[String]) {
    let file = fleet.certs.ca.with_file_name("clients.pem");
    fs::write(file, authorities.concat()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_an_authority_closes_only_the_connections_of_its_clients() {
    let mut guarded = MutualTlsGateway::start().await;
    let mut connections = Vec::new();
    for protocol in ["http/1.1", "h2"] {
        let (fleet, other) = (&guarded.fleet, &guarded.other);
        for (who, identity) in
            [("removed", Some(&fleet.certs.client)), ("kept", Some(&other.client)), ("none", None)]
        {
            let connection = SingleConnection::open(fleet, protocol, identity).await;
            connections.push((format!("{who} {protocol}"), who, connection));
        }
    }
    // A reload with the same authorities closes no connection.
    for reload in [false, true] {
        if reload {
            guarded.reload().await;
        }
        for (case, who, connection) in &mut connections {
            let expected = if *who == "none" { 401 } else { 200 };
            assert_eq!(connection.get(GUARDED).await, Some(expected), "{case}");
            assert_eq!(connection.get(PUBLIC).await, Some(200), "{case}");
        }
    }
    write_authorities(&guarded.fleet, &[fs::read_to_string(&guarded.other.ca).unwrap()]);
    guarded.reload().await;
    for (case, who, connection) in &mut connections {
        match *who {
            // Requests to public endpoints are refused too, because a new handshake would fail.
            "removed" => {
                assert_eq!(connection.get(PUBLIC).await, Some(401), "{case}");
                connection.wait_until_closed(case).await;
            }
            "kept" => assert_eq!(connection.get(GUARDED).await, Some(200), "{case}"),
            _ => assert_eq!(connection.get(PUBLIC).await, Some(200), "{case}"),
        }
    }
    let ended = r#"fjord_gateway_connections_refused_total{reason="client_certificate"}"#;
    assert!((guarded.metric(ended).await - 2.0).abs() < 0.5, "two connections ended");
    let failed = r#"fjord_auth_failures_total{endpoint="none",reason="untrusted-certificate"}"#;
    assert!(guarded.metric(failed).await >= 2.0);
    let log = guarded.fleet.gateways[0].process.log();
    let reason = r#""auth_failure":"untrusted-certificate","auth_method":"certificate","auth_key":"dns:fjord-test""#;
    assert!(log.contains(reason), "the access line says why");
    assert_eq!(log.matches("closing a connection that a new handshake would refuse").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_authorities_and_mappings_apply_to_the_next_request() {
    let mut guarded = MutualTlsGateway::start().await;
    let identity = guarded.fleet.certs.client.clone();
    for (protocol, principal) in [("http/1.1", "hospital"), ("h2", "surgery")] {
        let mut connection =
            SingleConnection::open(&guarded.fleet, protocol, Some(&identity)).await;
        assert_eq!(connection.get(GUARDED).await, Some(200), "{protocol}");
        let before = if principal == "hospital" { "clinic" } else { "hospital" };
        guarded.edit(&format!("principal = '{before}'"), &format!("principal = '{principal}'"));
        guarded.reload().await;
        assert_eq!(connection.get(GUARDED).await, Some(200), "{protocol}");
        let reason = format!(r#""principal":"{principal}""#);
        eventually_some("the access line", SOON, async || {
            guarded.fleet.gateways[0].process.log().contains(&reason).then_some(())
        })
        .await;
        guarded.edit("'dns:fjord-test'", "'dns:nobody'");
        guarded.reload().await;
        assert_eq!(connection.get(GUARDED).await, Some(401), "{protocol}");
        assert_eq!(
            connection.get(PUBLIC).await,
            Some(200),
            "{protocol}: the connection stays open"
        );
        guarded.edit("'dns:nobody'", "'dns:fjord-test'");
        guarded.edit("../certs/clients.pem", "../certs/other/ca.pem");
        guarded.reload().await;
        assert_eq!(connection.get(GUARDED).await, Some(401), "{protocol}");
        connection.wait_until_closed(protocol).await;
        guarded.edit("../certs/other/ca.pem", "../certs/clients.pem");
        guarded.reload().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_mapping_is_not_applied_without_its_authorities() {
    let mut guarded = MutualTlsGateway::start().await;
    let identity = guarded.fleet.certs.client.clone();
    let mut connection = SingleConnection::open(&guarded.fleet, "http/1.1", Some(&identity)).await;
    guarded.edit("'dns:fjord-test'", "'dns:nobody'");
    guarded.reload().await;
    assert_eq!(connection.get(GUARDED).await, Some(401));
    guarded.edit("'dns:nobody'", "'dns:fjord-test'");
    let broken = guarded.fleet.certs.ca.with_file_name("broken.pem");
    fs::write(broken, "rubbish").unwrap();
    guarded.edit("../certs/clients.pem", "../certs/broken.pem");
    for figure in ["fjord_tls_reloads_total", "fjord_config_reloads_total"] {
        let figure = format!(r#"{figure}{{result="failed"}}"#);
        let before = guarded.metric(&figure).await;
        guarded.fleet.gateways[0].process.signal(Signal::HUP);
        eventually_some("the log line of the failed reload", SOON, async || {
            (guarded.metric(&figure).await > before).then_some(())
        })
        .await;
        assert_eq!(connection.get(GUARDED).await, Some(401), "the mapping is unchanged");
    }
    guarded.edit("../certs/broken.pem", "../certs/clients.pem");
    guarded.reload().await;
    assert_eq!(connection.get(GUARDED).await, Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_mode_applies_to_the_next_request() {
    let mut guarded = MutualTlsGateway::start().await;
    let identity = guarded.fleet.certs.client.clone();
    for protocol in ["http/1.1", "h2"] {
        let mut with = SingleConnection::open(&guarded.fleet, protocol, Some(&identity)).await;
        let mut without = SingleConnection::open(&guarded.fleet, protocol, None).await;
        guarded.edit("client_certificates = 'optional'", "client_certificates = 'off'");
        guarded.edit("client_ca = '../certs/clients.pem'", "");
        guarded.reload().await;
        for connection in [&mut with, &mut without] {
            assert_eq!(connection.get(PUBLIC).await, Some(200), "{protocol}");
            assert_eq!(connection.get(GUARDED).await, Some(401), "{protocol}: no principal");
        }
        guarded.edit(
            "client_certificates = 'off'",
            "client_certificates = 'required'\nclient_ca = '../certs/clients.pem'",
        );
        guarded.reload().await;
        assert_eq!(with.get(GUARDED).await, Some(200), "{protocol}");
        assert_eq!(without.get(PUBLIC).await, Some(401), "{protocol}");
        without.wait_until_closed(protocol).await;
        guarded.edit("client_certificates = 'required'", "client_certificates = 'optional'");
        guarded.reload().await;
    }
    let failed = r#"fjord_auth_failures_total{endpoint="none",reason="missing-certificate"}"#;
    assert!(guarded.metric(failed).await >= 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_closes_its_connection() {
    let guarded = MutualTlsGateway::start().await;
    let fleet = &guarded.fleet;
    for protocol in ["http/1.1", "h2"] {
        let lifetime = Some(Duration::from_secs(3));
        let leaf = Leaf { dns: &["fjord-test"], addresses: &[], lifetime, ..Leaf::LOCAL };
        let short = fleet.certs.issue("short", leaf);
        let mut connection = SingleConnection::open(fleet, protocol, Some(&short)).await;
        assert_eq!(connection.get(GUARDED).await, Some(200), "{protocol}");
        eventually_some("the certificate has expired", SOON, async || {
            let status = connection.get(GUARDED).await;
            assert!(matches!(status, Some(200 | 401)), "{protocol}: {status:?}");
            (status == Some(401)).then_some(())
        })
        .await;
        connection.wait_until_closed(protocol).await;
    }
    let failed = r#"fjord_auth_failures_total{endpoint="none",reason="expired-certificate"}"#;
    assert!(guarded.metric(failed).await >= 2.0);
}
