//! Tests the `SQLite` backend with database files in a temporary directory.
//!
//! The file is longer than 400 lines, because the cases share the functions at its beginning.

use std::path::Path;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::catalogue::{ParameterType, ParameterValue, QueueName};
use crate::procedures::{
    Argument, Cell, OwnedCell, SentError, ServerErrorClass, SessionContext, SinkError, Transaction,
};

mod interruptions;
mod replaced_files;
mod sql_server_rules;
mod transactions;

const SCHEMA: &str = "
    CREATE TABLE horse (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
        alive BOOLEAN, price DECIMAL TEXT (9, 2), dam INTEGER REFERENCES horse (id));
    CREATE TABLE breed (id INTEGER PRIMARY KEY, name TEXT COLLATE CI_AS UNIQUE);
    CREATE TABLE price (exact DECIMAL TEXT (9, 2), stored DECIMAL(9, 2), amount MONEY);
    CREATE TABLE [odd \"table] ([the code] VARCHAR(4), note NVARCHAR(2));
    INSERT INTO horse VALUES (1, 'Aisha', 1, '1234567890.10', NULL), (2, 'Balou', 0, NULL, 1);";

struct TestDatabase {
    directory: TempDir,
    backend: Arc<dyn Backend>,
}

fn config(directory: &Path, connections_max: usize) -> SqliteConfig {
    SqliteConfig {
        file: directory.join("new/stable.db"),
        schema: Some(directory.join("schema.sql")),
        procedures: directory.to_owned(),
        connections_max,
    }
}

impl TestDatabase {
    fn with_connections(procedures: &[(&str, &str)], connections_max: usize) -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("schema.sql"), SCHEMA).unwrap();
        for (name, text) in procedures {
            std::fs::write(directory.path().join(format!("t.{name}.sql")), text).unwrap();
        }
        let backend = connect(&config(directory.path(), connections_max), "test").unwrap();
        Self { directory, backend }
    }

    fn new(procedures: &[(&str, &str)]) -> Self {
        Self::with_connections(procedures, 4)
    }

    async fn call(
        &self,
        name: &str,
        arguments: &[Argument],
    ) -> (Result<ProcedureResult, CallError>, CollectedSets) {
        let mut seen = CollectedSets::default();
        let cancel = Cancel::new();
        let result =
            call(&*self.backend, name, arguments, (Duration::from_secs(20), &cancel, &mut seen));
        (result.await, seen)
    }

    /// Calls a procedure, which must succeed, and returns its rows.
    async fn rows(&self, name: &str, arguments: &[Argument]) -> Vec<Vec<OwnedCell>> {
        let (result, seen) = self.call(name, arguments).await;
        result.unwrap();
        seen.sets.into_iter().flat_map(|(_, rows)| rows).collect()
    }
}

#[track_caller]
fn sent(error: CallError) -> SentError {
    match error {
        CallError::Sent(error) => error,
        CallError::NotSent(error) => panic!("the call was not sent: {error}"),
    }
}

#[track_caller]
fn unsent(error: CallError) -> BackendErrorKind {
    match error {
        CallError::Sent(error) => panic!("the call was sent: {error}"),
        CallError::NotSent(error) => error.kind,
    }
}

async fn call(
    backend: &dyn Backend,
    name: &str,
    arguments: &[Argument],
    (budget, cancel, seen): (Duration, &Cancel, &mut CollectedSets),
) -> Result<ProcedureResult, CallError> {
    let queue = QueueName::new("test").unwrap();
    let procedure = ProcedureName::new(&format!("t.{name}")).unwrap();
    let deadline = Instant::now() + budget;
    backend
        .call(
            Call {
                queue: &queue,
                procedure: &procedure,
                arguments,
                session: SessionContext::default(),
                deadline,
                may_repeat: false,
                transaction: Transaction::None,
            },
            seen,
            cancel,
        )
        .await
}

/// A sink that collects the rows of a call.
#[derive(Default)]
struct CollectedSets {
    sets: Vec<(Vec<String>, Vec<Vec<OwnedCell>>)>,
    rows_max: Option<usize>,
    rows: usize,
    drains: usize,
    gathered: usize,
}

