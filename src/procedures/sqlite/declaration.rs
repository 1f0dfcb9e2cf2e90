//! The optional head of a procedure's file, `CREATE [OR ALTER] PROCEDURE name @parameter type =
//! default AS`, which declares the parameters as in T-SQL.

use rusqlite::types::Value as SqlValue;

use super::lexer::{Lexer, Token};

/// A declared parameter.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DeclaredParameter {
    /// The name, without `@`.
    pub(super) name: String,
    pub(super) declared: DeclaredSqlType,
    /// The value of an absent argument.
    pub(super) default: Option<SqlValue>,
    pub(super) is_output: bool,
}

/// A declared type, such as `nvarchar(50)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeclaredSqlType {
    /// The name in lower case.
    pub(super) name: String,
    /// The text in parentheses, or an empty string if there are no parentheses.
    pub(super) arguments: String,
}

impl DeclaredParameter {
    /// Returns whether a call must pass the parameter.
    pub(super) fn is_required(&self) -> bool {
        self.default.is_none() && !self.is_output
    }
}

impl DeclaredSqlType {
    /// Returns the maximum length of text in UTF-16 code units, if the type is a text type with a
    /// maximum. SQL Server's default length is 1.
    pub(super) fn text_length(&self) -> Option<usize> {
        match self.name.as_str() {
            "char" | "varchar" | "nchar" | "nvarchar" if self.arguments.is_empty() => Some(1),
            "char" | "varchar" | "nchar" | "nvarchar" => self.arguments.parse().ok(),
            _ => None,
        }
    }
}

impl std::fmt::Display for DeclaredSqlType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, arguments } = self;
        if arguments.is_empty() { f.write_str(name) } else { write!(f, "{name}({arguments})") }
    }
}

/// Returns the declared parameters and the text after the head, or `None` if the file has no head.
///
/// # Errors
/// Returns a message if the head is malformed, or belongs to another procedure.
pub(super) fn head<'a>(
    text: &'a str,
    procedure: &str,
) -> Result<Option<(Vec<DeclaredParameter>, &'a str)>, String> {
    let mut lexer = Lexer::new(text);
    if !lexer.next_is("CREATE") {
        return Ok(None);
    }
    let alters = lexer.next_is("OR");
    if (alters && !lexer.next_is("ALTER"))
        || (!lexer.next_is("PROCEDURE") && !lexer.next_is("PROC"))
    {
        return Err("a file that begins with CREATE must continue with PROCEDURE".to_owned());
    }
    let is_its_name = |name: &str| match Lexer::new(procedure).next_token() {
        Some(Token::Word(expected)) => name.eq_ignore_ascii_case(&expected),
        _ => false,
    };
    match lexer.next_token() {
        Some(Token::Word(name)) if is_its_name(&name) => {}
        other => {
            return Err(format!(
                "its file declares the procedure {}",
                other.map_or_else(|| "without a name".to_owned(), |token| token.to_string())
            ));
        }
    }
    let mut parameters: Vec<DeclaredParameter> = Vec::new();
    while !lexer.next_is("AS") {
        if !parameters.is_empty() && !lexer.next_is(",") {
            return Err(expected("',' or AS", &mut lexer));
        }
        let parameter = parameter(&mut lexer)?;
        if parameters.iter().any(|known| known.name == parameter.name) {
            return Err(format!("@{} is declared twice", parameter.name));
        }
        parameters.push(parameter);
    }
    Ok(Some((parameters, lexer.rest())))
}

fn parameter(lexer: &mut Lexer<'_>) -> Result<DeclaredParameter, String> {
    let name = match lexer.peek() {
        Some(Token::Word(word)) if word.len() > 1 && word.starts_with('@') => {
            lexer.next_token();
            word.trim_start_matches('@').to_owned()
        }
        _ => return Err(expected("a parameter such as @name", lexer)),
    };
    lexer.next_is("AS");
    let declared = declared_type(lexer)?;
    let default = if lexer.next_is("=") { Some(default(lexer, &declared)?) } else { None };
    let is_output = lexer.next_is("OUTPUT") || lexer.next_is("OUT");
    lexer.next_is("READONLY");
    Ok(DeclaredParameter { name, declared, default, is_output })
}

fn declared_type(lexer: &mut Lexer<'_>) -> Result<DeclaredSqlType, String> {
    let name = match lexer.peek() {
        Some(Token::Word(word)) if word.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            lexer.next_token();
            word.to_ascii_lowercase()
        }
        _ => return Err(expected("a type", lexer)),
    };
    let mut arguments = String::new();
    if lexer.next_is("(") {
        while !lexer.next_is(")") {
            match lexer.next_token() {
                Some(token) => arguments.push_str(&token.to_string().to_ascii_lowercase()),
                None => return Err(expected("')'", lexer)),
            }
        }
    }
    Ok(DeclaredSqlType { name, arguments })
}

