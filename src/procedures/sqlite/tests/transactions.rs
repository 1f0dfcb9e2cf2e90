//! Tests the effect of a call on the database with each kind of transaction.

use super::*;

async fn run(
    stable: &Stable,
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
    stable.backend.call(call, &mut CollectedSets::default(), &Cancel::new()).await
}

#[tokio::test]
async fn a_call_is_atomic_with_every_kind_of_transaction() {
    let insert = "INSERT INTO horse (id, name) VALUES (100, 'New');";
    for (transaction, stays) in [
        (Transaction::None, true),
        (Transaction::Committed, true),
        (Transaction::RolledBack, false),
    ] {
        let stable = Stable::new(&[
            ("fails", &format!("{insert} INSERT INTO horse (name) VALUES ('Aisha')")),
            ("inserts", &format!("{insert} SELECT 1 AS a")),
            ("count", "SELECT count(*) FROM horse"),
        ]);
        let error = sent(run(&stable, "fails", transaction).await.unwrap_err());
        assert!(error.is_rolled_back, "{transaction:?}");
        assert_eq!(stable.rows("count", &[]).await, [[OwnedCell::Int(2)]], "{transaction:?}");
        run(&stable, "inserts", transaction).await.unwrap();
        let rows = OwnedCell::Int(2 + i64::from(stays));
        assert_eq!(stable.rows("count", &[]).await, [[rows]], "{transaction:?}");
    }
}