impl RowSink for CollectedSets {
    fn begin_set(&mut self, columns: &[String]) -> Result<(), SinkError> {
        self.sets.push((columns.to_vec(), Vec::new()));
        Ok(())
    }

    fn row(&mut self, cells: &[Cell<'_>]) -> Result<(), SinkError> {
        self.rows += 1;
        self.gathered += 1;
        if self.rows_max.is_some_and(|limit| self.rows > limit) {
            return Err(SinkError::TooLarge);
        }
        let row = cells.iter().map(|cell| match *cell {
            Cell::Null => OwnedCell::Null,
            Cell::Bool(value) => OwnedCell::Bool(value),
            Cell::Int(value) => OwnedCell::Int(value),
            Cell::Float(value) => OwnedCell::Float(value),
            Cell::Number(text) => OwnedCell::Number(text.to_owned()),
            Cell::Json(text) => OwnedCell::Json(text.to_owned()),
            Cell::Text(text) => OwnedCell::Text(text.to_owned()),
            Cell::Binary(bytes) => OwnedCell::Binary(bytes.to_vec()),
        });
        self.sets.last_mut().unwrap().1.push(row.collect());
        Ok(())
    }

    fn restart(&mut self) -> bool {
        false
    }

    fn is_full(&self) -> bool {
        self.gathered >= 1000
    }

    fn drain(&mut self) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(async {
            tokio::task::yield_now().await;
            self.gathered = 0;
            self.drains += 1;
            Ok(())
        })
    }
}

fn argument(name: &str, kind: ParameterType, value: ParameterValue<'static>) -> Argument {
    Argument { name: name.into(), kind, value, columns: Arc::new([]), table_type: None }
}

fn int(name: &str, value: i64) -> Argument {
    argument(name, ParameterType::Int64, ParameterValue::Integer(value))
}

fn text(value: &str) -> OwnedCell {
    OwnedCell::Text(value.to_owned())
}

#[tokio::test]
async fn a_result_set_has_the_types_of_its_columns() {
    let database = TestDatabase::new(&[(
        "all",
        "SELECT id, name, alive, price, dam FROM horse ORDER BY id;
         SELECT 1.5 AS real, x'00ff' AS bytes, '7.10' AS \"sum:decimal\", 1 AS \"yes:boolean\" WHERE 1;
         SELECT 1 AS none WHERE 0",
    )]);
    let (result, seen) = database.call("all", &[]).await;
    assert_eq!(result.unwrap(), ProcedureResult::default());
    let horses = vec![
        vec![
            OwnedCell::Int(1),
            text("Aisha"),
            OwnedCell::Bool(true),
            OwnedCell::Number("1234567890.10".into()),
            OwnedCell::Null,
        ],
        vec![
            OwnedCell::Int(2),
            text("Balou"),
            OwnedCell::Bool(false),
            OwnedCell::Null,
            OwnedCell::Int(1),
        ],
    ];
    let others = vec![vec![
        OwnedCell::Float(1.5),
        OwnedCell::Binary(vec![0, 255]),
        OwnedCell::Number("7.10".into()),
        OwnedCell::Bool(true),
    ]];
    let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        seen.sets,
        vec![
            (names(&["id", "name", "alive", "price", "dam"]), horses),
            (names(&["real", "bytes", "sum", "yes"]), others),
            (names(&["none"]), vec![]),
        ]
    );
}

