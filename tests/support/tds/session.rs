//! Serves one connection: first the login, and then its requests.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tds_protocol::packet::PacketType;
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::server::TlsStream;

use super::FakeState;
use super::conversions;
use super::database::{self, FakeTransaction};
use super::metadata;
use super::procedures::{self, FakeResult, FakeSession};
use super::reply::TdsReply;
use super::request::{self, RpcParameter, TdsLogin, TdsRequest};
use super::schema::Declaration;
use super::session_context;
use super::stream::{accept, accept_strict, read_message, write_message, write_messages};
use super::values::{Declared, Sql};

type ServerTlsStream = TlsStream<DuplexStream>;

/// Serves a connection until it is closed.
pub(super) async fn serve(tcp: TcpStream, state: &FakeState) -> io::Result<()> {
    let level = *state.encryption.lock().expect("not poisoned");
    let mut stream = if state.is_strict.load(Ordering::Acquire) {
        accept_strict(tcp, state.strict_tls.clone(), level).await?
    } else {
        accept(tcp, state.tls.clone(), level).await?
    };
    let Some(mut session) = login(&mut stream, state).await? else { return Ok(()) };
    loop {
        let message = read_message(&mut stream).await?;
        let mut reply = TdsReply::default();
        if message.resets {
            session.context = None;
            if !state.is_babelfish.load(Ordering::Acquire) {
                session.values.clear();
            }
            session.transaction = FakeTransaction::default();
            reply.was_reset();
        }
        let request = match message.kind {
            PacketType::SqlBatch => TdsRequest::batch(message.payload),
            PacketType::Rpc => {
                let mut calls = TdsRequest::calls(message.payload, state);
                let last = calls.pop().expect("a call");
                for call in calls {
                    session_context::set(state, &mut session, call, &mut reply);
                }
                last
            }
            PacketType::Attention => {
                // A cancel is acknowledged even if nothing is running.
                state.attentions.fetch_add(1, Ordering::AcqRel);
                send(&mut stream, reply.attention_done()).await?;
                continue;
            }
            other => return Err(io::Error::other(format!("packet {other:?}"))),
        };
        if !answer(&mut stream, state, &mut session, request, reply).await? {
            return Ok(());
        }
    }
}

async fn login(stream: &mut ServerTlsStream, state: &FakeState) -> io::Result<Option<FakeSession>> {
    let message = read_message(stream).await?;
    let login = TdsLogin::read(&message.payload);
    let id = state.ids.fetch_add(1, Ordering::AcqRel);
    state.attempts.fetch_add(1, Ordering::AcqRel);
    let mut reply = TdsReply::default();
    sleep(Duration::from_millis(state.login_ms.load(Ordering::Acquire))).await;
    let is_accepted = match &login.token {
        None => *state.password.lock().expect("not poisoned") == login.password,
        Some(token) => !state.refused_tokens.lock().expect("not poisoned").contains(token),
    };
    let error = match state.login_error.load(Ordering::Acquire) {
        0 if !is_accepted => 18456,
        error => error,
    };
    if error != 0 {
        send(stream, reply.error(error, 14, "Login failed.", "").done(true)).await?;
        return Ok(None);
    }
    if login.is_read_only && state.refuses_readers.load(Ordering::Acquire) {
        let text = "The target database cannot be queried now.";
        send(stream, reply.error(976, 14, text, "").done(true)).await?;
        return Ok(None);
    }
    let session = FakeSession {
        id,
        application: login.application.clone(),
        foreign_key: *state.foreign_key.lock().expect("not poisoned"),
        ..FakeSession::default()
    };
    state.logins.lock().expect("not poisoned").push(login);
    let redirect = *state.redirect.lock().expect("not poisoned");
    reply.login_accepted();
    if let Some(address) = redirect {
        reply.redirect(&address.ip().to_string(), address.port());
    }
    send(stream, reply.done(false)).await?;
    let closes = &state.closes_after_login;
    let one_less = closes.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
    Ok(one_less.is_err().then_some(session))
}

