//! OIDC discovery: the gateway finds the keys of an issuer for which only a URL is configured.

use serde_json::json;

use super::*;

impl KeyServer {
    /// Returns the issuer's URL. It has a path, like the URL of a tenant.
    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}/tenant", self.port)
    }

    fn publish_document(&self, issuer: &str, keys: &str) {
        let document = json!({ "issuer": issuer, "jwks_uri": keys }).to_string();
        fs::write(self.home.path().join("openid-configuration"), document).unwrap();
    }
}

/// Returns the table `[auth.jwt.<name>]` of an issuer, with the additional lines in `more`.
fn table(name: &str, url: &str, more: &str) -> String {
    format!(
        "[auth.jwt.{name}]\nissuer = '{url}'\naudiences = ['{AUDIENCE}']\nprincipal_prefix = '{name}:'\n{more}\n"
    )
}

fn token(issuer: &str, signer: &Signer) -> String {
    signer.sign(&tokens::claims_of(issuer, "alice", "", HOUR)).unwrap()
}

async fn get_guarded_with(fleet: &Fleet, token: &str) -> HttpResponse {
    fleet.client().with_bearer(token).get("/v1/guarded").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_is_configured_by_its_url_alone() {
    let signer = Signer::p384("key").unwrap();
    let issuer = KeyServer::start(&keys(&[&signer])).await;
    let url = issuer.url("https");
    issuer.publish_document(&url, &format!("https://localhost:{}/keys", issuer.port));
    let ca = format!("keys_url_ca = '{}'", issuer.certs.ca.display());
    let mut fleet = fleet(table("main", &url, &ca)).await;
    fleet.gateways[0].ready().await;
    get_guarded_with(&fleet, &token(&url, &signer)).await.is(200);
    get_guarded_with(&fleet, &token(&format!("{url}/"), &signer)).await.is(401);
    assert!(issuer.process.log().contains("discovered"));
    let line = r#""principal":"main:alice""#;
    eventually(SOON, TICK, || fleet.gateways[0].process.log().contains(line)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn insecure_plain_text_allows_keys_over_plain_http() {
    let signer = Signer::p256("key").unwrap();
    let issuer = KeyServer::start_with(&keys(&[&signer]), false).await;
    let url = issuer.url("http");
    issuer.publish_document(&url, &format!("http://localhost:{}/keys", issuer.port));
    let mut fleet = fleet(table("main", &url, "insecure_plain_text = true")).await;
    fleet.gateways[0].ready().await;
    get_guarded_with(&fleet, &token(&url, &signer)).await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_from_another_issuer_or_without_tls_is_rejected() {
    let signer = Signer::p256("key").unwrap();
    let issuer = KeyServer::start(&keys(&[&signer])).await;
    let url = issuer.url("https");
    let ca = format!("keys_url_ca = '{}'", issuer.certs.ca.display());
    let good = format!("https://localhost:{}/keys", issuer.port);
    issuer.publish_document(&url.replace("tenant", "other"), &good);
    let fleet = fleet(table("main", &url, &ca)).await;
    let says = async |text: &str| {
        let gateway = &fleet.gateways[0].process;
        eventually_some("the gateway rejects the document", Duration::from_secs(30), async || {
            gateway.log().contains(text).then_some(())
        })
        .await;
    };
    says("the document names another issuer").await;
    issuer.publish_document(&url, &good.replace("https", "http"));
    says("expected an https:// URL as").await;
    assert_eq!(issuer.fetches(), 0);
    get_guarded_with(&fleet, &token(&url, &signer)).await.is_problem(503, "not-executed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_issuer_affects_only_its_own_callers() {
    let (staff, partner) = (Signer::p256("key").unwrap(), Signer::p256("key").unwrap());
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("staff.json");
    fs::write(&file, keys(&[&staff])).unwrap();
    let own = table("staff", ISSUER, &format!("keys = '{}'", file.display()));
    // No process listens on this port.
    let unreachable = format!("https://localhost:{}", ports::pick());
    let mut fleet = fleet(format!("{own}{}", table("partner", &unreachable, ""))).await;
    fleet.gateways[0].ready().await;
    get_guarded_with(&fleet, &token(ISSUER, &staff)).await.is(200);
    get_guarded_with(&fleet, &token(&unreachable, &partner)).await.is_problem(503, "not-executed");
    let notes = get_text(&format!("http://{}/readyz", fleet.gateways[0].admin())).await.unwrap();
    assert!(notes.contains("issuer partner"), "{notes}");
    // The unreachable issuer's key signs a token that names the other issuer.
    get_guarded_with(&fleet, &token(ISSUER, &partner)).await.is(401);
}