#[tokio::test]
async fn a_value_of_every_type_is_passed_and_an_absent_argument_is_null() {
    let database = TestDatabase::new(&[("in", "SELECT @v AS v, typeof(@v) AS t, :absent AS a")]);
    let big = i64::MAX;
    let cases = [
        (
            ParameterType::String,
            ParameterValue::Text("O'Hara; DROP".into()),
            text("O'Hara; DROP"),
            "text",
        ),
        (ParameterType::Int32, ParameterValue::Integer(-7), OwnedCell::Int(-7), "integer"),
        (ParameterType::Int64, ParameterValue::Integer(big), OwnedCell::Int(big), "integer"),
        (ParameterType::Number, ParameterValue::Number(0.1), OwnedCell::Float(0.1), "real"),
        (ParameterType::Decimal, ParameterValue::Decimal("0.10".into()), text("0.10"), "text"),
        (ParameterType::Boolean, ParameterValue::Boolean(true), OwnedCell::Int(1), "integer"),
        (ParameterType::Uuid, ParameterValue::Text("0b".into()), text("0b"), "text"),
        (
            ParameterType::Date,
            ParameterValue::Text("2026-01-02".into()),
            text("2026-01-02"),
            "text",
        ),
        (
            ParameterType::Binary,
            ParameterValue::Binary(Bytes::from_static(b"\0a")),
            OwnedCell::Binary(b"\0a".to_vec()),
            "blob",
        ),
        (ParameterType::Json, ParameterValue::Json("{\"a\":1}".into()), text("{\"a\":1}"), "text"),
        (ParameterType::String, ParameterValue::Null, OwnedCell::Null, "null"),
    ];
    for (kind, value, expected, stored) in cases {
        let rows = database.rows("in", &[argument("v", kind, value)]).await;
        assert_eq!(rows, vec![vec![expected, text(stored), OwnedCell::Null]], "{kind:?}");
    }
}

#[tokio::test]
async fn a_table_can_be_read_with_json_each() {
    let database = TestDatabase::new(&[(
        "table",
        "SELECT r.value ->> 'n' AS n, r.value ->> 'd' AS d, r.value ->> 'b' AS b, r.value -> 'j' AS j
         FROM json_each(@rows) AS r",
    )]);
    let columns = [
        ("n", ParameterType::Int64),
        ("d", ParameterType::Decimal),
        ("b", ParameterType::Binary),
        ("j", ParameterType::Json),
    ];
    let rows = vec![
        vec![
            ParameterValue::Integer(i64::MIN),
            ParameterValue::Decimal("0.10".into()),
            ParameterValue::Binary(Bytes::from_static(b"hi")),
            ParameterValue::Json("[1,2]".into()),
        ],
        vec![
            ParameterValue::Null,
            ParameterValue::Null,
            ParameterValue::Null,
            ParameterValue::Null,
        ],
    ];
    let table = Argument {
        columns: columns.iter().map(|(name, kind)| ((*name).into(), *kind)).collect(),
        ..argument("rows", ParameterType::Table, ParameterValue::Table(rows))
    };
    let null = OwnedCell::Null;
    assert_eq!(
        database.rows("table", &[table]).await,
        vec![
            vec![OwnedCell::Int(i64::MIN), text("0.10"), text("aGk="), text("[1,2]")],
            vec![null.clone(), null.clone(), null, text("null")],
        ]
    );
}

#[tokio::test]
async fn variables_become_outputs_and_a_return_ends_the_procedure() {
    let database = TestDatabase::new(&[(
        "flow",
        "SELECT coalesce(@limit, 5) AS \"@limit\", '1.50' AS \"@sum:decimal\";
         SELECT 3 AS \"@return\" WHERE @limit > 10;
         INSERT INTO horse (name) VALUES ('n' || @limit);
         SELECT last_insert_rowid() AS \"@id\"",
    )]);
    let (result, seen) = database.call("flow", &[]).await;
    let output = |name: &str, cell| (name.to_owned(), cell);
    let sum = output("sum", OwnedCell::Number("1.50".into()));
    assert_eq!(
        result.unwrap(),
        ProcedureResult {
            outputs: vec![
                output("limit", OwnedCell::Int(5)),
                sum.clone(),
                output("id", OwnedCell::Int(3))
            ],
            return_status: 0
        }
    );
    assert!(seen.sets.is_empty());
    let (result, _) = database.call("flow", &[int("limit", 11)]).await;
    let outputs = vec![output("limit", OwnedCell::Int(11)), sum];
    assert_eq!(result.unwrap(), ProcedureResult { outputs, return_status: 3 });
}

