//! Answers `sp_describe_first_result_set`.

use super::FakeState;
use super::conversions;
use super::reply::TdsReply;
use super::request::RpcParameter;
use super::schema::{Declaration, declarations, parts, take_name};
use super::values::{Declared, Sql};

/// The columns of the answer that fjord reads.
const COLUMNS: [(&str, &str); 6] = [
    ("is_hidden", "bit"),
    ("column_ordinal", "int"),
    ("name", "nvarchar(128)"),
    ("is_nullable", "bit"),
    ("system_type_name", "nvarchar(255)"),
    ("user_type_name", "nvarchar(128)"),
];
/// The error for a procedure whose columns are known only when it runs.
const UNDETERMINED: (u32, &str) = (
    11526,
    "The metadata could not be determined because statement 'SELECT * FROM #t' in procedure 'p' uses a temp table.",
);

/// Returns whether the server never finishes this description.
pub(super) fn is_delayed(state: &FakeState, values: &[RpcParameter]) -> bool {
    let delayed = state.never_described.lock().expect("not poisoned");
    !delayed.is_empty() && delayed.contains(&called(values).1)
}

/// Returns the call, and the name of its procedure.
fn called(values: &[RpcParameter]) -> (&str, String) {
    let Some(RpcParameter { value: Sql::Text(call), .. }) = values.first() else {
        panic!("expected a statement, found {values:?}")
    };
    (call, take_name(call.strip_prefix("EXEC ").expect("a call")).0)
}

/// Answers `EXEC sp_describe_first_result_set @tsql = @P1, @params = @P2` for a procedure call.
pub(super) fn answer(state: &FakeState, values: &[RpcParameter], reply: &mut TdsReply) {
    let (call, name) = called(values);
    state.described.lock().expect("not poisoned").push(call.to_owned());
    if passes_text_for_json(state, &name, values) {
        let (number, text) = conversions::TEXT_FOR_JSON;
        reply.error(number, 16, text, "").done_procedure(true);
        return;
    }
    let Some(columns) = columns(state, &name) else {
        let (number, text) = UNDETERMINED;
        reply.error(number, 16, text, "").done_procedure(true);
        return;
    };
    reply.columns(&COLUMNS);
    for (place, (column, is_nullable)) in (1..).zip(columns) {
        let kind = type_name(&column.declared);
        // A CLR type has no system type name.
        let is_clr = kind == "geography";
        let (system, own) =
            if is_clr { (Sql::Null, Sql::Text(kind)) } else { (Sql::Text(kind), Sql::Null) };
        let name = if column.name == "-" { Sql::Null } else { Sql::Text(column.name) };
        let values =
            [Sql::Int(0), Sql::Int(place), name, Sql::Int(is_nullable.into()), system, own];
        let row: Vec<_> = COLUMNS.iter().map(|(_, kind)| *kind).zip(values).collect();
        reply.row(&row);
    }
    reply.done_procedure(false);
}

/// Returns whether a variable of another type is passed for an OUTPUT parameter of the type `json`.
fn passes_text_for_json(state: &FakeState, name: &str, values: &[RpcParameter]) -> bool {
    let declared = match values.get(1).map(|one| &one.value) {
        Some(Sql::Text(declared)) => declared.as_str(),
        _ => "",
    };
    let parameters = state.schema.procedure(name).into_iter().flatten();
    let mut outputs = parameters.filter(|one| one.is_output && one.declared.name == "json");
    outputs.any(|one| !declared.contains(&format!("{} json", one.name)))
}

/// Returns the columns of a procedure's first result set, each with whether it can be NULL. Returns `None` if the
/// result set is undetermined.
fn columns(state: &FakeState, name: &str) -> Option<Vec<(Declaration, bool)>> {
    let results = state.result_sets.lock().expect("not poisoned");
    if let Some(text) = results.get(name) {
        let text = text.as_deref()?;
        let is_nullable = |text: String| text.ends_with(" NULL");
        let nullable = parts(text).into_iter().map(is_nullable);
        return Some(declarations(text).into_iter().zip(nullable).collect());
    }
    let body = state.schema.body(name);
    let Some((_, selected)) = body.split_once("SELECT ") else { return Some(Vec::new()) };
    let parameters = state.schema.procedure(name)?;
    let selected = selected.split(';').next().unwrap_or_default();
    let column = |text: &str| {
        let (variable, name) = text.split_once(" AS ")?;
        let parameter = parameters.iter().find(|one| one.name == variable)?;
        let name = name.trim().to_owned();
        Some((Declaration { name, is_output: false, ..parameter.clone() }, true))
    };
    selected.split(", ").map(column).collect()
}

fn type_name(declared: &Declared) -> String {
    let numbers: Vec<String> = declared.numbers.iter().map(ToString::to_string).collect();
    match (declared.is_max, numbers.as_slice()) {
        (true, _) => format!("{}(max)", declared.name),
        (false, []) => declared.name.clone(),
        (false, numbers) => format!("{}({})", declared.name, numbers.join(",")),
    }
}
