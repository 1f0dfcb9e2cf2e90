//! Tests the effect of a call on the database with each kind of transaction.

use super::*;

async fn run(
    database: &TestDatabase,
    name: &str,
    transaction: Transaction,
) -> Result<ProcedureResult, CallError> {
    let call = Call {
        queue: &QueueName::new("test").unwrap(),
        procedure: &ProcedureName::new(&format!("t.{name}")).unwrap(),
        arguments: &[],
        session: SessionContext::default(),
        deadline: Instant::now() + Duration::from_secs(20),
        may_repeat: false,
        transaction,
    };
    database.backend.call(call, &mut CollectedSets::default(), &Cancel::new()).await
}

#[tokio::test]
async fn without_a_transaction_each_statement_commits_by_itself() {
    let insert = "INSERT INTO horse (id, name) VALUES (100, 'New');";
    for (transaction, after_failure, after_success) in
        [(Transaction::None, 3, 3), (Transaction::Committed, 2, 3), (Transaction::RolledBack, 2, 2)]
    {
        for failure in ["INSERT INTO horse (name) VALUES ('Aisha')", "SELECT throw(50400, 'no')"] {
            let database = TestDatabase::new(&[
                ("fails", &format!("{insert} {failure}")),
                ("count", "SELECT count(*) FROM horse"),
            ]);
            let error = sent(run(&database, "fails", transaction).await.unwrap_err());
            assert_eq!(error.is_rolled_back, transaction != Transaction::None, "{transaction:?}");
            let rows = database.rows("count", &[]).await;
            assert_eq!(rows, [[OwnedCell::Int(after_failure)]], "{transaction:?} {failure}");
        }
        let database = TestDatabase::new(&[
            ("inserts", &format!("{insert} SELECT 1 AS a")),
            ("count", "SELECT count(*) FROM horse"),
        ]);
        run(&database, "inserts", transaction).await.unwrap();
        let rows = database.rows("count", &[]).await;
        assert_eq!(rows, [[OwnedCell::Int(after_success)]], "{transaction:?}");
    }
}

/// The rules of SQL Server's `@@TRANCOUNT`. Each case ends with the number of rows in the table
/// after the call.
#[tokio::test]
async fn a_procedure_begins_and_ends_transactions_as_on_sql_server() {
    let insert = "INSERT INTO horse (id, name) VALUES (100, 'New')";
    let open = format!("BEGIN TRAN; {insert}");
    let cases = [
        (format!("{open}; COMMIT"), None, 3),
        (format!("{open}; ROLLBACK"), None, 2),
        (format!("{open}; ROLLBACK; SELECT 1; {insert}"), None, 3),
        // Only the outermost COMMIT counts, and a ROLLBACK ends all transactions.
        (format!("BEGIN TRAN; {open}; COMMIT; ROLLBACK"), None, 2),
        (format!("BEGIN TRAN; {open}; ROLLBACK; COMMIT"), Some(3902), 2),
        (format!("{insert}; COMMIT"), Some(3902), 3),
        (format!("{insert}; ROLLBACK"), Some(3903), 3),
        (open.clone(), Some(266), 2),
        (format!("{open}; SELECT 1 AS \"@return\"; COMMIT"), Some(266), 2),
        (format!("{open}; SELECT throw(50400, 'no'); COMMIT"), Some(50400), 2),
    ];
    for (sql, number, rows) in cases {
        let database = TestDatabase::with_connections(
            &[("runs", &sql), ("count", "SELECT count(*) FROM horse")],
            1,
        );
        let raised = match run(&database, "runs", Transaction::None).await {
            Ok(_) => None,
            Err(error) => match sent(error).kind {
                SentErrorKind::Server { number, .. } | SentErrorKind::User { number, .. } => {
                    Some(number)
                }
                other => panic!("{sql}: {other}"),
            },
        };
        assert_eq!(raised, number, "{sql}");
        assert_eq!(database.rows("count", &[]).await, [[OwnedCell::Int(rows)]], "{sql}");
    }
}

#[tokio::test]
async fn a_procedure_cannot_end_the_transaction_of_the_worker() {
    let insert = "INSERT INTO horse (id, name) VALUES (100, 'New')";
    for (sql, number, rows) in [
        (format!("{insert}; COMMIT"), Some(266), 2),
        (format!("{insert}; ROLLBACK"), Some(266), 2),
        (format!("BEGIN TRAN; {insert}; ROLLBACK"), Some(266), 2),
        (format!("BEGIN TRAN; {insert}; COMMIT"), None, 3),
    ] {
        let database =
            TestDatabase::new(&[("runs", &sql), ("count", "SELECT count(*) FROM horse")]);
        let raised = match run(&database, "runs", Transaction::Committed).await {
            Ok(_) => None,
            Err(error) => match sent(error).kind {
                SentErrorKind::Server { number, .. } => Some(number),
                other => panic!("{sql}: {other}"),
            },
        };
        assert_eq!(raised, number, "{sql}");
        assert_eq!(database.rows("count", &[]).await, [[OwnedCell::Int(rows)]], "{sql}");
    }
}
