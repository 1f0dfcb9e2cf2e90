//! Promise: the code keeps to the rules of its house, and each rule says why it is there.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

mod layers;

/// A source file, its path relative to the checkout.
struct Source {
    path: String,
    text: String,
}

/// A rule about every source file.
struct Rule {
    name: &'static str,
    reason: &'static str,
    /// What is wrong with a file, a line for each finding.
    check: fn(&Source) -> Vec<String>,
    /// A file that breaks it: path and text.
    broken: (&'static str, &'static str),
}

const LINES_MAX: usize = 600;

const RULES: &[Rule] = &[
    Rule {
        name: "shared code knows no role",
        reason: "src is what both roles stand on; what one of them needs alone lives with it in roles/",
        check: |source| match source.path.as_str() {
            "src/lib.rs" | "src/main.rs" => Vec::new(),
            path if path.starts_with("src/") => source.lines_that(|line| names(line, "roles")),
            _ => Vec::new(),
        },
        broken: ("src/admin.rs", "use crate::roles::gateway;"),
    },
    Rule {
        name: "the roles never name each other",
        reason: "they meet on the wire, where any other program can take the place of either",
        check: |source| {
            source
                .lines_of("roles/worker", |line| OTHER_ROLE_GATEWAY.is_match(line))
                .or(source.lines_of("roles/gateway", |line| OTHER_ROLE_WORKER.is_match(line)))
        },
        broken: ("roles/worker/slots.rs", "use crate::roles::{gateway::Caller};"),
    },
    Rule {
        name: "the bus and the databases never name each other",
        reason: "a procedure does not know how its request came, nor a message what it will do",
        check: |source| {
            source
                .lines_of("src/messaging", |line| names(line, "procedures"))
                .or(source.lines_of("src/procedures", |line| names(line, "messaging")))
        },
        broken: ("src/messaging/nats.rs", "use crate::procedures::Backend;"),
    },
    Rule {
        name: "the gateway runs no procedure",
        reason: "it faces the public: the machine that can reach the database is another one",
        check: |source| source.lines_of("roles/gateway", |line| line.contains("crate::procedures")),
        broken: ("roles/gateway/session.rs", "let x = crate::procedures::connect();"),
    },
    Rule {
        name: "a driver has one home",
        reason: "who replaces or updates a driver has one place to look at",
        check: layers::drivers_away_from_home,
        broken: ("src/catalogue.rs", "use rusqlite::Connection;"),
    },
    Rule {
        name: "use goes down",
        reason: "a part can be understood, and tested, with what is below it and nothing else",
        check: layers::uses_of_what_is_above,
        broken: ("src/problem.rs", "use crate::{future::BoxFuture, admin::Admin};"),
    },
    Rule {
        name: "files are small",
        reason: "past 600 lines a file has a second subject: give it a file of its own",
        check: |source| match source.text.lines().count() {
            0..=LINES_MAX => Vec::new(),
            lines => vec![format!("{lines} lines")],
        },
        broken: ("src/huge.rs", HUGE),
    },
    Rule {
        name: "a file says first what it is",
        reason: "the newcomer reads one sentence and knows whether this is the place",
        check: |source| {
            let first = source.text.lines().next().unwrap_or_default();
            let is_said = first.strip_prefix("//! ").is_some_and(|said| !said.trim().is_empty());
            if is_said { Vec::new() } else { vec![format!("first line: {first:?}")] }
        },
        broken: ("src/new.rs", "use std::fs;"),
    },
    Rule {
        name: "modules are where their names say",
        reason: "one #[path] and one mod.rs, for roles/: everything else is found by its name",
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
    Rule {
        name: "nothing is put off",
        reason: "a note to do it later is an issue, or is done now",
        check: |source| {
            let later = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
            source.all_lines_that(|line| later.iter().any(|word| says(line, word)))
        },
        broken: ("src/tls.rs", concat!("// TO", "DO: reload")),
    },
    Rule {
        name: "no lint is switched off",
        reason: "expect(…, reason) says why, and says so when it is needed no more; allow rots",
        check: |source| {
            source.lines_that(|line| {
                ["#[allow(", "#![allow("].iter().any(|mark| line.trim_start().starts_with(mark))
            })
        },
        broken: ("src/tls.rs", "#[allow(dead_code)]\nfn unused() {}"),
    },
    Rule {
        name: "a test waits for what it waits for",
        reason: "a sleep is too short on a busy machine and too long on every other: eventually(…)",
        check: |source| {
            if source.path == "tests/support/eventually.rs" {
                return Vec::new();
            }
            source.lines_of("tests/", |line| line.contains(concat!("time::sl", "eep(")))
        },
        broken: ("tests/answers.rs", concat!("tokio::time::sl", "eep(SECOND).await;")),
    },
    Rule {
        name: "a test says what is wrong",
        reason: "should_panic passes for any panic, and a test that is ignored says nothing at all",
        check: |source| {
            source.all_lines_that(|line| {
                let line = line.trim_start();
                line.starts_with("#[should_panic") || line == "#[ignore]"
            })
        },
        broken: ("src/envelope/tests.rs", "#[test]\n#[should_panic]\nfn it_fails() {}"),
    },
];

static OTHER_ROLE_GATEWAY: LazyLock<Regex> = LazyLock::new(|| other_role("gateway"));
static OTHER_ROLE_WORKER: LazyLock<Regex> = LazyLock::new(|| other_role("worker"));

/// A path through the parent of both roles.
fn other_role(name: &str) -> Regex {
    let pattern = format!(r"\b(roles|super)::(\{{[^}}]*\b)?{name}\b");
    Regex::new(&pattern).expect("a good pattern")
}

/// More lines than are allowed.
const HUGE: &str = {
    const BYTES: [u8; LINES_MAX + 1] = [b'\n'; LINES_MAX + 1];
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => "",
    }
};

