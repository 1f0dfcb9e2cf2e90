//! Tests calls that are interrupted, wait for each other, or start at the same time.

use super::*;

const ENDLESS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
                       SELECT count(*) AS \"@count\" FROM n";
const FLOOD: &str =
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";

#[tokio::test]
async fn a_cancel_stops_a_call_within_100_ms() {
    for sql in [ENDLESS, FLOOD, "SELECT sleep_ms(60000) AS \"@slept\""] {
        let sql =
            format!("BEGIN TRANSACTION; INSERT INTO horse (name) VALUES ('Gone'); {sql}; COMMIT");
        let count = ("count", "SELECT count(*) FROM horse");
        let database = TestDatabase::with_connections(&[("slow", &sql), count], 1);
        let cancel = Cancel::new();
        let mut seen = CollectedSets::default();
        let until = (Duration::from_secs(20), &cancel, &mut seen);
        let running = call(&*database.backend, "slow", &[], until);
        let client = async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            cancel.cancel();
            Instant::now()
        };
        let (result, given) = tokio::join!(running, client);
        assert!(given.elapsed() < Duration::from_millis(100), "{:?} {sql}", given.elapsed());
        assert_eq!(sent(result.unwrap_err()).kind, SentErrorKind::Cancelled, "{sql}");
        assert_eq!(database.rows("count", &[]).await, vec![vec![OwnedCell::Int(2)]], "{sql}");
    }
}

#[tokio::test]
async fn a_call_ends_by_its_deadline() {
    for sql in [ENDLESS, FLOOD, "SELECT sleep_ms(60000) AS slept"] {
        let database = TestDatabase::with_connections(&[("slow", sql)], 1);
        let (cancel, mut seen) = (Cancel::new(), CollectedSets::default());
        let started = Instant::now();
        let until = (Duration::from_millis(150), &cancel, &mut seen);
        let error = call(&*database.backend, "slow", &[], until).await.unwrap_err();
        assert_eq!(sent(error).kind, SentErrorKind::TimedOut, "{sql}");
        assert!(started.elapsed() < Duration::from_millis(300), "{sql}");
    }
}

#[tokio::test]
async fn a_call_that_gets_no_connection_or_write_lock_in_time_executes_nothing() {
    let slow = (
        "slow",
        "BEGIN TRANSACTION; INSERT INTO horse (name) VALUES ('S');
         SELECT sleep_ms(60000) AS s; COMMIT",
    );
    let write = ("write", "INSERT INTO horse (name) VALUES ('W')");
    let count = ("count", "SELECT count(*) FROM horse");
    for connections in [1, 2] {
        let database = TestDatabase::with_connections(&[slow, write, count], connections);
        // Simulates another process: this backend has its own pool and its own write permit.
        let other = connect(&config(database.directory.path(), 1), "other").unwrap();
        let (cancel, mut first, mut second, mut third) = (
            Cancel::new(),
            CollectedSets::default(),
            CollectedSets::default(),
            CollectedSets::default(),
        );
        let until = (Duration::from_secs(20), &cancel, &mut first);
        let holder = call(&*database.backend, "slow", &[], until);
        let waiters = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let never = Cancel::new();
            let until = (Duration::from_millis(100), &never, &mut second);
            let error = call(&*database.backend, "write", &[], until).await.unwrap_err();
            assert_eq!(unsent(error), BackendErrorKind::PoolTimedOut, "{connections}");
            let until = (Duration::from_millis(200), &never, &mut third);
            let error = call(&*other, "write", &[], until).await.unwrap_err();
            assert_eq!(unsent(error), BackendErrorKind::PoolTimedOut, "{connections}");
            cancel.cancel();
        };
        let (held, ()) = tokio::join!(holder, waiters);
        assert_eq!(sent(held.unwrap_err()).kind, SentErrorKind::Cancelled);
        assert_eq!(database.rows("count", &[]).await, vec![vec![OwnedCell::Int(2)]]);
    }
}

