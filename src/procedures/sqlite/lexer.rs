//! Splits the head of a procedure's file into tokens.

use std::fmt;

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A keyword, a name without its brackets, a parameter or a number.
    Word(String),
    /// Text in single quotes, without the quotes.
    Text(String),
    /// Any other character.
    Symbol(char),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(text) | Self::Text(text) => f.write_str(text),
            Self::Symbol(symbol) => write!(f, "{symbol}"),
        }
    }
}

/// Reads tokens from text.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    rest: &'a str,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    /// Returns the text after the last token.
    pub(super) fn rest(&self) -> &'a str {
        self.rest
    }

    pub(super) fn peek(&self) -> Option<Token> {
        self.clone().next_token()
    }

    /// Takes the next token if it is this keyword or symbol.
    pub(super) fn next_is(&mut self, expected: &str) -> bool {
        let mut ahead = self.clone();
        let is_expected = match ahead.next_token() {
            Some(Token::Word(word)) => word.eq_ignore_ascii_case(expected),
            Some(Token::Symbol(symbol)) => expected.chars().eq([symbol]),
            Some(Token::Text(_)) | None => false,
        };
        if is_expected {
            *self = ahead;
        }
        is_expected
    }

    pub(super) fn next_token(&mut self) -> Option<Token> {
        self.skip_blanks();
        let is_prefixed = self.rest.starts_with("N'") || self.rest.starts_with("n'");
        if is_prefixed || self.rest.starts_with('\'') {
            self.rest = self.rest.trim_start_matches(['N', 'n']);
            return Some(Token::Text(self.take_quoted('\'')));
        }
        let mut word = String::new();
        while let Some(next) = self.rest.chars().next() {
            if next == '[' {
                word.push_str(&self.take_quoted(']'));
            } else if is_word(next) {
                word.push(next);
                self.skip(next.len_utf8());
            } else {
                break;
            }
        }
        if !word.is_empty() {
            return Some(Token::Word(word));
        }
        let symbol = self.rest.chars().next()?;
        self.skip(symbol.len_utf8());
        Some(Token::Symbol(symbol))
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    /// Skips blanks and comments.
    fn skip_blanks(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            let end = if self.rest.starts_with("--") {
                self.rest.find('\n')
            } else if self.rest.starts_with("/*") {
                self.rest.find("*/").map(|at| at + 2)
            } else {
                return;
            };
            self.skip(end.unwrap_or(self.rest.len()));
        }
    }

    /// Takes text between delimiters of one byte. A doubled closing delimiter stands for one such
    /// character in the text.
    fn take_quoted(&mut self, close: char) -> String {
        self.skip(1);
        let mut text = String::new();
        while let Some(next) = self.rest.chars().next() {
            self.skip(next.len_utf8());
            if next == close {
                if !self.rest.starts_with(close) {
                    break;
                }
                self.skip(1);
            }
            text.push(next);
        }
        text
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '@' | '#' | '$' | '.')
}
