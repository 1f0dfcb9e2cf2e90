//! Promise: a procedure finds its caller in the session context, which is set in the same round
//! trip as the call. The procedure never reads a value from another call.

use std::sync::atomic::Ordering;

use fjord::catalogue::QueueName;
use fjord::config::procedures::SessionKey;
use fjord::procedures::{
    Argument, BackendErrorKind, ExpectedProcedure, OwnedCell, SentErrorKind, Transaction,
};

use super::{LONG, ProcedureCaller, int, name, sent_error, text, unsent_error};
use crate::support::mssql_server::{SqlServer, fake_server, servers};

/// Returns a caller that has a name.
fn named(server: &SqlServer) -> ProcedureCaller {
    ProcedureCaller { principal: Some("Jörg 𝄞"), ..ProcedureCaller::new(server) }
}

/// Returns the value of a key in the session context of a call.
async fn value(caller: &ProcedureCaller, key: &str) -> OwnedCell {
    caller.call("who", &[text("key", key)]).await.expect("an answer").cell().clone()
}

fn known(value: &str) -> OwnedCell {
    OwnedCell::Text(value.to_owned())
}

/// Returns a caller without a name that uses the same connections.
fn nameless(caller: &ProcedureCaller) -> ProcedureCaller {
    ProcedureCaller { principal: None, session_values: Vec::new(), ..caller.clone() }
}

#[tokio::test]
async fn a_procedure_knows_who_is_calling() {
    for mut server in servers().await {
        server.config.connections_max = 1;
        let caller = named(&server);
        for _ in 0..3 {
            assert_eq!(value(&caller, "principal").await, known("Jörg 𝄞"), "{}", server.name);
            assert_eq!(value(&caller, "request_id").await, known("request-1"));
            assert_eq!(value(&caller, "endpoint").await, known("suite"));
            assert_eq!(value(&caller, "trace_id").await, OwnedCell::Null);
            assert_eq!(value(&nameless(&caller), "principal").await, OwnedCell::Null);
        }
    }
}

#[tokio::test]
async fn values_of_an_endpoint_are_set_and_removed() {
    for mut server in servers().await {
        server.config.connections_max = 1;
        let values: Vec<Argument> = vec![text("tenant", "s7"), int("level", 3)];
        let caller = ProcedureCaller { session_values: values, ..named(&server) };
        assert_eq!(value(&caller, "tenant").await, known("s7"), "{}", server.name);
        assert_eq!(value(&caller, "level").await, known("3"));
        for key in ["tenant", "level"] {
            assert_eq!(value(&nameless(&caller), key).await, OwnedCell::Null, "{}", server.name);
        }
    }
}

#[tokio::test]
async fn no_value_is_left_by_a_call_that_failed_or_was_stopped() {
    for mut server in servers().await {
        server.config.connections_max = 1;
        let caller = named(&server);
        let next = nameless(&caller);
        let process = value(&caller, "principal").await;
        assert_eq!(process, known("Jörg 𝄞"));
        sent_error(caller.call("doubles", &[]).await);
        assert_eq!(value(&next, "principal").await, OwnedCell::Null, "{}: error", server.name);
        let deadline = std::time::Duration::from_millis(200);
        let slow = [int("ms", 1500)];
        let cancel = fjord::lifecycle::Cancel::new();
        let error = sent_error(caller.call_within(deadline, &cancel, "slow", &slow).await);
        assert_eq!(error, SentErrorKind::TimedOut);
        let stopped = next.call_within(LONG, &cancel, "who", &[text("key", "principal")]).await;
        let stopped = stopped.expect("an answer");
        assert_eq!(*stopped.cell(), OwnedCell::Null, "{}: deadline", server.name);
    }
}

/// On Babelfish, a reset keeps the session context.
#[tokio::test]
async fn no_value_is_left_where_a_reset_keeps_the_session_context() {
    let mut server = fake_server().await;
    server.config.connections_max = 1;
    let state = &server.fake.as_ref().expect("the fake server").state;
    state.is_babelfish.store(true, Ordering::Release);
    let values = vec![text("tenant", "s7")];
    let caller = ProcedureCaller { session_values: values, ..named(&server) };
    for _ in 0..2 {
        assert_eq!(value(&caller, "tenant").await, known("s7"));
        assert_eq!(value(&caller, "principal").await, known("Jörg 𝄞"));
        for key in ["tenant", "principal"] {
            assert_eq!(value(&nameless(&caller), key).await, OwnedCell::Null);
        }
    }
    assert_eq!(state.logins(), 1);
}

