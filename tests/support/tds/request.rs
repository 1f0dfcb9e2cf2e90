//! Parses the requests of a driver.

use bytes::{Buf, Bytes};
use tds_protocol::codec::{read_b_varchar, read_us_varchar, read_utf16_string};

use super::FakeState;
use super::schema::{Declaration, Schema, take_name};
use super::values::{Declared, Sql, WireType, read};

/// The procedure number of `sp_executesql`.
const EXECUTE_SQL: u16 = 10;

/// The byte that separates two calls in a message.
const SEPARATOR: u8 = 0xff;

/// An argument of a call.
#[derive(Clone, Debug)]
pub(crate) struct RpcParameter {
    pub(crate) name: String,
    pub(crate) is_output: bool,
    pub(crate) value: Sql,
    /// Whether the argument was sent as an untyped NULL.
    pub(crate) is_untyped: bool,
    /// Whether the argument's type is a `max` type.
    pub(crate) is_max: bool,
}

/// A parsed request.
#[derive(Debug)]
pub(crate) enum TdsRequest {
    /// A SQL batch.
    Batch(String),
    /// SQL with parameters.
    ExecuteSql(String, Vec<RpcParameter>),
    /// A remote procedure call.
    Rpc(String, Vec<RpcParameter>),
}

/// A login.
#[derive(Clone, Debug)]
pub(crate) struct TdsLogin {
    pub(crate) user: String,
    pub(crate) password: String,
    /// The access token, if the login has one.
    pub(crate) token: Option<String>,
    pub(crate) application: String,
    pub(crate) is_read_only: bool,
}

impl TdsLogin {
    pub(crate) fn read(payload: &Bytes) -> Self {
        let text = |at: usize| {
            let offset = usize::from(u16::from_le_bytes([payload[at], payload[at + 1]]));
            let length = usize::from(u16::from_le_bytes([payload[at + 2], payload[at + 3]]));
            read_utf16_string(&mut payload.slice(offset..), length)
                .expect("the login has this text")
        };
        // According to MS-TDS 2.2.6.4, type flags are at 26, followed by the offsets and lengths of the
        // host, user, password and application.
        Self {
            user: text(40),
            password: password(payload),
            token: token(payload),
            application: text(48),
            is_read_only: payload[26] & 0x20 != 0,
        }
    }
}

/// Reads the access token from the features of a login (MS-TDS 2.2.6.4, FEDAUTH).
fn token(payload: &Bytes) -> Option<String> {
    // Bit 4 of the third flags shows that there are features. Their position is at the offset in byte 56.
    if payload[27] & 0x10 == 0 {
        return None;
    }
    let at = usize::from(u16::from_le_bytes([payload[56], payload[57]]));
    let start = usize::try_from(payload.slice(at..).get_u32_le()).expect("an offset");
    let mut features = payload.slice(start..);
    assert_eq!(features.get_u8(), 2, "the only feature is FEDAUTH");
    let _length = features.get_u32_le();
    // bFedAuthLibrary is SecurityToken, and bFedAuthEcho repeats the value from PRELOGIN.
    assert_eq!(features.get_u8(), 1 << 1 | 1);
    let length = usize::try_from(features.get_u32_le()).expect("a length");
    Some(read_utf16_string(&mut features, length / 2).expect("a token"))
}

/// Reads the obfuscated password. The halves of each byte are exchanged, and then it is combined with 0xA5 by XOR.
fn password(payload: &Bytes) -> String {
    let number = |at: usize| usize::from(u16::from_le_bytes([payload[at], payload[at + 1]]));
    let (offset, length) = (number(44), number(46));
    let obfuscated = &payload[offset..offset + 2 * length];
    let plain: Vec<u8> = obfuscated.iter().map(|byte| (byte ^ 0xa5).rotate_left(4)).collect();
    read_utf16_string(&mut plain.as_slice(), length).expect("a password")
}

impl TdsRequest {
    pub(crate) fn batch(mut payload: Bytes) -> Self {
        skip_headers(&mut payload);
        let length = payload.len() / 2;
        Self::Batch(read_utf16_string(&mut payload, length).expect("the batch is UTF-16"))
    }

    /// Parses the calls in a message. A byte separates the calls.
    pub(crate) fn calls(mut payload: Bytes, state: &FakeState) -> Vec<Self> {
        skip_headers(&mut payload);
        let mut calls = vec![Self::call(&mut payload, state)];
        while payload.has_remaining() {
            payload.advance(1);
            calls.push(Self::call(&mut payload, state));
        }
        calls
    }

