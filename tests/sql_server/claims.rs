//! Promise: a claim of the caller's token reaches the procedure in the session context if the catalogue
//! says so. No other caller ever sees it, and a caller without a required claim does not call the
//! procedure.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::client::Client;
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::mssql_server::{SqlServer, fake_server};
use crate::support::tds::PASSWORD;
use crate::support::tokens::{AUDIENCE, ISSUER, Signer, claims, jwks};

const HOUR: Duration = Duration::from_hours(1);

/// Endpoints that return a value of the session context. The procedure has only the parameter `@key`.
const CATALOGUE: &str = r#"{
    "whose": { "route": "GET /v1/whose", "queue": "claims", "procedure": "fjord_test.who", "result": "row",
        "auth": { "methods": ["jwt"] },
        "parameters": {
            "key": { "in": "query", "type": "string", "required": true },
            "tenant": { "in": "claim", "type": "string", "required": true, "maxLength": 20, "sessionContext": true },
            "desk": { "in": "claim", "type": "int32", "as": "office", "sessionContext": true } } },
    "anyone": { "route": "GET /v1/anyone", "queue": "claims", "procedure": "fjord_test.who", "result": "row",
        "auth": "public",
        "parameters": { "key": { "in": "query", "type": "string", "required": true } } }
}"#;

/// A fleet whose worker has one connection to the fake server.
struct FleetWithTokens {
    fleet: Fleet,
    server: SqlServer,
    signer: Signer,
    _keys: NamedTempFile,
}

impl FleetWithTokens {
    async fn start() -> Self {
        let server = fake_server().await;
        let fake = server.fake.as_ref().expect("this is the fake server");
        let worker_toml = format!(
            "[worker.queues.claims]\ndatabase = 'sql'\n\
             [procedures.databases.sql]\nbackend = 'mssql'\n\
             [procedures.databases.sql.mssql]\nhost = '127.0.0.1'\nport = {}\nconnections_max = 1\n\
             database = 'd'\nuser = 'u'\npassword = '{PASSWORD}'\ntls.ca = '{}'\n",
            fake.address.port(),
            fake.ca.display(),
        );
        let signer = Signer::p256("key").expect("a key");
        let keys = NamedTempFile::new().expect("a file");
        fs::write(keys.path(), jwks(&[&signer]).expect("a set of keys")).expect("a file");
        let gateway_toml = format!(
            "[auth.jwt.staff]\nissuer = '{ISSUER}'\naudiences = ['{AUDIENCE}']\nkeys = '{}'\n",
            keys.path().display(),
        );
        let catalogue = Some(("claims.json", CATALOGUE));
        let options =
            FleetOptions { catalogue, gateway_toml, worker_toml, ..FleetOptions::default() };
        let fleet = Fleet::start(options).await;
        Self { fleet, server, signer, _keys: keys }
    }

    /// Returns a client whose token has these claims, besides those that every token needs.
    fn client(&self, more: &Value) -> Client {
        let mut all = claims("anna", "", HOUR);
        for (name, value) in more.as_object().expect("claims") {
            all[name] = value.clone();
        }
        let token = self.signer.sign(&all).expect("a token");
        self.fleet.client().with_bearer(&token)
    }

    fn runs(&self) -> usize {
        self.server.state().runs("fjord_test.who")
    }
}

/// Returns the value of a key in the session context of a call to `whose`.
async fn value(client: &Client, key: &str) -> Value {
    client.get(&format!("/v1/whose?key={key}")).await.is(200).json()["v"].clone()
}

/// Fails if the claim is passed as an argument, which the procedure does not have; if it is stored under
/// another key than its own, or under its name although the catalogue gives it another one; if a value
/// of an earlier call is left on the connection; or if the procedure runs without a required claim.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_in_the_session_context_of_its_callers_calls_only() {
    let fleet = FleetWithTokens::start().await;
    let state = fleet.server.state();
    let (s7, s8) = (json!({ "tenant": "s7", "desk": 3 }), json!({ "tenant": "s8" }));
    let (s7, s8) = (fleet.client(&s7), fleet.client(&s8));
    assert_eq!(value(&s7, "tenant").await, "s7");
    let logins = state.logins();
    assert_eq!(value(&s7, "office").await, "3", "the key has the name in `as`");
    assert_eq!(value(&s7, "desk").await, Value::Null);
    assert_eq!(value(&s7, "principal").await, "anna");

    // Each of these calls uses the connection of the call before it.
    assert_eq!(value(&s8, "office").await, Value::Null, "the claim of another caller");
    assert_eq!(value(&s7, "office").await, "3");
    assert_eq!(value(&s8, "tenant").await, "s8");
    for key in ["tenant", "office", "principal"] {
        let answer = fleet.fleet.client().get(&format!("/v1/anyone?key={key}")).await;
        assert_eq!(answer.is(200).json()["v"], Value::Null, "{key}");
    }
    assert_eq!(state.logins(), logins, "another connection");

    let runs = fleet.runs();
    for refused in
        [json!({}), json!({ "tenant": "a tenant's name of 30 letters" }), json!({ "tenant": 7 })]
    {
        let answer = fleet.client(&refused).get("/v1/whose?key=tenant").await;
        let problem = answer.is_problem(403, "forbidden");
        assert_eq!(problem["effect"], "not-executed", "{refused}");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("\"tenant\""), "{refused}: {detail}");
    }
    // A caller cannot choose the value of a claim.
    let chosen = fleet.client(&json!({ "desk": 3 })).get("/v1/whose?key=tenant&tenant=s7").await;
    assert!(matches!(chosen.status.as_u16(), 400 | 403), "{}", chosen.text());
    assert_eq!(fleet.runs(), runs, "the procedure ran without the claim");
    assert_eq!(value(&s8, "tenant").await, "s8");
}
