//! Splits the file of a procedure into statements.

/// The keywords that can begin a statement. Others could change the connection or the schema.
const ALLOWED: [&str; 7] = ["SELECT", "VALUES", "WITH", "INSERT", "REPLACE", "UPDATE", "DELETE"];

/// Splits SQL text at semicolons outside quotes and comments, and drops empty statements.
///
/// # Errors
/// Returns a message if a statement is not allowed or there is no statement.
pub(super) fn statements(text: &str) -> Result<Vec<String>, String> {
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
    for statement in &found {
        let word: String = statement.chars().take_while(char::is_ascii_alphabetic).collect();
        if !ALLOWED.iter().any(|allowed| allowed.eq_ignore_ascii_case(&word)) {
            return Err(format!(
                "a statement begins with '{word}', but must begin with one of {}",
                ALLOWED.join(", ")
            ));
        }
    }
    if found.is_empty() {
        return Err("the file has no statement".to_owned());
    }
    Ok(found)
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
        // A doubled quote is split into two adjacent quoted pieces, which does not change the text.
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
    use super::statements;

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
            assert_eq!(statements(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_statement_that_would_outlive_the_call_is_refused() {
        for text in
            ["COMMIT", "PRAGMA foreign_keys = 0", "SELECT 1; ATTACH 'x' AS y", "CREATE TABLE t (a)"]
        {
            assert!(statements(text).unwrap_err().contains("begins with"), "{text}");
        }
        assert_eq!(statements(" -- nothing").unwrap_err(), "the file has no statement");
    }
}