#[tokio::test]
async fn a_procedure_cannot_change_the_name_of_the_caller() {
    for mut server in servers().await {
        if server.is_babelfish {
            continue;
        }
        server.config.connections_max = 1;
        let caller = named(&server);
        let error = sent_error(caller.call("claims_to_be", &[text("name", "admin")]).await);
        assert!(matches!(error, SentErrorKind::Server { number: 15664, .. }), "{error}");
        // Another call can be made by another caller on the same connection.
        let other = ProcedureCaller { principal: Some("other"), ..caller.clone() };
        assert_eq!(value(&other, "principal").await, known("other"), "{}", server.name);
    }
}

#[tokio::test]
async fn the_context_is_set_with_every_form_of_a_call() {
    for mut server in servers().await {
        server.config.connections_max = 1;
        let caller = named(&server);
        // This message consists of several packets.
        let long = "ä".repeat(9000);
        let answer = caller.call("echo_nvarchar_max", &[text("v", &long)]).await.expect("a text");
        assert_eq!(*answer.cell(), known(&long), "{}", server.name);
        // This call is sent as a statement, which returns the OUTPUT parameters as rows.
        let outputs = [int("given", 1)];
        let answer = caller.call("outputs", &outputs).await.expect("outputs");
        assert_eq!(answer.result.return_status, -3, "{}", server.name);
        // This call runs in a transaction, whose BEGIN is a separate message.
        let within = ProcedureCaller { transaction: Transaction::Committed, ..caller.clone() };
        assert_eq!(value(&within, "principal").await, known("Jörg 𝄞"), "{}", server.name);
        let answer = caller.call("returns", &[int("status", 7)]).await.expect("a status");
        assert_eq!(answer.result.return_status, 7, "{}", server.name);
    }
}

#[tokio::test]
async fn the_facts_about_a_call_can_be_switched_off() {
    let mut server = fake_server().await;
    server.config.session_context = Vec::new();
    let caller = named(&server);
    assert_eq!(value(&caller, "principal").await, OwnedCell::Null);
    // Values that an endpoint declares are still set.
    let values = vec![text("tenant", "s7")];
    let caller = ProcedureCaller { session_values: values, ..caller };
    assert_eq!(value(&caller, "tenant").await, known("s7"));
}

/// The driver sends text of more than 4,000 bytes in UTF-8 as `nvarchar(max)`, which a `sql_variant`
/// cannot hold (206).
#[tokio::test]
async fn the_longest_value_is_set_whatever_its_characters() {
    for server in servers().await {
        for longest in ["a".repeat(4000), "ä".repeat(4000), "日".repeat(4000), "𝄞".repeat(2000)]
        {
            let values = vec![text("tenant", &longest), text("level", "é")];
            let caller = ProcedureCaller { session_values: values, ..named(&server) };
            assert_eq!(value(&caller, "tenant").await, known(&longest), "{}", server.name);
            assert_eq!(value(&caller, "level").await, known("é"), "{}", server.name);
        }
    }
}

#[tokio::test]
async fn all_values_that_are_too_long_are_refused_before_the_call() {
    let server = fake_server().await;
    let long = "𝄞".repeat(2000) + "a";
    let values = vec![text("tenant", &long), text("level", "3"), text("region", &long)];
    let caller = ProcedureCaller { session_values: values, ..named(&server) };
    let error = unsent_error(caller.call("nothing", &[]).await);
    let BackendErrorKind::Arguments(bad) = error else { panic!("{error}") };
    let names: Vec<&str> = bad.iter().map(|one| one.argument.as_str()).collect();
    assert_eq!(names, ["tenant", "region"]);
    assert_eq!(server.state().runs("fjord_test.nothing"), 0);
    // They are reported together with the arguments that do not fit.
    let arguments = [text("a", "seven"), text("b", &"x".repeat(21))];
    let error = unsent_error(caller.call("defaults", &arguments).await);
    let BackendErrorKind::Arguments(bad) = error else { panic!("{error}") };
    let names: Vec<&str> = bad.iter().map(|one| one.argument.as_str()).collect();
    assert_eq!(names, ["a", "b", "tenant", "region"]);
}

fn expected(procedure: &str, session_keys: &[&str]) -> ExpectedProcedure {
    ExpectedProcedure {
        queue: QueueName::new("suite").expect("a name"),
        procedure: name(procedure),
        arguments: Vec::new(),
        outputs: Vec::new(),
        session_keys: session_keys.iter().map(|key| (*key).into()).collect(),
    }
}

