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
    /// Whether the server generates the column.
    pub(crate) is_generated: bool,
    pub(crate) is_nullable: bool,
}

/// The objects of a script.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub(crate) procedures: HashMap<String, Vec<Declaration>>,
    /// The text that follows AS in each procedure.
    bodies: HashMap<String, String>,
    /// The table types in order of creation. The index determines the id.
    pub(crate) table_types: Vec<(String, Vec<Declaration>)>,
    /// The type codes of objects that are not procedures, by name.
    others: HashMap<String, &'static str>,
    /// The names of synonyms, with the names of their base objects as they were written.
    synonyms: HashMap<String, String>,
}

/// The kinds of objects that are not procedures, with their type codes.
const OTHERS: [(&str, &str); 4] = [
    ("CREATE TABLE ", "U "),
    ("CREATE VIEW ", "V "),
    ("CREATE FUNCTION ", "FN"),
    ("CREATE SEQUENCE ", "SO"),
];

/// An object of `sys.all_objects`, or the base object of a synonym.
#[derive(Clone, Debug, Default)]
pub(crate) struct ResolvedObject {
    /// The object's name, if there is such an object in this database.
    pub(crate) name: Option<String>,
    /// The type code of the object.
    pub(crate) code: Option<&'static str>,
    /// The base object as the synonym names it.
    pub(crate) synonym: Option<String>,
}

impl Schema {
    pub(crate) fn read(sql: &str) -> Self {
        let mut schema = Self::default();
        for line in sql.lines() {
            if let Some(rest) = line.strip_prefix("CREATE PROCEDURE ") {
                let (name, rest) = take_name(rest);
                let parameters = format!("{rest} ");
                let (parameters, body) =
                    parameters.split_once(" AS ").expect("parameters, then AS");
                schema.bodies.insert(name.clone(), body.to_owned());
                schema.procedures.insert(name, declarations(parameters));
            } else if let Some(rest) = line.strip_prefix("CREATE TYPE ") {
                let (name, rest) = take_name(rest);
                let columns = rest.strip_prefix(" AS TABLE (").expect("a table type");
                let columns = columns.strip_suffix(')').expect("columns in parentheses");
                schema.table_types.push((name, declarations(columns)));
            } else if let Some(rest) = line.strip_prefix("CREATE SYNONYM ") {
                let (name, rest) = take_name(rest);
                let base = rest.strip_prefix(" FOR ").expect("a base object");
                schema.synonyms.insert(name, base.to_owned());
            }
            for (prefix, code) in OTHERS {
                if let Some(rest) = line.strip_prefix(prefix) {
                    schema.others.insert(take_name(rest).0, code);
                }
            }
        }
        schema
    }

    /// Adds the objects of another script.
    pub(crate) fn extend(&mut self, more: Self) {
        self.procedures.extend(more.procedures);
        self.bodies.extend(more.bodies);
        self.table_types.extend(more.table_types);
        self.others.extend(more.others);
        self.synonyms.extend(more.synonyms);
    }

    /// Finds an object. A synonym stands for its base object if that object is in this database.
    pub(crate) fn resolve(&self, name: &str) -> ResolvedObject {
        let synonym = self.synonyms.get(name).cloned();
        let base = match &synonym {
            None => Some(name.to_owned()),
            // A name with three parts denotes an object in another database.
            Some(base) => {
                Some(take_name(base)).filter(|(_, rest)| rest.is_empty()).map(|one| one.0)
            }
        };
        let code = base.as_deref().and_then(|base| match self.procedure(base) {
            Some(_) => Some("P "),
            None => self.others.get(base).copied(),
        });
        ResolvedObject { name: base.filter(|_| code.is_some()), code, synonym }
    }

    /// Returns the text that follows AS in a procedure.
    pub(crate) fn body(&self, name: &str) -> &str {
        self.bodies.get(name).map(String::as_str).unwrap_or_default()
    }

    /// Returns the parameters of a procedure. `numbered_7` has the parameters of `numbered`, unless it has its own
    /// parameters.
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
    parts(text).iter().map(|part| declaration(part)).collect()
}

/// Splits a text at commas outside parentheses, and omits the empty parts.
pub(super) fn parts(text: &str) -> Vec<String> {
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
    parts.iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn declaration(text: &str) -> Declaration {
    let (name, rest) = match text.strip_prefix('[') {
        Some(_) => take_part(text),
        None => text.split_once(' ').map(|(name, rest)| (name.to_owned(), rest)).expect("a type"),
    };
    let rest = rest.trim_start();
    if rest.starts_with("AS (") {
        return Declaration {
            name,
            declared: Declared::parse("int"),
            is_output: false,
            is_generated: true,
            is_nullable: true,
        };
    }
    let is_generated = rest.contains(" IDENTITY");
    let rest = rest.split(" IDENTITY").next().expect("a type");
    let is_output = rest.ends_with(" OUTPUT");
    let kind = rest.split(" = ").next().expect("the declaration has a type");
    let kind =
        kind.trim_end_matches(" OUTPUT").trim_end_matches(" READONLY").trim_end_matches(" NULL");
    let (kind, is_nullable) = match kind.strip_suffix(" NOT") {
        Some(kind) => (kind, false),
        None => (kind, true),
    };
    Declaration { name, declared: Declared::parse(kind), is_output, is_generated, is_nullable }
}

/// Parses a qualified name at the start of a text. Returns it as `schema.name` without brackets, and
/// the rest.
pub(crate) fn take_name(text: &str) -> (String, &str) {
    let (schema, rest) = take_part(text);
    match rest.strip_prefix('.') {
        Some(rest) => {
            let (name, rest) = take_part(rest);
            (format!("{schema}.{name}"), rest)
        }
        None => (schema, rest),
    }
}

fn take_part(text: &str) -> (String, &str) {
    let Some(inside) = text.strip_prefix('[') else {
        let is_end = |c: char| !c.is_alphanumeric() && !matches!(c, '_' | '$' | '#' | '@');
        let (part, rest) = text.split_at(text.find(is_end).unwrap_or(text.len()));
        return (part.to_owned(), rest);
    };
    let hidden = inside.replace("]]", "\u{0}\u{0}");
    let (part, _) = hidden.split_once(']').expect("a closing bracket");
    (part.replace("\u{0}\u{0}", "]"), inside.split_at(part.len() + 1).1)
}

/// Removes the brackets of a name.
pub(crate) fn unquoted(name: &str) -> String {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    bare.map_or_else(|| name.to_owned(), |bare| bare.replace("]]", "]"))
}