#[tokio::test]
async fn an_open_transaction_of_a_call_whose_answer_is_too_large_is_rolled_back() {
    let flood = format!(
        "BEGIN TRANSACTION; INSERT INTO horse (name) VALUES ('Gone'); {FLOOD}; COMMIT TRANSACTION"
    );
    let count = ("count", "SELECT count(*) FROM horse");
    let database = TestDatabase::with_connections(&[("flood", &flood), count], 1);
    let (cancel, mut seen) =
        (Cancel::new(), CollectedSets { rows_max: Some(5000), ..CollectedSets::default() });
    let until = (Duration::from_secs(20), &cancel, &mut seen);
    let error = call(&*database.backend, "flood", &[], until).await.unwrap_err();
    assert_eq!(sent(error).kind, SentErrorKind::Sink(SinkError::TooLarge));
    assert!(seen.drains >= 3, "{}", seen.drains);
    assert_eq!(database.rows("count", &[]).await, vec![vec![OwnedCell::Int(2)]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_lose_no_update() {
    let write = ("write", "INSERT INTO horse (name) VALUES ('h' || @n)");
    let database = TestDatabase::new(&[write, ("count", "SELECT count(*) FROM horse")]);
    let other = connect(&config(database.directory.path(), 2), "other").unwrap();
    let calls = (0..200).map(|n| {
        let backend: &dyn Backend = if n % 2 == 0 { &*database.backend } else { &*other };
        async move {
            let (cancel, mut seen) = (Cancel::new(), CollectedSets::default());
            call(backend, "write", &[int("n", n)], (Duration::from_secs(20), &cancel, &mut seen))
                .await
        }
    });
    for result in futures_util::future::join_all(calls).await {
        result.unwrap();
    }
    assert_eq!(database.rows("count", &[]).await, vec![vec![OwnedCell::Int(202)]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_schema_of_a_new_database_is_executed_once() {
    let database = TestDatabase::new(&[("count", "SELECT count(*) FROM horse")]);
    let others: Vec<_> =
        (0..4).map(|_| connect(&config(database.directory.path(), 2), "o").unwrap()).collect();
    for result in futures_util::future::join_all(others.iter().map(|other| other.ping())).await {
        result.unwrap();
    }
    assert_eq!(database.rows("count", &[]).await, vec![vec![OwnedCell::Int(2)]]);
}

#[tokio::test]
async fn a_failed_schema_is_rolled_back() {
    let database = TestDatabase::new(&[("count", "SELECT count(*) FROM horse")]);
    let schema = database.directory.path().join("schema.sql");
    std::fs::write(&schema, format!("{SCHEMA} INSERT INTO nowhere VALUES (1);")).unwrap();
    assert_eq!(database.backend.ping().await.unwrap_err().kind, BackendErrorKind::Unavailable);
    std::fs::write(&schema, SCHEMA).unwrap();
    assert_eq!(database.rows("count", &[]).await, vec![vec![OwnedCell::Int(2)]]);
}

#[tokio::test]
async fn close_cancels_running_calls_and_refuses_new_ones() {
    let slow = format!("INSERT INTO horse (name) VALUES ('Started'); {ENDLESS}");
    let count = ("count", "SELECT count(*) FROM horse WHERE name = 'Started'");
    let database = TestDatabase::new(&[("slow", &slow), count]);
    let closer = async {
        let limit = Instant::now() + Duration::from_secs(10);
        while database.rows("count", &[]).await != [[OwnedCell::Int(1)]] {
            assert!(Instant::now() < limit, "the call does not start");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        database.backend.close().await;
    };
    let ((result, _), ()) = tokio::join!(database.call("slow", &[]), closer);
    assert_eq!(sent(result.unwrap_err()).kind, SentErrorKind::Cancelled);
    let (result, _) = database.call("slow", &[]).await;
    assert_eq!(unsent(result.unwrap_err()), BackendErrorKind::Unavailable);
}

#[tokio::test]
async fn a_ping_of_a_busy_database_succeeds_at_once() {
    let database = TestDatabase::with_connections(&[("slow", ENDLESS)], 2);
    let cancel = Cancel::new();
    let (mut one, mut other) = (CollectedSets::default(), CollectedSets::default());
    let long = Duration::from_secs(20);
    let calls = async {
        tokio::join!(
            call(&*database.backend, "slow", &[], (long, &cancel, &mut one)),
            call(&*database.backend, "slow", &[], (long, &cancel, &mut other)),
        )
    };
    let ping = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let started = Instant::now();
        let answer = tokio::time::timeout(Duration::from_secs(5), database.backend.ping()).await;
        cancel.cancel();
        answer.expect("the call is answered before it ends").unwrap();
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    };
    let (ended, ()) = tokio::join!(calls, ping);
    for result in [ended.0, ended.1] {
        assert_eq!(
            sent(result.unwrap_err()).kind,
            SentErrorKind::Cancelled,
            "the call ended early"
        );
    }
}
