//! The signatures of the procedures and table types in `mssql.sql`.

use std::collections::HashMap;

use super::values::Declared;

/// The script that creates the suite's objects on a real server. The fake server parses it.
pub(crate) const SQL: &str = include_str!("../mssql.sql");

/// A parameter or a column.
#[derive(Clone, Debug)]
pub(crate) struct Declaration {
    pub(crate) name: String,
    pub(crate) declared: Declared,
    pub(crate) is_output: bool,
}

/// The objects of a script.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub(crate) procedures: HashMap<String, Vec<Declaration>>,
    /// The table types in order of creation. The index determines the id.
    pub(crate) table_types: Vec<(String, Vec<Declaration>)>,
}

impl Schema {
    pub(crate) fn read(sql: &str) -> Self {
        let mut schema = Self::default();
        for line in sql.lines() {
            if let Some(rest) = line.strip_prefix("CREATE PROCEDURE ") {
                let (name, rest) = rest.split_once(' ').expect("the declaration has a name");
                let parameters = format!(" {rest} ");
                let parameters = parameters
                    .split_once(" AS ")
                    .expect("the declaration has AS after its parameters")
                    .0;
                schema.procedures.insert(name.to_owned(), declarations(parameters));
            } else if let Some(rest) = line.strip_prefix("CREATE TYPE ") {
                let (name, rest) =
                    rest.split_once(" AS TABLE (").expect("the declaration has a table type");
                let columns = rest.strip_suffix(')').expect("the columns are in parentheses");
                schema.table_types.push((name.to_owned(), declarations(columns)));
            }
        }
        schema
    }

    /// Returns the parameters of a procedure. `numbered_7` has the parameters of `numbered`, unless it has its own.
    pub(crate) fn procedure(&self, name: &str) -> Option<&Vec<Declaration>> {
        self.procedures.get(name).or_else(|| {
            let (name, number) = name.rsplit_once('_')?;
            number.parse::<usize>().ok()?;
            self.procedures.get(name)
        })
    }
}

/// Parses `@name type [= default] [OUTPUT]` declarations, separated by commas outside parentheses.
pub(super) fn declarations(text: &str) -> Vec<Declaration> {
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if c == ',' && depth == 0 {
            parts.push(String::new());
        } else {
            parts.last_mut().expect("the list has a part").push(c);
        }
    }
    parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).map(declaration).collect()
}

fn declaration(text: &str) -> Declaration {
    let (name, rest) = text.split_once(' ').expect("the declaration has a name and a type");
    let is_output = rest.ends_with(" OUTPUT");
    let kind = rest.split(" = ").next().expect("the declaration has a type");
    let kind =
        kind.trim_end_matches(" OUTPUT").trim_end_matches(" READONLY").trim_end_matches(" NULL");
    Declaration { name: unquoted(name), declared: Declared::parse(kind), is_output }
}

/// Removes the brackets of a name.
pub(crate) fn unquoted(name: &str) -> String {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    bare.map_or_else(|| name.to_owned(), |bare| bare.replace("]]", "]"))
}
