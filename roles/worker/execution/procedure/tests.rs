//! Tests that call every endpoint of the demo register on an embedded `SQLite` database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::*;
use crate::catalogue::cors::CorsSettings;
use crate::catalogue::{Catalogue, EndpointDefaults, EndpointId, load};
use crate::config::procedures::SqliteConfig;
use crate::envelope::{Final, Request};
use crate::procedures::Backend;
use crate::procedures::ExpectedProcedure;
use crate::procedures::sqlite;
use crate::roles::worker::execution::handlers;

const HORSE: &str = "528003000003001";
const DEAD: &str = "528003000000003";

struct DemoRegister {
    catalogue: Catalogue,
    backend: Arc<dyn Backend>,
    _directory: TempDir,
}

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo")
}

/// The database, which is filled once. Each test uses a copy of it.
static FILLED_DATABASE: OnceCell<TempDir> = OnceCell::const_new();
const FILE: &str = "register.db";

fn database(directory: &Path) -> SqliteConfig {
    SqliteConfig {
        file: directory.join(FILE),
        schema: Some(demo().join("schema.sql")),
        procedures: demo().join("procedures"),
        connections_max: 2,
    }
}

async fn fill_database() -> TempDir {
    let directory = TempDir::new().unwrap();
    let backend = sqlite::connect(&database(directory.path()), "default").unwrap();
    backend.ping().await.unwrap();
    // Closing the last connection writes the write-ahead log back to the file.
    backend.close().await;
    directory
}

impl DemoRegister {
    async fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let endpoints = demo().join("endpoints");
        let defaults = EndpointDefaults {
            auth: None,
            timeout: Duration::from_secs(2),
            attempts: 3,
            body_bytes_max: 64 << 10,
            body_bytes_ceiling: 1 << 20,
            cors: CorsSettings::default(),
        };
        let filled = FILLED_DATABASE.get_or_init(fill_database).await;
        let database = database(directory.path());
        std::fs::copy(filled.path().join(FILE), &database.file).unwrap();
        Self {
            catalogue: load(&endpoints, &defaults).unwrap(),
            backend: sqlite::connect(&database, "default").unwrap(),
            _directory: directory,
        }
    }

    /// Runs a request with the handler that its endpoint names. Returns the final.
    async fn call_raw(&self, id: &str, payload: &[u8]) -> Final {
        let endpoint = Arc::clone(self.catalogue.get(&EndpointId::new(id).unwrap()).unwrap());
        let database = Some(Database::new("default", Arc::clone(&self.backend)));
        let context = HandlerContext { database, answer_bytes_max: 1 << 20 };
        let handler = handlers::create(&endpoint.handler, &context).unwrap();
        let request = Request {
            endpoint: endpoint.id.clone(),
            request_id: "r-1".into(),
            attempt: 1,
            timeout: Duration::from_secs(20),
            execution: endpoint.execution,
            dry_run: false,
            principal: None,
            waiting: 0,
            window: 0,
            idempotency_key: None,
            traceparent: None,
            tracestate: None,
            accept: None,
            payload: Bytes::copy_from_slice(payload),
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        let job = Job { endpoint, request, progress: Arc::default() };
        handler.handle(job, deadline, &Cancel::new()).await.into_final("r-1")
    }

    async fn call(&self, id: &str, payload: Json) -> (u16, Json) {
        let answer = self.call_raw(id, payload.to_string().as_bytes()).await;
        let body = match answer.body {
            empty if empty.is_empty() => Json::Null,
            body => serde_json::from_slice(&body).unwrap(),
        };
        (answer.status, body)
    }
}

#[tokio::test]
async fn the_demo_catalogue_matches_its_procedures() {
    let register = DemoRegister::new().await;
    for endpoint in register.catalogue.endpoints() {
        for expected in ExpectedProcedure::from_endpoint(endpoint) {
            let mut fits = |_, found: Result<(), _>| found.unwrap();
            register.backend.verify(&[expected], &mut fits).await;
        }
    }
    let files = std::fs::read_dir(demo().join("procedures")).unwrap().count();
    let named = register
        .catalogue
        .endpoints()
        .iter()
        .flat_map(|e| e.queues.iter())
        .filter(|queue| queue.procedure.is_some())
        .count();
    assert_eq!(files, named);
}

