//! An issuer that publishes its keys at a URL: a gateway fetches them, keeps them, and notices new ones.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::foreign_workers::python;
use crate::support::certs::{Certs, Leaf};
use crate::support::client::{Answer, get_json, get_text};
use crate::support::eventually::{SOON, TICK, eventually, eventually_some};
use crate::support::fjord::{Fleet, FleetOptions};
use crate::support::ports;
use crate::support::process::Process;
use crate::support::tokens::{AUDIENCE, ISSUER, Signer, claims, jwks};

use super::{HOUR, tokens};

mod discovery;

const ENDPOINT: &str = r#"{ "guarded": { "route": "GET /v1/guarded", "queue": "echo", "handler": "echo", "timeout": "2s",
    "auth": { "methods": ["jwt"] } } }"#;

/// An HTTPS server with a file of keys.
struct Issuer {
    home: TempDir,
    certs: Certs,
    port: u16,
    process: Process,
}

impl Issuer {
    async fn start(keys: &str) -> Self {
        Self::start_with(keys, true).await
    }

    async fn start_with(keys: &str, has_tls: bool) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut certs = Certs::new(&home.path().join("certs"));
        certs.issue("server", Leaf::LOCAL);
        if !has_tls {
            certs.server.certificate = "-".into();
        }
        fs::write(home.path().join("jwks.json"), keys).unwrap();
        let port = ports::pick();
        let process = Self::process(&home, &certs, port).await;
        Self { home, certs, port, process }
    }

    async fn process(home: &TempDir, certs: &Certs, port: u16) -> Process {
        let mut command = python("issuer.py");
        command.arg(port.to_string()).arg(&certs.server.certificate).arg(&certs.server.key);
        command.arg(home.path().join("jwks.json"));
        let mut process = Process::start("issuer", command, &home.path().join("issuer.log"));
        eventually(SOON, TICK, || {
            assert!(process.is_running(), "{}", process.log());
            process.log().contains("ready")
        })
        .await;
        process
    }

    async fn start_again(&mut self) {
        self.process = Self::process(&self.home, &self.certs, self.port).await;
    }

    fn publish(&self, keys: &str) {
        let new = self.home.path().join("new.json");
        fs::write(&new, keys).unwrap();
        fs::rename(new, self.home.path().join("jwks.json")).unwrap();
    }

    fn fetches(&self) -> usize {
        self.process.log().matches("fetched").count()
    }

    /// A fleet whose gateway believes it.
    async fn fleet(&self) -> Fleet {
        fleet(self.config(&self.certs.ca)).await
    }

    fn config(&self, ca: &Path) -> String {
        format!(
            "[auth.jwt.main]\nkeys_url = 'https://localhost:{}/jwks.json'\nkeys_url_ca = '{}'\n\
             issuer = '{ISSUER}'\naudiences = ['{AUDIENCE}']\nkeys_refresh = '1h'\nkeys_cooldown = '1h'\n",
            self.port,
            ca.display(),
        )
    }
}

/// A fleet whose gateway has these lines, and may not be ready yet.
async fn fleet(gateway_toml: String) -> Fleet {
    let catalogue = Some(("guarded.json", ENDPOINT));
    let options = FleetOptions { catalogue, gateway_toml, ..FleetOptions::default() };
    let mut fleet = Fleet::start_without_waiting(options).await;
    fleet.workers[0].ready().await;
    fleet
}

fn keys(signers: &[&Signer]) -> String {
    jwks(signers).unwrap()
}

async fn ask(fleet: &Fleet, signer: &Signer) -> Answer {
    let token = signer.sign(&claims("alice", "", HOUR)).unwrap();
    fleet.client().with_bearer(&token).get("/v1/guarded").await
}

