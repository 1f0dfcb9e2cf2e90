//! Promise: `fjord import` writes entries that `fjord check` accepts unchanged, for every procedure that the catalogue
//! can express. If it skips a procedure, it reports the reason. It chooses the safer of two interpretations, and never
//! overwrites a file.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::support::fjord_binary;
use super::support::mssql_server::fake_server;
use super::support::tds::{FakeSqlServer, PASSWORD};

const NATS: &str = "[messaging.nats]\nservers = ['tls://127.0.0.1:4222']\n[worker.queues.'*']\n";

pub(super) fn fjord(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(fjord_binary());
    command.args(arguments).arg("--config").arg(directory);
    tokio::task::block_in_place(|| command.output().expect("fjord runs"))
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Writes a worker's configuration with a database and an empty catalogue.
pub(super) fn directory(database: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(directory.path().join("endpoints")).expect("the directory can be created");
    fs::write(directory.path().join("worker.toml"), format!("{NATS}{database}"))
        .expect("the file can be written");
    directory
}

pub(super) fn on_endpoint(endpoint: &FakeSqlServer) -> String {
    format!(
        "[procedures.databases.default]\nbackend = 'mssql'\n\
         [procedures.databases.default.mssql]\nhost = '127.0.0.1'\nport = {}\ndatabase = 'fjord'\n\
         user = 'fjord'\npassword = '{PASSWORD}'\n\
         [procedures.databases.default.mssql.tls]\nca = '{}'\n",
        endpoint.address.port(),
        endpoint.ca.display(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn all_procedures_of_sql_server_become_a_valid_catalogue() {
    let endpoint = fake_server().await.fake.expect("this is the fake server");
    let directory = directory(&on_endpoint(&endpoint));
    // The directory does not exist.
    fs::remove_dir(directory.path().join("endpoints")).expect("an empty directory");
    let file = directory.path().join("endpoints/imported.json");
    let to_file = ["import", "--auth", "public", "--output", file.to_str().expect("a path")];
    let output = fjord(directory.path(), &to_file);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stdout.is_empty());
    let written = fs::read_to_string(&file).expect("the file can be read");
    let entries: Value = serde_json::from_str(&written).expect("JSON");
    assert!(entries.as_object().expect("an object").len() > 50, "{written}");

    // The file is valid without changes, and it matches the database.
    let checked = fjord(directory.path(), &["check"]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    let online = fjord(directory.path(), &["check", "--online", "--role", "worker"]);
    let errors = text(&online.stderr);
    // These queues need more connections than the default allows. The resulting warning does not count as a mismatch.
    let is_mismatch = |line: &&str| line.contains("database ") && !line.starts_with("warning: ");
    let errors: Vec<&str> = errors.lines().filter(is_mismatch).collect();
    assert!(errors.is_empty(), "{errors:#?}");

    // Names are quoted where this is necessary.
    let procedures: Vec<&str> = entries
        .as_object()
        .expect("an object")
        .values()
        .filter_map(|entry| entry["procedure"].as_str())
        .collect();
    for name in [
        "fjord_test.[Sales by Year]",
        "fjord_test.[a.b]",
        "fjord_test.[a]]b[c]",
        "fjord_test.größe_lesen",
    ] {
        assert!(procedures.contains(&name), "{name} in {procedures:?}");
    }
    let year = &entries["sales-by-year"]["parameters"];
    assert_eq!(year, &json!({ "größe": { "in": "body", "type": "int32", "required": true } }));

    let left_out =
        "skipped: fjord_test.quoted_type: the catalogue has no type for @rows fjord_test.[my list]";
    assert!(text(&output.stderr).contains(left_out), "{}", text(&output.stderr));

    // A second import finds no new procedures, and does not overwrite the file.
    let again = fjord(directory.path(), &["import", "--auth", "public"]);
    assert_eq!(again.status.code(), Some(1));
    let said = text(&again.stderr);
    assert!(said.contains("skipped: fjord_test.lists: it is already in the catalogue"), "{said}");
    assert!(said.contains("error: nothing to import"), "{said}");
    fs::write(&file, "{}").expect("the file can be written");
    let over = fjord(directory.path(), &to_file);
    assert_eq!(over.status.code(), Some(1), "{}", text(&over.stderr));
    assert_eq!(fs::read_to_string(&file).expect("the file can be read"), "{}");
    // The temporary file, to which the complete text was written first, no longer exists.
    let files = fs::read_dir(directory.path().join("endpoints")).expect("a directory");
    assert_eq!(files.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn types_bounds_tables_and_outputs_become_parameters() {
    let endpoint = fake_server().await.fake.expect("this is the fake server");
    let directory = directory(&on_endpoint(&endpoint));
    let imported = |pattern| {
        let output =
            fjord(directory.path(), &["import", pattern, "--auth", "jwt", "--prefix", "/api"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    assert_eq!(
        imported("fjord_test.lists"),
        json!({ "lists": {
            "route": "POST /api/lists", "procedure": "fjord_test.lists", "result": "full",
            "auth": { "methods": ["jwt"] },
            "parameters": { "things": { "in": "body", "type": "table", "required": true, "columns": {
                "id": { "type": "int32" }, "name": { "type": "string", "maxLength": 100 },
                "price": { "type": "decimal" }, "at": { "type": "datetime" } } } } } })
    );
    let echoes = imported("fjord_test.echo_*");
    for (id, expected) in [
        ("echo-tinyint", json!({ "type": "int32", "minimum": 0, "maximum": 255 })),
        ("echo-bigint", json!({ "type": "int64" })),
        ("echo-varbinary-50", json!({ "type": "binary", "maxLength": 50 })),
        ("echo-nvarchar-max", json!({ "type": "string" })),
        ("echo-uniqueidentifier", json!({ "type": "uuid" })),
        ("echo-bit", json!({ "type": "boolean" })),
        ("echo-float", json!({ "type": "number" })),
        ("echo-time-7", json!({ "type": "time" })),
    ] {
        let mut parameter = echoes[id]["parameters"]["v"].clone();
        parameter.as_object_mut().expect(id).retain(|key, _| key != "in" && key != "required");
        assert_eq!(parameter, expected, "{id}");
    }
    assert_eq!(echoes["echo-int"]["outputs"], json!(["out"]));
    assert_eq!(echoes["echo-int"]["parameters"].as_object().map(serde_json::Map::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_determine_route_method_and_result() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let procedures = home.path().join("procedures");
    fs::create_dir(&procedures).expect("the directory can be created");
    for (name, sql) in [
        ("stud.horse_get", "SELECT @ueln AS ueln;"),
        ("stud.horse_search", "SELECT @name AS name, @breed AS breed;"),
        ("stud.horse_update", "SELECT @ueln, @name;"),
        ("stud.horse_delete", "SELECT @ueln;"),
        ("stud.horse_transfer", "SELECT @ueln, @owner;"),
        ("race.GetHorse", "SELECT @ueln AS ueln;"),
        ("race.broken", "SELEC 1;"),
        (
            "stud.horse_rename",
            "CREATE PROCEDURE stud.horse_rename @name nvarchar(20), @reason nvarchar(20) = N'typo' \
             AS SELECT @name, @reason;",
        ),
    ] {
        fs::write(procedures.join(format!("{name}.sql")), sql).expect("the file can be written");
    }
    let directory = directory(&format!(
        "[procedures.databases.default]\nbackend = 'sqlite'\n\
         [procedures.databases.default.sqlite]\nfile = '{}'\nprocedures = '{}'\n",
        home.path().join("d.sqlite").display(),
        procedures.display(),
    ));
    let output = fjord(directory.path(), &["import"]);
    assert_eq!(output.status.code(), Some(2), "auth is not set");
    assert!(text(&output.stderr).contains("--auth"), "{}", text(&output.stderr));

    let default = ["import", "--set", "catalogue.auth_default.methods=[\"api-key\"]"];
    let output = fjord(directory.path(), &default);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    let skipped: Vec<&str> = said.lines().filter(|line| line.starts_with("skipped")).collect();
    let [skipped] = skipped.as_slice() else { panic!("{said}") };
    assert!(skipped.starts_with("skipped: race.broken: a statement begins with 'SELEC'"), "{said}");
    assert!(skipped.ends_with("; correct its file"), "{said}");
    assert!(said.contains("7 endpoints written") && said.contains("GET was chosen"), "{said}");
    let entries: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let describe = |id: &str| {
        let entry = &entries[id];
        let word = |key| entry[key].as_str().unwrap_or("-");
        let place = |(name, parameter): (&String, &Value)| {
            format!("{name}:{}", parameter["in"].as_str().unwrap_or("-"))
        };
        let parameters = entry["parameters"].as_object().expect(id);
        let places: Vec<String> = parameters.iter().map(place).collect();
        format!("{} {} {} {}", word("route"), word("result"), word("execution"), places.join(","))
    };
    for (id, expected) in [
        ("horse-get", "GET /v1/stud/horse/{ueln} row - ueln:path"),
        ("get-horse", "GET /v1/horse/{ueln} row - ueln:path"),
        ("horse-search", "GET /v1/horse rows - breed:query,name:query"),
        ("horse-update", "PUT /v1/horse/{ueln} full at-most-once name:body,ueln:path"),
        ("horse-delete", "DELETE /v1/horse/{ueln} none at-most-once ueln:path"),
        ("horse-transfer", "POST /v1/horse-transfer full - owner:body,ueln:body"),
    ] {
        assert_eq!(describe(id), expected);
    }
    assert!(entries["horse-get"].get("auth").is_none(), "the default applies");
    let parameters = &entries["horse-rename"]["parameters"];
    assert_eq!(parameters["name"]["required"], json!(true));
    assert_eq!(parameters["reason"].get("required"), None, "the file declares a default");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skipped_procedure_is_named_with_its_reason_and_a_way_out() {
    let home = tempfile::tempdir().expect("a directory");
    let procedures = home.path().join("procedures");
    fs::create_dir(&procedures).expect("a directory");
    for name in ["dbo.oddo", "dbo.very long name", "dbo.___"] {
        fs::write(procedures.join(format!("{name}.sql")), "SELECT @ueln;").expect("a file");
    }
    let many: Vec<String> = (0..70).map(|n| format!("@p{n}")).collect();
    let sql = format!("SELECT @päd, {}", many.join(", "));
    fs::write(procedures.join("dbo.umlaut.sql"), sql).expect("a file");
    let directory = directory(&format!(
        "[procedures.databases.default]\nbackend = 'sqlite'\n\
         [procedures.databases.default.sqlite]\nfile = '{}'\nprocedures = '{}'\n",
        home.path().join("d.sqlite").display(),
        procedures.display(),
    ));
    let output = fjord(directory.path(), &["import", "--auth", "public", "--prefix", "v1"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let skipped: Vec<&str> = said.lines().filter(|line| line.starts_with("skipped: ")).collect();
    assert_eq!(skipped.len(), 4, "{said}");
    for line in &skipped {
        assert!(!line.contains(": :") && !line.contains("endpoint \""), "{line}");
        assert!(line.contains("; "), "no way out: {line}");
    }
    assert!(said.contains("matches 4 procedures, and none was imported"), "{said}");

    // The import chose no GET and made no parameter required. It used the singular for one endpoint.
    fs::write(procedures.join("dbo.stop.sql"), "SELECT 1").expect("a file");
    let output = fjord(directory.path(), &["import", "dbo.stop", "--auth", "public"]);
    let said = text(&output.stderr);
    assert!(said.contains("1 endpoint written"), "{said}");
    assert!(!said.contains("GET") && !said.contains("required"), "{said}");
    let output = fjord(directory.path(), &["import", "nothing.*", "--auth", "public"]);
    let said = text(&output.stderr);
    assert_eq!(said, "error: no procedure matches \"nothing.*\"\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_database_or_catalogue_is_an_error_and_creates_nothing() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (file, schema) = (home.path().join("not-there.db"), home.path().join("schema.sql"));
    fs::write(&schema, "CREATE TABLE a (b);").expect("a file");
    let directory = directory(&format!(
        "[procedures.databases.default]\nbackend = 'sqlite'\n[procedures.databases.default.sqlite]\n\
         file = '{}'\nschema = '{}'\nprocedures = '{}'\n",
        file.display(),
        schema.display(),
        home.path().display(),
    ));
    let check = |arguments: &[&str], status, words: &[&str]| {
        let output =
            fjord(directory.path(), &[&["import", "--auth", "public"], arguments].concat());
        let stderr = text(&output.stderr);
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (Some(status), String::new()),
            "{stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(words.iter().all(|word| stderr.contains(word)), "{words:?} in {stderr}");
    };
    check(&[], 1, &["not-there.db", "does not exist"]);
    assert!(!file.exists(), "an import must not create a database");
    check(&["--database", "nope"], 2, &["--database", "nope"]);
    // If the catalogue has an error, the command cannot determine which procedures it already contains.
    fs::write(directory.path().join("endpoints/broken.json"), "{ \"x\": ")
        .expect("the file can be written");
    fs::write(&file, "").expect("the file can be written");
    check(&[], 2, &["broken.json"]);
}