async fn send(stream: &mut ServerTlsStream, reply: &mut TdsReply) -> io::Result<()> {
    write_message(stream, PacketType::TabularResult, reply.0.split().freeze(), true).await
}

/// Answers a request. Returns `false` if the connection must be closed.
async fn answer(
    stream: &mut ServerTlsStream,
    state: &FakeState,
    session: &mut FakeSession,
    request: TdsRequest,
    mut reply: TdsReply,
) -> io::Result<bool> {
    let (name, given, outputs) = match request {
        TdsRequest::Batch(text) => {
            if is_cancelled(stream, state, &text).await? {
                send(stream, reply.attention_done()).await?;
                return Ok(true);
            }
            let ours = database::batch(state, &mut session.transaction, &text, &mut reply);
            if ours == Some(false) {
                return Ok(false);
            }
            if text.contains("EXEC sp_set_session_context") {
                session_context::set_with_statement(state, session, (&text, &[]), &mut reply);
            } else if ours.is_none() {
                batch(state, &text, &mut reply);
            }
            send(stream, reply.done(false)).await?;
            return Ok(true);
        }
        TdsRequest::ExecuteSql(text, values) if text.contains("@fjord_return") => {
            state.statements.fetch_add(1, Ordering::AcqRel);
            let mut checks = text.split("IF NOT EXISTS ").skip(1);
            if checks.any(|check| !metadata::is_current(state, check)) {
                reply.single("fjord recreated", "int", Sql::Int(1)).done_procedure(false);
                send(stream, &mut reply).await?;
                return Ok(true);
            }
            let (name, given, outputs) = request::called(&text, &values, &state.schema);
            if let Some((number, error, ends_batch)) = request::refused_statement(&text, &values) {
                // SQL Server continues with the next statement, unless the batch ends itself.
                if !ends_batch {
                    state.ran.lock().expect("not poisoned").push(name.clone());
                }
                send(stream, reply.error(number, 16, error, "").done_procedure(true)).await?;
                return Ok(true);
            }
            (name, given, Some(outputs))
        }
        TdsRequest::ExecuteSql(text, values) if text.contains("EXEC sp_set_session_context") => {
            session_context::set_with_statement(state, session, (&text, &values), &mut reply);
            send(stream, reply.done_procedure(false)).await?;
            return Ok(true);
        }
        TdsRequest::ExecuteSql(text, values) => {
            metadata::answer(state, &text, &values, &mut reply).await;
            send(stream, &mut reply).await?;
            return Ok(true);
        }
        TdsRequest::Rpc(name, given) => {
            (state.schema.resolve(&name).name.unwrap_or(name), given, None)
        }
    };
    if let Some((number, text)) = conversions::refusal(state, &name, &given) {
        send(stream, reply.error(number, 16, text, &name).done_procedure(true)).await?;
        return Ok(true);
    }
    let given = state.stored(&name, given);
    let refuses = state.refuses_untyped_null.load(Ordering::Acquire);
    let outcome = if refuses && given.iter().any(|one| one.is_untyped) {
        FakeResult::Raised(8009, 16, "Data type 0x1F is unknown.".into())
    } else {
        state.ran.lock().expect("not poisoned").push(name.clone());
        procedures::run(state, session, &name, &given, &mut reply)
    };
    let call = TdsCall { name: &name, given: &given, outputs };
    finish(stream, state, call, outcome, reply).await
}

