//! Checks that the source code follows the rules of the architecture. Each rule has a reason.

use std::fs;
use std::path::Path;

mod code;
mod cycles;
mod layers;
mod modules;
mod type_names;

use code::is_word;

/// A source file, with its path relative to the repository.
struct SourceFile {
    path: String,
    text: String,
}

/// A rule that every source file must follow.
struct SourceRule {
    name: &'static str,
    reason: &'static str,
    /// A function that returns one line for each violation in a file.
    check: fn(&SourceFile) -> Vec<String>,
    /// The path and text of a file that violates the rule.
    broken: (&'static str, &'static str),
}

const LINES_MAX: usize = 600;

const RULES: &[SourceRule] = &[
    SourceRule {
        name: "a driver is used in one place",
        reason: "replacing or updating a driver must not touch the rest of the code",
        check: layers::drivers_outside_their_module,
        broken: ("src/catalogue.rs", "use rusqlite::Connection;"),
    },
    SourceRule {
        name: "files are small",
        reason: "a file of more than 600 lines has a second subject, which belongs in a file of its own",
        check: |source| match source.text.lines().count() {
            0..=LINES_MAX => Vec::new(),
            lines => vec![format!("{lines} lines")],
        },
        broken: ("src/huge.rs", HUGE),
    },
    SourceRule {
        name: "a file starts with its documentation",
        reason: "a reader must see from the first line whether this is the right file",
        check: |source| {
            let first = source.text.lines().next().unwrap_or_default();
            let text = first.strip_prefix("//! ").unwrap_or_default();
            if text.trim().is_empty() { vec![format!("first line: {first:?}")] } else { Vec::new() }
        },
        broken: ("src/new.rs", "use std::fs;"),
    },
    SourceRule {
        name: "a module's file follows from its name",
        reason: "with one #[path] and one mod.rs, both for roles/, every other file is found by its name",
        check: |source| {
            let mut found = source.lines_that(|line| line.trim_start().starts_with("#[path"));
            if source.path == "src/lib.rs" {
                found.retain(|line| !line.contains("../roles/mod.rs"));
            }
            if source.path.ends_with("/mod.rs") && source.path != "roles/mod.rs" {
                found.push("a mod.rs".to_owned());
            }
            found
        },
        broken: ("src/tls/mod.rs", "#[path = \"elsewhere.rs\"]\nmod server;"),
    },
    SourceRule {
        name: "no work is left for later",
        reason: "a note in the code is forgotten; an issue is not",
        check: |source| {
            let notes = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
            source.all_lines_that(|line| notes.iter().any(|word| has_word(line, word)))
        },
        broken: ("src/tls.rs", concat!("// TO", "DO: reload")),
    },
    SourceRule {
        name: "no lint is switched off with allow",
        reason: "expect(…, reason = …) states its reason, and warns when it is no longer needed",
        check: |source| {
            source.lines_that(|line| {
                ["#[allow(", "#![allow("].iter().any(|mark| line.trim_start().starts_with(mark))
            })
        },
        broken: ("src/tls.rs", "#[allow(dead_code)]\nfn unused() {}"),
    },
    SourceRule {
        name: "tests do not sleep",
        reason: "a sleep is too short on a busy machine and too long on others: use eventually(…)",
        check: |source| {
            if source.path == "tests/support/eventually.rs" {
                return Vec::new();
            }
            source.lines_of("tests/", |line| line.contains(concat!("time::sl", "eep(")))
        },
        broken: ("tests/answers.rs", concat!("tokio::time::sl", "eep(SECOND).await;")),
    },
    SourceRule {
        name: "a test fails with a message",
        reason: "should_panic passes for any panic, and an ignored test without a reason reports nothing",
        check: |source| {
            source.all_lines_that(|line| {
                let line = line.trim_start();
                line.starts_with("#[should_panic") || line == "#[ignore]"
            })
        },
        broken: ("src/envelope/tests.rs", "#[test]\n#[should_panic]\nfn it_fails() {}"),
    },
];

/// A file with one line more than the maximum.
const HUGE: &str = {
    const BYTES: [u8; LINES_MAX + 1] = [b'\n'; LINES_MAX + 1];
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => "",
    }
};

