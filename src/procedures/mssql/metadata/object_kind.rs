//! Describes the kinds of objects that a name can refer to instead of a procedure.

use crate::catalogue::ProcedureName;

/// Returns the reason why an object cannot be called as a procedure, or `None` if it can be called or does not exist.
/// `code` is the type code of the object or, for a synonym, of its base object. `base` is the name of the base object
/// if the object is a synonym.
pub(super) fn reason(
    name: &ProcedureName,
    code: Option<&str>,
    base: Option<&str>,
) -> Option<String> {
    let kind = match (code.map(str::trim_end), base) {
        // A T-SQL, CLR or extended stored procedure, or a replication filter procedure.
        (Some("P" | "PC" | "X" | "RF"), _) | (None, None) => return None,
        (None, Some(base)) => {
            return Some(format!(
                "{name} is a synonym of {base}, which is not in this database or is not visible to the login"
            ));
        }
        (Some(code), _) => kind(code),
    };
    let base = base.map(|base| format!("a synonym of {base}, ")).unwrap_or_default();
    Some(format!("{name} is {base}{kind}, expected a procedure"))
}

/// Returns the kind of object for a type code of `sys.objects`.
fn kind(code: &str) -> String {
    let known = match code {
        "U" | "IT" | "ET" => "a table",
        "S" => "a system table",
        "V" => "a view",
        "FN" | "FS" => "a scalar function",
        "IF" | "TF" | "FT" => "a table-valued function",
        "AF" => "an aggregate function",
        "SO" => "a sequence",
        "SN" => "a synonym",
        "SQ" => "a queue of Service Broker",
        "TR" | "TA" => "a trigger",
        "TT" => "a table type",
        "C" | "D" | "F" | "PK" | "UQ" | "EC" => "a constraint",
        "R" => "a rule",
        other => return format!("an object of type {other}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_a_procedure_or_is_named_with_its_kind() {
        let name = ProcedureName::new("dbo.[my horses]").unwrap();
        for (code, base, expected) in [
            (Some("P "), None, None),
            (Some("PC"), Some("[dbo].[horse_get]"), None),
            (None, None, None),
            (Some("U "), None, Some("dbo.[my horses] is a table, expected a procedure")),
            (
                Some("ZZ"),
                None,
                Some("dbo.[my horses] is an object of type ZZ, expected a procedure"),
            ),
            (
                Some("V"),
                Some("[dbo].[v]"),
                Some("dbo.[my horses] is a synonym of [dbo].[v], a view, expected a procedure"),
            ),
            (
                None,
                Some("[other].[dbo].[p]"),
                Some(
                    "dbo.[my horses] is a synonym of [other].[dbo].[p], which is not in this database or is not visible to the login",
                ),
            ),
        ] {
            assert_eq!(reason(&name, code, base).as_deref(), expected, "{code:?} {base:?}");
        }
    }
}
