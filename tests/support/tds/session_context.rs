//! Simulates the session context of a connection.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use bytes::BufMut;

use super::FakeState;
use super::conversions::MAX_FOR_VARIANT;
use super::procedures::FakeSession;
use super::reply::TdsReply;
use super::request::{RpcParameter, TdsRequest};
use super::values::Sql;

/// The error for a key that cannot be set because it is read-only.
const READ_ONLY: u32 = 15664;
/// The status bits at the end of a call that other calls follow, and at the end of a failed call.
const MORE_IN_BATCH: u16 = 0x81;
const ERROR: u16 = 0x02;

/// The values in a session context. Each has a flag that tells whether it is read-only.
#[derive(Debug, Default)]
pub(crate) struct FakeSessionContext(HashMap<String, (Sql, bool)>);

impl FakeSessionContext {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn get(&self, key: &str) -> Sql {
        self.0.get(key).map_or(Sql::Null, |(value, _)| value.clone())
    }

    /// Sets a value. Fails with an error number if the key is read-only.
    pub(crate) fn set(&mut self, key: &str, value: Sql, is_read_only: bool) -> Result<(), u32> {
        if self.0.get(key).is_some_and(|(_, is_read_only)| *is_read_only) {
            return Err(READ_ONLY);
        }
        self.0.insert(key.to_owned(), (value, is_read_only));
        Ok(())
    }
}

/// Executes a call to `sp_set_session_context` that precedes another call in its message.
pub(super) fn set(
    state: &FakeState,
    session: &mut FakeSession,
    call: TdsRequest,
    reply: &mut TdsReply,
) {
    let TdsRequest::Rpc(name, given) = call else { panic!("{call:?} precedes a call") };
    assert_eq!(name, "sp_set_session_context", "the only call that precedes another");
    let find = |name: &str| given.iter().find(|one: &&RpcParameter| one.name == name);
    let Some(Sql::Text(key)) = find("@key").map(|one| &one.value) else { panic!("no key") };
    let value = find("@value").expect("a value");
    assert!(!value.is_max, "sql_variant cannot hold a max type");
    let value = value.value.clone();
    let is_read_only = find("@read_only").is_some_and(|one| one.value == Sql::Int(1));
    let status = match set_value(state, session, key, value, is_read_only) {
        Ok(()) => {
            reply.return_status(0);
            MORE_IN_BATCH
        }
        Err(number) => {
            reply.error(number, 16, "The key cannot be set.", &name);
            MORE_IN_BATCH | ERROR
        }
    };
    reply.0.put_u8(0xfe);
    reply.0.put_u16_le(status);
    reply.0.put_slice(&[0; 10]);
}

/// Executes `DECLARE @v1 nvarchar(4000) = @P2; EXEC sp_set_session_context …; IF @@ERROR <> 0 RETURN; …`.
pub(super) fn set_with_statement(
    state: &FakeState,
    session: &mut FakeSession,
    (text, values): (&str, &[RpcParameter]),
    reply: &mut TdsReply,
) {
    state.context_messages.fetch_add(1, Ordering::AcqRel);
    let mut variables = values.to_vec();
    for statement in text.split("; IF @@ERROR <> 0 RETURN; ") {
        let (declarations, statement) = match statement.split_once("; EXEC ") {
            Some((declarations, call)) => (declarations, format!("EXEC {call}")),
            None => ("", statement.to_owned()),
        };
        for declaration in declarations.split("; ").filter(|one| !one.is_empty()) {
            variables.push(declared(declaration, &variables));
        }
        let find = |word: &str| variables.iter().find(|one| one.name == word);
        let value = |word: &str| match (find(word), word) {
            (Some(variable), _) => variable.value.clone(),
            (None, "NULL") => Sql::Null,
            (None, word) => {
                Sql::Text(word.trim_start_matches("N'").trim_end_matches('\'').to_owned())
            }
        };
        let rest = statement.strip_prefix("EXEC sp_set_session_context @key = ").expect("a call");
        let (key, rest) = rest.split_once(", @value = ").expect("a value");
        let is_read_only = rest.ends_with(", @read_only = 1");
        let rest = rest.trim_end_matches(", @read_only = 1");
        let Sql::Text(key) = value(key) else { panic!("no key in {statement}") };
        if find(rest).is_some_and(|variable| variable.is_max) {
            let (number, text) = MAX_FOR_VARIANT;
            reply.error(number, 16, text, "sp_set_session_context");
            return;
        }
        if let Err(number) = set_value(state, session, &key, value(rest), is_read_only) {
            reply.error(number, 16, "The key cannot be set.", "sp_set_session_context");
            return;
        }
    }
}

/// Executes `DECLARE @variable nvarchar(length) = @parameter`, which cuts off longer text.
fn declared(declaration: &str, known: &[RpcParameter]) -> RpcParameter {
    let rest = declaration.strip_prefix("DECLARE ").expect("a declaration");
    let (variable, parameter) = rest.split_once(" = ").expect("a value");
    let (name, kind) = variable.split_once(' ').expect("a type");
    let length = kind.strip_prefix("nvarchar(").and_then(|kind| kind.strip_suffix(')'));
    let length = length.expect("nvarchar").parse::<usize>().expect("not nvarchar(max)");
    let found = known.iter().find(|one| one.name == parameter).expect("the parameter was passed");
    let value = match &found.value {
        Sql::Text(text) => {
            let units: Vec<u16> = text.encode_utf16().take(length).collect();
            Sql::Text(String::from_utf16(&units).expect("whole characters"))
        }
        value => value.clone(),
    };
    RpcParameter { name: name.to_owned(), value, is_max: false, ..found.clone() }
}

fn set_value(
    state: &FakeState,
    session: &mut FakeSession,
    key: &str,
    value: Sql,
    is_read_only: bool,
) -> Result<(), u32> {
    if state.lacks_session_context.load(Ordering::Acquire) {
        return Err(2812);
    }
    if state.denies_session_context.load(Ordering::Acquire) {
        return Err(229);
    }
    if session.foreign_key == Some(key) {
        return Err(READ_ONLY);
    }
    session.values.set(key, value, is_read_only)
}
