//! Answers queries for the metadata of procedures and table types.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use super::FakeState;
use super::first_result_set;
use super::reply::TdsReply;
use super::request::RpcParameter;
use super::schema::{Declaration, ResolvedObject, take_name, unquoted};
use super::values::{Declared, Sql};

/// The interval between checks for the release of a lock.
const LOCK_TICK: Duration = Duration::from_millis(10);
/// The column types of a parameter's row. The first column is the procedure's index in the query.
const PARAMETER_COLUMNS: [&str; 15] = [
    "int",
    "int",
    "nvarchar(128)",
    "nvarchar(128)",
    "nvarchar(128)",
    "smallint",
    "tinyint",
    "tinyint",
    "bit",
    "bit",
    "nvarchar(128)",
    "int",
    "int",
    "nvarchar(2)",
    "nvarchar(1035)",
];

/// Answers a query for the parameters of procedures, or for the columns of table types.
pub(super) async fn answer(
    state: &FakeState,
    text: &str,
    values: &[RpcParameter],
    reply: &mut TdsReply,
) {
    if text.contains("sp_describe_first_result_set") {
        if first_result_set::is_delayed(state, values) {
            std::future::pending::<()>().await;
        }
        first_result_set::answer(state, values, reply);
        return;
    }
    state.signature_reads.fetch_add(1, Ordering::AcqRel);
    sleep(Duration::from_millis(state.signatures_ms.load(Ordering::Acquire))).await;
    if text.contains("sys.parameters") && state.lacks_parameters_view.load(Ordering::Acquire) {
        reply
            .error(33_557_097, 16, "relation \"sys.parameters\" does not exist", "")
            .done_procedure(true);
        return;
    }
    let error = if text.contains("sys.parameters") {
        state.parameters_view_error.swap(0, Ordering::AcqRel)
    } else {
        0
    };
    if error != 0 {
        reply.error(error, 16, "not now", "").done_procedure(true);
        return;
    }
    if text.contains("sys.all_parameters") {
        state.fallback_reads.fetch_add(1, Ordering::AcqRel);
    }
    if text.contains("sys.table_types") {
        columns_of(state, values, reply);
    } else {
        let names: Vec<String> = values.iter().map(procedure_name).collect();
        while names.iter().any(|name| state.locked.lock().expect("not poisoned").contains(name)) {
            sleep(LOCK_TICK).await;
        }
        parameters_of(state, &names, text.contains("sys.synonyms"), reply);
    }
    reply.done_procedure(false);
}

fn procedure_name(given: &RpcParameter) -> String {
    match &given.value {
        Sql::Text(name) => take_name(name).0,
        other => panic!("{other:?} is no procedure's name"),
    }
}

fn parameters_of(state: &FakeState, names: &[String], synonyms: bool, reply: &mut TdsReply) {
    reply.columns(&PARAMETER_COLUMNS.map(|kind| ("", kind)));
    for (place, name) in names.iter().enumerate() {
        let place = Sql::Int(i64::try_from(place).expect("few"));
        let object = state.schema.resolve(name);
        // The query for servers without synonyms neither follows synonyms nor asks for the kind of object.
        let object = match &object.synonym {
            Some(_) if !synonyms => ResolvedObject::default(),
            _ if !synonyms => ResolvedObject { code: None, ..object },
            _ => object,
        };
        let text = |text: Option<&str>| text.map_or(Sql::Null, |text| Sql::Text(text.to_owned()));
        let about = [text(object.code), text(object.synonym.as_deref())];
        for row in parameter_rows(state, object.name.as_deref().unwrap_or(name)) {
            let row = std::iter::once(place.clone()).chain(row).chain(about.clone());
            let row: Vec<_> = PARAMETER_COLUMNS.into_iter().zip(row).collect();
            reply.row(&row);
        }
    }
}

/// Returns a procedure's rows, without the first column and without the columns about the object.
fn parameter_rows(state: &FakeState, name: &str) -> Vec<[Sql; 12]> {
    let is_dropped = state.dropped.lock().expect("not poisoned").iter().any(|one| one == name);
    let Some(parameters) = state.schema.procedure(name).filter(|_| !is_dropped) else {
        let mut values = [const { Sql::Null }; 12];
        if state.schema.resolve(name).name.is_some() && !is_dropped {
            values[0] = Sql::Int(1);
        }
        return vec![values];
    };
    let mut parameters = parameters.clone();
    if name.ends_with(".changed") && state.is_changed.load(Ordering::Acquire) {
        "@new".clone_into(&mut parameters[0].name);
    }
    if name.ends_with(".replaced") && state.is_changed.load(Ordering::Acquire) {
        let mut more = parameters[0].clone();
        "@more".clone_into(&mut more.name);
        parameters.push(more);
    }
    if parameters.is_empty() {
        let mut values = [const { Sql::Null }; 12];
        values[0] = Sql::Int(1);
        return vec![values];
    }
    let row = |one: &Declaration| {
        let table = state.type_id(&one.declared.name);
        let (length, precision, scale) = one.declared.described();
        let (schema, kind) =
            one.declared.name.split_once('.').unwrap_or(("sys", &one.declared.name));
        // The base type of a CLR type has no name.
        let is_clr = matches!(kind, "geography" | "geometry" | "hierarchyid");
        let base = if is_clr { Sql::Null } else { Sql::Text(kind.to_owned()) };
        [
            Sql::Int(1),
            Sql::Text(one.name.clone()),
            Sql::Text(kind.to_owned()),
            base,
            Sql::Int(length),
            Sql::Int(precision),
            Sql::Int(scale),
            Sql::Int(one.is_output.into()),
            Sql::Int(table.is_some().into()),
            Sql::Text(schema.to_owned()),
            Sql::Int(table.unwrap_or(56)),
            Sql::Int(state.code_page.load(Ordering::Acquire)),
        ]
    };
    parameters.iter().map(row).collect()
}

