//! Promise: `fjord import` writes the columns that the database reports into `returns`. It calls a
//! procedure to find its columns only if this was requested. `fjord check --online` reports each
//! difference between `returns` and the database as a warning. The `OpenAPI` document contains the
//! types of the columns.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::import_command::{directory, fjord, on_endpoint, text};
use super::support::mssql_server::fake_server;
use super::support::tds::FakeSqlServer;

/// An embedded database whose table `horse` has one row, and a directory of procedure files.
struct EmbeddedDatabase {
    directory: tempfile::TempDir,
    home: tempfile::TempDir,
}

impl EmbeddedDatabase {
    fn new(procedures: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let files = home.path().join("procedures");
        fs::create_dir(&files).expect("the directory can be created");
        for (name, sql) in procedures {
            fs::write(files.join(format!("{name}.sql")), sql).expect("the file can be written");
        }
        let file = home.path().join("d.sqlite");
        let connection = rusqlite::Connection::open(&file).expect("a database");
        let schema = "CREATE TABLE horse (ueln TEXT NOT NULL, name NVARCHAR (60), born DATE NOT NULL, \
            height DECIMAL (5, 1), alive BOOLEAN NOT NULL, owner INTEGER NOT NULL); \
            CREATE TABLE visit (id INTEGER PRIMARY KEY, horse TEXT NOT NULL); \
            INSERT INTO horse VALUES ('528', 'Alba', '2020-02-29', 165.5, 1, 7)";
        connection.execute_batch(schema).expect("the schema is valid");
        let directory = directory(&format!(
            "[procedures.databases.default]\nbackend = 'sqlite'\n\
             [procedures.databases.default.sqlite]\nfile = '{}'\nprocedures = '{}'\n",
            file.display(),
            files.display(),
        ));
        Self { directory, home }
    }

    fn visits(&self) -> i64 {
        let connection =
            rusqlite::Connection::open(self.home.path().join("d.sqlite")).expect("a database");
        connection.query_row("SELECT count(*) FROM visit", [], |row| row.get(0)).expect("a count")
    }
}

const PROCEDURES: [(&str, &str); 7] = [
    ("stud.horse_get", "SELECT ueln, name, born, height, alive FROM horse WHERE ueln = @ueln"),
    ("stud.horse_list", "SELECT ueln, upper(name) AS name, count(*) AS n FROM horse GROUP BY ueln"),
    (
        "stud.horse_report",
        "SELECT a.ueln, b.owner AS owner, a.owner FROM horse AS a LEFT JOIN horse AS b ON b.ueln = a.name",
    ),
    (
        "stud.horse_move",
        "SELECT owner AS \"@owner\", 1 AS \"@x\" FROM horse; SELECT born FROM horse; SELECT 1",
    ),
    ("stud.visit_list", "SELECT id, horse FROM visit"),
    // Both procedures write. The name of the first one ends with a verb that suggests reading. The
    // name of the other one has no known verb.
    (
        "stud.visit_get",
        "INSERT INTO visit (horse) VALUES ('528'); SELECT max(horse) AS horse FROM visit",
    ),
    (
        "stud.visit_note",
        "INSERT INTO visit (horse) VALUES ('528'); SELECT max(horse) AS horse FROM visit",
    ),
];

