//! A gateway fetches the keys that an issuer publishes at a URL, caches them, and fetches new ones.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::foreign_workers::python;
use crate::support::certs::{Certs, Leaf};
use crate::support::client::{HttpResponse, get_json, get_text};
use crate::support::eventually::{SOON, TICK, eventually, eventually_some};
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::ports;
use crate::support::process::Process;
use crate::support::tokens::{self, AUDIENCE, ISSUER, Signer, claims, jwks};

use super::HOUR;

mod discovery;

const ENDPOINT: &str = r#"{ "guarded": { "route": "GET /v1/guarded", "queue": "echo", "handler": "echo", "timeout": "2s",
    "auth": { "methods": ["jwt"] } } }"#;

/// An HTTPS server that serves a JWK set.
struct KeyServer {
    home: TempDir,
    certs: Certs,
    port: u16,
    process: Process,
}

impl KeyServer {
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
        let mut command = python("python_issuer.py");
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

    async fn restart(&mut self) {
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

    /// Starts a fleet whose gateway accepts tokens from this issuer.
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

/// Starts a fleet whose gateway has additional configuration lines. Does not wait for the gateway.
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

async fn get_guarded(fleet: &Fleet, signer: &Signer) -> HttpResponse {
    let token = signer.sign(&claims("alice", "", HOUR)).unwrap();
    fleet.client().with_bearer(&token).get("/v1/guarded").await
}

async fn fetched(fleet: &Fleet, result: &str) -> f64 {
    let figure = format!(r#"fjord_auth_key_fetches_total{{issuer="main",result="{result}"}}"#);
    fleet.gateways[0].metric(&figure).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_fetched_at_once_and_unknown_keys_are_fetched_rarely() {
    let (first, second) = (Signer::p256("first").unwrap(), Signer::ed25519("second").unwrap());
    let issuer = KeyServer::start(&keys(&[&first])).await;
    let mut fleet = issuer.fleet().await;
    fleet.gateways[0].ready().await;
    get_guarded(&fleet, &first).await.is(200);
    assert_eq!(issuer.fetches(), 1);
    issuer.publish(&keys(&[&second]));
    get_guarded(&fleet, &second).await.is(200);
    get_guarded(&fleet, &first).await.is(401);
    for number in 0..20 {
        let stranger = Signer::p256(&format!("stranger {number}")).unwrap();
        get_guarded(&fleet, &stranger).await.is_problem(401, "unauthenticated");
    }
    assert_eq!(issuer.fetches(), 2, "one fetch per keys_cooldown");
    assert!((fetched(&fleet, "ok").await - 2.0).abs() < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn known_keys_stay_valid_while_the_issuer_is_down() {
    let signer = Signer::p256("key").unwrap();
    let mut issuer = KeyServer::start(&keys(&[&signer])).await;
    let mut fleet = issuer.fleet().await;
    fleet.gateways[0].ready().await;
    issuer.process.kill();
    get_guarded(&fleet, &signer).await.is(200);
    fleet.gateways[0].process.signal(Signal::HUP);
    let reloads = r#"fjord_config_reloads_total{result="ok"}"#;
    eventually_some("the configuration is reloaded", SOON, async || {
        (fleet.gateways[0].metric(reloads).await > 0.5).then_some(())
    })
    .await;
    get_guarded(&fleet, &signer).await.is(200);

    fleet.gateways[0].restart();
    let admin = eventually_some("the gateway listens", SOON, async || {
        let text = fleet.gateways[0].process.log();
        text.contains(r#""part":"https""#).then(|| fleet.gateways[0].admin())
    })
    .await;
    eventually_some("a fetch has failed", SOON, async || {
        (fetched(&fleet, "failed").await > 0.5).then_some(())
    })
    .await;
    let ready = get_text(&format!("http://{admin}/readyz")).await;
    assert_eq!(ready, None, "the gateway is not ready");
    let response = get_guarded(&fleet, &signer).await;
    assert_eq!(response.is_problem(503, "not-executed")["effect"], "not-executed");
    assert_eq!(response.header("retry-after"), "5");

    issuer.restart().await;
    fleet.gateways[0].ready().await;
    get_guarded(&fleet, &signer).await.is(200);
    assert!(get_json(&format!("http://{admin}/status")).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_key_set_changes_nothing() {
    let signer = Signer::p256("key").unwrap();
    let issuer = KeyServer::start(&keys(&[&signer])).await;
    let config = issuer.config(&issuer.certs.ca);
    let mut fleet = fleet(config.replace("keys_cooldown = '1h'", "keys_cooldown = '1s'")).await;
    fleet.gateways[0].ready().await;
    let stranger = Signer::p256("stranger").unwrap();
    let secret = r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "x"}]}"#;
    for bad in ["<html>sign in</html>", secret, &" ".repeat(2 << 20)] {
        issuer.publish(bad);
        // A new gateway gets no keys from this server. The running gateway keeps its keys.
        let before = fetched(&fleet, "failed").await;
        let other = fleet.add_gateway();
        let figure = r#"fjord_auth_key_fetches_total{issuer="main",result="failed"}"#;
        eventually_some("the gateway rejects the keys", Duration::from_secs(30), async || {
            let listens = other.process.log().contains(r#""part":"https""#);
            (listens && other.metric(figure).await > 0.5).then_some(())
        })
        .await;
        assert!(!other.process.log().contains("c2VjcmV0"), "no key is logged");
        eventually_some("the running gateway rejects them as well", SOON, async || {
            // An unknown key makes the gateway fetch the keys.
            get_guarded(&fleet, &stranger).await.is(401);
            (fetched(&fleet, "failed").await > before).then_some(())
        })
        .await;
        get_guarded(&fleet, &signer).await.is(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_with_an_untrusted_certificate_is_not_used() {
    let signer = Signer::p256("key").unwrap();
    let issuer = KeyServer::start(&keys(&[&signer])).await;
    let other = Certs::new(&issuer.home.path().join("other"));
    let options = FleetOptions {
        gateway_toml: issuer.config(&other.ca),
        catalogue: Some(("guarded.json", ENDPOINT)),
        ..FleetOptions::default()
    };
    let fleet = Fleet::start_without_waiting(options).await;
    eventually_some("the gateway rejects the issuer", Duration::from_secs(30), async || {
        let log = fleet.gateways[0].process.log();
        (log.contains("cannot fetch the keys of an issuer") && log.contains("certificate"))
            .then_some(())
    })
    .await;
    assert_eq!(issuer.fetches(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_applies_the_issuers_new_authority() {
    let signer = Signer::p256("key").unwrap();
    let mut issuer = KeyServer::start(&keys(&[&signer])).await;
    let mut fleet = issuer.fleet().await;
    fleet.gateways[0].ready().await;
    // The issuer gets a certificate from another authority. That authority's certificate replaces
    // the gateway's CA file.
    let other = Certs::new(&issuer.home.path().join("other"));
    fs::copy(&other.ca, &issuer.certs.ca).unwrap();
    fs::copy(&other.server.certificate, &issuer.certs.server.certificate).unwrap();
    fs::copy(&other.server.key, &issuer.certs.server.key).unwrap();
    issuer.process.kill();
    issuer.restart().await;
    let next = Signer::p256("next").unwrap();
    issuer.publish(&keys(&[&next]));
    fleet.gateways[0].process.signal(Signal::HUP);
    eventually_some("the new key is accepted", SOON, async || {
        (get_guarded(&fleet, &next).await.status == 200).then_some(())
    })
    .await;
}
