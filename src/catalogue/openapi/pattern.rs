//! Translates regular expressions of Rust's `regex` to ECMA 262, the syntax of `pattern` in JSON Schema.
//!
//! The translation uses only syntax that `RegExp` interprets in the same way with and without the flag `u`, and that other
//! common engines support as well. An expression that needs other syntax is not translated.

use std::fmt::Write as _;

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look, Repetition};

/// The maximum number of ranges in a class. Larger classes, such as `\w` with all letters of Unicode, are not translated.
const RANGES_MAX: usize = 64;
/// The last character that consists of one code unit in UTF-16. Without the flag `u`, `RegExp` reads each later
/// character as two characters.
const LAST_CODE_UNIT: char = '\u{FFFF}';

/// Returns a class that consists of these ranges of characters.
pub(super) fn class(ranges: &[(char, char)]) -> ClassUnicode {
    ClassUnicode::new(ranges.iter().map(|(start, end)| ClassUnicodeRange::new(*start, *end)))
}

/// Returns the ECMA 262 pattern for the texts that match the expression `rust` and consist only of `allowed`
/// characters. Returns `None` if the expression cannot be translated. The pattern is anchored at both ends.
pub(super) fn translate(rust: &str, allowed: &ClassUnicode) -> Option<String> {
    let hir = regex_syntax::parse(rust).ok()?;
    let mut others = String::new();
    write_class(allowed.clone(), &mut others)?;
    let parts = match hir.kind() {
        HirKind::Concat(parts) => parts.as_slice(),
        _ => std::slice::from_ref(&hir),
    };
    let is =
        |part: Option<&Hir>, look| part.is_some_and(|part| *part.kind() == HirKind::Look(look));
    let is_anchored = (is(parts.first(), Look::Start), is(parts.last(), Look::End));
    let mut printer = Printer { allowed, out: String::new() };
    if !is_anchored.0 {
        write!(printer.out, "^{others}*").ok()?;
    }
    match hir.kind() {
        HirKind::Concat(_) => printer.sequence(parts)?,
        _ => printer.atom(&hir)?,
    }
    if !is_anchored.1 {
        write!(printer.out, "{others}*$").ok()?;
    }
    Some(printer.out)
}

struct Printer<'a> {
    allowed: &'a ClassUnicode,
    out: String,
}