fn import(directory: &Path, more: &[&str]) -> (Value, String) {
    let output = fjord(directory, &[&["import", "--auth", "public"], more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    (serde_json::from_slice(&output.stdout).expect("JSON"), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_import_describes_answers_of_the_embedded_backend() {
    let database = EmbeddedDatabase::new(&PROCEDURES);
    let (entries, said) = import(database.directory.path(), &[]);
    let any = json!({ "type": "json" });
    for (id, expected) in [
        (
            "horse-get",
            json!({
                "ueln": { "type": "string" }, "name": { "type": "string", "nullable": true },
                "born": { "type": "date" }, "height": { "type": "decimal", "nullable": true },
                "alive": { "type": "boolean" } }),
        ),
        // The statement contains a count, so `ueln` may be NULL. A column that is an expression has
        // no type.
        (
            "horse-list",
            json!({ "ueln": { "type": "string", "nullable": true }, "name": any, "n": any }),
        ),
        (
            "horse-report",
            json!({
                "ueln": { "type": "string", "nullable": true }, "owner": { "type": "int64", "nullable": true },
                "owner_2": { "type": "int64", "nullable": true } }),
        ),
        (
            "horse-move",
            json!({ "sets": [{ "born": { "type": "date" } }, { "1": { "type": "json" } }] }),
        ),
    ] {
        assert_eq!(entries[id]["returns"], expected, "{id}");
    }
    assert!(said.contains("review: \"returns\" was copied from the database"), "{said}");
    assert_eq!(database.visits(), 0, "nothing was called");
    let file = database.directory.path().join("endpoints/all.json");
    fs::write(&file, entries.to_string()).expect("the file can be written");
    let checked = fjord(database.directory.path(), &["check", "--role", "worker"]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    assert_eq!(drift(database.directory.path()), Vec::<String>::new());
    let document = fjord(database.directory.path(), &["openapi"]);
    let document: Value = serde_json::from_slice(&document.stdout).expect("JSON");
    let get = &document["paths"]["/v1/horse/{ueln}"]["get"]["responses"]["200"];
    let row = &get["content"]["application/json"]["schema"];
    assert_eq!(
        row["properties"]["height"],
        json!({ "type": ["number", "null"], "format": "decimal" })
    );
    assert_eq!(row["required"], json!(["alive", "born", "height", "name", "ueln"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_calls_only_procedures_named_as_reads_and_is_rolled_back() {
    let database = EmbeddedDatabase::new(&PROCEDURES);
    let (entries, _) = import(database.directory.path(), &["--sample"]);
    let list = &entries["horse-list"]["returns"];
    let (string, number) = (
        json!({ "type": "string", "nullable": true }),
        json!({ "type": "int64", "nullable": true }),
    );
    assert_eq!(*list, json!({ "ueln": string, "name": string, "n": number }));
    let visit = json!({ "horse": string });
    assert_eq!(entries["visit-get"]["returns"], visit, "its name says that it reads");
    assert_eq!(
        entries["visit-note"]["returns"],
        json!({ "sets": [{ "horse": { "type": "json" } }] })
    );
    assert_eq!(database.visits(), 0, "the only call that wrote was rolled back");
}

/// Returns the warnings of `fjord check --online` about `returns`, without the name of the database.
fn drift(directory: &Path) -> Vec<String> {
    let output = fjord(directory, &["check", "--online", "--role", "worker"]);
    let lines = text(&output.stderr);
    let lines = lines.lines().filter(|line| line.contains("returns"));
    let line = |line: &str| {
        assert!(line.starts_with("warning: worker: database default ("), "{line}");
        line.split_once("): ").expect("the name of the database").1.to_owned()
    };
    lines.map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_difference_is_a_warning_with_endpoint_and_column() {
    let database = EmbeddedDatabase::new(&PROCEDURES);
    let catalogue = json!({
        "get": { "route": "GET /get/{ueln}", "procedure": "stud.horse_get", "auth": "public", "result": "row",
            "parameters": { "ueln": { "in": "path", "type": "string" } },
            "returns": {
                "ueln": { "type": "int32" }, "name": { "type": "string" }, "date": { "type": "date" },
                "height": { "type": "json" }, "alive": { "type": "boolean", "nullable": true } } },
        // The id of a row is never NULL, although the table does not declare it NOT NULL.
        "visits": { "route": "GET /visits", "procedure": "stud.visit_list", "auth": "public", "result": "rows",
            "returns": { "id": { "type": "int64" }, "horse": { "type": "string" } } },
        "move": { "route": "POST /move", "procedure": "stud.horse_move", "auth": "public", "result": "full",
            "outputs": ["owner", "x"],
            "returns": { "sets": [{ "born": { "type": "datetime" } }], "outputs": { "owner": { "type": "uuid" } } } },
        "count": { "route": "GET /count", "procedure": "stud.horse_list", "auth": "public", "result": "value",
            "returns": { "value": { "type": "boolean" } } } });
    let file = database.directory.path().join("endpoints/all.json");
    fs::write(&file, catalogue.to_string()).expect("the file can be written");
    assert_eq!(
        drift(database.directory.path()),
        [
            "endpoint \"count\": returns.value.type: the catalogue says boolean, but the database returns TEXT: \
             expected string or uuid or date or time or datetime",
            "endpoint \"get\": returns.date: the database does not return this column: it returns ueln, name, born, height, alive",
            "endpoint \"get\": returns.name.nullable: the column can be NULL in the database: expected true",
            "endpoint \"get\": returns.ueln.type: the catalogue says int32, but the database returns TEXT: \
             expected string or uuid or date or time or datetime",
            "endpoint \"get\": returns: the column born (DATE), which the database returns, is not declared",
            "endpoint \"move\": returns.outputs.owner.type: the catalogue says uuid, but the database returns INTEGER: \
             expected int64 or int32 or decimal or number",
            "endpoint \"move\": returns.sets: the catalogue says 1, but the database returns 2 result sets",
            "endpoint \"move\": returns.sets[0].born.type: the catalogue says datetime, but the database returns DATE: \
             expected date or string",
        ]
    );
}

fn describe(endpoint: &FakeSqlServer, procedure: &str, columns: Option<&str>) {
    let mut results = endpoint.state.result_sets.lock().expect("not poisoned");
    results.insert(format!("fjord_test.{procedure}"), columns.map(ToOwned::to_owned));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_import_describes_answers_of_sql_server() {
    let endpoint = fake_server().await.fake.expect("this is the fake server");
    describe(
        &endpoint,
        "thing_get",
        Some(
            "id int, name nvarchar(50) NULL, price decimal(9, 2), at datetime2(3) NULL, - bigint NULL, place geography NULL",
        ),
    );
    describe(&endpoint, "thing_list", None);
    let directory = directory(&on_endpoint(&endpoint));
    let (entries, said) = import(directory.path(), &["fjord_test.thing_*"]);
    assert_eq!(
        entries["thing-get"]["returns"],
        json!({
            "id": { "type": "int32" }, "name": { "type": "string", "nullable": true }, "price": { "type": "decimal" },
            "at": { "type": "datetime", "nullable": true }, "column_5": { "type": "int64", "nullable": true },
            "place": { "type": "json" } })
    );
    assert!(entries["thing-list"].get("returns").is_none());
    let untyped = "untyped: fjord_test.thing_list: The metadata could not be determined";
    assert!(said.contains(untyped), "{said}");
    let calls = endpoint.state.described.lock().expect("not poisoned").clone();
    assert_eq!(
        calls,
        [
            "EXEC [fjord_test].[thing_add] @name = @name",
            "EXEC [fjord_test].[thing_get] @id = @id",
            "EXEC [fjord_test].[thing_list]"
        ]
    );
    assert!(endpoint.state.ran.lock().expect("not poisoned").is_empty(), "no procedure ran");

    // The procedure has an OUTPUT parameter, and its name contains no known verb.
    let (entries, _) = import(directory.path(), &["fjord_test.echo_int"]);
    assert_eq!(
        entries["echo-int"]["returns"],
        json!({
            "sets": [{ "v": { "type": "int32", "nullable": true } }],
            "outputs": { "out": { "type": "int32", "nullable": true } } })
    );

    // The procedure changes.
    let (entries, _) = import(directory.path(), &["fjord_test.thing_get"]);
    let file = directory.path().join("endpoints/things.json");
    fs::write(&file, entries.to_string()).expect("the file can be written");
    assert_eq!(drift(directory.path()), Vec::<String>::new());
    let columns = "id int NULL, name nvarchar(50) NULL, price nvarchar(20), at datetime2(3), - bigint, place int";
    describe(&endpoint, "thing_get", Some(columns));
    assert_eq!(
        drift(directory.path()),
        [
            "endpoint \"thing-get\": returns.id.nullable: the column can be NULL in the database: expected true",
            "endpoint \"thing-get\": returns.price.type: the catalogue says decimal, but the database returns \
             nvarchar(20): expected string",
        ]
    );
    describe(&endpoint, "thing_get", None);
    let lines = drift(directory.path());
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0]
            .contains("returns: not compared, because the database does not describe the result"),
        "{lines:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_procedure_that_is_not_described_in_time_does_not_spoil_the_others() {
    let endpoint = fake_server().await.fake.expect("this is the fake server");
    for procedure in ["thing_get", "thing_list"] {
        describe(&endpoint, procedure, Some("id int"));
    }
    let never = "fjord_test.thing_add".to_owned();
    endpoint.state.never_described.lock().expect("not poisoned").push(never);
    let directory = directory(&on_endpoint(&endpoint));
    let (entries, said) = import(directory.path(), &["fjord_test.thing_*"]);
    for id in ["thing-get", "thing-list"] {
        assert_eq!(entries[id]["returns"], json!({ "id": { "type": "int32" } }), "{said}");
    }
    assert!(entries["thing-add"].is_object() && entries["thing-add"].get("returns").is_none());
    assert_eq!(said.matches("untyped: ").count(), 1, "{said}");
    assert!(said.contains("untyped: fjord_test.thing_add: no answer within 5.0s\n"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_names_the_endpoints_that_the_database_does_not_describe_in_time() {
    let endpoint = fake_server().await.fake.expect("this is the fake server");
    let names = ["thing_get", "thing_list", "thing_add"];
    for procedure in names {
        describe(&endpoint, procedure, Some("id int"));
    }
    let directory = directory(&on_endpoint(&endpoint));
    let (entries, _) = import(directory.path(), &["fjord_test.thing_*"]);
    let file = directory.path().join("endpoints/things.json");
    fs::write(&file, entries.to_string()).expect("the file can be written");
    describe(&endpoint, "thing_get", Some("id bigint"));
    let hanging = ["fjord_test.thing_list", "fjord_test.thing_add"].map(str::to_owned);
    endpoint.state.never_described.lock().expect("not poisoned").extend(hanging);
    let lines = drift(directory.path());
    assert_eq!(lines.len(), 2, "{lines:?}");
    let changed = "endpoint \"thing-get\": returns.id.type: the catalogue says int32";
    assert!(lines[0].starts_with(changed), "{lines:?}");
    let start = "returns of 2 endpoints were not compared (endpoint \"thing-add\", endpoint \"thing-list\"): no answer within ";
    assert!(lines[1].starts_with(start), "{lines:?}");

    // Errors that the database reports do not mean that it cannot be reached.
    endpoint.state.never_described.lock().expect("not poisoned").clear();
    for procedure in names {
        describe(&endpoint, procedure, None);
    }
    let lines = drift(directory.path());
    let ids = ["thing-add", "thing-get", "thing-list"];
    for (line, id) in lines.iter().zip(ids) {
        let start = format!("endpoint \"{id}\": returns: not compared, because the database does");
        assert!(line.starts_with(&start), "{lines:?}");
    }
    assert_eq!(lines.len(), 3, "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_on_sql_server_is_a_rolled_back_call() {
    let endpoint = fake_server().await.fake.expect("this is the fake server");
    for procedure in ["thing_get", "thing_list", "thing_add"] {
        describe(&endpoint, procedure, None);
    }
    let directory = directory(&on_endpoint(&endpoint));
    let (entries, said) = import(directory.path(), &["fjord_test.thing_*", "--sample"]);
    let things = json!({ "id": { "type": "int64", "nullable": true }, "name": { "type": "string", "nullable": true } });
    assert_eq!(entries["thing-list"]["returns"], things);
    // `thing_get` fails without an id.
    assert!(said.contains("untyped: fjord_test.thing_get: The metadata"), "{said}");
    assert!(said.contains("; the sample failed: "), "{said}");
    assert!(entries["thing-add"].get("returns").is_none());
    let mut ran = endpoint.state.ran.lock().expect("not poisoned").clone();
    ran.sort();
    assert_eq!(
        ran,
        ["fjord_test.thing_get", "fjord_test.thing_list"],
        "the others are not imported as GET"
    );
    assert!(endpoint.state.rollbacks.load(std::sync::atomic::Ordering::Acquire) >= 1);
    assert_eq!(endpoint.state.audit.count("listed"), 0, "the insert was rolled back");
}
