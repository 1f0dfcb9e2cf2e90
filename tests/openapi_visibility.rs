//! Promise: `/openapi.json` shows each caller only the endpoints that the caller may call, unless the configuration makes
//! the document public.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use rustix::process::Signal;
use tempfile::NamedTempFile;

use super::support::certs::{Leaf, PemFiles};
use super::support::client::{Client, ClientOptions, HttpResponse, send};
use super::support::eventually::{SOON, eventually_some};
use super::support::fleet::{Fleet, FleetOptions};
use super::support::tokens::{AUDIENCE, ISSUER, Signer, claims, claims_of, jwks};

const PARTNER: &str = "https://sso.partner.example/";
const HOUR: Duration = Duration::from_hours(1);

/// Endpoints whose names occur in no other catalogue.
const ENDPOINTS: &str = r#"{
    "any-proof": { "route": "GET /v1/any-proof", "queue": "echo", "handler": "echo", "timeout": "2s",
        "auth": { "methods": ["jwt", "api-key", "certificate"] } },
    "any-reader": { "route": "GET /v1/any-reader", "queue": "echo", "handler": "echo", "timeout": "2s",
        "auth": { "methods": ["jwt", "api-key", "certificate"], "scopes": ["horses:read"] } },
    "staff-only": { "route": "PUT /v1/staff-only/{herd}", "queue": "echo", "handler": "echo", "timeout": "2s",
        "parameters": { "herd": { "in": "path", "type": "string" } },
        "auth": { "methods": ["jwt"], "issuers": ["staff"], "scopes": ["horses:write"] } },
    "partner-only": { "route": "GET /v1/partner-only", "queue": "echo", "handler": "echo", "timeout": "2s",
        "auth": { "methods": ["jwt"], "issuers": ["partner"] } },
    "machines": { "route": "GET /v1/machines", "queue": "echo", "handler": "echo", "timeout": "2s",
        "auth": { "methods": ["certificate"] } } }"#;
/// Words that occur in the document only because of these endpoints.
const WORDS: [&str; 6] = ["horses:read", "horses:write", "herd", "staff", "partner", "machines"];

struct DocumentedGateway {
    fleet: Fleet,
    staff: Signer,
    partner: Signer,
    stranger: PemFiles,
    _keys: [NamedTempFile; 2],
}

impl DocumentedGateway {
    async fn start(gateway_keys: &'static str) -> Self {
        let (staff, partner) = (Signer::p256("s").unwrap(), Signer::p256("p").unwrap());
        let keys = [&staff, &partner].map(|signer| {
            let file = NamedTempFile::new().unwrap();
            fs::write(file.path(), jwks(&[signer]).unwrap()).unwrap();
            file
        });
        let key = |key: &str| super::authentication::fixture::hash(key);
        let gateway_toml = format!(
            "[auth.jwt.staff]\nissuer = '{ISSUER}'\naudiences = ['{AUDIENCE}']\nkeys = '{}'\n\
             principal_prefix = 'staff:'\n\
             [auth.jwt.partner]\nissuer = '{PARTNER}'\naudiences = ['{AUDIENCE}']\nkeys = '{}'\n\
             principal_prefix = 'partner:'\n\
             [auth.api_keys.billing]\nsha256 = ['{}']\nscopes = ['horses:read']\n\
             [auth.api_keys.former]\nsha256 = ['{}']\nexpires_at = '2020-01-01T00:00:00Z'\n\
             [auth.certificates.'dns:fjord-test']\nprincipal = 'clinic'\n",
            keys[0].path().display(),
            keys[1].path().display(),
            key("billing-key"),
            key("former-key"),
        );
        let fleet = Fleet::start(FleetOptions {
            catalogue: Some(("documented.json", ENDPOINTS)),
            gateway_keys,
            gateway_tls_keys: "client_certificates = 'optional'\nclient_ca = '{ca}'",
            gateway_toml,
            ..FleetOptions::default()
        })
        .await;
        let leaf = Leaf { dns: &["stranger.example"], addresses: &[], ..Leaf::LOCAL };
        let stranger = fleet.certs.issue("stranger", leaf);
        Self { fleet, staff, partner, stranger, _keys: keys }
    }