#[tokio::test]
async fn a_server_without_a_session_context_refuses_only_endpoints_that_need_it() {
    let server = fake_server().await;
    let state = &server.fake.as_ref().expect("the fake server").state;
    state.lacks_session_context.store(true, Ordering::Release);
    let caller = named(&server);
    caller.verify(expected("nothing", &[])).await.expect("the facts are optional");
    let error = caller.verify(expected("nothing", &["tenant"])).await.expect_err("a mismatch");
    let part = "the endpoint sets tenant in the session context, which SQL Server has since";
    assert!(error.to_string().contains(part), "{error}");
    caller.call("nothing", &[]).await.expect("an answer");
    let needing = ProcedureCaller { session_values: vec![text("tenant", "s7")], ..caller };
    let error = unsent_error(needing.call("nothing", &[]).await);
    assert!(matches!(error, BackendErrorKind::Mismatch { .. }), "{error}");
    assert_eq!(state.runs("fjord_test.nothing"), 1);
}

#[tokio::test]
async fn a_denied_permission_is_found_at_the_start_and_names_both_sides() {
    for mut server in servers().await {
        server.config.session_context = vec![SessionKey::Principal];
        let verify = async |server: &SqlServer, keys: &[&str]| {
            ProcedureCaller::new(server).verify(expected("nothing", keys)).await
        };
        verify(&server, &["tenant"]).await.unwrap_or_else(|e| panic!("{}: {e}", server.name));
        let Some(fake) = &server.fake else { continue };
        fake.state.denies_session_context.store(true, Ordering::Release);
        let error = verify(&server, &["tenant"]).await.expect_err("a mismatch").to_string();
        let part = "sets principal, tenant in the session context, but the login fjord has no \
            permission to execute sp_set_session_context";
        assert!(error.contains(part), "{error}");
        server.config.session_context = Vec::new();
        verify(&server, &[]).await.expect("nothing is set");
        let error = verify(&server, &["tenant"]).await.expect_err("a mismatch").to_string();
        assert!(error.contains("sets tenant in the session context"), "{error}");
    }
}

/// SQL Server executes the next call in a message even if the one before it failed.
#[tokio::test]
async fn a_call_whose_values_are_refused_is_not_sent() {
    let mut server = fake_server().await;
    server.config.connections_max = 1;
    let state = server.state();
    let caller = named(&server);
    let values = vec![text("tenant", "s7")];
    let of_tenant = ProcedureCaller { session_values: values, ..caller.clone() };
    assert_eq!(value(&of_tenant, "tenant").await, known("s7"));
    assert_eq!(value(&caller, "principal").await, known("Jörg 𝄞"));
    assert_eq!(state.context_messages.load(Ordering::Acquire), 1, "facts need no message");
    state.denies_session_context.store(true, Ordering::Release);
    let runs = || state.runs("fjord_test.nothing");
    let number = |error: &BackendErrorKind| match error {
        BackendErrorKind::Server { number, .. } => *number,
        other => panic!("{other}"),
    };
    assert_eq!(number(&unsent_error(of_tenant.call("nothing", &[]).await)), 229);
    assert_eq!(number(&unsent_error(caller.call("nothing", &[]).await)), 229);
    assert_eq!(runs(), 0);
    // A connection on which a value was refused is not used again.
    assert_eq!(state.logins(), 2);
    state.denies_session_context.store(false, Ordering::Release);
    assert_eq!(value(&caller, "principal").await, known("Jörg 𝄞"));
    assert_eq!(value(&of_tenant, "tenant").await, known("s7"));
}

/// The facts are sent with the call. The call that discovers that the permission has been revoked
/// may run, but its result is not returned. No later call is sent.
#[tokio::test]
async fn at_most_one_call_runs_without_its_facts() {
    let mut server = fake_server().await;
    server.config.connections_max = 1;
    let state = server.state();
    let caller = named(&server);
    caller.call("nothing", &[]).await.expect("an answer");
    caller.call("nothing", &[]).await.expect("an answer");
    state.denies_session_context.store(true, Ordering::Release);
    let error = sent_error(caller.call("nothing", &[]).await);
    assert!(matches!(error, SentErrorKind::Server { number: 229, .. }), "{error}");
    for _ in 0..2 {
        let error = unsent_error(caller.call("nothing", &[]).await);
        assert!(matches!(error, BackendErrorKind::Server { number: 229, .. }), "{error}");
    }
    assert_eq!(state.runs("fjord_test.nothing"), 3);
}

#[tokio::test]
async fn a_connection_on_which_something_else_has_set_a_key_is_closed() {
    let mut server = fake_server().await;
    server.config.connections_max = 1;
    let state = server.state();
    *state.foreign_key.lock().expect("not poisoned") = Some("principal");
    let caller = named(&server);
    let error = unsent_error(caller.call("nothing", &[]).await);
    assert!(matches!(error, BackendErrorKind::Server { number: 15664, .. }), "{error}");
    *state.foreign_key.lock().expect("not poisoned") = None;
    assert_eq!(value(&caller, "principal").await, known("Jörg 𝄞"), "on another connection");
    assert_eq!((state.logins(), state.runs("fjord_test.nothing")), (2, 0));
}