impl Printer<'_> {
    fn sequence(&mut self, parts: &[Hir]) -> Option<()> {
        parts.iter().try_for_each(|part| match part.kind() {
            HirKind::Concat(parts) => self.sequence(parts),
            HirKind::Literal(_) => self.literal(part),
            _ => self.atom(part),
        })
    }

    /// Prints an expression so that it can be repeated and be part of a sequence.
    fn atom(&mut self, hir: &Hir) -> Option<()> {
        match hir.kind() {
            HirKind::Empty => self.out.push_str("(?:)"),
            HirKind::Literal(literal) => {
                let text = std::str::from_utf8(&literal.0).ok()?;
                let is_single =
                    text.chars().count() == 1 && text.chars().all(|c| c <= LAST_CODE_UNIT);
                if is_single {
                    return self.literal(hir);
                }
                self.group(|printer| printer.literal(hir))?;
            }
            HirKind::Class(class) => self.class(class)?,
            HirKind::Look(look) => self.out.push_str(match look {
                Look::Start => "^",
                Look::End => "$",
                Look::WordAscii => r"\b",
                Look::WordAsciiNegate => r"\B",
                _ => return None,
            }),
            HirKind::Repetition(repetition) => self.repetition(repetition)?,
            HirKind::Capture(capture) => self.group(|printer| printer.part(&capture.sub))?,
            HirKind::Concat(parts) => self.group(|printer| printer.sequence(parts))?,
            HirKind::Alternation(parts) => self.group(|printer| printer.alternation(parts))?,
        }
        Some(())
    }

    /// Prints the whole content of a group.
    fn part(&mut self, hir: &Hir) -> Option<()> {
        match hir.kind() {
            HirKind::Empty => Some(()),
            HirKind::Literal(_) => self.literal(hir),
            HirKind::Concat(parts) => self.sequence(parts),
            HirKind::Alternation(parts) => self.alternation(parts),
            _ => self.atom(hir),
        }
    }

    fn alternation(&mut self, parts: &[Hir]) -> Option<()> {
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                self.out.push('|');
            }
            match part.kind() {
                HirKind::Alternation(_) => self.atom(part)?,
                _ => self.part(part)?,
            }
        }
        Some(())
    }

    fn group(&mut self, print: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        self.out.push_str("(?:");
        print(self)?;
        self.out.push(')');
        Some(())
    }

    fn literal(&mut self, hir: &Hir) -> Option<()> {
        let HirKind::Literal(literal) = hir.kind() else { return None };
        for c in std::str::from_utf8(&literal.0).ok()?.chars() {
            let is_allowed =
                self.allowed.ranges().iter().any(|range| range.start() <= c && c <= range.end());
            if !is_allowed {
                return None;
            }
            write_char(c, false, &mut self.out)?;
        }
        Some(())
    }

    fn class(&mut self, class: &Class) -> Option<()> {
        let mut class = match class {
            Class::Unicode(class) => class.clone(),
            Class::Bytes(class) => class.to_unicode_class()?,
        };
        class.intersect(self.allowed);
        write_class(class, &mut self.out)
    }

    fn repetition(&mut self, repetition: &Repetition) -> Option<()> {
        if matches!(repetition.sub.kind(), HirKind::Look(_) | HirKind::Repetition(_)) {
            self.group(|printer| printer.atom(&repetition.sub))?;
        } else {
            self.atom(&repetition.sub)?;
        }
        // Whether a repetition is greedy does not affect which texts match.
        let written = match (repetition.min, repetition.max) {
            (0, None) => write!(self.out, "*"),
            (1, None) => write!(self.out, "+"),
            (0, Some(1)) => write!(self.out, "?"),
            (min, None) => write!(self.out, "{{{min},}}"),
            (min, Some(max)) if min == max => write!(self.out, "{{{min}}}"),
            (min, Some(max)) => write!(self.out, "{{{min},{max}}}"),
        };
        written.ok()
    }
}

/// Writes a class. If it has characters beyond `LAST_CODE_UNIT` and its complement has none, the complement is written as a
/// negated class.
fn write_class(mut class: ClassUnicode, out: &mut String) -> Option<()> {
    let is_wide = |class: &ClassUnicode| {
        class.ranges().last().is_some_and(|range| range.end() > LAST_CODE_UNIT)
    };
    let is_negated = is_wide(&class);
    if is_negated {
        class.negate();
    }
    if is_wide(&class) || class.ranges().len() > RANGES_MAX {
        return None;
    }
    match class.ranges() {
        [] if is_negated => out.push_str(r"[\s\S]"),
        [] => return None,
        [one] if !is_negated && one.start() == one.end() => write_char(one.start(), false, out)?,
        ranges => {
            out.push_str(if is_negated { "[^" } else { "[" });
            for range in ranges {
                write_char(range.start(), true, out)?;
                let distance = u32::from(range.end()) - u32::from(range.start());
                if distance > 1 {
                    out.push('-');
                }
                if distance > 0 {
                    write_char(range.end(), true, out)?;
                }
            }
            out.push(']');
        }
    }
    Some(())
}

