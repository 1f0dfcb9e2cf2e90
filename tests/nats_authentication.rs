//! Promise: fjord can authenticate to NATS with every documented method. Without valid credentials, NATS rejects
//! it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::support::eventually::{SOON, eventually_some};
use super::support::fleet::{Fleet, FleetOptions};
use super::support::nats::NatsOptions;
use super::support::tokens;

/// An authentication method, with the configuration of the server and of fjord.
struct NatsAuthMethod {
    name: &'static str,
    nats: NatsOptions,
    keys: String,
    tls_keys: &'static str,
}

fn method(name: &'static str, extra: &str, keys: &str) -> NatsAuthMethod {
    let nats = NatsOptions { extra: extra.to_owned(), ..NatsOptions::default() };
    NatsAuthMethod { name, nats, keys: keys.to_owned(), tls_keys: "" }
}

/// Signs a JWT with an nkey, as NATS does (NATS ADR-14).
fn sign_jwt(issuer: &KeyPair, subject: &KeyPair, nats: &Value, expires: Option<u64>) -> String {
    let mut claims = json!({
        "jti": subject.public_key(), "iat": tokens::now(), "iss": issuer.public_key(), "sub": subject.public_key(),
        "name": "test", "nats": nats,
    });
    if let Some(expires) = expires {
        claims["exp"] = expires.into();
    }
    let header = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;
    let text = tokens::unsigned(header, &claims.to_string());
    let signature = issuer.sign(text.as_bytes()).expect("the key pair has a seed");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// An account on a server in operator mode, and one of its users.
struct Account {
    pair: KeyPair,
    user: KeyPair,
    server: String,
}

impl Account {
    fn new() -> Self {
        let (operator, pair) = (KeyPair::new_operator(), KeyPair::new_account());
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        });
        let of_operator =
            sign_jwt(&operator, &operator, &json!({"type": "operator", "version": 2}), None);
        let of_account = json!({"type": "account", "version": 2, "limits": limits});
        let of_account = sign_jwt(&operator, &pair, &of_account, None);
        let server = format!(
            "operator: {of_operator}\nresolver: MEMORY\nresolver_preload: {{ {}: {of_account} }}",
            pair.public_key(),
        );
        Self { pair, user: KeyPair::new_user(), server }
    }

    /// Atomically writes credentials of the user that are valid until `expires`.
    fn write(&self, file: &Path, expires: Option<u64>) {
        let of_user = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
        let of_user = sign_jwt(&self.pair, &self.user, &of_user, expires);
        let seed = self.user.seed().expect("a new key pair has a seed");
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let new = file.with_extension("new");
        fs::write(&new, text).expect("the file can be written");
        fs::rename(new, file).expect("the file is replaced");
    }
}

/// Returns the method that uses a credentials file. The server is in operator mode and has one account.
fn credentials(directory: &Path) -> NatsAuthMethod {
    let account = Account::new();
    let file = directory.join("fjord.creds");
    account.write(&file, None);
    method(
        "credentials file",
        &account.server,
        &format!("credentials_file = '{}'\n", file.display()),
    )
}