/// Delays the answer to a slow batch. Returns whether a request to cancel the batch arrived in the
/// meantime.
async fn is_cancelled(
    stream: &mut ServerTlsStream,
    state: &FakeState,
    text: &str,
) -> io::Result<bool> {
    let time = Duration::from_millis(state.batch_ms.load(Ordering::Acquire));
    let is_slow =
        ["BEGIN TRANSACTION", "DECLARE @P AS", "SELECT @own"].iter().any(|one| text.contains(one));
    if time.is_zero() || !is_slow {
        return Ok(false);
    }
    state.slow_batches.fetch_add(1, Ordering::AcqRel);
    match tokio::time::timeout(time, attention(stream, state)).await {
        Ok(heard) => heard.map(|()| true),
        Err(_) => Ok(false),
    }
}

/// Waits for a request to cancel the call.
async fn attention(stream: &mut ServerTlsStream, state: &FakeState) -> io::Result<()> {
    let message = read_message(stream).await?;
    assert_eq!(message.kind, PacketType::Attention, "nothing else arrives while a call runs");
    state.attentions.fetch_add(1, Ordering::AcqRel);
    Ok(())
}

struct TdsCall<'a> {
    name: &'a str,
    given: &'a [RpcParameter],
    /// The OUTPUT parameters of a call that was sent as a statement.
    outputs: Option<Vec<Declaration>>,
}

async fn finish(
    stream: &mut ServerTlsStream,
    state: &FakeState,
    call: TdsCall<'_>,
    outcome: FakeResult,
    mut reply: TdsReply,
) -> io::Result<bool> {
    match outcome {
        FakeResult::Dropped => return Ok(false),
        FakeResult::Cut(usize::MAX) => {
            reply.0.extend_from_slice(&[0x00, 0x13, 0x37]);
            send(stream, &mut reply).await?;
            return Ok(true);
        }
        FakeResult::Cut(at) => {
            reply.single("v", "nvarchar(max)", Sql::Text("cut off".into())).done_procedure(false);
            let part: Bytes = reply.0.split().freeze();
            let part = part.slice(..at.min(part.len()));
            write_message(stream, PacketType::TabularResult, part, false).await?;
            return Ok(false);
        }
        FakeResult::Stalled => {
            // The call ends only when the connection ends.
            while read_message(stream).await.is_ok() {}
            return Ok(false);
        }
        FakeResult::Slow(time) => {
            let heard = tokio::time::timeout(time, read_message(stream)).await;
            let is_cancelled = match heard {
                Ok(message) => message?.kind == PacketType::Attention,
                Err(_) => false,
            };
            if is_cancelled {
                state.attentions.fetch_add(1, Ordering::AcqRel);
                reply.0.clear();
                send(stream, reply.attention_done()).await?;
                return Ok(true);
            }
            end(state, &call, FakeResult::Returned(0, Vec::new()), &mut reply);
        }
        FakeResult::AnswersLate(is_together) => {
            attention(stream, state).await?;
            reply.single("v", "int", Sql::Int(1)).done_procedure(false);
            let answer = reply.0.split().freeze();
            let acknowledgement = reply.attention_done().0.split().freeze();
            if is_together {
                return write_messages(stream, &[answer, acknowledgement]).await.map(|()| true);
            }
            for part in [answer, acknowledgement] {
                write_messages(stream, &[part]).await?;
            }
            return Ok(true);
        }
        FakeResult::Acknowledges(after, times) => {
            attention(stream, state).await?;
            sleep(after).await;
            let message = reply.attention_done().0.split().freeze();
            return write_messages(stream, &vec![message; times]).await.map(|()| true);
        }
        FakeResult::Streams => {
            reply.single("v", "nvarchar(max)", Sql::Text("x".repeat(9000)));
            let rows: Bytes = reply.0.split().freeze();
            // The packet ends within the row, and is not the last one of its message.
            write_message(stream, PacketType::TabularResult, rows.slice(..8000), false).await?;
            attention(stream, state).await?;
            send(stream, reply.attention_done()).await?;
            return Ok(true);
        }
        outcome => end(state, &call, outcome, &mut reply),
    }
    send(stream, &mut reply).await?;
    Ok(true)
}