    fn call(payload: &mut Bytes, state: &FakeState) -> Self {
        let is_number = payload[..2] == [0xff, 0xff];
        let name = if is_number {
            payload.advance(2);
            assert_eq!(payload.get_u16_le(), EXECUTE_SQL, "no other number is queried");
            None
        } else {
            read_us_varchar(payload)
        };
        payload.advance(2);
        let mut given = Vec::new();
        while payload.has_remaining() && payload[0] != SEPARATOR {
            given.push(RpcParameter::read(payload, state));
        }
        if let Some(name) = name.filter(|name| name != "sp_executesql") {
            return Self::Rpc(take_name(&name).0, given);
        }
        let mut given = given.into_iter();
        let Some(RpcParameter { value: Sql::Text(text), .. }) = given.next() else {
            panic!("a statement without its text")
        };
        // The second argument, if present, declares the parameters.
        Self::ExecuteSql(text, given.skip(1).collect())
    }
}

impl RpcParameter {
    fn read(from: &mut Bytes, state: &FakeState) -> Self {
        let name = read_b_varchar(from).expect("the request has a name");
        let flags = from.get_u8();
        let is_untyped = from[0] == 0x1f;
        let (value, is_max) =
            if from[0] == 0xf3 { (read_table(from, state), false) } else { read(from) };
        Self { name, is_output: flags & 1 != 0, value, is_untyped, is_max }
    }
}

/// Parses a table: the name of its type, the types of its columns, and its rows.
fn read_table(from: &mut Bytes, state: &FakeState) -> Sql {
    from.advance(1);
    let _database = read_b_varchar(from);
    let name = format!(
        "{}.{}",
        read_b_varchar(from).expect("the request has a schema"),
        read_b_varchar(from).expect("the request has a name")
    );
    let columns = state.columns(&name);
    let count = from.get_u16_le();
    let kinds: Vec<WireType> = (0..count)
        .map(|_| {
            from.advance(6);
            let kind = WireType::read(from);
            let _name = read_b_varchar(from);
            kind
        })
        .collect();
    assert_eq!(from.get_u8(), 0, "no optional metadata");
    let mut rows = Vec::new();
    while from.get_u8() == 1 {
        let cells: Vec<Sql> = kinds.iter().map(|kind| kind.value(from)).collect();
        let cells = cells.into_iter().zip(&columns);
        rows.push(cells.map(|(value, one)| one.declared.store(value)).collect());
    }
    if kinds.len() == columns.len() { Sql::Table(rows) } else { Sql::OtherColumns }
}

fn skip_headers(payload: &mut Bytes) {
    let length = u32::from_le_bytes([payload[0], payload[1], payload[2], payload[3]]);
    payload.advance(usize::try_from(length).expect("the length fits usize"));
}

/// Parses a call in a statement: the procedure's name, the arguments and the OUTPUT parameters.
pub(crate) fn called(
    text: &str,
    values: &[RpcParameter],
    schema: &Schema,
) -> (String, Vec<RpcParameter>, Vec<Declaration>) {
    let value = |word: &str| {
        let found = values.iter().find(|one| one.name == word);
        assert!(found.is_some() || word == "NULL", "{word} was not passed");
        found.map_or(Sql::Null, |one| one.value.clone())
    };
    let exec = text.split("EXEC @fjord_return = ").nth(1).expect("a call");
    let (name, arguments) = take_name(exec);
    let arguments = arguments.split(';').next().expect("one statement");
    let declared = schema.procedure(&name).expect("a procedure");
    let mut given = Vec::new();
    let mut outputs = Vec::new();
    for argument in arguments.split(", ").filter(|argument| !argument.is_empty()) {
        let (parameter, word) = argument.trim().split_once(" = ").expect("the call has arguments");
        let variable = word.strip_suffix(" OUTPUT");
        let word = match variable {
            // A declaration has the form `@fjord_0 type = @P1`, or is followed by `SET @fjord_0 = CAST(@P1 AS json)`.
            Some(variable) => {
                let declaration =
                    text.split(&format!("{variable} ")).nth(1).expect("the variable is declared");
                let set = text.split(&format!("SET {variable} = ")).nth(1);
                let value = set.or_else(|| declaration.split(" = ").nth(1));
                let value = value.expect("the variable has a value");
                value.split([',', ';']).next().expect("the value has a word").trim()
            }
            None => word,
        };
        if word.starts_with("@fjord_table_") {
            let value = inserted(text, word, &|word| value(word));
            given.push(converted(parameter, false, value));
            continue;
        }
        let mut passed = value(
            word.strip_prefix("CAST(")
                .map_or(word, |cast| cast.split(" AS ").next().expect("CAST has a value")),
        );
        if let Some(variable) = variable {
            let one =
                declared.iter().find(|one| one.name == parameter).expect("the parameter exists");
            let mut one = one.clone();
            if one.declared.name == "json" && !text.contains(&format!("{variable} json")) {
                passed = Sql::TextForJson;
            }
            if let Some(cast) = text.split(&format!("CAST({variable} AS ")).nth(1) {
                let wide = Declared::parse(cast.split("))").next().expect("CAST has a type"));
                // A value of type `char` keeps its trailing blanks.
                let name = if one.declared.name == "char" { "nchar".to_owned() } else { wide.name };
                one.declared = Declared { name, ..wide };
            }
            outputs.push(one);
        }
        given.push(converted(parameter, variable.is_some(), passed));
    }
    (name, given, outputs)
}