/// Reads a literal. A number for a type with exact digits stays text, as in an argument.
fn default(lexer: &mut Lexer<'_>, declared: &DeclaredSqlType) -> Result<SqlValue, String> {
    let sign = if lexer.next_is("-") { "-" } else { "" };
    let is_exact = matches!(declared.name.as_str(), "decimal" | "numeric" | "money" | "smallmoney");
    let value = match lexer.peek() {
        Some(Token::Text(text)) if sign.is_empty() => SqlValue::Text(text),
        Some(Token::Word(word)) if sign.is_empty() && word.eq_ignore_ascii_case("NULL") => {
            SqlValue::Null
        }
        Some(Token::Word(word)) => {
            let number = format!("{sign}{word}");
            match (number.parse::<i64>(), number.parse::<f64>()) {
                (_, Ok(_)) if is_exact && !number.contains(['e', 'E']) => SqlValue::Text(number),
                (Ok(integer), _) => SqlValue::Integer(integer),
                (_, Ok(real))
                    if real.is_finite() && word.starts_with(|c: char| c.is_ascii_digit()) =>
                {
                    SqlValue::Real(real)
                }
                _ => return Err(expected("NULL, a number or text in quotes", lexer)),
            }
        }
        _ => return Err(expected("NULL, a number or text in quotes", lexer)),
    };
    lexer.next_token();
    Ok(value)
}

fn expected(what: &str, lexer: &mut Lexer<'_>) -> String {
    match lexer.peek() {
        Some(token) => format!("expected {what} in its CREATE PROCEDURE, got {token}"),
        None => format!("expected {what} in its CREATE PROCEDURE, got the end of the file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(name: &str, kind: &str, default: Option<SqlValue>) -> DeclaredParameter {
        let (kind, arguments) = kind.split_once('(').unwrap_or((kind, ")"));
        let declared = DeclaredSqlType {
            name: kind.to_owned(),
            arguments: arguments.trim_end_matches(')').to_owned(),
        };
        DeclaredParameter { name: name.to_owned(), declared, default, is_output: false }
    }

    #[test]
    fn a_head_declares_types_defaults_and_outputs() {
        let text = "-- About it.\ncreate procedure [dbo].[Get]\n @a int = 7, @b AS NVARCHAR( 20 ) = N'it''s',
            @c decimal(9, 2) = -1.50, @d bit = NULL, /* none */ @e varchar(MAX), @f float = 2.5,
            @g int OUTPUT, @rows dbo.list READONLY AS\nSELECT 1 AS x";
        let (parameters, rest) = head(text, "dbo.get").unwrap().unwrap();
        let output = DeclaredParameter { is_output: true, ..declared("g", "int", None) };
        assert_eq!(
            parameters,
            [
                declared("a", "int", Some(SqlValue::Integer(7))),
                declared("b", "nvarchar(20)", Some(SqlValue::Text("it's".to_owned()))),
                declared("c", "decimal(9,2)", Some(SqlValue::Text("-1.50".to_owned()))),
                declared("d", "bit", Some(SqlValue::Null)),
                declared("e", "varchar(max)", None),
                declared("f", "float", Some(SqlValue::Real(2.5))),
                output,
                declared("rows", "dbo.list", None),
            ]
        );
        assert_eq!(rest, "\nSELECT 1 AS x");
        assert_eq!(head("SELECT 1", "dbo.get"), Ok(None));
        let bracketed = head("CREATE PROC dbo.[Sales by Year] AS SELECT 1", "dbo.[Sales by Year]");
        assert!(bracketed.unwrap().is_some());
        for text in
            ["CREATE PROC dbo.get AS SELECT 1", "create or alter procedure dbo.get AS SELECT 1"]
        {
            let (none, rest) = head(text, "dbo.get").unwrap().unwrap();
            assert_eq!((none.len(), rest), (0, " SELECT 1"));
        }
    }

    #[test]
    fn a_malformed_head_is_an_error_that_says_what_was_expected() {
        for (text, part) in [
            ("CREATE TABLE t (a)", "must continue with PROCEDURE"),
            ("CREATE OR PROCEDURE dbo.get AS", "must continue with PROCEDURE"),
            ("CREATE OR ALTER VIEW v AS", "must continue with PROCEDURE"),
            ("CREATE PROCEDURE dbo.other AS SELECT 1", "declares the procedure dbo.other"),
            ("CREATE PROCEDURE", "without a name"),
            ("CREATE PROCEDURE dbo.get @a", "expected a type in its CREATE PROCEDURE, got the end"),
            ("CREATE PROCEDURE dbo.get a int AS", "expected a parameter such as @name"),
            ("CREATE PROCEDURE dbo.get @a int @b int AS", "expected ',' or AS"),
            ("CREATE PROCEDURE dbo.get @a int = nan AS", "expected NULL, a number or text"),
            ("CREATE PROCEDURE dbo.get @a int = -'x' AS", "expected NULL, a number or text"),
            ("CREATE PROCEDURE dbo.get @a int, @a int AS", "@a is declared twice"),
            ("CREATE PROCEDURE dbo.get @a varchar(5", "expected ')'"),
        ] {
            let error = head(text, "dbo.get").unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn text_types_have_a_length() {
        for (kind, length) in
            [("nvarchar(20)", Some(20)), ("char", Some(1)), ("varchar(max)", None), ("int", None)]
        {
            assert_eq!(declared("a", kind, None).declared.text_length(), length, "{kind}");
        }
    }
}
