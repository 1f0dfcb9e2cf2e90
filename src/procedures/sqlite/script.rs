//! Splits a procedure's file into statements.

/// The keywords that can begin a statement. Other statements could change the connection or the
/// schema.
const ALLOWED: [&str; 7] = ["SELECT", "VALUES", "WITH", "INSERT", "REPLACE", "UPDATE", "DELETE"];

/// A statement of a procedure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ScriptStatement {
    /// A statement that `SQLite` executes.
    Sql(String),
    /// A statement that begins or ends a transaction.
    Transaction(TransactionStatement),
}

/// A statement that begins or ends a transaction, with T-SQL's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransactionStatement {
    Begin,
    Commit,
    Rollback,
}

impl TransactionStatement {
    /// Recognizes `BEGIN TRAN[SACTION]`, `COMMIT [TRAN[SACTION]]` and `ROLLBACK [TRAN[SACTION]]`.
    fn parse(statement: &str) -> Option<Self> {
        let mut words = statement.split_ascii_whitespace().map(str::to_ascii_uppercase);
        let first = words.next()?;
        let (noun, rest) = (words.next(), words.next());
        let has_noun = matches!(noun.as_deref(), Some("TRAN" | "TRANSACTION"));
        match first.as_str() {
            _ if rest.is_some() || (noun.is_some() && !has_noun) => None,
            "BEGIN" if has_noun => Some(Self::Begin),
            "COMMIT" => Some(Self::Commit),
            "ROLLBACK" => Some(Self::Rollback),
            _ => None,
        }
    }
}

/// Splits SQL text at semicolons outside quotes and comments. Drops empty statements.
///
/// # Errors
/// Returns a message if a statement is not allowed or there is no statement.
pub(super) fn statements(text: &str) -> Result<Vec<ScriptStatement>, String> {
    let mut found = Vec::new();
    let mut scanner = Scanner { rest: text };
    let mut statement = String::new();
    let mut has_code = false;
    while let Some(piece) = scanner.next_piece() {
        match piece {
            ScriptPiece::End => {
                push(&mut found, &mut statement, has_code);
                has_code = false;
            }
            ScriptPiece::Comment => statement.push(' '),
            ScriptPiece::Code(code) => {
                has_code = has_code || !code.trim().is_empty();
                statement.push_str(code);
            }
        }
    }
    push(&mut found, &mut statement, has_code);
    let mut statements = Vec::with_capacity(found.len());
    for statement in found {
        if let Some(transaction) = TransactionStatement::parse(&statement) {
            statements.push(ScriptStatement::Transaction(transaction));
            continue;
        }
        let word: String = statement.chars().take_while(char::is_ascii_alphabetic).collect();
        if !ALLOWED.iter().any(|allowed| allowed.eq_ignore_ascii_case(&word)) {
            return Err(format!(
                "a statement begins with '{word}', but must begin with one of {}, or be BEGIN TRANSACTION, COMMIT or ROLLBACK",
                ALLOWED.join(", ")
            ));
        }
        statements.push(ScriptStatement::Sql(statement));
    }
    if !statements.iter().any(|statement| matches!(statement, ScriptStatement::Sql(_))) {
        return Err("the file has no statement".to_owned());
    }
    Ok(statements)
}

fn push(found: &mut Vec<String>, statement: &mut String, has_code: bool) {
    if has_code {
        found.push(statement.trim().to_owned());
    }
    statement.clear();
}

enum ScriptPiece<'a> {
    Code(&'a str),
    Comment,
    End,
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn next_piece(&mut self) -> Option<ScriptPiece<'a>> {
        let first = self.rest.chars().next()?;
        if first == ';' {
            self.take(1);
            return Some(ScriptPiece::End);
        }
        if self.rest.starts_with("--") {
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            self.take(end);
            return Some(ScriptPiece::Comment);
        }
        if self.rest.starts_with("/*") {
            self.take_past("*/", 2);
            return Some(ScriptPiece::Comment);
        }
        // A doubled quote is split into two adjacent quoted pieces, which leaves the text
        // unchanged.
        Some(ScriptPiece::Code(match first {
            '\'' => self.take_past("'", 1),
            '"' => self.take_past("\"", 1),
            '`' => self.take_past("`", 1),
            '[' => self.take_past("]", 1),
            _ => {
                let tail = self.rest.get(first.len_utf8()..).unwrap_or_default();
                let more = tail.find([';', '-', '/', '\'', '"', '`', '[']).unwrap_or(tail.len());
                self.take(first.len_utf8() + more)
            }
        }))
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    /// Takes an opening delimiter of `opening` bytes and everything through the closing delimiter.
    fn take_past(&mut self, close: &str, opening: usize) -> &'a str {
        let inside = self.rest.get(opening..).unwrap_or_default();
        let end = inside.find(close).map_or(self.rest.len(), |at| opening + at + close.len());
        self.take(end)
    }
}

#[cfg(test)]
mod tests {
    use super::{ScriptStatement, TransactionStatement, statements};

    #[test]
    fn a_file_is_split_at_semicolons_outside_quotes_and_comments() {
        let cases: [(&str, &[&str]); 7] = [
            ("SELECT 1", &["SELECT 1"]),
            ("SELECT 1; SELECT 2;\n\n", &["SELECT 1", "SELECT 2"]),
            ("-- a; b\nSELECT ';' AS \"a;b\" -- end; \n;", &["SELECT ';' AS \"a;b\""]),
            ("/* ; */ select 'it''s;' ; /* only this */ ;", &["select 'it''s;'"]),
            ("SELECT [a;b], `c;d` - 1 / 2", &["SELECT [a;b], `c;d` - 1 / 2"]),
            ("SELECT 'ä;ö' || @é; VALUES (1)", &["SELECT 'ä;ö' || @é", "VALUES (1)"]),
            ("SELECT 'open; ", &["SELECT 'open;"]),
        ];
        for (text, expected) in cases {
            let expected: Vec<_> =
                expected.iter().map(|sql| ScriptStatement::Sql((*sql).to_owned())).collect();
            assert_eq!(statements(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_statement_that_would_outlive_the_call_is_refused() {
        for text in [
            "BEGIN",
            "BEGIN IMMEDIATE",
            "COMMIT WORK",
            "ROLLBACK TRANSACTION x",
            "SAVEPOINT x",
            "PRAGMA foreign_keys = 0",
            "SELECT 1; ATTACH 'x' AS y",
            "CREATE TABLE t (a)",
        ] {
            assert!(statements(text).unwrap_err().contains("begins with"), "{text}");
        }
        for text in [" -- nothing", "BEGIN TRANSACTION; COMMIT"] {
            assert_eq!(statements(text).unwrap_err(), "the file has no statement");
        }
    }

    #[test]
    fn transactions_are_written_as_in_transact_sql() {
        use TransactionStatement::{Begin, Commit, Rollback};
        let text = "begin tran; BEGIN /* own */ TRANSACTION; SELECT 1; commit\n; COMMIT tran; \
                    rollback; ROLLBACK TRANSACTION";
        let found = statements(text).unwrap().into_iter().filter_map(|statement| match statement {
            ScriptStatement::Transaction(one) => Some(one),
            ScriptStatement::Sql(_) => None,
        });
        assert!(found.eq([Begin, Begin, Commit, Commit, Rollback, Rollback]));
    }
}
