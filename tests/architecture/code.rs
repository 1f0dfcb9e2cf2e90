//! Reduces Rust source to code: blanks comments and literals, and removes unit tests.

/// Replaces comments, string literals and character literals with spaces. Keeps line breaks.
pub(super) fn blank_literals(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let Some(end) = literal_end(&chars, at) else {
            code.push(chars[at]);
            at += 1;
            continue;
        };
        let end = end.min(chars.len());
        code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

/// Returns the end of the comment or literal that starts at `at`, or `None` if none starts there.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let rest = &chars[at..];
    match rest {
        ['/', '/', ..] => Some(at + rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())),
        ['/', '*', ..] => Some(at + block_comment_length(rest)),
        ['"', ..] => Some(at + string_length(rest)),
        ['r', '"' | '#', ..] if at == 0 || !is_word(chars[at - 1]) || chars[at - 1] == 'b' => {
            raw_string_length(rest).map(|length| at + length)
        }
        ['\'', '\\', _, tail @ ..] => {
            Some(at + 4 + tail.iter().position(|c| *c == '\'').unwrap_or(tail.len()))
        }
        ['\'', _, '\'', ..] => Some(at + 3),
        _ => None,
    }
}

fn block_comment_length(rest: &[char]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (at, depth) = (at + 2, depth + 1),
            ['*', '/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string_length(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn raw_string_length(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    let body = rest.get(1 + hashes..).filter(|body| body.first() == Some(&'"'))?;
    let ends = |at: &usize| body[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    let quotes = (1..body.len()).filter(|at| body[*at] == '"');
    let quote = quotes.into_iter().find(ends).unwrap_or(body.len());
    Some(1 + hashes + quote + 1 + hashes)
}

/// Removes every item marked `#[cfg(test)]` from code whose literals are blanked.
pub(super) fn without_unit_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some((before, after)) = rest.split_once(MARK) {
        kept.push_str(before);
        rest = after.split_at(item_length(after)).1;
    }
    kept + rest
}

/// Returns the length of the item at the start of `code`. The item ends with its `;` or its block.
fn item_length(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[test]
fn comments_and_literals_are_blanked() {
    let blanked = |text| blank_literals(text).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(blanked("a // b\nc /* d /* e */ f */ g"), "a c g");
    assert_eq!(blanked(r#"f("a \" b", x) "c""#), "f( , x)");
    assert_eq!(blanked("f(r#\"a \" b\"#, br\"c\", x)"), "f( , b , x)");
    assert_eq!(blanked(r"f('{', '\'', '\u{7d}', &'a str)"), "f( , , , &'a str)");
    assert_eq!(blank_literals("\"a\nb\" c"), "  \n   c");
}

#[test]
fn unit_tests_are_removed() {
    let code =
        "a();\n#[cfg(test)]\nmod tests { fn t() { b(); } }\nc();\n#[cfg(test)]\nuse d;\ne();";
    let kept = without_unit_tests(code);
    assert_eq!(kept.split_whitespace().collect::<Vec<_>>(), ["a();", "c();", "e();"]);
}