#[tokio::test]
async fn a_failed_call_has_its_error_kind_and_keeps_what_was_committed() {
    let insert = "INSERT INTO horse (id, name) VALUES (100, 'Gone');";
    let server = |number, class| SentErrorKind::Server { number, class };
    let cases = [
        (
            "user",
            "SELECT throw(50409, 'already ' || 'sold') AS \"@check\"",
            SentErrorKind::User { number: 50409, message: "already sold".into() },
        ),
        (
            "unique",
            "INSERT INTO horse (name) VALUES ('Aisha')",
            server(2067, ServerErrorClass::Conflict),
        ),
        (
            "key",
            "INSERT INTO horse (id, name) VALUES (1, 'X')",
            server(1555, ServerErrorClass::Conflict),
        ),
        (
            "foreign",
            "INSERT INTO horse (name, dam) VALUES ('X', 77)",
            server(787, ServerErrorClass::Conflict),
        ),
        (
            "null",
            "INSERT INTO horse (name) VALUES (NULL)",
            server(1299, ServerErrorClass::BadValue),
        ),
        (
            "type",
            "INSERT INTO horse (id, name) VALUES ('abc', 'X')",
            server(20, ServerErrorClass::BadValue),
        ),
        ("json", "SELECT json('{')", server(1, ServerErrorClass::Other)),
        ("small", "SELECT throw(49999, 'x')", server(1, ServerErrorClass::Other)),
        (
            "bool",
            "SELECT 2 AS \"a:boolean\"",
            SentErrorKind::Undecodable("column a: a boolean is neither 0 nor 1".into()),
        ),
        (
            "infinite",
            "SELECT 9e999 AS a",
            SentErrorKind::Undecodable("column a: a number is not finite".into()),
        ),
    ];
    for (name, sql, expected) in cases {
        let count = ("count", "SELECT count(*) FROM horse");
        let database =
            TestDatabase::with_connections(&[(name, &format!("{insert}{sql}")), count], 1);
        let (result, _) = database.call(name, &[]).await;
        let error = sent(result.unwrap_err());
        assert_eq!(error.kind, expected, "{name}");
        assert!(!error.is_rolled_back, "{name}");
        assert_eq!(database.rows("count", &[]).await, vec![vec![OwnedCell::Int(3)]], "{name}");
    }
}

async fn verify(database: &TestDatabase, expected: ExpectedProcedure) -> Result<(), BackendError> {
    let mut all = Vec::new();
    database.backend.verify(&[expected], &mut |_, found| all.push(found)).await;
    all.pop().unwrap()
}

#[tokio::test]
async fn a_mismatch_names_what_catalogue_and_procedure_declare() {
    let database = TestDatabase::new(&[
        ("good", "SELECT @a AS a, @b AS b; SELECT 1 AS \"@out\""),
        ("status", "SELECT 1 AS \"@out\"; SELECT 2 AS \"@return\""),
        ("typo", "SELECT nam FROM horse"),
        ("mixed", "SELECT 1 AS a, 2 AS \"@b\""),
        ("positional", "SELECT ?"),
        ("commits", "PRAGMA foreign_keys = 0"),
    ]);
    let expected = |procedure: &str, arguments: &[&str], outputs: &[&str]| ExpectedProcedure {
        queue: QueueName::new("q").unwrap(),
        procedure: ProcedureName::new(&format!("t.{procedure}")).unwrap(),
        arguments: arguments.iter().map(|name| ((*name).into(), ParameterType::Int32)).collect(),
        outputs: outputs.iter().map(ToString::to_string).collect(),
        session_keys: Vec::new(),
    };
    verify(&database, expected("good", &["a", "b"], &["out"])).await.unwrap();
    let cases = [
        (
            expected("good", &["a", "c"], &[]),
            "the catalogue passes @c, but the procedure has @a, @b; the procedure needs @b, but the catalogue passes @a, @c",
        ),
        (
            expected("good", &["a", "b"], &["id"]),
            "the catalogue returns @id, but the procedure sets @out",
        ),
        (
            expected("status", &[], &["return"]),
            "the catalogue returns @return, but the procedure sets @out",
        ),
        (expected("typo", &[], &[]), "no such column: nam"),
        (expected("mixed", &[], &[]), "a statement has both columns and @variables"),
        (expected("positional", &[], &[]), "a parameter has no name"),
        (expected("commits", &[], &[]), "a statement begins with 'PRAGMA'"),
        (expected("missing", &[], &[]), "/t.missing.sql cannot be read"),
    ];
    for (procedure, expected) in cases {
        let error = verify(&database, procedure).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let (result, _) = database.call("good", &[int("c", 1)]).await;
    assert!(matches!(unsent(result.unwrap_err()), BackendErrorKind::Mismatch { .. }));
}
