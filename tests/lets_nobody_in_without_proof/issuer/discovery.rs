//! The issuer's URL alone is enough: its discovery document says where its keys are.

use serde_json::json;

use super::*;

impl Issuer {
    /// Its own URL; of an issuer with a path, as tenants have them.
    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}/tenant", self.port)
    }

    fn publish_document(&self, issuer: &str, keys: &str) {
        let document = json!({ "issuer": issuer, "jwks_uri": keys }).to_string();
        fs::write(self.home.path().join("openid-configuration"), document).unwrap();
    }
}

/// `[auth.jwt.<name>]` of an issuer that is found by its URL.
fn table(name: &str, url: &str, more: &str) -> String {
    format!(
        "[auth.jwt.{name}]\nissuer = '{url}'\naudiences = ['{AUDIENCE}']\nprincipal_prefix = '{name}:'\n{more}\n"
    )
}

fn token(issuer: &str, signer: &Signer) -> String {
    signer.sign(&tokens::claims_of(issuer, "alice", "", HOUR)).unwrap()
}

async fn ask_with(fleet: &Fleet, token: &str) -> Answer {
    fleet.client().with_bearer(token).get("/v1/guarded").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_url_of_an_issuer_is_enough() {
    let signer = Signer::p384("key").unwrap();
    let issuer = Issuer::start(&keys(&[&signer])).await;
    let url = issuer.url("https");
    issuer.publish_document(&url, &format!("https://localhost:{}/keys", issuer.port));
    let ca = format!("keys_url_ca = '{}'", issuer.certs.ca.display());
    let mut fleet = fleet(table("main", &url, &ca)).await;
    fleet.gateways[0].ready().await;
    ask_with(&fleet, &token(&url, &signer)).await.is(200);
    ask_with(&fleet, &token(&format!("{url}/"), &signer)).await.is(401);
    assert!(issuer.process.log().contains("discovered"));
    let line = r#""principal":"main:alice""#;
    eventually(SOON, TICK, || fleet.gateways[0].process.log().contains(line)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_needs_a_key_that_says_so() {
    let signer = Signer::p256("key").unwrap();
    let issuer = Issuer::start_with(&keys(&[&signer]), false).await;
    let url = issuer.url("http");
    issuer.publish_document(&url, &format!("http://localhost:{}/keys", issuer.port));
    let mut fleet = fleet(table("main", &url, "insecure_plain_text = true")).await;
    fleet.gateways[0].ready().await;
    ask_with(&fleet, &token(&url, &signer)).await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_of_another_issuer_or_without_tls_is_not_believed() {
    let signer = Signer::p256("key").unwrap();
    let issuer = Issuer::start(&keys(&[&signer])).await;
    let url = issuer.url("https");
    let ca = format!("keys_url_ca = '{}'", issuer.certs.ca.display());
    let good = format!("https://localhost:{}/keys", issuer.port);
    issuer.publish_document(&url.replace("tenant", "other"), &good);
    let fleet = fleet(table("main", &url, &ca)).await;
    let says = async |text: &str| {
        let gateway = &fleet.gateways[0].process;
        eventually_some("it refuses the document", Duration::from_secs(30), async || {
            gateway.log().contains(text).then_some(())
        })
        .await;
    };
    says("the document is of another issuer").await;
    issuer.publish_document(&url, &good.replace("https", "http"));
    says("expected an https:// URL as").await;
    assert_eq!(issuer.fetches(), 0);
    ask_with(&fleet, &token(&url, &signer)).await.is_problem(503, "not-executed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_away_keeps_out_its_own_callers_alone() {
    let (staff, partner) = (Signer::p256("key").unwrap(), Signer::p256("key").unwrap());
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("staff.json");
    fs::write(&file, keys(&[&staff])).unwrap();
    let own = table("staff", ISSUER, &format!("keys = '{}'", file.display()));
    // Nobody listens there.
    let away = format!("https://localhost:{}", ports::pick());
    let mut fleet = fleet(format!("{own}{}", table("partner", &away, ""))).await;
    fleet.gateways[0].ready().await;
    ask_with(&fleet, &token(ISSUER, &staff)).await.is(200);
    ask_with(&fleet, &token(&away, &partner)).await.is_problem(503, "not-executed");
    let notes = get_text(&format!("http://{}/readyz", fleet.gateways[0].admin())).await.unwrap();
    assert!(notes.contains("issuer partner"), "{notes}");
    // It cannot speak for the one that is here either.
    ask_with(&fleet, &token(ISSUER, &partner)).await.is(401);
}
