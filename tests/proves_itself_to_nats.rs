//! Promise: fjord proves who it is to NATS in every way that it says, and is not let in without.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::support::eventually::{SOON, eventually_some};
use super::support::fjord::{Fleet, FleetOptions};
use super::support::nats::NatsOptions;
use super::support::tokens;

/// A way: what the server demands, and what fjord's configuration says.
struct Way {
    name: &'static str,
    nats: NatsOptions,
    keys: String,
    tls_keys: &'static str,
}

fn way(name: &'static str, extra: &str, keys: &str) -> Way {
    let nats = NatsOptions { extra: extra.to_owned(), ..NatsOptions::default() };
    Way { name, nats, keys: keys.to_owned(), tls_keys: "" }
}

/// A statement of one identity about another, as NATS signs them: a JWT with an nkey (NATS ADR-14).
fn statement(issuer: &KeyPair, about: &KeyPair, nats: &Value) -> String {
    let claims = json!({
        "jti": about.public_key(), "iat": tokens::now(), "iss": issuer.public_key(), "sub": about.public_key(),
        "name": "test", "nats": nats,
    });
    let header = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;
    let text = tokens::unsigned(header, &claims.to_string());
    let signature = issuer.sign(text.as_bytes()).expect("it has its seed");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// An operator's server with one account, and the credentials file of a user of it.
fn credentials(directory: &Path) -> Way {
    let (operator, account, user) =
        (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    });
    let of_operator = statement(&operator, &operator, &json!({"type": "operator", "version": 2}));
    let of_account = json!({"type": "account", "version": 2, "limits": limits});
    let of_account = statement(&operator, &account, &of_account);
    let of_user = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
    let of_user = statement(&account, &user, &of_user);
    let file = directory.join("fjord.creds");
    let seed = user.seed().expect("a pair that was just made has one");
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    fs::write(&file, text).expect("a file");
    let server = format!(
        "operator: {of_operator}\nresolver: MEMORY\nresolver_preload: {{ {}: {of_account} }}",
        account.public_key(),
    );
    way("credentials file", &server, &format!("credentials_file = '{}'\n", file.display()))
}

fn ways(directory: &Path) -> Vec<Way> {
    let pair = KeyPair::new_user();
    let nkey = format!("authorization {{ users: [{{ nkey: {} }}] }}", pair.public_key());
    let seed = format!("nkey = '{}'\n", pair.seed().expect("a pair that was just made has one"));
    let plain = NatsOptions::default();
    vec![
        way(
            "user",
            "authorization { user: fjord, password: of-a-test }",
            "user = 'fjord'\npassword = 'of-a-test'\n",
        ),
        way("token", "authorization { token: of-a-test }", "token = 'of-a-test'\n"),
        way("nkey", &nkey, &seed),
        credentials(directory),
        Way {
            name: "certificate",
            nats: NatsOptions { wants_client_certificates: true, ..plain.clone() },
            keys: String::new(),
            tls_keys: "certificate = '{certificate}'\nkey = '{key}'\n",
        },
        Way {
            name: "TLS first",
            nats: NatsOptions { is_tls_first: true, ..plain },
            keys: "tls_first = true\n".to_owned(),
            tls_keys: "",
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_opens_and_nothing_else_does() {
    let directory = tempfile::tempdir().expect("a directory");
    for Way { name, nats, keys, tls_keys } in ways(directory.path()) {
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
            let log = eventually_some(format!("{name}: it says why"), SOON, async || {
                let log = node.process.log();
                let words =
                    ["authorization", "certificate", "tls", "handshake", "i/o error", "timed out"];
                let has_said = log.contains("connection to NATS") || log.contains("cannot connect");
                let why = log.to_lowercase();
                (has_said && words.iter().any(|word| why.contains(word))).then_some(log)
            })
            .await;
            assert!(!log.contains(r#""message":"connected to NATS""#), "{name}: it was let in");
        }
    }
}