fn methods(directory: &Path) -> Vec<NatsAuthMethod> {
    let pair = KeyPair::new_user();
    let nkey = format!("authorization {{ users: [{{ nkey: {} }}] }}", pair.public_key());
    let seed = format!("nkey = '{}'\n", pair.seed().expect("a new key pair has a seed"));
    let plain = NatsOptions::default();
    vec![
        method(
            "user",
            "authorization { user: fjord, password: of-a-test }",
            "user = 'fjord'\npassword = 'of-a-test'\n",
        ),
        method("token", "authorization { token: of-a-test }", "token = 'of-a-test'\n"),
        method("nkey", &nkey, &seed),
        credentials(directory),
        NatsAuthMethod {
            name: "certificate",
            nats: NatsOptions { wants_client_certificates: true, ..plain.clone() },
            keys: String::new(),
            tls_keys: "certificate = '{certificate}'\nkey = '{key}'\n",
        },
        NatsAuthMethod {
            name: "TLS first",
            nats: NatsOptions { is_tls_first: true, ..plain },
            keys: "tls_first = true\n".to_owned(),
            tls_keys: "",
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_connects_only_with_valid_credentials() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for NatsAuthMethod { name, nats, keys, tls_keys } in methods(directory.path()) {
        println!("{name}");
        let options = FleetOptions {
            nats,
            nats_keys: keys,
            nats_tls_keys: tls_keys,
            ..FleetOptions::default()
        };
        let fleet = Fleet::start(options.clone()).await;
        fleet.client().get("/v1/echo/a").await.is(200);
        drop(fleet);
        let without = FleetOptions { nats_keys: String::new(), nats_tls_keys: "", ..options };
        let fleet = Fleet::start_without_waiting(without).await;
        for node in fleet.gateways.iter().chain(&fleet.workers) {
            let log = eventually_some(format!("{name}: the reason is logged"), SOON, async || {
                let log = node.process.log();
                let words =
                    ["authorization", "certificate", "tls", "handshake", "i/o error", "timed out"];
                let has_said = log.contains("connection to NATS") || log.contains("cannot connect");
                let why = log.to_lowercase();
                (has_said && words.iter().any(|word| why.contains(word))).then_some(log)
            })
            .await;
            assert!(!log.contains(r#""message":"connected to NATS""#), "{name}: it connected");
        }
    }
}

/// Waits until every process has reconnected and a request is served.
async fn wait_for_reconnect(what: &str, fleet: &Fleet, limit: Duration) {
    for node in fleet.gateways.iter().chain(&fleet.workers) {
        eventually_some(format!("{what}: {} reconnects", node.role()), limit, async || {
            let again = node.metric("fjord_nats_reconnects_total").await > 0.5;
            let is_connected = node.metric("fjord_nats_connected").await > 0.5;
            (again && is_connected).then_some(())
        })
        .await;
    }
    fleet.client().get("/v1/echo/a").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_user_jwt_is_used_when_the_old_one_expires() {
    const LIFE: u64 = 8;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (account, file) = (Account::new(), directory.path().join("fjord.creds"));
    let end = tokens::now() + LIFE;
    account.write(&file, Some(end));
    let nats = NatsOptions { extra: account.server.clone(), ..NatsOptions::default() };
    let nats_keys = format!("credentials_file = '{}'\n", file.display());
    let fleet = Fleet::start(FleetOptions { nats, nats_keys, ..FleetOptions::default() }).await;
    fleet.client().get("/v1/echo/a").await.is(200);
    assert!(tokens::now() < end, "the machine is too slow for this test");
    account.write(&file, None);
    wait_for_reconnect("a new JWT", &fleet, Duration::from_secs(LIFE) + SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_file_is_read_for_every_connection() {
    let (before, after) = (KeyPair::new_user(), KeyPair::new_user());
    let seed = |pair: &KeyPair| pair.seed().expect("a new key pair has a seed");
    let nkey = |pair: &KeyPair| format!("users: [{{ nkey: {} }}]", pair.public_key());
    let password = |word: &str| format!("user: fjord, password: {word}");
    let token = |word: &str| format!("token: {word}");
    let (one, two) = ("the-first-one".to_owned(), "the-second-one".to_owned());
    let methods = [
        ("password", "user = 'fjord'\n", [&one, &two], [password(&one), password(&two)]),
        ("token", "", [&one, &two], [token(&one), token(&two)]),
        ("nkey", "", [&seed(&before), &seed(&after)], [nkey(&before), nkey(&after)]),
    ];
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, keys, [first, second], [server_before, server_after]) in methods {
        let file = directory.path().join(name);
        fs::write(&file, first).expect("the file can be written");
        let extra = format!("authorization {{ {server_before} }}");
        let nats = NatsOptions { extra, ..NatsOptions::default() };
        let nats_keys = format!("{keys}{name}_file = '{}'\n", file.display());
        let options = FleetOptions { nats, nats_keys, ..FleetOptions::default() };
        let mut fleet = Fleet::start(options).await;
        fs::write(&file, second).expect("the file can be written");
        let server = &mut fleet.nats.servers[0];
        server.edit(&server_before, &server_after);
        server.reload().await;
        wait_for_reconnect(name, &fleet, SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_read_for_every_connection() {
    let options = FleetOptions {
        nats: NatsOptions { wants_client_certificates: true, ..NatsOptions::default() },
        nats_tls_keys: "certificate = '{certificate}'\nkey = '{key}'\n",
        ..FleetOptions::default()
    };
    let mut fleet = Fleet::start(options).await;
    let file = fleet.certs.client.certificate.clone();
    let good = fs::read(&file).expect("the certificate can be read");
    fs::write(&file, "").expect("the file can be written");
    fleet.nats.servers[0].restart().await;
    for node in fleet.gateways.iter().chain(&fleet.workers) {
        eventually_some("it cannot connect without a certificate", SOON, async || {
            node.process.log().contains("cannot connect to NATS").then_some(())
        })
        .await;
        assert!(node.metric("fjord_nats_connected").await < 0.5, "{}", node.role());
    }
    fs::write(&file, good).expect("the file can be written");
    wait_for_reconnect("the certificate is back", &fleet, SOON).await;
}