/// Writes the end of an answer: an error, or the OUTPUT values and the RETURN status.
fn end(state: &FakeState, call: &TdsCall<'_>, outcome: FakeResult, reply: &mut TdsReply) {
    match outcome {
        FakeResult::Returned(status, values) => {
            let value = |name: &str| {
                let found = values.iter().find(|(one, _)| one == name);
                found.map_or(Sql::Null, |(_, value)| value.clone())
            };
            if let Some(outputs) = &call.outputs {
                results(status, outputs, value, reply);
            } else {
                reply.return_status(status);
                for one in call.given.iter().filter(|one| one.is_output) {
                    let declared = state.parameter(call.name, &one.name);
                    reply.output(&one.name, &declared, &value(&one.name));
                }
            }
            reply.done_procedure(false);
        }
        FakeResult::Raised(number, class, message) => {
            let bare = call.name.rsplit('.').next().unwrap_or_default();
            reply.error(number, class, &message, bare).done_procedure(true);
        }
        FakeResult::RaisedIn(number, message, procedure, after) => {
            reply.error(number, 14, &message, &procedure).0.extend_from_slice(&after);
            reply.done_procedure(true);
        }
        other => panic!("{other:?} has no end"),
    }
}

fn results(
    status: i32,
    outputs: &[Declaration],
    value: impl Fn(&str) -> Sql,
    reply: &mut TdsReply,
) {
    reply.0.extend_from_slice(&[0x81]);
    let count = u16::try_from(outputs.len() + 1).expect("the number of outputs fits u16");
    reply.0.extend_from_slice(&count.to_le_bytes());
    let status_type = Declared::parse("int");
    let types = std::iter::once(("fjord return", &status_type))
        .chain(outputs.iter().map(|one| ("", &one.declared)));
    for (name, declared) in types {
        reply.0.extend_from_slice(&[0, 0, 0, 0, 1, 0]);
        declared.write_type(&mut reply.0);
        tds_protocol::codec::write_b_varchar(&mut reply.0, name);
    }
    reply.0.extend_from_slice(&[0xd1]);
    status_type.write(&Sql::Int(status.into()), &mut reply.0);
    for one in outputs {
        one.declared.write(&value(&one.name), &mut reply.0);
    }
}

fn batch(state: &FakeState, text: &str, reply: &mut TdsReply) {
    if text.contains("FROM sys.procedures") {
        reply.columns(&["nvarchar(128)"; 2].map(|kind| ("", kind)));
        let mut names: Vec<_> = state.schema.procedures.keys().collect();
        names.sort();
        let parts = names.iter().filter_map(|name| name.split_once('.'));
        for (schema, name) in parts {
            let row = [schema, name].map(|part| ("nvarchar(128)", Sql::Text(part.to_owned())));
            reply.row(&row);
        }
    } else if text.contains("SERVERPROPERTY('Babelfish')") {
        let error = state.probe_error.load(Ordering::Acquire);
        if error != 0 {
            // 701 (out of memory) occurs while the row is built, after the columns were sent.
            if error == 701 {
                reply.columns(&[("", "int")]);
            }
            reply.error(error, 16, "not now", "");
            return;
        }
        let is_babelfish = state.is_babelfish.load(Ordering::Acquire);
        let babelfish = if is_babelfish { Sql::Int(1) } else { Sql::Null };
        let is_old = state.lacks_session_context.load(Ordering::Acquire);
        let procedure = if is_old { Sql::Null } else { Sql::Int(-461) };
        reply.columns(&[("", "int"), ("", "int")]);
        reply.row(&[("int", babelfish), ("int", procedure)]);
    } else if let Some((check, rest)) = text.split_once("DECLARE @P AS ") {
        if check.is_empty() {
            metadata::table_columns(state, rest, reply);
        } else {
            metadata::checked_table_columns(state, check, rest, reply);
        }
    } else {
        reply.single("", "int", Sql::Int(1));
    }
}