fn columns_of(state: &FakeState, values: &[RpcParameter], reply: &mut TdsReply) {
    const TYPES: [&str; 11] = [
        "int",
        "nvarchar(128)",
        "nvarchar(128)",
        "nvarchar(128)",
        "smallint",
        "tinyint",
        "tinyint",
        "int",
        "int",
        "int",
        "int",
    ];
    reply.columns(&TYPES.map(|kind| ("", kind)));
    for given in values {
        let Sql::Int(id) = given.value else { panic!("expected the id of a table type") };
        let Some((name, object)) = state.table_type(id) else { continue };
        for one in state.columns(name) {
            let (length, precision, scale) = one.declared.described();
            let kind = Sql::Text(one.declared.name.clone());
            let row = [
                Sql::Int(id),
                Sql::Text(one.name.clone()),
                kind.clone(),
                kind,
                Sql::Int(length),
                Sql::Int(precision),
                Sql::Int(scale),
                one.declared.code_page().map_or(Sql::Null, |page| Sql::Int(page.into())),
                Sql::Int(object),
                Sql::Int(one.is_generated.into()),
                Sql::Int((!one.is_nullable).into()),
            ];
            let row: Vec<_> = TYPES.into_iter().zip(row).collect();
            reply.row(&row);
        }
    }
}

/// Answers `IF NOT EXISTS (… TYPE_ID(N'type') AND type_table_object_id = id) THROW number, …;DECLARE @P AS …`.
pub(super) fn checked_table_columns(
    state: &FakeState,
    check: &str,
    rest: &str,
    reply: &mut TdsReply,
) {
    if is_current(state, check) {
        table_columns(state, rest, reply);
    } else {
        let number = between(check, "THROW ", ",").parse().expect("THROW has an error number");
        reply.error(number, 16, "the table type was recreated", "");
    }
}

/// Evaluates `EXISTS (… TYPE_ID(N'type') AND type_table_object_id = id)`.
pub(super) fn is_current(state: &FakeState, check: &str) -> bool {
    let name = between(check, "TYPE_ID(N'", "')").replace("''", "'");
    let now = state.type_id(&take_name(&name).0);
    let now = now.and_then(|id| state.table_type(id)).map(|(_, object)| object);
    now == between(check, "type_table_object_id = ", ")").parse().ok()
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let after = text.split_once(from).expect("the query checks the type").1;
    after.split_once(to).expect("the query checks the type").0
}

/// Answers `type;SELECT TOP 0 columns FROM @P` with the types of the columns or of their casts.
pub(super) fn table_columns(state: &FakeState, rest: &str, reply: &mut TdsReply) {
    state.column_reads.fetch_add(1, Ordering::AcqRel);
    let (name, select) = rest.split_once(";SELECT TOP 0 ").expect("a query for columns");
    let columns = state.columns(&take_name(name).0);
    let selected = select.strip_suffix(" FROM @P").expect("of the variable");
    let types: Option<Vec<Declared>> = if selected == "*" {
        Some(columns.iter().map(|one| one.declared.clone()).collect())
    } else {
        let all = selected.split(", ").map(|one| {
            if let Some(cast) = one.strip_prefix("CAST(") {
                return Some(Declared::parse(
                    cast.split_once(" AS ").expect("the query casts to a type").1,
                ));
            }
            let name = unquoted(one);
            let found = columns.iter().find(|column| column.name == name);
            found.map(|one| one.declared.clone())
        });
        all.collect::<Option<_>>()
    };
    let Some(types) = types else {
        reply.error(207, 16, "Invalid column name.", "");
        return;
    };
    let count = u16::try_from(types.len()).expect("the number of columns fits u16");
    reply.0.extend_from_slice(&[0x81]);
    reply.0.extend_from_slice(&count.to_le_bytes());
    for declared in types {
        reply.0.extend_from_slice(&[0, 0, 0, 0, 1, 0]);
        declared.write_type(&mut reply.0);
        tds_protocol::codec::write_b_varchar(&mut reply.0, "");
    }
    if let Some((name, columns)) = state.recreate_later.lock().expect("not poisoned").take() {
        state.recreate_type(name, columns);
    }
}