async fn fetched(fleet: &Fleet, result: &str) -> f64 {
    let figure = format!(r#"fjord_auth_key_fetches_total{{issuer="main",result="{result}"}}"#);
    fleet.gateways[0].figure(&figure).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_counts_at_once_and_strange_ones_make_no_flood() {
    let (first, second) = (Signer::p256("first").unwrap(), Signer::ed25519("second").unwrap());
    let issuer = Issuer::start(&keys(&[&first])).await;
    let mut fleet = issuer.fleet().await;
    fleet.gateways[0].ready().await;
    ask(&fleet, &first).await.is(200);
    assert_eq!(issuer.fetches(), 1);
    issuer.publish(&keys(&[&second]));
    ask(&fleet, &second).await.is(200);
    ask(&fleet, &first).await.is(401);
    for number in 0..20 {
        let stranger = Signer::p256(&format!("stranger {number}")).unwrap();
        ask(&fleet, &stranger).await.is_problem(401, "unauthenticated");
    }
    assert_eq!(issuer.fetches(), 2, "one look in keys_cooldown");
    assert!((fetched(&fleet, "ok").await - 2.0).abs() < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_away_locks_nobody_out_who_was_let_in_before() {
    let signer = Signer::p256("key").unwrap();
    let mut issuer = Issuer::start(&keys(&[&signer])).await;
    let mut fleet = issuer.fleet().await;
    fleet.gateways[0].ready().await;
    issuer.process.kill();
    ask(&fleet, &signer).await.is(200);
    fleet.gateways[0].process.signal(Signal::HUP);
    let reloads = r#"fjord_config_reloads_total{result="ok"}"#;
    eventually_some("the configuration is taken again", SOON, async || {
        (fleet.gateways[0].figure(reloads).await > 0.5).then_some(())
    })
    .await;
    ask(&fleet, &signer).await.is(200);

    fleet.gateways[0].restart();
    let admin = eventually_some("it listens", SOON, async || {
        let text = fleet.gateways[0].process.log();
        text.contains(r#""part":"https""#).then(|| fleet.gateways[0].admin())
    })
    .await;
    eventually_some("a fetch has failed", SOON, async || {
        (fetched(&fleet, "failed").await > 0.5).then_some(())
    })
    .await;
    let ready = get_text(&format!("http://{admin}/readyz")).await;
    assert_eq!(ready, None, "it is not ready");
    let said = ask(&fleet, &signer).await;
    assert_eq!(said.is_problem(503, "not-executed")["effect"], "not-executed");
    assert_eq!(said.header("retry-after"), "5");

    issuer.start_again().await;
    fleet.gateways[0].ready().await;
    ask(&fleet, &signer).await.is(200);
    assert!(get_json(&format!("http://{admin}/status")).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_set_of_keys_changes_nothing() {
    let signer = Signer::p256("key").unwrap();
    let issuer = Issuer::start(&keys(&[&signer])).await;
    let mut fleet = issuer.fleet().await;
    fleet.gateways[0].ready().await;
    let secret = r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "x"}]}"#;
    for bad in ["<html>sign in</html>", secret, &" ".repeat(2 << 20)] {
        issuer.publish(bad);
        // A gateway that starts takes nothing of it; the one that runs keeps what it has.
        let before = fetched(&fleet, "failed").await;
        let other = fleet.add_gateway();
        let figure = r#"fjord_auth_key_fetches_total{issuer="main",result="failed"}"#;
        eventually_some("it refuses the keys", Duration::from_secs(30), async || {
            let listens = other.process.log().contains(r#""part":"https""#);
            (listens && other.figure(figure).await > 0.5).then_some(())
        })
        .await;
        assert!(!other.process.log().contains("c2VjcmV0"), "no key is logged");
        ask(&fleet, &signer).await.is(200);
        assert!(fetched(&fleet, "failed").await >= before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_with_another_certificate_is_not_believed() {
    let signer = Signer::p256("key").unwrap();
    let issuer = Issuer::start(&keys(&[&signer])).await;
    let other = Certs::new(&issuer.home.path().join("other"));
    let options = FleetOptions {
        gateway_toml: issuer.config(&other.ca),
        catalogue: Some(("guarded.json", ENDPOINT)),
        ..FleetOptions::default()
    };
    let fleet = Fleet::start_without_waiting(options).await;
    eventually_some("it refuses the issuer", Duration::from_secs(30), async || {
        let log = fleet.gateways[0].process.log();
        (log.contains("the issuer's keys cannot be fetched") && log.contains("certificate"))
            .then_some(())
    })
    .await;
    assert_eq!(issuer.fetches(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_the_issuers_new_authority() {
    let signer = Signer::p256("key").unwrap();
    let mut issuer = Issuer::start(&keys(&[&signer])).await;
    let mut fleet = issuer.fleet().await;
    fleet.gateways[0].ready().await;
    // The issuer has a certificate of another authority, and the file of the gateway has that one.
    let other = Certs::new(&issuer.home.path().join("other"));
    fs::copy(&other.ca, &issuer.certs.ca).unwrap();
    fs::copy(&other.server.certificate, &issuer.certs.server.certificate).unwrap();
    fs::copy(&other.server.key, &issuer.certs.server.key).unwrap();
    issuer.process.kill();
    issuer.start_again().await;
    let next = Signer::p256("next").unwrap();
    issuer.publish(&keys(&[&next]));
    fleet.gateways[0].process.signal(Signal::HUP);
    eventually_some("the new key counts", SOON, async || {
        (ask(&fleet, &next).await.status == 200).then_some(())
    })
    .await;
}