#[tokio::test]
async fn every_read_endpoint_of_the_demo_register_is_answered() {
    let register = DemoRegister::new().await;
    let (status, horse) =
        register.call("horse-get", json!({ "ueln": HORSE, "detail": "full" })).await;
    assert_eq!(status, 200);
    assert_eq!(horse["name"], "Quiet Comet 3001");
    assert_eq!((&horse["alive"], &horse["died"]), (&json!(true), &Json::Null));
    let raw = register
        .call_raw("horse-get", format!(r#"{{"ueln":"{HORSE}","detail":"full"}}"#).as_bytes())
        .await;
    assert!(String::from_utf8_lossy(&raw.body).contains(r#""height_cm":177.1,"#));
    let (_, summary) =
        register.call("horse-get", json!({ "ueln": HORSE, "detail": "summary" })).await;
    assert_eq!(summary["height_cm"], Json::Null);
    let (status, _) = register.call("horse-get", json!({ "ueln": "000000000000000" })).await;
    assert_eq!(status, 404);

    let search = json!({ "name": "quiet c", "sex": "mare", "alive": true, "height_min": 150.5,
        "born_from": "1995-01-01", "born_to": "2020-12-31", "limit": 7 });
    let (_, first) = register.call("horse-search", search.clone()).await;
    assert_eq!(first.as_array().unwrap().len(), 7);
    let mut next = search;
    next["after"] = first[6]["ueln"].clone();
    let (_, second) = register.call("horse-search", next).await;
    assert!(second[0]["ueln"].as_str() > first[6]["ueln"].as_str());

    let (_, count) = register.call("horse-count", json!({})).await;
    assert_eq!(count, 24000);
    let (_, pedigree) =
        register.call("horse-pedigree", json!({ "ueln": HORSE, "generations": 1 })).await;
    assert_eq!(pedigree["ancestors"].as_array().unwrap().len(), 2);
    let (status, _) = register.call("horse-pedigree", json!({ "ueln": "000000000000000" })).await;
    assert_eq!(status, 404);
    let (_, file) = register.call("horse-file", json!({ "ueln": "528003000003002" })).await;
    assert_eq!(file["sets"].as_array().unwrap().len(), 4);
    assert_eq!(
        file["outputs"],
        json!({ "movements": file["sets"][2].as_array().unwrap().len(), "transfers": 0 })
    );
    let (status, _) = register.call("horse-file", json!({ "ueln": "000000000000000" })).await;
    assert_eq!(status, 404);
    let (_, moves) =
        register.call("movement-list", json!({ "ueln": "528003000003002", "limit": 1 })).await;
    let before = moves[0]["id"].clone();
    let page =
        json!({ "ueln": "528003000003002", "before": before, "since": "1980-01-01T00:00:00Z" });
    let (_, earlier) = register.call("movement-list", page).await;
    assert!(earlier[0]["id"].as_i64() < before.as_i64());

    let (_, passport) = register.call("passport-get", json!({ "number": "NL00003001" })).await;
    assert!(passport["scan"].as_str().unwrap().starts_with("iVBOR"));
    let (_, same) =
        register.call("passport-by-document", json!({ "document": passport["document"] })).await;
    assert_eq!(same["number"], "NL00003001");
    let (_, owner) = register.call("owner-get", json!({ "id": 1 })).await;
    assert_eq!((&owner["newsletter"], &owner["horses"]), (&json!(false), &json!(6)));
    let (_, echo) = register.call("echo", json!({ "id": 7, "text": "hi" })).await;
    assert_eq!(echo, json!({ "id": 7, "text": "hi" }));
    assert_eq!(register.call("slow", json!({ "ms": 1 })).await, (200, json!(1)));
    let (_, census) = register.call("report-census", json!({ "year_from": 2000 })).await;
    assert_eq!(census.as_array().unwrap().len(), 3);
    assert_eq!(census[0].as_array().unwrap().len(), 12);
    assert_eq!(census[2].as_array().unwrap().len(), 10);
}

#[tokio::test]
async fn every_write_endpoint_of_the_demo_register_is_answered() {
    let register = DemoRegister::new().await;
    let foal = json!({ "ueln": "276001000000001", "name": "Foal", "breed": "KWPN", "sex": "mare",
        "born": "2026-05-01", "microchip": "276000000000001", "height_cm": 101.10, "weight_kg": 55.5,
        "dam": "528003000000002", "sire": "528003000000004", "owner": 3, "principal": "clerk" });
    let (status, made) = register.call("horse-create", foal.clone()).await;
    assert_eq!((status, &made["passport"]), (201, &json!("NL00024001")));
    assert_eq!(register.call("horse-create", foal.clone()).await.0, 409);
    let mut odd = foal;
    odd["ueln"] = json!("276001000000002");
    odd["microchip"] = Json::Null;
    odd["dam"] = json!("528003000000004");
    let (status, problem) = register.call("horse-create", odd.clone()).await;
    assert_eq!((status, &problem["detail"]), (422, &json!("the dam must be a registered mare")));
    odd["dam"] = Json::Null;
    odd["owner"] = json!(99_999);
    assert_eq!(register.call("horse-create", odd).await.0, 409);

    let death = |ueln: &str, died: &str| json!({ "ueln": ueln, "died": died });
    assert_eq!(register.call("horse-death", death(HORSE, "1990-01-01")).await.0, 422);
    assert_eq!(register.call("horse-death", death("528003000003003", "2026-01-01")).await.0, 409);
    assert_eq!(register.call("horse-death", death("000000000000000", "2026-01-01")).await.0, 404);
    assert_eq!(register.call("horse-death", death(HORSE, "2026-01-01")).await, (204, Json::Null));

    let contact = |id: i64| {
        json!({ "id": id, "name": "New", "email": "n@example.org", "call_after": "18:30:00",
        "newsletter": true, "preferences": { "language": "nl" } })
    };
    assert_eq!(register.call("owner-update", contact(1)).await.0, 204);
    assert_eq!(register.call("owner-update", contact(99_999)).await.0, 404);
    let (_, owner) = register.call("owner-get", json!({ "id": 1 })).await;
    assert_eq!(owner["preferences"], "{\"language\":\"nl\"}");
    let scan = json!({ "number": "NL00003001", "scan": "AAEC" });
    assert_eq!(register.call("passport-scan", scan).await.0, 204);
    let (_, passport) = register.call("passport-get", json!({ "number": "NL00003001" })).await;
    assert_eq!(passport["scan"], "AAEC");
    assert_eq!(
        register.call("passport-scan", json!({ "number": "NL99999999", "scan": "AAEC" })).await.0,
        404
    );

    let movement = |ueln: &str| {
        json!({ "ueln": ueln, "moved_at": "2026-01-01T10:00:00+01:00", "from_site": "A",
        "to_site": "B", "purpose": "clinic", "distance_km": 1.5, "checked": true })
    };
    let device = "0b6f1f2e-0000-4000-8000-000000000001";
    let log = json!({ "movements": [movement(HORSE), movement(HORSE)], "X-Device-Id": device, "principal": "clerk" });
    let (status, logged) = register.call("movement-log", log).await;
    assert_eq!((status, &logged["value"]), (201, &json!(2)));
    let log = json!({ "movements": [movement(HORSE), movement("000000000000000")] });
    let (status, problem) = register.call("movement-log", log).await;
    assert_eq!(
        (status, &problem["detail"]),
        (404, &json!("no horse has the number 000000000000000"))
    );
    let since = json!({ "ueln": HORSE, "since": "2026-01-01T04:00:00-05:00" });
    let (_, list) = register.call("movement-list", since).await;
    assert_eq!(list[0]["moved_at"], "2026-01-01T09:00:00Z");
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!((&list[0]["checked"], &list[0]["device"]), (&json!(true), &json!(device)));
}

#[tokio::test]
async fn a_transfer_is_executed_once_for_an_idempotency_key() {
    let register = DemoRegister::new().await;
    let ueln = "528003000003002";
    let transfer = |ueln: &str, to: i64, key: &str| {
        json!({ "ueln": ueln, "to_owner": to, "price": 12500.10,
        "office": "north", "principal": "clerk", "idempotency_key": key, "request_id": "r-1", "client_ip": "192.0.2.1" })
    };
    let (status, first) = register.call("ownership-transfer", transfer(ueln, 7, "k-1")).await;
    assert_eq!((status, &first["is_new"], &first["to_owner"]), (201, &json!(true), &json!(7)));
    let (status, again) = register.call("ownership-transfer", transfer(ueln, 7, "k-1")).await;
    assert_eq!((status, &again["is_new"], &again["id"]), (200, &json!(false), &first["id"]));
    let cases = [
        (transfer(ueln, 8, "k-1"), 422),
        (transfer(ueln, 7, "k-2"), 409),
        (transfer(DEAD, 7, "k-3"), 422),
        (transfer("000000000000000", 7, "k-4"), 404),
        (transfer(ueln, 99_999, "k-5"), 409),
    ];
    for (payload, expected) in cases {
        let (status, problem) = register.call("ownership-transfer", payload.clone()).await;
        assert_eq!(status, expected, "{payload} {problem}");
    }
    let (_, file) = register.call("horse-file", json!({ "ueln": ueln })).await;
    assert_eq!(file["outputs"]["transfers"], 1);
    assert_eq!(file["sets"][1][0]["id"], 7);
}

#[tokio::test]
async fn a_payload_that_violates_the_catalogue_never_reaches_the_procedure() {
    let register = DemoRegister::new().await;
    for payload in ["", "[]", "{", r#"{"ueln":"short"}"#, r#"{"ueln":1}"#, r#"{"other":1}"#] {
        let answer = register.call_raw("horse-get", payload.as_bytes()).await;
        assert_eq!((answer.status, answer.outcome), (400, Outcome::BadMessage), "{payload}");
    }
}
