//! Validates the parameters whose values are set in the database's session context.

use crate::catalogue::error::EndpointErrors;
use crate::catalogue::parameter::{Parameter, ParameterSource, ParameterType};

/// The names of the values that a worker sets itself.
const RESERVED: [&str; 4] = ["request_id", "trace_id", "endpoint", "principal"];
/// The maximum number of values for an endpoint. Together with their keys, the values take about
/// half of the 1 MB that a session context of SQL Server can hold.
const VALUES_MAX: usize = 64;
/// The maximum length of a name in UTF-16 code units. SQL Server's limit for a key is 128 bytes.
const NAME_LENGTH_MAX: usize = 64;

/// Checks the sources, types and names of the values.
pub(super) fn check(parameters: &[Parameter], errors: &mut EndpointErrors<'_>) {
    let values: Vec<_> = parameters.iter().filter(|one| one.session_context).collect();
    if values.len() > VALUES_MAX {
        let expected = format!("expected at most {VALUES_MAX} with `sessionContext`");
        errors.add("parameters", expected);
    }
    for table in parameters {
        for column in table.columns.iter().filter(|one| one.session_context) {
            let key = format!("parameters.{}.columns.{}.sessionContext", table.name, column.name);
            errors.add(key, "expected none, because a column is part of its table");
        }
    }
    for value in values {
        let key = |member: &str| format!("parameters.{}.{member}", value.name);
        if !matches!(value.source, ParameterSource::Claim | ParameterSource::Context) {
            let expected =
                "expected only with `in: claim` or `in: context`, which a caller cannot choose";
            errors.add(key("sessionContext"), expected);
        }
        if matches!(value.kind, ParameterType::Binary | ParameterType::Table) {
            errors.add(key("type"), "expected a type other than binary with `sessionContext`");
        }
        if RESERVED.iter().any(|name| value.argument.eq_ignore_ascii_case(name)) {
            let expected =
                format!("expected another name: workers set {} themselves", RESERVED.join(", "));
            errors.add(key("as"), expected);
        }
        if value.argument.encode_utf16().count() > NAME_LENGTH_MAX {
            errors
                .add(key("as"), format!("expected at most {NAME_LENGTH_MAX} characters (UTF-16)"));
        }
    }
}