/// Returns an argument of a call in a statement.
fn converted(name: &str, is_output: bool, value: Sql) -> RpcParameter {
    RpcParameter { name: name.to_owned(), is_output, value, is_untyped: false, is_max: false }
}

/// Returns the rows that a statement inserts into a variable, with the values in the order of the named
/// columns. The first column of the type is an IDENTITY.
fn inserted(text: &str, variable: &str, value: &dyn Fn(&str) -> Sql) -> Sql {
    let mut rows = Vec::new();
    for part in text.split(&format!("INSERT INTO {variable} ")).skip(1) {
        let values = part.split_once(" VALUES ").expect("values").1;
        let values = values.split(';').next().expect("one statement");
        for row in values.split("(CAST(").skip(1) {
            let cells = row.split("CAST(").map(|cell| cell.split(" AS ").next().expect("a value"));
            let identity = Sql::Int(i64::try_from(rows.len()).expect("few") + 1);
            rows.push(std::iter::once(identity).chain(cells.map(value)).collect());
        }
    }
    Sql::Table(rows)
}

/// Returns whether a statement inserts the text `refused` into a table. A constraint forbids this text.
fn has_failing_insert(text: &str, values: &[RpcParameter]) -> bool {
    let is_refused =
        |one: &RpcParameter| matches!(&one.value, Sql::Text(text) if text == "refused");
    text.contains("INSERT INTO @fjord_table_") && values.iter().any(is_refused)
}

/// Returns whether the statement converts a text to `json` that has too many items in an array.
fn has_failing_cast(text: &str, values: &[RpcParameter]) -> bool {
    let is_refused = |one: &RpcParameter| matches!(&one.value, Sql::Text(text) if text.matches(',').count() >= 65_535);
    text.contains(" AS json)") && values.iter().any(is_refused)
}

/// Returns whether each conversion to `json` is followed by a statement that ends the batch if it failed.
fn ends_after_failed_casts(text: &str) -> bool {
    let mut casts = text.split(" AS json)").skip(1);
    casts.all(|rest| rest.starts_with("; IF @@ERROR <> 0 RETURN"))
}

/// Returns whether each INSERT is followed by a statement that ends the batch if the INSERT failed.
fn ends_after_failed_inserts(text: &str) -> bool {
    let mut inserts = text.split("; INSERT INTO @fjord_table_").skip(1);
    inserts.all(|insert| insert.split("; ").nth(1) == Some("IF @@ERROR <> 0 RETURN"))
}

/// Returns the error of a statement that the server refuses before the call: its number, its text, and whether the batch
/// then ends.
pub(crate) fn refused_statement(
    text: &str,
    values: &[RpcParameter],
) -> Option<(u32, &'static str, bool)> {
    if has_failing_insert(text, values) {
        let error = "The INSERT statement conflicted with the CHECK constraint.";
        return Some((547, error, ends_after_failed_inserts(text)));
    }
    has_failing_cast(text, values)
        .then(|| (13647, "JSON text has too many items.", ends_after_failed_casts(text)))
}