/// Writes one character, and escapes it where the syntax requires this.
fn write_char(c: char, is_in_class: bool, out: &mut String) -> Option<()> {
    let is_syntax = if is_in_class { r"\]^[-".contains(c) } else { r"\^$.*+?()[]{}|/".contains(c) };
    if is_syntax {
        out.push('\\');
    }
    if c.is_ascii_graphic() || c == ' ' || c.is_alphanumeric() || c > LAST_CODE_UNIT {
        out.push(c);
        return Some(());
    }
    write!(out, "\\u{:04X}", u32::from(c)).ok()
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    fn translated(rust: &str) -> Option<String> {
        translate(rust, &class(&[('\u{1}', char::MAX)]))
    }

    #[test]
    fn rust_syntax_is_translated_to_ecma_262() {
        for (rust, ecma) in [
            ("^[A-Z0-9]{15}$", "^[0-9A-Z]{15}$"),
            (r"\A\d{2}\z", ""),
            (r"\A[[:digit:]]+\z", "^[0-9]+$"),
            (r"^[[:alpha:]_][[:alnum:]-]*$", r"^[A-Z_a-z][\-0-9A-Za-z]*$"),
            ("(?i)^ab$", "^[Aa][Bb]$"),
            ("(?i-u)^k$", "^[Kk]$"),
            ("^(?P<year>[0-9]{4})(?:-[0-9]{2})?$", "^(?:[0-9]{4})(?:-[0-9]{2})?$"),
            ("^(cat|dog|)$", "^(?:cat|dog|)$"),
            ("^a.c$", r"^a[^\u0000\u000A]c$"),
            ("^(?s:.)+$", r"^[^\u0000]+$"),
            (
                r"^\s$",
                r"^[\u0009-\u000D \u0085\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]$",
            ),
            ("^(?x) a b # c\n$", "^ab$"),
            (r"^\x{e4}\x{2603}$", r"^ä\u2603$"),
            (r"^1\.0/[a\]b-]$", r"^1\.0\/[\-\]ab]$"),
            ("^(?:ab)+?$", "^(?:ab)+$"),
            ("b", r"^[^\u0000]*b[^\u0000]*$"),
            ("^a|b$", r"^[^\u0000]*(?:^a|b$)[^\u0000]*$"),
            (r"(?-u:\b)[ab]c$", r"^[^\u0000]*\b[ab]c$"),
            ("", r"^[^\u0000]*(?:)[^\u0000]*$"),
        ] {
            let expected = (!ecma.is_empty()).then(|| ecma.to_owned());
            // The set of the digits of all scripts has too many ranges to be translated.
            assert_eq!(translated(rust), expected, "{rust}");
        }
    }

    #[test]
    fn syntax_that_not_all_engines_share_is_not_translated() {
        for rust in [r"^\p{L}+$", r"^\w+$", r"\bword\b", "(?m)^a$", "^[😀-😂]$", r"^a\x00$"] {
            assert_eq!(translated(rust), None, "{rust}");
        }
    }

    #[test]
    fn a_translation_matches_the_same_texts() {
        let texts = [
            "", "a", "A", "ab", "AB", "b\nc", "a-b", "0", "2024-02", "ä", "ab1", "1.0/a",
            "\u{212a}",
        ];
        for rust in
            ["^[a-c]+$", "(?i)^AB?$", "b", "^.$", "[[:digit:]]", "a|-", "(?i)k", r"^1\.0/[a\]b-]$"]
        {
            let (own, other) = (Regex::new(rust).unwrap(), translated(rust).unwrap());
            // Apart from its escapes, the translation is also valid in Rust's syntax.
            let other =
                other.replace(r"\u", r"\x{").replace("0000", "0000}").replace("000A", "000A}");
            let other = other.replace("212A", "212A}");
            let other = Regex::new(&other).unwrap_or_else(|error| panic!("{rust}: {error}"));
            for text in texts {
                assert_eq!(own.is_match(text), other.is_match(text), "{rust} {text:?}");
            }
        }
    }

    #[test]
    fn characters_that_cannot_be_sent_are_not_part_of_the_pattern() {
        let segment = class(&[(' ', '.'), ('0', '[')]);
        let translated = |rust: &str| translate(rust, &segment);
        assert_eq!(translated("^.+$").as_deref(), Some(r"^[ -.0-\[]+$"));
        assert_eq!(translated("^a$"), None);
    }
}