    fn client_of(&self, identity: &PemFiles) -> Client {
        self.fleet
            .client_with(ClientOptions { identity: Some(identity), ..ClientOptions::default() })
    }

    fn staff(&self, scopes: &str) -> Client {
        let token = self.staff.sign(&claims("anna", scopes, HOUR)).unwrap();
        self.fleet.client().with_bearer(&token)
    }

    fn partner(&self) -> Client {
        let token = self.partner.sign(&claims_of(PARTNER, "vet", "horses:write", HOUR)).unwrap();
        self.fleet.client().with_bearer(&token)
    }

    /// Returns all callers, each with the endpoints that it may call in addition to the public ones.
    fn callers(&self) -> Vec<(&'static str, Client, &'static [&'static str])> {
        let client = self.fleet.client();
        let clinic = self.client_of(&self.fleet.certs.client);
        let key = client.with_header("x-api-key", "billing-key");
        let staff = self.staff("horses:read horses:write");
        vec![
            ("nobody", client, &[]),
            ("staff", self.staff(""), &["any-proof"]),
            ("reader", self.staff("horses:read"), &["any-proof", "any-reader"]),
            ("writer", staff, &["any-proof", "any-reader", "staff-only"]),
            ("partner", self.partner(), &["any-proof", "partner-only"]),
            ("key", key, &["any-proof", "any-reader"]),
            ("certificate", clinic.clone(), &["any-proof", "machines"]),
            // As in a call, endpoints that accept API keys evaluate only the API key.
            (
                "both",
                clinic.with_header("x-api-key", "billing-key"),
                &["any-proof", "any-reader", "machines"],
            ),
            ("unknown certificate", self.client_of(&self.stranger), &[]),
        ]
    }
}

/// Returns the endpoints in a document that are not public.
fn shown(answer: &HttpResponse) -> BTreeSet<String> {
    let document = answer.is(200).json();
    let paths = document["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|methods| methods.as_object().unwrap().values());
    let guarded = operations.filter(|operation| operation["security"] != serde_json::json!([]));
    guarded.map(|operation| operation["operationId"].as_str().unwrap().to_owned()).collect()
}

fn names(expected: &[&str]) -> BTreeSet<String> {
    expected.iter().map(|name| (*name).to_owned()).collect()
}

async fn document(client: &Client) -> HttpResponse {
    client.get("/openapi.json").await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_caller_sees_only_the_endpoints_that_it_may_call() {
    let documented = DocumentedGateway::start("").await;
    let callers = documented.callers();
    for (who, client, expected) in &callers {
        let answer = document(client).await;
        assert_eq!(shown(&answer), names(expected), "{who}");
        let public = answer.json()["paths"]["/v1/echo/{id}"].is_object();
        assert!(public && answer.header("content-type") == "application/json", "{who}");
        // A cache must not give the document to another caller.
        assert_eq!(answer.header("cache-control"), "no-store", "{who}");
        assert!(answer.header("vary").starts_with("Authorization, X-Api-Key"), "{who}");
        assert_eq!(answer.header("etag"), "", "{who}");
        // Calls succeed for exactly the endpoints in the document.
        for endpoint in ["any-proof", "any-reader", "partner-only", "machines"] {
            let status = client.get(&format!("/v1/{endpoint}")).await.status;
            assert_eq!(status == 200, expected.contains(&endpoint), "{who} {endpoint}: {status}");
        }
    }
    let nobody = document(&documented.fleet.client()).await.text();
    for word in WORDS {
        assert!(!nobody.contains(word), "{word} is in the public document");
    }
    // Concurrent requests must not get another caller's document.
    let requests = (0..20).flat_map(|_| &callers).map(async |(who, client, expected)| {
        assert_eq!(shown(&document(client).await), names(expected), "{who}");
    });
    join_all(requests).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_credentials_are_refused_and_counted() {
    let documented = DocumentedGateway::start("").await;
    let client = documented.fleet.client();
    let foreign = Signer::p256("s").unwrap().sign(&claims("anna", "", HOUR)).unwrap();
    let from_unknown_issuer = claims_of("https://nobody.example/", "anna", "", HOUR);
    let from_unknown_issuer = documented.staff.sign(&from_unknown_issuer).unwrap();
    for (client, reason) in [
        (client.with_bearer("x"), "malformed"),
        (client.with_bearer(&foreign), "bad-signature"),
        (client.with_bearer(&from_unknown_issuer), "wrong-issuer"),
        (client.with_header("x-api-key", "guess"), "unknown-api-key"),
        (client.with_header("x-api-key", "former-key"), "expired"),
        (client.with_bearer(&foreign).with_header("x-api-key", "billing-key"), "ambiguous"),
    ] {
        let answer = document(&client).await;
        answer.is_problem(401, "unauthenticated");
        assert_ne!(answer.header("www-authenticate"), "", "{reason}");
        let figure = format!(r#"fjord_auth_failures_total{{endpoint="none",reason="{reason}"}}"#);
        assert!(documented.fleet.gateways[0].metric(&figure).await > 0.5, "{reason}");
    }
    // The page itself is public, because users enter their credentials there.
    let page = client.with_bearer("x").get("/docs").await;
    assert!(page.is(200).text().contains("<main>"));
    for word in WORDS {
        assert!(!page.text().contains(word), "{word} is in the page");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_variant_of_a_request_gets_the_callers_own_document() {
    let documented = DocumentedGateway::start("").await;
    for (who, client, expected) in documented.callers() {
        let whole = document(&client).await;
        let head = send(client.request(Method::HEAD, "/openapi.json")).await;
        assert!(head.is(200).body.is_empty());
        for name in ["content-length", "vary", "cache-control"] {
            assert_eq!(head.header(name), whole.header(name), "{who}");
        }
        let request = client.request(Method::GET, "/openapi.json");
        let request = request.header("accept-encoding", "gzip").header("if-none-match", "*");
        let small = send(request.header("origin", "https://other.example")).await;
        assert_eq!(small.is(200).header("content-encoding"), "gzip");
        assert_eq!(
            small.header("access-control-allow-origin"),
            "",
            "pages from other origins cannot read it"
        );
        let mut text = String::new();
        flate2::read::GzDecoder::new(&small.body[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, whole.text(), "{who}");
        assert_eq!(shown(&whole), names(expected), "{who}");
    }
    let answer = send(documented.fleet.client().request(Method::POST, "/openapi.json")).await;
    answer.is_problem(405, "method-not-allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_can_make_the_document_public_or_switch_it_off() {
    let mut documented = DocumentedGateway::start("documentation = 'public'\n").await;
    let all = names(&["any-proof", "any-reader", "machines", "partner-only", "staff-only"]);
    let client = documented.fleet.client();
    assert_eq!(shown(&document(&client).await), all);
    assert_eq!(shown(&document(&client.with_bearer("x")).await), all, "credentials are ignored");

    for (word, expected) in [("authenticated", Some(names(&[]))), ("off", None)] {
        let gateway = &mut documented.fleet.gateways[0];
        let file = gateway.directory().join("gateway.toml");
        let text = fs::read_to_string(&file).unwrap();
        let old = text.lines().find(|line| line.starts_with("documentation = ")).unwrap();
        let text = text.replace(old, &format!("documentation = '{word}'"));
        fs::write(&file, text).unwrap();
        gateway.process.signal(Signal::HUP);
        eventually_some(format!("documentation = {word}"), SOON, async || {
            let answer = document(&client).await;
            let found = (answer.status == 200).then(|| shown(&answer));
            (found == expected).then_some(())
        })
        .await;
    }
    document(&client).await.is_problem(404, "no-route");
    client.get("/docs").await.is_problem(404, "no-route");
}
