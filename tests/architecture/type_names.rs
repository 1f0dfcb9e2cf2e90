//! Checks that every type name is declared only once.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

use super::SourceFile;
use super::code::blank_literals;
use super::modules::fixture;

/// The names that every module may use for its own private types.
const PRIVATE_NAMES: [&str; 4] = ["Config", "Error", "Kind", "State"];

static TOKEN: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\w+|[^\w\s]").expect("a valid pattern"));

/// Describes every type name that is declared more than once.
fn repeated_names(sources: &[SourceFile]) -> Vec<String> {
    let mut files: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for source in sources {
        for declared in declared_types(&blank_literals(&source.text)) {
            let is_excepted = declared.is_private && PRIVATE_NAMES.contains(&declared.name);
            if !is_excepted {
                files.entry(declared.name.to_owned()).or_default().push(&source.path);
            }
        }
    }
    let repeated = files.iter().filter(|(_, files)| files.len() > 1);
    repeated.map(|(name, files)| format!("{name}: {}", files.join(", "))).collect()
}

struct DeclaredType<'a> {
    name: &'a str,
    is_private: bool,
}

/// Finds the types that are declared in modules and macros. Ignores types in functions and associated types.
fn declared_types(code: &str) -> Vec<DeclaredType<'_>> {
    let tokens: Vec<&str> = TOKEN.find_iter(code).map(|token| token.as_str()).collect();
    let mut declared = Vec::new();
    // The tokens of the current item so far, and a flag for each open block that tells whether its types are
    // ignored.
    let (mut item, mut blocks): (Vec<&str>, Vec<bool>) = (Vec::new(), Vec::new());
    for (at, token) in tokens.iter().copied().enumerate() {
        match token {
            "{" => {
                blocks.push(item.iter().any(|token| matches!(*token, "fn" | "impl" | "trait")));
                item.clear();
            }
            "}" => {
                blocks.pop();
                item.clear();
            }
            ";" => item.clear(),
            "struct" | "enum" | "union" | "trait" | "type" if !blocks.contains(&true) => {
                let name = tokens.get(at + 1).copied().unwrap_or_default();
                if name.starts_with(char::is_uppercase) {
                    declared.push(DeclaredType { name, is_private: !item.contains(&"pub") });
                }
                item.push(token);
            }
            _ => item.push(token),
        }
    }
    declared
}

#[test]
fn repeated_names_are_found_in_every_form() {
    let is_repeated = |text: &str| {
        let sources = fixture(&[("src/a.rs", "pub struct Twice;"), ("tests/b.rs", text)]);
        !repeated_names(&sources).is_empty()
    };
    for text in [
        "struct Twice;",
        "enum Twice { A }",
        "pub(crate) trait Twice {}",
        "pub type Twice = u8;",
        "union Twice { a: u8 }",
        "mod inner { struct Twice<'a>(&'a str); }",
        "macro_rules! m { () => { pub enum Twice { A } }; }",
        "fn f() {} struct Twice;",
    ] {
        assert!(is_repeated(text), "{text}");
    }
    for text in [
        "struct Once;",
        "impl Service for Once { type Twice = u8; }",
        "trait Once { type Twice; }",
        "fn f() { struct Twice; }",
        "// struct Twice;\nconst X: &str = \"struct Twice;\";",
    ] {
        assert!(!is_repeated(text), "{text}");
    }
}

#[test]
fn a_conventional_name_may_be_repeated_only_if_private() {
    let repeated = |a: &str, b: &str| {
        let sources = fixture(&[("src/a.rs", a), ("src/b.rs", b), ("src/c.rs", "struct State;")]);
        !repeated_names(&sources).is_empty()
    };
    assert!(!repeated("struct State;", "pub struct State;"), "only one of the two types is public");
    assert!(repeated("pub(super) struct State;", "pub struct State;"));
    assert!(repeated("struct Other;", "struct Other;"));
}
#[test]
fn a_type_name_exists_once() {
    let repeated = repeated_names(&super::sources());
    assert!(
        repeated.is_empty(),
        "one name for two types misleads readers and searches; only a private State, Kind, Error or Config may be \
         repeated:\n{}",
        repeated.join("\n")
    );
}