impl SourceFile {
    /// Returns the numbered lines of code, without comments or unit tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test = self.path.ends_with("/tests.rs") || self.path.contains("/tests/");
        let lines = self.text.lines().enumerate();
        lines
            .take_while(move |(_, line)| !is_test && line.trim() != "#[cfg(test)]")
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(number, line)| (number, line.split(" // ").next().unwrap_or(line)))
    }

    fn lines_that(&self, is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
        // In tests/, `#[cfg(test)]` does not mark unit tests: tests/main.rs has it on every module.
        let is_suite = self.path.starts_with("tests/");
        if is_suite { self.all_lines_that(is_wrong) } else { found(self.code(), is_wrong) }
    }

    fn all_lines_that(&self, is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
        found(self.text.lines().enumerate(), is_wrong)
    }

    fn lines_of(&self, part: &str, is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
        if self.path.starts_with(part) { self.lines_that(is_wrong) } else { Vec::new() }
    }
}

fn found<'a>(
    lines: impl Iterator<Item = (usize, &'a str)>,
    is_wrong: impl Fn(&str) -> bool,
) -> Vec<String> {
    let wrong = lines.filter(|(_, line)| is_wrong(line));
    wrong.map(|(number, line)| format!("line {}: {}", number + 1, line.trim())).collect()
}

/// Returns whether a line contains a path with `module` as its first or an inner segment.
fn names(line: &str, module: &str) -> bool {
    let path = format!("{module}::");
    let mut places = line.match_indices(&path);
    places.any(|(at, _)| !line.get(..at).unwrap_or_default().ends_with(is_word))
}

/// Returns whether a line contains a whole word.
fn has_word(line: &str, word: &str) -> bool {
    line.split(|c| !is_word(c)).any(|part| part == word)
}

fn sources() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for part in ["src", "roles", "tests"] {
        collect(&root.join(part), part, &mut sources);
    }
    assert!(sources.len() > 40, "only {} sources found in {}", sources.len(), root.display());
    sources
}

fn collect(directory: &Path, name: &str, into: &mut Vec<SourceFile>) {
    for entry in fs::read_dir(directory).expect("the directory can be read") {
        let path = entry.expect("the entry can be read").path();
        let name =
            format!("{name}/{}", path.file_name().expect("the entry has a name").to_string_lossy());
        if path.is_dir() {
            collect(&path, &name, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("the file is UTF-8");
            into.push(SourceFile { path: name, text });
        }
    }
}

#[test]
fn every_file_keeps_every_rule() {
    let sources = sources();
    let mut findings = Vec::new();
    for rule in RULES {
        for source in &sources {
            for finding in (rule.check)(source) {
                let SourceRule { name, reason, .. } = rule;
                findings.push(format!("{}: {finding}\n    {name}: {reason}", source.path));
            }
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn every_rule_finds_a_file_that_breaks_it() {
    for rule in RULES {
        let (path, text) = rule.broken;
        let source = SourceFile { path: path.to_owned(), text: text.to_owned() };
        assert!(!(rule.check)(&source).is_empty(), "{} finds nothing", rule.name);
    }
}

#[test]
fn every_test_file_is_declared() {
    // `autotests` is off, so that all tests are linked into one executable. A file without a `mod` declaration would not be
    // compiled.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let suite = fs::read_to_string(root.join("main.rs")).expect("tests/main.rs can be read");
    for entry in fs::read_dir(root).expect("tests/ can be read") {
        let name = entry.expect("the entry can be read").file_name().to_string_lossy().into_owned();
        let others = ["main", "call_bench", "pool_bench", "speed", "benchmark"];
        let Some(name) = name.strip_suffix(".rs").filter(|name| !others.contains(name)) else {
            continue;
        };
        let is_declared = suite.lines().any(|line| line == format!("mod {name};"));
        assert!(is_declared, "mod {name} is not in tests/main.rs");
    }
}

#[test]
fn one_tls_library_and_one_crypto_provider_are_used() {
    let lock = include_str!("../Cargo.lock");
    // The lock file lists `ring` for a feature of rustls-webpki that is off, so `ring` is never built. `make deny` checks the
    // dependencies that are built.
    assert_eq!(foreign_cryptography(lock, &[("ring", "rustls-webpki")]), Vec::<String>::new());
    assert_eq!(
        foreign_cryptography(lock, &[]),
        ["ring for rustls-webpki"],
        "the check must be able to fail"
    );
}

/// Returns the packages of a lock file that implement TLS or cryptography themselves, with the packages that depend on them.
fn foreign_cryptography(lock: &str, harmless: &[(&str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    for package in lock.split("[[package]]").skip(1) {
        let mut quoted = package.lines().filter_map(|line| line.split('"').nth(1));
        let name = quoted.next().unwrap_or_default();
        for wanted in quoted.filter_map(|text| text.split(' ').next()) {
            let is_foreign = matches!(wanted, "ring" | "openssl" | "openssl-sys" | "native-tls");
            if is_foreign && !harmless.contains(&(wanted, name)) {
                found.push(format!("{wanted} for {name}"));
            }
        }
    }
    found
}