impl Source {
    /// Lines of code, comments and unit tests left out.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test = self.path.ends_with("/tests.rs") || self.path.contains("/tests/");
        let lines = self.text.lines().enumerate();
        lines
            .take_while(move |(_, line)| !is_test && line.trim() != "#[cfg(test)]")
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(number, line)| (number, line.split(" // ").next().unwrap_or(line)))
    }

    fn lines_that(&self, is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
        // Test files in tests/ open their modules with the mark of unit tests: they are code as they stand.
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

/// The first findings, or the others when there are none.
trait Or {
    fn or(self, others: Self) -> Self;
}

impl Or for Vec<String> {
    fn or(self, others: Self) -> Self {
        if self.is_empty() { others } else { self }
    }
}

/// Whether a line has a path that goes through `module`.
fn names(line: &str, module: &str) -> bool {
    let path = format!("{module}::");
    line.match_indices(&path).any(|(at, _)| {
        !line.get(..at).unwrap_or_default().ends_with(|c: char| c.is_alphanumeric() || c == '_')
    })
}

/// Whether a line has a word, alone.
fn says(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|each| each == word)
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for part in ["src", "roles", "tests"] {
        collect(&root.join(part), part, &mut sources);
    }
    assert!(sources.len() > 40, "only {} sources found in {}", sources.len(), root.display());
    sources
}

fn collect(directory: &Path, name: &str, into: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).expect("a directory of the checkout") {
        let path = entry.expect("an entry").path();
        let name = format!("{name}/{}", path.file_name().expect("a name").to_string_lossy());
        if path.is_dir() {
            collect(&path, &name, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("UTF-8");
            into.push(Source { path: name, text });
        }
    }
}

#[test]
fn every_source_keeps_every_rule() {
    let sources = sources();
    let mut findings = Vec::new();
    for rule in RULES {
        for source in &sources {
            for finding in (rule.check)(source) {
                let Rule { name, reason, .. } = rule;
                findings.push(format!("{}: {finding}\n    {name}: {reason}", source.path));
            }
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn every_rule_finds_what_breaks_it() {
    for rule in RULES {
        let (path, text) = rule.broken;
        let source = Source { path: path.to_owned(), text: text.to_owned() };
        assert!(!(rule.check)(&source).is_empty(), "{} finds nothing", rule.name);
    }
}

#[test]
fn every_test_file_is_part_of_the_suite() {
    // `autotests` is off, for one quick link: a file that nobody declares is never even compiled.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let suite = fs::read_to_string(root.join("main.rs")).expect("the suite");
    for entry in fs::read_dir(root).expect("the tests") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        let others = ["main", "demo", "bench", "pool_bench", "speed", "speedometer"];
        let Some(name) = name.strip_suffix(".rs").filter(|name| !others.contains(name)) else {
            continue;
        };
        let is_declared = suite.lines().any(|line| line == format!("mod {name};"));
        assert!(is_declared, "mod {name} is not in tests/main.rs");
    }
}

#[test]
fn one_tls_library_and_one_crypto_provider_are_in_the_tree() {
    let lock = include_str!("../Cargo.lock");
    // What the lock file mentions but no build takes in: an option of rustls-webpki that nobody switches on.
    // `make deny` looks at the true tree.
    assert_eq!(foreign_cryptography(lock, &[("ring", "rustls-webpki")]), Vec::<String>::new());
    assert_eq!(
        foreign_cryptography(lock, &[]),
        ["ring for rustls-webpki"],
        "so the check can fail"
    );
}

/// Packages of a lock file that bring TLS or cryptography of their own, with who wants them.
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
